"""What people know of the images of a folder: a CSV file of paths and labels."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path, PurePosixPath

from trainers.folder import checked


def read_labels(path: str | PathLike[str], labels: str | PathLike[str], paths: Iterable[str]) -> dict[str, str]:
    """What a CSV file knows of the images of a folder: {path: label}, sorted by path.

    labels: a UTF-8 file with the header `path,label`, looked for inside the folder first, then as given. Other
        columns are allowed and not read; the order of rows does not matter; an image whose label is empty is
        unlabeled, and not in the answer. Paths are relative to the folder; spaces around labels do not count.
    paths: the images that count, see `Decoded.paths`.
    Raises FileNotFoundError naming the places looked at; ValueError for another header, rows that do not fit it,
    a path that is twice in the file or not among `paths`.
    """
    folder = checked(path)
    places = list(dict.fromkeys(p.absolute() for p in (folder / labels, Path(labels).expanduser())))
    file = next((p for p in places if p.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"no labels at {' nor at '.join(map(str, places))}; give a CSV file `path,label`")
    known, among = dict[str, str](), frozenset(paths)
    for line, name, label in _rows(file):
        if name in known:
            raise ValueError(f"{file}, line {line}: {name!r} is there twice; keep one of the rows")
        if name not in among:
            raise ValueError(f"{file}, line {line}: {name!r} {_strange(folder, name)}")
        known[name] = label
    return {name: label for name, label in sorted(known.items()) if label}


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line, path, label) of each row of a CSV file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            rows.fieldnames = header = [name.strip() for name in rows.fieldnames or ()]
            if header.count("path") != 1 or header.count("label") != 1:
                raise ValueError(f"{file} begins with {','.join(header)!r}; its first line must be `path,label`")
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(
                        f'{file}, line {rows.line_num}: not as many fields as the header has; quote commas: "a,b"'
                    )
                yield rows.line_num, PurePosixPath(row["path"]).as_posix(), row["label"].strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{file} is not a CSV file: {error}") from error


def _strange(folder: Path, name: str) -> str:
    """Why a path is none of the images."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return f"is not below {folder}; paths are relative to that folder, as cats/1.png"
    if (folder / name).is_file():
        return "is left out of the images: it cannot be read, is hidden or is no image. Mend it, or drop the row"
    return f"does not exist in {folder}; paths are relative to that folder"
