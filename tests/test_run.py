"""What loops are handed: streams, augmentation, steps, the journal, snapshots, and who diverged."""

from __future__ import annotations

import logging
import pickle
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

import zoo
from trainers.augment import AUGMENTS
from trainers.pool import Pool
from trainers.run import WINDOW, Diverged, Run, Snapshots
from trainers.seeds import generator, key, reseed, seeded
from trainers.supervised import rate

Loop = Callable[[Run, Pool], list[nn.Module]]


class Killed(BaseException):
    """What kills a fit."""


def killer(at: int) -> Callable[[str, int, int], None]:
    """A watch that kills at its at-th look, from 1 on."""
    looks = iter(range(1, at))

    def watch(stage: str, done: int, steps: int) -> None:  # noqa: ARG001
        if next(looks, None) is None:
            raise Killed

    return watch


def greys(n: int = 30, labeled: int = 12, c: int = 1, h: int = 8, w: int = 8) -> Pool:
    """A pool whose image i is all of grey i, and of class i % 3; the first are labeled."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, c, h, w)
    return Pool.of(images, torch.arange(n) % 3, 3).reveal(range(labeled))


def noise(n: int = 24, labeled: int = 12) -> Pool:
    """A pool of 8x8 images of noise; the first are labeled."""
    images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Pool.of(images, torch.arange(n) % 3, 3).reveal(range(labeled))


def seen(x: Tensor) -> list[int]:
    """Which of the greys a batch shows."""
    return ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def batches(stream: Iterator[tuple[Tensor, Tensor]], n: int) -> list[list[int]]:
    return [seen(x) for x, _ in islice(stream, n)]


# Streams


@pytest.mark.parametrize(("images", "size"), [(12, 4), (12, 5), (7, 3), (3, 8), (1, 4), (5, 5)])
def test_every_image_comes_once_before_any_comes_again(images: int, size: int) -> None:
    stream = Run(greys()).stream(torch.arange(images), size)
    order = [i for batch in batches(stream, 4 * images) for i in batch]
    turns = [sorted(order[at : at + images]) for at in range(0, len(order), images)]
    assert len(turns) == 4 * size
    assert turns == [list(range(images))] * len(turns)


@pytest.mark.parametrize(("images", "size"), [(12, 5), (3, 8), (1, 4)])
def test_batches_are_always_full(images: int, size: int) -> None:
    stream = Run(greys(c=2, w=10)).stream(torch.arange(images), size)
    for x, y in islice(stream, 9):
        assert x.shape == (size, 2, 8, 10)
        assert y.shape == (size,)


def test_every_turn_is_shuffled_anew() -> None:
    stream = Run(greys()).stream(torch.arange(12), 12)
    first, second, third = batches(stream, 3)
    assert first != second
    assert second != third
    assert first != sorted(first)


def test_a_stream_shows_no_other_images() -> None:
    stream = Run(greys()).stream(torch.tensor([3, 20, 17]), 5)
    assert {i for batch in batches(stream, 6) for i in batch} == {3, 17, 20}


def test_batches_are_floats_from_minus_one_to_one() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).repeat(1, 1, 8, 8)
    x, _ = next(Run(Pool.of(images, [0, 1], 2)).stream(torch.arange(2), 2))
    assert x.dtype == torch.float32
    assert sorted(x[:, 0, 0, 0].tolist()) == [-1, 1]


def test_labels_belong_to_their_images() -> None:
    pool = greys(labeled=30)
    for x, y in islice(Run(pool).stream(pool.labeled, 7), 9):
        assert y.dtype == torch.int64
        assert y.tolist() == [i % 3 for i in seen(x)]


def test_unknown_labels_are_minus_one() -> None:
    pool = greys()
    _, y = next(Run(pool).stream(pool.unlabeled, 7))
    assert y.tolist() == [-1] * 7


def test_made_images_come_with_their_labels() -> None:
    pool = greys(labeled=2).admit(torch.full((2, 1, 8, 8), 200, dtype=torch.uint8), [2, 2])
    x, y = next(Run(pool).stream(pool.labeled, 4))
    assert sorted(zip(seen(x), y.tolist(), strict=True)) == [(0, 0), (1, 1), (200, 2), (200, 2)]


def test_a_stream_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs images.*skip the players"):
        Run(greys()).stream(torch.empty(0, dtype=torch.int64), 4)


def test_a_batch_depends_on_seed_stream_and_step_alone() -> None:
    pool = greys()
    alone = Run(pool, seed=3, augment="shift").stream(pool.labeled, 5)
    expected = [x for x, _ in islice(alone, 6)]

    run = Run(pool, seed=3, augment="shift")
    stream, other = run.stream(pool.labeled, 5), run.stream(pool.unlabeled, 3)
    for x in expected:
        torch.rand(7)  # somebody draws from torch's own numbers
        next(other)
        assert torch.equal(next(stream)[0], x)


def test_two_streams_of_the_same_images_differ() -> None:
    run = Run(greys())
    one, other = run.stream(torch.arange(12), 12), run.stream(torch.arange(12), 12)
    assert batches(one, 2) != batches(other, 2)


def test_two_seeds_differ() -> None:
    one, other = (Run(greys(), seed=seed).stream(torch.arange(12), 12) for seed in (0, 1))
    assert batches(one, 2) != batches(other, 2)


def test_two_rounds_differ() -> None:
    pool = greys()
    one, other = (Run(p).stream(torch.arange(12), 12) for p in (pool, pool.reveal([20])))
    assert batches(one, 2) != batches(other, 2)


def test_a_stream_augments_as_the_run_does() -> None:
    pool = noise()
    one, other = (Run(pool, augment=augment).stream(pool.labeled, 12) for augment in ("none", "flip"))
    assert not torch.equal(next(one)[0], next(other)[0])


def test_a_stream_may_augment_in_its_own_way() -> None:
    pool = noise()
    one = Run(pool, augment="none").stream(pool.labeled, 12)
    other = Run(pool, augment="strong").stream(pool.labeled, 12, augment="none")
    assert torch.equal(next(one)[0], next(other)[0])


def test_a_run_over_another_pool_sees_its_labels() -> None:
    pool = greys(labeled=2)
    run = Run(pool).over(pool.suppose([5], [0]))
    x, y = next(run.stream(torch.tensor([5]), 1))
    assert (seen(x), y.tolist()) == ([5], [0])


def test_streams_of_a_run_over_another_pool_are_streams_of_their_own() -> None:
    run = Run(greys())
    one, other = run.stream(torch.arange(12), 12), run.over(run.pool).stream(torch.arange(12), 12)
    assert batches(one, 2) != batches(other, 2)


# Augmentation

SHAPES = [(1, 8, 8), (3, 9, 16), (5, 17, 8), (3, 32, 32)]


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(b: int, c: int, h: int, w: int) -> Tensor:
    """Images of noise without any black."""
    return torch.randint(1, 256, (b, c, h, w), dtype=torch.uint8, generator=chance(5))


def moves(image: Tensor) -> list[Tensor]:
    """An image in every place to which it may be moved."""
    _, h, w = image.shape
    up, left = max(1, h // 8), max(1, w // 8)
    padded = F.pad(image, (left, left, up, up))
    return [padded[:, i : i + h, j : j + w] for i in range(2 * up + 1) for j in range(2 * left + 1)]


def among(image: Tensor, others: list[Tensor]) -> bool:
    return any(torch.equal(image, other) for other in others)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", AUGMENTS)
def test_augmentation_keeps_shape_and_type(name: str, shape: tuple[int, int, int]) -> None:
    x = scene(6, *shape)
    out = AUGMENTS[name](x, chance())
    assert out.shape == x.shape
    assert out.dtype == torch.uint8


@pytest.mark.parametrize("name", AUGMENTS)
def test_augmentation_leaves_its_input_alone(name: str) -> None:
    x = scene(6, 3, 9, 16)
    before = x.clone()
    AUGMENTS[name](x, chance())
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", AUGMENTS)
def test_augmentation_depends_on_its_generator_alone(name: str) -> None:
    x = scene(6, 3, 9, 16)
    once = AUGMENTS[name](x, chance())
    torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(AUGMENTS[name](x, chance()), once)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(set(AUGMENTS) - {"none"}))
def test_another_generator_augments_in_another_way(name: str) -> None:
    x = scene(20, 1, 16, 16)
    assert not torch.equal(AUGMENTS[name](x, chance(0)), AUGMENTS[name](x, chance(1)))


@pytest.mark.parametrize("name", AUGMENTS)
def test_channels_are_augmented_together(name: str) -> None:
    x = scene(20, 1, 9, 16).expand(-1, 3, -1, -1)
    out = AUGMENTS[name](x, chance())
    assert torch.equal(out, out[:, :1].expand(-1, 3, -1, -1))


def test_none_changes_nothing() -> None:
    x = scene(6, 3, 9, 16)
    assert torch.equal(AUGMENTS["none"](x, chance()), x)


def test_flip_mirrors_half_of_the_images_and_leaves_the_others() -> None:
    x = scene(400, 1, 4, 6)
    out = AUGMENTS["flip"](x, chance())
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    same = (out == x).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 160 < int(mirrored.sum()) < 240


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shift_only_moves_and_fills_with_black(shape: tuple[int, int, int]) -> None:
    x = scene(12, *shape)
    for image, out in zip(x, AUGMENTS["shift"](x, chance()), strict=True):
        assert among(out, moves(image))


def test_shift_reaches_every_place() -> None:
    x = scene(1, 1, 8, 8).expand(200, -1, -1, -1)
    out = AUGMENTS["shift"](x, chance())
    assert all(among(place, list(out)) for place in moves(x[0]))


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_flip_and_shift_mirror_and_move(shape: tuple[int, int, int]) -> None:
    x = scene(12, *shape)
    for image, out in zip(x, AUGMENTS["flip+shift"](x, chance()), strict=True):
        assert among(out, moves(image) + moves(image.flip(2)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_strong_blanks_a_quarter_of_the_image_after_flip_and_shift(shape: tuple[int, int, int]) -> None:
    x = scene(12, *shape)
    gentle, out = AUGMENTS["flip+shift"](x, chance()), AUGMENTS["strong"](x, chance())
    _, h, w = shape
    for before, after in zip(gentle, out, strict=True):
        boxes = [
            (top, left)
            for top in range(h // 2 + 1)
            for left in range(w // 2 + 1)
            if not after[:, top : top + h // 2, left : left + w // 2].any()
        ]
        assert any(torch.equal(blanked(before, *box), after) for box in boxes)


def blanked(image: Tensor, top: int, left: int) -> Tensor:
    _, h, w = image.shape
    image = image.clone()
    image[:, top : top + h // 2, left : left + w // 2] = 0
    return image


# Steps and the journal


def test_steps_count_from_nought() -> None:
    assert list(Run(greys()).steps(4)) == [0, 1, 2, 3]


def test_steps_may_begin_later() -> None:
    assert list(Run(greys()).steps(5, first=3)) == [3, 4]


def test_no_steps_are_no_steps() -> None:
    assert list(Run(greys()).steps(0)) == []


def test_ticks_are_the_steps_of_all_stages() -> None:
    run = Run(greys())
    for _ in run.steps(3, "one"):
        pass
    for _ in run.over(run.pool).steps(4, "two"):
        pass
    assert run.ticks == 7


def test_the_watch_sees_every_step_of_every_stage() -> None:
    looks: list[tuple[str, int, int]] = []
    run = Run(greys(), watch=lambda *look: looks.append(look))
    for stage, n in (("one", 2), ("two", 3)):
        for _ in run.steps(n, stage):
            pass
    assert looks == [("one", 1, 2), ("one", 2, 2), ("two", 1, 3), ("two", 2, 3), ("two", 3, 3)]


def test_noise_in_a_step_depends_on_the_step_alone() -> None:
    first = [torch.rand(3) for _ in Run(greys(), seed=1).steps(4, "game")]
    second = []
    for _ in Run(greys(), seed=1).steps(4, "game"):
        second.append(torch.rand(3))
        torch.rand(5)
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert len({tuple(x.tolist()) for x in first}) == 4


def test_noise_differs_between_stages() -> None:
    run = Run(greys())
    one, other = ([torch.rand(3) for _ in run.steps(1, stage)] for stage in ("one", "two"))
    assert not torch.equal(one[0], other[0])


def test_means_reach_the_journal_every_hundred_steps_and_at_the_end() -> None:
    lines: list[tuple[str, float, int]] = []
    run = Run(greys(), journal=lambda *line: lines.append(line))
    for step in run.steps(250):
        run.log("task/step", torch.tensor(step))
    assert WINDOW == 100
    assert lines == [("task/step", 49.5, 100), ("task/step", 149.5, 200), ("task/step", 224.5, 250)]


def test_the_journal_counts_the_steps_of_all_stages() -> None:
    lines: list[tuple[str, float, int]] = []
    run = Run(greys(), journal=lambda *line: lines.append(line))
    for stage in ("one", "two"):
        for step in run.steps(30, stage):
            run.log(f"{stage}/step", torch.tensor(float(step)))
    assert lines == [("one/step", 14.5, 30), ("two/step", 14.5, 60)]


def test_the_mean_is_over_what_was_logged_not_over_steps() -> None:
    lines: list[tuple[str, float, int]] = []
    run = Run(greys(), journal=lambda *line: lines.append(line))
    for step in run.steps(10):
        if step % 5 == 0:
            run.log("seldom", torch.tensor(float(step)))
    assert lines == [("seldom", 2.5, 10)]


def test_what_is_logged_carries_no_gradient() -> None:
    lines: list[float] = []
    run = Run(greys(), journal=lambda _, value, __: lines.append(value))
    for _ in run.steps(1):
        run.log("loss", torch.tensor(2.0, requires_grad=True))
    assert lines == [2.0]


def test_the_user_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(greys())
    with caplog.at_level(logging.WARNING, "alzoo"):
        for _ in range(3):
            run.say("nothing is unlabeled")
        run.over(run.pool).say("nothing is unlabeled")
        run.say("something else")
    assert caplog.messages == ["nothing is unlabeled", "something else"]


# Who diverged, and when


def duel(  # noqa: PLR0917
    run: Run,
    steps: int,
    bad: str,
    at: int,
    order: tuple[str, str] = ("maker", "critic"),
    value: float = float("nan"),
    meet: bool = False,
) -> None:
    """Two players with a weight each; the loss of `bad` breaks at step `at`. If they meet, each sees the other's."""
    nets = {name: nn.Linear(1, 1) for name in order}
    players = {name: run.setup(nets[name], SGD(nets[name].parameters(), 0.01), name) for name in order}
    x = torch.ones(1, 1)
    for step in run.steps(steps, "game"):
        for name in order:
            net, optimizer = players[name]
            loss = net(x).square().mean()
            if meet:
                loss = loss + sum(0 * other(x).detach().mean() for other in nets.values())
            if name == bad and step == at:
                loss = loss + value
            optimizer.zero_grad()
            run.backward(loss)
            optimizer.step()


