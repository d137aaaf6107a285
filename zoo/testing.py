"""The laws: what every learner promises. Run them on an entry or a query of your own.

    from zoo.testing import LAWS, Subject

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_law(law):
        law(Subject(my_query))

Each law trains tiny networks for a few steps and raises AssertionError where it is broken.
"""

import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainers.pool import Pool
from trainers.run import Run
from zoo.catalogue import create, load, resolve
from zoo.entry import Entry
from zoo.learner import Learner
from zoo.query import Query
from zoo.register import find
from zoo.selection import Selection

SHAPE = (3, 8, 8)
CLASSES = 3


@dataclass(frozen=True)
class Subject:
    """What is tested: a name, an Entry or a Query. query: another way to ask, for pairs."""

    name: str | Entry | Query
    query: str | Query | None = None

    def learner(self, **settings: Any) -> Learner:
        """A small and quick one on the CPU: three steps of every kind, narrow networks."""
        called, entry, query = find(self.name, self.query)
        loop, nets, _ = resolve(called, entry, entry.plans["ours"], {})
        steps = {f.name: 3 for f in fields(loop) if f.name.endswith("steps") and getattr(loop, f.name) > 3}
        narrow = {name: 4 for name in nets if name.endswith("width")}
        taken = {name: value for name, value in query.nets.items() if name in nets}
        quick = {**taken, **steps, **narrow, "batch": 8}
        asks = {"draws": 4} if "draws" in query.settings else {}
        return create(self.name, query=self.query, query_settings=asks, device="cpu", **{**quick, **settings})

    @property
    def randomised(self) -> bool:
        return find(self.name, self.query)[2].randomised

    @property
    def cold(self) -> bool:
        return find(self.name, self.query)[2].cold


def pool(n: int = 48, seed: int = 0) -> Pool:
    """Random images of three classes, every fourth of them labeled."""
    chance = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    targets = torch.randint(0, CLASSES, (n,), generator=chance)
    return Pool.of(images, targets, CLASSES).reveal(torch.arange(0, n, 4))


def asks_for_distinct_unlabeled_images(subject: Subject) -> None:
    p = pool()
    asked = subject.learner().fit(p).select(p, 7)
    assert isinstance(asked, Selection)
    assert asked.indices.dtype == torch.int64
    assert asked.scores.dtype == torch.float32
    assert asked.indices.device.type == asked.scores.device.type == "cpu"
    assert len(asked) == len(asked.indices) == len(set(asked)) == 7
    assert torch.isin(asked.indices, p.unlabeled).all()
    assert (asked.scores.diff() <= 0).all(), "the first asked has the highest score"
    assert all(len(value) == 7 for value in asked.detail.values())


def select_changes_nothing(subject: Subject) -> None:
    p = pool()
    learner = subject.learner().fit(p)
    assert learner.parts is not None
    labels, images = p.labels.clone(), p.images.clone()
    before, modes = weights(learner), [m.training for m in learner.parts.modules()]
    first = learner.select(p, 5)
    assert same(before, weights(learner)), "a weight or a buffer changed"
    assert modes == [m.training for m in learner.parts.modules()], "a mode changed"
    assert torch.equal(labels, p.labels)
    assert torch.equal(images, p.images)
    assert alike(first, learner.select(p, 5)), "asked again, the answer differs"


def fit_twice_is_fit_once(subject: Subject) -> None:
    p, other = pool(), pool(seed=1)
    learner = subject.learner()
    once = weights(learner.fit(p))
    learner.fit(other)
    assert same(once, weights(learner.fit(p)))


def fit_trains_every_part(subject: Subject) -> None:
    p = pool()
    few, more = subject.learner().fit(p), subject.learner(**{"steps": 4}).fit(p)
    assert {"trunk", "head"} <= set(few.parts or {})
    assert not same(weights(few), weights(more)), "one step more changes nothing"
    assert all(torch.isfinite(value).all() for value in weights(few).values())


def fit_and_select_are_blind_to_hidden_labels(subject: Subject) -> None:
    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("a learner asked the oracle")

    p = pool()
    learner = subject.learner()
    seeing = learner.fit(p).select(p, 5)
    blind = replace(p, oracle=refuse)
    assert alike(seeing, learner.fit(blind).select(blind, 5))


def the_callers_random_numbers_are_left_alone(subject: Subject) -> None:
    def draw() -> list[float]:
        return [torch.rand(1).item(), float(np.random.rand()), random.random()]

    p = pool()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    untouched = draw()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    subject.learner().fit(p).select(p, 3)
    assert untouched == draw()


def the_callers_random_numbers_do_not_matter(subject: Subject) -> None:
    p = pool()
    learner = subject.learner()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        once = weights(learner.fit(p))
        first = learner.select(p, 5)
        torch.manual_seed(2)
        assert same(once, weights(learner.fit(p)))
        assert alike(first, learner.select(p, 5))


