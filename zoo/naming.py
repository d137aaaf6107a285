"""Things by name, and a helpful word for names that do not exist."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class UnknownName(LookupError):
    """No such learner, plan, data set or weights."""


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """`table[name]`, or UnknownName with the closest name there is."""
    if name in table:
        return table[name]
    raise UnknownName(f"no {what} is called {name!r}.{hint(name, table)}")


def hint(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...? There are: ...'"""
    known = list(known)
    close = "".join(f" Did you mean {match!r}?" for match in get_close_matches(name, known, 1))
    return f"{close} There are: {', '.join(known)}." if known else f"{close} There are none."
