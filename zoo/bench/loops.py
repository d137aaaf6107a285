"""Steps of the loops, and scoring: ours beside the forms of released code, on the same networks and losses.

The forms are written in `zoo.bench.released`. Before anything is timed, the losses of a first step on the same images
are compared: to a thousandth in float32, to a twentieth in bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from trainers import ta_vaal
from trainers.llal import Meeting
from trainers.pool import Pool
from trainers.run import Run
from trainers.seeds import reseed
from zoo.bench import Act, Case, released
from zoo.bench.data import augmented, endless, loader, made_up
from zoo.device import fabric, resolve_precision
from zoo.nets.common import Shape
from zoo.parts import placed
from zoo.register import entries
from zoo.scan import Scan

SHAPE: Shape = (3, 32, 32)
FULL, HALF = "32-true", "bf16-mixed"
PUBLISHED = MappingProxyType({"vae_width": 128, "latent": 32, "critic_width": 512, "critic_layers": 2})
NARROW = MappingProxyType({"trunk": "small", "width": 32, "vae_width": 16, "latent": 32})
TINY = MappingProxyType({"trunk": "small", "width": 4, "vae_width": 4, "latent": 4})
GAME = ("vae/fool", "critic/loss")


@dataclass(frozen=True, kw_only=True)
class Play:
    """So many steps of an entry's loop under its released plan, on made-up images of which half are labeled.

    steps: several where they are short, since the first one also makes the optimizers' state. learn: whether the task
    network takes as many steps too.
    """

    entry: str
    nets: Mapping[str, Any]
    batch: int
    steps: int = 1
    learn: bool = True

    @property
    def plan(self) -> Any:
        plan = entries()[self.entry].plans["released"].loop
        games = {"game_steps": self.steps} if hasattr(plan, "game_steps") else {}
        return replace(plan, batch=self.batch, steps=self.steps if self.learn else 0, **games)

    @property
    def pool(self) -> Pool:
        return made_up(16 * self.batch, known=8 * self.batch)

    def build(self) -> dict[str, nn.Module]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return entries()[self.entry].build(SHAPE, 10, **self.nets)

    def run(self, pool: Pool, parts: dict[str, nn.Module], precision: str, journal: Any = None) -> Run:
        placed(nn.ModuleDict(parts), torch.device("cpu"))
        augment = "none" if self.entry == "ta_vaal" else "flip"
        run = Run(pool, fabric=fabric("cpu", precision), augment=augment, journal=journal)
        if self.entry == "ta_vaal":  # once a round
            meeting = Meeting(parts["trunk"], parts["head"], parts["ranker"])
            run.once("predicted", lambda: ta_vaal.predict(run, pool, meeting))
        return run


def cases(*, quick: bool = False) -> list[Case]:
    """quick: tiny networks and batches, for tests. In bf16 only where the processor multiplies it by itself."""
    wide = TINY if quick else PUBLISHED
    narrow = TINY if quick else NARROW
    size = 4 if quick else 64
    half = (HALF,) if resolve_precision("auto", "cpu") == HALF else ()
    published = Play(entry="vaal", nets=wide if quick else {"trunk": "vgg16_bn", **wide}, batch=size)
    small = Play(entry="vaal", nets=narrow, batch=2 * size, steps=2 if quick else 8)
    ranked = {"rank": "released", "ranker_width": 128, **({} if quick else {"trunk": "resnet18"})}
    told = Play(
        entry="ta_vaal", nets={**wide, **ranked}, batch=4 if quick else 16, steps=2 if quick else 4, learn=False
    )
    far_nets = {key: value for key, value in narrow.items() if key in ("trunk", "width")} | {"head_layers": 2}
    far = Play(entry="waal", nets={**far_nets, "critic_output": "sigmoid"}, batch=size, steps=2 if quick else 32)
    found = []
    for precision in (FULL, *half):
        word = "bf16" if precision == HALF else "fp32"
        for name, play, required in (
            ("vaal step, published networks", published, (1.27, 2.2)),
            ("vaal step, narrow networks", small, (1.5, 2.1)),
            ("ta_vaal adversarial step", told, (1.86, 1.86)),
            ("waal step", far, (2.1, 2.9)),
        ):
            found.append(stepping(f"{name}, {word}", play, precision, required[precision == HALF]))
        for name, play, required in (("published", published, (4.3, 12.0)), ("narrow", small, (4.3, 12.0))):
            found.append(scoring(f"vaal scoring, {name} network, {word}", play, precision, required[precision == HALF]))
    return found


def stepping(name: str, play: Play, precision: str, required: float) -> Case:
    what = " ".join(f"{key}={value}" for key, value in play.nets.items())
    return Case(
        name=name,
        work=f"{play.steps} step{'s' * (play.steps > 1)} of {play.batch} images 3x32x32, {what}",
        forms={
            "ours": lambda: ours(play, precision),
            "released": lambda: theirs(play),
        },
        check=lambda: agree(name, replace(play, batch=4, steps=1), precision),
        threads=2,
        required={"released": required},
    )


def ours(play: Play, precision: str) -> Act:
    parts, pool = play.build(), play.pool
    run = play.run(pool, parts, precision)
    return lambda: entries()[play.entry].train(run, pool, play.plan, **parts)


def theirs(play: Play) -> Act:
    parts, pool = released.plainly(play.build()), play.pool
    transform = augmented() if play.entry == "ta_vaal" else augmented("flip")
    known, rest = (endless(loader(pool, transform, i, play.batch)) for i in (pool.labeled, pool.unlabeled))
    step = released.STEPS[play.entry](parts, play.plan, len(pool.labeled) / len(pool.unlabeled))

    def act() -> None:
        for _ in range(play.steps):
            step(known, rest)

    return act


def agree(name: str, play: Play, precision: str) -> None:
    """Raise RuntimeError where the losses of a first step on the same images are not the same."""
    near = 0.05 if precision == HALF else 1e-3
    parts, mirror, pool, seen = play.build(), released.plainly(play.build()), play.pool, dict[str, float]()
    entries()[play.entry].train(
        play.run(pool, parts, precision, lambda what, value, _: seen.update({what: value})), pool, play.plan, **parts
    )
    run = play.run(pool, released.plainly(play.build()), FULL)
    with torch.random.fork_rng():
        theirs = released.FIRST[play.entry](
            mirror, play.plan, run, lambda stage: reseed(run.device, 0, "step", 1, stage, 0)
        )
    for what, value in theirs.items():
        if abs(seen[what] - value.item()) > near * max(1.0, abs(seen[what])):
            raise RuntimeError(f"bench: {name}: {what} is {seen[what]:.6g} in ours and {value.item():.6g} as released")


def scoring(name: str, play: Play, precision: str, required: float) -> Case:
    """The critic's answer for every unlabeled image."""
    images = 32 * play.batch
    pool = made_up(images, known=0)
    return Case(
        name=name,
        work=f"{images:,} images 3x32x32, vae_width={play.nets['vae_width']}",
        forms={
            "ours": lambda: our_scores(play, pool, precision),
            "released": lambda: their_scores(play, pool),
        },
        check=lambda: alike(name, play, precision),
        threads=2,
        required={"released": required},
    )


