"""What each query costs, beside plain forms of the same mathematics and, where asked for, other people's packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainers import graph
from trainers.pool import Pool, nobody
from zoo.bench import Act, Case, peers, plain
from zoo.naming import pick
from zoo.nets.trunk import Head
from zoo.queries import QUERIES
from zoo.queries.geometry import Points, gaps
from zoo.scan import Scan

Ask = Callable[[Scan, int], Tensor]  # (scan, n) -> positions (n,)

TIMES = 10  # what takes milliseconds is done so often
SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: {"features": "task"} for name in ("typiclust", "probcover")}
)


@dataclass(frozen=True)
class Size:
    """u unlabeled images, l labeled ones, n asked, d features, k classes."""

    u: int
    n: int
    l: int  # noqa: E741 (the alphabet of shapes)
    d: int = 512
    k: int = 10

    def __str__(self) -> str:
        return f"{self.n:,} of {self.u:,} + {self.l:,} labeled, {self.d} features, {self.k} classes"

    def part(self, pool: float, asked: float) -> Size:
        """That share of the pool; that share of the asked, and of the labeled."""
        n = max(1, round(self.n * asked))
        return replace(self, u=max(n, round(self.u * pool)), n=n, l=max(1, round(self.l * asked)))


@dataclass(frozen=True, kw_only=True)
class Form:
    """Another form of a query. pool, asked: it is given that share of the pool, and of the labeled and the asked.

    required: how many times as long as ours it has to take. alike: whether it asks for the very same images.
    """

    ask: Ask
    pool: float = 1.0
    asked: float = 1.0
    required: float | None = None
    alike: bool = True
    package: str = ""


USUAL = Size(10_000, 100, 200)  # of a query that no case below is about
SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "random": Size(50_000, 1_000, 1_000),
        "least_confident": Size(50_000, 1_000, 1_000),
        "bait": Size(1_000, 10, 20, d=32),
        "deepfool": Size(500, 50, 10),
    }
)


def cases(names: tuple[str, ...] = (), packages: bool = False) -> list[Case]:
    """The work of queries, all of them by default; of `propagation` and `neighbours`, that of label propagation.

    packages: other people's packages, too, as far as they are installed.
    """
    named: Mapping[str, Callable[[bool], list[Case]]] = {
        "kcenter": kcenter,
        "badge": badge,
        "batch_bald": batch_bald,
        "entropy": partial(uncertain, "entropy", plain.scipy_entropy),
        "margin": partial(uncertain, "margin", plain.numpy_margin),
        "propagation": propagation,
        "neighbours": neighbours,
    }
    for name in names:
        pick({**QUERIES, **named}, name, "query")  # says what there is
    found: list[Case] = []
    for name in names or (*named, *(name for name in QUERIES if name not in named)):
        if name in named:
            found += named[name](packages)
        else:
            found.append(asking(name, SIZES.get(name, USUAL), {}))
    return found


def kcenter(packages: bool) -> list[Case]:
    """At the size that others were measured at, and on a matrix of all distances at a size where there is room."""
    size = Size(45_000, 1_000, 5_000)
    forms = {
        "pairwise distances at each pick": Form(ask=plain.pairwise_calls, asked=0.02, required=9),
        "the same, and a loop in Python": Form(ask=partial(plain.pairwise_calls, loop=True), asked=0.02, required=12),
        "cdist at each pick": Form(ask=plain.cdist_calls, asked=0.01, required=35),
        "a product at each pick": Form(ask=plain.product_calls, asked=0.05),
        "scikit-activeml": Form(ask=peers.skactiveml_kcenter, asked=0.05, required=4.4, package="skactiveml"),
    }
    whole = asking("kcenter", size, chosen(forms, packages), within=150, check=lambda: same_radius(size.part(1, 0.02)))
    return [
        whole,
        asking("kcenter", Size(4_000, 100, 1_000), {"a matrix of all distances": Form(ask=plain.full_matrix)}),
    ]


def badge(packages: bool) -> list[Case]:
    """With ten classes and with a hundred."""
    found = []
    for k in (10, 100):
        forms = {
            "all distances at each pick": Form(ask=plain.factored, asked=0.03, required=20, alike=False),
            "gradients written out": Form(ask=plain.written_out, pool=0.5 / k, asked=0.1, alike=False),
            "scikit-activeml": Form(
                ask=peers.skactiveml_badge, pool=0.4 / k, asked=0.05, alike=False, package="skactiveml"
            ),
        }
        size = Size(50_000, 1_000, 1_000, k=k)
        found.append(asking("badge", size, chosen(forms, packages), within=200, check=same_draws))
    return found


def batch_bald(packages: bool) -> list[Case]:
    """At the size that others were measured at, and on a whole pool."""
    forms = {
        "every candidate at each pick": Form(ask=plain.every_candidate, pool=0.2, required=20),
        "batchbald_redux": Form(ask=peers.redux_batch_bald, required=20, package="batchbald_redux"),
    }
    return [
        asking("batch_bald", Size(500, 10, 10), chosen(forms, packages), within=60),
        asking("batch_bald", Size(50_000, 5, 1_000, d=64), {}),
    ]


def uncertain(name: str, form: Ask, packages: bool) -> list[Case]:
    """A thousand of the most uncertain, by probabilities that are there; with ten classes and with a hundred."""
    forms = {
        "by scipy and numpy": Form(ask=form, required=1),
        "modAL": Form(ask=peers.modal(name), required=1, package="modAL"),
        "baal": Form(ask=peers.baal(name), required=1, package="baal"),
        "scikit-activeml": Form(ask=peers.skactiveml_uncertainty(name), required=1, package="skactiveml"),
    }
    sizes = [Size(50_000, 1_000, 1_000, d=64, k=k) for k in (10, 100)]
    return [asking(name, size, chosen(forms, packages), times=TIMES) for size in sizes]


def propagation(packages: bool) -> list[Case]:  # noqa: ARG001 (no package does this alone)
    """Twenty steps of conjugate gradients, all classes at once, on 50,000 images with 50 drawn neighbours each."""

    def task(n: int) -> tuple[graph.Graph, Tensor]:
        chance = torch.Generator().manual_seed(0)
        there = torch.randint(n, (n, 50), generator=chance)
        net = graph.tied(torch.rand(n, 50, generator=chance), there)
        sources = torch.zeros(n, 10)
        sources[torch.arange(n // 50), torch.arange(n // 50) % 10] = 1
        return net, sources

    def check() -> None:
        net, sources = task(500)
        one, other = graph.diffuse(net, sources), plain.class_by_class(plain.spread_matrix(net), sources)
        if not torch.allclose(one, other, atol=1e-4 * float(other.abs().max())):
            raise RuntimeError("bench: label propagation and its plain form do not agree")

    large = lru_cache(maxsize=1)(lambda: task(50_000))
    matrix = lru_cache(maxsize=1)(lambda: plain.spread_matrix(large()[0]))
    forms: dict[str, Callable[[], Act]] = {
        "ours": lambda: partial(graph.diffuse, *large()),
        "scipy, class by class": lambda: partial(plain.class_by_class, matrix(), large()[1]),
    }
    work = "50,000 images, 50 neighbours, 10 classes, 20 steps"
    required = {"scipy, class by class": 6.0}
    return [Case(name="label propagation", work=work, forms=forms, check=check, required=required)]


def neighbours(packages: bool) -> list[Case]:
    """The graph of 50 neighbours, exact; ours without faiss, whose flat index may be 1.3 times as fast."""
    k, share = 50, 0.02

    def points(n: int) -> Tensor:
        return normalize(made_up(Size(n, 1, 0, d=128)).features)

    def check() -> None:
        one, other = graph.by_blocks(points(2_000), k)[1], plain.all_neighbours(points(2_000), k + 1, 2_000)[:, 1:]
        if (one.sort(1).values == other.sort(1).values).float().mean() < 0.999:  # but for ties
            raise RuntimeError("bench: the graph of neighbours and its plain form do not agree")

    x = lru_cache(maxsize=1)(lambda: points(50_000))
    forms: dict[str, Callable[[], Act]] = {
        "ours": lambda: partial(graph.by_blocks, x(), k),
        "scikit-learn": lambda: partial(plain.all_neighbours, x(), k, round(share * 50_000)),
    }
    if packages and peers.installed("faiss"):
        forms["faiss"] = lambda: partial(graph.by_faiss, x(), k)
    work, required = f"50,000 images, 128 features, {k} neighbours", {"faiss": 0.77}
    return [
        Case(name="neighbours", work=work, forms=forms, check=check, share={"scikit-learn": share}, required=required)
    ]


def chosen(forms: Mapping[str, Form], packages: bool) -> dict[str, Form]:
    """The forms that need no package, and those whose package is asked for and there."""
    return {
        title: form for title, form in forms.items() if not form.package or (packages and peers.installed(form.package))
    }


def asking(
    name: str,
    size: Size,
    forms: Mapping[str, Form],
    *,
    within: float | None = None,
    times: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Case:
    """A case of one query. times: how often it asks. check: what is compared besides the answers on a small pool."""

    def compare() -> None:
        agree(name, forms, size)
        check()

    ready = {title: partial(again, form.ask, size.part(form.pool, form.asked), times) for title, form in forms.items()}
    return Case(
        name=name,
        work=str(size),
        forms={"ours": partial(again, ours(name), size, times), **ready},
        check=compare,
        share={"ours": times, **{title: times * form.pool * form.asked for title, form in forms.items()}},
        required={title: form.required for title, form in forms.items() if form.required is not None},
        within=within,
    )


def ours(name: str) -> Ask:
    """The zoo's own answer."""
    return lambda scan, n: QUERIES[name].ask(scan, n, **SETTINGS.get(name, {})).positions


