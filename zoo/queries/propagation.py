"""Ask where labels have spread to least: what of the labeled images reaches along the graph of neighbours."""

import torch

from trainers import graph
from zoo.query import Query
from zoo.scan import Asked, Scan


def ask_farthest(
    scan: Scan, n: int, *, neighbours: int = 50, gamma: float = 3.0, alpha: float = 0.99, iterations: int = 20
) -> Asked:
    """Ask where the least arrives, `f`; what has been asked is a source from then on, and everything spreads anew.

    No class plays a part. `f` is what reached an image when it was asked for; since more sources reach farther, it
    rises from one to the next, up to what conjugate gradients leave undone after so many iterations.
    """
    l, u = len(scan.known), len(scan.features)
    net = graph.build(torch.cat([scan.known, scan.features]), neighbours, gamma)
    sources = scan.features.new_zeros(l + u, 1)
    sources[:l] = 1
    asked, arrived = [], []
    for _ in range(n):
        f = graph.diffuse(net, sources, alpha, iterations)[l:, 0].masked_fill(sources[l:, 0] > 0, torch.inf)
        least = f.argmin()
        asked.append(least)
        arrived.append(f[least])
        sources[l + least] = 1
    positions, f = torch.stack(asked), torch.stack(arrived)
    return Asked(positions, -f.cummax(0).values, {"f": f})


jlp = Query(
    "jlp",
    ask_farthest,
    "Siméoni, Budnik, Avrithis & Gravier, ICPR 2020, arXiv:1911.08177",
    cost="(l+u)^2 d + n (l+u)",
)
