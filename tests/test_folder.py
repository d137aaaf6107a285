"""Folders of images: what is decoded, what is left out, what the cache remembers."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from trainers import answers, cache, folder
from trainers.pool import Pool
from zoo import datasets


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images in colour, at two depths."""
    for i, name in enumerate(["b.png", "a.png", "deep/er/c.PNG", "deep/d.bmp"]):
        save(tmp_path / "photos" / name, np.full((6, 8, 3), 10 * i, np.uint8))
    return tmp_path / "photos"


def save(path: Path, pixels: np.ndarray, **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)


def state(path: Path) -> list[tuple[str, int, int]]:
    return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in [path, *path.rglob("*")])


def undecodable(*_: object) -> None:
    raise AssertionError("decoded again")


def entries(home: Path) -> list[Path]:
    return list((home / "decoded").iterdir())


def test_colour_images_in_the_order_of_their_paths(photos: Path) -> None:
    decoded = folder.decode(photos, None)
    assert decoded.paths == ("a.png", "b.png", "deep/d.bmp", "deep/er/c.PNG")
    assert decoded.images.dtype == torch.uint8
    assert decoded.images.shape == (4, 3, 6, 8)
    assert decoded.images[:, 0, 0, 0].tolist() == [10, 0, 30, 20]
    assert decoded.images.is_contiguous(memory_format=torch.channels_last)
    assert decoded.left_out == ()


def test_writing_to_the_images_changes_no_file(photos: Path) -> None:
    folder.decode(photos, None).images.fill_(99)
    assert folder.decode(photos, None).images.max() == 30


def test_the_folder_is_only_read(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    before = state(photos)
    folder.decode(photos, 4)
    folder.decode(photos, None)
    assert state(photos) == before


def test_hidden_and_other_files_are_skipped(photos: Path) -> None:
    save(photos / ".hidden.png", np.zeros((1, 1, 3), np.uint8))
    save(photos / ".thumbs" / "e.png", np.zeros((1, 1, 3), np.uint8))
    (photos / "notes.txt").write_text("notes")
    assert len(folder.decode(photos, None).paths) == 4


@pytest.mark.parametrize("grey", ["L", "1", "LA", "I;16"])
def test_grey_images_have_one_channel(tmp_path: Path, grey: str) -> None:
    pixels = {
        "L": np.full((4, 4), 255, np.uint8),
        "1": np.full((4, 4), True),
        "LA": np.full((4, 4, 2), 255, np.uint8),
        "I;16": np.full((4, 4), 65535, np.uint16),
    }
    save(tmp_path / "grey" / "a.png", pixels[grey])
    save(tmp_path / "grey" / "b.png", np.zeros((4, 4), np.uint8))
    images = folder.decode(tmp_path / "grey", None).images
    assert images.shape == (2, 1, 4, 4)
    assert (images[0] == 255).all()
    assert (images[1] == 0).all()


def test_one_image_in_colour_gives_all_three_channels(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / "mixed" / f"{i}.png", np.full((4, 4) if i != 3 else (4, 4, 3), 10 * i, np.uint8))
    images = folder.decode(tmp_path / "mixed", None).images
    assert images.shape == (5, 3, 4, 4)
    assert (images == torch.arange(0, 50, 10).view(5, 1, 1, 1)).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 257, 257 * 100], [257 * 200, 65535, 300]], np.uint16)
    save(tmp_path / "deep" / name, values)
    images = folder.decode(tmp_path / "deep", None).images
    assert images[0, 0].tolist() == [[0, 1, 100], [200, 255, 1]]


def test_palettes_and_transparency(tmp_path: Path) -> None:
    colours = Image.fromarray(np.full((4, 4, 3), (200, 10, 30), np.uint8))
    (tmp_path / "p").mkdir()
    colours.quantize(4).save(tmp_path / "p" / "a.gif")
    colours.quantize(4).save(tmp_path / "p" / "b.png", transparency=b"\x00\x80")
    colours.convert("RGBA").save(tmp_path / "p" / "c.png")
    colours.convert("CMYK").save(tmp_path / "p" / "d.tif")
    images = folder.decode(tmp_path / "p", None).images
    assert images.shape == (4, 3, 4, 4)
    assert (images.permute(0, 2, 3, 1).float() - torch.tensor([200.0, 10, 30])).abs().max() <= 1