def the_seed_matters(subject: Subject) -> None:
    p = pool()
    assert not same(weights(subject.learner(seed=0).fit(p)), weights(subject.learner(seed=1).fit(p)))


def the_whole_pool_can_be_asked(subject: Subject) -> None:
    p = pool()
    asked = subject.learner().fit(p).select(p, len(p.unlabeled))
    assert torch.equal(asked.indices.sort().values, p.unlabeled)


def twins_are_asked_one_by_one(subject: Subject) -> None:
    p = pool()
    p = replace(p, images=p.images[:1].expand_as(p.images).clone())
    assert len(set(subject.learner().fit(p).select(p, 9))) == 9


def the_order_of_the_pool_does_not_matter(subject: Subject) -> None:
    """With the same networks; near ties count as equal, and a randomised query is left out."""
    if subject.randomised:
        return
    p = pool()
    learner = subject.learner().fit(p)
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(3))
    place = order.argsort()
    q = replace(p, images=p.images[order], labels=p.labels[order], rounds=tuple(place[r] for r in p.rounds))
    here, there = learner.select(p, 9), learner.select(q, 9)
    moved = order[there.indices]
    close = torch.isclose(here.scores, there.scores, rtol=1e-4, atol=1e-5)
    assert close.all(), "the scores depend on the order of the pool"
    ties = torch.isclose(here.scores[:, None], here.scores, rtol=1e-4, atol=1e-5).sum(1) > 1
    assert (moved == here.indices)[~ties].all(), "the images asked depend on the order of the pool"


def scores_do_not_depend_on_the_batch(subject: Subject) -> None:
    p = pool()
    learner = subject.learner().fit(p)
    scan = learner.scan(p)
    for view in (scan.parts["trunk"], scan.task):
        one, many = scan.each(view, size=1), scan.each(view, size=7)
        assert torch.allclose(one, many, rtol=1e-5, atol=1e-5)


def a_pool_of_labeled_images_trains(subject: Subject) -> None:
    p = pool()
    full = p.reveal(p.unlabeled)
    learner = subject.learner().fit(full)
    assert learner.predict(full.images[:4]).shape == (4, CLASSES)
    refuses(ValueError, "only 0 are unlabeled", lambda: learner.select(full, 1))


def one_label_is_enough(subject: Subject) -> None:
    p = pool()
    few = Pool.hidden(p.images, CLASSES, p.oracle).reveal([5])
    assert len(subject.learner().fit(few).select(few, 3)) == 3


def what_makes_no_sense_is_refused(subject: Subject) -> None:
    p = pool()
    nothing = Pool.hidden(p.images, CLASSES, p.oracle)
    learner = subject.learner()
    refuses(RuntimeError, "fit", lambda: learner.select(p, 3))
    refuses(ValueError, "label", lambda: learner.fit(nothing))
    learner.fit(p)
    u = len(p.unlabeled)
    refuses(ValueError, f"only {u} are unlabeled", lambda: learner.select(p, u + 1))
    refuses(ValueError, "at least 1", lambda: learner.select(p, 0))
    refuses(ValueError, "at least 1", lambda: learner.select(p, -1))
    refuses(ValueError, "supposition", lambda: learner.select(p.suppose(p.unlabeled[:2], [0, 1]), 3))
    small = Pool.of(torch.zeros(6, 1, 9, 9, dtype=torch.uint8), [0, 1, 0, 1, 0, 1], 2).reveal([0])
    refuses(ValueError, "fit", lambda: learner.select(small, 1))
    refuses(TypeError, "no setting", lambda: subject.learner(epochz=3))


def predict_gives_probabilities(subject: Subject) -> None:
    p = pool()
    learner = subject.learner().fit(p)
    probs = learner.predict(p.images)
    assert probs.shape == (len(p), CLASSES)
    assert probs.dtype == torch.float32
    assert probs.device.type == "cpu"
    assert torch.allclose(probs.sum(1), torch.ones(len(p)), atol=1e-5)
    assert torch.allclose(probs[3:5], learner.predict(p.images[3:5]), atol=1e-5)
    assert learner.predict(p.images[:0]).shape == (0, CLASSES)
    refuses(TypeError, "uint8", lambda: learner.predict(p.images.float() / 255))


def saved_and_loaded_it_asks_the_same(subject: Subject) -> None:
    """For names only: objects that no catalogue knows cannot be found again."""
    if not isinstance(subject.name, str):
        return
    p = pool()
    learner = subject.learner().fit(p)
    with tempfile.TemporaryDirectory() as folder:
        path = learner.save(Path(folder) / "learner.safetensors")
        refuses(FileExistsError, "overwrite", lambda: learner.save(path))
        again = load(path, device="cpu")
    assert same(weights(learner), weights(again))
    assert torch.equal(learner.predict(p.images), again.predict(p.images))
    assert alike(learner.select(p, 5), again.select(p, 5))
    assert repr(learner) == repr(again)


