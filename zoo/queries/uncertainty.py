"""Ask where the classifier is unsure."""

import torch

from zoo.query import Query
from zoo.scan import Asked, Scan, top


def ask_anywhere(scan: Scan, n: int) -> Asked:
    """Ask anywhere: the baseline every method has to beat."""
    return top(torch.rand(len(scan.pool.unlabeled), generator=scan.generator("random")), n)


def ask_least_confident(scan: Scan, n: int) -> Asked:
    """Ask where the best guess is weakest."""
    best = scan.probs.amax(1)
    return top(-best, n, confidence=best)


def ask_margin(scan: Scan, n: int) -> Asked:
    """Ask where the two best guesses are closest."""
    first, second = scan.probs.topk(2).values.unbind(1)
    return top(second - first, n, margin=first - second)


def ask_entropy(scan: Scan, n: int) -> Asked:
    """Ask where the guess is most spread out; `entropy` in nats."""
    log = scan.logits.log_softmax(1)
    entropy = -(log.exp() * log).sum(1)
    return top(entropy, n, entropy=entropy)


random = Query("random", ask_anywhere, "-", cost="u", randomised=True, cold=True)
least_confident = Query("least_confident", ask_least_confident, "Lewis & Gale, SIGIR 1994, arXiv:cmp-lg/9407020")
margin = Query("margin", ask_margin, "Scheffer, Decomain & Wrobel, IDA 2001")
entropy = Query("entropy", ask_entropy, "Shannon 1948; Settles, Active Learning Literature Survey, 2009")
