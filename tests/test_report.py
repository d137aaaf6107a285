"""The page, the plot and the table of synthetic runs: whole, half done, tiny, and with hostile names."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from zoo.studies import measures, report, statistics

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Check that tags nest, and keep the text and the attributes that refer to something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.words.append(data)


def run_directory(
    folder: Path,
    learners: tuple[str, ...] = ("vaal", "plain+margin", "random"),
    seeds: int = 3,
    rounds: int = 3,
    sheets: bool = True,
    **more: Any,
) -> Path:
    """Lay out a run whose learners get better in the reverse of their order; `keep` tells which records are there."""
    keep = more.pop("keep", lambda *_: True)
    lines = []
    for seed in range(seeds):
        for rank, learner in enumerate(reversed(learners)):
            for number in range(rounds + 1):
                if not keep(learner, seed, number):
                    continue
                accuracy = 0.5 + 0.05 * number + 0.02 * rank * number + 0.003 * seed * (1 + rank % 2)
                record = {"learner": learner, "plan": "ours", "seed": seed, "round": number}
                record |= {"labels": 40 + 20 * number, "accuracy": accuracy, "asked": list(range(20))}
                record |= {"asked_classes": [12, 8, 0], "fit_seconds": 1.5, "steps": 100, "peak_bytes": 2**20}
                record |= {"select_seconds": None if number == 0 else 0.25, "diagnosis": {"critic_accuracy": 0.75}}
                record |= {"versions": {"torch": "2.11"}, "machine": "two cores", "commit": "abc1234"}
                lines.append(record | {key: value(seed) for key, value in more.items()})
                if sheets and seed == 0 and "/" not in learner:
                    sheet = folder / "asked" / learner / f"seed{seed}-round{number}.png"
                    sheet.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("L", (40, 20), 90).save(sheet)
    names = ", ".join(json.dumps(learner) for learner in learners)
    study = (
        f'data = "digits"\nlearners = [{names}]\nseeds = {seeds}\nrounds = {rounds}\n\n[learner.vaal]\nsteps = 100\n'
    )
    (folder / "study.toml").write_text(study, encoding="utf-8")
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def page(folder: Path) -> tuple[str, Reader]:
    report.write(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    offline(text, reader)
    return text, reader


def offline(text: str, reader: Reader) -> None:
    assert not re.findall(r"https?://|@import|url\((?!#)", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in reader.references)
    assert "link" not in reader.tags
    assert "iframe" not in reader.tags


def summary(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "summary.csv").read_text(encoding="utf-8"))))


def words(reader: Reader) -> str:
    return " ".join(" ".join(reader.words).split())


def test_a_finished_run_gives_table_plot_and_page_and_no_drafts(tmp_path):
    _, reader = page(run_directory(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("study.toml", "results.jsonl", "asked", "summary.csv", "table.md", "curves.png", "curves.svg", "report.html"),
        *("ranks.png", "ranks.svg", "tb"),
    }
    said = words(reader)
    assert "finished" in said
    assert "unfinished" not in said
    assert "vaal leads" in said
    assert "excludes zero" in said
    assert "steps = 100" in said
    assert "torch 2.11" in said
    assert "critic_accuracy" in said
    assert "These records mix" not in said
    assert len([name for name in reader.references if name.startswith("data:")]) == 12  # contact sheets are inlined
    with Image.open(tmp_path / "curves.png") as plot:
        assert plot.width > plot.height > 500


def test_summary_csv_opens_with_the_promised_columns_and_agrees_with_measures(tmp_path):
    report.write(run_directory(tmp_path))
    rows = summary(tmp_path)
    assert list(rows[0])[:8] == [
        *("learner", "aubc", "aubc_low", "aubc_high", "final", "final_low", "final_high", "seeds")
    ]
    assert [row["learner"] for row in rows] == ["vaal", "plain+margin", "random"]
    expected = measures.summary(measures.read(tmp_path / "results.jsonl"), ["vaal", "plain+margin", "random"])
    for row, known in zip(rows, expected, strict=True):
        assert known.aubc is not None
        assert float(row["aubc"]) == pytest.approx(known.aubc[0], abs=1e-6)
        assert (row["seeds"], row["seeds_planned"]) == ("3", "3")
    assert rows[2]["gain"] == ""


def test_one_learner_one_seed_one_round_and_no_sheets(tmp_path):
    _, reader = page(run_directory(tmp_path, ("vaal",), seeds=1, rounds=0, sheets=False))
    said = words(reader)
    assert "only learner measured" in said
    assert "With one seed nothing can be said about chance." in said
    assert "±" not in said.split("Summary")[1].split("half of the")[0].replace("± is", "")
    (row,) = summary(tmp_path)
    assert (row["aubc_low"], row["aubc_high"], row["final_low"], row["final_high"]) == ("", "", "", "")
    assert not [name for name in reader.references if name.startswith("data:")]


def test_a_run_without_any_record_still_has_a_page(tmp_path):
    run_directory(tmp_path)
    (tmp_path / "results.jsonl").unlink()
    _, reader = page(tmp_path)
    assert "no record yet" in words(reader)
    assert "0 of 9 runs complete" in words(reader)


def test_an_unfinished_run_says_so_with_counts(tmp_path):
    folder = run_directory(
        tmp_path, keep=lambda learner, seed, number: not (learner == "vaal" and seed > 0 and number > 1)
    )
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"learner": "va')
    _, reader = page(folder)
    said = words(reader)
    assert "unfinished" in said
    assert "7 of 9 runs complete" in said
    assert "32 of 36 fits recorded" in said
    assert "1 of 3" in said
    assert "So far, vaal leads" in said
    assert "With one seed nothing can be said about chance." in said


def test_nobody_leads_before_a_seed_is_complete(tmp_path):
    _, reader = page(run_directory(tmp_path, keep=lambda *cell: cell[2] < 2))
    assert "nothing to rank" in words(reader)


def test_random_in_front_and_random_missing_are_said(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert "No learner does better" in words(page(run_directory(tmp_path / "a", ("random", "vaal")))[1])
    assert "Random has no complete seed" in words(page(run_directory(tmp_path / "b", ("waal", "vaal")))[1])


def test_any_learner_name_is_shown_as_it_is(tmp_path):
    names = (
        "<b>bold</b>",
        '"><script>alert(1)</script>',
        "a$b$c",
        "_hidden",
        "名前 é",
        "'&amp;",
        "{{ 7 * 7 }}",
        "x" * 300,
    )
    text, reader = page(run_directory(tmp_path, (*names, "random"), seeds=2, rounds=1, sheets=False))
    said = "".join(reader.words)
    assert [name for name in names if name not in said] == []
    assert "<b>bold" not in text
    assert reader.tags.count("script") == 1


def test_mixed_provenance_is_loud(tmp_path):
    _, reader = page(run_directory(tmp_path, machine=lambda seed: f"machine {seed}", commit=lambda _: None))
    said = words(reader)
    assert "These records mix several machines." in said
    assert "Several machines: 3 different ones." in said
    assert "not recorded" in said


def test_writing_twice_changes_nothing(tmp_path):
    report.write(run_directory(tmp_path))
    names = ("summary.csv", "curves.png", "report.html")
    first = [(tmp_path / name).read_bytes() for name in names]
    report.write(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == first


def test_a_broken_run_leaves_the_old_page_alone(tmp_path):
    report.write(run_directory(tmp_path))
    before = (tmp_path / "report.html").read_bytes()
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write("broken\n")
    with pytest.raises(ValueError, match="line 37"):
        report.write(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_the_terminal_table_ranks_in_percent(tmp_path):
    folder = run_directory(tmp_path, ("[red]vaal", "random"))
    study = measures.settings(folder)
    grid = report.table(measures.read(folder / "results.jsonl"), study["learners"], study["rounds"], study["seeds"])
    console = Console(width=120, file=io.StringIO())
    console.print(grid)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.index("\n [red]vaal") < shown.index("\n random")
    assert "3/3" in shown
    # 0.5 + 0.07 * 1.5 + 0.006, and 4.302653 * 0.006 / sqrt(3)
    assert "61.10 ± 1.49" in shown


def test_doubts_are_said_after_the_last_round_of_each_seed(tmp_path):
    run_directory(tmp_path, seeds=2, doubts=lambda seed: ["the critic guesses"] if seed else [])
    records = measures.read(tmp_path / "results.jsonl")
    said = measures.doubts(records, ["vaal", "random"])
    assert said[0] == ("vaal", "the critic guesses (seed 1, round 3)")
    assert [learner for learner, _ in said] == ["vaal", "random", "plain+margin"]
    _, reader = page(tmp_path)
    assert "vaal: the critic guesses (seed 1, round 3)" in words(reader)


def test_the_page_says_verdicts_targets_and_overlap(tmp_path):
    run_directory(tmp_path, seeds=5)
    _, reader = page(tmp_path)
    said = words(reader)
    (row,) = [d for d in statistics.differences(measures.read(tmp_path / "results.jsonl")) if d.learner == "vaal"]
    assert row.verdict == "better"
    assert "Against random, seed by seed" in said
    assert f"{100 * row.t[0]:+.2f}" in said
    assert "better" in said
    assert "Who beats whom" in said
    assert "Who asks alike" in said
    assert "The noise floor" in said


def test_the_table_for_a_paper_has_a_row_for_each_learner(tmp_path):
    run_directory(tmp_path, seeds=5)
    page(tmp_path)
    head, rule, *rows = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert head.count("|") == rule.count("|") == 10
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["vaal", "plain+margin", "random"]
    assert "| better |" in rows[0]


def test_the_curves_are_the_same_file_for_the_same_records(tmp_path):
    page(run_directory(tmp_path))
    before = [(tmp_path / f"curves.{kind}").read_bytes() for kind in ("png", "svg")]
    page(tmp_path)
    assert before == [(tmp_path / f"curves.{kind}").read_bytes() for kind in ("png", "svg")]
