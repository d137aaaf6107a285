"""The `alzoo` command. Refusals are one line on stderr and status 2; torch is imported where it is needed."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from checkpoints import Weights
    from zoo.studies.study import Study

Command = TypeVar("Command", bound=Callable[..., Any])
BASELINES = ("random", "margin", "badge")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="alzoo")
@click.pass_context
def app(context: click.Context) -> None:
    """Generative and adversarial active learning, next to the query-only strategies."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@app.command("list")
@click.argument("kind", required=False, type=click.Choice(["entries", "queries", "weights", "data"]))
def list_(kind: str | None) -> None:
    """What there is: entries, queries, weights, data sets."""
    from zoo import datasets, register, trained

    show: dict[str, tuple[str, tuple[str, ...], Sequence[Sequence[object]]]] = {
        "entries": (
            "Entries: a method with its own training loop",
            ("name", "what", "plans", "paper"),
            [(e.name, doc(e.build.__module__), ", ".join(e.plans), e.paper) for e in register.entries().values()],
        ),
        "queries": (
            "Queries: by themselves on plain training, or on any entry as ENTRY+QUERY",
            ("name", "what", "time", "needs", "paper"),
            [(q.name, first(q.ask.__doc__), q.cost, ", ".join(q.needs), q.paper) for q in register.queries().values()],
        ),
        "weights": weights_table(trained.weights()),
        "data": (
            "Data",
            ("name", "what", "pool + test", "shape", "classes", "where from"),
            [
                (s.name, s.what, joined(" + ", s.images), joined("x", s.shape), s.classes, s.where)
                for s in datasets.describe()
            ],
        ),
    }
    for each, (title, columns, rows) in show.items():
        if kind in (None, each):
            Console().print(table(title, columns, rows) if rows else f"[bold]{title}[/]\n")


