"""The house has floors: an import may only go down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# who may import whom, the longest matching place first: places inside zoo are floors of their own
MAY = {
    "trainers": {"trainers"},
    "checkpoints": {"checkpoints"},
    "zoo/nets": {"zoo.nets"},
    "zoo/queries": {"zoo.queries", "zoo.query", "zoo.scan", "zoo.nets", "trainers.bounds", "trainers.graph"},
    "zoo/entries": {"zoo", "trainers"},
    "zoo/studies": {"zoo", "trainers", "checkpoints"},
    "zoo": {"zoo", "trainers", "checkpoints"},
}
SHARED = {
    "answers",
    "augment",
    "bounds",
    "captured",
    "compiled",
    "copies",
    "folder",
    "cache",
    "graph",
    "image",
    "llal",
    "losses",
    "notes",
    "numbers",
    "passes",
    "players",
    "pool",
    "ranks",
    "run",
    "seeds",
    "supervised",
}
FILES = [file for top in ("zoo", "trainers", "checkpoints") for file in sorted((ROOT / top).rglob("*.py"))]


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file):
    place = str(file.relative_to(ROOT).parent)
    allowed = MAY[next(floor for floor in sorted(MAY, key=len, reverse=True) if place.startswith(floor))]
    for name in imports(file):
        if name.split(".")[0] in ("zoo", "trainers", "checkpoints"):
            assert any(name == a or name.startswith(f"{a}.") for a in allowed), f"{file.name} imports {name}"


@pytest.mark.parametrize("file", sorted((ROOT / "trainers").glob("*.py")), ids=lambda file: file.name)
def test_loops_do_not_import_one_another(file):
    for name in imports(file):
        if name.startswith("trainers."):
            assert name.split(".")[1] in SHARED, f"{file.name} imports {name}"


@pytest.mark.parametrize("file", sorted((ROOT / "zoo").glob("*.py")), ids=lambda file: file.name)
def test_only_the_command_line_knows_of_studies(file):
    if file.name not in ("cli.py", "campaign.py"):
        assert not [name for name in imports(file) if name.startswith("zoo.studies")]


def brought_in_by(code):
    out = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    return {name.split(".")[0] for name in out.stdout.split()}


def test_importing_zoo_waits_for_nothing_heavy():
    assert not brought_in_by("import zoo, zoo.cli") & {"torch", "lightning", "timm", "matplotlib", "sklearn", "scipy"}


def test_creating_a_learner_waits_for_torch_alone():
    heavy = {"lightning", "timm", "matplotlib", "sklearn", "scipy", "tensorboard"}
    assert not brought_in_by("import zoo; zoo.create('vaal'); zoo.names()") & heavy
