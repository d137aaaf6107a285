"""Several runs in one report: what is ranked, where it goes, and what is left alone."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_report import offline as is_offline
from test_report import page, run_directory, words

from zoo.cli import app
from zoo.studies import measures, report, together

FILES = {"report.html", "table.md", "summary.csv", "ranks.csv", "ranks.png", "ranks.svg", "together.json"}


def runs(folder: Path, *data: str, learners: tuple[str, ...] = ("vaal", "plain+margin", "random")) -> list[Path]:
    """A run of each data, in which learners get better in the reverse of their order."""
    made = []
    for number, name in enumerate(data):
        run = folder / f"run{number}"
        run.mkdir()
        run_directory(run, learners, sheets=False)
        text = (run / "study.toml").read_text()
        (run / "study.toml").write_text(text.replace('data = "digits"', f'data = "{name}"'))
        made.append(run)
    return made


def alzoo(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def text_of(file: Path) -> str:
    from test_report import Reader

    reader, text = Reader(), file.read_text(encoding="utf-8")
    reader.feed(text)
    reader.close()
    assert reader.open == []
    reader.references = [name for name in reader.references if not name.startswith("..")]  # the runs' own pages
    is_offline(text, reader)
    return words(reader)


def test_several_runs_are_ranked_together(tmp_path: Path) -> None:
    out = together.write(runs(tmp_path, "digits", "mnist"))
    assert out.parent == tmp_path
    assert out.name.startswith("together-")
    assert {path.name for path in out.iterdir()} == FILES
    said = text_of(out / "report.html")
    assert "vaal has the best mean rank: 1.00 among 3 learners, over 2 runs with 6 seeds in all." in said
    assert "The ranks differ by more than chance" in said
    assert "digits" in said
    assert "mnist" in said
    rows = list(csv.DictReader((out / "ranks.csv").read_text().splitlines()))
    assert [(row["learner"], float(row["mean_rank"])) for row in rows] == [
        ("vaal", 1.0),
        ("plain+margin", 2.0),
        ("random", 3.0),
    ]
    assert float(rows[0]["wilcoxon_p"]) == 2 / 2**6
    assert float(rows[0]["wilcoxon_p_holm"]) == 4 / 2**6
    assert rows[2]["wilcoxon_p"] == ""


def test_the_table_for_a_paper_has_a_column_for_each_run(tmp_path: Path) -> None:
    out = together.write(runs(tmp_path, "digits", "digits"))
    head, rule, *rows = (out / "table.md").read_text(encoding="utf-8").splitlines()
    assert head == "| learner | mean rank | digits (run0) | digits (run1) | pairs | p, Wilcoxon, Holm |"
    assert rule.count("|") == head.count("|")
    # differences of 0.06 + 0.003 * seed - 0.003 * seed: 6 points in every seed, of both runs
    assert rows[0] == "| vaal | 1.00 | +6.00 ± 0.00 | +6.00 ± 0.00 | 6 | 0.062 |"
    assert rows[2] == "| random | 3.00 | – | – | – | – |"


def test_the_summary_has_a_row_for_each_learner_of_each_run(tmp_path: Path) -> None:
    each = runs(tmp_path, "digits", "mnist")
    rows = list(csv.DictReader((together.write(each) / "summary.csv").read_text().splitlines()))
    assert len(rows) == 6
    own = measures.summary(measures.read(each[1] / "results.jsonl"), ["vaal", "plain+margin", "random"])
    (found,) = [row for row in rows if (row["run"], row["learner"]) == ("mnist", "vaal")]
    assert own[0].aubc is not None
    assert float(found["aubc"]) == pytest.approx(own[0].aubc[0], abs=1e-6)
    assert found["verdict"] == "better"


def test_a_learner_that_one_run_lacks_has_no_rank_but_is_compared(tmp_path: Path) -> None:
    four = ("vaal", "ssal", "plain+margin", "random")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    both = [*runs(tmp_path / "a", "digits"), *runs(tmp_path / "b", "mnist", learners=four)]
    standings = together.compared(together.read(both), None)
    assert {row.learner for row in standings} == set(four)
    said = text_of(together.write(both) / "report.html")
    assert "among 3 learners" in said
    assert "ssal –" in said


def test_runs_that_share_too_little_are_not_ranked(tmp_path: Path) -> None:
    out = together.write(runs(tmp_path, "digits", "mnist", learners=("vaal", "random")))
    assert {path.name for path in out.iterdir()} == FILES - {"ranks.png", "ranks.svg"}
    assert "cannot be ranked together" in text_of(out / "report.html")
    assert "They share 2." in text_of(out / "report.html")


def test_a_run_without_records_is_there_all_the_same(tmp_path: Path) -> None:
    each = runs(tmp_path, "digits", "mnist")
    (each[1] / "results.jsonl").unlink()
    said = text_of(together.write(each) / "report.html")
    assert "They share 0." in said
    assert "0 of 9" in said


def test_the_same_runs_in_any_order_go_into_the_same_folder_and_are_written_anew(tmp_path: Path) -> None:
    each = runs(tmp_path, "digits", "mnist")
    out = together.write(each)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert together.write(each) == out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert together.write(each[::-1]) == out


def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path: Path) -> None:
    each = runs(tmp_path, "digits", "mnist", "svhn")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("mine")
    with pytest.raises(FileExistsError, match="--out"):
        together.write(each, tmp_path / "mine")
    assert (tmp_path / "mine" / "report.html").read_text() == "mine"
    together.write(each, tmp_path / "three")
    with pytest.raises(FileExistsError, match="other runs"):
        together.write(each[:2], tmp_path / "three")
    with pytest.raises(FileExistsError, match="is a file"):
        together.write(each, tmp_path / "mine" / "report.html")
    with pytest.raises(FileExistsError, match="holds files"):
        together.write(each, each[0])


def test_the_command_reports_each_run_and_all_of_them(tmp_path: Path) -> None:
    each = runs(tmp_path, "digits", "mnist")
    said = alzoo("report", *each, "--out", tmp_path / "both")
    assert said.exit_code == 0, said.output
    assert f"together: {tmp_path / 'both' / 'report.html'}" in said.stdout
    assert all((run / "report.html").exists() for run in each)
    link = f'href="../{each[1].name}/report.html"'
    assert link in (tmp_path / "both" / "report.html").read_text()


def test_one_run_given_twice_is_one_run(tmp_path: Path) -> None:
    (run,) = runs(tmp_path, "digits")
    said = alzoo("report", run, tmp_path / "." / run.name)
    assert said.exit_code == 0
    assert said.stdout.count("report: ") == 1
    assert "together" not in said.stdout


def test_a_place_for_a_single_run_is_refused(tmp_path: Path) -> None:
    (run,) = runs(tmp_path, "digits")
    said = alzoo("report", run, "--out", tmp_path / "out")
    assert said.exit_code == 2
    assert "several runs" in said.stderr
    assert not (tmp_path / "out").exists()


# One run


def test_ranks_of_one_run_are_over_its_seeds(tmp_path: Path) -> None:
    said = words(page(run_directory(tmp_path))[1])
    assert "Mean rank of each learner's AUBC over 3 seeds" in said
    assert (tmp_path / "ranks.svg").exists()


def test_tensorboard_is_made_again_where_it_is_missing_and_kept_where_it_is_not(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_directory(tmp_path, ("vaal", "random", "../out", "..", "x" * 300), seeds=2, sheets=False)
    kept = tmp_path / "tb" / "vaal" / "seed0" / "events.mine"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    report.write(tmp_path)
    assert [path.name for path in kept.parent.iterdir()] == ["events.mine"]
    assert {path.name for path in (tmp_path / "tb").iterdir()} == {"vaal", "random"}
    events = EventAccumulator(str(tmp_path / "tb" / "random" / "seed1"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    own = {line["labels"]: line["accuracy"] for line in lines if (line["learner"], line["seed"]) == ("random", 1)}
    told = {event.step: event.value for event in events.Scalars("al/accuracy")}
    assert told == pytest.approx(own)
