"""The bench: its plain forms answer as ours do, and its figures are whole. Nothing is asserted about time."""

import json

import pytest
import torch

from zoo import bench
from zoo.cli import app
from zoo.queries import QUERIES


@pytest.mark.parametrize("name", sorted(bench.PLAIN))
def test_a_plain_form_answers_as_ours_does(name):
    bench.agree(name, bench.PLAIN[name], d=24)


def test_a_plain_form_that_answers_otherwise_is_found_out(monkeypatch):
    monkeypatch.setitem(QUERIES, "kcenter", QUERIES["random"])
    with pytest.raises(RuntimeError, match="kcenter and its plain form"):
        bench.agree("kcenter", bench.plain_kcenter, d=24)


@pytest.mark.parametrize("name", [name for name in QUERIES if name not in bench.SKIPPED])
def test_every_query_can_be_timed(name):
    figure = bench.measure(name, None, 120, 5, 8, repeats=1)
    assert figure.query == name
    assert 0 <= figure.least <= figure.seconds <= figure.most
    assert figure.mib >= 0


def test_the_command_writes_what_it_shows(tmp_path):
    file = tmp_path / "figures.json"
    words = ["queries", "--queries", "margin,kcenter", "--pool", "400", "--asked", "9", "--repeats", "1"]
    app.commands["bench"].main([*words, "--json", str(file)], standalone_mode=False)
    written = json.loads(file.read_text())
    assert [figure["query"] for figure in written["figures"]] == ["margin", "kcenter"]
    assert written["figures"][1]["ratio"] > 0
    assert written["figures"][0]["plain"] is None
    with pytest.raises(SystemExit):
        app.commands["bench"].main([*words, "--json", str(file)], standalone_mode=False)


def test_made_up_features_are_the_same_each_time():
    one, two = bench.made_up(50, 4, 8), bench.made_up(50, 4, 8)
    assert torch.equal(one.features, two.features)
    assert torch.equal(one.probs, two.probs)
