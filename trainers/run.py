"""What every loop is handed: where it runs, what it sees, and what it leaves behind."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainers.augment import AUGMENTS
from trainers.captured import Captured, capturable, prepare
from trainers.compiled import faster
from trainers.notes import Notes
from trainers.players import Idle, gradients, scale
from trainers.pool import Pool, at, normal
from trainers.ranks import ALONE, Ranks, agreed, average, least
from trainers.seeds import Seed, generator, reseed

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Journal = Callable[[str, float, int], None]  # (name, mean since the last line, step of the whole fit)
Watch = Callable[[str, int, int], None]  # (stage, steps done, steps in all)
P = ParamSpec("P")
T = TypeVar("T")

WINDOW = 100  # steps between two looks at the losses: one wait for the device each
NEVER = 2**62


class Diverged(RuntimeError):
    """A player's loss, or what came of it, is no number. `.player` is who, `.step` is when, from 0 on in its stage."""

    def __init__(self, player: str, stage: str, step: int) -> None:
        super().__init__(player, stage, step)
        self.player, self.stage, self.step = player, stage, step

    def __str__(self) -> str:
        return (
            f"{self.player} diverged: its loss, or what came of it, is no number at step {self.step} of stage "
            f"{self.stage!r}. Lower its learning rate, or look for images without contrast"
        )


@dataclass(frozen=True)
class Snapshots:
    """Where a fit is kept while it goes on, so that it can be killed at any moment.

    path: of one file, replaced atomically. owner: says whose fit it is; another's is refused.
    seconds: between two snapshots.
    """

    path: Path
    owner: str
    seconds: float = 30.0


@dataclass
class _State:
    """Where a run stands; shared by a run and the runs made of it by `over`."""

    stage: int = 0
    ticks: int = 0  # steps of all stages
    streams: list[int] = field(default_factory=list)  # batches drawn so far
    players: list[tuple[str, nn.Module, Optimizer]] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    name: str = ""  # of the stage
    said: set[str] = field(default_factory=set)


