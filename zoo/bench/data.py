"""Batches of images: ours beside torch's DataLoader over PIL images, as released code has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from trainers.pool import Pool
from trainers.run import Run
from zoo.bench import Case
from zoo.scan import Scan

IMAGES = 10_240
BATCH = 128
EPOCHS = 10  # of ours, which would be over too soon to be timed


def cases(*, quick: bool = False) -> list[Case]:
    """Training batches under two augmentations, and the pool as it is scored. quick: a smaller pool, for tests."""
    images = 512 if quick else IMAGES
    pool = made_up(images)
    work = f"{images:,} images 3x32x32 in batches of {BATCH}"

    def case(name: str, own: Callable[[], object], steps: tuple[str, ...], required: float) -> Case:
        return Case(
            name=name,
            work=work,
            forms={
                "ours": lambda: lambda: drain(own() for _ in range(EPOCHS)),
                "DataLoader": lambda: lambda: drain(loader(pool, augmented(*steps))),
            },
            share={"ours": EPOCHS},
            check=lambda: agree(pool),
            required={"DataLoader": required} if required else {},
        )

    return [
        case("batches, flip", lambda: drain(batches(pool, "flip")), ("flip",), 18),
        case("batches, flip and crop", lambda: drain(batches(pool, "flip+shift")), ("flip", "crop"), 30),
        case("batches, as they are", lambda: seen(pool), (), 0),
    ]


def made_up(n: int, known: int | None = None) -> Pool:
    """A pool of noise, 3x32x32, of ten classes, stored as decoders leave images: pixel after pixel."""
    images = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pool = Pool.of(images.permute(0, 3, 1, 2), torch.arange(n) % 10, 10)
    return pool.reveal(torch.arange(n if known is None else known))


def batches(pool: Pool, augment: str) -> Iterator[Tensor]:
    """One epoch of a run's own stream: float32 (b c h w) in [-1, 1]."""
    stream = Run(pool, augment=augment).stream(pool.labeled, BATCH)
    return (images for images, _ in islice(stream, len(pool) // BATCH))


def seen(pool: Pool) -> Tensor:
    """One number of each image, by the way on which the pool is scored."""
    scan = Scan(pool, nn.ModuleDict({"nothing": nn.Linear(1, 1)}))
    return scan.each(lambda x: x[:, 0, 0, 0].clone(), of=pool.labeled, size=BATCH)


class Pictures(Dataset[tuple[Tensor, int]]):
    """The images at `indices` as torchvision's data sets hold them: an array, from which PIL makes each image anew."""

    def __init__(self, pool: Pool, indices: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self.array = pool.images.permute(0, 2, 3, 1).numpy()
        self.labels = pool.labels
        self.indices, self.transform = indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        index = int(self.indices[i])
        return self.transform(Image.fromarray(self.array[index])), int(self.labels[index])


def augmented(*steps: str) -> Callable[[Any], Tensor]:
    """A PIL image to float32 (c h w) in [-1, 1], by torchvision's transforms. steps: flip, crop."""
    from torchvision import transforms as T

    known = {"flip": T.RandomHorizontalFlip(), "crop": T.RandomCrop(32, padding=4)}
    chain = [known[step] for step in steps]
    transform: Callable[[Any], Tensor] = T.Compose([*chain, T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    return transform


def loader(
    pool: Pool,
    transform: Callable[[Any], Tensor],
    indices: Tensor | None = None,
    size: int = BATCH,
    shuffle: bool = True,
) -> DataLoader[tuple[Tensor, int]]:
    """One epoch of batches, made in this process, as the released codes do by default."""
    indices = pool.labeled if indices is None else indices
    return DataLoader(Pictures(pool, indices, transform), batch_size=size, shuffle=shuffle)


def endless(batches: DataLoader[Any]) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from batches


def drain(batches: Any) -> None:
    for _ in batches:
        pass


def agree(pool: Pool) -> None:
    """Raise RuntimeError where the two ways show other images."""
    i = torch.arange(16)
    theirs = torch.stack([Pictures(pool, i, augmented())[j][0] for j in range(16)])
    if not torch.allclose(Run(pool).look(i, "none"), theirs, atol=1e-6):
        raise RuntimeError("bench: the two ways do not show the same images")
