"""The weights that alzoo has: whole, small, as good as their cards say, ready to ask, and the same wherever they lie.

Those of `digits` come with the package and are looked at wholly. The accuracy of the others is measured where
$ALZOO_DATA names a folder with their images, as mnist/train/<class>/*.png and cifar10/train/<class>/*.jpg.
"""

import os
import re
import socket
import sys
import threading
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import checkpoints
import zoo
from checkpoints.weights import ABOUT, HERE

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import cards
import publish

SHIPPED = zoo.weights()
DIGITS = zoo.weights("*.digits")
FOUND = [w for w in SHIPPED if (HERE / w.file).exists()]  # outside of a clone, others stand in the manifest alone


@cache
def data(name, initial, seed):
    """The pool of a card and its test images; skips where they are not at hand."""
    if name == "digits":
        return zoo.data("digits", initial=initial, seed=seed)
    if "ALZOO_DATA" not in os.environ:
        pytest.skip(f"ALZOO_DATA names no folder with {name}/train/<class>/*")
    return zoo.data(f"folder:{Path(os.environ['ALZOO_DATA']) / name}", initial=initial, seed=seed)


def stated(weights):
    """The interval of the accuracy on the Markdown card."""
    row = re.search(r"95 % interval \| (0\.\d+) to ([01]\.\d+)", (HERE / f"{weights.name}.md").read_text())
    return float(row[1]), float(row[2])


def test_every_entry_has_digits_in_the_package_and_together_they_are_small():
    assert [weights.name for weights in DIGITS] == [f"{name}.digits" for name in zoo.names("entries")]
    assert all(weights in FOUND for weights in DIGITS)
    assert sum(weights.bytes for weights in DIGITS) < 8_000_000


def test_the_others_are_of_every_entry_too_and_fit_into_a_repository():
    others = [weights for weights in SHIPPED if weights not in DIGITS]
    every = {f"{name}.{tag}" for name in zoo.names("entries") for tag in ("mnist", "cifar10")}
    assert every == {weights.name for weights in others}
    assert sum(weights.bytes for weights in others) < 34_000_000
    assert max(weights.bytes for weights in SHIPPED) <= publish.LARGEST


@pytest.mark.parametrize("weights", FOUND, ids=lambda weights: weights.name)
def test_files_are_what_manifest_and_cards_say(weights, tmp_path):
    path = checkpoints.fetch(weights, tmp_path)  # raises where the hash is another
    assert path == HERE / weights.file
    assert weights.about.keys() == ABOUT.keys()
    card, _ = checkpoints.read(path)
    assert {**card["about"], **weights.about} == card["about"]
    low, high = stated(weights)
    assert low <= weights.about["accuracy"] <= high
    assert (HERE / f"{weights.name}.md").read_text() == cards.page(weights.name, card, cards.tuned(HERE, weights.name))


@pytest.mark.parametrize("weights", FOUND, ids=lambda weights: weights.name)
def test_measured_again_the_accuracy_is_the_stated_one_and_they_can_ask(weights, tmp_path, monkeypatch):
    entry, _, tag = weights.name.partition(".")
    pool, test = data(tag, weights.about["labels"], weights.about["seed"])
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network is asked"))
    learner = zoo.create(entry, pretrained=tag, device="cpu")
    right = (learner.predict(test.images).argmax(1) == test.targets).double().mean().item()
    low, high = stated(weights)
    assert low <= right <= high
    assert right == pytest.approx(weights.about["accuracy"], abs=1e-3)
    assert weights.about["n"] == len(test.targets)
    assert len(learner.select(pool, 5).scores) == 5


@pytest.mark.skipif(FOUND != SHIPPED, reason="only a clone has all files")
def test_without_them_here_a_web_server_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    for name in ("HF_HUB_OFFLINE", "ALZOO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    publish.copy(HERE, tmp_path / "served")
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "served"))
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("ALZOO_WEIGHTS_URL", f"http://127.0.0.1:{served.server_port}")
    try:
        for weights in SHIPPED:
            for _ in range(2):  # and again once the cache is gone
                path = checkpoints.fetch(weights, tmp_path / "cache", beside=tmp_path / "nothing")
                assert path.read_bytes() == (HERE / weights.file).read_bytes(), weights.name
                path.unlink()
    finally:
        served.shutdown()
        served.server_close()


def test_what_lies_nowhere_says_how_to_make_and_how_to_serve_it(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "ALZOO_OFFLINE", "ALZOO_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
    remedy = r"ALZOO_WEIGHTS_URL.*publish.py --static.*train_weights.py --name plain.digits"
    with pytest.raises(FileNotFoundError, match=remedy):
        checkpoints.fetch(zoo.weights("plain.digits")[0], tmp_path, beside=tmp_path)
