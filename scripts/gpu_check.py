"""Check alzoo on a machine with a GPU: whether it is right there, and how fast it is; under ten minutes on an H200.

    PYTHONPATH=. python scripts/gpu_check.py [--device cuda] [--out gpu_check.json] [--data DIR] [--quick]

Every figure is printed when it is known and is in the JSON file from then on, so that a stop at any time leaves what
is known. Each part has a share of the ten minutes; one that outlasts it is stopped, and the next one begins.
--quick is for trying the script out: tiny sizes, whose speeds mean nothing. Ends with 1 if a check fails.
"""

import argparse
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import eager
import torch
from clocks import Enough, at_work, clocked, fresh, peak, seconds, spread, summary, wait, waits
from eager import FOREVER
from torch import Tensor

import zoo
from trainers.run import Watch
from zoo.entries.vaal import critic_logit
from zoo.learner import Learner
from zoo.studies.files import put

ROOT = Path(__file__).parents[1]
PUBLISHED_STEPS = 39_062  # of the task network, and of the game, in a round of the released code on CIFAR-10

# What may differ between the device and the CPU after one step and after twenty, and between two fits of twenty.
# "norm" is |a - b| / |a| over all parameters together. Between two kernel libraries on one CPU (oneDNN and none) it was
# 5e-8, 6e-7 for plain and 5e-8, 1.5e-3 for vaal, its scores 2 % apart after twenty: Adam moves a weight by lr however
# small its gradient is, so where that is all but zero the step's sign is rounding. The worst weight is not judged.
TOLERANCE = {
    ("plain", "one"): {"norm": 1e-5, "predictions": 1e-5, "scores": 1e-3},
    ("plain", "twenty"): {"norm": 1e-3, "predictions": 1e-3, "scores": 1e-2},
    ("vaal", "one"): {"norm": 1e-4, "predictions": 1e-5, "scores": 1e-3},
    ("vaal", "twenty"): {"norm": 3e-2, "predictions": 1e-3, "scores": 0.2},
}
HALF = {"the same weights": 0.05, "trained so": 0.3}  # probabilities in bf16-mixed and in 32-true
TIE = partial(torch.isclose, rtol=1e-4, atol=1e-5)  # scores as close as this may change places


@dataclass(frozen=True)
class Sizes:
    """What is measured. The defaults are the published ones."""

    images: int = 50_000  # of the pool, random uint8 of 3x32x32
    labeled: int = 5_000
    ask: int = 2_500
    batch: int = 128
    trunks: tuple[str, ...] = ("small", "resnet18", "vgg16_bn")
    round_trunk: str = "vgg16_bn"
    published: Mapping[str, Any] = field(default_factory=lambda: {"vae_width": 128, "latent": 32, "critic_width": 512})
    narrow: Mapping[str, Any] = field(default_factory=dict)  # the defaults of `zoo.create`
    workers: tuple[int, ...] = (0, 4)
    warm: int = 10  # steps before the clock starts
    seconds: float = 0.8  # of one measurement, at least
    repeats: int = 3
    round_steps: int = 1_000  # of the 39,062
    twenty: int = 20  # steps of a fit that is compared with the CPU's


QUICK = Sizes(
    images=160,
    labeled=40,
    ask=10,
    batch=8,
    trunks=("small",),
    round_trunk="small",
    published={"vae_width": 16, "latent": 32, "critic_width": 64},
    workers=(0, 1),
    warm=1,
    seconds=0.02,
    repeats=2,
    round_steps=3,
    twenty=4,
)


