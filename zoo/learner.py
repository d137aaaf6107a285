"""The learner: the one class behind every entry."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

import checkpoints
from trainers.compiled import compiling
from trainers.numbers import whole
from trainers.pool import Pool, nobody, uint8
from trainers.ranks import agreed, alike
from trainers.run import Diverged, Journal, Run, Snapshots, Watch
from trainers.seeds import Seed, Seeds, key, seeded
from zoo.device import fabric, ranks
from zoo.entry import Entry
from zoo.journal import journaling, watching
from zoo.nets.common import Shape
from zoo.nets.trunk import freeze
from zoo.parts import adopt, placed, put
from zoo.query import Query
from zoo.register import affordable, known
from zoo.room import holdable
from zoo.scan import Scan, dropouts, evaluating
from zoo.selection import Selection

FORMAT = 1  # of the card in a saved file
ASKING = ("alzoo", "name", "plan", "query", "query_settings", "training")  # of a card: no fit depends on it
REMEDIES = {  # for what a query needs
    "dropout": "create it with dropout=0.5, for example",
    "draws": "create it with dropout=0.5, for example",
    "members": "create plain training with members=5, for example",
}


@dataclass(eq=False, repr=False, kw_only=True)
class Learner:
    """Fit to a pool, then select what to ask. Made by `zoo.create`.

    `fit` starts anew each time: the result is a function of the settings, the seed, the start weights and the pool
    (images, labels, rounds), and of nothing else. `select` changes nothing.
    """

    name: str
    entry: Entry
    query: Query
    plan: str  # the preset's name
    loop: Any  # the loop's Plan
    nets: dict[str, Any]  # options of the networks
    augment: str
    query_settings: dict[str, Any]
    seed: Seed
    device: str
    precision: str
    devices: int = 1  # that train together
    compiled: bool = False
    captured: bool = False
    freeze: tuple[str, ...] = ()
    lr_scale: dict[str, float] = field(default_factory=dict)  # by part, what every learning rate is multiplied by
    twin: Learner | None = None  # trained plainly beside it, and then `predict` is the twin's
    start: dict[str, Tensor] | None = None  # weights to start from, by part; never written
    parts: nn.ModuleDict | None = None  # the networks, once fitted
    fitted: tuple[Shape, int] | None = None  # what they were fitted to: (c h w), classes
    ticks: int = 0  # steps of the last fit, those of all stages together
    begun: tuple[str, dict[str, Tensor]] | None = None  # what the pretext made, and of what

    def fit(
        self,
        pool: Pool,
        *,
        journal: str | os.PathLike[str] | Journal | None = None,
        progress: bool | Watch = True,
        snapshot: str | os.PathLike[str] | None = None,
        snapshot_seconds: float = 30.0,
    ) -> Learner:
        """Train on the pool, and return this learner.

        journal: a folder for TensorBoard, or a function (name, value, step). progress: a bar on a terminal, or a
        function (stage, step, steps). snapshot: a file to keep the fit in while it goes on; the same call finds it
        there and goes on, and removes it in the end.
        Of several devices all call this alike; journal, bar and files are the first one's.
        Raises ValueError without a label or with more images than the query or the pool's memory takes,
        trainers.run.Diverged when a loss is no number any more.
        """
        if not isinstance(pool, Pool):
            raise TypeError(f"fit takes a zoo.Pool, not {type(pool).__name__}: zoo.Pool.of(images, targets, classes)")
        if not len(pool.labeled):
            raise ValueError(f"{self.name} cannot fit: the pool has no labeled image. Reveal some first")
        affordable(self.query, len(pool.unlabeled), self.query_settings)
        holdable(self, pool)
        path, here = None if snapshot is None else Path(snapshot), ranks(self.devices)
        if self.devices > 1 and not alike(here, (self.fit_key(pool), path is None)):
            raise ValueError(f"the {self.devices} processes of {self.name} differ in settings, seed, start or pool")
        with (
            seeded(torch.device(self.device), self.seed, "fit", len(pool.rounds)),
            watching(progress if here.first else False) as watch,
            journaling(journal if here.first else None) as write,
            compiling(self.compiled),
        ):

            def run_over(pool: Pool, parts: nn.ModuleDict, kept: Path | None) -> Run:
                placed(parts, torch.device(self.device))
                return Run(
                    pool,
                    fabric=fabric(self.device, self.precision),
                    seed=self.seed,
                    augment=self.augment,
                    journal=write,
                    watch=watch,
                    snapshots=None if kept is None else Snapshots(kept, self.fit_key(pool), snapshot_seconds),
                    parts=dict(parts.items()),
                    lr_scale=self.lr_scale,
                    compiled=self.compiled,
                    captured=self.captured,
                    ranks=here,
                )

            parts, fresh = self._build(pool.shape, pool.classes, len(pool.rounds))
            run = run_over(pool, parts, path)
            if self.entry.pretext is not None and fresh != ["head"] * len(fresh):
                begun = run.once("pretext", lambda: self._pretext(pool, run_over, _beside(path, "pretext")))
                parts.load_state_dict(begun, strict=False)
            self.entry.train(run, pool, self.loop, **parts)
            run.finish()
            self._check_answers(pool, parts)
        self.parts, self.fitted, self.ticks = parts, (pool.shape, pool.classes), run.ticks
        if self.twin is not None:
            beside = _beside(path, "twin")
            self.twin.fit(pool, progress=progress, snapshot=beside, snapshot_seconds=snapshot_seconds)
        for kept in (path, _beside(path, "pretext")):
            if kept is not None and here.first:
                kept.unlink(missing_ok=True)
                kept.with_name(f"{kept.name}.partial").unlink(missing_ok=True)
        return self

    def fit_key(self, pool: Pool) -> str:
        """A name for the fit to this pool: learners and pools with the same one get the same networks.

        It is made of settings, seed, start and pool, not of what is asked then, nor of a twin beside it.
        """
        card = {key: value for key, value in self.card().items() if key not in ASKING}
        card |= {"entry": self.entry.name, "shape": pool.shape, "classes": pool.classes, "devices": self.devices}
        told = any(getattr(self.loop, name) for name in self.entry.told)  # then training draws as the query does
        own = (
            self.seed
            if isinstance(self.seed, Seeds)
            else Seeds(networks=self.seed, batches=self.seed, queries=self.seed)
        )
        card["seed"] = [own.networks, own.batches, *([own.queries] if told else ())]
        seen = [pool.made, pool.labels, pool.supposed, *pool.rounds, *(self.start or {}).values()]
        digest = blake2b(json.dumps(card).encode() + pool.digest, digest_size=16)
        for tensor in seen:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def pretext_key(self, pool: Pool) -> str:
        """A name for what the entry makes of the images of this pool before it sees a label, if it does."""
        return self.fit_key(Pool.hidden(pool.images, pool.classes, nobody, pool.names))

    def length(self, pool: Pool) -> int:
        """How many steps `fit` takes on this pool, those of all stages together; none of them is taken."""
        device = torch.device(self.device)
        with seeded(device, self.seed, "fit", len(pool.rounds)):
            parts = self.build(pool.shape, pool.classes, len(pool.rounds))
            placed(parts, device)
            where = fabric(self.device, self.precision)
            run = Run(
                pool, fabric=where, seed=self.seed, augment=self.augment, parts=dict(parts.items()), counting=True
            )
            self.entry.train(run, pool, self.loop, **parts)
        return run.ticks

    def _pretext(self, pool: Pool, run_over: Callable[..., Run], kept: Path | None) -> dict[str, Tensor]:
        """What the entry makes of the images alone, before it sees a label: weights by part, and remembered."""
        assert self.entry.pretext is not None
        key = self.pretext_key(pool)
        if self.begun is None or self.begun[0] != key:
            blind = Pool.hidden(pool.images, pool.classes, nobody, pool.names)
            with seeded(torch.device(self.device), self.seed, "pretext"):
                parts = self.build(pool.shape, pool.classes)
                run = run_over(blind, parts, kept)
                made = self.entry.pretext(run, blind, self.loop, **parts)
                run.finish()
            weights = nn.ModuleDict(dict(made)).state_dict()
            self.begun = key, {name: value.detach().cpu().clone() for name, value in weights.items()}
        return self.begun[1]

    def select(self, pool: Pool, n: int) -> Selection:
        """The n unlabeled images this learner asks for, the first to be asked first.

        Raises RuntimeError if it is not fitted, ValueError if n is not in 1..u, if the pool has another shape or
        other classes than the one it was fitted to, and on a supposition.
        """
        if (n := whole("n", n)) < 1:
            raise ValueError(f"asked for {n} images; ask for at least 1")
        if n > (u := len(pool.unlabeled)):
            raise ValueError(f"asked for {n} images, but only {u} are unlabeled")
        affordable(self.query, u, self.query_settings)
        holdable(self, pool, n)
        answer = self.query.ask(self.scan(pool), n, **self.query_settings)
        if answer.images is not None:
            return Selection(
                indices=torch.empty(0, dtype=torch.int64),
                scores=answer.scores.detach().float().cpu(),
                detail={name: value.detach().cpu() for name, value in answer.detail.items()},
                images=answer.images.cpu(),
            )
        positions, scores = answer.positions.cpu(), answer.scores.detach().float().cpu()
        ranged = positions.ndim == 1 and bool(((positions >= 0) & (positions < u)).all())
        lengths = {len(scores), *map(len, answer.detail.values())}
        falling = bool((scores[1:] <= scores[:-1]).all()) and not bool(scores.isnan().any())
        if not ranged or len(positions.unique()) != n or lengths != {n} or not falling:
            raise RuntimeError(
                f"the query {self.query.name!r} is broken: asked for {n} of {u} images, it must give {n} distinct "
                f"positions in [0, {u}), as many scores in falling order, and as many of each detail"
            )
        selection = Selection(
            indices=pool.unlabeled[positions],
            scores=scores,
            detail={name: value.detach().cpu() for name, value in answer.detail.items()},
        )
        return agreed(ranks(self.devices), lambda: selection)

    def scan(self, pool: Pool) -> Scan:
        """What this learner sees in the pool: for queries, and for one's own questions. Raises as `select` does.

        Of several devices all have to look alike, since each looks at a part.
        """
        if pool.supposed.any():
            raise ValueError("this pool is a supposition: select from the real pool it was made from")
        parts = self.parts
        if parts is None and self.query.cold and not len(pool.labeled):
            parts = nn.ModuleDict({"nothing": nn.Linear(1, 1)})
        elif parts is None:
            raise RuntimeError(f"{self.name} is not fitted. Call fit(pool) first, or create it with pretrained=...")
        elif self.fitted != (pool.shape, pool.classes):
            raise ValueError(
                f"{self.name} was fitted to {self.fitted}, not {(pool.shape, pool.classes)}. Call fit(pool) first"
            )
        return Scan(pool, parts, seed=self.seed, precision=self.precision, ranks=ranks(self.devices))

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities float32 (n k), on the CPU, of uint8 images (n c h w) of any number, on any device."""
        return self._over(images).probs.cpu() if self.twin is None else self.twin.predict(images)

    def diagnose(self, pool: Pool, held_out: Tensor) -> dict[str, float]:
        """Numbers that tell whether this method's game works. Empty without a game.

        held_out: uint8 (n c h w), two images at least. Where the numbers say that it does not, a warning says so in
        words. Raises as `select` does, and ValueError for images of another shape.
        """
        if self.entry.diagnose is None or not len(pool.unlabeled):
            return {}
        if len(self._over(held_out).pool) < 2:
            raise ValueError(f"{len(held_out)} held-out images say nothing of a game; give two at least")
        with seeded(torch.device(self.device), self.seed, "diagnose", len(pool.rounds)):
            numbers = self.entry.diagnose(self.scan(pool), held_out)
        for sentence in self.doubts(numbers):
            logging.getLogger("alzoo").warning("%s: %s", self.name, sentence)
        return numbers

    def doubts(self, numbers: Mapping[str, float]) -> list[str]:
        """What these numbers of `diagnose` say against this method's game, a sentence each; none if it works."""
        return [] if self.entry.doubt is None or not numbers else self.entry.doubt(numbers)

    def sample(self, n: int, labels: Tensor | Sequence[int] | None = None, seed: int = 0) -> Tensor:
        """n made images: uint8 (n c h w) on the CPU. labels: int64 (n,), for parts that make images of a class."""
        parts, make = self._fitted(), self.entry.sample
        assert self.fitted is not None
        if make is None:
            raise TypeError(f"{self.name} makes no images: none of its parts is a generator or a decoder")
        if (n := whole("n", n)) < 1:
            raise ValueError(f"n={n} images to make; make at least 1")
        if labels is not None:
            labels, k = torch.as_tensor(labels).cpu(), self.fitted[1]
            if labels.shape != (n,) or labels.is_floating_point() or not bool(((labels >= 0) & (labels < k)).all()):
                raise ValueError(f"labels={labels.tolist()} must be {n} whole numbers in [0, {k}), one for each image")
            labels = labels.long()
        with evaluating(parts), torch.no_grad():
            return uint8(make(parts, n, labels, Generator().manual_seed(key(seed, "sample")))).cpu()

    def rebuild(self, images: Tensor) -> Tensor:
        """Images uint8 (n c h w) as this learner's autoencoder rebuilds them: uint8 (n c h w) on the CPU."""
        parts, again = self._fitted(), self.entry.rebuild
        if again is None:
            raise TypeError(f"{self.name} rebuilds no images: none of its parts is an autoencoder")
        return uint8(self._over(images).each(lambda x: again(parts, x))).cpu()

    def warm(self) -> Learner:
        """A new learner, not fitted, that will start from what this one has learned."""
        start = {name: value.detach().clone() for name, value in self._fitted().state_dict().items()}
        twin = None if self.twin is None else self.twin.warm()
        return replace(self, start=start, twin=twin, parts=None, fitted=None, ticks=0, begun=None)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the networks and a card of all settings into one safetensors file; `zoo.load` reads it.

        Raises FileExistsError if there is one and `overwrite` is not set, FileNotFoundError without its folder, and
        ValueError for an entry or a query of one's own under a name of the zoo's, which `load` would take for it.
        """
        parts, path = self._fitted(), Path(path)
        asks = () if self.query is self.entry.query else (self.query,)
        for what in (self.entry, *asks):
            if (other := known(what.name)) is not None and other is not what:
                raise ValueError(f"this is not the zoo's {what.name!r}. Give it a name of its own, then save")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent}; make it first")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists. Choose another name, or save with overwrite=True")
        both = {**parts.state_dict(), **({} if self.twin is None else _named(self.twin._fitted(), "twin."))}
        weights = {name: value.detach().cpu().contiguous() for name, value in both.items()}
        checkpoints.write(path, self.card(), weights)
        return path

    def filled(self, card: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Learner:
        """This learner with the networks of a file, as `save` wrote it: fitted."""
        (c, h, w), classes = card["shape"], card["classes"]
        self.parts = self.build((c, h, w), classes)
        put(self.parts, {name: value for name, value in weights.items() if not name.startswith("twin.")})
        placed(self.parts, torch.device(self.device))
        self.fitted = ((c, h, w), classes)
        if self.twin is not None:
            own = {name[5:]: value for name, value in weights.items() if name.startswith("twin.")}
            self.twin.filled(card, own)
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the loop and of the networks, by name."""
        return {**asdict(self.loop), **self.nets}

    def card(self) -> dict[str, Any]:
        """Everything needed to create this learner again, as plain values."""
        from zoo import __version__

        shape, classes = self.fitted or (None, None)
        return {
            "format": FORMAT,
            "alzoo": __version__,
            "name": self.name,
            "shape": shape,
            "classes": classes,
            "plan": self.plan,
            "settings": self.settings,
            "augment": self.augment,
            "query": self.query.name,
            "query_settings": self.query_settings,
            "training": "own" if self.twin is None else "plain",
            "seed": asdict(self.seed) if isinstance(self.seed, Seeds) else self.seed,
            "freeze": list(self.freeze),
            "lr_scale": self.lr_scale,
            "precision": self.precision,
            "compiled": self.compiled,
            "captured": self.captured,
        }

    def __repr__(self) -> str:
        shown = {
            "query": self.query.name,
            "plan": self.plan,
            **self.settings,
            "augment": self.augment,
            "query_settings": self.query_settings,
            "training": "own" if self.twin is None else "plain",
            "freeze": self.freeze,
            "lr_scale": self.lr_scale,
            "start": "fresh" if self.start is None else "warm",
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            "devices": self.devices,
            "compiled": self.compiled,
            "captured": self.captured,
        }
        state = "fitted" if self.parts is not None else "not fitted"
        return f"Learner({self.name!r}, {', '.join(f'{k}={v!r}' for k, v in shown.items())}: {state})"

    def build(self, shape: Shape, classes: int, round: int = 0) -> nn.ModuleDict:
        """Fresh networks for images (c h w), from the start weights where there are any: what `fit` trains.

        A layer that the start weights do not fit (other images, other classes) stays fresh, layers that see or make
        colours are fitted to another number of them, and it is said so.
        Raises ValueError for a query, a freeze or an lr_scale that needs other parts.
        """
        return self._build(shape, classes, round)[0]

    def _build(self, shape: Shape, classes: int, round: int) -> tuple[nn.ModuleDict, list[str]]:
        """`build`, and the names of the parts that do not come from start weights, or not wholly."""
        with seeded(torch.device(self.device), self.seed, "build", round):
            parts = nn.ModuleDict(self.entry.build(shape, classes, **self.nets))
        if lacking := [need for need in ("trunk", "head") if need not in parts]:
            raise ValueError(f"the entry {self.entry.name!r} builds no {lacking[0]}; it needs a trunk and a head")
        drops = dropouts(parts["trunk"], parts["head"])
        have = {*parts, *(("dropout",) if drops else ()), *(("draws",) if drops or "members" in parts else ())}
        have |= {"pretext"} if self.entry.pretext is not None else set()
        if lacking := [need for need in self.query.needs if need not in have]:
            remedy = REMEDIES.get(lacking[0], f"it has {', '.join(parts)}")
            what = f"{self.query.name!r} needs {', '.join(lacking)}, which {self.entry.name} has not"
            raise ValueError(f"the query {what}; {remedy}")
        if strange := [name for name in self.freeze if name not in parts]:
            raise ValueError(f"there is no part {strange[0]!r} to freeze; {self.entry.name} has {', '.join(parts)}")
        if strange := [name for name in self.lr_scale if name not in parts]:
            raise ValueError(f"lr_scale has no part {strange[0]!r} to scale; {self.entry.name} has {', '.join(parts)}")
        fresh, fitted = ({name: [name] for name in parts}, []) if self.start is None else adopt(parts, self.start)
        if fitted:
            text = "%s: %s fit another number of colours now; weights are summed over them and shared out, or averaged"
            logging.getLogger("alzoo").warning(text, self.name, ", ".join(fitted))
        if self.start is not None and (others := [layer for name in fresh if name != "head" for layer in fresh[name]]):
            text = "%s: the start weights of %s do not fit images of %s and %d classes; these layers stay fresh"
            logging.getLogger("alzoo").warning(text, self.name, ", ".join(others), shape, classes)
        for name in (*self.freeze, *(name for name, factor in self.lr_scale.items() if factor == 0)):
            freeze(parts[name])
        return parts, [*fresh, *{layer.partition(".")[0] for layer in fitted} - fresh.keys()]

    def _fitted(self) -> nn.ModuleDict:
        if self.parts is None:
            raise RuntimeError(f"{self.name} is not fitted. Call fit(pool) first, or create it with pretrained=...")
        return self.parts

    def _over(self, images: Tensor) -> Scan:
        """A scan of images that are in no pool."""
        parts = self._fitted()
        assert self.fitted is not None
        shape, classes = self.fitted
        pool = Pool.hidden(images, classes, nobody)  # refuses what are no images
        if pool.shape != shape:
            raise ValueError(f"images are {shape} (c h w) for this learner, not {pool.shape}")
        return Scan(pool, parts, seed=self.seed, precision=self.precision)

    def _check_answers(self, pool: Pool, parts: nn.ModuleDict) -> None:
        """Raise Diverged where some labeled images no longer get an answer that is a number."""
        scan = Scan(pool, parts, seed=self.seed, precision=self.precision)
        if not bool(scan.each(scan.task, of=pool.labeled[:64]).isfinite().all()):
            raise Diverged("task", "fit", self.loop.steps)


def _beside(path: Path | None, kind: str) -> Path | None:
    """The file of that kind beside another."""
    return None if path is None else path.with_name(f"{path.name}.{kind}")


def _named(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A module's weights, each name after a prefix."""
    return {f"{prefix}{name}": value for name, value in module.state_dict().items()}
