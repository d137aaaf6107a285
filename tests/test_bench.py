"""The bench: its forms answer alike or are found out, and its figures are whole. Nothing is asserted about time."""

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo import bench
from zoo.bench import Case, Figure, growth, measure, plain, queries, tables
from zoo.bench.queries import Form, Size, agree, asking, made_up
from zoo.cli import app
from zoo.queries import QUERIES
from zoo.register import affordable

ROOT = Path(__file__).parents[1]
SMALL = Size(120, 5, 10, d=8)


def command(*words):
    app.commands["bench"].main(list(words), standalone_mode=False)


@pytest.fixture
def small(monkeypatch):
    """Every case of a query at a size that takes no time."""
    real = queries.asking

    def shrunk(name, size, forms, **more):
        return real(name, replace(SMALL, k=size.k), forms, **{**more, "check": lambda: None})

    monkeypatch.setattr(queries, "asking", shrunk)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("kcenter", plain.pairwise_calls),
        ("kcenter", lambda scan, n: plain.pairwise_calls(scan, n, loop=True)),
        ("kcenter", plain.cdist_calls),
        ("kcenter", plain.product_calls),
        ("kcenter", plain.full_matrix),
        ("batch_bald", plain.every_candidate),
        ("entropy", plain.scipy_entropy),
        ("margin", plain.numpy_margin),
    ],
)
def test_a_plain_form_answers_as_ours_does(name, form):
    agree(name, {"plain": Form(ask=form)}, replace(SMALL, d=24))


def test_a_form_that_answers_otherwise_is_found_out_before_anything_is_timed():
    case = asking("kcenter", SMALL, {"cold": Form(ask=lambda _, n: torch.arange(n))})
    with pytest.raises(RuntimeError, match="kcenter and its form 'cold' do not ask for the same"):
        measure([case])


def test_badge_and_its_plain_forms_draw_alike():
    queries.same_draws()


def test_badge_that_draws_otherwise_is_found_out(monkeypatch):
    monkeypatch.setitem(QUERIES, "badge", replace(QUERIES["badge"], ask=QUERIES["random"].ask))
    with pytest.raises(RuntimeError, match="badge draws"):
        queries.same_draws()


def test_the_two_plain_forms_of_badge_draw_the_same():
    one, other = (form(made_up(replace(SMALL, d=24)), 20) for form in (plain.written_out, plain.factored))
    assert torch.equal(one, other)


def test_the_radius_of_kcenter_is_that_of_the_plain_form(monkeypatch):
    queries.same_radius(Size(900, 20, 30, d=16))
    monkeypatch.setitem(QUERIES, "kcenter", QUERIES["random"])
    with pytest.raises(RuntimeError, match="leaves a radius"):
        queries.same_radius(Size(900, 20, 30, d=16))


@pytest.mark.parametrize("name", ["propagation", "neighbours"])
def test_the_graph_of_label_propagation_is_compared_with_plain_forms(name):
    (case,) = queries.cases((name,))
    case.check()


@pytest.mark.parametrize("name", list(QUERIES))
@pytest.mark.usefixtures("small")
def test_every_query_is_measured(name):
    figures = measure(queries.cases((name,)), rounds=1)
    assert {figure.case for figure in figures} == {name}
    for figure in figures:
        assert 0 < figure.least <= figure.seconds <= figure.most
        assert figure.mib >= 0
        assert (figure.ratio is None) == (figure.form == "ours")


def test_the_bench_of_queries_leaves_none_out():
    assert {case.name for case in queries.cases()} - {"label propagation", "neighbours"} == set(QUERIES)


def test_seconds_are_of_the_whole_work_and_ratios_within_a_round(monkeypatch):
    """One form takes 4 s for all of it, one 1 s for a tenth, in a world where each round is slower and takes more."""
    slow, clock = iter((1, 2, 3)), SimpleNamespace(now=1)
    monkeypatch.setattr(bench, "timed", lambda act: (act() * clock.now, act(), 6.0 + clock.now))

    def ours():
        clock.now = next(slow)
        return lambda: 4.0

    case = Case(name="x", work="y", forms={"ours": ours, "part": lambda: lambda: 1.0}, share={"part": 0.1})
    own, part = measure([case], rounds=3)
    assert (own.seconds, own.least, own.most, own.ratio, own.mib) == (8, 4, 12, None, 7.0)
    assert (part.seconds, part.cpu, part.ratio) == (20, 10, (2.5, 2.5, 2.5))


FIGURE = Figure(
    case="x",
    work="y",
    form="z",
    threads=1,
    seconds=1,
    least=1,
    most=2,
    cpu=1,
    mib=60,
    share=1,
    ratio=(3, 2, 4),
    required=5,
    within=None,
)


def test_what_falls_short_of_what_is_required_is_said():
    assert FIGURE.missed == "x: z takes 3 times as long as ours; 5 required"
    assert not replace(FIGURE, required=3).missed
    own = replace(FIGURE, form="ours", ratio=None, required=None, within=50)
    assert own.missed == "x: ours takes 60 MiB; at most 50 required"
    assert not replace(own, within=60).missed


def test_a_row_names_its_work_once_and_what_is_required():
    own = replace(FIGURE, form="ours", ratio=None, required=None, within=150)
    assert tables.figures([own, FIGURE]) == [
        ("x: y", "ours", "1 (1 - 2)", "60", "", "150 MiB", ""),
        ("", "z", "1 (1 - 2)", "60", "3 (2 - 4)", "5 times", "missed"),
    ]


