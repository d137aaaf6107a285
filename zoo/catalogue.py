"""A learner by name, or from a file."""

import logging
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import checkpoints
from trainers.numbers import whole
from trainers.seeds import Seed, Seeds
from zoo.device import resolve_device, resolve_precision
from zoo.entry import Entry, Preset
from zoo.learner import FORMAT, Learner
from zoo.naming import UnknownName, hint, pick
from zoo.query import Query, inside, options, takes_any
from zoo.register import entries, find
from zoo.trained import fetched, one

if TYPE_CHECKING:
    from torch import nn

    from zoo.nets.common import Shape

SHARED = ("plain", "vaal", "waal")  # entries whose losses are means over the batch, and tested over several devices


def create(
    name: str | Entry | Query,
    *,
    plan: str = "ours",
    query: str | Query | None = None,
    query_settings: Mapping[str, Any] | None = None,
    seed: int | Mapping[str, int] = 0,
    device: str = "auto",
    precision: str = "32-true",
    devices: int = 1,
    compiled: bool = False,
    captured: bool = False,
    pretrained: str | os.PathLike[str] | None = None,
    freeze: str | tuple[str, ...] = (),
    lr_scale: Mapping[str, float] | None = None,
    training: Literal["own", "plain"] = "own",
    **settings: Any,
) -> Learner:
    """A learner by name.

    name: an entry ("vaal"), a query on plain training ("margin"), both ("vaal+margin"), plain training with an entry's
        questions ("plain+vaal", "plain+vaal+margin", the same as training="plain"), or an Entry or Query object.
        "~shuffled" after any of these gives its scores to images drawn at random.
    plan: "ours", or "paper" or "released" where the entry has them; `settings` replace its fields one by one: those
        of the loop's Plan, those of the networks (arguments of the entry's `build`), and `augment`.
    query: another way to ask. query_settings: the arguments of its `ask`.
    seed: one number, or one each for "networks", "batches" and "queries", to hold some of these and vary the others.
    device: "auto", "cpu", "cuda" or "cuda:1". precision: "32-true", "bf16-mixed", or "auto" by what the device can do.
    devices: how many train together, each a process that torchrun has started, on its share of every batch. All call
        fit and select, and get the same; files are the first one's. For plain training, vaal and waal, with any query.
    compiled: every network trains through torch.compile, which takes its time before the first step and then fewer
        launches a step: for long fits on a GPU. Numbers differ by rounding, those of dropout by its draws.
    captured: on one GPU every step becomes a CUDA graph, launched as a whole: for small networks, whose kernels take
        less time than their launches. Learning rates are then float32. Nothing changes on the CPU.
    pretrained: the tag of weights (`zoo.weights` lists them), a .safetensors file, `local-dir:FOLDER` or
        `hf-hub:OWNER/NAME`; the learner counts as fitted, and its `fit` starts from them.
    freeze: parts that keep their weights, as ("trunk",).
    lr_scale: parts that learn slower or faster, as {"trunk": 0.1}: what each learning rate is multiplied by for their
        parameters, in every loop, the pretext's too. 0 is the same as to freeze. A plan may have some of its own.
    training: "plain" for the control: the entry's own networks ask, and `predict` is a network trained plainly for as
        many steps beside them.
    Raises UnknownName, TypeError for a setting that does not exist, ValueError for a value that makes no sense. What
    only the networks can tell, as names of trunks and parts, `build` refuses, and so `fit` before it trains.
    """
    called, entry, asking = find(name, query)
    if plan in entry.missing and plan not in entry.plans:
        raise UnknownName(f"{called} has no plan {plan!r}: {entry.missing[plan]}. It has: {', '.join(entry.plans)}.")
    if training not in ("own", "plain"):
        raise ValueError(f"training={training!r} must be 'own' or 'plain'")
    preset = pick(entry.plans, plan, f"plan of {called}")
    loop, nets, augment = resolve(called, entry, preset, taken_along(entry, asking) | settings)
    told = {**preset.asks, **{name: getattr(loop, name) for name in entry.told}} if asking is entry.query else {}
    devices = resolve_devices(called, entry, loop, devices, captured)
    device = resolve_device(str(device), devices)
    learner = Learner(
        name=called,
        entry=entry,
        query=asking,
        plan=plan,
        loop=loop,
        nets=nets,
        augment=augment,
        query_settings=resolve_query(asking, query_settings or {}, told),
        seed=resolve_seed(seed),
        device=device,
        precision=resolve_precision(precision, device),
        devices=devices,
        compiled=check("compiled", compiled, like=False),
        captured=check("captured", captured, like=False),
        freeze=parts_named(freeze),
        lr_scale={**preset.lr_scale, **parts_scaled(lr_scale or {})},
    )
    if training == "plain" or (called.startswith("plain+") and entry is not entries()["plain"]):
        learner = _plainly(learner)
    return learner if pretrained is None else _pretrained(learner, os.fspath(pretrained), settings)