@dataclass
class Report:
    """What is known so far, in a file that is replaced whole at every note."""

    path: Path
    known: dict[str, Any]

    def note(self, part: str, name: str, value: object) -> None:
        """Keep a value under a part and a name, write the file, and say so."""
        self.known["parts"].setdefault(part, {})[name] = value
        put(self.path, (json.dumps(self.known, indent=1) + "\n").encode())
        say(f"{part}: {name}: {value if isinstance(value, str) else json.dumps(value)}")

    def check(self, part: str, name: str, found: float, tolerance: float, **more: object) -> None:
        """Keep a difference with its tolerance, and whether it holds (a difference that is no number does not)."""
        verdict = "PASS" if found <= tolerance else "FAIL"
        self.note(part, name, {"verdict": verdict, "found": found, "tolerance": tolerance, **more})

    @property
    def sound(self) -> bool:
        """Every check was made and has passed, and no part has broken down (a slow one may have been stopped)."""
        parts = self.known["parts"]
        values = [value for part in parts.values() for value in part.values()]
        failed = any(isinstance(value, dict) and value.get("verdict") == "FAIL" for value in values)
        broken = any(part["state"] == "failed" for part in parts.values())
        return parts["correctness"]["state"] == "done" and not failed and not broken


# Provenance


def provenance(report: Report, device: torch.device, sizes: Sizes, data: Path | None) -> None:
    """What ran, where and when."""
    gpu = device.type == "cuda"
    smi = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    for name, value in {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": ask("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "changed": ask("git", "-C", str(ROOT), "status", "--porcelain", "--", "zoo", "trainers", "scripts"),
        "alzoo": zoo.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()) if gpu else "not used",
        "device": torch.cuda.get_device_name(device) if gpu else f"{platform.machine()} CPU",
        "gpus": torch.cuda.device_count() if gpu else 0,
        "nvidia-smi": ask(*smi) if gpu else "not used",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "data": str(data) if data else "random uint8 images",
        "sizes": asdict(sizes),
    }.items():
        report.note("provenance", name, value)


