"""Check what a wheel holds: the three packages with their data files, the command, and nothing else.

Weights that pyproject.toml leaves out may not be there; those that it ships are whole, and under 8 MB together.

usage: check_wheel.py WHEEL
"""

import sys
import tomllib
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

PACKAGES = {"zoo", "trainers", "checkpoints"}
ROOT = Path(__file__).parents[1]
SHIPPED = 8_000_000  # bytes of weights
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]


def main(wheel: str) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        tops = {name.split("/")[0] for name in names}
        (info,) = (top for top in tops if top.endswith(".dist-info"))
        assert tops == PACKAGES | {info}, f"the wheel holds {sorted(tops)}"
        for package in PACKAGES:
            here = {
                str(file.relative_to(ROOT))
                for file in (ROOT / package).rglob("*")
                if file.is_file() and "__pycache__" not in file.parts
            }
            here -= {file for file in here if any(fnmatch(file, pattern) for pattern in BUILD["exclude"])}
            there = {name for name in names if name.startswith(f"{package}/")}
            assert here == there, f"{package}: {sorted(here ^ there)} differ between the tree and the wheel"
            assert f"{package}/py.typed" in there, f"{package} has no py.typed"
        commands = archive.read(f"{info}/entry_points.txt").decode()
        assert "alzoo = zoo.cli:main" in commands, f"the wheel has no alzoo command: {commands}"
        weights = {name.split("/")[1]: archive.read(name) for name in names if name.endswith(".safetensors")}
        for entry, tags in tomllib.loads(archive.read("checkpoints/manifest.toml").decode()).items():
            if (row := tags.get("digits")) is not None:
                found = sha256(weights.get(row["file"], b"")).hexdigest()
                assert found == row["sha256"], f"{entry}.digits: {row['file']} is missing, or not that of the manifest"
        size = sum(map(len, weights.values()))
        assert size < SHIPPED, f"the weights are {size:,} bytes together, more than {SHIPPED:,}"
    sys.stdout.write(f"{Path(wheel).name}: {len(names)} files\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