def resolve_seed(seed: int | Mapping[str, int]) -> Seed:
    """One whole number, or one for each of a learner's own uses. Raises ValueError for anything else."""
    if not isinstance(seed, Mapping):
        return whole("seed", seed)
    if (uses := {f.name for f in fields(Seeds)}) != seed.keys():
        raise ValueError(f"seed={dict(seed)} must have one number each for {', '.join(sorted(uses))}, or be one number")
    return Seeds(**{use: whole(use, number) for use, number in seed.items()})


def resolve_devices(called: str, entry: Entry, loop: Any, devices: int, captured: bool) -> int:
    """How many devices share a fit. Raises ValueError for a loop of which no equal shares make the whole."""
    if (devices := whole("devices", devices)) < 1:
        raise ValueError(f"devices={devices} must be at least 1")
    if devices > 1 and entry.name not in SHARED:
        raise ValueError(f"{called} trains on one device, not {devices}; over several: {', '.join(SHARED)}")
    if loop.batch % devices:
        raise ValueError(f"batch={loop.batch} has no {devices} equal shares; give a multiple of devices={devices}")
    if devices > 1 and getattr(loop, "elbo", None) == "released":
        raise ValueError("elbo='released' sums over the batch, which shares of it cannot; devices must be 1")
    if devices > 1 and captured:
        raise ValueError(f"captured=True is for one device, not {devices}: leave it out, or devices")
    return devices


def taken_along(entry: Entry, query: Query) -> dict[str, Any]:
    """The options of the networks that a query takes with it on plain training."""
    return dict(query.nets) if entry is entries()["plain"] else {}


def parts_named(freeze: str | tuple[str, ...]) -> tuple[str, ...]:
    """One name or several as a tuple. Raises ValueError for anything but names."""
    named = (freeze,) if isinstance(freeze, str) else tuple(freeze) if isinstance(freeze, list | tuple) else (freeze,)
    if strange := [name for name in named if not isinstance(name, str)]:
        raise ValueError(f"freeze={strange[0]!r} is no name of a part")
    return named


def parts_scaled(lr_scale: Mapping[str, float]) -> dict[str, float]:
    """Names of parts with a factor each. Raises ValueError for anything but that, and below 0 or above all numbers."""
    if not isinstance(lr_scale, Mapping):
        raise ValueError(f"lr_scale={lr_scale!r} must be a table of parts and factors, as {{'trunk': 0.1}}")
    factors = {name: check(f"lr_scale[{name!r}]", factor, like=1.0) for name, factor in lr_scale.items()}
    for name, factor in factors.items():
        if not 0 <= factor < math.inf:
            raise ValueError(f"lr_scale[{name!r}]={factor!r} must be at least 0, and finite")
    return {name: float(factor) for name, factor in factors.items()}


def resolve_query(query: Query, settings: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a query, those of the plan or its defaults where none are given.

    Raises TypeError for one that it has not, ValueError for a value of another kind than its default or out of range.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"query_settings={settings!r} must be a table of the query's settings by name")
    if (strange := settings.keys() - query.settings.keys()) and not takes_any(query.ask):
        wrong = min(strange)
        raise TypeError(f"the query {query.name!r} has no setting {wrong!r}.{hint(wrong, query.settings)}")
    have = query.settings
    told = {**have, **preset, **{name: check(name, value, like=have.get(name)) for name, value in settings.items()}}
    for name, interval in query.ranges.items():
        if not inside(told[name], interval):
            where = f"in {interval}" if isinstance(interval, str) else f"one of {', '.join(interval)}"
            raise ValueError(f"{name}={told[name]!r} must be {where}, for the query {query.name!r}")
    return told


def resolve(called: str, entry: Entry, preset: Preset, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any], str]:
    """The preset's plan, network options and augmentation, with the settings in their place."""
    from trainers.augment import AUGMENTS

    loop = {f.name: getattr(preset.loop, f.name) for f in fields(preset.loop)}
    nets = options(entry.build) | dict(preset.nets)
    have = {**loop, **nets, "augment": preset.augment}
    for name in settings:
        if name not in have and not takes_any(entry.build):
            raise TypeError(f"{called} has no setting {name!r}.{hint(name, have)}")
    given = {name: check(name, value, like=have.get(name)) for name, value in settings.items()}
    for name in given.keys() & nets.keys():
        if type(nets[name]) is int and given[name] < 1:
            raise ValueError(f"{name}={given[name]} must be at least 1")
    if (augment := given.pop("augment", preset.augment)) not in AUGMENTS:
        raise ValueError(f"augment={augment!r} must be one of {', '.join(AUGMENTS)}")
    plan = replace(preset.loop, **{k: v for k, v in given.items() if k in loop})
    return plan, nets | {k: v for k, v in given.items() if k not in loop}, augment


