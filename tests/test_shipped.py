"""The weights that come with the package: whole, small, as good as their cards say, and ready to ask, offline."""

import socket
from functools import cache
from pathlib import Path

import pytest

import checkpoints
import zoo
from checkpoints.weights import ABOUT

SHIPPED = zoo.weights("*.digits")


@cache
def digits(initial, seed):
    return zoo.data("digits", initial=initial, seed=seed)


def test_every_entry_has_digits_and_together_they_are_small():
    assert [weights.name for weights in SHIPPED] == [f"{name}.digits" for name in zoo.names("entries")]
    assert sum(weights.bytes for weights in SHIPPED) < 8_000_000


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda weights: weights.name)
def test_shipped_weights_are_what_their_cards_say(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network is asked"))
    path = checkpoints.fetch(weights, tmp_path / "weights")
    assert path.parent == Path(checkpoints.__file__).parent
    assert weights.about.keys() == ABOUT.keys()
    card, _ = checkpoints.read(path)
    assert {**card["about"], **weights.about} == card["about"]
    assert f"# {weights.name}\n" in path.with_name(f"{weights.name}.md").read_text()
    pool, test = digits(weights.about["labels"], weights.about["seed"])
    learner = zoo.create(weights.name.partition(".")[0], pretrained="digits", device="cpu")
    right = (learner.predict(test.images).argmax(1) == test.targets).double().mean().item()
    assert right == pytest.approx(weights.about["accuracy"], abs=1e-3)
    assert weights.about["n"] == len(test.targets)
    asked = learner.select(pool, 5)
    assert len(asked.scores) == 5
