"""Folders of images: what is decoded, what is left out, what the cache remembers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainers import answers, cache, folder, image
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


def test_hidden_and_other_files_are_skipped(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(photos / ".hidden.png", np.zeros((1, 1, 3), np.uint8))
    save(photos / ".thumbs" / "e.png", np.zeros((1, 1, 3), np.uint8))
    (photos / "notes.txt").write_text("notes")
    with caplog.at_level(logging.WARNING, "alzoo"):
        assert len(folder.decode(photos, None).paths) == 4
    assert not caplog.records


@pytest.mark.parametrize("suffix", sorted({".jfif", ".jpe", ".jp2", ".avif", ".tga", ".pnm", ".pbm", *folder.SUFFIXES}))
def test_every_suffix_is_an_image_that_pillow_opens(tmp_path: Path, suffix: str) -> None:
    if suffix not in Image.registered_extensions():
        pytest.skip(f"this Pillow knows no {suffix}")
    save(
        tmp_path / "one" / f"a{suffix}", np.full((16, 16), 255, np.uint8).astype(bool if suffix == ".pbm" else np.uint8)
    )
    assert folder.decode(tmp_path / "one", None).images.float().mean() > 250


def test_files_that_may_be_images_by_another_name_are_named_once(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("deep/raw.CR2", "phone.heic", "scan"):
        (photos / name).touch()
    with caplog.at_level(logging.WARNING, "alzoo"):
        folder.decode(photos, None)
    (said,) = caplog.messages
    assert "3 of the files" in said
    assert "deep/raw.CR2; phone.heic; scan" in said


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


@pytest.mark.parametrize(("brightest", "said"), [(4095, 1), (8192, 0)])
def test_twelve_bits_saved_as_sixteen_are_said_to_be_dark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, brightest: int, said: int
) -> None:
    save(tmp_path / "deep" / "a.png", np.full((4, 4), 100, np.uint16))
    save(tmp_path / "deep" / "b.png", np.full((4, 4), brightest, np.uint16))
    save(tmp_path / "deep" / "c.png", np.full((4, 4), 255, np.uint8))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "alzoo"):
            folder.decode(tmp_path / "deep", None)
        assert sum("2 images of 16 bits" in line and "4095 of 65535" in line for line in caplog.messages) == said


def test_thirty_two_bits_cannot_be_read(tmp_path: Path) -> None:
    save(tmp_path / "deep" / "a.tif", np.full((4, 4), 200, np.int32))
    save(tmp_path / "deep" / "b.tif", np.full((4, 4), 200, np.uint8))
    assert folder.decode(tmp_path / "deep", None).left_out == (
        "a.tif: its pixels have 32 bits, whose range nobody knows; save it with 8 or 16 bits",
    )


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
    with pytest.raises(ValueError, match=r"a\.png is 8x16 and b\.png is 4x6.*--size 32"):
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


def test_an_image_too_large_for_pillow_is_left_out_with_the_remedy(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(photos / "scan.png", np.zeros((12, 16, 3), np.uint8))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 80)
        (line,) = folder.decode(photos, 4).left_out
        assert line.startswith("scan.png: ")
        assert "Scale it down first, or raise PIL.Image.MAX_IMAGE_PIXELS" in line
    assert folder.decode(photos, 4).left_out == ()


def test_what_may_not_be_read_is_named_with_the_remedy(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, scanned = Path.open, os.scandir

    def forbidden(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scanned(path)

    def closed(path: Path, *more: Any, **settings: Any) -> Any:
        if path.suffix == ".csv":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *more, **settings)

    (photos / "labels.csv").write_text("path,label\na.png,cat\n")
    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(PermissionError, match=r"photos/labels\.csv may not be read.*chmod"):
        answers.read_labels(photos, "labels.csv", ["a.png"])
    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(PermissionError, match=r"photos/deep may not be read.*chmod"):
        folder.decode(photos, None)


def test_where_memory_is_bounded_images_are_decoded_one_by_one_if_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for i in range(3):
        save(tmp_path / "large" / f"{i}.bmp", noise)
    parts: list[tuple[int, int]] = []
    in_order = folder._in_order

    def noted(work: Any, blocks: Any, threads: int) -> Any:
        blocks = list(blocks)
        parts.append((len(blocks), threads))
        return in_order(work, blocks, threads)

    monkeypatch.setattr(folder, "_in_order", noted)
    need = 10 * 64 * 64
    monkeypatch.setattr(folder.bounds, "held", lambda: 2**30)
    with pytest.raises(image.TooLarge, match=r"large/0\.bmp has 64x64 pixels.*Give it more, or scale it down"):
        folder.decode(tmp_path / "large", 8, memory=2**30 + need - 1)
    folder.decode(tmp_path / "large", 8, memory=2**30 + need)
    assert parts == [(3, 1)] * 2


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
    with pytest.raises(FileNotFoundError, match="~nosuchuser/x does not exist"):
        folder.decode("~nosuchuser/x", None)


def test_a_folder_whose_name_is_not_utf8_is_refused(photos: Path) -> None:
    strange = photos.rename(photos.with_name("ph\udcfftos"))
    with pytest.raises(ValueError, match=r"ph\\xfftos' is not UTF-8; rename it"):
        folder.decode(strange, None)


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


@pytest.mark.parametrize("change", ["in place", "swapped"])
def test_changes_are_seen_where_size_and_time_stay(photos: Path, change: str) -> None:
    for name in ("a.bmp", "b.bmp"):
        save(photos / name, np.full((6, 8, 3), ord(name[0]), np.uint8))
        os.utime(photos / name, ns=(1, 1))
    before = folder.decode(photos, 4).images.clone()
    if change == "in place":
        save(photos / "a.bmp", np.full((6, 8, 3), 7, np.uint8))
        os.utime(photos / "a.bmp", ns=(1, 1))
    else:
        for old, new in (("a.bmp", "c"), ("b.bmp", "a.bmp"), ("c", "b.bmp")):
            (photos / old).rename(photos / new)
    assert not torch.equal(folder.decode(photos, 4).images, before)


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
        ('path,label\na.png,cat\nb.png,"dog\ndeep/d.bmp,cat\n', r"from line 3 on: .*is there a quote"),
        ('path,label\na.png,"cat\nb.png,dog"\n', "has line breaks"),
        ("path,label\na.png,\0\n", "control characters"),
        ("path,label\na.png,cat\nb.png,NaN\n", "line 3: label 'NaN' stands for a missing value; leave it empty"),
        ("path,label\na.png,1\nb.png,1.0\n", r"line 3: '1\.0' and '1' are one number"),
        ("path,label\ndeep\\d.bmp,cat\n", r"Did you mean 'deep/d\.bmp'\?"),
        ("path,label\nA.PNG,cat\n", r"Did you mean 'a\.png'\?"),
        ("path,label\nphotos/deep/er/c.PNG,cat\n", r"Did you mean 'deep/er/c\.PNG'\?"),
    ],
)
def test_labels_that_do_not_fit(photos: Path, text: str, message: str) -> None:
    (photos / "broken.png").write_bytes(b"rubbish")
    (photos / "labels.csv").write_text(text, "latin-1")
    paths = folder.decode(photos, None).paths
    with pytest.raises(ValueError, match=message):
        answers.read_labels(photos, "labels.csv", paths)


def test_paths_in_another_unicode_form_are_not_guessed_but_named(photos: Path) -> None:
    (photos / "a.png").rename(photos / "e\u0301.png")
    (photos / "labels.csv").write_text("path,label\n\u00e9.png,cat\n", "utf-8")
    with pytest.raises(ValueError, match="Did you mean 'e\u0301\\.png'"):
        answers.read_labels(photos, "labels.csv", folder.decode(photos, None).paths)


def test_paths_may_have_spaces_around_and_be_absolute(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "elsewhere" / "e.png", np.zeros((6, 8, 3), np.uint8))
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    save(photos / " f.png", np.zeros((6, 8, 3), np.uint8))
    (tmp_path / "link").symlink_to(photos)
    (tmp_path / "other").symlink_to(photos)
    absolute = [photos / "b.png", tmp_path / "link" / "linked" / "e.png", tmp_path / "other" / "deep" / "d.bmp"]
    rows = [" a.png ,cat", *(f"{path},dog" for path in absolute), " f.png,cat"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    known = answers.read_labels("link", "labels.csv", folder.decode("link", None).paths)
    assert list(known) == [" f.png", "a.png", "b.png", "deep/d.bmp", "linked/e.png"]


def test_minus_one_is_an_image_that_nobody_can_tell(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label\na.png,-1\nb.png,1\ndeep/d.bmp,0\ndeep/er/c.PNG,-1\n")
    pool = Pool.of_folder(photos, labels="labels.csv")
    assert (pool.names, pool.labels.tolist()) == (("0", "1"), [-1, 1, 0, -1])
    named = Pool.of_folder(photos, labels="labels.csv", names=["-1", "0", "1"])
    assert named.labels.tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        (["10", "2", "0", "1"], ("0", "1", "2", "10"), True),
        (["3", "2", "1", "0"], ("0", "1", "2", "3"), False),
        (["3.0", "2.0", "1.0", "0.0"], ("0.0", "1.0", "2.0", "3.0"), False),
        (["10", "2", "x", "1"], ("1", "10", "2", "x"), False),
    ],
)
def test_labels_that_are_numbers_are_sorted_as_numbers(
    photos: Path, caplog: pytest.LogCaptureFixture, labels: list[str], names: tuple[str, ...], said: bool
) -> None:
    rows = zip(folder.decode(photos, None).paths, labels, strict=True)
    (photos / "labels.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    with caplog.at_level(logging.WARNING, "alzoo"):
        pool = Pool.of_folder(photos, labels="labels.csv")
        assert Pool.of_folder(photos, labels="labels.csv", names=names[::-1]).names == names[::-1]
    assert pool.names == names
    assert [pool.names[k] for k in pool.labels] == labels
    assert ["names=[...]" in line for line in caplog.messages] == [True] * said


def test_names_are_words_without_spaces_around(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label\na.png,0\nb.png,1\n")
    assert Pool.of_folder(photos, labels="labels.csv", names=[1, " 0 "]).names == ("1", "0")  # type: ignore[list-item]


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
    csv.write_text(f"path,label\n{tmp_path / 'x.png'},cat\n")
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
