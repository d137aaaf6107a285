"""`captured` changes no number. A CUDA graph is played here on the CPU, operation by operation, as a GPU would."""

from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import zoo
from trainers import captured
from trainers.captured import WARM
from trainers.pool import Pool
from trainers.run import Diverged, Run
from zoo.testing import LAWS, Subject, pool, same, weights

LONG = 30  # steps: enough for each part of a fit to be replayed
READS = {torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__bool__, torch.Tensor.__float__}
UNKNOWN = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}  # what a host would have to wait for


class Tape(TorchDispatchMode):
    """Every operation of a step, with the memory it reads and writes; played again, it knows nothing else.

    A GPU does nothing while it captures; this one does the step, so its first replay is over already.
    """

    made: "list[Tape]"

    def __init__(self):
        super().__init__()
        self.operations, self.replays, self.reading = [], 0, NoReading()
        self.made.append(self)

    def __enter__(self):
        self.reading.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.reading.__exit__(*error)

    def __torch_dispatch__(self, operation, types, given=(), named=None):
        if not self.reading.one_hot and UNKNOWN & {*operation.tags} and not all_numbers(operation, given):
            raise RuntimeError(f"{operation} waits for the device")
        out = operation(*given, **(named or {}))
        self.operations.append((operation, given, named or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for operation, given, named, out in self.operations if self.replays > 1 else ():
            for old, new in zip(tree_leaves(out), tree_leaves(operation(*given, **named)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def all_numbers(operation, given):
    """Indices that are numbers, not a mask, take as many rows as there are of them."""
    return operation is torch.ops.aten.index.Tensor and all(i is None or i.dtype == torch.int64 for i in given[1])


class NoReading(TorchFunctionMode):
    """Python may look at no number. (one_hot checks its input on the CPU, and on a GPU does not.)"""

    one_hot = False

    def __torch_function__(self, function, types, given=(), named=None):
        if function in READS:
            raise RuntimeError(f"{function.__name__} waits for the device")
        self.one_hot = function is torch.nn.functional.one_hot
        try:
            return function(*given, **(named or {}))
        finally:
            self.one_hot = False


@pytest.fixture
def warm(monkeypatch):
    """How many steps run before a capture; changed by a test."""

    def after(steps):
        monkeypatch.setattr(captured, "WARM", steps)

    return after


@pytest.fixture(autouse=True)
def tapes(monkeypatch):
    """Steps are captured on the CPU; the tapes of this test."""
    monkeypatch.setattr(Tape, "made", [], raising=False)
    monkeypatch.setattr("trainers.run.capturable", lambda _: True)
    monkeypatch.setattr(captured, "aside", lambda play: play())
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", lambda tape: tape)
    return Tape.made


def learner(name, **settings):
    """Long enough for every step to be replayed."""
    subject = Subject(name)
    counts = {key: LONG for key, value in subject.learner().settings.items() if key.endswith("steps") and value == 3}
    return subject.learner(**{"captured": True, **counts, **settings})


WAYS = [
    *((name, {}) for name in zoo.names("entries")),
    *((name, {"precision": "bf16-mixed"}) for name in ("vaal", "waal", "aral")),
    ("vaal", {"vae_steps": 2, "apart": True}),
    ("waal", {"critic_steps": 2, "reuse_features": False, "critic_optimizer": "sgd"}),
    ("aral", {"nll": True, "apart": True}),
    ("ssal", {"semi": "fixmatch"}),
    ("ssal", {"pretext": "deepcluster", "pretext_steps": LONG, "cluster_steps": 5}),
    ("ssal", {"lp_steps": 5}),
    ("plain", {"optimizer": "adam", "lr_scale": {"trunk": 0.1}}),
    ("vaal", {"freeze": ("critic",)}),
]


@pytest.mark.parametrize(("name", "settings"), WAYS, ids=str)
def test_it_learns_and_says_the_same(name, settings, warm, tapes):
    p, said = pool(), [[], []]
    fast = weights(learner(name, **settings).fit(p, journal=lambda *line: said[0].append(line)))
    assert tapes
    assert all(tape.replays > 2 for tape in tapes), "some steps were never replayed"

    warm(10**9)  # the same steps, none of them captured
    count = len(tapes)
    assert same(fast, weights(learner(name, **settings).fit(p, journal=lambda *line: said[1].append(line))))
    assert said[0] == said[1]
    assert len(tapes) == count


@pytest.mark.parametrize("name", zoo.names("entries"))
def test_what_is_not_captured_differs_by_the_rounding_of_learning_rates(name, warm):
    warm(1)
    p = pool()
    a, b = (Subject(name).learner(captured=captured).fit(p).predict(p.images) for captured in (True, False))
    assert torch.allclose(a, b, atol=1e-4)


@dataclass(frozen=True)
class Capturing(Subject):
    """The same subject, all of whose learners are captured."""

    def learner(self, **settings):
        return super().learner(captured=True, **settings)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", zoo.names("entries"))
def test_the_laws_hold(name, law, warm):
    warm(1)
    law(Capturing(name))


@pytest.mark.parametrize("stage", ["task", "game"])
def test_killed_and_resumed_it_ends_where_it_would_have_ended(stage, resumed):
    p, it = pool(), learner("vaal")
    assert same(weights(it.fit(p)), resumed(it, p, stage, WARM + 2))


def test_each_way_to_take_a_step_is_captured_by_itself(tapes):
    learner("llal", steps=4 * WARM + 4, joint=0.5).fit(pool())  # the ranker shapes the trunk, and then looks on
    assert [tape.replays for tape in tapes] == [WARM + 2, WARM + 2]


def test_a_loss_that_is_no_number_is_the_replayed_steps(tapes):
    x = torch.zeros(4, 1, 4, 4, dtype=torch.uint8)
    run = Run(Pool.of(x, torch.zeros(4, dtype=torch.int64), 2).reveal(torch.arange(4)), captured=True)
    net = torch.nn.Linear(1, 1)
    net, step = run.setup(net, torch.optim.SGD(net.parameters(), 0.1, fused=True), "critic")

    @run.whole
    def play(given):
        step.zero_grad()
        run.backward(net(given).mean())
        step.step()

    def train():
        for number in run.steps(LONG, "game"):
            play(torch.full((2, 1), float("nan") if number == WARM + 3 else 1.0))

    with pytest.raises(Diverged, match=f"critic diverged.* at step {WARM + 3} of stage 'game'"):
        train()
    assert tapes[0].replays == LONG - WARM


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: 1 if x.sum() > 0 else 0])
def test_a_step_that_reads_a_number_cannot_be_captured(read):
    p = pool()
    play = Run(p, captured=True).whole(read)
    for _ in range(WARM):
        play(torch.ones(3))
    with pytest.raises(RuntimeError, match="waits for the device"):
        play(torch.ones(3))


def test_on_the_cpu_it_changes_nothing(monkeypatch, tapes):
    monkeypatch.undo()
    p = pool()
    assert same(weights(learner("vaal").fit(p)), weights(learner("vaal", captured=False).fit(p)))
    assert not tapes


def test_it_is_saved_and_found_again(tmp_path):
    again = zoo.load(learner("margin").fit(pool()).save(tmp_path / "learner.safetensors"))
    assert again.captured
    assert "captured=True" in repr(again)
