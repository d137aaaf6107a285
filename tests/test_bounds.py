"""A bound on memory: no number changes, pages are given back, and what cannot be held is refused before it begins."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import TINY, alzoo
from torch import Tensor

import zoo
from trainers import bounds, folder
from trainers.pool import Pool, at, nobody
from zoo import room
from zoo.bench import tidy
from zoo.bench.queries import Size, made_up
from zoo.device import peak_bytes
from zoo.entries import ENTRIES
from zoo.queries import QUERIES
from zoo.scan import top

pytestmark = pytest.mark.skipif(not bounds.STATUS.exists(), reason="only Linux says what a process holds")
PLENTY = 64 * 2**30
LEARNERS = ("margin", "badge", "kcenter", "typiclust", "bald", "ensemble", "vaal", "waal", "ceal", "gaal")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(bounds.VARIABLE, raising=False)
    monkeypatch.setattr(bounds, "_maps", WeakKeyDictionary())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of grey images of 8 pixels, and a test of two each."""
    noise = np.random.default_rng(0)
    for half, n in (("train", 20), ("test", 2)):
        for k in range(3):
            place = tmp_path / "photos" / half / str(k)
            place.mkdir(parents=True)
            for i in range(n):
                pixels = noise.integers(80 * k, 80 * k + 90, (8, 8)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{i:02}.png")
    return tmp_path / "photos"


def data(photos: Path, **more: object) -> tuple[Pool, zoo.Test]:
    return zoo.data(f"folder:{photos}", initial=9, seed=0, **more)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2**31), ("512 MiB", 2**29), ("1.5gb", 1_500_000_000), ("8KiB", 8192), ("77", 77), (2**31, 2**31)],
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert bounds.parse(text) == size


@pytest.mark.parametrize("text", ["", "two", "GiB", "-1GiB", "2 gigs", 0, "0.1", "1e9"])
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="is no size; give 2GiB"):
        bounds.parse(text)


def test_a_process_that_holds_more_already_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds \d+\.\d\d GiB already, more than memory=0.01 GiB"):
        zoo.data("digits", initial=9, seed=0, memory="10MiB")


@pytest.mark.parametrize("more", [{}, {"subset": 30}, {"validation": 0.2}, {"classes": ("2", "0")}])
def test_a_bounded_pool_is_the_same_pool(photos: Path, more: dict[str, object]) -> None:
    (one, test), (other, tested) = data(photos, **more), data(photos, memory=PLENTY, **more)
    assert (one.memory, other.memory) == (None, PLENTY)
    for a, b in ((one.images, other.images), (one.labels, other.labels), (test.images, tested.images)):
        assert torch.equal(a, b)


def test_the_environment_bounds_where_nobody_says(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bounds.VARIABLE, "32GiB")
    assert data(photos)[0].memory == 2**35
    assert data(photos, memory=PLENTY)[0].memory == PLENTY


def test_a_bounded_folder_without_classes_has_its_images(photos: Path) -> None:
    one, other = Pool.of_folder(photos), Pool.of_folder(photos, memory=PLENTY)
    assert torch.equal(one.images, other.images)
    assert other.memory == PLENTY


