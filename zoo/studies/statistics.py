"""Whether a difference between learners is more than chance, and how large it is.

Accuracies and areas lie in [0, 1]; differences are paired, seed by seed, over the seeds both learners have complete.
What counts as equal is a margin fixed beforehand, never a test that found nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from zoo.studies.measures import BASELINES, Interval, Record, aubc, complete, mean_interval

MARGIN = 0.003  # differences of AUBC within it are called equal: 0.3 points
ALPHA = 0.05

Runs = Mapping[str, Mapping[int, Sequence[Record]]]  # learner -> seed -> records of all rounds
Verdict = Literal["better", "equal", "worse", "undecided"]


@dataclass(frozen=True)
class Difference:
    """A learner's AUBC less another's: mean with Student's interval, and the same by resampling the seeds.

    p: of the paired t test, two-sided. adjusted: the same after Holm, over all learners compared here. For one seed
    there are no bounds and no p.
    """

    learner: str
    against: str
    seeds: int
    t: Interval
    bootstrap: Interval
    p: float | None
    adjusted: float | None
    verdict: Verdict


@dataclass(frozen=True)
class SignedRanks:
    """Wilcoxon's signed-rank test of a learner's AUBC against random's, over pairs of (data set, seed).

    median: of the differences. p: two-sided, exact for few pairs; None where fewer than two differ. adjusted: after
    Holm, over all learners tested here.
    """

    learner: str
    pairs: int
    median: float
    p: float | None
    adjusted: float | None


@dataclass(frozen=True)
class Floor:
    """Accuracies of one learner at round 0, before anybody has asked: their standard deviation over seeds, and ends."""

    learner: str
    deviation: float
    least: float
    most: float


@dataclass(frozen=True)
class Target:
    """How many labels a learner needs for an accuracy, on the mean curve over seeds, made non-decreasing.

    labels: None where the curve ends below it: more than `most`. saving: the share of random's labels saved; None
    where either is not reached.
    """

    learner: str
    accuracy: float
    labels: float | None
    most: float
    saving: float | None


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over data sets and seeds, 1 is best. Two learners differ where their ranks are `critical` apart.

    p: of Friedman's test that all are alike; 1 where all are tied everywhere. critical: Nemenyi's difference at 5 %.
    blocks: data sets x seeds.
    """

    ranks: dict[str, float]
    critical: float
    p: float
    blocks: int


def area(run: Sequence[Record], *, log: bool = False) -> float:
    """AUBC of one seed: over the labels, or over their logarithm, which counts early labels for more."""
    labels = [math.log2(r.labels) if log else float(r.labels) for r in run]
    return aubc(labels, [r.accuracy for r in run])


def differences(records: Sequence[Record], against: str | None = None, margin: float = MARGIN) -> list[Difference]:
    """Every learner's AUBC less that of `against`, by default random's. Empty where that one has no complete seed."""
    runs = complete(records)
    base = next((name for name in BASELINES if name in runs), None) if against is None else against
    if base is None or not runs.get(base):
        return []
    areas = {learner: {seed: area(run) for seed, run in by.items()} for learner, by in runs.items()}
    found = []
    for learner, own in areas.items():
        gains = [own[seed] - areas[base][seed] for seed in own if seed in areas[base]]
        if learner != base and gains:
            found.append((learner, gains, p_value(gains)))
    adjusted = holm([p for _, _, p in found])
    compared = []
    for (learner, gains, p), q in zip(found, adjusted, strict=True):
        t = mean_interval(gains)
        compared.append(Difference(learner, base, len(gains), t, resampled(gains), p, q, verdict(t, margin)))
    return compared


