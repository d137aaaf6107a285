"""Ask for what lies nearest to the decision boundary."""

from types import MappingProxyType

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.query import Query
from zoo.scan import Asked, Scan, top


def ask_deepfool(scan: Scan, n: int, iterations: int = 50, overshoot: float = 0.02, rivals: int = 9) -> Asked:
    """Ask where the smallest change makes the classifier change its mind; `distance` is the length of that change.

    Ducoffe & Precioso 2018, https://arxiv.org/abs/1802.09841 (DFAL), with the DeepFool of Moosavi-Dezfooli et al.,
    CVPR 2016, https://arxiv.org/abs/1511.04599: again and again, a step to the nearest boundary of the classifier
    made linear where the image has got to, until its class changes.

    iterations: steps at most; `crossed` says whether they were enough, and where not, the distance is that of the way
    so far. overshoot: by what share a step goes too far, so that it crosses; it is no part of the distance. rivals:
    how many of the next best classes are tried; 0 is all.

    The paper also trains on the changed images, under the same label: `adversarial` makes them. One public port
    measures to the boundary of the last class instead of the nearest, another never stops where no class changes.
    """
    if iterations < 1 or overshoot < 0 or rivals < 0:
        raise ValueError(f"iterations={iterations} must be at least 1, {overshoot=} and {rivals=} at least 0")
    distance, crossed = scan.each(
        lambda x: measured(*deepfool(scan.task, x, iterations, overshoot, rivals)), gradient=True
    ).unbind(1)
    return top(-distance, n, distance=distance, crossed=crossed > 0)


def adversarial(scan: Scan, asked: Tensor, iterations: int = 50, overshoot: float = 0.02, rivals: int = 9) -> Tensor:
    """The images at the indices `asked` (n,), each pushed just over its boundary: uint8 (n c h w), for `pool.admit`.

    They have the labels of their originals, at no further cost:

        selection = learner.select(pool, n)
        copies = adversarial(learner.scan(pool), selection.indices)
        pool = pool.reveal(selection)
        pool = pool.admit(copies, pool.labels[selection.indices])

    Rounded to 256 greys and kept between black and white, a copy may fall back behind a boundary that is very near.
    """
    over = scan.each(
        lambda x: x + (1 + overshoot) * deepfool(scan.task, x, iterations, overshoot, rivals)[0].nan_to_num(0),
        of=asked,
        gradient=True,
    )
    return ((over.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def measured(r: Tensor, crossed: Tensor) -> Tensor:
    """The lengths of changes (b c h w), and what else is known of them (b,): (b 2).

    None is above the diagonal of the cube in which all images are, and that is the length of one that is no number.
    """
    diagonal = 2 * r[0].numel() ** 0.5
    length = r.flatten(1).norm(dim=1).nan_to_num(diagonal).clamp(max=diagonal)
    return torch.stack([length, crossed.float()], 1)


def deepfool(task: nn.Module, x: Tensor, iterations: int, overshoot: float, rivals: int) -> tuple[Tensor, Tensor]:
    """The change r (b c h w) that takes each image (b c h w) to its nearest boundary, and whether it crossed it (b,).

    r is without the overshoot, and no number for an image that no class pulls at, as where a network is flat.
    """
    with torch.no_grad():
        logits = task(x)
        own, k = logits.argmax(1), logits.shape[1]
        classes = logits.topk(min(rivals or k, k - 1) + 1).indices  # (b r): its own, then the next best
    r, crossed = torch.zeros_like(x), torch.zeros_like(own, dtype=torch.bool)
    alive = torch.arange(len(x), device=x.device)
    for _ in range(iterations):
        # The nearest of the boundaries f_k - f_own = 0, each taken for a plane: |f| / |w| away, along w.
        here = (x + (1 + overshoot) * r)[alive].requires_grad_()
        among = task(here).float().gather(1, classes[alive])
        nearest = torch.full((len(alive),), torch.inf, device=x.device)
        pull = torch.zeros_like(here)
        for f in (among[:, 1:] - among[:, :1]).unbind(1):
            (w,) = torch.autograd.grad(f.sum(), here, retain_graph=True)
            gap, length = f.detach().abs(), w.flatten(1).norm(dim=1)
            away = torch.where(length > 0, gap / length, torch.inf)
            push = rearrange(gap / length.square(), "b -> b 1 1 1") * w
            pull = torch.where(rearrange(away < nearest, "b -> b 1 1 1"), push, pull)
            nearest = torch.minimum(nearest, away)

        # A step there; who has crossed it, or cannot move, is done.
        r[alive] += torch.where(rearrange(nearest < torch.inf, "b -> b 1 1 1"), pull, torch.nan)
        with torch.no_grad():
            crossed[alive] = task((x + (1 + overshoot) * r)[alive]).argmax(1) != own[alive]
        alive = alive[~crossed[alive] & (nearest < torch.inf)]
        if not len(alive):
            break
    return r, crossed & r.flatten(1).isfinite().all(1)


dfal = Query(
    "deepfool",
    ask_deepfool,
    "Ducoffe & Precioso 2018, arXiv:1802.09841",
    cost="u iterations (rivals + 1) trunk",
    ranges=MappingProxyType({"iterations": "[1, inf)", "overshoot": "[0, inf)", "rivals": "[0, inf)"}),
)