def words(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return parted(text, ",")


def classes(_: click.Context, __: click.Parameter, text: str) -> int | tuple[str, ...]:
    """How many classes, or, by name or with a comma, which."""
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else parted(text, ",")


def groups(_: click.Context, __: click.Parameter, text: str) -> tuple[tuple[str, ...], ...]:
    """Groups of classes, as cat+dog,car+bus; `superclasses` are those of CIFAR-100."""
    if text == "superclasses":
        from zoo.datasets import SUPERCLASSES

        return SUPERCLASSES
    return tuple(parted(group, "+") for group in parted(text, ","))


def parted(text: str, sign: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(sign) if word.strip())


def where(command: Command) -> Command:
    """The options that say where a study runs."""
    for option in reversed(
        [
            click.option(
                "--engine",
                type=click.Choice(["local", "shared", "ray"]),
                default="local",
                show_default=True,
                help="Here; here beside others who share the folder; on a Ray cluster ($RAY_ADDRESS).",
            ),
            click.option(
                "--workers", type=click.IntRange(1), help="Processes. [default: one a core; one on a GPU, or if shared]"
            ),
            click.option(
                "--gpus-per-cell", type=click.FloatRange(0), help="With ray: a part of one, or more. [default: 1]"
            ),
            click.option("--memory", help="That each process may hold at most, as 2GiB. [default: no bound]"),
            click.option("--devices", type=click.IntRange(1), help="That train each fit together. [default: 1]"),
            click.option("--strategy", type=click.Choice(["ddp"]), default="ddp", help="How --devices share a batch."),
        ]
    ):
        command = option(command)
    return command


@app.command()
@click.argument("data")
@click.option("--learners", help="Names, as vaal,margin,vaal+entropy. [default: all entries, and the baselines]")
@click.option("--initial", type=int, help="Labels at the start. [default: 1 % of the pool, 4 a class or more]")
@click.option("--budget", type=int, help="Labels asked in a round. [default: as many as the default of --initial]")
@click.option("--grow", default=1.0, show_default=True, help="Each round asks for that many times the last.")
@click.option("--rounds", default=5, show_default=True, help="How often is asked.")
@click.option("--seeds", default=1, show_default=True, help="Runs of each learner; from two on there are intervals.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results. [default: alzoo-runs/DATA-HASH]")
@click.option("--plan", default="ours", show_default=True, help="ours, paper or released.")
@click.option("--set", "setting", multiple=True, help="NAME.key=value: a setting of one learner; *.key=value: of all.")
@click.option("--controls", is_flag=True, help="Also run what splits gains into training and questions.")
@click.option("--shuffle", is_flag=True, help="Also run each learner with its scores shuffled over the images.")
@click.option("--balanced", is_flag=True, help="As many initial labels of each class.")
@click.option("--leave-out", default="0", callback=classes, help="Start without classes: how many, or `cat,dog`, `7,`.")
@click.option("--classes", default="", callback=words, help="Only images of these classes, as 5,7.")
@click.option("--imbalance", help="Thin out the pool: alternating:RATIO or long-tailed:RATIO.")
@click.option("--noise", default=0.0, show_default=True, help="Share of wrong answers, initial labels included.")
@click.option("--groups", default="", callback=groups, help="Wrong answers stay in cat+dog,car+bus; or superclasses.")
@click.option("--label-cost", default=0.0, show_default=True, help="What one label costs.")
@click.option("--cost-unit", default="seconds", show_default=True, help="What --label-cost is counted in.")
@click.option("--warm", is_flag=True, help="Each round starts from the last one's networks, not afresh.")
@click.option("--epochs", type=float, help="Steps by labels: each labeled image is seen that often a round.")
@click.option("--fix", "fixed", default="", callback=words, help="What seeds share: initial,networks,batches,...")
@click.option("--judge", help="Who labels made images: classifier (trained on all labels), or nearest real image.")
@click.option("--confidence", default=0.9, show_default=True, help="Less than that, and the classifier rejects.")
@click.option("--root", help="Folder of the torchvision data sets.")
@click.option("--size", type=int, help="Pixels of a side, where images differ or are too large.")
@click.option("--test-share", type=float, help="Share held out of a folder without test/.")
@click.option("--validation", type=float, help="Share of the pool that is tested on in place of the test images.")
@click.option("--subset", type=int, help="Only so many images of the pool.")
@click.option("--split", default=0, show_default=True, help="Seed of these three: another number, other images.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:NUMBER.")
@click.option("--precision", default="32-true", show_default=True, help="32-true, bf16-mixed or auto.")
@where
def compare(
    *,
    out: Path | None,
    learners: str | None,
    setting: tuple[str, ...],
    engine: str,
    workers: int | None,
    gpus_per_cell: float | None,
    memory: str | None,
    strategy: str,  # noqa: ARG001 (there is one so far)
    **protocol: Any,
) -> None:
    """Let learners compete for the same labels of DATA.

    DATA is a name that `alzoo list data` shows, or folder:PATH. Writes results, curves and a report into one folder;
    killed, the same command goes on. With --engine shared it may be started any number of times, on all hosts that see
    the folder, as the tasks of a SLURM array for example: each takes what nobody has, the last one writes the report.
    """
    with refusals(*wrong_requests()):
        from zoo.studies.study import Study

        names = (
            default_learners(protocol["plan"])
            if learners is None
            else tuple(name.strip() for name in learners.split(","))
        )
        if protocol["controls"] and "random" not in names:
            names = (*names, "random")  # so that --set *.key=value is for it, too
        study = Study(learners=names, settings=settings(setting, names), **protocol)
    with bounded(memory, engine):
        carry_out(study, out, engine, workers, gpus_per_cell)


@contextmanager
def bounded(memory: str | None, engine: str) -> Iterator[None]:
    """Inside, this process and those that it starts hold no more than that each, where it is given."""
    if memory is None:
        yield
        return
    with refusals(ValueError):
        from trainers.bounds import VARIABLE, parse

        if engine == "ray":
            raise ValueError(
                f"memory={memory!r} is for this machine; on those of a Ray cluster set {VARIABLE}={memory}"
            )
        parse(memory)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = memory
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


def carry_out(study: Study, out: Path | None, engine: str, workers: int | None, gpus: float | None) -> None:
    """Run a study in its folder, and show what came of it."""
    with refusals(*wrong_requests()):
        from zoo.studies import engine as engines
        from zoo.studies import measures, report
        from zoo.studies.records import writing
        from zoo.studies.study import prepare

        study = prepare(study)
        out = study.folder() if out is None else out
        engines.check(study, engine, workers, gpus)
        engines.claim(study, out)
        held_by_all(study)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"{out} cannot be made: {error.strerror}. Give another folder with --out") from error
    from trainers.run import Diverged

    with refusals(Diverged, OSError, ValueError), room(out):
        console = Console(stderr=True)
        left = engines.execute(study, out, engine=engine, workers=workers, gpus=gpus, console=console)
    if left:
        theirs = ", ".join(f"{name} seed {seed}" for name, seed in left)
        say(f"others are at {theirs}; the last one writes the report into {out}")
        return
    with refusals(OSError), room(out), writing(out):
        report.write(out)
    records = measures.read(out / "results.jsonl")
    Console().print(report.table(records, study.learners, study.rounds, study.seeds))
    if study.protocol is not None:
        shown = report.comparison({"protocol": study.protocol}, records)
        Console().print(shown if shown.rows else f"No number of {study.protocol} could be established.")
    for note in study.notes:
        say(note)
    for learner, sentence in measures.doubts(records, study.learners):
        say(f"{learner}: {sentence}")
    say(f"report: {out / 'report.html'}")


