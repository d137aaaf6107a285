"""Ask for images that would move the last layer most, and in different directions."""

from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from zoo.queries.geometry import Points, blocks, finite, in_turn, scattered
from zoo.query import Query
from zoo.scan import Asked, Scan

ROOM = 8192  # k d of the largest matrices that bait keeps: (k d)^2 doubles, half a GiB each


def ask_badge(scan: Scan, n: int, bias: bool = False) -> Asked:
    """Ask for large and different gradients of the last layer, were the best guess the label.

    g = (p - the best guess) x h, for features h: n of them drawn as k-means++ does, the first being the longest. It is
    never multiplied out, as lengths and products of g are products of those of its two factors. bias: whether g has
    the gradient of the bias too. `distance`: to the nearest g asked before; for the first, infinite.
    An image whose guess is certain has g = 0: never the first, and another one with g = 0 is never asked after it as
    long as there is any other. Where no distance is left, any image is asked.
    """
    q = scan.probs - one_hot(scan.logits.argmax(1), scan.logits.shape[1])
    points = Points.of(q, pad(scan.features, (0, 1), value=1.0) if bias else scan.features)
    longest = points.squares.argmax(keepdim=True)
    positions, gains = scattered(points, n, scan.generator("badge"), first=longest)
    return in_turn(positions, distance=gains.sqrt())


def ask_bait(scan: Scan, n: int, lam: float = 1.0, over: float = 2.0, project: int = 0) -> Asked:
    """Ask for images after which the last layer's Fisher information is closest to that of all images.

    Minimises tr(M^-1 F), greedily: M = lam I + (the mean information of the l labeled images, times l, and the sum
    of that of the asked ones, times n) / (l + n); F is the mean over all images. First over x n images are added one
    by one, then the least useful are dropped until n are left, as the authors' code does. They are asked in the order
    in which they were added. `gain`: by how much the trace fell then.
    In float64. project: where (k d)^2 is too much, features are projected at random to so many dimensions.
    """
    k, h, known = scan.logits.shape[1], scan.features, scan.known
    finite(h), finite(known), finite(scan.logits)
    if project:
        h, known = (x @ torch.randn(h.shape[1], project, generator=scan.generator("project")).to(x) for x in (h, known))
        h, known = h / project**0.5, known / project**0.5
    if k * (d := h.shape[1]) > ROOM:
        raise ValueError(
            f"bait keeps matrices of ({k} classes x {d} features)^2 = {(k * d) ** 2 * 8 / 2**30:.1f} GiB each. "
            f"Project the features to fewer: query_settings={{'project': {max(1, ROOM // k)}}}"
        )
    p_known, p = scan.known_logits.double().softmax(1), scan.logits.double().softmax(1)
    h, known = h.double(), known.double()
    seen = information(p_known, known)
    whole = (seen + information(p, h)) / (len(known) + len(h))
    start = lam * torch.eye(k * d, dtype=h.dtype, device=h.device) + seen / (len(known) + n)
    share, most = n / (len(known) + n), min(len(h), max(n, round(over * n)))
    return forward_and_back(p, h, share, whole=whole, inverse=torch.linalg.inv(start), n=n, most=most)


def information(p: Tensor, h: Tensor) -> Tensor:
    """The sum of (diag p - p p^T) x h h^T over images: (k d, k d), for p (n k) and h (n d)."""
    k, d = p.shape[1], h.shape[1]
    out = h.new_zeros(k, d, k, d)
    for a in range(k):
        for b in range(a, k):
            weight = p[:, a] * (float(a == b) - p[:, b])
            out[a, :, b] = out[b, :, a] = sum((h[i] * weight[i, None]).T @ h[i] for i in blocks(len(h), d))
    return out.view(k * d, k * d)