@pytest.mark.parametrize("order", [("maker", "critic"), ("critic", "maker")], ids=str)
@pytest.mark.parametrize("bad", ["maker", "critic"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("meet", [False, True], ids=["apart", "meeting"])
def test_diverged_names_the_player_and_the_step(order: tuple[str, str], bad: str, value: float, meet: bool) -> None:
    with pytest.raises(Diverged) as caught:
        duel(Run(greys()), 8, bad, 3, order, value, meet)
    assert (caught.value.player, caught.value.step) == (bad, 3)


@pytest.mark.parametrize("at", [0, 99, 100, 119])
def test_any_step_of_any_window_may_diverge(at: int) -> None:
    with pytest.raises(Diverged) as caught:
        duel(Run(greys()), 120, "critic", at)
    assert (caught.value.player, caught.value.step) == ("critic", at)


def test_the_message_says_who_when_and_what_to_do() -> None:
    with pytest.raises(Diverged, match=r"critic.*step 3 of stage 'game'.*learning rate"):
        duel(Run(greys()), 8, "critic", 3)


def test_a_broken_fit_stops_at_the_end_of_the_window() -> None:
    looks: list[int] = []
    with pytest.raises(Diverged):
        duel(Run(greys(), watch=lambda _, done, __: looks.append(done)), 250, "critic", 3)
    assert looks == list(range(1, WINDOW))


def test_the_step_counts_within_its_stage() -> None:
    run = Run(greys())
    for _ in run.steps(5, "one"):
        pass
    with pytest.raises(Diverged) as caught:
        duel(run, 8, "maker", 2)
    assert caught.value.step == 2


def alone(run: Run, breaks: Callable[[int], tuple[bool, ...]], player: str | None = None) -> None:
    """One player with some losses a step, of which those break that `breaks` says."""
    module = nn.Linear(1, 1)
    net, optimizer = run.setup(module, SGD(module.parameters(), 0.0), player)
    for step in run.steps(4):
        for bad in breaks(step):
            run.backward(net(torch.ones(1, 1)).mean() * (float("nan") if bad else 1))
        optimizer.step()


def test_one_of_several_losses_before_a_step_is_enough() -> None:
    with pytest.raises(Diverged) as caught:
        alone(Run(greys()), lambda step: (step == 1, False))
    assert caught.value.step == 1


def test_players_without_names_are_called_by_what_they_are() -> None:
    with pytest.raises(Diverged) as caught:
        alone(Run(greys()), lambda _: (True,))
    assert caught.value.player == "Linear"


def test_a_finite_fit_goes_through() -> None:
    run = Run(greys())
    duel(run, 220, "nobody", 0)
    assert run.ticks == 220


def test_diverged_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Diverged("critic", "game", 3)))
    assert (error.player, error.step) == ("critic", 3)
    assert str(error) == str(Diverged("critic", "game", 3))


