"""What a learner asks."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Selection:
    """The images a learner asks for, the most wanted first.

    indices: int64 (n,) on the CPU, positions in the pool.
    scores: float32 (n,) on the CPU; higher was asked first. Only their order can be compared between methods.
    detail: per asked image, the quantities behind the score under the names their paper gives them: (n,) each.
    images: uint8 (n c h w) where the learner made the images it asks for (`indices` is empty then), else None.
    """

    indices: Tensor
    scores: Tensor
    detail: dict[str, Tensor] = field(default_factory=dict)
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices.tolist())