def ask(*command: str) -> str:
    """What a command says, or why it says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return done.stdout.strip() if done.returncode == 0 else f"unknown: {done.stderr.strip()}"


# Correctness


def correctness(report: Report, device: torch.device, sizes: Sizes, data: Path | None) -> None:  # noqa: ARG001
    """The device against the CPU, and against itself: the same small fits, without TF32, with the same noise."""
    pool = random_pool(96, 16, labeled=32, side=16)
    part = "correctness"
    with full_precision(), noise_from_the_cpu():
        for name in ("plain", "vaal"):
            for count, steps in (("one", 1), ("twenty", sizes.twenty)):
                here, there = (
                    small(name, "cpu", steps).fit(pool, progress=False),
                    small(name, str(device), steps).fit(pool, progress=False),
                )
                limit, (norm, worst) = TOLERANCE[name, count], apart(weights(here), weights(there))
                report.check(part, f"{name}, steps: {steps}: parameters", norm, limit["norm"], worst_weight=worst)
                found = (here.predict(pool.images) - there.predict(pool.images)).abs().max().item()
                report.check(part, f"{name}, steps: {steps}: predictions", found, limit["predictions"])
                a, b = scores(here, pool), scores(there, pool)
                found = ((a - b).abs().max() / a.abs().max()).item()
                report.check(part, f"{name}, steps: {steps}: scores", found, limit["scores"])

            again = {"fit twice": small(name, str(device), sizes.twenty).fit(pool, progress=False)}
            again["killed and resumed"] = resumed(name, device, sizes.twenty, pool)
            for what, other in again.items():
                norm, _ = apart(weights(there), weights(other))
                report.check(part, f"{name}: {what}", norm, limit["norm"], bit_equal=same(there, other))

            with tempfile.TemporaryDirectory() as folder:
                loaded = zoo.load(there.save(Path(folder) / "learner.safetensors"), device="cpu")
            report.check(part, f"{name}: saved, loaded on the CPU, asked", displaced(there, loaded, pool, 20), 0)

            exact, half = there.predict(pool.images), replace(there, precision="bf16-mixed")
            found = (half.predict(pool.images) - exact).abs().max().item()
            report.check(part, f"{name}: bf16-mixed, the same weights", found, HALF["the same weights"])
            found = (half.fit(pool, progress=False).predict(pool.images) - exact).abs().max().item()
            report.check(part, f"{name}: bf16-mixed, trained so", found, HALF["trained so"])
    with full_precision():  # a graph can only hold noise that is drawn on the device
        for name in ("plain", "vaal"):
            one, other = (
                small(name, str(device), sizes.twenty, captured=captured).fit(pool, progress=False)
                for captured in (False, True)
            )
            norm, _ = apart(weights(one), weights(other))
            report.check(part, f"{name}: captured", norm, TOLERANCE[name, "twenty"]["norm"], bit_equal=same(one, other))


def small(name: str, device: str, steps: int, captured: bool = False) -> Learner:
    """The narrow default networks for some steps of every kind. Plain training is asked by margin, to have scores."""
    if name == "plain":
        return zoo.create("plain+margin", device=device, steps=steps, captured=captured)
    return zoo.create(name, device=device, steps=steps, game_steps=steps, captured=captured)


def resumed(name: str, device: torch.device, steps: int, pool: zoo.Pool) -> Learner:
    """A fit that was killed in the middle of its last stage and went on."""

    def kill(stage: str, step: int, n: int) -> None:
        if step == n // 2 and stage == ("task" if name == "plain" else "game"):
            raise Enough

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.snapshot"
        try:
            small(name, str(device), steps).fit(pool, progress=kill, snapshot=path, snapshot_seconds=0)
        except Enough:
            return small(name, str(device), steps).fit(pool, progress=False, snapshot=path)
    raise AssertionError("the fit was not killed")


def weights(learner: Learner) -> dict[str, Tensor]:
    """Parameters and buffers with a fraction, in float64 on the CPU."""
    assert learner.parts is not None
    state = learner.parts.state_dict()
    return {name: value.detach().cpu().double() for name, value in state.items() if value.is_floating_point()}


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> tuple[float, float]:
    """|a - b| / |a| over everything, and the largest difference of one weight over the largest of its tensor."""
    difference = sum((a[name] - b[name]).square().sum().item() for name in a) ** 0.5
    size = sum(value.square().sum().item() for value in a.values()) ** 0.5
    worst = max(((a[n] - b[n]).abs().max() / a[n].abs().max().clamp(min=1e-12)).item() for n in a)
    return difference / size, worst


def same(a: Learner, b: Learner) -> bool:
    """Whether two learners have the same weights bit by bit."""
    mine, other = weights(a), weights(b)
    return all(torch.equal(mine[name], other[name]) for name in mine)


def scores(learner: Learner, pool: zoo.Pool) -> Tensor:
    """The scores of all unlabeled images, in the order of the pool: (u,)."""
    asked = learner.select(pool, len(pool.unlabeled))
    return asked.scores[asked.indices.argsort()]


def displaced(a: Learner, b: Learner, pool: zoo.Pool, n: int) -> int:
    """How many of the n images that `a` asks for `b` does not ask for in that place, near ties apart."""
    here, there = a.select(pool, n), b.select(pool, n)
    tied = TIE(here.scores[:, None], here.scores).sum(1) > 1
    apart = ~torch.isclose(here.scores, there.scores, rtol=1e-3, atol=1e-4)
    return int(((here.indices != there.indices) & ~tied | apart).sum())


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 inside, in convolutions and in products."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def noise_from_the_cpu() -> AbstractContextManager[object]:
    """Inside, the autoencoder's noise is drawn on the CPU: a GPU's own numbers are others for the same seed."""
    return mock.patch("torch.randn_like", lambda like: torch.randn(like.shape).to(like.device, like.dtype))


# Speed


def speed(report: Report, device: torch.device, sizes: Sizes, data: Path | None) -> None:  # noqa: ARG001
    """Steps per second of alzoo and of an eager form of the same mathematics, in turns, and the peak of GPU memory.

    Both as torch comes: TF32 in convolutions, not in products; nothing tuned. alzoo's memory holds the pool too.
    """
    pool = random_pool(sizes.images, 10, sizes.labeled)
    cases: dict[str, Callable[[str], Contestants]] = {
        "vaal, published size": partial(game, pool, device, sizes, sizes.published),
        "vaal, narrow": partial(game, pool, device, sizes, sizes.narrow),
        **{f"plain, {trunk}": partial(plain, pool, device, sizes, trunk) for trunk in sizes.trunks},
    }
    for name, contestants in cases.items():
        for precision in ("bf16-mixed", "32-true"):
            going = contestants(precision)
            rates = compete(report, "speed", f"{name}, {precision}", going, device, sizes)
            report.note("speed", f"{name}, {precision}: at work", at_work(going["alzoo"], device, rates["alzoo"]))
    for name, contestants in cases.items() if device.type == "cuda" else ():
        report.note("speed", f"{name}: waits of the CPU for the GPU in a step", waits(contestants("32-true")["alzoo"]))


Contestants = dict[str, Callable[[Watch], object]]


def plain(pool: zoo.Pool, device: torch.device, sizes: Sizes, trunk: str, precision: str) -> Contestants:
    """Plain training, by alzoo and by the eager form."""
    learner = zoo.create(
        "plain", device=str(device), precision=precision, trunk=trunk, batch=sizes.batch, steps=FOREVER, augment="flip"
    )
    return contestants(learner, eager.plain, pool, sizes)


def game(
    pool: zoo.Pool,
    device: torch.device,
    sizes: Sizes,
    nets: Mapping[str, Any],
    precision: str,
    **how: bool,
) -> Contestants:
    """VAAL's game without its task network, by alzoo and by the eager form. how: `compiled`, `captured`."""
    setting: dict[str, Any] = {"steps": 0, "game_steps": FOREVER, "lr_game": 5e-4, "augment": "flip", **nets, **how}
    learner = zoo.create("vaal", device=str(device), precision=precision, batch=sizes.batch, **setting)
    return contestants(learner, eager.game, pool, sizes)


