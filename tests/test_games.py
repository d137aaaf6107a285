"""The script that looks at the inner games: what it plays, what it measures, and that it goes on where it stopped."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import zoo
from zoo.selection import Selection

SCRIPTS = Path(__file__).parents[1] / "scripts"
QUICK = {"steps": 3, "batch": 8, "width": 4}


@pytest.fixture
def games(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import games

    return games


def test_every_entry_with_a_game_is_played_and_each_setting_is_one(games: ModuleType) -> None:
    own = {name for name in zoo.names("entries") if name not in ("plain", "dpe")}
    assert own <= {game.entry for game in games.GAMES}
    assert len({(game.entry, game.form, game.missing) for game in games.GAMES}) == len(games.GAMES)
    for game in games.GAMES:
        assert zoo.create(game.entry, seed=0, **game.settings).entry.name == game.entry


@pytest.mark.parametrize("name", ["vaal", "waal"])
@pytest.mark.parametrize(("order", "found"), [([0, 1, 2, 3], 1.0), ([2, 3, 0, 1], 0.0), ([0, 2, 3, 1], 0.5)])
def test_novelty_is_how_often_what_is_new_comes_first(
    games: ModuleType, name: str, order: list[int], found: float
) -> None:
    """Images 0 and 1 are of the class that has no label, 2 and 3 of the one that has; 4 is labeled."""
    pool = zoo.Pool.of(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.tensor([1, 1, 0, 0, 0]), 2)
    pool = pool.reveal(torch.tensor([4]))
    falling = torch.arange(4, 0, -1.0)
    detail = {"D": falling} if name == "waal" else {}
    scores = torch.zeros(4) if name == "waal" else falling  # its own order counts other things, too
    learner = SimpleNamespace(
        select=lambda *_: Selection(torch.tensor(order), scores, detail), entry=SimpleNamespace(name=name)
    )
    assert games.novelty(learner, pool) == found


def test_a_script_that_was_stopped_goes_on(games: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = (
        replace(games.GAMES[0], settings={**QUICK, "game_steps": 3}),
        games.Game("plain", settings=QUICK),
        games.Game("ceal", settings=QUICK),
    )
    monkeypatch.setattr(games, "GAMES", few)
    out = tmp_path / "games.jsonl"
    monkeypatch.setattr(sys, "argv", ["games.py", "--only", "digits", "--seeds", "1", "--out", str(out)])
    games.main()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["entry"], line["missing"]) for line in lines] == [("vaal", True), ("plain", False), ("ceal", False)]
    assert 0 <= lines[0]["numbers"]["novelty"] <= 1
    assert lines[0]["numbers"]["active_units"] <= lines[0]["numbers"]["latent_units"]
    assert "commit" in lines[0]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    games.main()
    again = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["numbers"] for line in again] == [line["numbers"] for line in lines]
