"""The README says what is so: its code runs, its commands exist, and it ends as it says."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from zoo.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_the_first_five_lines_do_what_they_say(capsys):
    exec(CODE[0], {})
    (said,) = re.findall(r"print\(pool\)  # (.*)", CODE[0])
    assert capsys.readouterr().out.strip() == said


def test_ones_own_images_work_as_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    chance = torch.Generator().manual_seed(0)
    Path("photos").mkdir()
    for i in range(30):
        pixels = torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8, generator=chance).numpy()
        Image.fromarray(pixels).save(f"photos/{i:02}.png")
    Path("photos/labels.csv").write_text("path,label\n" + "".join(f"{i:02}.png,{'ab'[i % 2]}\n" for i in range(6)))
    shown, quick = 'create("vaal", trunk="resnet18")', 'create("vaal", width=4, steps=2, game_steps=2, batch=4)'
    assert shown in CODE[1]
    space = {"zoo": zoo, "answers": [0, 1, -1] + 17 * [1]}
    exec(CODE[1].replace(shown, quick), space)
    assert len(space["pool"].labeled) == 6 + 19
    assert space["pool"].shape == (3, 64, 64)


@pytest.mark.parametrize("line", [line for line in SHELL if "alzoo " in line])
def test_every_option_shown_exists(line):
    words = shlex.split(line.partition("#")[0].rpartition("alzoo ")[2])
    command = app.commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_each_of_the_two_commands_does_all_of_its_set_up_in_one_line():
    (main,) = [line for line in SHELL if line.endswith("alzoo compare digits")]
    (tests,) = [line for line in SHELL if line.endswith("pytest")]
    for line in (main, tests):
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert "'.[test]'" in tests
    assert (ROOT / "CONTRIBUTING.md").read_text().count(tests) == 1


def test_the_tables_list_what_is_in_the_zoo():
    rows = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert rows == set(zoo.names())


def test_what_the_page_says_of_contributing_a_query_works():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (lines,) = re.findall(r"```python\n(def ask_gini.*?)```", text, re.DOTALL)
    assert len(lines.splitlines()) == 3
    space = {name: getattr(zoo, name) for name in ("Asked", "Query", "Scan", "top")}
    exec(lines, space)
    from zoo.testing import LAWS, Subject

    for law in LAWS:
        law(Subject(space["gini"]))