def test_a_learner_that_diverges_says_so() -> None:
    with pytest.raises(zoo.Diverged) as caught:
        learner(lr=1e30).fit(noise())
    assert caught.value.player == "task"


# Killed and resumed


def toy(run: Run, pool: Pool) -> list[nn.Module]:
    """Two stages and what lies between: momentum, a schedule, batch statistics, dropout, Adam, noise, suppositions."""
    task = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    critic = nn.Linear(8, 1)
    net, net_step = run.setup(task, SGD(task.parameters(), 0.1, momentum=0.9), "task")
    labeled = run.stream(pool.labeled, 5)
    for step, (x, y) in zip(run.steps(6, "task"), labeled, strict=False):
        rate(net_step, 0.1 / (1 + step))
        net_step.zero_grad()
        run.backward(F.cross_entropy(net(x), y))
        net_step.step()

    def believe() -> Tensor:
        task.eval()
        with torch.no_grad():
            guesses: Tensor = task(pool.take(pool.unlabeled) / 127.5 - 1).argmax(1)
        task.train()
        return guesses

    supposed = run.over(pool.suppose(pool.unlabeled, run.once("guesses", believe)))
    critic, critic_step = supposed.setup(critic, Adam(critic.parameters(), 0.01), "critic")
    everything = supposed.stream(supposed.pool.labeled, 7, augment="strong")
    for _ in supposed.steps(5, "game"):
        x, y = next(everything)
        z = net[:4](x) if isinstance(net, nn.Sequential) else task[:4](x)
        net_step.zero_grad()
        supposed.backward(F.cross_entropy(net(x), y) + critic(z + 0.1 * torch.randn_like(z)).square().mean())
        net_step.step()
        critic_step.zero_grad()
        supposed.backward(critic(torch.randn_like(z)).sigmoid().mean())
        critic_step.step()
    return [task, critic]


