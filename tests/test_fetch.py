"""Weights come whole or not at all, whatever the server does: a real one here, which misbehaves on demand."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest

import checkpoints
import zoo
from checkpoints.weights import File, Weights, row, table
from zoo.testing import pool

ROOT = Path(__file__).parents[1]
fetching = import_module("checkpoints.fetch")  # the function has the same name
BYTES = bytes(range(256)) * 8192  # 2 MiB
HALF = len(BYTES) // 2


@dataclass
class Server:
    """What is served, how it misbehaves, and what was asked of it.

    faults: one word for each request, in order; after these it serves as it should.
    """

    files: dict[str, bytes]
    faults: list[str] = field(default_factory=list)
    ranges: bool = True
    part: int = HALF // 2  # what comes of an answer that is broken off
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: Server, *given: object) -> None:
        self.wanted = server
        super().__init__(*given)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted, asked = self.wanted, self.headers.get("Range")
        with wanted.lock:
            wanted.asked.append((self.path, asked))
            fault = wanted.faults.pop(0) if wanted.faults else ""
        self.close_connection = True
        if fault.isdigit() or self.path[1:] not in wanted.files:
            return self.send_error(int(fault or 404))
        data = wanted.files[self.path[1:]]
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and wanted.ranges else 0
        if begin >= len(data):
            return self.send_error(416)
        body = {"wrong": b"x" * len(data), "long": data + b"more", "short": data[:-100]}.get(fault, data)[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin + (fault == 'shifted')}-{len(data) - 1}/{len(data)}")
        if fault != "unsized":
            self.send_header("Content-Length", str(len(body) + 1000 * (fault == "lies")))
        self.end_headers()
        if fault in ("drop", "stall", "hang"):
            body = body[: wanted.part]
        self.wfile.write(body)
        if fault in ("stall", "hang"):
            self.wfile.flush()
            time.sleep(0.5 if fault == "stall" else 5)
        return None


@pytest.fixture
def server(monkeypatch):
    served = Server({"a.safetensors": BYTES})
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, served))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{http.server_port}"
    for name in ("HF_HUB_OFFLINE", "ALZOO_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALZOO_WEIGHTS_URL", served.url)
    monkeypatch.setattr(fetching, "WAIT", 0.001)
    monkeypatch.setattr(fetching, "SILENCE", 0.2)
    yield served
    http.shutdown()
    http.server_close()


def meant(data: bytes = BYTES, file: str = "a.safetensors", **more: object) -> Weights:
    return Weights("plain.a", file, sha256(data).hexdigest(), len(data), {}, **more)


def left(cache: Path) -> list[str]:
    """What lies in the cache, locks apart."""
    return sorted(p.name for p in cache.glob("*") if not p.name.endswith(".lock")) if cache.exists() else []


def test_a_file_is_downloaded_once(server, tmp_path):
    path = checkpoints.fetch(meant(), tmp_path)
    assert path.read_bytes() == BYTES
    assert checkpoints.fetch(meant(), tmp_path) == checkpoints.find(meant(), tmp_path) == path
    assert server.asked == [("/a.safetensors", None)]
    assert left(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_a_broken_download_goes_on_where_it_ended(server, tmp_path, fault):
    server.faults = [fault, fault]
    assert checkpoints.fetch(meant(), tmp_path).read_bytes() == BYTES
    assert [asked for _, asked in server.asked] == [None, f"bytes={HALF // 2}-", f"bytes={HALF}-"]
    assert left(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_a_server_that_knows_no_ranges_begins_anew(server, tmp_path, fault):
    server.faults, server.ranges = [fault, fault], False
    assert checkpoints.fetch(meant(), tmp_path).read_bytes() == BYTES
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "faults",
    [["500"], ["503", "429", "500"], ["lies"], ["unsized"], ["wrong"], ["long"], ["short"], ["drop", "shifted"]],
    ids="+".join,
)
def test_what_goes_wrong_once_is_mended(server, tmp_path, faults):
    server.faults = list(faults)
    assert checkpoints.fetch(meant(), tmp_path).read_bytes() == BYTES
    assert left(tmp_path) == ["a.safetensors"]


def test_a_partial_file_of_another_process_is_gone_on_with(server, tmp_path):
    file = meant()
    (tmp_path / f".{file.file}.{file.sha256[:12]}.partial").write_bytes(BYTES[:HALF])
    assert checkpoints.fetch(file, tmp_path).read_bytes() == BYTES
    assert server.asked == [("/a.safetensors", f"bytes={HALF}-")]


@pytest.mark.parametrize("begun", [b"y" * HALF, b"y" * len(BYTES), b"y" * (len(BYTES) + 9)])
def test_a_partial_file_of_other_bytes_is_thrown_away(server, tmp_path, begun):
    file = meant()
    (tmp_path / f".{file.file}.{file.sha256[:12]}.partial").write_bytes(begun)
    assert checkpoints.fetch(file, tmp_path).read_bytes() == BYTES
    assert server.asked[-1] == ("/a.safetensors", None)


def test_a_server_that_has_less_than_was_begun_is_asked_anew(server, tmp_path):
    file = meant()
    (tmp_path / f".{file.file}.{file.sha256[:12]}.partial").write_bytes(BYTES[:HALF])
    server.files["a.safetensors"] = BYTES[:100]
    with pytest.raises(ValueError, match=r"other bytes than a.safetensors has: there are 100, not 2,097,152"):
        checkpoints.fetch(file, tmp_path)
    assert left(tmp_path) == []


def test_wrong_bytes_never_get_the_name(server, tmp_path):
    server.faults = ["wrong"] * 9
    with pytest.raises(ValueError, match=r"gives other bytes than a.safetensors.*ALZOO_WEIGHTS_URL"):
        checkpoints.fetch(meant(), tmp_path)
    assert left(tmp_path) == []
    assert len(server.asked) == 2, "gone on with, then fresh, and no more"


@pytest.mark.parametrize("fault", ["short", "long", "lies"])
def test_a_file_of_another_length_is_not_asked_for_again_and_again(server, tmp_path, fault):
    server.faults = [fault] * 9
    with pytest.raises(ValueError, match=r"gives other bytes than a.safetensors has: there are .*, not 2,097,152"):
        checkpoints.fetch(meant(), tmp_path)
    assert left(tmp_path) == []
    assert len(server.asked) == 2


@pytest.mark.parametrize("size", [1_000, 300_000])
def test_what_has_come_is_never_asked_for_again_however_little(server, tmp_path, size, monkeypatch):
    monkeypatch.setattr(fetching, "TRIES", 3)
    data = BYTES[:size]
    server.files["a.safetensors"], server.faults, server.part = data, ["drop", "drop"], size // 3
    assert checkpoints.fetch(meant(data), tmp_path).read_bytes() == data
    assert [asked for _, asked in server.asked] == [None, f"bytes={size // 3}-", f"bytes={2 * (size // 3)}-"]


def test_a_server_that_goes_on_from_elsewhere_is_asked_anew(server, tmp_path):
    server.faults = ["drop", "shifted"]
    assert checkpoints.fetch(meant(), tmp_path).read_bytes() == BYTES
    assert [asked for _, asked in server.asked] == [None, f"bytes={HALF // 2}-", None]


@pytest.mark.usefixtures("server")
def test_a_proxy_that_needs_a_package_is_named(tmp_path, monkeypatch):
    def client(**_: object) -> None:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.")

    monkeypatch.setattr("httpx2.Client", client)
    with pytest.raises(ConnectionError, match=r"nothing can be downloaded here.*socksio.*ALL_PROXY"):
        checkpoints.fetch(meant(), tmp_path)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("name", "value"), [("HTTP_PROXY", "foo://x"), ("SSL_CERT_FILE", "/nowhere.pem")])
def test_an_environment_that_cannot_connect_is_named(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionError, match=rf"nothing can be downloaded here.*{name}"):
        checkpoints.fetch(meant(), tmp_path)


def test_a_server_that_stays_away_is_given_up_and_what_came_is_kept(server, tmp_path):
    server.faults = ["drop", *["500"] * fetching.TRIES]
    with pytest.raises(ConnectionError, match=r"the server answers 500.*Try again"):
        checkpoints.fetch(meant(), tmp_path)
    assert len(server.asked) == fetching.TRIES
    (partial_file,) = left(tmp_path)
    assert (tmp_path / partial_file).read_bytes() == BYTES[: HALF // 2]
    server.faults = []
    assert checkpoints.fetch(meant(), tmp_path).read_bytes() == BYTES
    assert server.asked[-1] == ("/a.safetensors", f"bytes={HALF // 2}-")


def test_what_is_not_there_is_not_asked_for_twice_and_may_come_later(server, tmp_path):
    server.files.clear()
    with pytest.raises(ConnectionError, match="404"):
        checkpoints.fetch(meant(), tmp_path)
    assert len(server.asked) == 1
    assert left(tmp_path) == []
    server.files["a.safetensors"] = BYTES
    assert checkpoints.fetch(meant(), tmp_path).read_bytes() == BYTES


@pytest.mark.usefixtures("server")
def test_nobody_listening_is_a_connection_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ALZOO_WEIGHTS_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9/a.safetensors cannot be downloaded"):
        checkpoints.fetch(meant(), tmp_path)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("url", ["nowhere at all", "localhost:8765", "file:///tmp/x", "/tmp/x"])
def test_what_is_no_address_is_refused_at_once(tmp_path, monkeypatch, url):
    monkeypatch.setattr(fetching, "WAIT", 100.0)  # seconds, if it tried again
    monkeypatch.setenv("ALZOO_WEIGHTS_URL", url)
    with pytest.raises(ConnectionError, match=rf"{url}/a.safetensors cannot be downloaded.*begins with https"):
        checkpoints.fetch(meant(), tmp_path)


def test_what_is_damaged_in_the_cache_is_fetched_again_and_in_the_package_refused(server, tmp_path):
    path = checkpoints.fetch(meant(), tmp_path / "cache")
    path.write_bytes(BYTES[:-1] + b"x")
    assert checkpoints.fetch(meant(), tmp_path / "cache").read_bytes() == BYTES
    beside = tmp_path / "package"
    beside.mkdir()
    (beside / "a.safetensors").write_bytes(BYTES)
    assert checkpoints.fetch(meant(), tmp_path / "other", beside=beside) == beside / "a.safetensors"
    (beside / "a.safetensors").write_bytes(BYTES[:-9])
    with pytest.raises(ValueError, match=r"damaged.*Install alzoo anew"):
        checkpoints.fetch(meant(), tmp_path / "other", beside=beside)
    assert len(server.asked) == 2


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "ALZOO_OFFLINE"])
def test_offline_nothing_is_asked_and_what_is_here_is_found(server, tmp_path, monkeypatch, switch):
    path = checkpoints.fetch(meant(), tmp_path)
    monkeypatch.setenv(switch, "1")
    assert checkpoints.fetch(meant(), tmp_path) == path
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"it is offline.*train_weights.py --name plain.a"):
        checkpoints.fetch(meant(), tmp_path)
    assert len(server.asked) == 1


def test_the_address_is_the_environments_or_the_manifests(server, tmp_path, monkeypatch):
    monkeypatch.delenv("ALZOO_WEIGHTS_URL")
    with pytest.raises(FileNotFoundError, match=r"nobody has said where.*publish.py --static"):
        checkpoints.fetch(meant(), tmp_path)
    assert checkpoints.fetch(meant(url=f"{server.url}/"), tmp_path).read_bytes() == BYTES
    monkeypatch.setenv("ALZOO_WEIGHTS_URL", f"{server.url}/below/")
    server.files["below/a.safetensors"] = BYTES
    checkpoints.fetch(meant(url="http://127.0.0.1:9"), tmp_path / "other")
    assert server.asked[-1][0] == "/below/a.safetensors"


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the cache.*ALZOO_HOME"):
        checkpoints.fetch(meant(), tmp_path / "file" / "cache")
    assert server.asked == []


@pytest.mark.usefixtures("server")
def test_a_full_disk_leaves_no_file_under_the_name(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetching.os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device.*ALZOO_HOME"):
        checkpoints.fetch(meant(), tmp_path)
    assert checkpoints.find(meant(), tmp_path) is None


def another(cache: Path) -> subprocess.Popen[str]:
    """A process that fetches the same file into the same cache, and prints where it lies."""
    code = (
        "import sys; from pathlib import Path; import checkpoints; from checkpoints.weights import Weights;"
        "print(checkpoints.fetch(Weights('plain.a', 'a.safetensors', sys.argv[1], int(sys.argv[2]), {}),"
        "Path(sys.argv[3])))"
    )
    words = [sys.executable, "-c", code, meant().sha256, str(len(BYTES)), str(cache)]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=here, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_nothing_under_the_name_and_the_next_goes_on(server, tmp_path):
    server.faults = ["hang"]
    with another(tmp_path) as killed:
        while not any(path.stat().st_size for path in tmp_path.glob(".*.partial")):
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
    assert checkpoints.find(meant(), tmp_path) is None
    assert checkpoints.fetch(meant(), tmp_path).read_bytes() == BYTES
    assert server.asked[1][1] not in (None, "bytes=0-")
    assert left(tmp_path) == ["a.safetensors"]


def test_two_processes_fetch_it_once(server, tmp_path):
    server.faults = ["drop"]
    both = [another(tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].strip() for process in both]
    assert said == [str(tmp_path / "a.safetensors")] * 2
    assert (tmp_path / "a.safetensors").read_bytes() == BYTES
    assert len(server.asked) == 2, "the dropped one, and the one that went on"
    assert left(tmp_path) == ["a.safetensors"]


def cut(server: Server, data: bytes = BYTES) -> Weights:
    """Weights in three pieces, served."""
    parts = {f"a.safetensors.{i}of3": data[i::3] for i in range(3)}
    server.files = dict(parts)
    pieces = tuple(File(name, sha256(part).hexdigest(), len(part)) for name, part in parts.items())
    return meant(b"".join(parts.values()), pieces=pieces)


def test_pieces_are_fetched_and_joined(server, tmp_path):
    file = cut(server)
    server.faults = ["", "drop"]
    path = checkpoints.fetch(file, tmp_path)
    assert sha256(path.read_bytes()).hexdigest() == file.sha256
    assert left(tmp_path) == ["a.safetensors"]


def test_pieces_that_lie_beside_the_manifest_are_joined_without_a_download(server, tmp_path):
    file, beside = cut(server), tmp_path / "package"
    beside.mkdir()
    for name, data in server.files.items():
        (beside / name).write_bytes(data)
    assert checkpoints.fetch(file, tmp_path / "cache", beside=beside).stat().st_size == len(BYTES)
    assert server.asked == []
    assert len(list(beside.iterdir())) == 3


def test_pieces_that_are_not_the_file_are_refused(server, tmp_path):
    file = replace(cut(server), sha256="0" * 64)
    with pytest.raises(ValueError, match="the manifest is wrong"):
        checkpoints.fetch(file, tmp_path)
    assert checkpoints.find(file, tmp_path) is None


LINE = {"file": "a.safetensors", "sha256": "0" * 64, "bytes": 9}


@pytest.mark.parametrize("lost", LINE)
def test_a_table_of_the_manifest_names_a_file_its_hash_and_its_length(lost):
    with pytest.raises(ValueError, match=f"{lost}=None"):
        row("plain.a", {key: value for key, value in LINE.items() if key != lost})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sha256": "0" * 63}, "64 hexadecimal"),
        ({"sha256": 0}, "of type str"),
        ({"sha256": "G" * 64}, "64 hexadecimal"),
        ({"bytes": 0}, "above 0"),
        ({"bytes": "9"}, "of type int"),
        ({"bytes": True}, "of type int"),
        ({"seed": True}, "of type int"),
        ({"url": 3}, "of type str"),
        ({"pieces": [{}]}, "plain name"),
        ({"file": "../a.safetensors"}, "plain name"),
        ({"file": "/etc/passwd"}, "plain name"),
        ({"file": ".hidden"}, "plain name"),
        ({"acuracy": 0.9}, "a field 'acuracy'"),
        ({"accuracy": "high"}, "of type float"),
        ({"classes": "ten"}, "of type int"),
        ({"pieces": [{"file": "../b", "sha256": "0" * 64, "bytes": 9}]}, "plain name"),
        ({"pieces": [{"file": "b", "sha256": "0" * 64, "bytes": 8}]}, "other bytes in all"),
    ],
)
def test_a_table_of_the_manifest_that_is_not_as_it_should_be_is_refused(change, word):
    assert row("plain.a", LINE).name == "plain.a"
    with pytest.raises(ValueError, match=f"plain.a in the manifest has .*{word}"):
        row("plain.a", {**LINE, **change})


def test_the_manifest_may_say_where_all_files_lie(tmp_path):
    line = f'file = "a.safetensors"\nsha256 = "{"0" * 64}"\nbytes = 9\naccuracy = 1\n'
    (tmp_path / "m.toml").write_text(f'url = "http://here"\n[plain.a]\n{line}[plain.b]\nurl = "http://there"\n{line}')
    assert [weights.url for weights in table(tmp_path / "m.toml")] == ["http://here", "http://there"]


def made(path: Path, name: str = "plain") -> Path:
    path.parent.mkdir(exist_ok=True)
    learner = zoo.create(name, steps=1, batch=4, width=4, device="cpu").fit(pool())
    return learner.save(path)


def test_a_folder_gives_the_file_of_the_entry(tmp_path):
    path = made(tmp_path / "some" / "plain.noise.safetensors")
    want = zoo.load(path, device="cpu").predict(pool().images)
    for source in (path, str(path), f"local-dir:{path.parent}", f"local-dir:{path}"):
        assert (zoo.create("plain", pretrained=source, device="cpu").predict(pool().images) == want).all()
    path.rename(path.with_name("model.safetensors"))
    assert checkpoints.locate(f"local-dir:{path.parent}", "vaal").name == "model.safetensors"


def test_a_folder_that_leaves_a_choice_or_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        zoo.create("plain", pretrained=f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor plain.TAG.safetensors"):
        zoo.create("plain", pretrained=f"local-dir:{tmp_path}")
    for tag in ("a", "b"):
        (tmp_path / f"plain.{tag}.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"plain.a.safetensors, plain.b.safetensors; name one"):
        zoo.create("plain", pretrained=f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("source", "word"), [("hf-hub:alone", "OWNER/NAME"), ("hf-hub:a b/c d", "no repository of the hub")]
)
def test_a_repository_has_an_owner_and_a_name(source, word):
    with pytest.raises(FileNotFoundError, match=word):
        checkpoints.locate(source, "plain")
