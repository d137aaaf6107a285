"""Numbers that are whole, from whatever library."""

from operator import index
from typing import Any


def whole(name: str, value: Any) -> int:
    """A whole number, from whatever library. Raises ValueError for anything else, truth values included."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r} must be a whole number") from None