def test_exif_orientation_is_respected(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :4] = 255  # bright on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    save(tmp_path / "turned" / "a.jpg", pixels, exif=exif, quality=95)
    images = folder.decode(tmp_path / "turned", None).images
    assert images.shape == (1, 1, 8, 4)
    assert images[0, 0, :3].min() > 200
    assert images[0, 0, 5:].max() < 50


def test_other_sizes_are_covered_and_cut(tmp_path: Path) -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 255  # the centre, which is what remains
    save(tmp_path / "sizes" / "a.png", wide)
    save(tmp_path / "sizes" / "b.png", np.full((4, 6, 3), 7, np.uint8))
    images = folder.decode(tmp_path / "sizes", 4).images
    assert images.shape == (2, 3, 4, 4)
    assert images[0].min() > 200
    assert folder.decode(tmp_path / "sizes", (4, 6)).images.shape == (2, 3, 4, 6)


def test_different_sizes_need_a_size(tmp_path: Path) -> None:
    save(tmp_path / "sizes" / "a.png", np.zeros((8, 16, 3), np.uint8))
    save(tmp_path / "sizes" / "b.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png is 8x16 and b\.png is 4x6.*--size"):
        folder.decode(tmp_path / "sizes", None)


@pytest.mark.parametrize("size", [0, -3, (4, 0)])
def test_sizes_are_positive(photos: Path, size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not positive"):
        folder.decode(photos, size)


def test_unreadable_images_are_named_on_every_call(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "empty.jpg").touch()
    (photos / "rubbish.png").write_bytes(b"rubbish" * 20)
    whole = (photos / "a.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "nowhere.png").symlink_to(photos / "gone.png")
    save(photos / "floats.tif", np.zeros((6, 8), np.float32))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "alzoo"):
            decoded = folder.decode(photos, None)
        assert len(decoded.images) == len(decoded.paths) == 4
        assert [line.split(":")[0] for line in decoded.left_out] == [
            "cut.png",
            "empty.jpg",
            "floats.tif",
            "nowhere.png",
            "rubbish.png",
        ]
        assert "5 of 9 images" in caplog.text
        assert "cut.png" in caplog.text
        assert "and 2 more" in caplog.text
    assert str(photos) not in " ".join(decoded.left_out)


def test_trouble_with_the_disk_is_not_remembered(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Image.open

    def trouble(path: str) -> Image.Image:
        if path.endswith("b.png"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", trouble)
        assert len(folder.decode(photos, None).left_out) == 1
    assert folder.decode(photos, None).left_out == ()


def test_no_images(tmp_path: Path, home: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        folder.decode(tmp_path / "none", None)
    (tmp_path / "none" / "a.png").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"no images in .*a\.png"):
        folder.decode(tmp_path / "none", None)
    assert entries(home) == []


def test_no_folder(photos: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        folder.decode(photos / "gone", None)
    with pytest.raises(NotADirectoryError, match="is a file"):
        folder.decode(photos / "a.png", None)


def test_the_second_call_decodes_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder.decode(photos, 4)
    monkeypatch.setattr(folder, "_image", undecodable)
    second = folder.decode(photos, (4, 4))
    assert second.paths == first.paths
    assert torch.equal(second.images, first.images)


@pytest.mark.parametrize("change", ["mtime", "added", "removed", "size"])
def test_changes_are_seen(photos: Path, home: Path, change: str) -> None:
    folder.decode(photos, 4)
    if change == "mtime":
        os.utime(photos / "a.png", ns=(1, 1))
    elif change == "added":
        save(photos / "e.png", np.zeros((6, 8, 3), np.uint8))
    elif change == "removed":
        (photos / "a.png").unlink()
    decoded = folder.decode(photos, 3 if change == "size" else 4)
    assert len(decoded.paths) == {"added": 5, "removed": 3}.get(change, 4)
    assert len(entries(home)) == 2


@pytest.mark.parametrize("torn", ["no meta", "half a meta", "short", "long", "no images", "empty", "a file"])
def test_torn_entries_are_made_again(photos: Path, home: Path, torn: str) -> None:
    first = folder.decode(photos, None).images.clone()
    (entry,) = entries(home)
    images, meta = entry / "images.npy", entry / "meta.json"
    if torn == "no meta":
        meta.unlink()
    elif torn == "half a meta":
        meta.write_text(meta.read_text()[:40])
    elif torn == "no images":
        images.unlink()
    elif torn == "a file":
        entry.rename(home / "away")
        entry.touch()
    else:
        data = images.read_bytes()
        images.write_bytes({"short": data[:-1], "long": data + b"x", "empty": b""}[torn])
    assert torch.equal(folder.decode(photos, None).images, first)
    assert entries(home) == [entry]


def test_a_failure_leaves_nothing_behind(photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*ALZOO_HOME"):
        folder.decode(photos, None)
    assert entries(home) == []


def test_a_cache_that_cannot_be_written(photos: Path, home: Path) -> None:
    home.write_text("a file where a folder should be")
    with pytest.raises(OSError, match="ALZOO_HOME"):
        folder.decode(photos, None)


def test_drafts_of_killed_processes_are_removed(photos: Path, home: Path) -> None:
    folder.decode(photos, None)
    (entry,) = entries(home)
    old, young = entry.with_name(f".{entry.name}-old"), entry.with_name(f".{entry.name}-young")
    for draft in (old, young):
        draft.mkdir()
    os.utime(old, (0, 0))
    (entry / "meta.json").unlink()
    folder.decode(photos, None)
    assert sorted(entries(home)) == sorted([entry, young])


def test_many_at_once_all_end_well(photos: Path, home: Path) -> None:
    barrier = Barrier(6)

    def total(_: int) -> int:
        barrier.wait()
        return int(folder.decode(photos, None).images.sum())

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(total, range(6))) == {6 * 8 * 3 * (10 + 20 + 30)}
    assert len(entries(home)) == 1


def test_large_files_go_through_threads_in_order(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for i in range(300):
        noise[:] = np.roll(noise, 1, 0)
        noise[0, 0] = i % 256
        save(tmp_path / "large" / f"{i:03}.bmp", noise)
    decoded = folder.decode(tmp_path / "large", None)
    assert decoded.images[:, 0, 0, 0].tolist() == [i % 256 for i in range(300)]


def test_links_are_followed_but_not_in_circles(photos: Path) -> None:
    (photos / "deep" / "up").symlink_to(photos)
    (photos / "self").symlink_to(photos / "self")
    save(photos.parent / "elsewhere" / "e.png", np.zeros((6, 8, 3), np.uint8))
    (photos / "linked").symlink_to(photos.parent / "elsewhere")
    assert "linked/e.png" in folder.decode(photos, None).paths
    assert len(folder.decode(photos, None).paths) == 5


def test_the_order_of_creation_does_not_matter(tmp_path: Path) -> None:
    names = [f"{i}/{j}.png" for i in "cab" for j in (10, 9, 1)]
    for where, order in (("one", names), ("two", names[::-1])):
        for name in order:
            save(tmp_path / where / name, np.full((2, 2), ord(name[0]), np.uint8))
    one, two = (folder.decode(tmp_path / where, None) for where in ("one", "two"))
    assert one.paths == two.paths == tuple(sorted(names))
    assert torch.equal(one.images, two.images)


def test_some_files_only(photos: Path) -> None:
    decoded = folder.decode(photos, None, [Path("b.png"), photos.resolve() / "a.png"])
    assert decoded.paths == ("a.png", "b.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        folder.decode(photos, None, [Path("gone.png")])


def test_the_cache_is_the_users_own_by_default(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert cache.cache_dir() == home
    monkeypatch.delenv("ALZOO_HOME")
    assert "alzoo" in cache.cache_dir().parts


def test_labels_inside_and_outside_the_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\na.png,outside\n")
    paths = folder.decode(photos, None).paths
    assert answers.read_labels(photos, "labels.csv", paths) == {"a.png": "outside"}
    (photos / "labels.csv").write_text("path,label\na.png,inside\n")
    assert answers.read_labels(photos, "labels.csv", paths) == {"a.png": "inside"}
    assert answers.read_labels(photos, tmp_path / "labels.csv", paths) == {"a.png": "outside"}
    with pytest.raises(FileNotFoundError, match=r"photos/other\.csv nor at .*other\.csv"):
        answers.read_labels(photos, "other.csv", paths)


def test_labels_do_not_depend_on_the_order_of_rows(photos: Path) -> None:
    rows = ["b.png,dog,x", "./a.png, cat ,y", "deep/d.bmp,,z"]
    read = []
    for order in (rows, rows[::-1]):
        (photos / "labels.csv").write_text("\n".join(["path,label,note", *order]), "utf-8-sig")
        read.append(list(answers.read_labels(photos, "labels.csv", folder.decode(photos, None).paths).items()))
    assert read[0] == read[1] == [("a.png", "cat"), ("b.png", "dog")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be"),
        ("a.png,cat\n", "first line must be"),
        ("path,label\na.png\n", "line 2: not as many fields"),
        ("path,label\na.png,cat,dog\n", "line 2: not as many fields"),
        ("path,label\na.png,cat\na.png,dog\n", r"line 3: 'a\.png' is there twice"),
        ("path,label\ngone.png,cat\n", r"'gone\.png' does not exist"),
        ("path,label\nbroken.png,cat\n", r"'broken\.png' is left out"),
        ("path,label\na.png,\xe9\n", "not UTF-8"),
    ],
)
def test_labels_that_do_not_fit(photos: Path, text: str, message: str) -> None:
    (photos / "broken.png").write_bytes(b"rubbish")
    (photos / "labels.csv").write_text(text, "latin-1")
    paths = folder.decode(photos, None).paths
    with pytest.raises(ValueError, match=message):
        answers.read_labels(photos, "labels.csv", paths)


def test_a_pool_of_a_folder(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label\nb.png,dog\na.png,cat\n")
    pool = Pool.of_folder(photos, labels="labels.csv")
    assert pool.names == ("cat", "dog")
    assert pool.labels.tolist() == [0, 1, -1, -1]
    assert [r.tolist() for r in pool.rounds] == [[0, 1]]
    with pytest.raises(ValueError, match="nobody can answer"):
        pool.reveal([2])
    assert pool.reveal([2], labels=[1]).labels.tolist() == [0, 1, 1, -1]
    unlabeled = Pool.of_folder(photos, size=4, names=["cat", "dog"])
    assert unlabeled.shape == (3, 4, 4)
    assert len(unlabeled.unlabeled) == 4


@pytest.mark.parametrize("size", [8.0, "8", (8,), (8.0, 8.0), (8, 8, 8), True])
def test_a_size_is_whole_numbers(photos: Path, size: object) -> None:
    with pytest.raises(ValueError, match="is no size; give pixels"):
        folder.decode(photos, size)  # type: ignore[arg-type]


def test_numbers_of_other_libraries_are_sizes_and_classes_too(photos: Path) -> None:
    assert folder.decode(photos, np.int64(4)).images.shape[2:] == (4, 4)  # type: ignore[arg-type]
    images, targets = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
    for classes in (np.int64(2), torch.tensor(2)):
        assert type(Pool.of(images, targets, classes).classes) is int  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classes='2' must be a whole number"):
        Pool.of(images, targets, "2")  # type: ignore[arg-type]


def test_labels_of_one_class_and_paths_from_elsewhere_say_what_is_due(photos: Path, tmp_path: Path) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("path,label\na.png,cat\n")
    with pytest.raises(ValueError, match="'cat' is the only class so far"):
        Pool.of_folder(photos, labels=csv)
    assert Pool.of_folder(photos, labels=csv, names=["cat", "dog"]).classes == 2
    with pytest.raises(ValueError, match="are not all different"):
        Pool.of_folder(photos, labels=csv, names=["cat", "dog", "cat"])
    csv.write_text(f"path,label\n{photos / 'a.png'},cat\n")
    with pytest.raises(ValueError, match="paths are relative to that folder"):
        Pool.of_folder(photos, labels=csv)


def test_a_class_without_a_readable_test_image_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(5):
            save(tmp_path / "own" / name / f"{i}.png", np.full((8, 8, 3), 20 * i, np.uint8))
    said = []
    for i in range(5):  # one of them is the test's
        path = tmp_path / "own" / "b" / f"{i}.png"
        whole = path.read_bytes()
        path.write_bytes(whole[:20])
        try:
            datasets.data(f"folder:{tmp_path / 'own'}", initial=2, seed=0, test_share=0.2)
        except ValueError as error:
            said.append(str(error))
        path.write_bytes(whole)
    assert len(said) == 1
    assert "class 'b'" in said[0]
    assert "in the test" in said[0]


def test_a_link_that_leads_nowhere_is_left_out_of_a_split_folder_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(10):
            save(tmp_path / "own" / name / f"{i}.png", np.full((8, 8, 3), 20 * i, np.uint8))
    (tmp_path / "own" / "a" / "gone.png").symlink_to(tmp_path / "nothing.png")
    pool, test = datasets.data(f"folder:{tmp_path / 'own'}", initial=2, seed=0, test_share=0.2)
    assert len(pool) + len(test.images) == 20
