"""Generative adversarial active learning: ask about images made where the classifier cannot decide.

Zhu & Bento, 2017. https://arxiv.org/abs/1702.07956

A GAN learns the images once, without any label, and is frozen; each round the query looks for latents whose images lie
on the classifier's decision boundary. The authors' code could not be found. What the paper leaves open (the GAN's
layers and training, the solver) follows two re-implementations, billzhaox/PyTorch-GAAL (R-A) and
shaunntan/GenerativeAdversarialActLearning (R-B), or is ours, and is a setting each time. Faults of theirs, and nowhere
here: a generator that gives [-1, 1] where its images are in [0, 1]; a test set out of the training set; a batch that
joins the labeled images twice.

The paper's classifier is a linear SVM on pixels, for two classes: `learner="svm"` with the trunk "pixels". Ours is any
network, trained by the plain loop. It never meets the GAN, so it is the plain one bit by bit.

Measured on one CPU thread: digits with 40, 90 and 140 labels (9 seeds, shifts): 0.849, 0.954, 0.976, asking for real
images; random 0.849, 0.946, 0.968; margin 0.849, 0.963, 0.981. Margin, which looks at the real images themselves, is
better and cheaper. MNIST 5 against 7, the SVM, one seed: 0.961 with 50 labels, 0.976 with 350 asking for real images;
asking for made ones (a classifier judges, and rejects 96 of 100) 0.940 with 300: the decay that the paper shows too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import supervised
from trainers.players import looking_on
from trainers.pool import Pool, normal, portions
from trainers.run import Run
from trainers.supervised import adam, require


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours. The task network's settings are those of the plain loop."""

    gan_steps: int = 800  # of the discriminator, and of the generator; for small grey images
    gan_batch: int = 32  # real images, and as many made ones
    lr_gan: float = 3e-3  # Adam, both players; for the narrow networks
    smooth: float = 0.0  # the discriminator shall call real images real with 1 - smooth
    learner: Literal["network", "svm"] = "network"  # what is fitted to the labels
    slack: float = 1.0  # the SVM's C

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, at_least={"gan_steps": 0, "gan_batch": 2, "smooth": 0}, above={"lr_gan": 0, "slack": 0})
        require(self, choices={"learner": ("network", "svm")})
        if self.smooth >= 0.5:
            raise ValueError(f"smooth={self.smooth!r} must be below 0.5: a real image is more real than not")


def pretext(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    generator: nn.Module,  # (b z) -> (b c h w) in [-1, 1]; `latent` is its z
    discriminator: nn.Module,  # (b c h w) -> logit (b,): above zero means real
    **_others: nn.Module,
) -> Mapping[str, nn.Module]:
    """The GAN, trained on all images of a pool that nobody has labeled."""
    parts = {"generator": generator, "discriminator": discriminator}
    latent = cast(int, generator.latent)
    optimizer = partial(adam, lr=plan.lr_gan, betas=(0.5, 0.999))  # as GANs are trained
    generator, generator_step = run.setup(generator, optimizer(generator), "generator")
    discriminator, discriminator_step = run.setup(discriminator, optimizer(discriminator), "discriminator")
    images = run.stream(torch.arange(len(pool)), plan.gan_batch, "none")

    @run.whole
    def play(x: Tensor) -> None:
        # The discriminator tells real images from made ones.
        made = generator(torch.randn(plan.gan_batch, latent, device=run.device))
        real, fake = discriminator(x), discriminator(made.detach())
        tell = calls(real, 1 - plan.smooth) + calls(fake, 0.0)
        discriminator_step.zero_grad()
        run.backward(tell)
        discriminator_step.step()

        # The generator makes it take the same images for real: the loss that does not saturate.
        with looking_on(discriminator):
            fool = calls(discriminator(made), 1.0)
        generator_step.zero_grad()
        run.backward(fool)
        generator_step.step()

        run.log("gan/tell", tell)
        run.log("gan/fool", fool)

    for _ in run.steps(plan.gan_steps, "gan"):
        play(next(images)[0])
    return parts


def train(run: Run, pool: Pool, plan: Plan, *, trunk: nn.Module, head: nn.Module, **_others: nn.Module) -> None:
    """Fit the classifier to the labels; the GAN stays as the pretext has left it.

    trunk: images (b c h w) -> features (b d). head: features (b d) -> logits (b k), its `linear` layer for an SVM.
    """
    if plan.learner == "network":
        supervised.train(run, pool, plan, trunk=trunk, head=head)
        return
    linear = head.get_submodule("linear")
    if not cast(Tensor, linear.weight).requires_grad:
        raise ValueError("gaal's head is its SVM, which frozen learns nothing; take 'head' out of freeze and lr_scale")
    if run.counting:
        return
    y = pool.labels[pool.labeled]
    if len(y.unique()) == 1:
        run.say("gaal: all labels are of one class, so its SVM is constant and has no boundary to ask at")
    weight, bias = run.once("svm", lambda: svm(features(pool, trunk, run.device), y, pool.classes, plan.slack))
    with torch.no_grad():
        cast(Tensor, linear.weight).copy_(weight)
        cast(Tensor, linear.bias).copy_(bias)


def calls(logits: Tensor, real: float) -> Tensor:
    """How far a discriminator is from calling a batch (b,) real with this probability."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))


def features(pool: Pool, trunk: nn.Module, device: torch.device) -> Tensor:
    """What the trunk, which an SVM does not train, makes of the labeled images: (l d) on the CPU."""
    trunk.eval()
    with torch.no_grad():
        images = (pool.take(i).to(device) for i in portions(pool, pool.labeled, device))
        return torch.cat([trunk(normal(x)).float().cpu() for x in images])


def svm(x: Tensor, y: Tensor, classes: int, slack: float) -> tuple[Tensor, Tensor]:
    """The linear SVM of features (l d) and labels (l,) as weights (k d) and biases (k,) of a linear layer, float64.

    For two classes it is one SVM, f = w.x + b, above zero for the second: the logits are -f/2 and f/2, so that their
    difference is f. For more, each class has its own against the rest, and its f is its logit: the paper has two only.
    A class that all examples are of, or none is, gets the SVM of such examples: w = 0, and b = 1 or -1.
    """
    from sklearn.svm import SVC

    def against_the_rest(k: int) -> tuple[Tensor, Tensor]:
        inside = y == k
        if inside.all() or not inside.any():
            return x.new_zeros(x.shape[1], dtype=torch.float64), torch.tensor(1.0 if inside.any() else -1.0).double()
        fitted = SVC(C=slack, kernel="linear").fit(x.double().numpy(), inside.numpy())
        return torch.from_numpy(fitted.coef_[0].copy()), torch.tensor(fitted.intercept_[0], dtype=torch.float64)

    if classes == 2:
        w, b = against_the_rest(1)
        return torch.stack([-w, w]) / 2, torch.stack([-b, b]) / 2
    weights, biases = zip(*(against_the_rest(k) for k in range(classes)), strict=True)
    return torch.stack(weights), torch.stack(biases)