def check(name: str, value: Any, like: object) -> Any:
    """A value of the default's kind, numbers of any library as Python's. Raises ValueError for another kind."""
    if like is None:
        return value
    if isinstance(like, int) and not isinstance(like, bool):
        return whole(name, value)
    if isinstance(like, float) and not isinstance(value, bool | str):
        with suppress(TypeError):
            return value if isinstance(value, int) else float(value)
    if isinstance(value, type(like)):
        return value
    raise ValueError(f"{name}={value!r} must be of type {type(like).__name__}, as its default {like!r}")


def load(
    path: str | os.PathLike[str], *, entry: Entry | None = None, query: Query | None = None, device: str = "auto"
) -> Learner:
    """A fitted learner from a file that `save` wrote. No code of the file is run.

    entry, query: those of one's own that the file names and the zoo does not know.
    Its `fit` starts anew, like any; `load(path).warm()` goes on from what it has learned.
    Raises FileNotFoundError; UnknownName for a name that is not the zoo's; ValueError for a file that is torn, not
    alzoo's, of a newer format, or of networks that there are not.
    """
    card, values = checkpoints.read(path)
    readable(card, path)
    first, plus, second = card["name"].partition("+")
    name, asking = entry or (first if plus or query is None else query), (query or second) if plus else None
    try:
        find(name, asking)
    except UnknownName as error:
        raise UnknownName(f"{error} If it is your own, load(path, entry=...) or load(path, query=...).") from None
    try:
        learner = create(
            name,
            query=asking,
            plan=card["plan"],
            query_settings=card["query_settings"],
            seed=card["seed"],
            device=device,
            precision=card["precision"],
            freeze=tuple(card["freeze"]),
            lr_scale=card.get("lr_scale"),  # not in the first files of this format, nor is the next
            compiled=card.get("compiled", False),
            captured=card.get("captured", False),
            training=card["training"],
            augment=card["augment"],
            **card["settings"],
        )
        return learner.filled(card, values)
    except (TypeError, RuntimeError) as error:  # of settings there are not, or networks there is no room for
        raise ValueError(f"{path} cannot be loaded: {error}") from error


def readable(card: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Raises ValueError for a file of a later format."""
    if card["format"] > FORMAT:
        raise ValueError(f"{path} is of format {card['format']}, newer than this alzoo reads ({FORMAT}). Upgrade alzoo")


def _plainly(learner: Learner) -> Learner:
    """The learner with a twin that is trained plainly, for as many steps and in the same way."""
    from trainers.supervised import Plan

    plain, entry = entries()["plain"], learner.entry
    if entry.plainly(learner.loop):
        text = "%s trains its task network plainly already: training='plain' changes nothing"
        logging.getLogger("alzoo").warning(text, learner.name)
        return learner
    if not learner.loop.steps:
        raise ValueError(
            f"{learner.name} takes no steps, so plain training of as many is none. Give steps=, as steps=250"
        )
    own = {f.name: getattr(learner.loop, f.name) for f in fields(Plan)}
    twin = replace(
        learner,
        name=f"the plain twin of {learner.name}",
        entry=replace(plain, build=partial(_task_alone, entry.build)),
        query=plain.query,
        query_settings={},
        loop=replace(plain.plans["ours"].loop, **own),
        freeze=tuple(part for part in learner.freeze if part in ("trunk", "head")),
        lr_scale={part: factor for part, factor in learner.lr_scale.items() if part in ("trunk", "head")},
    )
    return replace(learner, twin=twin)


def _task_alone(
    build: Callable[..., dict[str, "nn.Module"]], shape: "Shape", classes: int, **nets: Any
) -> dict[str, "nn.Module"]:
    """The trunk and head that an entry builds, without its other parts."""
    parts = build(shape, classes, **nets)
    return {"trunk": parts["trunk"], "head": parts["head"]}


def _pretrained(learner: Learner, pretrained: str, settings: Mapping[str, Any]) -> Learner:
    """The learner with the networks of a tag or a file: fitted already, and `fit` starts from them."""
    if checkpoints.is_source(pretrained):
        path = checkpoints.locate(pretrained, learner.entry.name)
    else:
        path = fetched(one(f"{learner.entry.name}.{pretrained}"))
    card, values = checkpoints.read(path)
    readable(card, path)
    nets = {name: card["settings"].get(name, value) for name, value in learner.nets.items()}
    if other := [name for name in settings if name in nets and nets[name] != settings[name]]:
        raise ValueError(
            f"{other[0]}={settings[other[0]]!r}, but the networks of {pretrained!r} have {nets[other[0]]!r}; "
            f"leave it out, or train anew without pretrained"
        )
    learner = replace(learner, nets=nets)
    try:
        learner.filled(card, values)
    except ValueError as error:
        who = f"{path}, the weights of {card['name']}, cannot be those of {learner.name}"
        raise ValueError(f"{who}: {error}") from error
    learner.start = values
    return learner
