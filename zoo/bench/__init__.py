"""`alzoo bench`: our forms beside plain forms of the same mathematics, in turn in one process for each piece of work.

Nothing here asserts anything about time. The forms of a case answer alike, or nothing is timed; where they draw, one of
them is compared with ours by what is drawn on average. Each figure comes with its range over the rounds, and ratios are
taken within a round, so that what else the machine does cancels. A process is not asked for a second piece of work:
how much memory it holds by then changes the next one's times by a fifth.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from statistics import median
from typing import Any

import torch

from zoo import device
from zoo.device import peak_bytes

Act = Callable[[], object]
ROOMS = ("data", "loops", "queries", "study")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One piece of work, and the forms it is done in: ours first, then plain ones, then peers'.

    name: "kcenter". work: its size, in words. forms: by name, each makes ready what is not timed and gives the act that
    is. check: raises RuntimeError where the forms do not answer alike. share: how much of the work a form does, where
    the whole would take too long and every part takes as long (1,000 picks, of which it makes 50: 0.05); 10 where the
    work is so small that it is done ten times.
    threads: of torch, numpy and what else multiplies, unless others are asked for. required: how many times as long as
    ours a form has to take. within: how many MiB ours may take.
    """

    name: str
    work: str
    forms: Mapping[str, Callable[[], Act]]
    threads: int = 1
    check: Callable[[], None] = lambda: None
    share: Mapping[str, float] = field(default_factory=dict)
    required: Mapping[str, float] = field(default_factory=dict)
    within: float | None = None


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What one query took on pools of growing size.

    seconds: by the number of unlabeled images, as text; of sizes that were not tried, `note` says why. mib: on top of
    the features, on the largest. exponent: of the line through the logarithms.
    """

    query: str
    cost: str
    work: str
    seconds: dict[str, float]
    mib: float
    exponent: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one form of a case took, over the rounds.

    seconds, least, most: median and range, of the whole work; cpu: the median of the process's own seconds. mib: the
    most memory on top of what lay there, in the round where that was least: after larger arrays, the system's allocator
    keeps more than is asked of it. ratio: its seconds over ours in the same round, median and range; None for our own.
    required, within: what the case asks of it.
    """

    case: str
    work: str
    form: str
    threads: int
    seconds: float
    least: float
    most: float
    cpu: float
    mib: float
    share: float
    ratio: tuple[float, float, float] | None
    required: float | None
    within: float | None

    @property
    def missed(self) -> str:
        """What the figure falls short of, in words; nothing where it does not."""
        if self.ratio is not None and self.required is not None and self.ratio[0] < self.required:
            return f"{self.case}: {self.form} takes {self.ratio[0]:g} times as long as ours; {self.required:g} required"
        if self.within is not None and self.mib > self.within:
            return f"{self.case}: {self.form} takes {self.mib:g} MiB; at most {self.within:g} required"
        return ""


def measure(
    cases: Iterable[Case],
    rounds: int = 3,
    watch: Callable[[str], None] = lambda _: None,
    number: int | None = None,
) -> list[Figure]:
    """Every case: checked, then all forms in turn, so many times. Raises RuntimeError where forms do not agree.

    watch: is told what comes next. number: of threads, in place of each case's own.
    """
    found = []
    for case in cases:
        watch(f"{case.name}, {case.work}")
        with threads(number or case.threads):
            found += _figures(case, rounds)
    return found


def _figures(case: Case, rounds: int) -> list[Figure]:
    case.check()
    took: dict[str, list[tuple[float, float, float]]] = {form: [] for form in case.forms}
    for _ in range(rounds):
        for form, ready in case.forms.items():
            seconds, cpu, mib = timed(ready())
            share = case.share.get(form, 1.0)
            took[form].append((seconds / share, cpu / share, mib))
    ours = [seconds for seconds, _, _ in next(iter(took.values()))]
    found = []
    for number, (form, values) in enumerate(took.items()):
        each, cpus, mibs = (list(column) for column in zip(*values, strict=True))
        ratios = [theirs / own for theirs, own in zip(each, ours, strict=True)]
        figure = Figure(
            case=case.name,
            work=case.work,
            form=form,
            threads=torch.get_num_threads(),
            seconds=_short(median(each)),
            least=_short(min(each)),
            most=_short(max(each)),
            cpu=_short(median(cpus)),
            mib=round(min(mibs), 1),
            share=case.share.get(form, 1.0),
            ratio=(_short(median(ratios)), _short(min(ratios)), _short(max(ratios))) if number else None,
            required=case.required.get(form),
            within=None if number else case.within,
        )
        found.append(figure)
    return found


def timed(act: Act) -> tuple[float, float, float]:
    """Seconds, the process's own seconds, and MiB at the peak over what lay there before."""
    tidy()
    with peak_bytes() as peak:
        before, cpu, start = peak(), time.process_time(), time.perf_counter()
        act()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return seconds, cpu, max(0, peak() - before) / 2**20


def tidy() -> None:
    """Give what has been freed back to the system, as far as it can be told to, so that taking it again counts."""
    gc.collect()
    with suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def everything(
    what: str | None,
    names: Sequence[str] = (),
    packages: bool = False,
    rounds: int = 3,
    watch: Callable[[str], None] = lambda _: None,
    number: int | None = None,
) -> list[Figure]:
    """The figures of "data", "loops", "queries" or "study", or of all of them (None).

    names, packages: of queries, only these; other people's packages, too. number: of threads, in place of their own.
    """
    figures = []
    for room in ROOMS if what is None else (what,):
        asked = {"names": tuple(names), "packages": packages} if room == "queries" else {}
        for place, case in enumerate(cases(room, asked)):
            watch(f"{case.name}, {case.work}")
            with ProcessPoolExecutor(1, fresh()) as process:
                figures += process.submit(alone, room, asked, place, rounds, number).result()
    return figures


def cases(room: str, asked: Mapping[str, Any]) -> list[Case]:
    found: list[Case] = import_module(f"zoo.bench.{room}").cases(**asked)
    return found


def alone(room: str, asked: Mapping[str, Any], place: int, rounds: int, number: int | None) -> list[Figure]:
    """The figures of one case of a room, in the process that calls."""
    return measure([cases(room, asked)[place]], rounds, number=number)


def fresh() -> multiprocessing.context.BaseContext:
    """Where processes come from that have computed nothing yet; where the system can, they share what is imported."""
    shared = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if shared else "spawn")
    context.set_forkserver_preload([f"zoo.bench.{room}" for room in ROOMS])
    return context


@contextmanager
def threads(n: int) -> Iterator[None]:
    """So many threads inside, for torch and for what numpy, scipy and scikit-learn multiply with."""
    import sklearn.utils.extmath  # noqa: F401 (only what is loaded can be told)
    from threadpoolctl import threadpool_limits

    with device.threads(n), threadpool_limits(n):
        yield


def record(figures: Iterable[Figure], grown: Iterable[Growth] = ()) -> dict[str, Any]:
    """What a file of figures says: the figures, and what they were measured on."""
    from zoo.studies.provenance import provenance

    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **{name: value for name, value in provenance().items() if name in ("versions", "commit")},
        "figures": [asdict(figure) for figure in figures],
        "growth": [asdict(each) for each in grown],
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
