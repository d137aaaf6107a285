"""Ask where the draws of a Bayesian classifier disagree: dropout stays on while it looks (Gal & Ghahramani 2016)."""

from types import MappingProxyType

from zoo.query import Query
from zoo.scan import Asked, Scan, top

DROPOUT = MappingProxyType({"dropout": 0.5})


def ask_bald(scan: Scan, n: int, *, draws: int = 100) -> Asked:
    """Ask where the draws are sure and disagree: `BALD`, the mutual information of label and weights, in nats."""
    total, unsure = scan.probs.new_zeros(scan.probs.shape), scan.probs.new_zeros(len(scan.probs))
    for log in scan.draws(draws):
        p = log.exp()
        total += p
        unsure -= (p * log).sum(1)
    mean = total / draws
    bald = -mean.xlogy(mean).sum(1) - unsure / draws
    return top(bald, n, BALD=bald)


bald = Query("bald", ask_bald, "Houlsby et al. 2011, arXiv:1112.5745", cost="u k t", needs=("dropout",), nets=DROPOUT)
