"""Where alzoo keeps what it can make again, and how it gets there whole or not at all."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

STALE = 3600  # seconds without a write after which a draft belongs to nobody


def cache_dir() -> Path:
    """The folder of everything that can be made or fetched again: $ALZOO_HOME, or the user's cache folder."""
    if home := os.environ.get("ALZOO_HOME"):
        return Path(home).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("alzoo"))


@contextmanager
def making(place: Path, whole: Callable[[Path], bool]) -> Iterator[Path]:
    """A new folder to fill, which becomes `place` in one step if all goes well, and is removed if not.

    whole: says whether what lies at `place` is in order. If somebody else has put such a thing there
        meanwhile, theirs stays; anything else is replaced.
    Raises OSError (PermissionError, ... by its errno), naming ALZOO_HOME, where it cannot be written.
    """
    draft = place.parent / f".{place.name}-{uuid4().hex}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        draft.mkdir()
        yield draft
        if not whole(place):
            _discard(place)
            _move(draft, place)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the cache {place.parent}: {error.strerror or error}. "
            "Make room there, or set the environment variable ALZOO_HOME to a folder that can be written",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move(draft: Path, place: Path) -> None:
    """The one step. Whoever makes the same thing may be first: then theirs stays."""
    try:
        draft.rename(place)
    except OSError:
        if not place.exists():
            raise


def _discard(place: Path) -> None:
    """Takes away what lies at `place`, in one step too, so that nobody sees half of it."""
    aside = place.parent / f".{place.name}-{uuid4().hex}"
    try:
        place.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True) if aside.is_dir() else aside.unlink()


def _sweep(place: Path) -> None:
    """Removes the drafts of `place` that killed processes have left behind."""
    for draft in place.parent.glob(f".{place.name}-*"):
        try:
            last = max(p.stat().st_mtime for p in [draft, *draft.glob("*")])
        except FileNotFoundError:
            continue  # somebody is at work there
        if time.time() - last > STALE:
            shutil.rmtree(draft, ignore_errors=True)
