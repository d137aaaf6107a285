"""Figures as rows: for the terminal, and for the README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo.bench import Figure, Growth

FIGURES = ("work", "form", "seconds", "MiB", "times ours", "required", "")
GROWTH = ("query", "time", "10^4", "10^5", "10^6", "exponent", "MiB", "")


def figures(found: Iterable[Figure]) -> list[Sequence[str]]:
    """A row for each form, with its range in brackets; the work is named in the first row only."""
    rows: list[Sequence[str]] = []
    last = ""
    for figure in found:
        work = f"{figure.case}: {figure.work}" + f", {figure.threads} threads" * (figure.threads > 1)
        required = [f"{short(figure.required)} times"] if figure.required is not None else []
        required += [f"{short(figure.within)} MiB"] if figure.within is not None else []
        rows.append(
            (
                "" if work == last else work,
                figure.form,
                ranged(figure.seconds, figure.least, figure.most),
                short(figure.mib),
                "" if figure.ratio is None else ranged(*figure.ratio),
                ", ".join(required),
                "missed" if figure.missed else "",
            )
        )
        last = work
    return rows


def growth(found: Iterable[Growth]) -> list[Sequence[str]]:
    """A row for each query: seconds at each size, and why one is missing."""
    return [
        (
            each.query,
            each.cost,
            *(short(each.seconds[str(u)]) if str(u) in each.seconds else "" for u in (10_000, 100_000, 1_000_000)),
            "" if each.exponent is None else f"{each.exponent:.2f}",
            short(each.mib),
            each.note,
        )
        for each in found
    ]


def ranged(middle: float, least: float, most: float) -> str:
    """A median, and what it lies between."""
    return short(middle) if least == most else f"{short(middle)} ({short(least)} - {short(most)})"


def short(value: float) -> str:
    """Two or three digits, without a power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.3g}"
