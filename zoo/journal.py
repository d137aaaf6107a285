"""What a fit shows while it goes on: a bar on a terminal, and curves in TensorBoard."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trainers.run import Journal, Watch


@contextmanager
def watching(progress: bool | Watch) -> Iterator[Watch | None]:
    """The watch of one fit: the caller's own, or a bar where stderr is a terminal, or none."""
    if callable(progress):
        yield progress
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    if not progress or not console.is_terminal:
        yield None
        return
    bars: dict[str, TaskID] = {}
    with Progress(console=console, transient=True) as bar:

        def watch(stage: str, done: int, steps: int) -> None:
            if stage not in bars:
                bars[stage] = bar.add_task(stage, total=steps)
            bar.update(bars[stage], completed=done)

        yield seldom(watch)


def seldom(watch: Watch, seconds: float = 0.1) -> Watch:
    """A watch that passes on the last step of a stage, and others no more often than that."""
    seen = 0.0

    def some(stage: str, done: int, steps: int) -> None:
        nonlocal seen
        if done == steps or time.monotonic() - seen >= seconds:
            seen = time.monotonic()
            watch(stage, done, steps)

    return some


@contextmanager
def journaling(journal: str | os.PathLike[str] | Journal | None) -> Iterator[Journal | None]:
    """The journal of one fit: the caller's own, or scalars for TensorBoard in a folder, or none."""
    if journal is None or callable(journal):
        yield journal
    else:
        with tensorboard(journal) as write:
            yield write


@contextmanager
def tensorboard(directory: str | os.PathLike[str]) -> Iterator[Journal]:
    """A journal that TensorBoard can show."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(directory), flush_secs=10) as writer:

        def write(name: str, value: float, step: int) -> None:
            writer.add_scalar(name, value, step)

        yield write
