"""From training to a server and back: the scripts that make weights and put them where others find them."""

import base64
import json
import os
import subprocess
import sys
import threading
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import checkpoints
import zoo
from checkpoints.weights import ABOUT
from zoo.testing import CLASSES, Subject, pool

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import finetune_study  # noqa: E402
import publish  # noqa: E402
import train_weights  # noqa: E402
from train_weights import Recipe  # noqa: E402

DEAD = {"critic_auc": 0.25, "active_units": 1, "latent_units": 32}
TOLD = {"data": "noise", "labels": 12, "accuracy": 0.5, "n": 48, "seed": 0, "diagnosis": DEAD}


@pytest.fixture
def folder(tmp_path):
    """A folder of two small files with cards."""
    (tmp_path / "made").mkdir()
    for name in ("plain", "vaal"):
        path = Subject(name).learner().fit(pool()).save(tmp_path / "made" / f"{name}.noise.safetensors")
        card, tensors = checkpoints.read(path)
        checkpoints.write(path, {**card, "about": TOLD}, tensors)
    return tmp_path / "made"


@pytest.fixture
def serve(monkeypatch):
    """Serves folders, as `python -m http.server` does; gives their address."""
    running = []
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    for name in ("HF_HUB_OFFLINE", "ALZOO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def start(handler):
        http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(http)
        return f"http://127.0.0.1:{http.server_port}"

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


def test_a_folder_gets_a_manifest_and_cards(folder):
    assert publish.write(folder) == ["plain.noise", "vaal.noise"]
    plain, vaal = checkpoints.table(folder / "manifest.toml")
    assert (plain.file, plain.bytes) == ("plain.noise.safetensors", (folder / plain.file).stat().st_size)
    assert vaal.sha256 == sha256((folder / vaal.file).read_bytes()).hexdigest()
    assert vaal.about == {key: value for key, value in TOLD.items() if key in ABOUT}
    page = (folder / "vaal.noise.md").read_text()
    for words in ("# vaal.noise", "Sinha", "0.5000 on 48 test images", "critic_auc | 0.25", f"{CLASSES} classes"):
        assert words in page
    before = (folder / "manifest.toml").read_bytes()
    publish.write(folder)
    assert (folder / "manifest.toml").read_bytes() == before


def test_the_manifest_keeps_where_the_folder_is_served(folder, tmp_path, monkeypatch, serve):
    url = serve(partial(SimpleHTTPRequestHandler, directory=folder))
    monkeypatch.delenv("ALZOO_WEIGHTS_URL", raising=False)
    publish.write(folder)
    assert [weights.url for weights in checkpoints.table(folder / "manifest.toml")] == [None, None]
    for asked in ({"url": url}, {}):
        publish.write(folder, **asked)
        plain, _ = checkpoints.table(folder / "manifest.toml")
        assert plain.url == url
    assert checkpoints.fetch(plain, tmp_path).read_bytes() == (folder / plain.file).read_bytes()
    publish.write(folder, url="")
    assert checkpoints.table(folder / "manifest.toml")[0].url is None


@pytest.mark.parametrize("largest", [1 << 24, 4000])
def test_a_served_folder_gives_the_same_bytes(folder, tmp_path, monkeypatch, serve, largest):
    want = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    publish.write(folder, largest)
    publish.write(folder, largest)
    publish.copy(folder, tmp_path / "served")
    assert all(path.stat().st_size <= largest for path in (tmp_path / "served").glob("*.safetensors*"))
    monkeypatch.setenv("ALZOO_WEIGHTS_URL", serve(partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")))
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path / "home"))
    rows = checkpoints.table(tmp_path / "served" / "manifest.toml")
    monkeypatch.setattr(checkpoints, "table", lambda: rows)
    for weights in zoo.weights():
        for _ in range(2):
            path = checkpoints.fetch(weights, tmp_path / "cache")
            assert path.read_bytes() == want[weights.file]
            path.unlink()
    assert len(zoo.create("vaal", pretrained="noise", device="cpu").select(pool(), 3)) == 3


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as uploads and downloads need: one repository, whose files are a folder."""

    protocol_version = "HTTP/1.1"
    SHA = "a" * 40

    def __init__(self, folder, *given):
        self.folder = folder
        super().__init__(*given)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_PUT(self):
        """The bytes of a large file, under their hash."""
        (self.folder / self.path.rpartition("/")[2]).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({})

    def do_POST(self):
        said = self.rfile.read(int(self.headers["Content-Length"]))
        here = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            return self.answer({"url": f"{here}/me/mine", "name": "me/mine"})
        if self.path.endswith("/preupload/main"):
            modes = {True: "lfs", False: "regular"}
            files = [
                {"path": file["path"], "uploadMode": modes["safetensors" in file["path"]], "shouldIgnore": False}
                for file in json.loads(said)["files"]
            ]
            return self.answer({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{here}/lfs/{each['oid']}"}}}
                for each in json.loads(said)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if self.path.endswith("/commit/main"):
            for line in map(json.loads, said.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    (self.folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
                elif line["key"] == "lfsFile":
                    (self.folder / value["oid"]).rename(self.folder / value["path"])
            return self.answer({"commitUrl": f"{here}/me/mine/commit/{self.SHA}", "commitOid": self.SHA})
        return self.send_error(404)

    def answer(self, what):
        data = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        names = sorted(path.name for path in self.folder.iterdir())
        path = self.folder / self.path.rpartition("/")[2]
        if self.path.startswith("/api/models/me/mine/revision/"):
            files = [{"rfilename": name} for name in names]
            data = json.dumps({"id": "me/mine", "sha": self.SHA, "siblings": files}).encode()
        elif self.path.startswith(f"/api/models/me/mine/tree/{self.SHA}"):
            sizes = {name: (self.folder / name).stat().st_size for name in names}
            data = json.dumps(
                [{"type": "file", "path": p, "size": n, "oid": "b" * 40} for p, n in sizes.items()]
            ).encode()
        elif self.path.startswith("/me/mine/resolve/") and path.is_file():
            data = path.read_bytes()
        else:
            return self.send_error(404)
        self.send_response(200)
        for key, value in {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": self.SHA}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
        return None


def test_a_repository_of_the_hub_gives_the_file_of_the_entry(folder, tmp_path, serve):
    url = serve(partial(Hub, folder))
    code = (
        "import sys, checkpoints\n"
        "for source in sys.argv[1:]:\n"
        "    try:\n"
        "        print(checkpoints.locate(source, 'vaal').resolve().read_bytes().hex()[:80])\n"
        "    except OSError as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    here = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    here |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    sources = ["hf-hub:me/mine", "hf-hub:me/mine@main/plain.noise.safetensors", "hf-hub:me/nothing"]
    want = [(folder / f"{name}.noise.safetensors").read_bytes().hex()[:80] for name in ("vaal", "plain")]

    def said(**more):
        words = [sys.executable, "-c", code, *sources]
        out = subprocess.run(words, env={**here, **more}, capture_output=True, text=True, check=False)
        assert out.returncode == 0, out.stderr
        return out.stdout.splitlines()

    for lines, kind in ((said(), "ConnectionError"), (said(HF_HUB_OFFLINE="1"), "FileNotFoundError")):
        assert lines[:2] == want
        assert lines[2].startswith(f"{kind} hf-hub:me/nothing cannot be had from the hub")


def test_a_folder_sent_to_the_hub_comes_back_with_the_same_bytes(folder, tmp_path, serve):
    (tmp_path / "hub").mkdir()
    (folder / "notes.txt").write_text("nobody else's business")
    url = serve(partial(Hub, tmp_path / "hub"))
    here = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    here |= {"HF_TOKEN": "hf_of_nobody", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    here |= {"OMP_NUM_THREADS": "1"}

    def run(*words):
        out = subprocess.run([sys.executable, *words], env=here, capture_output=True, text=True, check=False)
        assert out.returncode == 0, out.stderr
        return out.stdout

    run(ROOT / "scripts" / "publish.py", folder, "--hub", "me/mine")
    sent = {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}
    assert sent == {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".txt"}
    code = "import checkpoints; print(checkpoints.locate('hf-hub:me/mine', 'vaal'))"
    assert Path(run("-c", code).strip()).read_bytes() == (folder / "vaal.noise.safetensors").read_bytes()


TINY = Recipe("digits", 20, "free", settings={"steps": 3, "batch": 8, "width": 4})


def train(monkeypatch, tmp_path, *more):
    words = ["--name", "plain.tiny", "--device", "cpu", "--out", tmp_path / "out", "--work", tmp_path / "work", *more]
    monkeypatch.setattr(sys, "argv", ["train_weights.py", *map(str, words)])
    monkeypatch.setitem(train_weights.RECIPES, "tiny", TINY)
    train_weights.main()
    return checkpoints.read(tmp_path / "out" / "plain.tiny.safetensors")


def test_training_writes_a_file_whose_card_says_everything(monkeypatch, tmp_path, capsys):
    card, tensors = train(monkeypatch, tmp_path, "--seeds", 2)
    about = card["about"]
    assert about.keys() >= ABOUT.keys() | {"pool", "accuracies", "diagnosis"}
    assert (about["labels"], about["unlabeled"], about["n"], about["steps"]) == (20, 1418, 359, 3)
    assert len(about["accuracies"]) == 2
    assert f"{about['accuracy']:.4f} of 359" in capsys.readouterr().out
    (row,) = checkpoints.table(tmp_path / "out" / "manifest.toml")
    assert row.about.keys() == ABOUT.keys()
    learner = zoo.create("plain", pretrained=tmp_path / "out" / row.file, device="cpu")
    _, test = zoo.data("digits", initial=20, seed=0)
    got = (learner.predict(test.images).argmax(1) == test.targets).double().mean().item()
    assert got == pytest.approx(about["accuracy"], abs=1e-6)
    if about["half"]:
        assert all(value.dtype in (torch.float16, torch.int64) for value in tensors.values())


def test_training_stops_when_its_minutes_are_over_and_goes_on(monkeypatch, tmp_path):
    _, want = train(monkeypatch, tmp_path / "once")
    with pytest.raises(SystemExit) as stopped:
        train(monkeypatch, tmp_path / "pieces", "--minutes", 0)
    assert stopped.value.code == train_weights.GOES_ON
    assert not list((tmp_path / "pieces" / "out").iterdir())
    _, got = train(monkeypatch, tmp_path / "pieces")
    assert got.keys() == want.keys()
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_half_precision_is_kept_only_where_no_decision_changes(tmp_path):
    learner = Subject("plain").learner().fit(pool())
    test = zoo.Test(pool().images, torch.zeros(48, dtype=torch.int64))
    assert train_weights.written(learner, test, tmp_path / "a.safetensors", {})["half"]
    with torch.no_grad():
        learner.parts["head"].linear.bias[0] = 1e5  # no half can hold it
    assert not train_weights.written(learner, test, tmp_path / "a.safetensors", {})["half"]
    assert checkpoints.read(tmp_path / "a.safetensors")[1]["head.linear.bias"].dtype == torch.float32


def study(monkeypatch, out, *more):
    words = "--tag digits --data digits --entries plain --seeds 2 --steps 0 --labels 20 --pool 100 --device cpu --out"
    monkeypatch.setattr(sys, "argv", ["finetune_study.py", *words.split(), str(out), *more])
    finetune_study.main()
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_what_starting_from_weights_gains_is_written_with_its_interval(monkeypatch, tmp_path, capsys):
    (line,) = study(monkeypatch, tmp_path / "a.jsonl")
    gains = [a - b for a, b in zip(line["started"], line["scratch"], strict=True)]
    assert line["gain"] == pytest.approx(sum(gains) / 2)
    assert line["low"] <= line["gain"] <= line["high"]
    assert min(gains) > 0.3, "no step: weights that know digits, against chance"
    assert (line["shape"], line["labels"], line["pool"], line["n"], line["seeds"]) == (
        [1, 16, 16],
        20,
        100,
        359,
        [0, 1],
    )
    assert line["sha256"] == zoo.weights("plain.digits")[0].sha256
    assert f"{line['gain']:+.4f}" in capsys.readouterr().out


def test_a_study_made_again_takes_the_place_of_its_line_and_no_other(monkeypatch, tmp_path):
    out = tmp_path / "a.jsonl"
    (first,) = study(monkeypatch, out)
    assert [line["lr_scale"] for line in study(monkeypatch, out, "--lr-scale", "trunk=0.1")] == [{}, {"trunk": 0.1}]
    assert study(monkeypatch, out)[1] == first


def test_cards_tell_what_starting_from_them_has_given(folder):
    line = {"entry": "vaal", "tag": "noise", "data": "snow", "shape": [1, 8, 8], "labels": 4, "steps": 5}
    line |= {"lr_scale": {}, "seeds": [0, 1], "started_mean": 0.5, "scratch_mean": 0.25, "gain": 0.25}
    found = {"it pays": (0.2, 0.3), "no difference is shown": (-0.1, 0.6), "it costs": (-0.3, -0.2)}
    for words, (low, high) in found.items():
        (folder / "finetune.jsonl").write_text(json.dumps({**line, "low": low, "high": high}) + "\n")
        publish.write(folder)
        text = (folder / "vaal.noise.md").read_text()
        assert "To snow, 1x8x8, 4 labels, 5 steps, 2 seeds: accuracy 0.5000 from these weights, 0.2500" in text
        assert f"{words}." in text
        assert "Fine-tuning" not in (folder / "plain.noise.md").read_text()