def verdict(interval: Interval, margin: float = MARGIN) -> Verdict:
    """What an interval of differences says: equal where it lies within the margin, better or worse off zero."""
    _, low, high = interval
    if low is None or high is None:
        return "undecided"
    if -margin <= low and high <= margin:
        return "equal"
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def p_value(gains: Sequence[float]) -> float | None:
    """Of the paired t test that the mean is zero, two-sided; None for one value."""
    from scipy.stats import t

    if len(gains) < 2:
        return None
    mean, deviation = float(np.mean(gains)), float(np.std(gains, ddof=1))
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean) / (deviation / math.sqrt(len(gains))), len(gains) - 1))


def resampled(values: Sequence[float], level: float = 0.95, draws: int = 10_000) -> Interval:
    """Mean and the percentile interval over bootstrap draws of the seeds; always the same for the same values."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None, None
    chance = np.random.default_rng(0)
    means = chance.choice(np.asarray(values), (draws, len(values))).mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979): below alpha means significant among all of them."""
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    least = 0.0
    for place, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - place) * p))
        adjusted[i] = least
    return adjusted


def wilcoxon(gains: Sequence[float]) -> float | None:
    """Of Wilcoxon's signed-rank test over data sets and seeds, two-sided. Differences of zero are left out, as he did.

    None where fewer than two are left.
    """
    from scipy import stats

    apart = [gain for gain in gains if gain != 0]
    return float(stats.wilcoxon(apart).pvalue) if len(apart) > 1 else None


def signed_ranks(studies: Sequence[Sequence[Record]]) -> list[SignedRanks]:
    """Every learner against random, over all data sets and seeds that both have complete, in order of appearance."""
    gains: dict[str, list[float]] = {}
    for records in studies:
        runs = complete(records)
        base = next((runs[name] for name in BASELINES if runs.get(name)), {})
        for learner, by in runs.items():
            if learner not in BASELINES:
                paired = [round(area(by[seed]) - area(base[seed]), 12) for seed in by if seed in base]
                gains.setdefault(learner, []).extend(paired)
    tested = {learner: own for learner, own in gains.items() if own}
    ps = [wilcoxon(own) for own in tested.values()]
    return [
        SignedRanks(learner, len(own), float(np.median(own)), p, adjusted)
        for (learner, own), p, adjusted in zip(tested.items(), ps, holm(ps), strict=True)
    ]


def targets(records: Sequence[Record], accuracy: float | None = None) -> list[Target]:
    """Labels to an accuracy, by default the one that random ends with."""
    from sklearn.isotonic import IsotonicRegression

    runs = {learner: by for learner, by in complete(records).items() if by}
    base = next((name for name in BASELINES if name in runs), None)
    curves = {}
    for learner, by in runs.items():
        labels = np.mean([[r.labels for r in run] for run in by.values()], 0)
        means = np.mean([[r.accuracy for r in run] for run in by.values()], 0)
        curves[learner] = labels, IsotonicRegression().fit_transform(labels, means)
    if accuracy is None and base is None:
        return []
    goal = float(curves[base][1][-1]) if accuracy is None and base is not None else float(accuracy or 0)
    needed = {learner: reach(*curve, goal) for learner, curve in curves.items()}
    random = needed.get(base) if base is not None else None
    return [
        Target(
            learner,
            goal,
            labels,
            float(curves[learner][0][-1]),
            None if labels is None or random is None else 1 - labels / random,
        )
        for learner, labels in needed.items()
    ]


def reach(labels: Sequence[float], accuracy: Sequence[float], goal: float) -> float | None:
    """The labels at which a curve that never falls first comes to the goal, on straight lines; None if it does not."""
    if accuracy[0] >= goal - 1e-12:
        return float(labels[0])
    for (x0, x1), (y0, y1) in zip(pairwise(labels), pairwise(accuracy), strict=True):
        if y1 >= goal - 1e-12:
            return float(x0 + (x1 - x0) * (goal - y0) / (y1 - y0))
    return None


