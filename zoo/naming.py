"""Things by name, and a helpful word where there is none."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class UnknownName(LookupError):
    """No such learner, plan, data set or weights."""


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """`table[name]`, or UnknownName with the closest name there is."""
    if isinstance(name, str) and name in table:
        return table[name]
    raise UnknownName(f"no {what} is called {name!r}.{hint(name, table)}")


def hint(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...? There are: ...', whatever the case of letters."""
    lower = {other.lower(): other for other in sorted(known)}
    close = "".join(f" Did you mean {lower[match]!r}?" for match in get_close_matches(str(name).lower(), lower, 1))
    return f"{close} There are: {', '.join(lower.values())}." if lower else f"{close} There are none."
