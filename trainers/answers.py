"""What people know of the images of a folder: a CSV file of paths and labels."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from os import PathLike
from pathlib import Path, PurePosixPath
from unicodedata import category, normalize

from trainers.folder import checked, permitted

logger = logging.getLogger("alzoo")


@permitted()
def read_labels(
    path: str | PathLike[str], labels: str | PathLike[str], paths: Iterable[str], names: Collection[str] = ()
) -> dict[str, str]:
    """What a CSV file knows of the images of a folder: {path: label}, sorted by path.

    labels: a UTF-8 file with the header `path,label`, looked for inside the folder first, then as given. Other
        columns are allowed and not read; the order of rows does not matter; an image whose label is empty, or -1, is
        unlabeled, and not in the answer. Paths are relative to the folder, or absolute and below it; spaces around
        paths and labels do not count.
    paths: the images that count, see `Decoded.paths`.
    names: labels that are right as they are, whatever they look like.
    Raises FileNotFoundError naming the places looked at; ValueError for another header, rows that do not fit it,
    a path that is twice in the file or not among `paths`, a label that is nan, has control characters, or is a number
    that is written in another way elsewhere.
    """
    folder, given = checked(path), os.path.abspath(os.path.expanduser(path))
    places = list(dict.fromkeys(p.absolute() for p in (folder / labels, Path(os.path.expanduser(labels)))))
    file = next((p for p in places if p.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"no labels at {' nor at '.join(map(str, places))}; give a CSV file `path,label`")
    known, among, own = dict[str, str](), frozenset(paths), frozenset(names)
    written = dict[Decimal, str]()
    for line, field, label in _rows(file):
        name = _below(folder, given, field, among)
        if name in known:
            raise ValueError(f"{file}, line {line}: {name!r} is there twice; keep one of the rows")
        if name not in among:
            raise ValueError(f"{file}, line {line}: {name!r} {_strange(folder, name, among)}")
        if label not in own and (wrong := _wrong(label)):
            raise ValueError(f"{file}, line {line}: label {label!r} {wrong}")
        value = None if label in own else number(label)
        if value is not None and (other := written.setdefault(value, label)) != label:
            raise ValueError(f"{file}, line {line}: {label!r} and {other!r} are one number; write it in one way")
        known[name] = "" if value == -1 else label
    return {name: label for name, label in sorted(known.items()) if label}


def ordered(labels: Iterable[str]) -> list[str]:
    """The distinct labels, sorted; if all are numbers, by their size, with a warning where those are not 0, 1, ..."""
    names = sorted(set(labels))
    values = {name: value for name in names if (value := number(name)) is not None}
    if len(values) < len(names):
        return names
    names.sort(key=values.__getitem__)
    if [values[name] for name in names] != list(range(len(names))):
        logger.warning(
            "the labels are numbers, but not 0 to %d: an answer to reveal is a position among them, 0 for %r and so "
            "on. Say which classes there are, in order: names=[...]",
            len(names) - 1,
            names[0],
        )
    return names


def number(label: str) -> Decimal | None:
    """The number that a label is, exactly; None if it is none."""
    try:
        value = Decimal(label)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line, path, label) of each row of a CSV file."""
    line = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines, strict=True)
            rows.fieldnames = header = [name.strip() for name in rows.fieldnames or ()]
            if header.count("path") != 1 or header.count("label") != 1:
                raise ValueError(f"{file} begins with {','.join(header)!r}; its first line must be `path,label`")
            line = rows.line_num
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(
                        f'{file}, line {rows.line_num}: not as many fields as the header has; quote commas: "a,b"'
                    )
                yield rows.line_num, row["path"], row["label"].strip()
                line = rows.line_num
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f'{file}, from line {line + 1} on: {error}; is there a quote (") too many?') from error


def _wrong(label: str) -> str:
    """What is wrong with a label, if anything is."""
    if label.lower() == "nan":
        return "stands for a missing value; leave it empty where nobody can tell, or name the class in names=[...]"
    if any(category(letter) in ("Cc", "Zl", "Zp") for letter in label):
        return 'has line breaks or control characters; is there a quote (") too many?'
    return ""


def _below(folder: Path, given: str, field: str, among: Collection[str]) -> str:
    """A path of the file as the images have theirs, if it is below the folder: by its own name or by the `given`."""
    if field in among:
        return field
    name = field.strip()
    if os.path.isabs(name):
        for path, root in ((name, folder), (name, given), (os.path.realpath(name), folder)):
            if (whole := PurePosixPath(path)).is_relative_to(root):
                return whole.relative_to(root).as_posix()
    return PurePosixPath(name).as_posix()


def _strange(folder: Path, name: str, among: Collection[str]) -> str:
    """Why a path is none of the images."""
    if near := [path for path in sorted(among) if _alike(path, name)]:
        return f"is none of the images. Did you mean {min(near, key=lambda path: abs(len(path) - len(name)))!r}?"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return f"is not below {folder}; paths are relative to that folder, as cats/1.png"
    if (folder / name).is_file():
        return "is left out of the images: it cannot be read, is hidden or is no image. Mend it, or drop the row"
    return f"does not exist in {folder}; paths are relative to that folder"


def _alike(path: str, name: str) -> bool:
    """Whether two paths differ in their form or in the folders before them only."""
    one, other = ("/" + normalize("NFC", p).casefold().replace("\\", "/") for p in (path, name))
    return one.endswith(other) or other.endswith(one)
