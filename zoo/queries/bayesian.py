"""Ask by the draws of a Bayesian classifier: dropout masks (Gal & Ghahramani 2016), members of an ensemble, or both."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from einops import rearrange
from torch import Generator, Tensor

from zoo.queries.geometry import in_turn
from zoo.queries.uncertainty import TINY, two_best
from zoo.query import Query
from zoo.scan import Asked, Scan, top

DROPOUT = MappingProxyType({"dropout": 0.3})
BLOCK, CONFIGURATIONS = 32, 1024  # candidates of batch_bald, and configurations, that are looked at together


@dataclass(frozen=True)
class Posterior:
    """What the draws say of u images, summed up while they pass: memory for one draw, whatever their number.

    mean: probabilities (u k). entropy: of one draw, on average, in nats (u,). variance: of probabilities (u k).
    votes: how many draws guess each class (u k). draws: their number.
    """

    mean: Tensor
    entropy: Tensor
    variance: Tensor
    votes: Tensor
    draws: int

    @property
    def bald(self) -> Tensor:
        """The mutual information of label and weights, in nats (u,)."""
        return entropy(self.mean) - self.entropy


def posterior(scan: Scan, draws: int, of: Tensor | None = None) -> Posterior:
    """Sum up that many dropout masks of every member. of: other indices into the pool than all unlabeled ones."""
    shape = len(scan.pool.unlabeled if of is None else of), scan.pool.classes
    off, square, votes = (torch.zeros(shape, device=scan.device) for _ in range(3))
    unsure, t, first = torch.zeros_like(off[:, 0]), 0, None
    for log in scan.draws(draws, of):
        t += 1
        p = log.exp()
        unsure -= (p * log).sum(1)
        votes.scatter_add_(1, log.argmax(1, keepdim=True), torch.ones_like(votes[:, :1]))
        first = p if first is None else first  # sums of what differs from it lose no digits where little does
        off += p - first
        square += (p - first).square()
    assert first is not None
    off, square = off / t, square / t
    return Posterior(first + off, unsure / t, (square - off.square()).clamp(min=0), votes, t)


def opinions(scan: Scan, draws: int) -> Posterior:
    """The same where draws are to disagree. Raises ValueError for a single one, which cannot."""
    several(scan, draws)
    return posterior(scan, draws)


def several(scan: Scan, draws: int) -> int:
    """How many draws there are in all. Raises ValueError for a single one."""
    if (count := scan.count(draws)) < 2:
        raise ValueError(f"draws={draws}: one draw cannot disagree with itself. Take two at least, better a hundred")
    return count


def entropy(p: Tensor) -> Tensor:
    """Of probabilities (... k), in nats (...)."""
    return -p.xlogy(p).sum(-1)


def ask_mc_least_confident(scan: Scan, n: int, *, draws: int = 100) -> Asked:
    """Ask where the best guess of the mean over draws is weakest."""
    best = posterior(scan, draws).mean.amax(1)
    return top(-best, n, confidence=best)


def ask_mc_margin(scan: Scan, n: int, *, draws: int = 100) -> Asked:
    """Ask where the two best guesses of the mean over draws are closest."""
    first, second = two_best(posterior(scan, draws).mean)
    return top(second - first, n, margin=first - second)


def ask_mc_entropy(scan: Scan, n: int, *, draws: int = 100) -> Asked:
    """Ask where the mean over draws is most spread out; `entropy` in nats."""
    spread = entropy(posterior(scan, draws).mean)
    return top(spread, n, entropy=spread)


def ask_mean_std(scan: Scan, n: int, *, draws: int = 100) -> Asked:
    """Ask where probabilities vary most from draw to draw: `std`, their standard deviation, mean over the classes."""
    seen = opinions(scan, draws)
    std = seen.variance.sqrt().mean(1)
    return top(std, n, std=std)


def ask_variation_ratio(scan: Scan, n: int, *, draws: int = 100) -> Asked:
    """Ask where the fewest draws vote for the favourite: `VR`, the share of the others.

    A share has few values, so that ties would decide; of equal ones, the mean's entropy does.
    """
    seen = opinions(scan, draws)
    ratio = 1 - seen.votes.amax(1) / seen.draws
    finer = entropy(seen.mean) / math.log(seen.mean.shape[1])  # in [0, 1]: less than half a vote
    return top(ratio + finer / (2 * seen.draws), n, VR=ratio)


def ask_bald(scan: Scan, n: int, *, draws: int = 100) -> Asked:
    """Ask where the draws are sure and disagree: `BALD`, the mutual information of label and weights, in nats."""
    bald = opinions(scan, draws).bald
    return top(bald, n, BALD=bald)


def ask_power_bald(scan: Scan, n: int, *, draws: int = 100, beta: float = 1.0) -> Asked:
    """Draw images with a chance that grows as `BALD` ^ beta, without replacement: less alike than the very best."""
    bald = opinions(scan, draws).bald
    uniform = torch.rand(len(bald), generator=scan.generator("power_bald"), dtype=torch.float64).to(bald.device)
    gumbel = -(-uniform.clamp(min=1e-300).log()).log()
    return top(beta * bald.double().clamp(min=1e-12).log() + gumbel, n, BALD=bald)


def ask_batch_bald(
    scan: Scan, n: int, *, draws: int = 100, configurations: int = 10_000, memory_mib: float = 1024.0
) -> Asked:
    """Ask for the images whose labels together say most about the weights, greedily.

    Exact while the labels of those asked have no more than so many `configurations` (ours; the authors' code has
    40,000); then that many are drawn, and extended with each image asked. Where the draws of the whole pool would take
    more than `memory_mib`, candidates are those of the highest BALD. `gain`: what an image adds to the mutual
    information, in nats; `BALD`: alone.
    """
    u, k = scan.probs.shape
    fitting = int(memory_mib * 2**20) // (4 * k * several(scan, draws))
    if fitting < min(n, u):
        raise ValueError(f"memory_mib={memory_mib} holds the draws of {fitting} images, fewer than the {n} asked for")
    candidates = torch.arange(u, device=scan.device)
    if fitting < u:
        bald = posterior(scan, draws).bald
        candidates = bald.sort(descending=True, stable=True).indices[:fitting].sort().values
    p = torch.stack([log[candidates].exp() for log in scan.draws(draws)], 1)  # (m t k)
    if fitting >= u:  # one pass does
        bald = entropy(p.mean(1)) - entropy(p).mean(1)
    if not bald.isfinite().all():
        return top(bald, n)  # says so
    places, gains = jointly(p, n, configurations, scan.generator("batch_bald"))
    positions = candidates[places]
    return in_turn(positions, gain=gains, BALD=bald[positions])


def jointly(p: Tensor, n: int, configurations: int, chance: Generator) -> tuple[Tensor, Tensor]:
    """BatchBALD's greedy choice of n of m candidates by their draws (m t k): places (n,) and gains (n,).

    With the labels of the images asked so far in configuration c, of weight a_c, the draws have the posterior w_c; a
    candidate adds sum_c a_c H(w_c p) less its mean entropy over draws. That can only fall as more is asked, so the
    last gain bounds the next, and few candidates are looked at again (lazy greedy).
    """
    m, t, _ = p.shape
    alone = entropy(p).mean(1)  # (m,)
    bound = entropy(p.mean(1)) - alone
    weight, w = p.new_ones(1), p.new_full((1, t), 1 / t)  # (c,), (c t)
    left = torch.ones(m, dtype=torch.bool, device=p.device)
    places, gains = [], []
    for _ in range(n):
        best, gain = -1, -math.inf
        order = torch.where(left, bound, -math.inf).sort(descending=True, stable=True).indices[: int(left.sum())]
        for block in order.split(BLOCK):
            if bound[block[0]] <= gain:
                break
            bound[block] = torch.minimum(bound[block], told(p[block], weight, w) - alone[block])
            if (here := bound[block].max().item()) > gain:
                best, gain = int(block[bound[block].argmax()]), here
        places.append(best)
        gains.append(gain)
        left[best] = False
        weight, w = extended(weight, w, p[best], configurations, chance)
    if gains[-1] < 1e-4:
        last = next(i for i, gain in enumerate(gains) if gain < 1e-4)
        text = "batch_bald: %d draws tell no more after %d of %d images; the rest is arbitrary. Give it more draws"
        logging.getLogger("alzoo").warning(text, t, last, n)
    return torch.tensor(places, device=p.device), torch.tensor(gains, device=p.device)


def told(p: Tensor, weight: Tensor, w: Tensor) -> Tensor:
    """The entropy of each candidate's label (b t k) given the labels of those asked, in nats (b,)."""
    flat = rearrange(p, "b t k -> t (b k)")
    total, tiny = flat.new_zeros(flat.shape[1]), flat.new_full((1,), TINY)
    for a, some in zip(weight.split(CONFIGURATIONS), w.split(CONFIGURATIONS), strict=True):
        joint = torch.addmm(tiny, some, flat)  # (c, b k)
        total -= a @ joint.log().mul_(joint)  # summed over c first: a product, and no small sums
    return total.view(len(p), -1).sum(1)