def again(ask: Ask, size: Size, times: int) -> Act:
    """Ask a fresh scan so many times; its features and probabilities are there before."""
    scan = made_up(size)
    assert len(scan.probs) == size.u

    def act() -> None:
        for _ in range(times):
            ask(scan, size.n)

    return act


def made_up(size: Size, features: Tensor | None = None) -> Scan:
    """A scan of images that are noise, and of features (l + u, d), drawn where none are given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.randint(256, (size.u + size.l, 1, 8, 8), dtype=torch.uint8)
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, size.d))
        parts = nn.ModuleDict({"trunk": trunk, "head": Head(size.d, size.k, 0.5)})
    pool = Pool.hidden(images, size.k, nobody)
    if size.l:
        pool = pool.reveal(torch.arange(size.l), labels=torch.arange(size.l) % size.k)
    scan = Scan(pool, parts)
    features = drawn(size.u + size.l, size.d) if features is None else features
    scan.known, scan.features = features[: size.l], features[size.l :]
    return scan


@lru_cache(maxsize=1)
def drawn(m: int, d: int) -> Tensor:
    """Features (m d) as a trunk would make them, in fifty clusters; the same each time."""
    return into(torch.empty(m, d))


def into(out: Tensor) -> Tensor:
    """Draw them into this memory (m d)."""
    chance = torch.Generator().manual_seed(0)
    middles = 2 * torch.randn(50, out.shape[1], generator=chance)
    for rows in torch.arange(len(out)).split(10_000):
        kinds = torch.randint(50, (len(rows),), generator=chance)
        out[rows] = middles[kinds] + torch.randn(len(rows), out.shape[1], generator=chance)
    return out


def agree(name: str, forms: Mapping[str, Form], size: Size) -> None:
    """Raise RuntimeError where a form does not ask for the images that ours asks for on a small pool."""
    if not any(form.alike for form in forms.values()):
        return
    small = replace(size, u=400, l=8, n=4 if name == "batch_bald" else 40)
    wanted = ours(name)(made_up(small), small.n).sort().values
    for title, form in forms.items():
        if form.alike and not torch.equal(form.ask(made_up(small), small.n).sort().values, wanted):
            raise RuntimeError(f"bench: {name} and its form {title!r} do not ask for the same images")


def same_radius(size: Size) -> None:
    """Raise RuntimeError where the farthest image left by our kcenter is not as far as that of the plain form."""
    radii = []
    for ask in (ours("kcenter"), plain.product_calls):
        scan = made_up(size)
        middle = torch.cat([scan.known, scan.features]).mean(0)
        centres = torch.cat([scan.known, scan.features[ask(scan, size.n)]]) - middle
        radii.append(float(gaps(Points.of(scan.features - middle), Points.of(centres)).max().sqrt()))
    if abs(radii[0] - radii[1]) > 1e-4 * radii[1]:
        raise RuntimeError(f"bench: kcenter leaves a radius of {radii[0]}, its plain form {radii[1]}")


def same_draws() -> None:
    """Raise RuntimeError where our badge and its plain form differ by a tenth in the mean squared length they draw."""
    size, lengths = Size(500, 50, 10, d=16), []
    for ask in (ours("badge"), plain.factored):
        scans = [made_up(size) for _ in range(20)]
        for seed, scan in enumerate(scans):
            scan.seed = seed
        squares = Points.of(*plain.factors(scans[0])).squares
        lengths.append(sum(float(squares[ask(scan, size.n)].mean()) for scan in scans))
    if abs(lengths[0] - lengths[1]) > 0.1 * lengths[1]:
        raise RuntimeError(f"bench: badge draws squared lengths of {lengths[0]:g}, its plain form of {lengths[1]:g}")