def say(text: str) -> None:
    """A line of its own, word for word: brackets are no markup, and nothing is broken."""
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


def held_by_all(study: Study) -> None:
    """Raise ValueError where memory is bounded, and one of the study's learners would hold more."""
    from trainers.bounds import VARIABLE

    if not os.environ.get(VARIABLE):
        return
    from zoo.room import holdable

    pool, test = study.pool(0)
    for name in study.learners:
        holdable(study.learner(name, 0, pool), pool, max(study.budgets(), default=1), test.images)


@app.command()
@click.argument("name", required=False)
@click.option("--list", "listed", is_flag=True, help="Show the protocols there are.")
@click.option("--data", help="What stands in for the protocol's data: folder:PATH, or a name.")
@click.option("--root", help="Folder of the torchvision data sets.")
@click.option("--scale", default=1.0, show_default=True, help="Shorten its steps, labels and seeds to that share.")
@click.option("--seeds", type=int, help="Fewer runs, or more. [default: as published]")
@click.option("--rounds", type=int, help="Fewer rounds, or more. [default: as published]")
@click.option("--size", type=int, help="Pixels of a side. [default: as published]")
@click.option("--set", "setting", multiple=True, help="NAME.key=value: another setting of one learner; *.key=value.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results. [default: alzoo-runs/DATA-HASH]")
@click.option("--device", help="auto, cpu, cuda or cuda:NUMBER. [default: auto]")
@where
def reproduce(
    name: str | None,
    *,
    listed: bool,
    setting: tuple[str, ...],
    out: Path | None,
    engine: str,
    workers: int | None,
    gpus_per_cell: float | None,
    memory: str | None,
    strategy: str,  # noqa: ARG001 (there is one so far)
    **changes: Any,
) -> None:
    """Run a published protocol, and show the published numbers beside ours.

    What is not as published (other data, --scale, other settings) is said on everything that is written.
    """
    with refusals(*wrong_requests()):
        from zoo.naming import pick
        from zoo.studies import reproduce as published

        if listed or name is None:
            rows = [
                (p.name, f"{p.what} ({p.paper}; published curves: {len(p.published)})")
                for p in published.protocols().values()
            ]
            Console().print(table("Protocols", ("name", "what"), rows))
            return
        learners = pick(published.protocols(), name, "protocol").study.learners
        study = published.study(name, settings=settings(setting, learners), **changes)
    with bounded(memory, engine):
        carry_out(study, out, engine, workers, gpus_per_cell)


