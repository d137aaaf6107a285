"""What the steps of a fit have to say, left on the device until somebody reads it: one wait for all of it."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Notes:
    """Numbers for the journal, and every player's losses with the step they are of."""

    step: int = 0  # of the stage, from 0 on
    numbers: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    losses: dict[str, list[tuple[int, Tensor]]] = field(default_factory=lambda: defaultdict(list))  # by player
    pending: list[Tensor] = field(default_factory=list)  # losses that are nobody's until an optimizer steps

    def log(self, name: str, value: Tensor) -> None:
        self.numbers[name].append(value.detach().float())

    def lose(self, loss: Tensor) -> None:
        """A loss of whoever steps next."""
        self.pending.append(loss.detach())

    def sign(self, player: str) -> None:
        """The losses since the last optimizer step were this player's."""
        self.losses[player] += [(self.step, loss) for loss in self.pending]
        self.pending.clear()

    def means(self) -> dict[str, float]:
        """The means of the numbers, which are forgotten. Waits for the device."""
        means = {name: torch.stack(values).mean().item() for name, values in self.numbers.items()}
        self.numbers.clear()
        return means

    def broken(self) -> dict[str, int | None]:
        """By player, the first step whose loss is no number; losses are forgotten. Waits for the device."""
        first: dict[str, int | None] = {}
        for player, losses in self.losses.items():
            finite = torch.stack([loss.float() for _, loss in losses]).isfinite().tolist() if losses else []
            first[player] = None if all(finite) else losses[finite.index(False)][0]
        self.losses.clear()
        return first

    @contextmanager
    def apart(self) -> Iterator["Notes"]:
        """What is noted inside comes into notes of its own, and not into these."""
        before, inside = (self.numbers, self.losses, self.pending), Notes(self.step)
        self.numbers, self.losses, self.pending = inside.numbers, inside.losses, inside.pending
        try:
            yield inside
        finally:
            self.numbers, self.losses, self.pending = before

    def all(self) -> list[Tensor]:
        """Every number and loss that belongs to somebody, in the order in which `repeat` takes them."""
        numbers = [value for values in self.numbers.values() for value in values]
        return numbers + [loss for losses in self.losses.values() for _, loss in losses]

    def repeat(self, like: "Notes", values: Iterator[Tensor]) -> None:
        """Note at this step what `like` has noted at another, with these values instead of `like.all()`."""
        for name, numbers in like.numbers.items():
            self.numbers[name] += [next(values) for _ in numbers]
        for player, losses in like.losses.items():
            self.losses[player] += [(self.step, next(values)) for _ in losses]
