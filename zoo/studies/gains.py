"""What a learner's gain over random questions comes from: its training, or its questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zoo.studies.measures import BASELINES, Interval, Record, aubc, complete, mean_interval

Measure = Callable[[Sequence[Record]], float]  # the records of one seed -> one number


@dataclass(frozen=True)
class Split:
    """The gain of a learner over random questions and plain training, and its two parts, seed by seed.

    gain: LEARNER - random. training: ENTRY+random - random, its training with random questions. questions: LEARNER -
    ENTRY+random; training and questions add up to the gain. elsewhere: plain+LEARNER - random, what its questions are
    worth to a network that is trained plainly. None: what it takes was not run.
    own: whether it has a training of its own. If not, and its first network is random's bit by bit, training gains
    nothing, which was not measured; and if that network is another one (dropout, say), LEARNER~shuffled stands for
    ENTRY+random. seeds: those that the learner, random and its controls have all complete.
    """

    learner: str
    own: bool
    seeds: int
    gain: Interval
    training: Interval | None
    questions: Interval | None
    elsewhere: Interval | None


def controls(records: Iterable[Record]) -> set[str]:
    """Who is there as the control of another."""
    return {control for record in records for control in record.controls}


def gain_split(records: Sequence[Record], rounds: int | None = None, of: Measure | None = None) -> list[Split]:
    """One line for each learner that is neither random nor there as a control, in the order of the records.

    of: what is gained, by default AUBC. A learner without a seed to compare is left out, all are where random has none.
    """
    runs = {name: by for name, by in complete(records, rounds).items() if by}
    base = next((name for name in BASELINES if name in runs), None)
    firsts = {name: next(iter(by.values()))[0] for name, by in runs.items()}
    beside = controls(firsts.values())
    value = {name: {seed: (of or area)(run) for seed, run in by.items()} for name, by in runs.items()}
    found = []
    for name, first in firsts.items():
        if base is None or name in BASELINES or name in beside or first.query == "random" or name.endswith("~shuffled"):
            continue
        firsts_of = [
            (by[0].network, runs[base][seed][0].network) for seed, by in runs[name].items() if seed in runs[base]
        ]
        alike = all(own is not None and own == its for own, its in firsts_of)
        trained, asked = first.controls or ((base, name) if alike else (f"{name}~shuffled", ""))
        others = [other for other in (base, trained, asked) if other in runs]
        if not (seeds := [seed for seed in value[name] if all(seed in value[other] for other in others)]):
            continue

        def less(one: str, other: str, seeds: Sequence[int] = seeds) -> Interval | None:
            if one not in runs or other not in runs:
                return None
            return mean_interval([value[one][seed] - value[other][seed] for seed in seeds])

        gain = mean_interval([value[name][seed] - value[base][seed] for seed in seeds])
        parts = less(trained, base), less(name, trained), less(asked, base)
        found.append(Split(name, bool(first.controls), len(seeds), gain, *parts))
    return found


def area(run: Sequence[Record]) -> float:
    """AUBC of one seed."""
    return aubc([record.labels for record in run], [record.accuracy for record in run])