@app.command("report")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for what several runs say together. [default: together-HASH beside the first DIR]",
)
def report_(directories: tuple[Path, ...], out: Path | None) -> None:
    """Rebuild tables, curves and page from any finished or half-finished run.

    With several runs, also one page about them all, in a folder of its own: ranks with their critical difference, and
    every learner against random over data sets and seeds (Wilcoxon, Holm). A folder that holds anything else is left
    alone.
    """
    with refusals(*wrong_requests()):
        from zoo.studies import report, together

        runs = list({directory.resolve(): directory for directory in directories}.values())
        if out is not None and len(runs) == 1:
            raise ValueError("--out is for what several runs say together; a single one is reported in its own folder")
        for directory in runs:
            report.write(directory)
            say(f"report: {directory / 'report.html'}")
        if len(runs) > 1:
            say(f"together: {together.write(runs, out) / 'report.html'}")


@app.command()
@click.argument("what", required=False, type=click.Choice(["data", "loops", "queries", "study"]))
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here, too.")
@click.option("--peers", is_flag=True, help="Time other people's packages beside the queries, as far as installed.")
@click.option("--queries", "names", default="", callback=words, help="Only these queries, as kcenter,badge.")
@click.option("--growth", is_flag=True, help="How the queries' time grows with the pool, instead: to 1,000,000 images.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often each form is timed.")
@click.option("--threads", type=click.IntRange(1), help="Of torch and numpy; by default 2 for loops, 1 for the rest.")
def bench(
    *,
    what: str | None,
    file: Path | None,
    peers: bool,
    names: tuple[str, ...],
    growth: bool,
    rounds: int,
    threads: int | None,
) -> None:
    """Time our forms beside plain forms of the same mathematics: of WHAT, or of everything.

    Some minutes. A ratio is a form's time over ours, in turn in a process of their own; what falls short of what is
    required of it is said after the table.
    """
    with refusals(*wrong_requests()):
        from zoo import bench as measured
        from zoo.bench import tables
        from zoo.bench.growth import grown as grow

        if file is not None and file.exists():
            raise FileExistsError(f"{file} exists. Give another file with --json")
        if file is not None and not file.absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {file.absolute().parent}; make it first")
        if what != "queries" and (names or growth or (peers and what is not None)):
            raise ValueError("--queries, --growth and --peers are about queries: alzoo bench queries ...")
        with Console(stderr=True).status("") as line:
            if growth:
                with measured.threads(threads or 1):
                    figures, grown = [], grow(names, watch=line.update)
            else:
                figures, grown = measured.everything(what, names, peers, rounds, line.update, threads), []
            said = measured.record(figures, grown)
    if grown:
        Console().print(table("growth", tables.GROWTH, tables.growth(grown)))
    else:
        Console().print(table("bench", tables.FIGURES, tables.figures(figures)))
    for sentence in filter(None, (figure.missed for figure in figures)):
        say(f"missed: {sentence}")
    if file is not None:
        with refusals(OSError):
            file.write_text(json.dumps(said, indent=1) + "\n")


@app.group("weights")
def weights_() -> None:
    """Trained networks: what there is, and where it lies. PATTERN is a name, or as vaal.* or *.digits."""


@weights_.command("list")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
def weights_list(patterns: tuple[str, ...]) -> None:
    """What there is, on what it was trained, and how well it does."""
    with refusals(*wrong_requests()):
        from zoo import trained

        title, columns, rows = weights_table(trained.matching(patterns))
        Console().print(table(title, columns, rows) if rows else f"[bold]{title}[/]")


@weights_.command("fetch")
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
def weights_fetch(patterns: tuple[str, ...]) -> None:
    """Download what is not on this machine yet, and print where each file lies."""
    with refusals(*wrong_requests()):
        from zoo import trained

        for weights in trained.matching(patterns):
            click.echo(trained.fetched(weights))


@weights_.command("verify")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
def weights_verify(patterns: tuple[str, ...]) -> None:
    """Compare the hash of each file on this machine with that of the manifest. Status 2 if one is damaged."""
    with refusals(*wrong_requests()):
        from zoo import trained

        damaged = []
        for weights in trained.matching(patterns):
            try:
                path = trained.here(weights)
            except ValueError as error:
                damaged.append(str(error))
            else:
                click.echo(f"{weights.name}: {'not on this machine' if path is None else f'sound, {path}'}")
        if damaged:
            raise ValueError("; ".join(damaged))


