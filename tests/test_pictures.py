"""What the page shows as pictures, and the words it has for a diagnosis."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_browser import run_directory
from test_report import page, words
from test_statistics import record

from zoo.register import entries
from zoo.studies import measures, pictures
from zoo.studies.glossary import meanings


def confused(learner: str, seed: int, table: list[list[int]] | None) -> measures.Record:
    from dataclasses import replace

    made: measures.Record = record(learner, seed, 3, 0.5)
    return replace(made, confusion=None if table is None else tuple(map(tuple, table)))


def stored(folder: Path, count: int, pixels: int = 8, noise: bool = True) -> Path:
    """A contact sheet as a study writes it: 16 in a row, one grey pixel between."""
    columns, rows = min(16, count), -(-count // 16)
    size = (columns * (pixels + 1) + 1, rows * (pixels + 1) + 1)
    path = folder / "sheet.png"
    (Image.effect_noise(size, 90) if noise else Image.new("L", size)).save(path)
    return path


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


# Contact sheets


def test_a_small_sheet_is_kept_as_it_is(tmp_path: Path) -> None:
    path = stored(tmp_path, 20)
    found = pictures.sheet(path, record("a", 0, 1, 0.5, asked=range(20)), 10**6)
    assert found is not None
    assert base64.b64decode(found["uri"].partition("base64,")[2]) == path.read_bytes()
    assert (found["columns"], found["rows"], found["tile"], found["high"]) == (16, 2, 9, 9)


def test_a_large_sheet_is_made_smaller_and_says_how_many_rows_are_left(tmp_path: Path) -> None:
    path = stored(tmp_path, 64, pixels=32)
    found = pictures.sheet(path, record("a", 0, 1, 0.5, asked=range(64)), 8000)
    assert found is not None
    assert found["uri"].startswith("data:image/webp;")
    assert len(base64.b64decode(found["uri"].partition("base64,")[2])) <= 8000 or found["rows"] == 1
    assert found["rows"] < 4
    assert opened(found["uri"]).size == (found["width"], found["height"]) == (16 * 33 + 1, found["rows"] * 33 + 1)


def test_a_sheet_that_does_not_fit_its_record_has_no_tiles(tmp_path: Path) -> None:
    found = pictures.sheet(stored(tmp_path, 5), record("a", 0, 1, 0.5, asked=range(7)), 10**6)
    assert found is not None
    assert found["rows"] == 0


def test_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"no picture")
    assert pictures.sheet(tmp_path / "sheet.png", record("a", 0, 1, 0.5), 10**6) is None
    assert pictures.sheet(tmp_path / "nowhere.png", record("a", 0, 1, 0.5), 10**6) is None


def test_the_sheets_of_a_page_stay_within_their_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_directory(tmp_path, "digits")
    monkeypatch.setattr(pictures, "BUDGET", 15 * 200)
    records = measures.read(tmp_path / "results.jsonl")
    sheets = [entry["sheet"] for one in pictures.galleries(tmp_path, records, None) for entry in one["rounds"]]
    assert len(sheets) == 15
    assert all(sheet["uri"].startswith("data:image/webp;") for sheet in sheets)


# Confusions


def test_confusions_are_shares_of_the_true_class_and_means_over_seeds() -> None:
    records = [confused("a", 0, [[3, 1], [0, 2]]), confused("a", 1, [[1, 1], [0, 0]]), confused("b", 0, None)]
    (found,) = pictures.confusions(records, ["a", "b"], ["cat", "dog"])
    assert found["rows"] == [[0.625, 0.375], [0, 0.5]]  # the second seed has no dog: its row is empty
    assert found["pairs"] == [("cat", "dog", 0.375)]
    assert (found["seeds"], found["picture"], found["names"]) == (2, None, ["cat", "dog"])


def test_many_classes_are_a_picture_with_a_pixel_for_each_pair() -> None:
    table = np.diag([5] * 100)
    table[3, 7] = 5
    (found,) = pictures.confusions([confused("a", 0, table.tolist())], ["a"], [])
    pixels = np.asarray(opened(found["picture"]))
    assert pixels.shape == (100, 100, 4)
    assert (pixels[..., 3] > 0).sum() == 101
    assert tuple(pixels[0, 0]) == (0, 114, 178, 255)
    assert tuple(pixels[3, 7, :3]) == (213, 94, 0)
    assert found["pairs"] == [("3", "7", 0.5)]


def test_tables_of_other_classes_are_not_mixed() -> None:
    records = [confused("a", 0, [[1, 0], [0, 1]]), confused("a", 1, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])]
    assert pictures.confusions(records, ["a"], []) == []


# On the page


def test_the_page_shows_maps_confusions_scores_and_pseudo_labels(tmp_path: Path) -> None:
    run_directory(tmp_path, "digits")
    text, reader = page(tmp_path)
    said = words(reader)
    assert "features of the classifier, 4 of 90 images; 75 % of the variance" in said
    assert 'class="asked" d="M20 30h0"' in text
    assert "most often cat for ant (20.0 %), ant for bee (10.0 %), ant for cat (10.0 %)" in said
    assert "scores 0.75 to -0.0625" in said
    assert 'data-scores="0.75 -0.0625"' in text
    assert "ssal 87.50 ± 0.00 (90)" in said
    assert "labeled against unlabeled images of the pool, 0.5 is chance" in said
    assert "5 of 5 learners have the very same network there" in said


def test_a_run_of_old_without_maps_and_confusions_has_a_page(tmp_path: Path) -> None:
    import shutil

    run_directory(tmp_path, "digits")
    shutil.rmtree(tmp_path / "map")
    lines = (tmp_path / "results.jsonl").read_text()
    (tmp_path / "results.jsonl").write_text(lines.replace('"confusion": [[', '"old": [[').replace("pseudo_", "old_"))
    said = words(page(tmp_path)[1])
    assert "What the learners see" not in said
    assert "What is taken for what" not in said
    assert "Labels that learners give themselves" not in said
    assert "vaal" in said


def test_a_page_of_a_hundred_classes_and_thirty_learners_is_small(tmp_path: Path) -> None:
    import json

    learners = [f"learner{number}" for number in range(30)]
    line: dict[str, Any] = {"labels": 40, "plan": "ours", "asked": [1], "asked_classes": [1] * 100}
    confusion = (np.eye(100, dtype=int) * 9 + np.eye(100, k=1, dtype=int)).tolist()
    with (tmp_path / "results.jsonl").open("w") as file:
        for number in (0, 1):
            for rank, name in enumerate(learners):
                own = {"learner": name, "seed": 0, "round": number, "accuracy": 0.5 + 0.01 * rank}
                file.write(json.dumps({**line, **own, "confusion": confusion if number else None}) + "\n")
    (tmp_path / "study.toml").write_text(
        f'data = "cifar100"\nlearners = {json.dumps(learners)}\nseeds = 1\nrounds = 1\n'
    )
    text, reader = page(tmp_path)
    assert len(text) < 500_000
    assert len([uri for uri in reader.references if uri.startswith("data:")]) == 30
    assert "most asked about" in words(reader)


# Words


@pytest.mark.parametrize("name", [name for name, entry in entries().items() if entry.diagnose])
def test_every_diagnosis_has_words_for_its_numbers(name: str) -> None:
    assert len(meanings(name)) >= 2
    assert all(len(meaning) > 10 for meaning in meanings(name).values())


def test_words_come_from_the_entry_before_those_it_refers_to() -> None:
    assert meanings("bgadl")["recon"].endswith("1 is a decoder of the mean image")
    assert meanings("vaal")["recon"].endswith("a decoder that shows the mean image")
    assert "others" not in meanings("vaal")["critic_auc"]
    assert meanings("plain") == meanings("nobody's") == {}
