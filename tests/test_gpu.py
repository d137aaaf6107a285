"""On a GPU: the answers of the CPU, whatever lies where. Without one: that the script that checks it all runs.

What may differ is measured in scripts/gpu_check.py; here TF32 is off, and the noise is drawn on the CPU.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo
from trainers.pool import Pool
from zoo.testing import Killed, Subject, alike

ROOT = Path(__file__).parents[1]
DEVICE = "cuda"
LEARNERS = ["plain+margin", "vaal"]  # margin, for scores that mean something
ONCE = {"critic_steps", "vae_steps"}  # within one step of the others
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")


@pytest.fixture
def exact(monkeypatch):
    """No TF32, and the autoencoder's noise the same on every device."""
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.randn(like.shape).to(like.device, like.dtype))
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def some_pool(device="cpu"):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=chance).to(device)
    return Pool.of(images, torch.randint(0, 3, (64,), generator=chance), 3).reveal(torch.arange(24))


def learner(name, device=DEVICE, **settings):
    games = {"game_steps": 5} if name == "vaal" else {}
    return zoo.create(name, device=device, **{"steps": 5, "batch": 16, "augment": "flip+shift", **games, **settings})


def apart(a, b):
    """|a - b| / |a| over everything that two learners have learned."""
    mine, other = a.parts.state_dict(), b.parts.state_dict()
    names = [name for name, value in mine.items() if value.is_floating_point()]
    pairs = [(mine[name].cpu().double(), other[name].cpu().double()) for name in names]
    return (sum((x - y).square().sum() for x, y in pairs) / sum(x.square().sum() for x, _ in pairs)).sqrt().item()


def scores(fitted, pool):
    """Of all unlabeled images, in the order of the pool: (u,)."""
    asked = fitted.select(pool, len(pool.unlabeled))
    return asked.scores[asked.indices.argsort()]


def near(a, b, pool):
    """Two learners have learned the same, up to rounding that a few steps have grown."""
    assert apart(a, b) < 1e-2
    assert torch.allclose(a.predict(pool.images), b.predict(pool.images), atol=1e-3)
    ours, theirs = scores(a, pool), scores(b, pool)
    assert (ours - theirs).abs().max() < 0.1 * ours.abs().max()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", LEARNERS)
def test_fit_select_and_predict_are_close_to_the_cpus(name):
    pool = some_pool()
    near(learner(name, "cpu").fit(pool), learner(name).fit(pool), pool)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", LEARNERS)
def test_a_pool_on_the_gpu_gives_the_answers_of_one_on_the_cpu(name):
    here, there = some_pool(), some_pool(DEVICE)
    a, b = learner(name).fit(here), learner(name).fit(there)
    near(a, b, here)
    assert torch.allclose(scores(a, here), scores(a, there), rtol=1e-4, atol=1e-5)
    assert torch.equal(a.predict(here.images), a.predict(there.images))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_on_the_cpu_waits_for_the_images_of_a_busy_gpu(name, monkeypatch):
    here, there = some_pool(), some_pool(DEVICE)
    take = Pool.take

    def late(self, indices):
        taken = take(self, indices)
        if taken.device.type == "cuda":
            torch.cuda._sleep(2_000_000)  # a millisecond of work before the images can be copied
        return taken

    a = learner(name, "cpu").fit(here)
    monkeypatch.setattr(Pool, "take", late)
    b = learner(name, "cpu").fit(there)
    assert apart(a, b) == 0, "the images were read before they had come"
    assert alike(a.select(here, 5), b.select(there, 5))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", LEARNERS)
def test_a_pool_that_does_not_fit_into_gpu_memory_is_no_other_pool(name, monkeypatch):
    pool = some_pool()
    resident = learner(name).fit(pool)
    monkeypatch.setattr("trainers.run._resident", lambda *_: None)
    near(resident, learner(name).fit(pool), pool)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", LEARNERS)
def test_saved_on_the_gpu_and_loaded_on_the_cpu_it_is_the_same(name, tmp_path):
    pool = some_pool()
    fitted = learner(name).fit(pool)
    loaded = zoo.load(fitted.save(tmp_path / "learner.safetensors"), device="cpu")
    assert {p.device.type for p in loaded.parts.parameters()} == {"cpu"}
    assert apart(fitted, loaded) == 0
    assert torch.allclose(fitted.predict(pool.images), loaded.predict(pool.images), atol=1e-4)
    here, there = fitted.select(pool, 10), loaded.select(pool, 10)
    assert torch.allclose(here.scores, there.scores, rtol=1e-3, atol=1e-4)
    tied = torch.isclose(here.scores[:, None], here.scores, rtol=1e-3, atol=1e-4).sum(1) > 1
    assert (here.indices == there.indices)[~tied].all()
    back = zoo.load(loaded.save(tmp_path / "again.safetensors"), device=DEVICE)
    assert torch.equal(fitted.predict(pool.images), back.predict(pool.images))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", LEARNERS)
