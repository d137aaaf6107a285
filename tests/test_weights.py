"""`alzoo weights`: what it says of each file, whatever state that is in."""

from hashlib import sha256

import pytest
from test_cli import alzoo, refused

import checkpoints
from checkpoints.weights import Weights

DATA = b"not really weights"
ABOUT = {"data": "noise", "shape": [1, 8, 8], "classes": 3, "labels": 12, "plan": "ours", "accuracy": 0.5, "n": 48}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of one's own, and a manifest of two; only `vaal.noise` is there."""
    digest = sha256(DATA).hexdigest()
    rows = [Weights(name, f"{name}.safetensors", digest, len(DATA), ABOUT) for name in ("plain.noise", "vaal.noise")]
    monkeypatch.setattr(checkpoints, "table", lambda: rows)
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "weights" / "vaal.noise.safetensors"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


@pytest.mark.usefixtures("home")
def test_list_tells_what_they_are():
    said = alzoo("weights", "list")
    assert said.exit_code == 0
    for word in ("plain.noise", "vaal.noise", "1x8x8", "50.00 %", "0.00"):
        assert word in said.stdout
    assert "plain.noise" not in alzoo("weights", "list", "vaal.*").stdout
    assert "vaal.noise" in alzoo("list", "weights").stdout


def test_fetch_and_path_print_where_it_lies_and_nothing_else(home):
    for command in ("fetch", "path"):
        assert alzoo("weights", command, "vaal.noise").output == f"{home}\n"


@pytest.mark.usefixtures("home")
def test_what_is_not_here_says_how_to_get_it():
    assert "alzoo weights fetch plain.noise" in refused(alzoo("weights", "path", "plain.noise"))
    assert "train_weights.py --name plain.noise" in refused(alzoo("weights", "fetch", "plain.*"))


def test_verify_tells_of_each_and_fails_for_what_is_damaged(home):
    said = alzoo("weights", "verify")
    assert said.exit_code == 0
    assert said.stdout == f"plain.noise: not on this machine\nvaal.noise: sound, {home}\n"
    home.write_bytes(DATA[:-1])
    said = alzoo("weights", "verify")
    assert said.exit_code == 2
    assert said.stdout == "plain.noise: not on this machine\n"
    assert said.stderr.startswith(f"alzoo: {home} is damaged")
    assert "is damaged" in refused(alzoo("weights", "path", "vaal.noise"))


@pytest.mark.parametrize("command", ["list", "fetch", "verify", "path"])
@pytest.mark.usefixtures("home")
def test_unknown_names_get_the_closest_one(command):
    assert "Did you mean 'vaal.noise'" in refused(alzoo("weights", command, "val.noise"))