@weights_.command("path")
@click.argument("name")
def weights_path(name: str) -> None:
    """Print where the file of NAME lies on this machine. Nothing is downloaded."""
    with refusals(*wrong_requests()):
        from zoo import trained

        if (path := trained.here(trained.one(name))) is None:
            raise FileNotFoundError(f"{name} is not on this machine. Fetch it: alzoo weights fetch {name}")
        click.echo(path)


def main() -> None:
    """The console command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends as it would by itself, tidily
    try:
        app(prog_name="alzoo", standalone_mode=False)
    except click.ClickException as error:
        refuse(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("alzoo: stopped; the same command goes on from here\n")
        sys.exit(130)


def default_learners(plan: str) -> tuple[str, ...]:
    """All entries that ask in their own way and have the plan, if any has, then the baselines that there are."""
    from zoo.register import entries, names

    own = {name: entry for name, entry in entries().items() if name != "plain"}
    having = [name for name, entry in own.items() if plan in entry.plans] or [*own]
    return (*having, *(b for b in BASELINES if b in names("queries")))


def settings(given: Sequence[str], learners: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`NAME.key=value` lines as one table per learner, `NAME.query_settings.key=value` as one in it; the last counts.

    Values are read as TOML, or else as words.
    """
    from zoo.naming import hint

    lines: dict[str, dict[str, str]] = {}
    for line in given:
        path, equals, text = line.partition("=")
        name, _, key = path.partition(".")
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key, re.ASCII):
            raise ValueError(f"--set {line!r} is not of the form NAME.key=value")
        if name != "*" and name not in learners:
            raise ValueError(f"--set {line!r}: {name!r} is not among the learners.{hint(name, learners)}")
        try:
            tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            text = json.dumps(text)
        for learner in learners if name == "*" else (name,):
            lines.setdefault(learner, {})[key] = text
    return {
        learner: tomllib.loads("\n".join(f"{key} = {text}" for key, text in each.items()))
        for learner, each in lines.items()
    }


@contextmanager
def refusals(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds are the user's to mend: one line on stderr and status 2, no traceback."""
    try:
        yield
    except kinds as error:
        refuse(str(error) or type(error).__name__)


@contextmanager
def room(out: Path) -> Iterator[None]:
    """A full disk is named, with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"{out} cannot be written: {error.strerror}. Make room there; the same command goes on"
        ) from error


def wrong_requests() -> tuple[type[Exception], ...]:
    """All that is raised before anything is trained."""
    from zoo.naming import UnknownName

    return UnknownName, ValueError, TypeError, OSError


def refuse(message: str) -> None:
    """One line on stderr, and status 2."""
    sys.stderr.write(f"alzoo: {' '.join(message.split())}\n")
    sys.exit(2)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Rows under a title; names are never broken."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        grid.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        grid.add_row(*(Text("" if value is None else str(value)) for value in row))  # brackets are no markup
    return grid


def weights_table(weights: Sequence[Weights]) -> tuple[str, tuple[str, ...], Sequence[Sequence[object]]]:
    """Title, columns and rows of weights."""
    title = "Weights: networks of an entry, trained already" if weights else "Weights: none are published yet"
    columns = ("name", "shape", "classes", "labels", "plan", "right", "of", "MB")
    about = ("classes", "labels", "plan")
    rows = [
        (
            w.name,
            joined("x", w.about.get("shape")),
            *(w.about.get(key) for key in about),
            percent(w.about.get("accuracy")),
            w.about.get("n"),
            f"{w.bytes / 1e6:.2f}",
        )
        for w in weights
    ]
    return title, columns, rows


def percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"


def joined(sign: str, numbers: Sequence[int] | None) -> str | None:
    return None if numbers is None else sign.join(map(str, numbers))


def doc(module: str) -> str:
    """The first line of a module's docstring."""
    return first(sys.modules[module].__doc__)


def first(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
