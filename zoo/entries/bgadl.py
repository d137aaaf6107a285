"""BGADL asks where the draws of a Bayesian classifier disagree, and makes companions of all it is told."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from trainers import bgadl as loop
from trainers.pool import normal
from zoo.diagnosis import held
from zoo.entry import Entry, Parts, Preset
from zoo.nets import acgan
from zoo.nets.common import Shape
from zoo.queries.bayesian import Posterior, posterior
from zoo.query import Query
from zoo.scan import Asked, Scan, evaluating, top

SOME = 1000  # images, at most, that a diagnosis compares with one another
DRAWS = 20


def build(
    shape: Shape,
    classes: int,
    *,
    trunk: str = "small",
    width: int = 32,
    gan_width: int = 8,
    latent: int = 32,
    encoder_form: acgan.Form = "full",
    gan_init: acgan.Init = "torch",
    dropout: float = 0.5,
) -> dict[str, nn.Module]:
    """trunk: one of the zoo's, or `gal` or `lenet`, those of the authors' demo."""
    return {
        **acgan.classifier(shape, classes, trunk, width, dropout),
        "encoder": acgan.Encoder(shape, latent, gan_width, encoder_form, gan_init),
        "generator": acgan.Generator(shape, classes, latent, gan_width, gan_init),
        "discriminator": acgan.Discriminator(shape, gan_width, gan_init),
    }


def ask(scan: Scan, n: int, *, draws: int = 20, subset: int = 0) -> Asked:
    """Ask where the draws are sure and disagree: `BALD`, in nats, over so many dropout masks.

    subset: look at so many images only, drawn anew in every round (the released code: 2,000; never fewer than n); 0
    for all of them.
    """
    some = scan.drawn(n, subset)
    of = scan.pool.unlabeled[some] if subset else None
    first, second = scan.draws(2, of)  # two differ, unless something is wrong
    if torch.equal(first, second) and all(torch.equal(first, other) for other in scan.draws(draws, of)):
        raise RuntimeError("dropout makes no difference to any image, so BALD is zero everywhere. Raise dropout")
    seen = posterior(scan, draws, of)
    asked = top(seen.bald, n, BALD=seen.bald, disagreement=against(seen))
    return Asked(some.to(asked.positions.device)[asked.positions], asked.scores, asked.detail)


def against(seen: Posterior) -> Tensor:
    """The share of draws that are against the most frequent opinion: (u,)."""
    return 1 - seen.votes.amax(1) / seen.draws


def diagnose(scan: Scan, held_out: Tensor) -> dict[str, float]:
    """Whether the companions are near, of their class, and in doubt; and whether the draws disagree.

    retrieval: how often a labeled image is the nearest one to its own companion, of up to 1,000 labeled images.
    recon: squared error of a held-out pixel over the variance of such pixels; 1 is a decoder of the mean image.
    class_agreement: how often the classifier takes an image made from the prior for what it was made for; it has been
    trained to, so here is another judge. neighbour_agreement: how often the labeled image nearest to it, by pixels, is
    of that class; neighbour_real: the same of a labeled image, the best to be hoped for. 1 / classes is chance.
    active_units: latent units whose mean varies by more than 0.01 over held-out images, of `latent_units`.
    real_told, made_told: how often the discriminator is right about held-out images, and about made ones.
    bald: nats per unlabeled image; disagreement: the share of draws against the most frequent one. 20 draws, of up to
    1,000 unlabeled images.
    """
    parts, known = scan.parts, scan.pool.labeled
    known = known[torch.randperm(len(known), generator=scan.generator("diagnose"))[:SOME]]
    encoder: nn.Module = parts["encoder"]
    fresh = held(scan, held_out)
    mu, logvar = scan.each(lambda x: torch.stack(encoder(x), 1), of=known).unbind(1)
    seen = fresh.each(lambda x: encoder(x)[0])
    opinions = posterior(scan, DRAWS, scan.pool.unlabeled[scan.drawn(1, SOME)])
    out = normal(held_out.to(scan.device))
    error = fresh.each(lambda x: rebuild(parts, x)) - out
    real = torch.cat([out, out])[torch.randperm(2 * len(out))[:SOME]]
    judge = deepcopy(parts["discriminator"]).train()  # a copy: it normalises each kind by itself, as in training
    with evaluating(parts), torch.no_grad():
        x, y = normal(scan.pool.take(known).to(scan.device)), scan.pool.labels[known].to(scan.device)
        companions = parts["generator"](loop.draw(mu, logvar), y)
        nearest = torch.cdist(companions.flatten(1), x.flatten(1)).argmin(1)
        asked = y[torch.randint(len(y), (SOME,), device=scan.device)]
        made = parts["generator"](torch.randn(SOME, mu.shape[1], device=scan.device), asked)
        neighbour = y[torch.cdist(made.flatten(1), x.flatten(1)).argmin(1)]
        other = y[torch.cdist(x.flatten(1), x.flatten(1)).fill_diagonal_(torch.inf).argmin(1)]
        taken = scan.task(made).argmax(1)
        as_real, as_made = judge(real) > 0, judge(made) <= 0
    return {
        "retrieval": (nearest == torch.arange(len(x), device=scan.device)).float().mean().item(),
        "recon": (error.square().mean() / (out - out.mean(0)).square().mean()).item(),
        "class_agreement": (taken == asked).float().mean().item(),
        "neighbour_agreement": (neighbour == asked).float().mean().item(),
        "neighbour_real": (other == y).float().mean().item(),
        "classes": scan.pool.classes,
        "active_units": (seen.var(0) > 0.01).sum().item(),
        "latent_units": seen.shape[1],
        "real_told": as_real.float().mean().item(),
        "made_told": as_made.float().mean().item(),
        "bald": opinions.bald.mean().item(),
        "disagreement": against(opinions).mean().item(),
    }


def doubt(numbers: Mapping[str, float]) -> list[str]:
    """What speaks against the game: companions that are anybody's, of no class, or draws that agree."""
    against = []
    if numbers["retrieval"] < 0.5:
        against.append(f"only {numbers['retrieval']:.0%} of the companions are nearest to their own image")
    if numbers["neighbour_agreement"] < (numbers["neighbour_real"] + 1 / numbers["classes"]) / 2:
        said = f"only {numbers['neighbour_agreement']:.0%} of the made images look like the class they were made for"
        against.append(f"{said} (real ones: {numbers['neighbour_real']:.0%}); the classifier is told the wrong labels")
    if numbers["active_units"] < numbers["latent_units"] / 2:
        against.append(f"only {numbers['active_units']:.0f} of {numbers['latent_units']:.0f} latent units are active")
    if numbers["bald"] < 1e-4:
        against.append(f"the draws agree (BALD is {numbers['bald']:.1e} nats); this query is no better than random")
    return against