def our_scores(play: Play, pool: Pool, precision: str) -> Callable[[], Tensor]:
    parts = nn.ModuleDict(play.build())
    placed(parts, torch.device("cpu"))
    scan = Scan(pool, parts, precision=precision)
    return lambda: scan_scores(scan)


def scan_scores(scan: Scan) -> Tensor:
    from zoo.entries.vaal import critic_logit

    return scan.each(lambda x: critic_logit(scan.parts, x))


def their_scores(play: Play, pool: Pool, training: bool = True) -> Callable[[], Tensor]:
    parts = released.plainly(play.build())
    for part in parts.values():
        part.train(training)
    batches = loader(pool, augmented("flip") if training else augmented(), pool.unlabeled, play.batch, shuffle=training)
    return lambda: released.score(parts, batches)


def alike(name: str, play: Play, precision: str) -> None:
    """Raise RuntimeError where the scores are not the same once the released form is in evaluation mode too."""
    pool = made_up(16, known=0)
    mine, plain = our_scores(play, pool, precision)(), their_scores(play, pool, training=False)()
    near = 0.05 if precision == HALF else 1e-3
    if not torch.allclose(mine, plain, rtol=near, atol=near * float(plain.abs().max())):
        raise RuntimeError(f"bench: {name}: the forms do not score alike")
