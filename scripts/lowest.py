"""Print the lowest version of everything that pyproject.toml admits, for pip to install and the tests to pass with.

usage: python scripts/lowest.py > lowest.txt && pip install -r lowest.txt -e . && pytest
"""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for line in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        (name, version) = re.findall(r"^([\w-]+)>=([\d.]+)", line)[0]
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
