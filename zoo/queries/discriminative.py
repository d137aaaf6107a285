"""Ask for what a critic can tell from the labeled images by its features."""

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.optim import Adam

from zoo.nets.critic import Critic
from zoo.query import Query
from zoo.scan import Asked, Scan, top

LOOK = 10  # steps between two looks at how well the critic does, at least; a pass over all it learns from, if longer


def ask_discriminative(
    scan: Scan,
    n: int,
    *,
    sub_batches: int = 5,
    sample: int = 0,
    steps: int = 200,
    batch: int = 128,
    lr: float = 1e-3,
    stop: float = 0.98,
    width: int = 256,
) -> Asked:
    """Ask for what is surest to be unlabeled, in sub-batches; each counts as labeled when the next critic learns.

    Gissin & Shalev-Shwartz, 2019. https://arxiv.org/abs/1907.06347. The critic has three hidden layers and reads the
    trunk's features. `P` is its probability of unlabeled; since that saturates, its logits rank.

    sub_batches: how many critics are trained for one question. sample: of the unlabeled images, how many a critic
    sees for one labeled; 0 is all. Whatever it has seen, it judges them all. steps, batch, lr: of a critic, at most.
    stop: the balanced accuracy on what it learns from at which a critic has learned enough.

    In the released code the class weights are counted on one-hot labels and come out as 1, the accuracy that stops
    is that of both classes together (0.91 for a critic that always says unlabeled), and only images of a random
    sample, ten for one labeled, can be asked. Here the weights weigh, both classes count alike, and the sample limits
    the training alone. Ours besides: features are brought to mean 0 and deviation 1, so that fewer steps are enough,
    and there are five sub-batches where they have twenty.
    """
    if min(sub_batches, steps, batch, width) < 1 or sample < 0 or lr <= 0:
        raise ValueError(
            f"sub_batches={sub_batches}, steps={steps}, batch={batch} and width={width} must be at least 1, "
            f"sample={sample} at least 0, lr={lr} above 0"
        )
    h, u = standard(torch.cat([scan.features, scan.known])), len(scan.features)
    labeled = torch.arange(len(h), device=h.device) >= u
    chance = scan.generator("dal")
    positions, logits = [], []
    for part in torch.arange(n).tensor_split(min(sub_batches, n)):
        rows = seen(labeled, sample, chance)
        critic = learned(h[rows], labeled[rows], chance, steps=steps, batch=batch, lr=lr, stop=stop, width=width)
        rest = (~labeled[:u]).nonzero().squeeze(1)
        with torch.no_grad():
            unlike = -critic(h[rest])
        asked = top(unlike, len(part))
        positions.append(rest[asked.positions])
        logits.append(asked.scores)
        labeled[positions[-1]] = True
    return Asked(torch.cat(positions), torch.arange(0.0, -n, -1), {"P": torch.cat(logits).sigmoid()})


def standard(h: Tensor) -> Tensor:
    """Features (m d) with mean 0 and deviation 1 over the m images; those that never vary are 0."""
    return (h - h.mean(0)) / h.std(0, correction=0).clamp(min=1e-6)


def seen(labeled: Tensor, sample: int, chance: Generator) -> Tensor:
    """What a critic learns from: all labeled rows of (m,), and for each `sample` unlabeled ones, or all (0)."""
    inside, outside = labeled.nonzero().squeeze(1), (~labeled).nonzero().squeeze(1)
    if sample:
        some = torch.randperm(len(outside), generator=chance)[: sample * len(inside)]
        outside = outside[some.to(outside.device)]
    return torch.cat([inside, outside])


def learned(
    h: Tensor, labeled: Tensor, chance: Generator, *, steps: int, batch: int, lr: float, stop: float, width: int
) -> Critic:
    """A new critic that has learned which of the features (m d) are labeled (m,); both sides weigh the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=chance)))
        critic = Critic(h.shape[1], width, hidden=3)
    critic.to(h.device)
    step = Adam(critic.parameters(), lr, fused=True)
    side = labeled.float()
    weight = balance(labeled)
    right, met = (torch.zeros(2, device=h.device) for _ in range(2))  # of the unlabeled, of the labeled
    look, shuffle = max(LOOK, -(-len(h) // batch)), torch.empty(0, dtype=torch.int64)
    with torch.enable_grad():
        for done in range(1, steps + 1):
            if len(shuffle) < min(batch, len(h)):
                shuffle = torch.cat([shuffle, torch.randperm(len(h), generator=chance)])
            rows, shuffle = shuffle[:batch].to(h.device), shuffle[batch:]
            logit = critic(h[rows])
            loss = F.binary_cross_entropy_with_logits(logit, side[rows], weight[rows])
            step.zero_grad()
            loss.backward()
            step.step()

            hit = (logit.detach() > 0) == labeled[rows]
            right.index_add_(0, labeled[rows].long(), hit.float())
            met.index_add_(0, labeled[rows].long(), torch.ones_like(side[rows]))
            if done % look == 0:
                if bool((right / met).mean() > stop):  # false where one side has not been met
                    break
                right.zero_()
                met.zero_()
    return critic


def balance(labeled: Tensor) -> Tensor:
    """Weights (m,) under which labeled and unlabeled count the same, 1 on average."""
    share = labeled.float().mean()
    return torch.where(labeled, 0.5 / share, 0.5 / (1 - share))


dal = Query(
    "dal",
    ask_discriminative,
    "Gissin & Shalev-Shwartz 2019, arXiv:1907.06347",
    cost="sub_batches (steps + u) width^2",
    randomised=True,
    ranges=MappingProxyType(
        {
            **dict.fromkeys(("sub_batches", "steps", "batch", "width"), "[1, inf)"),
            **{"sample": "[0, inf)", "lr": "(0, inf)", "stop": "(0, inf)"},
        }
    ),
)
