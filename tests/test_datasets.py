"""Data sets by name and by folder."""

from __future__ import annotations

import logging
import pickle
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import datasets
from zoo.naming import UnknownName


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fill(path: Path, classes: dict[str, int], colour: bool = True, size: int = 4) -> Path:
    """A folder <class>/<i>.png; the classes differ in brightness."""
    for k, (name, n) in enumerate(classes.items()):
        (path / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.full((size, size, 3) if colour else (size, size), 20 * k + i, np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i:02}.png")
    return path


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    fill(tmp_path / "set" / "train", {"dog": 3, "cat": 5})
    fill(tmp_path / "set" / "test", {"dog": 2, "cat": 1})
    return tmp_path / "set"


def test_digits() -> None:
    pool, test = datasets.data("digits", initial=40, seed=0)
    assert pool.shape == (1, 16, 16)
    assert len(pool) + len(test.targets) == 1797
    assert len(test.images) == len(test.targets) == 359
    assert pool.images.dtype == test.images.dtype == torch.uint8
    assert pool.images.min() == 0
    assert pool.images.max() == 255
    assert test.targets.dtype == torch.int64
    assert pool.names == tuple("0123456789")
    assert len(pool.labeled) == 40
    assert [len(r) for r in pool.rounds] == [40]
    assert test.targets.bincount(minlength=10).min() >= 34


def test_the_split_of_digits_is_fixed_and_disjoint() -> None:
    pool, test = datasets.data("digits", initial=0, seed=0, size=8)
    again, same = datasets.data("digits", initial=10, seed=7, size=8)
    assert torch.equal(pool.images, again.images)
    assert torch.equal(test.images, same.images)
    assert torch.equal(test.targets, same.targets)
    from sklearn.datasets import load_digits

    whole = load_digits()
    sums = torch.cat([pool.images, test.images]).flatten(1).sum(1).sort().values
    rounded = np.rint(whole.images * 255 / 16).reshape(1797, -1).sum(1).astype(np.int64)
    assert torch.equal(sums, torch.from_numpy(rounded).sort().values)


@pytest.mark.parametrize("size", [8, 12, 16, 32, (16, 16)])
def test_sizes(size: int | tuple[int, int]) -> None:
    pool, test = datasets.data("digits", initial=0, seed=0, size=size)
    side = size if isinstance(size, int) else size[0]
    assert pool.shape == (1, side, side)
    assert test.images.shape[1:] == (1, side, side)


def test_images_can_be_made_smaller() -> None:
    pool, _ = datasets.data("digits", initial=0, seed=0, size=4)
    native, _ = datasets.data("digits", initial=0, seed=0, size=8)
    assert abs(float(pool.images.float().mean() - native.images.float().mean())) < 10


def test_the_initial_set_depends_on_the_seed_only() -> None:
    one, two, three = (datasets.data("digits", initial=30, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one.labels, two.labels)
    assert torch.equal(one.rounds[0], two.rounds[0])
    assert not torch.equal(one.rounds[0], three.rounds[0])
    torch.manual_seed(123)
    assert torch.equal(datasets.data("digits", initial=30, seed=0)[0].rounds[0], one.rounds[0])


def test_an_empty_initial_set_is_a_round_too() -> None:
    for balanced in (False, True):
        pool, _ = datasets.data("digits", initial=0, seed=0, balanced=balanced)
        assert [len(r) for r in pool.rounds] == [0]
        assert len(pool.labeled) == 0


def test_the_whole_pool_can_be_initial() -> None:
    pool, _ = datasets.data("digits", initial=1438, seed=0)
    assert len(pool.unlabeled) == 0


@pytest.mark.parametrize("initial", [10, 20, 43, 99])
def test_balanced_counts(initial: int) -> None:
    pool, _ = datasets.data("digits", initial=initial, seed=3, balanced=True)
    counts = pool.labels[pool.labeled].bincount(minlength=10)
    assert counts.sum() == initial
    assert counts.max() - counts.min() <= 1


def test_what_is_left_over_goes_to_classes_at_random() -> None:
    richer = set()
    for seed in range(4):
        pool, _ = datasets.data("digits", initial=13, seed=seed, balanced=True)
        counts = pool.labels[pool.labeled].bincount(minlength=10)
        richer.add(tuple((counts == 2).nonzero().flatten().tolist()))
    assert len(richer) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": -1}, "initial=-1 of a pool of 1438"),
        ({"initial": 1439}, "initial=1439 of a pool of 1438"),
        ({"initial": 9, "balanced": True}, "over 10 classes; give 10 or more"),
        ({"initial": 1430, "balanced": True}, "has only 1"),
        ({"initial": 10, "size": 0}, "not positive"),
        ({"initial": 10, "size": (8, 16)}, "square"),
        ({"initial": 10, "test_share": 0.2}, "test images of its own"),
    ],
)
def test_refusals(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.data("digits", seed=0, **settings)  # type: ignore[arg-type]


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'cifar10'"):
        datasets.data("cifar01", initial=1, seed=0)
    with pytest.raises(ValueError, match="needs a path"):
        datasets.data("folder:", initial=1, seed=0)


def test_what_there_is() -> None:
    sources = datasets.describe()
    assert [source.name for source in sources] == [*datasets.names(), "folder:PATH"]
    pool, test = datasets.data("digits", initial=0, seed=0)
    assert (sources[0].images, sources[0].shape) == ((len(pool), len(test.targets)), pool.shape)


def test_the_import_is_cheap() -> None:
    heavy = "torchvision sklearn PIL rich matplotlib scipy"
    code = f"import sys; from zoo import datasets; print([m for m in {heavy.split()} if m in sys.modules])"
    root = Path(datasets.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_with_train_and_test(halves: Path) -> None:
    pool, test = datasets.data(f"folder:{halves}", initial=2, seed=0, balanced=True)
    assert pool.names == ("cat", "dog")
    assert len(pool) == 8
    assert pool.shape == (3, 4, 4)
    assert pool.labels[pool.labeled].sort().values.tolist() == [0, 1]
    assert test.targets.tolist() == [0, 1, 1]
    assert test.images[:, 0, 0, 0].tolist() == [20, 0, 1]
    truth = pool.reveal(pool.unlabeled).labels
    assert truth.tolist() == [0] * 5 + [1] * 3
    assert torch.equal((pool.images[:, 0, 0, 0] >= 20).long(), 1 - truth)


def test_a_folder_of_classes_is_split(tmp_path: Path) -> None:
    path = fill(tmp_path / "set", {"a": 10, "b": 5, "c": 2})
    pool, test = datasets.data(f"folder:{path}", initial=3, seed=0, test_share=0.2)
    again, same = datasets.data(f"folder:{path}", initial=3, seed=1, test_share=0.2)
    assert test.targets.bincount().tolist() == [2, 1, 1]
    assert len(pool) == 13
    assert torch.equal(pool.images, again.images)
    assert torch.equal(test.images, same.images)
    seen = torch.cat([pool.images, test.images])[:, 0, 0, 0]
    assert len(seen.unique()) == 17


def test_grey_and_colour_halves_meet_in_three_channels(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "train", {"a": 2, "b": 2}, colour=False)
    fill(tmp_path / "set" / "test", {"a": 2, "b": 2})
    pool, test = datasets.data(f"folder:{tmp_path / 'set'}", initial=0, seed=0)
    assert pool.shape == (3, 4, 4)
    assert test.images.shape == (4, 3, 4, 4)
    assert pool.images[0].unique().numel() == 1


def test_a_grey_folder_stays_grey(tmp_path: Path) -> None:
    path = fill(tmp_path / "set", {"a": 2, "b": 2}, colour=False)
    pool, test = datasets.data(f"folder:{path}", initial=0, seed=0, test_share=0.5, size=8)
    assert pool.shape == (1, 8, 8)
    assert test.images.shape == (2, 1, 8, 8)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    def refused(path: Path, message: str, error: type[Exception] = ValueError, share: float | None = None) -> None:
        with pytest.raises(error, match=message):
            datasets.data(f"folder:{path}", initial=0, seed=0, test_share=share)

    refused(tmp_path / "gone", "does not exist", FileNotFoundError)
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is a file", NotADirectoryError)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no images in")
    refused(fill(tmp_path / "one", {"a": 3}), "one class only, 'a'", share=0.5)
    plain = fill(tmp_path / "plain", {"a": 3, "b": 3})
    refused(plain, r"--test-share 0\.2")
    refused(plain, "not between 0 and 1", share=1.0)
    refused(plain, "test_share='0.2' is not between 0 and 1", share="0.2")  # type: ignore[arg-type]
    refused(fill(tmp_path / "lone", {"a": 3, "b": 1}), "class 'b' has 1 images", share=0.2)
    fill(tmp_path / "half" / "train", {"a": 3, "b": 3})
    refused(tmp_path / "half", "has train but no test")
    fill(tmp_path / "half" / "test", {"a": 3, "x": 3})
    refused(tmp_path / "half", "class 'x' is in .*test but not in")
    refused(tmp_path / "half", "test folder of its own", share=0.2)
    fill(tmp_path / "hollow" / "train", {"a": 3, "b": 0})
    fill(tmp_path / "hollow" / "test", {"a": 3, "b": 1})
    refused(tmp_path / "hollow", "class 'b' of .* has no readable image")
    fill(tmp_path / "sizes" / "train", {"a": 1, "b": 1})
    fill(tmp_path / "sizes" / "test", {"a": 1, "b": 1}, size=5)
    refused(tmp_path / "sizes", "4x4, those of test 5x5.*--size 32")
    Image.new("L", (4, 4)).save(plain / "loose.png")
    refused(plain, r"loose\.png lies in .*, in no class", share=0.5)
    nowhere = fill(tmp_path / "nowhere", {"a": 3, "b": 3})
    (nowhere / "x.jpg").symlink_to(tmp_path / "gone.jpg")
    refused(nowhere, r"x\.jpg lies in .*, in no class; .*or away", share=0.5)
    refused(fill(tmp_path / "bytes", {"a": 3, "b\udcff": 3}), r"b\\xff' is not UTF-8; rename it", share=0.5)


def test_train_and_test_may_be_classes_where_a_share_is_the_test(tmp_path: Path) -> None:
    path = fill(tmp_path / "vehicles", {"car": 4, "train": 4})
    assert datasets.data(f"folder:{path}", initial=0, seed=0, test_share=0.5)[0].names == ("car", "train")
    fill(path, {"test": 4})
    assert datasets.data(f"folder:{path}", initial=0, seed=0, test_share=0.5)[0].names == ("car", "test", "train")
    with pytest.raises(
        ValueError, match=r"train holds images and no class folders; .*if train is a class.*test_share=0\.2"
    ):
        datasets.data(f"folder:{path}", initial=0, seed=0)
    fill(path / "train", {"steam": 4, "freight": 4})
    with pytest.raises(ValueError, match="rename it, if train is a class"):
        datasets.data(f"folder:{path}", initial=0, seed=0, test_share=0.5)


def test_a_pool_and_a_test_of_two_sizes_need_a_size(tmp_path: Path) -> None:
    path = fill(tmp_path / "set", {"a": 2, "b": 2})
    _, test = datasets.data(f"folder:{path}", initial=0, seed=0, test_share=0.5)
    for k, value in enumerate(test.images[:, 0, 0, 0].tolist()):
        Image.new("RGB", (6, 6)).save(path / "ab"[k] / f"{value - 20 * k:02}.png")
    with pytest.raises(ValueError, match=r"4x4, those of test 6x6.*--size"):
        datasets.data(f"folder:{path}", initial=0, seed=0, test_share=0.5)


def test_a_class_that_accuracy_does_not_see_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "set" / "train", {"a": 2, "b": 2, "c": 2})
    fill(tmp_path / "set" / "test", {"a": 2, "b": 2})
    with caplog.at_level(logging.WARNING, "alzoo"):
        datasets.data(f"folder:{tmp_path / 'set'}", initial=0, seed=0)
    (said,) = caplog.messages
    assert "accuracy does not see them: c" in said