def rebuilding(run: Run, pool: Pool) -> list[nn.Module]:
    """A stage, then a fresh network for the next."""
    modules: list[nn.Module] = []
    for stage in ("one", "two"):
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        modules.append(module)
        net, net_step = run.setup(module, SGD(module.parameters(), 0.1), stage)
        for _, (x, y) in zip(run.steps(3, stage), run.stream(pool.labeled, 4), strict=False):
            net_step.zero_grad()
            run.backward(F.cross_entropy(net(x), y))
            net_step.step()
    return modules


def lottery(run: Run, pool: Pool) -> list[nn.Module]:  # noqa: ARG001
    """A stage, and lots drawn after it."""
    module = nn.Linear(1, 1)
    net, net_step = run.setup(module, SGD(module.parameters(), 0.1), "task")
    for _ in run.steps(3, "one"):
        net_step.zero_grad()
        run.backward(net(torch.ones(1, 1)).square().mean())
        net_step.step()
    lots = run.once("lots", lambda: torch.rand(1))
    for _ in run.steps(3, "two"):
        net_step.zero_grad()
        run.backward((net(torch.ones(1, 1)) - lots).square().mean())
        net_step.step()
    return [module]


def live(loop: Loop, path: Path | None = None, kill: int | None = None, seconds: float = 0.0) -> list[Tensor]:
    """A fit of one's loop, killed at its kill-th step; all weights and statistics in the end."""
    pool = noise()
    with seeded(torch.device("cpu"), 0, "build"):
        run = Run(
            pool,
            seed=4,
            augment="flip+shift",
            watch=None if kill is None else killer(kill),
            snapshots=None if path is None else Snapshots(path, "me", seconds),
        )
        modules = loop(run, pool)
    assert run.ticks > 0
    return [value for module in modules for value in module.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("at", range(1, 12))
def test_killed_at_any_step_and_resumed_is_never_killed(at: int, tmp_path: Path) -> None:
    expected = live(toy)
    with pytest.raises(Killed):
        live(toy, tmp_path / "fit.snapshot", at)
    assert same(live(toy, tmp_path / "fit.snapshot"), expected)


@pytest.mark.parametrize("loop", [lottery, rebuilding])
@pytest.mark.parametrize("at", range(1, 7))
def test_what_happens_between_two_stages_is_the_same_after_a_kill(loop: Loop, at: int, tmp_path: Path) -> None:
    expected = live(loop)
    with pytest.raises(Killed):
        live(loop, tmp_path / "fit.snapshot", at)
    assert same(live(loop, tmp_path / "fit.snapshot"), expected)


def test_killed_again_and_again_is_never_killed(tmp_path: Path) -> None:
    deaths = 0
    while True:
        try:
            weights = live(toy, tmp_path / "fit.snapshot", 2)
        except Killed:
            deaths += 1
        else:
            break
    assert deaths == 10
    assert same(weights, live(toy))


def test_killed_after_the_last_step_is_never_killed(tmp_path: Path) -> None:
    expected = live(toy, tmp_path / "fit.snapshot")
    assert same(live(toy, tmp_path / "fit.snapshot"), expected)


def test_a_snapshot_that_is_half_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit.snapshot"
    with pytest.raises(Killed):
        live(toy, path, 5)
    before = path.read_bytes()

    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr("trainers.run.os.replace", die)
    with pytest.raises(Killed):
        live(toy, path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert same(live(toy, path), live(toy))


def test_a_resumed_run_skips_finished_stages(tmp_path: Path) -> None:
    def two_stages(watch: Callable[[str, int, int], None] | None) -> tuple[list[list[int]], int]:
        run = Run(greys(), watch=watch, snapshots=Snapshots(tmp_path / "fit.snapshot", "me", 0))
        return [list(run.steps(4, "one")), list(run.steps(4, "two"))], run.ticks

    with pytest.raises(Killed):
        two_stages(killer(7))
    assert two_stages(None) == ([[], [2, 3]], 8)


def test_once_is_once_over_all_lives(tmp_path: Path) -> None:
    def loop(compute: Callable[[], Any], watch: Callable[[str, int, int], None] | None) -> Any:
        run = Run(greys(), watch=watch, snapshots=Snapshots(tmp_path / "fit.snapshot", "me", 0))
        value = run.once("between", compute)
        assert run.once("between", unwanted) is value
        for _ in run.steps(3):
            pass
        return value

    def unwanted() -> Any:
        raise AssertionError("computed again")

    value = {"guesses": torch.arange(5), "threshold": 0.25, "names": ["a", "b"]}
    with pytest.raises(Killed):
        loop(lambda: value, killer(2))
    again = loop(unwanted, None)
    assert torch.equal(again.pop("guesses"), torch.arange(5))
    assert again == {"threshold": 0.25, "names": ["a", "b"]}


def test_no_snapshot_is_written_before_its_time(tmp_path: Path) -> None:
    live(toy, tmp_path / "fit.snapshot", seconds=1e9)
    assert list(tmp_path.iterdir()) == []


def test_snapshots_leave_no_litter(tmp_path: Path) -> None:
    live(toy, tmp_path / "new" / "fit.snapshot")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["fit.snapshot"]


def test_the_snapshot_of_another_owner_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "fit.snapshot"
    with pytest.raises(Killed):
        live(toy, path, 4)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"snapshot of another fit.*Remove it"):
        Run(noise(), snapshots=Snapshots(path, "somebody else"))
    assert path.read_bytes() == before


def test_a_broken_fit_leaves_no_broken_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "fit.snapshot"
    with pytest.raises(Diverged):
        duel(Run(greys(), snapshots=Snapshots(path, "me", 0)), 8, "maker", 3)
    players = torch.load(path, weights_only=True)["players"]
    assert all(value.isfinite().all() for player in players for value in player["module"].values())


# The learner's own fit


def learner(name: str = "margin", **settings: Any) -> zoo.Learner:
    own = {"dropout": 0.5} if name == "margin" else {"game_steps": 4}
    return zoo.create(name, **{"device": "cpu", "steps": 5, "batch": 4, "width": 4, **own, **settings})


def interrupted(path: Path, pool: Pool | None = None, one: zoo.Learner | None = None) -> Path:
    """The snapshot of a fit that was killed in its fourth step."""
    with pytest.raises(Killed):
        (one or learner()).fit(noise() if pool is None else pool, progress=killer(4), snapshot=path, snapshot_seconds=0)
    assert path.exists()
    return path


def weights(one: zoo.Learner) -> list[Tensor]:
    assert one.parts is not None
    return list(one.parts.state_dict().values())


def test_a_fit_removes_its_snapshot_in_the_end(tmp_path: Path) -> None:
    learner().fit(noise(), snapshot=tmp_path / "fit.snapshot", snapshot_seconds=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["margin", "vaal"])
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_killed_fit_goes_on(name: str, at: int, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        learner(name).fit(noise(), progress=killer(at), snapshot=tmp_path / "fit", snapshot_seconds=0)
    resumed = learner(name).fit(noise(), snapshot=tmp_path / "fit")
    assert same(weights(resumed), weights(learner(name).fit(noise())))
    assert not (tmp_path / "fit").exists()


def test_a_vaal_killed_in_its_game_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        learner("vaal").fit(noise(), progress=killer(8), snapshot=tmp_path / "fit", snapshot_seconds=0)
    resumed = learner("vaal").fit(noise(), snapshot=tmp_path / "fit")
    assert same(weights(resumed), weights(learner("vaal").fit(noise())))
    assert resumed.ticks == 9


def test_a_killed_fit_leaves_the_learner_as_it_was(tmp_path: Path) -> None:
    one = learner().fit(noise())
    before = [value.clone() for value in weights(one)]
    interrupted(tmp_path / "fit", noise(labeled=15), one)
    assert same(weights(one), before)


@pytest.mark.parametrize("settings", [{"seed": 1}, {"lr": 0.05}, {"steps": 6}, {"augment": "shift"}, {"width": 8}])
def test_the_snapshot_of_a_learner_with_other_settings_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    path = interrupted(tmp_path / "fit")
    with pytest.raises(ValueError, match="another fit"):
        learner(**settings).fit(noise(), snapshot=path)


def other_images() -> Pool:
    pool = noise()
    return Pool.of(255 - pool.images, torch.arange(24) % 3, 3).reveal(range(12))


def other_rounds() -> Pool:
    return noise(labeled=11).reveal([11])


@pytest.mark.parametrize(
    "pool", [lambda: noise(labeled=15), other_rounds, other_images], ids=["labels", "rounds", "images"]
)
def test_the_snapshot_of_a_fit_to_another_pool_is_refused(pool: Callable[[], Pool], tmp_path: Path) -> None:
    path = interrupted(tmp_path / "fit")
    with pytest.raises(ValueError, match="another fit"):
        learner().fit(pool(), snapshot=path)


def test_the_snapshot_of_a_fit_from_other_weights_is_refused(tmp_path: Path) -> None:
    first, second = (learner().fit(noise(labeled=labeled)).warm() for labeled in (6, 9))
    path = interrupted(tmp_path / "fit", one=first)
    with pytest.raises(ValueError, match="another fit"):
        second.fit(noise(), snapshot=path)


def test_a_refused_snapshot_is_kept(tmp_path: Path) -> None:
    path = interrupted(tmp_path / "fit")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another fit"):
        learner(seed=1).fit(noise(), snapshot=path)
    assert path.read_bytes() == before


def randomness() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), kind, keys.tolist(), rest, random.getstate()]


