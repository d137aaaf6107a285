"""Every entry and query by name: those of the zoo, and those of other packages."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from zoo.entries import ENTRIES
from zoo.entry import Entry
from zoo.naming import pick
from zoo.queries import QUERIES
from zoo.query import SHUFFLED, Query, shuffled


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


def known(name: str) -> Entry | Query | None:
    """The entry or query of that name, if there is one."""
    return entries().get(name) or queries().get(name)


def find(name: str | Entry | Query, query: str | Query | None = None) -> tuple[str, Entry, Query]:
    """What a name stands for: what to call it, its entry, and its query."""
    if isinstance(name, str) and name.endswith(SHUFFLED):
        return _shuffled(*find(name.removesuffix(SHUFFLED), query))
    if isinstance(query, str) and query.endswith(SHUFFLED):
        return _shuffled(*find(name, query.removesuffix(SHUFFLED)))
    if isinstance(name, str) and "+" in name:
        if query is not None:
            raise ValueError(f"{name!r} names a query already; leave out query={query!r}")
        name, query = name.split("+", 1)
    table: dict[str, Entry | Query] = {**queries(), **entries()}
    if name == "plain" and isinstance(query, str) and query.partition("+")[0] in entries():
        called, itself, asks = find(query)
        return f"plain+{called}", itself, asks
    what = pick(table, name, "learner") if isinstance(name, str) else name
    asking = pick(queries(), query, "query") if isinstance(query, str) else query
    if not isinstance(what, Entry | Query) or not isinstance(asking, Query | None):
        raise TypeError(f"a learner is a name, an Entry or a Query, and so is its query: not {what!r} and {asking!r}")
    if isinstance(what, Query):
        if asking is not None:
            raise ValueError(f"{what.name!r} is a query itself; for another one on plain training, create that one")
        return what.name, entries()["plain"], what
    if asking is None:
        return what.name, what, what.query
    return f"{what.name}+{asking.name}", what, asking


def _shuffled(called: str, entry: Entry, query: Query) -> tuple[str, Entry, Query]:
    return f"{called}{SHUFFLED}", entry, shuffled(query)


def affordable(query: Query, u: int, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for more unlabeled images than a query that compares all pairs takes: its setting `largest`."""
    largest = {**query.settings, **settings}.get("largest", u)
    if u > largest:
        others = ", ".join(other.name for other in queries().values() if "largest" not in other.settings)
        raise ValueError(
            f"the query {query.name!r} compares all pairs of images, and {u:,} unlabeled ones are more than its "
            f"largest={largest:,}: time grows with the square. Linear in the pool are {others}. "
            f"To let it run all the same: query_settings={{'largest': {u}}}"
        )