def contestants(learner: Learner, form: Callable[..., None], pool: zoo.Pool, sizes: Sizes) -> Contestants:
    """A learner's fit, and its eager form with each number of workers."""

    def fit(watch: Watch) -> None:
        learner.fit(pool, progress=watch)

    return {"alzoo": fit, **{f"eager, {n} workers": partial(form, pool, learner, n) for n in sizes.workers}}


# Scoring


def scoring(report: Report, device: torch.device, sizes: Sizes, data: Path | None) -> None:  # noqa: ARG001
    """The published autoencoder over the pool: its encoder alone (alzoo), all of it, and the eager form; selection."""
    pool = random_pool(sizes.images, 10, sizes.labeled)
    for precision in ("bf16-mixed", "32-true"):
        setting = {"batch": sizes.batch, "steps": 0, "game_steps": 1, **sizes.published}
        learner = zoo.create("vaal", device=str(device), precision=precision, **setting)
        learner.fit(pool, progress=False)
        rates = scored(learner, pool, device, sizes)
        report.note("scoring", f"images per second, {precision}", summary(rates, "encoder"))
        select = partial(learner.select, pool, sizes.ask)
        taken = [seconds(device, select) for _ in range(sizes.repeats)]
        name = f"seconds to select {sizes.ask} of {len(pool.unlabeled)}, {precision}"
        report.note("scoring", name, spread(taken))


def scored(learner: Learner, pool: zoo.Pool, device: torch.device, sizes: Sizes) -> dict[str, list[float]]:
    """Images per second, in turns."""
    assert learner.parts is not None
    scan, parts, vae, critic = learner.scan(pool), learner.parts, learner.parts["vae"], learner.parts["critic"]
    views: dict[str, Callable[[Tensor], Tensor]] = {
        "encoder": lambda x: critic_logit(parts, x),
        "full autoencoder": lambda x: critic(vae(x)[1]),
    }
    for view in views.values():  # the first time is slower
        scan.each(view)
    rates: dict[str, list[float]] = {}
    for _ in range(sizes.repeats):
        for name, view in views.items():
            took = seconds(device, partial(scan.each, view))
            rates.setdefault(name, []).append(len(pool.unlabeled) / took)
        for n in sizes.workers:
            batches, _ = clocked(partial(eager.scores, pool, learner, n), device, sizes.warm, sizes.seconds)
            rates.setdefault(f"eager, {n} workers", []).append(batches * sizes.batch)
    return rates