def test_the_command_writes_what_it_shows_of_processes_of_their_own(tmp_path, capsys, monkeypatch):
    file = tmp_path / "figures.json"
    words = ["queries", "--queries", "random,margin", "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured in this process"))
    command(*words)
    written = json.loads(file.read_text())
    assert {figure["case"] for figure in written["figures"]} == {"random", "margin"}
    assert [Figure(**figure).form for figure in written["figures"]][:2] == ["ours", "ours"]
    assert "torch" in written["versions"]
    assert "times ours" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command(*words)
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["queries", "--queries", "kcentre"], "kcenter"),
        (["data", "--growth"], "about queries"),
        (["--queries", "kcenter"], "about queries"),
        (["data", "--peers"], "about queries"),
    ],
)
def test_a_wrong_request_is_refused_in_words(words, reason, capsys):
    with pytest.raises(SystemExit):
        command(*words)
    assert reason in capsys.readouterr().err


def test_threads_are_as_they_were_afterwards():
    before = torch.get_num_threads()
    with bench.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_made_up_features_are_the_same_each_time():
    one, two = made_up(SMALL), made_up(SMALL)
    assert torch.equal(one.features, two.features)
    assert torch.equal(one.probs, two.probs)


def test_growth_is_the_power_of_the_pool():
    assert growth.slope({10: 1.0, 100: 100.0, 1000: 10_000.0}) == pytest.approx(2)
    assert growth.onwards({10: 3.0}, 100) == pytest.approx(30)
    assert growth.onwards({10: 3.0, 100: 300.0}, 1000) == pytest.approx(30_000)
    assert growth.onwards({10: 3.0, 100: 3.0}, 1000) == pytest.approx(30), "no less than linear"


def test_growth_is_measured_until_a_query_refuses_or_takes_too_long(monkeypatch):
    margin, jlp = growth.grown(("margin", "jlp"), pools=(200, 400), n=5)
    assert margin.seconds.keys() == jlp.seconds.keys() == {"200", "400"}
    assert margin.exponent is not None
    monkeypatch.setattr(growth, "SETTINGS", {"jlp": {"largest": 300}})
    monkeypatch.setattr(growth, "PATIENCE", 0.0)
    jlp, margin = growth.grown(("jlp", "margin"), pools=(400, 200), n=5)
    assert (jlp.seconds.keys(), jlp.note, jlp.exponent) == ({"200"}, "refuses 400", None)
    assert margin.note.startswith("400 not tried")
    assert tables.growth([margin])[0][0] == "margin"


@pytest.mark.parametrize("name", ["jlp", "probcover"])
def test_a_query_that_compares_all_pairs_refuses_a_large_pool_before_anything_is_trained(name, monkeypatch):
    pool, _ = zoo.data("digits", initial=20, seed=0)
    learner = zoo.create(name, query_settings={"largest": 1000})
    monkeypatch.setattr(learner, "_build", lambda *_: pytest.fail("it was being built"))
    with pytest.raises(
        ValueError, match=r"all pairs.*1,418.*largest=1,000.*kcenter.*query_settings=\{'largest': 1418\}"
    ):
        learner.fit(pool)


def test_it_refuses_before_anything_is_looked_at(monkeypatch):
    pool, _ = zoo.data("digits", initial=20, seed=0)
    learner = zoo.create("probcover", steps=1, query_settings={"largest": 1500}).fit(pool)
    learner.query_settings["largest"] = 1000
    monkeypatch.setattr(learner, "scan", lambda _: pytest.fail("it has looked"))
    with pytest.raises(ValueError, match="all pairs"):
        learner.select(pool, 5)


def test_queries_that_are_linear_refuse_no_pool():
    for query in QUERIES.values():
        if "largest" not in query.settings:
            affordable(query, 10**9, {})


@pytest.fixture
def readme_tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("readme_tables")


def test_the_readme_and_the_page_say_what_the_committed_figures_say(readme_tables):
    text = (ROOT / "README.md").read_text()
    assert readme_tables.written(text) == text, "run python scripts/readme_tables.py"
    assert readme_tables.whole() == (readme_tables.RESULTS / "README.md").read_text()


def test_a_table_is_written_between_its_marks_and_nowhere_else(readme_tables, tmp_path):
    free = replace(FIGURE, case="free", required=None, within=None)
    file = {
        "figures": [asdict(FIGURE), asdict(free)],
        "growth": [],
        "machine": "m",
        "versions": {"torch": "2"},
        "commit": "0123456789",
    }
    for name in ("queries", "growth"):
        (tmp_path / f"{name}.json").write_text(json.dumps(file))
    before = "a\n<!-- bench -->\nold\n<!-- /bench -->\nc"
    after = readme_tables.written(before, tmp_path)
    assert "| x: y | z | 1 (1 - 2) | 60 | 3 (2 - 4) | 5 times | missed |" in after
    assert "m, torch 2, commit 0123456." in after
    assert "old" not in after
    assert "free" not in after
    assert "free" in readme_tables.whole(tmp_path)
    assert after.startswith("a\n<!-- bench -->\n")
    assert after.endswith("<!-- /bench -->\nc")
    assert readme_tables.written(after, tmp_path) == after
    with pytest.raises(ValueError, match="0 places for a table"):
        readme_tables.written(before.replace("bench", "bank"), tmp_path)


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="measures what the system has lent")
def test_memory_that_was_freed_before_counts_when_it_is_taken_again():
    def act():
        return [torch.ones(2**20) for _ in range(64)]  # 256 MiB, in pieces that a heap keeps

    assert min(bench.timed(act)[2] for _ in range(3)) > 200


def test_a_range_is_shown_where_there_is_one():
    assert tables.ranged(3.0, 2.0, 4.0) == "3 (2 - 4)"
    assert tables.ranged(3.0, 3.0, 3.0) == "3"
