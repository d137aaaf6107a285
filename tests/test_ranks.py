"""Two processes that train the same networks together, on the CPU: what they see, what they exchange, what comes out.

How near they come to one device is said in the tests: sums in another order, and no more, where nothing is random in a
step and no batch normalisation is there, which has the statistics of a share of the batch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch import distributed as dist

import zoo
from trainers import run as runs
from trainers import supervised, waal
from trainers.pool import Pool
from trainers.ranks import ALONE, Ranks, agreed, average, joined, least
from trainers.run import Diverged, Run
from zoo.cli import app
from zoo.device import meeting
from zoo.nets.waal import Critic
from zoo.studies import engine
from zoo.studies import study as studies
from zoo.studies.study import Study

LONG = 240  # seconds after which two processes that should have ended hang
FEW = {"steps": 6, "batch": 8, "width": 4, "device": "cpu"}
LEARNERS: dict[str, dict[str, Any]] = {"margin": {}, "vaal": {"game_steps": 4}, "waal": {}}
OTHERS: dict[str, dict[str, Any]] = {
    "vaal+badge": {"game_steps": 4},
    "plain+waal": {},  # with a twin
    "ensemble": {},
    "bald": {},  # with dropout
    "deepfool": {"query_settings": {"iterations": 1}},  # with gradients
}


# Two processes


class Pair:
    """Two processes that have met."""

    def __init__(self, where: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.ranks = [ProcessPoolExecutor(1, spawn, _meet, (number, where)) for number in range(2)]

    def both(self, function: Callable[..., Any], *given: Any) -> list[Any]:
        """What a function of this file gives on either; an error of one is raised here."""
        futures = [rank.submit(function, *given) for rank in self.ranks]
        return [future.result(timeout=LONG) for future in futures]

    def end(self) -> None:
        for process in [process for rank in self.ranks for process in rank._processes.values()]:
            process.kill()  # whether it hangs or not
        for rank in self.ranks:
            rank.shutdown()


def _meet(number: int, where: Path) -> None:
    torch.set_num_threads(1)
    meeting(Ranks(number, 2), where).__enter__()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("ranks") / "meeting")
    yield pair
    pair.end()


def here() -> Ranks:
    """This process among the pair; alone outside of it."""
    return Ranks(dist.get_rank(), 2) if dist.is_initialized() else ALONE


def same(values: list[Any]) -> Any:
    """What both give."""
    first, second = values
    assert str(first) == str(second)
    return first


def pool() -> Pool:
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.arange(30) % 3, 3).reveal(torch.arange(12))


# What they exchange


def exchange() -> list[Any]:
    ranks = here()
    two = [torch.tensor([1.0, 2.0]) * (1 + 2 * ranks.number), torch.tensor([[10.0]]) * ranks.number]
    average(ranks, two)
    lengths = [3, 1]
    part = torch.arange(2.0 * lengths[ranks.number]).view(-1, 2) + 100 * ranks.number
    return [
        [tensor.tolist() for tensor in two],
        least(ranks, torch.tensor([5 + ranks.number, 7 - ranks.number])).tolist(),
        joined(ranks, part, lengths).tolist(),
        joined(ranks, torch.ones(2 - 2 * ranks.number, 3), [2, 0]).tolist(),
        agreed(ranks, lambda: f"said by {ranks.number}"),
    ]


def test_both_have_what_was_exchanged(pair: Pair) -> None:
    assert same(pair.both(exchange)) == [
        [[2.0, 4.0], [[5.0]]],
        [5, 6],
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [100.0, 101.0]],
        [[1.0, 1.0, 1.0]] * 2,
        "said by 0",
    ]


def refused() -> str:
    def broken() -> None:
        raise ValueError("of the first")

    try:
        agreed(here(), broken)
    except ValueError as error:
        return str(error)
    return "nothing"


def test_an_error_of_the_first_is_raised_on_both(pair: Pair) -> None:
    assert pair.both(refused) == ["of the first"] * 2


@pytest.mark.parametrize("of", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 12])
def test_parts_are_all_of_it_in_its_order(n: int, of: int) -> None:
    parts = [range(n)[Ranks(number, of).part(n)] for number in range(of)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# What they see


def batches(augment: str, company: bool) -> list[tuple[Tensor, Tensor]]:
    run = Run(pool(), seed=3, augment=augment, ranks=here())
    indices = waal.paired(pool().labeled, pool().unlabeled) if company else pool().labeled
    return list(islice(run.stream(indices, 8), 5))


@pytest.mark.parametrize("company", [False, True], ids=["labeled", "pairs"])
@pytest.mark.parametrize("augment", ["none", "shift", "strong"])
def test_shares_side_by_side_are_the_batch_of_one_device(augment: str, company: bool, pair: Pair) -> None:
    shares, groups = pair.both(batches, augment, company), 2 if company else 1
    for (x, y), (x0, y0), (x1, y1) in zip(batches(augment, company), *shares, strict=True):
        for whole, first, second in ((x, x0, x1), (y, y0, y1)):
            halves = zip(first.chunk(groups), second.chunk(groups), strict=True)
            assert torch.equal(whole, torch.cat([half for both in halves for half in both]))


def test_a_batch_without_equal_shares_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 9 has no 2 equal shares"):
        Run(pool(), ranks=Ranks(0, 2)).stream(pool().labeled, 9)


def chances() -> list[list[float]]:
    run = Run(pool(), ranks=here())
    inside = [torch.rand(1).item() for _ in run.steps(3)]
    return [inside, [torch.rand(1).item()]]


def test_in_a_step_each_draws_its_own_numbers_and_after_a_stage_the_same(pair: Pair) -> None:
    (inside, after), (others, after_too) = pair.both(chances)
    assert not {*inside} & {*others}
    assert len({*inside}) == 3
    assert after == after_too


# What comes out, against one device


def linear(*sizes: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(sum(sizes))
        return nn.Sequential(nn.Flatten(), nn.Linear(*sizes))


def plainly(steps: int = 120) -> list[list[float]]:
    trunk, head = linear(64, 5), linear(5, 3)
    plan = supervised.Plan(steps=steps, batch=8, lr=0.05)
    supervised.train(Run(pool(), augment="shift", ranks=here()), pool(), plan, trunk=trunk, head=head)
    return [parameter.flatten().tolist() for parameter in [*trunk.parameters(), *head.parameters()]]


def test_plain_training_together_is_that_of_one_device_up_to_sums(pair: Pair) -> None:
    together, alone = same(pair.both(plainly)), plainly()
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert plainly(0) != alone


def adversarially(steps: int = 30) -> list[list[float]]:
    trunk, head = linear(64, 5), linear(5, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = Critic(5, 8)
    calm = {"critic_optimizer": "sgd", "lr_critic": 0.05}  # Adam makes much of gradients that are sums of zero
    plan = waal.Plan(steps=steps, batch=8, lr=0.05, alpha=0.5, penalty_weight=0.0, **calm)  # its points are random
    waal.train(Run(pool(), augment="shift", ranks=here()), pool(), plan, trunk=trunk, head=head, critic=critic)
    return [p.flatten().tolist() for part in (trunk, head, critic) for p in part.parameters()]


def test_a_game_together_is_that_of_one_device_up_to_sums(pair: Pair) -> None:
    together, alone = same(pair.both(adversarially)), adversarially()
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert adversarially(0) != alone


# Learners


def digits() -> Pool:
    return zoo.data("digits", initial=40, seed=0)[0]


def learner(name: str, **more: Any) -> zoo.Learner:
    return zoo.create(name, **{**FEW, **{**LEARNERS, **OTHERS}[name], "devices": here().of, **more})


def values(made: zoo.Learner) -> dict[str, Any]:
    """Every weight and buffer of every part."""
    assert made.parts is not None
    return {key: value.tolist() for key, value in made.parts.state_dict().items()}


def fitted(name: str, **more: Any) -> dict[str, Any]:
    made, some = learner(name, **more), digits()
    before = torch.get_rng_state()
    made.fit(some, progress=False)
    asked = made.select(some, 10)
    return {
        "values": values(made),
        "asked": asked.indices.tolist(),
        "scores": asked.scores.tolist(),
        "again": made.select(some, 10).indices.tolist(),
        "untouched": torch.equal(before, torch.get_rng_state()),
    }


@pytest.mark.parametrize("name", [*LEARNERS, *OTHERS])
def test_both_end_with_the_same_bits_and_ask_for_the_same(name: str, pair: Pair) -> None:
    out = same(pair.both(fitted, name))
    assert len({*out["asked"]}) == 10
    assert out["asked"] == out["again"]
    assert out["untouched"]
    assert any("running_var" in key for key in out["values"])


def looked() -> list[Any]:
    """What is seen of twenty batches, by shares, and by one rank of all."""
    made, some = learner("margin"), digits()
    made.fit(some, progress=False)
    shared = made.scan(some)
    whole = type(shared)(some, shared.parts)
    assert shared.ranks.of == 2
    return [
        torch.equal(shared.each(shared.task, size=70), whole.each(whole.task, size=70)),
        torch.equal(shared.features, whole.features),
        torch.equal(shared.each(shared.task, of=torch.tensor([3])), whole.each(whole.task, of=torch.tensor([3]))),
        shared.each(shared.task, of=torch.empty(0, dtype=torch.int64)).shape == (0, 10),
    ]


def test_a_shared_look_at_the_pool_sees_what_one_sees_bit_by_bit(pair: Pair) -> None:
    assert pair.both(looked) == [[True] * 4] * 2


def test_the_pool_is_shared_out_by_whole_batches() -> None:
    seen: list[list[int]] = []
    for number in range(2):
        scan = zoo.Scan(pool(), nn.ModuleDict({"trunk": linear(64, 5)}), ranks=Ranks(number, 2))
        batches = torch.arange(18).split(4)
        seen.append([len(batch) for batch in batches[scan.ranks.part(len(batches))]])
    assert seen == [[4, 4], [4, 4, 2]]


def killed_and_resumed(name: str, path: Path, at: int) -> list[Any]:
    before, runs.WINDOW = runs.WINDOW, 2
    try:
        whole = fitted(name)

        interrupted = False
        try:
            stopped(learner(name), at, path)
        except KeyboardInterrupt:
            interrupted = True
        left = path.exists()
        dist.barrier()
        again = learner(name).fit(digits(), progress=False, snapshot=path, snapshot_seconds=0)
        dist.barrier()
        return [interrupted, left, path.exists(), values(again) == whole["values"]]
    finally:
        runs.WINDOW = before


def stopped(made: zoo.Learner, at: int, path: Path) -> None:
    """Fit, and die in that step of the last stage, on every rank."""
    steps, last = Run.steps, "task" if made.name == "margin" else "game"

    def mortal(self: Run, n: int, stage: str = "train", first: int = 0) -> Iterator[int]:
        for step in steps(self, n, stage, first):
            if stage == last and step == at:
                raise KeyboardInterrupt
            yield step

    Run.steps = mortal  # type: ignore[method-assign]
    try:
        made.fit(digits(), progress=False, snapshot=path, snapshot_seconds=0)
    finally:
        Run.steps = steps  # type: ignore[method-assign]


@pytest.mark.parametrize(("name", "at"), [("margin", 3), ("vaal", 3), ("waal", 5)])
def test_killed_and_resumed_together_is_never_killed(name: str, at: int, pair: Pair, tmp_path: Path) -> None:
    interrupted, left, there, equal = same(pair.both(killed_and_resumed, name, tmp_path / "fit.snapshot", at))
    assert interrupted
    assert left
    assert not there
    assert equal


def broken(player: str) -> list[Any]:
    """A fit in which the second rank alone meets a loss that is no number."""
    trunk, head = linear(64, 5), linear(5, 3)
    run = Run(pool(), ranks=here(), parts={"trunk": trunk, "head": head})
    backward = run.backward

    def no_number(loss: Tensor) -> None:
        backward(loss * float("nan") if run.ranks.number == 1 and run._state.notes.step == 2 else loss)

    run.backward = no_number  # type: ignore[method-assign]
    try:
        supervised.train(run, pool(), supervised.Plan(steps=8, batch=8), trunk=trunk, head=head)
    except Diverged as error:
        return [error.player == player, error.step]
    return ["went on"]


def test_a_loss_of_one_that_is_no_number_stops_both(pair: Pair) -> None:
    assert pair.both(broken, "task") == [[True, 2]] * 2


def different() -> str:
    try:
        learner("margin", seed=here().number).fit(digits(), progress=False)
    except ValueError as error:
        return str(error)
    return "went on"


def test_two_who_were_told_different_things_say_so(pair: Pair) -> None:
    assert "differ in settings, seed, start or pool" in same(pair.both(different))


# Refused


@pytest.mark.parametrize("name", sorted({*zoo.names("entries")} - {"plain", "vaal", "waal"}))
def test_other_entries_say_that_they_train_on_one_device(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} trains on one device, not 2; over several: plain, vaal, waal"):
        zoo.create(name, device="cpu", devices=2)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"devices": 0}, "devices=0 must be at least 1"),
        ({"devices": 1.5}, "devices=1.5 must be a whole number"),
        ({"devices": 2, "batch": 9}, "batch=9 has no 2 equal shares"),
        ({"devices": 2, "elbo": "released"}, "sums over the batch"),
    ],
    ids=str,
)
def test_numbers_of_devices_that_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        zoo.create("vaal", device="cpu", **settings)


def test_one_process_alone_is_told_how_to_be_two() -> None:
    with pytest.raises(RuntimeError, match=r"there is 1.*torchrun --nproc-per-node 2"):
        zoo.create("margin", devices=2, **FEW).fit(digits())


def test_a_study_over_several_devices_has_one_worker(tmp_path: Path) -> None:
    settings = {"margin": {"steps": 3, "width": 4}}
    study = Study(data="digits", learners=("margin",), rounds=0, device="cpu", devices=2, settings=settings)
    with pytest.raises(ValueError, match="1 worker"):
        engine.run(study, tmp_path / "out", workers=2)


def test_one_device_is_what_a_study_has_anyway() -> None:
    study = Study(data="digits", learners=("random",), device="cpu")
    assert studies.prepare(Study(data="digits", learners=("random",), device="cpu", devices=1)) == studies.prepare(
        study
    )
    with pytest.raises(ValueError, match="devices=0 must be at least 1"):
        Study(data="digits", learners=("random",), devices=0)


# The command


def test_the_command_over_two_devices_writes_each_record_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "digits", "--learners", "margin,vaal", "--devices", "2", "--strategy", "ddp"]
    words += ["--rounds", "1", "--device", "cpu", "--out", str(out), "--warm"]
    words += ["--set", "*.steps=4", "--set", "*.width=4", "--set", "vaal.game_steps=3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert Counter((r["learner"], r["round"]) for r in records) == Counter(
        (name, number) for name in ("margin", "vaal") for number in range(2)
    )
    assert Study.read(out / "study.toml").devices == 2
    assert len(list((out / "tb" / "vaal" / "seed0").iterdir())) == 1
    assert (out / "report.html").exists()
    first = [record["network"] for record in records if record["round"] == 0]
    assert first[0] == first[1]  # vaal's task network is the plain one, together too


TOGETHER = """
import json, os
from pathlib import Path
import torch, zoo
torch.set_num_threads(1)
pool, _ = zoo.data("digits", initial=40, seed=0)
learner = zoo.create("margin", devices=2, device="cpu", steps=3, batch=8, width=4).fit(pool)
Path(__file__).with_name(os.environ["RANK"]).write_text(json.dumps(list(learner.select(pool, 5))))
"""


def test_processes_that_torchrun_started_meet(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path[:] = {sys.path!r}\n{TOGETHER}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):  # once in many times gloo aborts as a process ends: pytorch/pytorch#190489
        ran = subprocess.run(torchrun, env=env, capture_output=True, timeout=LONG, check=False, text=True)
        if "terminate called without an active exception" not in ran.stderr:
            break
    assert ran.returncode == 0, ran.stderr
    asked, others = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    assert asked == others
    assert len(asked) == 5