def forward_and_back(p: Tensor, h: Tensor, share: float, *, whole: Tensor, inverse: Tensor, n: int, most: int) -> Asked:
    """Add images up to `most`, then drop down to n: each the best by the trace of inverse x whole.

    With V = S H^T (k, k d), V^T V is the information of one image times `share`: S = diag(sqrt p) (I - 1 p^T) and
    H = I x h. Of the large matrices each image only sees a = H^T inverse H and b = H^T inverse whole inverse H (k k),
    kept up to date as one image comes or goes (Woodbury).
    """
    eye = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    s = (share * p).sqrt()[:, :, None] * (eye - p[:, None])
    a, b = seen_by(h, inverse), seen_by(h, inverse @ whole @ inverse)
    picks, gains = [], []
    out = torch.zeros(len(h), dtype=torch.bool, device=h.device)
    for _ in range(most):
        gain = drop_of_trace(s, a, b, eye).masked_fill_(out, -torch.inf)
        best = gain.argmax().view(1)
        out[best] = True
        picks.append(best)
        gains.append(gain[best])
        inverse, a, b = moved(s[best][0], h[best][0], eye, whole=whole, inverse=inverse, a=a, b=b, of=h)
    kept, gain = torch.cat(picks), torch.cat(gains)
    s, a, b, h = s[kept], a[kept], b[kept], h[kept]
    for _ in range(most - n):
        least = drop_of_trace(s, a, b, -eye).argmax().view(1)
        inverse, a, b = moved(s[least][0], h[least][0], -eye, whole=whole, inverse=inverse, a=a, b=b, of=h)
        stay = torch.arange(len(h), device=h.device) != least
        kept, gain, s, a, b, h = (x[stay] for x in (kept, gain, s, a, b, h))
    return in_turn(kept, gain=gain)


def seen_by(h: Tensor, matrix: Tensor) -> Tensor:
    """H^T matrix H of each image: (n k k), for h (n d) and a matrix (k d, k d)."""
    k, d = len(matrix) // h.shape[1], h.shape[1]
    out = h.new_empty(len(h), k, k)
    for rows in blocks(len(h), len(matrix)):
        for c, row in enumerate(matrix.view(k, d, k * d)):
            out[rows, c] = ((h[rows] @ row).view(-1, k, d) @ h[rows, :, None]).squeeze(2)
    return out


def drop_of_trace(s: Tensor, a: Tensor, b: Tensor, sign: Tensor) -> Tensor:
    """By how much the trace falls if an image comes (sign = I) or goes (sign = -I): (n,)."""
    left, right = s @ a @ s.mT + sign, s @ b @ s.mT
    change: Tensor = torch.linalg.solve(left, right)
    return change.diagonal(dim1=1, dim2=2).sum(1)


def moved(
    s: Tensor, h: Tensor, sign: Tensor, *, whole: Tensor, inverse: Tensor, a: Tensor, b: Tensor, of: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse, and all images' a and b, after the image (s, h) has come (sign = I) or gone (sign = -I)."""
    k, d = len(s), len(h)
    w = inverse.view(-1, k, d) @ h @ s.T  # inverse V^T (k d, k)
    fw = whole @ w
    mid = torch.linalg.inv(s @ (h @ w.view(k, d, k)) + sign)
    inner = mid @ (w.T @ fw) @ mid
    mine, theirs = ((of @ m.view(k, d, k)).transpose(0, 1) for m in (w, inverse @ fw))  # H^T of both (n k k)
    half = mine @ mid @ theirs.mT
    return inverse - w @ mid @ w.T, a - mine @ mid @ mine.mT, b - half - half.mT + mine @ inner @ mine.mT


badge = Query(
    "badge",
    ask_badge,
    "Ash, Zhang, Krishnamurthy, Langford & Agarwal, ICLR 2020, arXiv:1906.03671",
    cost="u n (k + d)",
    randomised=True,
)
bait = Query(
    "bait",
    ask_bait,
    "Ash, Goel, Krishnamurthy & Kakade, NeurIPS 2021, arXiv:2106.09675",
    cost="n (u k^2 d + k^3 d^2)",
    ranges=MappingProxyType({"lam": "(0, inf)", "over": "[1, inf)", "project": "[0, inf)"}),
)