class Run:
    """One fit: streams of batches, numbered steps, a journal, and a snapshot to go on from.

    Everything random in a step is a function of the seed, the pool's round, the stage and the step alone. So a fit
    that was killed and resumed ends, on a CPU, bit by bit where it would have ended.

    Of several ranks each sees its share of every batch, augmented as one device would have it, and draws random numbers
    of its own in a step. Gradients are averaged before an optimizer's step, so a loss has to be a mean over the batch.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        fabric: Fabric | None = None,
        seed: Seed = 0,
        augment: str = "none",
        journal: Journal | None = None,
        watch: Watch | None = None,
        snapshots: Snapshots | None = None,
        parts: Mapping[str, nn.Module] | None = None,
        lr_scale: Mapping[str, float] | None = None,
        compiled: bool = False,
        captured: bool = False,
        counting: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        """parts: the networks by name, so that an error can say whose loss it was.

        lr_scale: some of these, and the factor of their learning rate, whoever trains them.
        compiled: every player goes through torch.compile, see `compiling`. captured: see `whole`.
        counting: no step is taken, they are only counted. ranks: who trains together; each gives the same arguments,
        but for fabric, journal and watch.
        """
        if fabric is None:
            from lightning.fabric import Fabric

            fabric = Fabric(accelerator="cpu", devices=1)
        self.pool = pool
        self.fabric = fabric
        self.seed = seed
        self.augment = augment
        self.journal = journal
        self.watch = watch
        self.snapshots = snapshots
        self.parts = parts or {}
        self.lr_scale = lr_scale or {}
        self.compiled = compiled
        self.captured = captured and capturable(fabric.device)
        self.counting = counting
        self.ranks = ranks
        self._state = _State()
        self._saved = None if snapshots is None else agreed(ranks, lambda: _load(fabric, snapshots))
        if self._saved is not None:
            self._state.ticks = self._saved["ticks"]
            self._state.kept = self._saved["kept"]
        self._resident = _resident(pool.images, fabric.device)
        self._moment = time.monotonic()
        self._bare = _bare(fabric)

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    @property
    def ticks(self) -> int:
        """Steps done in all stages together."""
        return self._state.ticks

    def over(self, pool: Pool) -> Run:
        """This run over another pool of the same images, a supposition for example."""
        other = copy(self)
        other.pool = pool
        return other

    def setup(
        self, module: nn.Module, optimizer: Optimizer | None, player: str | None = None
    ) -> tuple[nn.Module, Optimizer]:
        """The module and its optimizer, ready for the device and in every snapshot.

        optimizer: None for a player whose every part is frozen; what is given back then does nothing.
        player: their name in errors, by default that of the parts.
        """
        state = self._state
        if optimizer is not None and self.lr_scale:
            scale({self.parts[name]: factor for name, factor in self.lr_scale.items()}, optimizer)
        optimizer = Idle() if optimizer is None else optimizer
        if self.ranks.of > 1 and self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        number, player = len(state.players), player or self._name(module)
        ready = faster(module) if self.compiled else module
        wrapped, step = (ready.to(self.device), optimizer) if self._bare else self.fabric.setup(ready, optimizer)
        if self._saved is not None and number < len(self._saved["players"]):
            module.load_state_dict(self._saved["players"][number]["module"])
            optimizer.load_state_dict(self._saved["players"][number]["optimizer"])
        if self.captured:
            prepare(optimizer, self.device)
        state.players.append((player, module, optimizer))
        optimizer.register_step_pre_hook(lambda *_: state.notes.sign(player))
        if self.ranks.of > 1:
            optimizer.register_step_pre_hook(lambda *_: average(self.ranks, gradients(optimizer)))
        return wrapped, step

    def _name(self, module: nn.Module) -> str:
        """The parts that a module is made of."""
        inside = set(module.modules())
        return "+".join(name for name, part in self.parts.items() if part in inside) or type(module).__name__

    def stream(
        self, indices: Tensor, size: int, augment: str | None = None, beside: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches of the images at `indices`, always `size` of them, on several ranks together.

        Gives float32 images in [-1, 1] (size c h w) and int64 labels (size,), -1 where unknown. Every image comes
        once before any comes again; a batch that reaches the end goes on with the next shuffle, nothing is dropped.
        `indices` of (n p) are images in company: p streams in step, one after the other in batches of p * size.
        `augment`: one of AUGMENTS, by default the run's own. `beside`: values (n ...), one for each image of the
        pool, that come in place of the labels.
        """
        if (augment := augment or self.augment) not in AUGMENTS:
            raise ValueError(f"augment={augment!r} must be one of {', '.join(AUGMENTS)}")
        number = len(self._state.streams)
        beside = self.pool.labels if beside is None else beside
        whole = (indices.shape[1] if indices.ndim > 1 else 1, size)
        return self._batches(number, self.order(indices, size), whole, AUGMENTS[augment], beside)

    def order(self, indices: Tensor, size: int) -> Iterator[Tensor]:
        """The `indices` alone, int64, as a stream goes through them; `look` shows their images, in any view."""
        if size % self.ranks.of:
            raise ValueError(f"a batch of {size} has no {self.ranks.of} equal shares; give a multiple of the devices")
        if not len(indices):
            raise ValueError("a stream needs images, but there are none; skip the players that would see them")
        number = len(self._state.streams)
        saved = self._saved["streams"] if self._saved is not None else []
        self._state.streams.append(saved[number] if number < len(saved) else 0)
        return self._numbers(number, indices, size)

    def look(self, indices: Tensor, augment: str | None = None) -> Tensor:
        """The images at `indices` (b,): float32 in [-1, 1] (b c h w), augmented by the random numbers of this step."""
        return normal(AUGMENTS[augment or self.augment](self._look_at(indices), torch.default_generator))

    def _batches(
        self,
        number: int,
        order: Iterator[Tensor],
        whole: tuple[int, int],
        augment: Callable[[Tensor, torch.Generator], Tensor],
        beside: Tensor,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for i in order:
            last = self._state.streams[number] - 1
            chance = generator(self.seed, "stream", len(self.pool.rounds), number, "augment", last)
            x = self._look_at(i)
            if self.ranks.of > 1:  # augmented in their places of the whole batch
                mine, images = self.ranks.part(whole[1]), x.new_zeros(*whole, *x.shape[1:])
                images[:, mine] = x.unflatten(0, (whole[0], -1))
                x = augment(images.flatten(0, 1), chance).unflatten(0, whole)[:, mine].flatten(0, 1)
            else:
                x = augment(x, chance)
            yield normal(x), beside[i].to(self.device)

    def _numbers(self, number: int, indices: Tensor, size: int) -> Iterator[Tensor]:
        use = ("stream", len(self.pool.rounds), number)

        @lru_cache(2)
        def shuffle(turn: int) -> Tensor:
            return indices[torch.randperm(len(indices), generator=generator(self.seed, *use, "shuffle", turn))]

        while True:
            batch = self._state.streams[number]
            self._state.streams[number] += 1
            first, last = batch * size, (batch + 1) * size
            turns = [shuffle(turn) for turn in range(first // len(indices), -(-last // len(indices)))]
            i = (turns[0] if len(turns) == 1 else torch.cat(turns))[first % len(indices) :][:size]
            i = i[self.ranks.part(size)]
            yield i.t().flatten()  # of companies, the first of each come first

    def _look_at(self, indices: Tensor) -> Tensor:
        if self._resident is not None and not len(self.pool.made):
            return at(self._resident, indices)
        indices = indices.to(self.pool.images.device)
        return self.pool.take(indices).to(self.device, non_blocking=self.device.type == "cuda")

    def steps(self, n: int, stage: str = "train", first: int = 0) -> Iterator[int]:
        """The step numbers first..n-1 of a stage: what a loop loops over.

        Resumed, a run gives no step of the stages it has done, and goes on in the stage it was killed in.
        """
        state, number = self._state, self._state.stage
        state.stage += 1
        state.name = stage
        if self._saved is not None and number < self._saved["stage"]:
            first = n
        elif self._saved is not None and number == self._saved["stage"]:
            first = self._saved["step"]
        if self.counting:
            state.ticks, first = state.ticks + max(0, n - first), n
        own = () if self.ranks.of == 1 else ("rank", self.ranks.number)
        for step in range(first, n):
            reseed(self.device, self.seed, "step", len(self.pool.rounds), stage, step, *own)
            state.notes.step = step
            yield step
            state.ticks += 1
            if step + 1 == n or (step + 1) % WINDOW == 0:
                self._check(stage)
                self._even()
                self._write()
            if self.watch is not None:
                self.watch(stage, step + 1, n)
            if self._due(step + 1):
                self._check(stage)
                self._save(number, step + 1)
        reseed(self.device, self.seed, "after", len(self.pool.rounds), stage)

    def whole(self, play: Callable[P, T]) -> Callable[P, T]:
        """One step of a loop, which takes its batches as tensors, and what else changes as flags by name.

        On a GPU a run that is `captured` makes a CUDA graph of it; else it is what it was. So it draws no batch, sets
        no learning rate, and reads no number back.
        """
        return cast(Callable[P, T], Captured(play, self._state.notes, self.device)) if self.captured else play

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """`compute()`, tensors or plain values, remembered in the snapshot: for what happens between two stages."""
        if name not in self._state.kept:
            self._state.kept[name] = compute()
        value: T = self._state.kept[name]
        return value

    def backward(self, loss: Tensor) -> None:
        """The gradients of a loss; whether it is finite is noted, and read every 100 steps."""
        if not loss.requires_grad:  # every player in it is frozen
            return
        if self._bare:
            loss.backward()
        else:
            self.fabric.backward(loss)
        self._state.notes.lose(loss)

    def log(self, name: str, value: Tensor) -> None:
        """A number for the journal, as `group/what`. It stays on the device; its mean is written every 100 steps."""
        if self.journal is not None:
            self._state.notes.log(name, value)

    def say(self, text: str) -> None:
        """Something the user should know, once a run."""
        if text not in self._state.said:
            self._state.said.add(text)
            logging.getLogger("alzoo").warning(text)

    def finish(self) -> None:
        """Let go of what only training needs: gradients, and the optimizers' state.

        Raises Diverged where the last steps have left weights that are no numbers.
        """
        state = self._state
        for player, module, optimizer in state.players:
            if not all(bool(value.isfinite().all()) for value in module.state_dict().values()):
                raise Diverged(player, state.name, state.notes.step)
            optimizer.zero_grad()
        self._state.players.clear()

    def _check(self, stage: str) -> None:
        """Wait for the device, and stop if a loss is no number."""
        broken = self._state.notes.broken()
        first = torch.tensor([NEVER if step is None else step for step in broken.values()], device=self.device)
        if broken and min(when := least(self.ranks, first).tolist()) < NEVER:
            raise Diverged([*broken][when.index(min(when))], stage, min(when))

    def _even(self) -> None:
        """The ranks have the same running statistics: the mean of what each has gathered on its shares."""
        if self.ranks.of > 1:
            buffers = [buffer for _, module, _ in self._state.players for buffer in module.buffers()]
            average(self.ranks, [buffer for buffer in buffers if buffer.is_floating_point()])

    def _due(self, step: int) -> bool:
        """Whether it is time for a snapshot; of several ranks, which are even only then, every 100 steps at most."""
        if self.snapshots is None or (self.ranks.of > 1 and step % WINDOW):
            return False
        late = self._moment + self.snapshots.seconds
        return agreed(self.ranks, lambda: time.monotonic() >= late)

    def _write(self) -> None:
        """Write the means since the last time into the journal."""
        for name, mean in self._state.notes.means().items():
            if self.journal is not None:
                self.journal(name, mean, self._state.ticks)

    def _save(self, stage: int, step: int) -> None:
        assert self.snapshots is not None
        if not self.ranks.first:
            return
        state = self._state
        path = self.snapshots.path
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.partial")
        self.fabric.save(
            fresh,
            {
                "owner": self.snapshots.owner,
                "stage": stage,
                "step": step,
                "ticks": state.ticks,
                "streams": list(state.streams),
                "kept": dict(state.kept),
                "players": [{"module": m.state_dict(), "optimizer": o.state_dict()} for _, m, o in state.players],
            },
        )
        os.replace(fresh, path)
        self._moment = time.monotonic()


def _bare(fabric: Fabric) -> bool:
    """Whether Fabric has nothing to do, on one device in full precision: left out, a step is 0.1 ms shorter."""
    from lightning.fabric.strategies.single_device import SingleDeviceStrategy

    return isinstance(fabric.strategy, SingleDeviceStrategy) and fabric.strategy.precision.precision == "32-true"


def _load(fabric: Fabric, snapshots: Snapshots) -> dict[str, Any] | None:
    """The snapshot to go on from, if there is one."""
    if not snapshots.path.exists():
        return None
    try:
        saved = fabric.load(snapshots.path, weights_only=True)
    except Exception as error:  # rubbish may raise anything
        why = f"{snapshots.path} is no whole snapshot ({error!r}). Remove it, or use another path"
        raise ValueError(why) from error
    if not isinstance(saved, dict) or "owner" not in saved:
        raise ValueError(f"{snapshots.path} is no snapshot of a fit. Use another path")
    if saved["owner"] != snapshots.owner:
        raise ValueError(
            f"{snapshots.path} is the snapshot of another fit (settings, seed or pool). Remove it, or use another path"
        )
    return saved


def _resident(images: Tensor, device: torch.device) -> Tensor | None:
    """All images on the device, where they take less than half of its free memory."""
    if images.device == device or device.type != "cuda":
        return images if images.device == device else None
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.numel() < free // 2 else None