# One round


def one_round(report: Report, device: torch.device, sizes: Sizes, data: Path | None) -> None:
    """A fraction of a round of the released VAAL on CIFAR-10, fit and select, and what the whole would take.

    The whole is NOT run: seconds of a step, times 39,062 steps of each stage, and one selection.
    """
    began = time.perf_counter()
    pool, test = (random_pool(sizes.images, 10, sizes.labeled), None) if data is None else of_folder(data, sizes)
    report.note("round", "data", f"{pool!r}: {data or 'random uint8 images'}, {time.perf_counter() - began:.1f} s")
    for precision in ("bf16-mixed", "32-true"):
        n = sizes.round_steps if precision == "bf16-mixed" else max(sizes.round_steps // 4, sizes.warm + 1)
        steps: dict[str, Any] = {"steps": n, "game_steps": n, "batch": sizes.batch}
        nets = {"trunk": sizes.round_trunk, **sizes.published}
        learner = zoo.create("vaal", plan="released", device=str(device), precision=precision, **steps, **nets)
        moments: dict[str, list[float]] = {"task": [], "game": []}

        def watch(stage: str, step: int, last: int, moments: dict[str, list[float]] = moments) -> None:
            if step in (sizes.warm, last):
                wait(device)
                moments[stage].append(time.perf_counter())

        fresh(device)
        took = seconds(device, partial(learner.fit, pool, progress=watch))
        select = seconds(device, partial(learner.select, pool, sizes.ask))
        step = {stage: (last - first) / (n - sizes.warm) for stage, (first, last) in moments.items()}
        result: dict[str, Any] = {
            "steps of each stage": n,
            "share of the published round": n / PUBLISHED_STEPS,
            "fit_seconds": took,
            "select_seconds": select,
            "seconds of a step": step,
            "EXTRAPOLATED seconds of the whole round, not run": sum(step.values()) * PUBLISHED_STEPS + select,
            "peak_bytes": peak(device),
        }
        if test is not None:
            right = learner.predict(test.images).argmax(1) == test.targets
            result["test accuracy after this share"] = right.float().mean().item()
        report.note("round", f"vaal released, {precision}", result)


def of_folder(path: Path, sizes: Sizes) -> tuple[zoo.Pool, zoo.Test]:
    """CIFAR-10 as a folder, train/<class>/* and, if it is there, test/<class>/*; decoded into alzoo's cache."""
    if (path / "test").is_dir():
        return zoo.data(f"folder:{path}", initial=sizes.labeled, seed=0, size=32)
    return zoo.data(f"folder:{path / 'train'}", initial=sizes.labeled, seed=0, size=32, test_share=0.02)


# What could still be had


def levers(report: Report, device: torch.device, sizes: Sizes, data: Path | None) -> None:  # noqa: ARG001
    """Whether `captured`, `compiled`, both, or cuDNN's own search help VAAL's game."""
    if device.type != "cuda":
        report.note("levers", "skipped", "CUDA graphs, torch.compile and cuDNN are tried on a GPU only")
        return
    pool = random_pool(sizes.images, 10, sizes.labeled)
    cases = [
        (f"vaal, {name}, {precision}", partial(game, pool, device, sizes, nets, precision))
        for precision in ("bf16-mixed", "32-true")
        for name, nets in (("narrow", sizes.narrow), ("published size", sizes.published))
    ]
    for name, play in cases:
        captured, fits = play(captured=True)["alzoo"], play()
        tuned = {"cudnn.benchmark": partial(under, searching, fits["alzoo"])}
        compete(report, "levers", name, {"captured": captured, **fits, **tuned}, device, sizes)
    for name, play in cases:  # they take their time to start
        ways = {"compiled": play(compiled=True)["alzoo"], "both": play(compiled=True, captured=True)["alzoo"]}
        compete(report, "levers", f"{name}, compiled", ways, device, sizes)


def under(context: Callable[[], AbstractContextManager[object]], fit: Callable[[Watch], object], watch: Watch) -> None:
    """A fit inside a context."""
    with context():
        fit(watch)


@contextmanager
def searching() -> Iterator[None]:
    """Inside, cuDNN tries its algorithms for every new shape and keeps the fastest."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


# Small things


def compete(
    report: Report, part: str, name: str, contestants: Contestants, device: torch.device, sizes: Sizes
) -> dict[str, float]:
    """Steps per second of each in turns, A B A B; the first one's ratio to the others; memory; seconds to start.

    Gives the medians of the steps per second.
    """
    rates: dict[str, list[float]] = {who: [] for who in contestants}
    peaks, starts = dict.fromkeys(contestants, 0), dict.fromkeys(contestants, 0.0)
    for repeat in range(sizes.repeats):
        for who, go in contestants.items():
            fresh(device)
            rate, start = clocked(go, device, sizes.warm, sizes.seconds)
            rates[who].append(rate)
            peaks[who] = max(peaks[who], peak(device) or 0)
            starts[who] = start if repeat == 0 else starts[who]
        more = {"peak_bytes": peaks} if device.type == "cuda" else {}
        result = {"steps per second": summary(rates, next(iter(contestants))), "seconds until warm, first time": starts}
        report.note(part, name, result | more)
    return {who: median(values) for who, values in rates.items()}


def random_pool(n: int, classes: int, labeled: int, side: int = 32) -> zoo.Pool:
    """Random images of 3 x side x side, the first ones labeled."""
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=chance)
    targets = torch.randint(0, classes, (n,), generator=chance)
    return zoo.Pool.of(images, targets, classes).reveal(torch.arange(labeled))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class OutOfTime(Exception):
    """A part has outlasted its share."""


@contextmanager
def at_most(share: float) -> Iterator[None]:
    """Raise OutOfTime in whatever runs inside, once its seconds are over."""

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, share, 5.0)  # again and again, should a destructor swallow the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


Part = Callable[[Report, torch.device, Sizes, Path | None], None]
PARTS: dict[str, tuple[Part, float]] = {  # and seconds at most: 570 together
    "provenance": (provenance, 20),
    "correctness": (correctness, 60),
    "speed": (speed, 220),
    "scoring": (scoring, 50),
    "round": (one_round, 100),
    "levers": (levers, 120),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the JSON file; it is replaced")
    parser.add_argument("--data", type=Path, help="CIFAR-10 unpacked: train/<class>/*, and test/<class>/* if you like")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try this script out")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device that torch can use; --device cpu --quick tries the script out")

    sizes = QUICK if options.quick else Sizes()
    report = Report(options.out, {"command": sys.argv, "quick": options.quick, "parts": {}})
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")  # a loader's workers are forked
    warnings.filterwarnings("ignore", "This DataLoader will create")
    logging.disable(logging.INFO)  # Lightning's, at every fit
    for name, (part, share) in PARTS.items():
        report.note(name, "state", "running")
        began, state = time.perf_counter(), "done"
        try:
            with at_most(share):
                part(report, device, sizes, options.data)
        except OutOfTime:
            state = "out of time"
        except Exception:
            report.note(name, "error", traceback.format_exc())
            state = "failed"
        report.note(name, "seconds", round(time.perf_counter() - began, 1))
        report.note(name, "state", state)
        fresh(device)
    say(f"{options.out}: {'every check passed' if report.sound else 'NOT every check passed'}")
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
