"""Ask where labels have spread to least: what of the labeled images reaches along the graph of neighbours."""

from types import MappingProxyType

import torch

from trainers import graph
from zoo.queries.geometry import finite
from zoo.query import Query
from zoo.scan import Asked, Scan


def ask_farthest(
    scan: Scan,
    n: int,
    *,
    neighbours: int = 50,
    gamma: float = 3.0,
    alpha: float = 0.99,
    iterations: int = 20,
    largest: int = 200_000,  # noqa: ARG001 (looked at before anything is computed)
) -> Asked:
    """Ask where the least arrives, `f`; what has been asked is a source from then on, and everything spreads anew.

    No class plays a part. `f` is what reached an image when it was asked for; since more sources reach farther, it
    rises from one to the next, up to what conjugate gradients leave undone after so many iterations. largest: a larger
    pool is refused before anything is trained, as the graph takes a look at all pairs of images.
    """
    known = len(scan.known)
    finite(scan.known), finite(scan.features)
    net = graph.build(torch.cat([scan.known, scan.features]), neighbours, gamma)
    sources = net.values.new_zeros(len(net), 1)
    sources[:known] = 1
    asked, arrived = [], []
    for _ in range(n):
        f = graph.diffuse(net, sources, alpha, iterations)
        farthest = torch.where(sources > 0, torch.inf, f).argmin()
        asked.append(farthest - known)
        arrived.append(f[farthest, 0])
        sources[farthest] = 1
    f = torch.stack(arrived)
    return Asked(torch.stack(asked), -f.cummax(0).values, {"f": f})


jlp = Query(
    "jlp",
    ask_farthest,
    "Siméoni, Budnik, Avrithis & Gravier, ICPR 2020, arXiv:1911.08177",
    cost="(l+u)^2 d + n (l+u)",
    ranges=MappingProxyType(
        {
            "neighbours": "[1, inf)",
            "gamma": "(0, inf)",
            "alpha": "(0, 1)",
            "iterations": "[1, inf)",
            "largest": "[1, inf)",
        }
    ),
)