def test_killed_and_resumed_it_ends_where_it_would_have_ended(name, tmp_path):
    pool, path, seen = some_pool(), tmp_path / "fit.snapshot", []

    def kill(stage, step, n):
        seen.append((stage, step, n))
        if (stage, step) == ("game" if name == "vaal" else "task", 3):
            raise Killed

    whole = learner(name).fit(pool)
    with pytest.raises(Killed):
        learner(name).fit(pool, progress=kill, snapshot=path, snapshot_seconds=0)
    before, seen[:] = len(seen), []
    again = learner(name).fit(pool, progress=lambda *at: seen.append(at), snapshot=path)
    assert before + len(seen) == whole.ticks + 1 == again.ticks + 1, "only the step that was not kept is done again"
    assert {p.device.type for p in again.parts.parameters()} == {torch.device(DEVICE).type}
    near(whole, again, pool)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", LEARNERS)
def test_in_bf16_it_is_finite_and_near(name):
    pool = some_pool()
    full, half = learner(name).fit(pool), learner(name, precision="bf16-mixed").fit(pool)
    assert all(value.dtype in (torch.float32, torch.int64) for value in half.parts.state_dict().values())
    assert all(value.isfinite().all() for value in half.parts.state_dict().values())
    assert scores(half, pool).isfinite().all()
    assert half.scan(pool).logits.dtype == torch.float32
    assert torch.allclose(full.predict(pool.images), half.predict(pool.images), atol=0.2)
    same_weights = replace(full, precision="bf16-mixed").predict(pool.images)
    assert torch.allclose(full.predict(pool.images), same_weights, atol=0.05)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("how", [{"compiled": True}, {"captured": True}, {"compiled": True, "captured": True}], ids=str)
def test_compiled_or_captured_it_learns_the_same(name, how):
    pool, long = some_pool(), {"steps": 12, **({"game_steps": 12} if name == "vaal" else {})}
    near(learner(name, **long).fit(pool), learner(name, **long, **how).fit(pool), pool)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", zoo.names("entries"))
def test_every_entry_can_be_captured(name):
    """What a graph refuses on a GPU, a wait or a copy, it refuses here; tests/test_captured.py has the numbers."""
    pool, said = some_pool(), []
    counts = {key: 20 for key in Subject(name).learner().settings if key.endswith("steps") and key not in ONCE}
    fitted = zoo.create(name, device=DEVICE, captured=True, **{**counts, "batch": 8})
    fitted.fit(pool, journal=lambda *line: said.append(line))
    assert said
    assert all(value.isfinite().all() for value in fitted.parts.state_dict().values())


@pytest.mark.gpu
@needs_gpu
def test_auto_is_the_gpu_and_answers_come_on_the_cpu():
    pool = some_pool()
    fitted = learner("vaal", "auto").fit(pool)
    assert fitted.device == DEVICE
    assert {p.device.type for p in fitted.parts.parameters()} == {DEVICE}
    asked = fitted.select(pool, 5)
    answers = [asked.indices, asked.scores, *asked.detail.values(), fitted.predict(pool.images)]
    assert {answer.device.type for answer in [*answers, fitted.sample(2), fitted.rebuild(pool.images[:2])]} == {"cpu"}
    assert fitted.diagnose(pool, pool.images[:8]).keys() >= {"critic_auc", "recon"}
    assert fitted.diagnose(pool, pool.images[:8].to(DEVICE)).keys() >= {"critic_auc", "recon"}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("device", [DEVICE, "cpu"])
def test_the_callers_random_numbers_of_the_gpu_are_left_alone(device):
    pool = some_pool()
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    fitted = learner("vaal", device).fit(pool)
    fitted.select(pool, 3)
    fitted.predict(pool.images)
    assert torch.equal(before, torch.cuda.get_rng_state())


def test_the_gpu_check_runs_without_a_gpu_and_says_all_it_should(tmp_path):
    out = tmp_path / "gpu_check.json"
    command = [sys.executable, ROOT / "scripts" / "gpu_check.py", "--device", "cpu", "--quick", "--out", out]
    here = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ALZOO_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | here, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    known = json.loads(out.read_text())
    parts = known["parts"]
    assert known["quick"] is True
    assert list(parts) == ["provenance", "correctness", "speed", "scoring", "round", "levers"]
    assert {part["state"] for part in parts.values()} == {"done"}
    assert parts["provenance"]["torch"] == torch.__version__
    checks = [value for value in parts["correctness"].values() if isinstance(value, dict)]
    assert len(checks) == 24
    assert {check["verdict"] for check in checks} == {"PASS"}
    for name in ("vaal, published size", "vaal, narrow", "plain, small"):
        for precision in ("bf16-mixed", "32-true"):
            rates = parts["speed"][f"{name}, {precision}"]["steps per second"]
            assert rates["alzoo"]["median"] > 0
            assert rates["alzoo"]["n"] == 2
            assert rates["ratios"].keys() == {"alzoo / eager, 0 workers", "alzoo / eager, 1 workers"}
            assert parts["speed"][f"{name}, {precision}: at work"]["TFLOP per second"] > 0
    assert parts["scoring"]["images per second, 32-true"]["encoder"]["median"] > 0
    for precision in ("bf16-mixed", "32-true"):
        assert parts["round"][f"vaal released, {precision}"]["EXTRAPOLATED seconds of the whole round, not run"] > 0
    assert "random uint8 images" in parts["round"]["data"]
    assert "verdict" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu_check.json"], "it leaves something behind"