@pytest.mark.parametrize("name", ["margin", "vaal"])
def test_a_fit_leaves_the_callers_random_numbers_alone(name: str) -> None:
    before = randomness()
    one = learner(name).fit(noise())
    one.select(noise(), 3)
    assert randomness() == before


def test_a_fit_that_fails_leaves_the_callers_random_numbers_alone() -> None:
    before = randomness()
    with pytest.raises(Killed):
        learner().fit(noise(), progress=killer(3))
    assert randomness() == before


def test_the_callers_random_numbers_change_no_fit() -> None:
    torch.manual_seed(1)
    one = weights(learner().fit(noise()))
    torch.manual_seed(2)
    assert same(one, weights(learner().fit(noise())))


# Seeds


@pytest.mark.parametrize(
    ("use", "number"),
    [((0, "build", 0), 5151104812118803812), ((7, "stream", 2, "shuffle", 1), 6560786151570875549)],
    ids=["build", "shuffle"],
)
def test_keys_are_the_same_for_ever(use: tuple[Any, ...], number: int) -> None:
    assert key(*use) == number


def test_keys_differ_by_seed_and_use() -> None:
    uses = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, "a", 1), (0, "a", "1"), (0, 1, "a"), (-1,)]
    keys = {key(*use) for use in uses}  # type: ignore[arg-type]
    assert len(keys) == len(uses)


