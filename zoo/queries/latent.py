"""Look for latents whose images a classifier cannot decide on, and for the real images nearest to made ones.

Zhu & Bento, "Generative Adversarial Active Learning", 2017, https://arxiv.org/abs/1702.07956
Mayer & Timofte, "Adversarial Sampling for Active Learning", WACV 2020, https://arxiv.org/abs/1808.06671
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim import LBFGS, SGD, Adam, Optimizer

Gap = Callable[[Tensor], Tensor]  # latents (b z) -> how far each is from the goal (b,), 0 or more
Path = Iterator[tuple[Tensor, Tensor]]  # latents (b z) on the way, and their gaps (b,)

AT_ONCE = 256  # latents


def search(
    gap: Gap, start: Tensor, *, solver: str, steps: int, rate: float, enough: float = 0.0
) -> tuple[Tensor, Tensor]:
    """From each start (b z) the latent with the smallest gap on the solver's way, and that gap: (b z), (b,).

    Each latent goes its own way, whatever the others do. enough: all may stop where no gap is larger.
    """
    found = [best(SOLVERS[solver](gap, z, steps, rate), enough) for z in start.split(AT_ONCE)]
    return torch.cat([z for z, _ in found]), torch.cat([least for _, least in found])


def best(path: Path, enough: float) -> tuple[Tensor, Tensor]:
    """Of each latent, the place on its way where the gap was smallest."""
    where, least = next(path)
    for z, value in path:
        where = torch.where((value < least)[:, None], z, where)
        least = torch.minimum(value, least)
        if bool((least <= enough).all()):
            break
    return where, least


def slope(gap: Gap, z: Tensor) -> tuple[Tensor, Tensor]:
    """The gaps (b,) and their gradients (b z). No other gradient is computed, and none is kept."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = gap(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def polyak(gap: Gap, z: Tensor, steps: int, rate: float) -> Path:
    """Go straight down by as far as would close the gap if it were linear, but no farther than 1 at once (ours)."""
    for _ in range(steps):
        value, gradient = slope(gap, z)
        yield z, value
        steep = gradient.norm(dim=1) + 1e-12
        far = (rate * value / steep).clamp(max=1.0)
        z = z - (far / steep)[:, None] * gradient
    yield z, slope(gap, z)[0]


def descend(gap: Gap, z: Tensor, steps: int, make: Callable[[Tensor], Optimizer], power: int) -> Path:
    """One of torch's optimizers on the gap (power 1) or its square (2). It must treat each number by itself."""
    z = z.clone()
    step = make(z)
    for _ in range(steps):
        value, gradient = slope(gap, z)
        yield z.clone(), value
        z.grad = gradient if power == 1 else 2 * value[:, None] * gradient
        step.step()
    yield z, slope(gap, z)[0]


def gd(gap: Gap, z: Tensor, steps: int, rate: float) -> Path:
    """Gradient descent on the gap itself, as R-B does in 100 steps of rate 0.01."""
    return descend(gap, z, steps, lambda z: SGD([z], rate), power=1)


def adam(gap: Gap, z: Tensor, steps: int, rate: float) -> Path:
    """Adam on the squared gap (ours)."""
    return descend(gap, z, steps, lambda z: Adam([z], rate), power=2)


def lbfgs(gap: Gap, z: Tensor, steps: int, rate: float) -> Path:
    """L-BFGS on the squared gap, one latent after the other, as R-A does: slow."""
    yield z, slope(gap, z)[0]
    ends = []
    for one in z.clone().split(1):
        step = LBFGS([one], rate, max_iter=steps, line_search_fn="strong_wolfe")

        def look(one: Tensor = one) -> Tensor:
            value, gradient = slope(gap, one)
            one.grad = 2 * value[:, None] * gradient
            return value.square().sum()

        if steps:
            step.step(look)
        ends.append(one)
    yield torch.cat(ends), slope(gap, torch.cat(ends))[0]


SOLVERS: dict[str, Callable[[Gap, Tensor, int, float], Path]] = {
    "polyak": polyak,
    "gd": gd,
    "adam": adam,
    "lbfgs": lbfgs,
}
RATES = {"polyak": 1.0, "gd": 0.01, "adam": 0.1, "lbfgs": 1.0}  # gd: third-party (R-B); the others ours


def spread(points: Tensor, n: int) -> Tensor:
    """n of the points (m d), int64: the first, then again and again the farthest from those taken (Gonzalez 1985)."""
    far = points.new_full((len(points),), torch.inf)
    at, taken = far.new_zeros((), dtype=torch.int64), []
    for _ in range(n):
        taken.append(at)
        far = torch.minimum(far, (points - points[at]).square().sum(1))
        far[at] = -1.0  # even among twins, none is taken twice
        at = far.argmax()
    return torch.stack(taken)


def nearest_each(made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """A real one for each made one, (n d) and (u d): positions int64 (n,) and distances (n,).

    The first has the first choice, and what is taken is gone: n different ones, for n up to u.
    """
    centre = real.mean(0)  # distances of centred points lose fewer digits
    taken = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    places, distances = [], []
    for some in made.split(AT_ONCE):
        for row in torch.cdist(some - centre, real - centre):
            distance, place = row.masked_fill(taken, torch.inf).min(0)
            taken[place] = True
            places.append(place)
            distances.append(distance)
    return torch.stack(places), torch.stack(distances)