def penalties(records: Sequence[Record], alpha: float = ALPHA) -> dict[str, dict[str, float]]:
    """The pairwise penalty matrix: in what share of the checkpoints the row beats the column significantly.

    Ash et al., ICLR 2020, https://arxiv.org/abs/1906.03671. Checkpoints are the rounds 1, 2, 4, 8, ... until random has
    99 % of its final accuracy (all of these rounds where there is no random, and the first in any case); a paired t
    test over seeds decides. Of a column, a low mean is good: few beat it.
    """
    runs = {learner: by for learner, by in complete(records).items() if by}
    base = next((name for name in BASELINES if name in runs), None)
    last = max((len(run) for by in runs.values() for run in by.values()), default=0) - 1
    rounds = [2**k for k in range(32) if 2**k <= last]
    if base is not None:
        random = np.mean([[r.accuracy for r in run] for run in runs[base].values()], 0)
        there = next(number for number in range(last + 1) if random[number] >= 0.99 * random[-1])
        rounds = [number for number in rounds if number <= there] or rounds[:1]
    matrix = {a: dict.fromkeys(runs, 0.0) for a in runs}
    for a, b in combinations(runs, 2):
        seeds = [seed for seed in runs[a] if seed in runs[b]]
        for number in rounds:
            gains = [runs[a][seed][number].accuracy - runs[b][seed][number].accuracy for seed in seeds]
            p = p_value(gains) if gains else None
            if p is not None and p < alpha:
                first, second = (a, b) if math.fsum(gains) > 0 else (b, a)
                matrix[first][second] += 1 / len(rounds)
    return matrix


def ranking(studies: Sequence[Sequence[Record]], measure: Callable[[Sequence[Record]], float] = area) -> Ranking | None:
    """Ranks of the learners that every data set has, over all data sets and seeds; None for fewer than three.

    Demsar, JMLR 2006: Friedman's test, then Nemenyi's critical difference.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    each = [complete(records) for records in studies]
    learners = shared(studies)
    blocks = [
        [round(measure(runs[name][seed]), 12) for name in learners]  # the last bit of a sum is no difference
        for runs in each
        for seed in (sorted(set.intersection(*(set(runs[name]) for name in learners))) if learners else [])
    ]
    k, n = len(learners), len(blocks)
    if k < 3 or n < 2:
        return None
    ranks = np.mean([rankdata([-value for value in block]) for block in blocks], 0)
    critical = float(studentized_range.ppf(1 - ALPHA, k, np.inf)) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    tied = all(len({*block}) == 1 for block in blocks)
    p = 1.0 if tied else float(friedmanchisquare(*zip(*blocks, strict=True)).pvalue)
    return Ranking(dict(zip(learners, map(float, ranks), strict=True)), critical, p, n)


def shared(studies: Sequence[Sequence[Record]]) -> list[str]:
    """The learners that have a complete seed in every study, in the order of the first."""
    each = [complete(records) for records in studies]
    return [name for name in (each[0] if each else {}) if all(runs.get(name) for runs in each)]


def floor(records: Sequence[Record]) -> Floor | None:
    """How much accuracy differs from seed to seed for random, else for the first learner that has several seeds."""
    first: dict[str, list[float]] = {}
    for record in records:
        if record.round == 0:
            first.setdefault(record.learner, []).append(record.accuracy)
    several = {learner: values for learner, values in first.items() if len(values) > 1}
    name = next((name for name in (*BASELINES, *several) if name in several), None)
    if name is None:
        return None
    return Floor(name, float(np.std(several[name], ddof=1)), min(several[name]), max(several[name]))


def overlap(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    """How alike two learners ask: shared over all images asked (Jaccard), mean over seeds, the initial set left out."""
    asked = {
        learner: {seed: {i for r in run if r.round > 0 for i in r.asked} for seed, run in by.items()}
        for learner, by in complete(records).items()
    }
    found = {}
    for a, b in combinations(asked, 2):
        shares = [
            len(asked[a][seed] & asked[b][seed]) / max(1, len(asked[a][seed] | asked[b][seed]))
            for seed in asked[a]
            if seed in asked[b]
        ]
        if shares:
            found[a, b] = math.fsum(shares) / len(shares)
    return found
