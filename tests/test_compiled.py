"""`compiled` changes no number but by rounding.

Tested on the graphs that torch.compile makes of the networks, run operation by operation: that takes no compiler.
"""

import lightning.fabric  # noqa: F401 (it puts its own hand on torch.compile)
import pytest
import torch

import zoo
from zoo.testing import Subject, alike, pool, same, weights

MORE = {"aral": 1e-4}  # what may differ, where the order of sums does


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    """The networks that were given to torch.compile."""
    real, seen = torch.compile, []

    def trace(module, **_):
        seen.append(module)
        return real(module, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", trace)
    yield seen
    torch._dynamo.reset()


@pytest.mark.parametrize("name", zoo.names("entries"))
def test_it_learns_the_same(name, traced):
    p, subject = pool(), Subject(name)
    plain, faster = subject.learner().fit(p), subject.learner(compiled=True).fit(p)
    assert traced
    a, b = weights(plain), weights(faster)
    assert a.keys() == b.keys(), "what is saved has other names"
    assert all(torch.allclose(a[key].float(), b[key].float(), atol=MORE.get(name, 1e-6)) for key in a)
    assert torch.allclose(plain.predict(p.images), faster.predict(p.images), atol=MORE.get(name, 1e-6))


def test_noise_is_drawn_as_without_it():
    p = pool()
    a, b = (Subject("bald").learner(compiled=compiled).fit(p) for compiled in (False, True))
    assert a.loop == b.loop
    assert same(weights(a), weights(b)), "other neurons dropped out"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_killed_and_resumed_it_ends_where_it_would_have_ended(precision, resumed):
    p, learner = pool(), Subject("vaal").learner(compiled=True, precision=precision)
    assert same(weights(learner.fit(p)), resumed(learner, p, "game", 2))


def test_it_is_saved_and_found_again(tmp_path):
    p = pool()
    learner = Subject("margin").learner(compiled=True).fit(p)
    again = zoo.load(learner.save(tmp_path / "learner.safetensors"))
    assert again.compiled
    assert alike(learner.select(p, 5), again.select(p, 5))
    assert "compiled=True" in repr(again)


def test_more_networks_than_torch_compiles_by_itself():
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.utils.counters.clear()
    p = pool()
    for width in range(4, 6 + limit):
        Subject("plain").learner(compiled=True, width=width).fit(p)
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["ok"] == frames["total"] >= limit + 2, "some went on without being compiled"
    assert torch._dynamo.config.recompile_limit == limit