def test_keys_fit_every_generator() -> None:
    keys = [key(seed, "range") for seed in range(300)]
    assert all(0 <= k < 2**63 for k in keys)
    assert max(keys) > 2**62


def test_a_number_of_numpy_is_the_same_seed() -> None:
    assert key(np.int64(3), "build", np.int32(2)) == key(3, "build", 2)


def test_generators_of_one_use_agree_and_of_two_do_not() -> None:
    one, again, other = (torch.rand(4, generator=generator(0, use)) for use in ("noise", "noise", "query"))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_reseeding_starts_the_global_numbers_anew() -> None:
    with torch.random.fork_rng():
        reseed(torch.device("cpu"), 0, "step", 3)
        one = torch.rand(4)
        reseed(torch.device("cpu"), 0, "step", 3)
        assert torch.equal(torch.rand(4), one)


def test_seeded_numbers_are_the_same_inside_and_untouched_outside() -> None:
    before = torch.get_rng_state()
    with seeded(torch.device("cpu"), 0, "build"):
        one = torch.rand(4)
    with seeded(torch.device("cpu"), 0, "build"):
        assert torch.equal(torch.rand(4), one)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_numbers_are_untouched_outside_after_an_error() -> None:
    def fail() -> None:
        with seeded(torch.device("cpu"), 0, "build"):
            torch.rand(4)
            raise Killed

    before = torch.get_rng_state()
    with pytest.raises(Killed):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