def extended(weight: Tensor, w: Tensor, p: Tensor, most: int, chance: Generator) -> tuple[Tensor, Tensor]:
    """The configurations with one more label, that of an image with draws p (t k): all, or `most` drawn by weight."""
    joint = (weight[:, None] * (w @ p)).flatten()  # (c k)
    if len(joint) > most:
        places = (torch.arange(most) + torch.rand(1, generator=chance)).to(joint) / most
        kept = torch.searchsorted(joint.double().cumsum(0) / joint.sum(dtype=torch.float64), places.double())
        kept, weight = kept.clamp(max=len(joint) - 1), torch.full_like(places, 1 / most)
    else:
        kept = joint.nonzero().squeeze(1)
        weight = joint[kept]
    w = w[kept // p.shape[1]] * p.T[kept % p.shape[1]]
    return weight, w / w.sum(1, keepdim=True)


def ask_acs_fw(scan: Scan, n: int, *, draws: int = 100, projections: int = 10, gamma: float = 0.7) -> Asked:
    """Ask for the images that stand in best for all of the pool's expected log-likelihood (Frank-Wolfe).

    That is J ^ -1/2 (sum_y p(y) log p_j(y) + gamma H(p)) of each image, for J of the draws. `weight`: its weight in
    the sum. Frank-Wolfe comes back to images it has, so it goes on until n are distinct; the residual fills the rest.
    """
    several(scan, draws)
    if projections < 2:
        raise ValueError(f"projections={projections}: on a single one all images look alike. Take two at least")
    mean = posterior(scan, draws).mean
    spread = gamma * entropy(mean)
    logs = ((mean * log).sum(1) + spread for log in chosen(scan.draws(draws), scan, draws, projections))
    v = torch.stack(list(logs), 1).double()
    positions, weights = frank_wolfe(v / math.sqrt(v.shape[1]), n)
    return in_turn(positions, weight=weights)


def chosen(logs: Iterator[Tensor], scan: Scan, draws: int, some: int) -> Iterator[Tensor]:
    """So many of the draws, evenly spread over members and masks."""
    total = scan.count(draws)
    return (log for i, log in enumerate(logs) if i * some // total != (i - 1) * some // total)


def frank_wolfe(v: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """n distinct of u vectors (u j) whose weighted sum comes near the sum of all: places, in order, and weights (n,).

    Raises RuntimeError where a vector is not finite.
    """
    if broken := int((~v.isfinite().all(1)).sum()):
        raise RuntimeError(f"{broken} of {len(v)} images have draws that are not finite: the network has diverged")
    size, target, near = v.norm(dim=1), v.sum(0), torch.zeros_like(v[0])
    weights = torch.zeros_like(size)
    order: dict[int, None] = {}
    for _ in range(10 * n):
        best = int((v @ (target - near) / size.clamp(min=1e-300)).argmax())
        way = v[best] * (size.sum() / size[best].clamp(min=1e-300)) - near
        step = ((way @ (target - near)) / (way @ way).clamp(min=1e-300)).clamp(0, 1)
        weights *= 1 - step
        weights[best] += step * size.sum() / size[best].clamp(min=1e-300)
        near = near + step * way
        order[best] = None
        if len(order) == n:
            break
    score = v @ (target - near) / size.clamp(min=1e-300)
    score[list(order)] = math.inf  # in order already
    rest = score.sort(descending=True, stable=True).indices[len(order) : n]
    positions = torch.cat([torch.tensor(list(order), device=v.device), rest])
    return positions, weights[positions]


MC = "Gal & Ghahramani, ICML 2016, arXiv:1506.02142"


def drawn(name: str, ask: Callable[..., Asked], paper: str, **more: Any) -> Query:
    """A query that needs draws, and stands on plain training with dropout where nothing else is said."""
    ranges = MappingProxyType({"draws": "[1, inf)", **more.pop("ranges", {})})
    return Query(name, ask, paper, **{"cost": "u k t", "needs": ("draws",), "nets": DROPOUT, "ranges": ranges, **more})


mc_least_confident = drawn("mc_least_confident", ask_mc_least_confident, MC)
mc_margin = drawn("mc_margin", ask_mc_margin, MC)
mc_entropy = drawn("mc_entropy", ask_mc_entropy, "Gal, Islam & Ghahramani, ICML 2017, arXiv:1703.02910")
mean_std = drawn("mean_std", ask_mean_std, "Kampffmeyer et al. 2016; Gal, Islam & Ghahramani, ICML 2017")
variation_ratio = drawn("variation_ratio", ask_variation_ratio, "Freeman 1965; Gal, Islam & Ghahramani, ICML 2017")
bald = drawn("bald", ask_bald, "Houlsby et al. 2011, arXiv:1112.5745")
power_bald = drawn(
    "power_bald",
    ask_power_bald,
    "Kirsch et al. 2021, arXiv:2106.12059",
    randomised=True,
    ranges={"beta": "[0, inf)"},
)
batch_bald = drawn(
    "batch_bald",
    ask_batch_bald,
    "Kirsch et al., NeurIPS 2019, arXiv:1906.08158",
    cost="u k t + n m k t c",
    ranges={"configurations": "[1, inf)", "memory_mib": "(0, inf)"},
)
acs_fw = drawn(
    "acs_fw",
    ask_acs_fw,
    "Pinsler et al., NeurIPS 2019, arXiv:1908.02144",
    cost="u k t + n u j",
    ranges={"projections": "[2, inf)", "gamma": "[0, inf)"},
)
ensemble = drawn(
    "ensemble",
    ask_variation_ratio,
    "Beluch et al., CVPR 2018",
    needs=("members",),
    nets=MappingProxyType({"members": 5}),
)
debal = drawn(
    "debal",
    ask_bald,
    "Pop & Fulop 2018, arXiv:1811.03897",
    needs=("members", "dropout"),
    nets=MappingProxyType({"members": 3, "dropout": 0.5}),
)