@pytest.mark.parametrize("name", LEARNERS)
def test_a_bound_changes_no_weight_and_no_answer(name: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "WINDOW", 0)  # all that is seen of all images lies on files, given back after each look
    asked, weights = [], []
    for memory in (None, PLENTY):
        pool, test = data(photos, memory=memory)
        short = {"gan_steps": 2} if name == "gaal" else {"game_steps": 3} if name == "vaal" else {}
        learner = zoo.create(name, seed=0, steps=3, device="cpu", **short).fit(pool, progress=False)
        asked.append((learner.select(pool, 5), learner.diagnose(pool, test.images), learner.predict(test.images)))
        weights.append(learner.parts.state_dict())
    (one, game, probs), (other, its_game, its_probs) = asked
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(probs, its_probs)
    assert game == its_game
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_a_study_has_the_same_records_and_settings_under_a_bound(photos: Path, tmp_path: Path) -> None:
    said = []
    for name, more in (("free", ()), ("bounded", ("--memory", "64GiB"))):
        out = tmp_path / name
        result = alzoo("compare", f"folder:{photos}", *TINY, "--budget", "5", *more, "--out", out)
        assert result.exit_code == 0, result.stderr
        lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        varying = {"fit_seconds", "select_seconds", "peak_bytes"}
        said.append([{key: value for key, value in line.items() if key not in varying} for line in lines])
    assert said[0] == said[1]
    assert (tmp_path / "free" / "study.toml").read_text() == (tmp_path / "bounded" / "study.toml").read_text()
    assert bounds.VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--memory", "lots"), "is no size"),
        (("--memory", "64GiB", "--engine", "ray"), f"on those of a Ray cluster set {bounds.VARIABLE}=64GiB"),
    ],
)
def test_a_senseless_bound_is_refused_in_a_line(more: tuple[str, ...], why: str, tmp_path: Path) -> None:
    result = alzoo("compare", "digits", *TINY, *more, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert why in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_study_refuses_what_it_cannot_hold_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ROOM", {**room.ROOM, "margin": room.Room(one=1e9)})
    result = alzoo("compare", "digits", *TINY, "--memory", "64GiB", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "margin would hold" in result.stderr
    assert not (tmp_path / "out").exists()


def mapped(tmp_path: Path, limit: int, mib: int = 24) -> Tensor:
    """So many MiB of images of 32 pixels, on a file."""
    shape, path = (mib * 2**20 // 3072, 32, 32, 3), tmp_path / "images.bin"
    np.random.default_rng(0).integers(0, 256, shape, np.uint8).tofile(path)
    return bounds.mapped(path, shape, 0, limit).permute(0, 3, 1, 2)


def test_pages_that_have_been_read_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, total = mapped(tmp_path, PLENTY), 0
    monkeypatch.setattr(bounds, "WINDOW", 2**20)
    bounds.give_back()
    (before,) = bounds._status("RssFile")
    most = 0
    for rows in torch.arange(len(images)).split(64):
        total += int(at(images, rows).sum(dtype=torch.int64))
        most = max(most, bounds._status("RssFile")[0] - before)
    assert most < 4 * 2**20
    assert total == int(images.sum(dtype=torch.int64))
    (all_of_it,) = bounds._status("RssFile")
    assert all_of_it - before > 20 * 2**20  # so it is held where nobody gives it back


def test_what_lies_on_a_file_without_a_name_is_kept_when_its_pages_are_given_back() -> None:
    numbers = bounds.scratch((1000, 64), PLENTY)
    numbers.copy_(torch.arange(64_000.0).view(1000, 64))
    bounds.give_back()
    assert torch.equal(numbers.flatten(), torch.arange(64_000.0))


def test_a_full_disk_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for 1.00 GiB .* Set TMPDIR"):
        bounds.scratch((2**28,), 2**30)


def test_writing_to_bounded_images_changes_no_file(photos: Path) -> None:
    images = folder.decode(photos / "train", None, memory=PLENTY).images
    before = images.clone()
    images.fill_(0)
    assert torch.equal(folder.decode(photos / "train", None).images, before)
    bounds.give_back()
    assert torch.equal(images, before)


def test_networks_that_are_too_large_are_found_out_at_once(tmp_path: Path) -> None:
    images = mapped(tmp_path, PLENTY, 1)
    bounds._maps[next(iter(bounds._maps))] = 2**20
    with pytest.raises(ValueError, match=r"has held .* more than memory=0.00 GiB: its networks and their batches"):
        at(images, torch.arange(4))


def test_without_a_bound_nobody_looks_at_what_is_held(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_maps", {})
    monkeypatch.setattr(bounds, "_status", lambda *_: pytest.fail("looked at what this process holds"))
    pool, _ = data(photos)
    zoo.create("margin", seed=0, steps=2, device="cpu").fit(pool, progress=False).select(pool, 3)


def test_what_cannot_be_held_is_refused_before_a_step_is_taken(photos: Path) -> None:
    pool, _ = data(photos, memory=PLENTY)
    huge = replace(pool, memory=bounds.held() + 2**20)
    steps: list[int] = []
    learner = zoo.create("badge", seed=0, steps=2, device="cpu")
    with pytest.raises(ValueError, match=r"badge would hold .* more than memory=.* fewer images \(--subset\)"):
        learner.fit(huge, progress=lambda *_: steps.append(1))
    assert not steps
    learner.fit(pool, progress=False)
    with pytest.raises(ValueError, match="badge would hold"):
        learner.select(huge, 2)


@pytest.mark.parametrize(("name", "refused"), [("margin", False), ("vaal", True)])
def test_test_images_that_an_autoencoder_rebuilds_count_too(name: str, refused: bool, photos: Path) -> None:
    pool, _ = data(photos, memory=PLENTY)
    bounded = replace(pool, memory=bounds.held() + 2**30)
    many = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(10**6, 1, 8, 8)
    learner = zoo.create(name, seed=0, device="cpu")
    room.holdable(learner, bounded)
    if refused:
        with pytest.raises(ValueError, match="1000000 test images that it rebuilds"):
            room.holdable(learner, bounded, 1, many)
    else:
        room.holdable(learner, bounded, 1, many)


@pytest.mark.parametrize(
    ("name", "settings", "wide", "refused"),
    [
        ("margin", {}, 512, False),  # features lie on a file, and are looked at row by row
        ("vaal", {}, 512, False),
        ("waal", {}, 512, False),
        ("badge", {}, 128, False),
        ("badge", {}, 512, True),  # 2 GiB of features that it goes over at each pick
        ("kcenter", {}, 512, True),
        ("typiclust", {}, 128, True),  # pixels: 768 numbers an image
        ("typiclust", {"features": "task"}, 32, False),
    ],
)
def test_a_million_images_in_two_gib(name: str, settings: dict[str, str], wide: int, refused: bool) -> None:
    """By the numbers that each image takes, with what a process takes for itself put at 0.9 GiB."""
    learner = zoo.create(name, seed=0, device="cpu", width=wide // 4)
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8).expand(10**6, -1, -1, -1)
    pool = replace(Pool.hidden(images, 10, nobody), memory=2**31)
    parts = learner.build(pool.shape, pool.classes)
    each = room.asked(name, {**learner.query.settings, **settings}, parts, pool, 100)
    assert (0.9 * 2**30 + 4e6 * each > pool.memory) == refused


def test_there_is_a_room_for_every_query_of_the_zoo() -> None:
    own = {entry.query.name for entry in ENTRIES.values()}
    assert {*QUERIES, *own} == {*room.ROOM}
    assert {*room.FIT} <= {*ENTRIES}
    assert {*room.CHEAP} <= {*QUERIES}


def test_a_strange_query_and_a_strange_trunk_have_room_too(photos: Path) -> None:
    pool, _ = data(photos, memory=PLENTY)
    parts = torch.nn.ModuleDict({"trunk": torch.nn.Flatten(), "head": torch.nn.Linear(64, 3)})
    assert room.width(parts, pool.shape) == 64
    assert room.asked("of somebody else", {}, parts, pool, 5) == room.STRANGE.of(64, 3, {}, 5)


@pytest.mark.skipif(not os.access(bounds.FORGET, os.W_OK), reason="the peak cannot be forgotten here")
@pytest.mark.parametrize("name", ["margin", "badge", "kcenter", "weighted_kmeans"])
def test_a_query_holds_no_more_than_its_room(name: str) -> None:
    size = Size(300_000, 50, 50, d=64)
    eyes = made_up(size)
    tidy()
    (before,) = bounds._status("VmRSS")
    features = eyes.features.numel() * 4
    with peak_bytes() as peak:
        QUERIES[name].ask(eyes, size.n)
        most = peak() - before
    each = room.ROOM[name].of(size.d, size.k, QUERIES[name].settings, size.n)
    assert most < room.SPARE + max(room.BATCHES, 4 * each * size.u) - (features if room.ROOM[name].d else 0)


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
@pytest.mark.parametrize("kinds", [3, 10**6], ids=["many ties", "few ties"])
def test_the_highest_of_all_are_the_highest_of_what_each_shard_finds_highest(shards: int, kinds: int) -> None:
    scores = torch.randint(kinds, (500,), generator=torch.Generator().manual_seed(0)).float()
    whole, n = top(scores, 40), 40
    parts = torch.arange(500).tensor_split(shards)
    merged = torch.cat([rows[top(scores[rows], min(n, len(rows))).positions] for rows in parts])
    assert torch.equal(merged[top(scores[merged], n).positions], whole.positions)


@pytest.mark.parametrize(
    "name", ["kcenter", "ff_active", "robust_kcenter", "dal", "jlp", "typiclust", "probcover", "bait"]
)
def test_features_of_labeled_images_take_room_where_a_query_looks_at_them(name: str) -> None:
    images = torch.zeros(600, 1, 8, 8, dtype=torch.uint8)
    pool = Pool.hidden(images, 3, nobody).reveal(torch.arange(10), labels=torch.zeros(10).long())
    most = pool.reveal(torch.arange(10, 590), labels=torch.zeros(580).long())
    learner = zoo.create(name, device="cpu", width=16)
    parts = learner.build(pool.shape, pool.classes)
    little, much = (
        room.asked(name, learner.query_settings, parts, some, 1) * len(some.unlabeled) for some in (pool, most)
    )
    of, alone = room.ROOM[name], room.ROOM[name].of(64, 3, learner.query_settings, 1)  # 64 features, as many pixels
    assert of.known
    assert much == pytest.approx(10 * alone + of.d * 64 * 590)
    assert little == pytest.approx(590 * alone + of.d * 64 * 10)


def test_who_asks_before_there_is_a_trunk_looks_at_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    asked = room.asked

    def seeing(name: str, settings: dict[str, object], *more: object) -> float:
        given.append(settings.get("features"))
        return asked(name, settings, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "asked", seeing)
    pool = replace(Pool.hidden(torch.zeros(60, 1, 8, 8, dtype=torch.uint8), 3, nobody), memory=PLENTY)
    learner = zoo.create("kcenter", device="cpu", width=4)
    room.holdable(learner, pool, 5)
    room.holdable(learner, pool.reveal([0, 1], labels=[0, 1]), 5)
    assert given == ["pixels", "task"]