def test_classes_whose_names_are_numbers_go_by_their_names_only(tmp_path: Path) -> None:
    path = fill(tmp_path / "set", {"1": 4, "2": 4, "3": 4, "10": 4})
    chosen = partial(datasets.data, f"folder:{path}", initial=0, seed=0, test_share=0.5)
    assert chosen(classes=["3", "1"])[0].names == ("3", "1")
    for settings in ({"classes": ["0", "2"]}, {"leave_out": ["0"]}):
        with pytest.raises(UnknownName, match=r"no class is called '0'\..*There are: 1, 10, 2, 3"):
            chosen(**settings)


def test_unreadable_images_keep_labels_and_images_together(halves: Path) -> None:
    (halves / "train" / "cat" / "02.png").write_bytes(b"rubbish")
    (halves / "test" / "dog" / "00.png").write_bytes(b"")
    pool, test = datasets.data(f"folder:{halves}", initial=7, seed=0)
    assert pool.labels.tolist() == [0] * 4 + [1] * 3
    assert torch.equal((pool.images[:, 0, 0, 0] < 20).long(), pool.labels)
    assert test.targets.tolist() == [0, 1]


def _idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("name", "below"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_from_its_files(tmp_path: Path, name: str, below: str) -> None:
    chance = np.random.default_rng(0)
    images = {half: chance.integers(0, 256, (n, 28, 28)) for half, n in (("train", 30), ("t10k", 20))}
    for half, values in images.items():
        _idx(tmp_path / below / "raw" / f"{half}-images-idx3-ubyte", values)
        _idx(tmp_path / below / "raw" / f"{half}-labels-idx1-ubyte", np.arange(len(values)) % 10)
    pool, test = datasets.data(name, initial=10, seed=0, balanced=True, root=tmp_path)
    assert pool.shape == (1, 28, 28)
    assert torch.equal(pool.images[:, 0].long(), torch.from_numpy(images["train"]))
    assert torch.equal(test.images[:, 0].long(), torch.from_numpy(images["t10k"]))
    assert test.targets.tolist() == list(range(10)) * 2
    assert pool.names[0] == {"mnist": "0", "fashion_mnist": "T-shirt/top"}[name]
    smaller, _ = datasets.data(name, initial=0, seed=0, root=str(tmp_path), size=14)
    assert smaller.shape == (1, 14, 14)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind, k = (CIFAR10, 10) if name == "cifar10" else (CIFAR100, 100)
    key = "labels" if name == "cifar10" else "fine_labels"
    pixels = np.random.default_rng(0).integers(0, 256, (200, 3072), np.uint8)
    here = tmp_path / kind.base_folder
    here.mkdir()
    (here / "train").write_bytes(pickle.dumps({"data": pixels, key: [i % k for i in range(200)]}))
    (here / "test").write_bytes(pickle.dumps({"data": pixels[:50], key: [i % k for i in range(50)]}))
    (here / "meta").write_bytes(pickle.dumps({kind.meta["key"]: [f"class {i}" for i in range(k)]}))
    monkeypatch.setattr(kind, "train_list", [["train", None]])
    monkeypatch.setattr(kind, "test_list", [["test", None]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "filename": "meta", "md5": None})
    pool, test = datasets.data(name, initial=k, seed=0, balanced=True, root=tmp_path)
    assert torch.equal(pool.images, torch.from_numpy(pixels).view(200, 3, 32, 32))
    assert (pool.classes, pool.names[3]) == (k, "class 3")
    assert test.targets.tolist() == [i % k for i in range(50)]


def test_svhn_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), np.uint8)
    for half in ("train", "test"):
        savemat(tmp_path / f"{half}.mat", {"X": pixels, "y": np.arange(20)[:, None] % 10 + 1})
    monkeypatch.setattr(SVHN, "split_list", {h: ["", f"{h}.mat", None] for h in ("train", "test")})
    pool, test = datasets.data("svhn", initial=5, seed=0, root=tmp_path)
    assert torch.equal(pool.images, torch.from_numpy(pixels.transpose(3, 2, 0, 1).copy()))
    assert test.targets.tolist() == [*range(1, 10), 0] * 2


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_a_download_that_fails_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import torchvision.datasets as tv

    def offline(_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr({"mnist": tv.MNIST, "cifar10": tv.CIFAR10, "svhn": tv.SVHN}[name], "download", offline)
    with pytest.raises(ConnectionError, match=r"cannot be downloaded \(no network\).*--root") as caught:
        datasets.data(name, initial=5, seed=0, root=tmp_path / "root")
    assert str(tmp_path / "root") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_validation_takes_the_place_of_the_test_and_the_pool_loses_it() -> None:
    whole, test = datasets.data("digits", initial=40, seed=0)
    pool, held = datasets.data("digits", initial=40, seed=0, validation=0.25)
    assert len(pool) + len(held.images) == len(whole)
    rows = {row.tobytes() for row in whole.images.numpy()}
    assert {row.tobytes() for row in held.images.numpy()} <= rows  # no test image is looked at
    assert not {row.tobytes() for row in held.images.numpy()} & {row.tobytes() for row in test.images.numpy()}
    assert torch.equal(held.images, datasets.data("digits", initial=40, seed=1, validation=0.25)[1].images)
    assert not torch.equal(held.images, datasets.data("digits", initial=40, seed=0, validation=0.25, split=1)[1].images)
    left = pool.reveal(pool.unlabeled).labels.bincount()
    assert held.targets.bincount().tolist() == ((left + held.targets.bincount()) / 4).round().long().tolist()


def test_a_subset_is_part_of_the_pool_the_same_for_all_seeds_and_the_test_is_whole() -> None:
    whole, test = datasets.data("digits", initial=40, seed=0)
    pool, held = datasets.data("digits", initial=40, seed=0, subset=300)
    assert len(pool) == 300
    assert torch.equal(held.images, test.images)
    assert {row.tobytes() for row in pool.images.numpy()} <= {row.tobytes() for row in whole.images.numpy()}
    assert torch.equal(pool.images, datasets.data("digits", initial=40, seed=1, subset=300)[0].images)
    assert not torch.equal(pool.images, datasets.data("digits", initial=40, seed=0, subset=300, split=1)[0].images)


@pytest.mark.parametrize(
    "wrong", [{"subset": 0}, {"subset": 1439}, {"validation": 0.0}, {"validation": 1.0}, {"validation": "0.2"}]
)
def test_a_part_of_the_pool_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        datasets.data("digits", initial=40, seed=0, **wrong)
