"""Every learner by name."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import entry_points
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal

import torch

import checkpoints
from zoo.entries import ENTRIES
from zoo.entry import Entry, Preset
from zoo.learner import FORMAT, Learner
from zoo.naming import UnknownName, hint, pick
from zoo.queries import QUERIES
from zoo.query import Query

PRECISIONS = ("32-true", "bf16-mixed", "auto")


@cache
def entries() -> Mapping[str, Entry]:
    """The zoo's entries, then those of other packages (entry-point group `alzoo.entries`)."""
    return {**ENTRIES, **{e.name: e for point in entry_points(group="alzoo.entries") for e in [point.load()]}}


@cache
def queries() -> Mapping[str, Query]:
    """The zoo's queries, then those of other packages (entry-point group `alzoo.queries`)."""
    return {**QUERIES, **{q.name: q for point in entry_points(group="alzoo.queries") for q in [point.load()]}}


def names(kind: Literal["entries", "queries"] | None = None) -> list[str]:
    """What `create` makes: all names, or those of one kind, sorted."""
    kinds: dict[str, Mapping[str, object]] = {"entries": entries(), "queries": queries()}
    if kind is None:
        return sorted({**entries(), **queries()})
    return sorted(pick(kinds, kind, "kind of names"))


def create(
    name: str | Entry | Query,
    *,
    plan: str = "ours",
    query: str | Query | None = None,
    query_settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    pretrained: str | None = None,
    freeze: str | tuple[str, ...] = (),
    **settings: Any,
) -> Learner:
    """A learner by name.

    name: an entry ("vaal"), a query on plain training ("margin"), both ("vaal+margin"), or an Entry or Query object.
    plan: "ours", or "paper" or "released" where the entry has them; `settings` replace its fields one by one: those
        of the loop's Plan, those of the networks (arguments of the entry's `build`), and `augment`.
    query: another way to ask. query_settings: the arguments of its `ask`.
    device: "auto", "cpu", "cuda" or "cuda:1". precision: "32-true", "bf16-mixed", or "auto" by what the device can do.
    pretrained: the tag of weights (`zoo.weights` lists them), or a file; the learner counts as fitted.
    freeze: parts that keep their weights, as ("trunk",).
    Raises UnknownName, TypeError for a setting that does not exist, ValueError for a value that makes no sense.
    """
    called, entry, asking = find(name, query)
    if plan in entry.missing and plan not in entry.plans:
        raise UnknownName(f"{called} has no plan {plan!r}: {entry.missing[plan]}. It has: {', '.join(entry.plans)}.")
    preset = pick(entry.plans, plan, f"plan of {called}")
    loop, nets, augment = resolve(called, entry, preset, settings)
    if strange := (query_settings or {}).keys() - asking.settings.keys():
        wrong = min(strange)
        raise TypeError(f"the query {asking.name!r} has no setting {wrong!r}.{hint(wrong, asking.settings)}")
    learner = Learner(
        name=called,
        entry=entry,
        query=asking,
        plan=plan,
        loop=loop,
        nets=nets,
        augment=augment,
        query_settings=dict(query_settings or {}),
        seed=seed,
        device=resolve_device(device),
        precision=resolve_precision(precision, resolve_device(device)),
        freeze=(freeze,) if isinstance(freeze, str) else tuple(freeze),
    )
    return learner if pretrained is None else _pretrained(learner, pretrained, settings)


def find(name: str | Entry | Query, query: str | Query | None = None) -> tuple[str, Entry, Query]:
    """What a name stands for: what to call it, its entry, and its query."""
    if isinstance(name, str) and "+" in name:
        if query is not None:
            raise ValueError(f"{name!r} names a query already; leave out query={query!r}")
        name, query = name.split("+", 1)
    table: dict[str, Entry | Query] = {**queries(), **entries()}
    what = pick(table, name, "learner") if isinstance(name, str) else name
    if isinstance(what, Query):
        if query is not None:
            raise ValueError(f"{what.name!r} is a query itself; for another one on plain training, create that one")
        return what.name, entries()["plain"], what
    if query is None:
        return what.name, what, what.query
    asking = pick(queries(), query, "query") if isinstance(query, str) else query
    return f"{what.name}+{asking.name}", what, asking


