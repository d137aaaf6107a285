"""GAAL makes images that the classifier cannot decide on, and asks for them, or for the real images nearest to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from trainers import gaal as loop
from trainers.losses import auc
from trainers.pool import normal, uint8
from zoo.entry import Entry, Parts, Preset
from zoo.nets.common import Shape
from zoo.nets.gan import Discriminator, Generator
from zoo.nets.trunk import task
from zoo.queries.latent import AT_ONCE, RATES, nearest_each, search, spread
from zoo.query import Query
from zoo.scan import Asked, Scan, evaluating


def build(
    shape: Shape,
    classes: int,
    *,
    trunk: str = "small",
    width: int = 32,
    dropout: float = 0.0,
    gan: str = "mlp",
    gan_width: int = 128,
    latent: int = 32,
) -> dict[str, nn.Module]:
    return {
        **task(shape, classes, trunk, width, dropout),
        "generator": Generator(shape, latent, gan_width, gan),
        "discriminator": Discriminator(shape, gan_width, gan),
    }


def ask(
    scan: Scan,
    n: int,
    *,
    synthesize: bool = False,
    objective: str = "margin",
    solver: str = "polyak",
    search_steps: int = 20,
    rate: float | None = None,
    starts: int = 64,
    tol: float = 1e-3,
    diversity: str = "centers",
    space: str = "features",
) -> Asked:
    """Ask for made images on the decision boundary (`synthesize`), or for the real ones nearest to them, one for each.

    Random latents are moved to where |f| is 0: f is the second logit less the first of two classes, or the margin of
    the two best of more (ours; the paper has two classes). objective: "entropy" moves them to where the guess is most
    spread out (ASAL); f is ln k less the entropy then. solver, search_steps, rate: see `zoo.queries.latent`; the
    paper's is not known. starts: how many latents at least; 4 for each asked image, if that is more. Those that end
    with |f| above `tol` deviations of f over random made images are left out, while there are others.
    diversity: "centers" takes those whose images are far apart (ours), "none" the first (the paper).
    space: where real images are compared with made ones, in the "features" of the trunk or in "pixels"; no real image
    is taken twice, the first made one has the first choice.
    So search_steps=0, tol=inf, diversity="none" asks for what is made at random, the paper's baseline "Simple GAN".

    residual: |f| of the made image. margin: of the two best logits for the image that is asked, with its 256 levels.
    distance: of the real image from the made one. Scores are ranks.
    """
    one_of("diversity", diversity, ("centers", "none"))
    one_of("space", space, ("features", "pixels"))
    found = look(scan, max(starts, 4 * n), objective, solver, search_steps, rate)
    made = images(scan.parts, found.latents)
    order = pick(found, made, n, tol, diversity)
    made, residual, scores = made[order], found.residual[order], torch.arange(n, 0, -1).float()
    if synthesize:
        shown = uint8(made)
        detail = {"residual": residual, "margin": margin(logits(scan.parts, normal(shown)))}
        return Asked(torch.empty(0, dtype=torch.int64), scores, detail, shown)
    pixels = space == "pixels"
    real = scan.each(lambda x: x.flatten(1)) if pixels else scan.features
    places, distance = nearest_each(made.flatten(1) if pixels else seen(scan.parts, made), real)
    return Asked(places, scores, {"residual": residual, "margin": margin(scan.logits[places]), "distance": distance})


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has come to: m latents, and where they came from.

    latents: (m z). residual: |f| (m,). starts: the random latents (m z). before: f of their images (m,).
    """

    latents: Tensor
    residual: Tensor
    starts: Tensor
    before: Tensor


def look(
    scan: Scan,
    m: int,
    objective: str = "margin",
    solver: str = "polyak",
    steps: int = 20,
    rate: float | None = None,
) -> Found:
    """Search from m random latents, in full precision, with every network in evaluation mode."""
    one_of("solver", solver, tuple(RATES))
    goal = GOALS[one_of("objective", objective, tuple(GOALS))]
    parts, size = scan.parts, cast(int, scan.parts["generator"].latent)
    starts = torch.randn(m, size, generator=scan.generator("gaal")).to(scan.device)

    def f(z: Tensor) -> Tensor:
        return goal(parts["head"](parts["trunk"](parts["generator"](z))))

    with evaluating(parts):
        with torch.no_grad():
            before = torch.cat([f(z) for z in starts.split(AT_ONCE)])
        rate = RATES[solver] if rate is None else rate
        latents, residual = search(lambda z: f(z).abs(), starts, solver=solver, steps=steps, rate=rate)
    if broken := int((~residual.isfinite()).sum()):
        raise RuntimeError(f"{broken} of {m} residuals are not finite: the network has diverged. Lower its lr")
    return Found(latents, residual, starts, before)


def pick(found: Found, made: Tensor, n: int, tol: float, diversity: str) -> Tensor:
    """Positions (n,) among the found: those within the tolerance, then, if they are too few, the next nearest."""
    within = found.residual <= tol * found.before.std()
    order = torch.where(within, -1.0, found.residual).sort(stable=True).indices
    order = order[: max(n, int(within.sum()))]
    return order[:n] if diversity == "none" else order[spread(made[order].flatten(1), n)]


def decision(logits: Tensor) -> Tensor:
    """f (b,): for two classes the second logit less the first, for more the margin of the two best."""
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else margin(logits)


def margin(logits: Tensor) -> Tensor:
    """The best logit less the second best (b,)."""
    best, second = logits.topk(2).values.unbind(1)
    return best - second


def certainty(logits: Tensor) -> Tensor:
    """ln k less the entropy of the guess (b,): 0 where every class is as likely as the others."""
    log = logits.log_softmax(1)
    return torch.tensor(logits.shape[1]).log() + (log.exp() * log).sum(1)


GOALS = {"margin": decision, "entropy": certainty}


def images(parts: Parts, z: Tensor) -> Tensor:
    """Made images (b c h w) in [-1, 1] of latents (b z)."""
    with evaluating(parts), torch.no_grad():
        return torch.cat([parts["generator"](some) for some in z.split(AT_ONCE)])


def seen(parts: Parts, x: Tensor) -> Tensor:
    """The features (b d) of images (b c h w)."""
    with evaluating(parts), torch.no_grad():
        return torch.cat([parts["trunk"](some) for some in x.split(AT_ONCE)]).float()


def logits(parts: Parts, x: Tensor) -> Tensor:
    """The logits (b k) of images (b c h w)."""
    with evaluating(parts), torch.no_grad():
        out: Tensor = parts["head"](seen(parts, x))
        return out


def one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")
    return value


def sample(parts: Parts, n: int, labels: Tensor | None, chance: torch.Generator) -> Tensor:
    """Images (n c h w) made out of n random latents. They have no label."""
    if labels is not None:
        raise ValueError("gaal's generator knows no labels; call sample without them")
    generator = parts["generator"]
    z = torch.randn(n, cast(int, generator.latent), generator=chance)
    made: Tensor = generator(z.to(next(generator.parameters()).device))
    return made


gaal = Entry(
    name="gaal",
    paper="Zhu & Bento, 2017, arXiv:1702.07956",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan())}),
    train=loop.train,
    pretext=loop.pretext,
    query=Query(
        "gaal",
        ask,
        "arXiv:1702.07956; nearest real images: Mayer & Timofte, WACV 2020, arXiv:1808.06671",
        cost="n classifier gradients + u d n",
        needs=("generator",),
        randomised=True,
    ),
    plainly=True,
    sample=sample,
    missing=MappingProxyType({"released": "the authors' code could not be found"}),
)
