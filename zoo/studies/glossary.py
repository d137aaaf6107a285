"""What the numbers of a learner's diagnosis mean, as the docstrings of the entries say."""

from __future__ import annotations

import re
from functools import cache

NAMES = r"(?:[a-z_]+, )*[a-z_]+: "
SAID = re.compile(rf"(?:^|[.;:] )({NAMES})(.+?)(?=[.;] {NAMES}|\.?$)")


@cache
def meanings(entry: str) -> dict[str, str]:
    """The numbers of an entry's `diagnose` with their meaning, where its docstring has it or one that it refers to."""
    from zoo import diagnosis
    from zoo.entries.llal import diagnose as of_ranker
    from zoo.register import entries

    own = entries()[entry].diagnose if entry in entries() else None
    found: dict[str, str] = {}
    for told in (own, of_ranker, diagnosis.latent) if own else ():
        for names, meaning in SAID.findall(" ".join((told.__doc__ or "").split())):
            for name in names.removesuffix(": ").split(", "):
                if not meaning.startswith("see "):
                    found.setdefault(name, meaning.partition(". The others: see")[0])
    return found