def resolve(called: str, entry: Entry, preset: Preset, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any], str]:
    """The preset's plan, network options and augmentation, with the settings in their place."""
    from trainers.augment import AUGMENTS

    loop = {f.name: getattr(preset.loop, f.name) for f in fields(preset.loop)}
    arguments = signature(entry.build).parameters.values()
    nets = {p.name: p.default for p in arguments if p.kind is Parameter.KEYWORD_ONLY} | dict(preset.nets)
    known = {**loop, **nets, "augment": preset.augment}
    for name, value in settings.items():
        if name not in known:
            raise TypeError(f"{called} has no setting {name!r}.{hint(name, known)}")
        check(name, value, like=known[name])
    for name in settings.keys() & nets.keys():
        if isinstance(settings[name], int) and settings[name] < 1:
            raise ValueError(f"{name}={settings[name]} must be at least 1")
    augment = str(settings.get("augment", preset.augment))
    if augment not in AUGMENTS:
        raise ValueError(f"augment={augment!r} must be one of {', '.join(AUGMENTS)}")
    plan = replace(preset.loop, **{k: v for k, v in settings.items() if k in loop})
    return plan, nets | {k: v for k, v in settings.items() if k in nets}, augment


def check(name: str, value: object, like: object) -> None:
    """Refuse a value of another kind than the default's. Whole numbers do for floats."""
    kinds = (int, float) if isinstance(like, float) else (type(like),)
    if like is not None and (not isinstance(value, kinds) or isinstance(value, bool) != isinstance(like, bool)):
        raise ValueError(f"{name}={value!r} must be of type {type(like).__name__}, as its default {like!r}")


def resolve_device(device: str) -> str:
    """The device meant by a name. Raises ValueError where there is none such."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"device={device!r} must be auto, cpu, cuda or cuda:NUMBER")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={device!r}, but this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """What "auto" means: bf16-mixed where the device multiplies bf16 natively, else 32-true. Nothing is timed."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Learner:
    """A fitted learner from a file that `save` wrote. No code of the file is run.

    Raises FileNotFoundError, and ValueError for a file that is torn, not alzoo's or of a newer format.
    """
    card, weights = checkpoints.read(path)
    if card["format"] > FORMAT:
        raise ValueError(f"{path} is of format {card['format']}, newer than this alzoo reads ({FORMAT}). Upgrade alzoo")
    learner = create(
        card["name"],
        plan=card["plan"],
        query_settings=card["query_settings"],
        seed=card["seed"],
        device=device,
        precision=card["precision"],
        freeze=tuple(card["freeze"]),
        augment=card["augment"],
        **card["settings"],
    )
    return learner.filled(card, weights)


def weights(pattern: str = "*") -> list[checkpoints.Weights]:
    """The sets of weights there are, by shell pattern of their `entry.tag` names: "vaal.*"."""
    return [weights for weights in checkpoints.table() if fnmatchcase(weights.name, pattern)]


def _pretrained(learner: Learner, pretrained: str, settings: Mapping[str, Any]) -> Learner:
    """The learner with the networks of a tag or a file: fitted already, and `fit` starts from them."""
    if pretrained.endswith(".safetensors"):
        path = Path(pretrained)
    else:
        base = learner.entry.name
        path = checkpoints.fetch(pick({w.name: w for w in weights()}, f"{base}.{pretrained}", "set of weights"))
    card, values = checkpoints.read(path)
    nets = {name: card["settings"].get(name, value) for name, value in learner.nets.items()}
    if other := [name for name in settings if name in nets and nets[name] != settings[name]]:
        raise ValueError(
            f"{other[0]}={settings[other[0]]!r}, but the networks of {pretrained!r} have {nets[other[0]]!r}; "
            f"leave it out, or train anew without pretrained"
        )
    return replace(learner, nets=nets, start=values).filled(card, values)