def sample(parts: Parts, n: int, labels: Tensor | None, chance: Generator) -> Tensor:
    """Images made from the prior (n c h w): of these labels, or of classes drawn at random."""
    generator = parts["generator"]
    assert isinstance(generator, acgan.Generator)
    k, at = generator.classes, next(generator.parameters()).device
    labels = torch.randint(k, (n,), generator=chance) if labels is None else labels
    made: Tensor = generator(torch.randn(n, generator.latent, generator=chance).to(at), labels.to(at))
    return made


def rebuild(parts: Parts, x: Tensor) -> Tensor:
    """Images (b c h w) rebuilt from their latent mean. Their label is the classifier's guess: nobody has told it."""
    guess = parts["head"](parts["trunk"](x)).argmax(1)
    recon: Tensor = parts["generator"](parts["encoder"](x)[0], guess)
    return recon


# Read in the authors' demo (toantm/BGADL@5d82f50), for MNIST. It makes 50 epochs of whatever is labeled, 50 steps per
# 100 labels: these are the steps of its last round. Of its two classifiers this is the one with dropout; the other,
# which it trains by default, is trunk="lenet", dropout=0.0, and has nothing to tell BALD.
RELEASED = Preset(
    loop.Plan(
        steps=5_000,
        batch=100,
        adadelta=True,
        weight_decay=0.0,
        decay_per_label=3.5,
        alone=0.0,
        trust=0.0,
        alone_first=True,
        gamma=0.75,
        beta=1.0,
        elbo="released",
        lambda_prior=1.0,
        lambda_recon=1.0,
    ),
    {"trunk": "gal", "gan_width": 64, "latent": 100, "encoder_form": "scalar", "gan_init": "normal", "dropout": 0.5},
    augment="none",
    asks={"subset": 2_000},
)
# The paper's networks and settings for 32 pixels are in no code: what is said to be recalled is recalled, the encoder
# is ours, and the rest is the demo's.
PAPER = Preset(
    replace(
        RELEASED.loop,
        steps=10_000,  # 50 epochs, as the demo, of 20,000 labels, recalled: CIFAR-10 after 150 questions of 100
        gamma=0.75,  # recalled, as in the demo
        elbo="image",  # recalled: a variational bound
    ),
    {
        "trunk": "resnet18",  # recalled
        "gan_width": 64,
        "latent": 100,
        "encoder_form": "full",  # ours
        "gan_init": "normal",
        "dropout": 0.5,  # ours: where a ResNet has dropout is not said
    },
    asks={"subset": 2_000},
)

bgadl = Entry(
    name="bgadl",
    paper="Tran, Do, Reid & Carneiro, ICML 2019, arXiv:1904.11643",
    build=build,
    plans=MappingProxyType({"ours": Preset(loop.Plan()), "paper": PAPER, "released": RELEASED}),
    train=loop.train,
    query=Query(
        "bgadl",
        ask,
        "arXiv:1904.11643; Houlsby et al. 2011",
        cost="u k t",
        needs=("dropout",),
        ranges=MappingProxyType({"draws": "[2, inf)", "subset": "[0, inf)"}),
    ),
    diagnose=diagnose,
    doubt=doubt,
    sample=sample,
    rebuild=rebuild,
)
