"""How long things take on a device, how busy it is meanwhile, and how often the CPU waits for it."""

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainers.run import Watch


class Enough(BaseException):
    """The clock has seen what it wanted, or the plug was pulled."""


def clocked(go: Callable[[Watch], object], device: torch.device, warm: int, least: float) -> tuple[float, float]:
    """Steps per second of a loop that tells `watch` of every step, after `warm` ones; and seconds until then.

    least: seconds that are measured.
    """
    began, marks, count = time.perf_counter(), [0.0, 0.0], 0

    def watch(stage: str, step: int, n: int) -> None:  # noqa: ARG001
        nonlocal count
        count += 1
        if count == warm:
            wait(device)
            marks[0] = time.perf_counter()
        elif count > warm and time.perf_counter() - marks[0] >= least:
            wait(device)
            marks[1] = time.perf_counter()
            raise Enough

    try:
        go(watch)
    except Enough:
        return (count - warm) / (marks[1] - marks[0]), marks[0] - began
    raise AssertionError("the loop ended before the clock")


def summary(rates: dict[str, list[float]], first: str) -> dict[str, Any]:
    """Median and range of each, and the ratio of the first one's median to the others'."""
    medians = {who: median(values) for who, values in rates.items()}
    ratios = {f"{first} / {who}": round(medians[first] / medians[who], 3) for who in rates if who != first}
    return {**{who: spread(values) for who, values in rates.items()}, "ratios": ratios}


def spread(values: list[float]) -> dict[str, Any]:
    """Median and range."""
    digits = {"median": median(values), "least": min(values), "most": max(values)}
    return {name: float(f"{value:.5g}") for name, value in digits.items()} | {"n": len(values)}


def during(go: Callable[[Watch], object], inside: AbstractContextManager[object], first: int, last: int) -> None:
    """A loop until its step `last`, from its step `first` on inside a context."""
    with ExitStack() as entered, suppress(Enough):

        def watch(stage: str, step: int, n: int) -> None:  # noqa: ARG001
            if step == first:
                entered.enter_context(inside)
            if step == last:
                raise Enough

        go(watch)


def at_work(go: Callable[[Watch], object], device: torch.device, rate: float) -> dict[str, float]:
    """What so many steps per second do: TFLOP of products and convolutions; the share of time that kernels run."""
    flops = FlopCounterMode(display=False)
    during(go, flops, 5, 6)
    done = {"TFLOP per second": flops.get_total_flops() * rate / 1e12}
    if device.type == "cuda":
        kernels = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        during(go, kernels, 5, 25)
        took = sum(event.self_device_time_total for event in kernels.key_averages()) / 1e6
        done["share of the time that kernels run"] = took / 20 * rate
    return done


def waits(go: Callable[[Watch], object], first: int = 5, last: int = 25) -> float:
    """How often the CPU waits for the GPU in a step: what torch's own debug mode warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        during(go, waits_are_said(), first, last)
    return sum("called a synchronizing" in str(warning.message) for warning in caught) / (last - first)


@contextmanager
def waits_are_said() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def seconds(device: torch.device, go: Callable[[], object]) -> float:
    """How long something takes, on the device too."""
    wait(device)
    began = time.perf_counter()
    go()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fresh(device: torch.device) -> None:
    """Nothing left of the last measurement."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Bytes of GPU memory that tensors took at most since `fresh`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
