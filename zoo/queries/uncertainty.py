"""Ask where the classifier is unsure."""

from collections.abc import Iterable

import torch
from torch import Tensor

from zoo.query import Query
from zoo.scan import Asked, Scan, top

TINY = 1e-30  # added to a probability, so that 0 log 0 = 0
ROWS = 8192  # images that are looked at together: what is made of them stays in the processor's cache
WIDTH = 16  # columns that are looked at together, where there are many


def ask_anywhere(scan: Scan, n: int) -> Asked:
    """Ask anywhere: the baseline every method has to beat."""
    return top(torch.rand(len(scan.pool.unlabeled), generator=scan.generator("random")), n)


def ask_least_confident(scan: Scan, n: int) -> Asked:
    """Ask where the best guess is weakest."""
    best = scan.probs.amax(1)
    return top(-best, n, confidence=best)


def ask_margin(scan: Scan, n: int) -> Asked:
    """Ask where the two best guesses are closest."""
    first, second = two_best(scan.probs)
    return top(second - first, n, margin=first - second)


def ask_entropy(scan: Scan, n: int) -> Asked:
    """Ask where the guess is most spread out; `entropy` in nats."""
    entropy = -torch.cat([(p + TINY).log_().mul_(p).sum(1) for p in scan.probs.split(ROWS)])
    return top(entropy, n, entropy=entropy)


def two_best(p: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and the second largest of each row (u k): (u,) and (u,).

    On the CPU by one look at each column, where topk would sort row after row.
    """
    if p.device.type != "cpu":
        first, second = p.topk(2).values.unbind(1)
        return first, second
    found = []
    whole = p.shape[1] // WIDTH * WIDTH
    for rows in p.split(ROWS):
        blocks, best = rows[:, :whole].split(WIDTH, dim=1), rows
        if len(blocks) > 2:
            best = torch.cat([*_two_best(blocks), rows[:, whole:]], 1)
        found.append(_two_best(best.T.contiguous()))
    firsts, seconds = zip(*found, strict=True)
    return torch.cat(firsts), torch.cat(seconds)


def _two_best(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The largest and the second largest of two or more tensors of one shape, number by number."""
    first, second, *rest = parts
    first, second = torch.maximum(first, second), torch.minimum(first, second)
    for part in rest:
        second = torch.maximum(second, torch.minimum(first, part))
        first = torch.maximum(first, part)
    return first, second


random = Query("random", ask_anywhere, "-", cost="u", randomised=True, cold=True)
least_confident = Query("least_confident", ask_least_confident, "Lewis & Gale, SIGIR 1994, arXiv:cmp-lg/9407020")
margin = Query("margin", ask_margin, "Scheffer, Decomain & Wrobel, IDA 2001")
entropy = Query("entropy", ask_entropy, "Shannon 1948; Settles, Active Learning Literature Survey, 2009")
