"""Check what a wheel holds: the three packages with their data files, the command, and nothing else.

usage: check_wheel.py WHEEL
"""

import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGES = {"zoo", "trainers", "checkpoints"}
ROOT = Path(__file__).parents[1]


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
            there = {name for name in names if name.startswith(f"{package}/")}
            assert here == there, f"{package}: {sorted(here ^ there)} differ between the tree and the wheel"
            assert f"{package}/py.typed" in there, f"{package} has no py.typed"
        commands = archive.read(f"{info}/entry_points.txt").decode()
        assert "alzoo = zoo.cli:main" in commands, f"the wheel has no alzoo command: {commands}"
    sys.stdout.write(f"{Path(wheel).name}: {len(names)} files\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
