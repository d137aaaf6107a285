"""Weights as files on this machine: looked for nearby first, then downloaded, whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.weights import HERE, File, Weights

if TYPE_CHECKING:
    from httpx2 import Client

HUB, FOLDER, SUFFIX = "hf-hub:", "local-dir:", ".safetensors"
TRIES = 6  # of one download, each going on where the last one ended
WAIT = 0.5  # seconds before the second try, then twice as long each time
SILENCE = 15.0  # seconds without a byte after which a connection is given up
BUSY = {408, 425, 429, 500, 502, 503, 504}  # what a server says when it may answer later

Told = Callable[[int], None]  # how many bytes of a file are here


class Torn(Exception):
    """A try that has not brought all. The next one goes on from there."""


class Other(Exception):
    """The server has a file of another length under that name."""


def fetch(weights: Weights, cache: Path, *, beside: Path = HERE) -> Path:
    """The file of these weights, its hash verified: out of the cache, from beside the manifest, or downloaded.

    It is downloaded from $ALZOO_WEIGHTS_URL, or from where the manifest says. Two processes may do so at once.
    Raises FileNotFoundError where it is neither here nor to be downloaded, ConnectionError where the server does not
    give it, ValueError where the bytes are not those of the manifest, OSError where the cache cannot be written.
    """
    if (path := find(weights, cache, beside=beside)) is not None:
        return path
    place = cache / weights.file
    with _alone(place):
        if not sound(place, weights):  # somebody may have been quicker
            for piece in weights.pieces:
                if not _lying(piece, cache, beside):
                    _download(piece, _address(weights, piece), cache)
            if weights.pieces:
                _join(weights, cache, beside)
            else:
                _download(weights, _address(weights, weights), cache)
    return place


def find(weights: Weights, cache: Path, *, beside: Path = HERE) -> Path | None:
    """The file of these weights if it is on this machine, its hash verified.

    Raises ValueError if what was shipped is damaged. What is damaged in the cache counts as not there.
    """
    if sound(cache / weights.file, weights):
        return cache / weights.file
    shipped = beside / weights.file
    if shipped.exists() and not sound(shipped, weights):
        raise ValueError(f"{shipped} is damaged: its sha256 is not {weights.sha256}. Install alzoo anew")
    return shipped if shipped.exists() else None


def sound(path: Path, file: File | Weights) -> bool:
    """Whether there is a file, and it is the one that is meant."""
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    with path.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest() == file.sha256


def locate(source: str, entry: str) -> Path:
    """The file meant by a path, by `local-dir:FOLDER`, or by `hf-hub:OWNER/NAME[@REVISION]`, which is downloaded.

    Of a folder or repository it is `model.safetensors`, or the only ENTRY.*.safetensors; `.../FILE` names another.
    Raises FileNotFoundError, and ConnectionError where the hub does not give it.
    """
    if source.startswith(HUB):
        return _of_hub(source.removeprefix(HUB), entry)
    if source.startswith(FOLDER):
        folder = Path(source.removeprefix(FOLDER)).expanduser()
        return folder if folder.suffix == SUFFIX else _only(folder, entry, source)
    return Path(source).expanduser()


def is_source(name: str) -> bool:
    """Whether this is a place, and not the tag of weights."""
    return name.startswith((HUB, FOLDER)) or name.endswith(SUFFIX)


def offline() -> bool:
    """Whether nothing may be downloaded: by ALZOO_OFFLINE or HF_HUB_OFFLINE, one of 1, on, yes, true."""
    words = (os.environ.get(name, "") for name in ("ALZOO_OFFLINE", "HF_HUB_OFFLINE"))
    return any(word.strip().lower() in ("1", "on", "yes", "true") for word in words)


def _address(weights: Weights, file: File | Weights) -> str:
    """Where a file is downloaded from. Raises FileNotFoundError if nowhere."""
    make = f"Or make it, in a clone of alzoo: python scripts/train_weights.py --name {weights.name}"
    if offline():
        raise FileNotFoundError(
            f"{file.file} ({weights.name}) is not on this machine, and it is offline: unset HF_HUB_OFFLINE and "
            f"ALZOO_OFFLINE to download it. {make}"
        )
    base = os.environ.get("ALZOO_WEIGHTS_URL") or weights.url
    if not base:
        raise FileNotFoundError(
            f"{file.file} ({weights.name}) is not on this machine, and nobody has said where it can be downloaded: "
            f"set ALZOO_WEIGHTS_URL to a folder that `python scripts/publish.py --static` made and a web server "
            f"serves. {make}"
        )
    return f"{base.rstrip('/')}/{file.file}"


def _download(file: File | Weights, url: str, cache: Path) -> None:
    """A file into the cache, under its name only once its hash is right."""
    place = cache / file.file
    partial = cache / f".{file.file}.{file.sha256[:12]}.partial"  # of these bytes and no others
    with _bar(file) as told:
        for _ in ("gone on with", "fresh"):
            try:
                _pull_until_whole(url, partial, file.bytes, told)
                if sound(partial, file):
                    os.replace(partial, place)
                    return
                why = f"their sha256 is not {file.sha256}"
            except Other as error:
                why = str(error)
            partial.unlink(missing_ok=True)
    raise ValueError(
        f"{url} gives other bytes than {file.file} has: {why}. Ask whoever serves it, or set ALZOO_WEIGHTS_URL to "
        "another place"
    )


def _pull_until_whole(url: str, partial: Path, size: int, told: Told) -> None:
    """Bytes into a partial file until it is as long as it should be. Raises ConnectionError if they stay away."""
    import httpx2
    from tenacity import (
        Retrying,
        retry_if_exception_type,
        retry_if_not_exception_type,
        stop_after_attempt,
        wait_exponential,
        wait_random,
    )

    hopeless = httpx2.UnsupportedProtocol, httpx2.InvalidURL
    again = Retrying(
        retry=retry_if_exception_type((Torn, httpx2.TransportError)) & retry_if_not_exception_type(hopeless),
        wait=wait_exponential(WAIT, max=20 * WAIT) + wait_random(0, WAIT),
        stop=stop_after_attempt(TRIES),
        reraise=True,
    )
    try:
        with _client() as client:
            again(_pull, client, url, partial, size, told)
    except hopeless as error:
        raise ConnectionError(
            f"{url} cannot be downloaded ({error}). Set ALZOO_WEIGHTS_URL to a place that begins with https:// or http://"
        ) from error
    except (Torn, httpx2.HTTPError) as error:
        raise ConnectionError(
            f"{url} cannot be downloaded ({str(error) or type(error).__name__}). Try again, which goes on from where "
            "this ended, or set ALZOO_WEIGHTS_URL to another place"
        ) from error


def _client() -> Client:
    """Who asks, through the proxies and with the certificates that the environment names."""
    import httpx2

    try:
        return httpx2.Client(timeout=SILENCE, follow_redirects=True)
    except (ImportError, ValueError, OSError) as error:
        raise ConnectionError(
            f"nothing can be downloaded here ({error}). Look at the environment variables ALL_PROXY, HTTPS_PROXY, "
            "HTTP_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from error


def _pull(client: Client, url: str, partial: Path, size: int, told: Told) -> None:
    """One try: ask for what is missing, and keep what comes. Raises Torn if that is not all, Other if it never will."""
    have = partial.stat().st_size if partial.exists() else 0
    if have >= size:
        return
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code in BUSY:
            raise Torn(f"the server answers {answer.status_code}")
        if answer.status_code == 416:  # it has no more than that: not the file that was begun
            partial.unlink()
            raise Torn("the server has less than was fetched before")
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0  # it knows no ranges, and begins anew
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            partial.unlink(missing_ok=True)
            raise Torn("the server goes on from elsewhere than it was asked to")
        if (told_size := answer.headers.get("Content-Length", "")).isdigit() and have + int(told_size) != size:
            raise Other(f"there are {have + int(told_size):,}, not {size:,}")
        with partial.open("ab" if have else "wb", buffering=0) as kept:  # of a killed process, too, all is kept
            for chunk in answer.iter_raw():
                kept.write(chunk[: size + 1 - have])
                have += len(chunk)
                told(min(have, size))
                if have > size:
                    return  # too much of it: the hash will not be right
    if have < size:
        raise Torn(f"it ended after {have:,} of {size:,} bytes")


def _join(weights: Weights, cache: Path, beside: Path) -> None:
    """The pieces of a file, joined; they are then taken out of the cache."""
    place = cache / weights.file
    partial = cache / f".{weights.file}.{weights.sha256[:12]}.partial"
    with partial.open("wb") as whole:
        for piece in weights.pieces:
            whole.write(_lying(piece, cache, beside)[0].read_bytes())
    if not sound(partial, weights):
        partial.unlink()
        raise ValueError(f"the pieces of {weights.name} are not its file: the manifest is wrong. Install alzoo anew")
    os.replace(partial, place)
    for piece in weights.pieces:
        (cache / piece.file).unlink(missing_ok=True)


def _lying(piece: File, *folders: Path) -> list[Path]:
    """Where a piece lies, whole."""
    return [folder / piece.file for folder in folders if sound(folder / piece.file, piece)]


def _of_hub(where: str, entry: str) -> Path:
    """A file of a repository on the Hugging Face hub, kept in the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    owner, _, rest = where.partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    source = f"{HUB}{where}"
    if not owner or not name:
        raise FileNotFoundError(f"pretrained={source!r} must be {HUB}OWNER/NAME, or {HUB}OWNER/NAME/FILE")
    wanted = [file] if file else ["model.safetensors", f"{entry}.*{SUFFIX}"]
    try:
        folder = snapshot_download(
            f"{owner}/{name}", revision=revision or None, allow_patterns=wanted, local_files_only=offline()
        )
    except HFValidationError as error:
        raise FileNotFoundError(f"pretrained={source!r} is no repository of the hub: {error}") from error
    except Exception as error:  # of whatever client the hub's library speaks with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = FileNotFoundError if offline() else ConnectionError
        raise kind(f"{source} cannot be had from the hub ({reason}). Give {FOLDER}FOLDER instead") from error
    return Path(folder) / file if file else _only(Path(folder), entry, source)