def warm_starts_from_what_was_learned(subject: Subject) -> None:
    p = pool()
    learner = subject.learner().fit(p)
    before = weights(learner)
    warm = learner.warm()
    refuses(RuntimeError, "fit", lambda: warm.select(p, 1))
    once = weights(warm.fit(p))
    assert same(before, weights(learner)), "warming changed the first learner"
    assert not same(once, before)
    assert same(once, weights(warm.fit(p))), "fit wrote into the start weights"


def killed_and_resumed_is_never_killed(subject: Subject) -> None:
    p = pool()
    moments: list[tuple[str, int, int]] = []
    whole = weights(subject.learner().fit(p, progress=lambda *at: moments.append(at)))
    for moment in {0, len(moments) // 2, len(moments) - 1}:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fit.snapshot"
            seen: list[tuple[str, int, int]] = []

            def watch(*at: Any, seen: list[tuple[str, int, int]] = seen, moment: int = moment) -> None:
                seen.append(at)
                if len(seen) == moment + 1:
                    raise Killed

            try:
                subject.learner().fit(p, progress=watch, snapshot=path, snapshot_seconds=0)
            except Killed:
                seen.clear()
            else:
                raise AssertionError("it was not killed")
            again = subject.learner().fit(p, progress=lambda *at, seen=seen: seen.append(at), snapshot=path)
            assert same(whole, weights(again)), f"killed at step {moment} of {len(moments)}"
            assert len(seen) == len(moments) - moment, "steps that were done have been done again"
            assert not path.exists()


def cold_queries_ask_before_anything_is_labeled(subject: Subject) -> None:
    nothing = Pool.hidden(pool().images, CLASSES, pool().oracle)
    if subject.cold:
        assert len(set(subject.learner().select(nothing, 5))) == 5
    else:
        refuses(RuntimeError, "fit", lambda: subject.learner().select(nothing, 5))


LAWS: tuple[Callable[[Subject], None], ...] = (
    asks_for_distinct_unlabeled_images,
    select_changes_nothing,
    fit_twice_is_fit_once,
    fit_trains_every_part,
    fit_and_select_are_blind_to_hidden_labels,
    the_callers_random_numbers_are_left_alone,
    the_callers_random_numbers_do_not_matter,
    the_seed_matters,
    the_whole_pool_can_be_asked,
    twins_are_asked_one_by_one,
    the_order_of_the_pool_does_not_matter,
    scores_do_not_depend_on_the_batch,
    a_pool_of_labeled_images_trains,
    one_label_is_enough,
    what_makes_no_sense_is_refused,
    predict_gives_probabilities,
    saved_and_loaded_it_asks_the_same,
    warm_starts_from_what_was_learned,
    killed_and_resumed_is_never_killed,
    cold_queries_ask_before_anything_is_labeled,
)


class Killed(BaseException):
    """Somebody pulled the plug."""


def who_moves(
    train: Callable[..., object], pool: Pool, plan: object, parts: Mapping[str, nn.Module]
) -> list[tuple[str | None, set[str]]]:
    """At every optimizer step of a loop, the player whose step it was, and the parts that have changed since the last.

    For tests that each player moves its own parameters only, in the order of the paper.
    """
    moved: list[tuple[str | None, set[str]]] = []

    def now() -> dict[str, Tensor]:
        flat = {name: [p.detach().flatten() for p in part.parameters()] for name, part in parts.items()}
        return {name: torch.cat(values) for name, values in flat.items() if values}

    class Seeing(Run):
        last = now()

        def setup(
            self, module: nn.Module, optimizer: Optimizer | None, player: str | None = None
        ) -> tuple[nn.Module, Optimizer]:
            def look(*_: object) -> None:
                fresh = now()
                moved.append((player, {name for name in fresh if not torch.equal(fresh[name], Seeing.last[name])}))
                Seeing.last = fresh

            if optimizer is not None:
                optimizer.register_step_post_hook(look)
            return super().setup(module, optimizer, player)

    train(Seeing(pool), pool, plan, **parts)
    return moved


def weights(learner: Learner) -> dict[str, Tensor]:
    assert learner.parts is not None
    return {name: value.clone() for name, value in learner.parts.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def alike(a: Selection, b: Selection) -> bool:
    return torch.equal(a.indices, b.indices) and torch.equal(a.scores, b.scores) and same(a.detail, b.detail)


def refuses(kind: type[Exception], word: str, act: Callable[[], object]) -> None:
    """That something is refused, with an error of this kind that has this word in it."""
    try:
        act()
    except kind as error:
        assert word in str(error), f"{word!r} is not in {str(error)!r}"  # noqa: PT017 (no pytest here)
    else:
        raise AssertionError(f"nothing was refused, where {kind.__name__} was due")