def _only(folder: Path, entry: str, source: str) -> Path:
    """The one file of a folder that is meant for an entry. Raises FileNotFoundError if there is none, or several."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} (pretrained={source!r})")
    if (model := folder / "model.safetensors").is_file():
        return model
    match sorted(folder.glob(f"{entry}.*{SUFFIX}")):
        case [only]:
            return only
        case []:
            raise FileNotFoundError(f"{source} has neither model.safetensors nor {entry}.TAG{SUFFIX}; name a file")
        case several:
            files = ", ".join(file.name for file in several)
            raise FileNotFoundError(f"{source} has {files}; name one, as {source}/{several[0].name}")


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Nobody else writes this file meanwhile. Raises OSError, naming ALZOO_HOME, where the cache cannot be written."""
    from filelock import FileLock

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place.parent, error) from error
    try:
        with FileLock(place.with_name(f".{place.name}.lock")):
            yield
    except (ConnectionError, FileNotFoundError):
        raise
    except OSError as error:
        raise _unwritable(place.parent, error) from error


def _unwritable(cache: Path, error: OSError) -> OSError:
    return OSError(
        error.errno or errno.EIO,
        f"cannot write the cache {cache}: {error.strerror or error}. "
        "Make room there, or set the environment variable ALZOO_HOME to a folder that can be written",
    )


@contextmanager
def _bar(file: File | Weights) -> Iterator[Told]:
    """A bar on the terminal while a file comes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(file.file, total=file.bytes)
        yield lambda have: progress.update(task, completed=have)
