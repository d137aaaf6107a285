"""A ranker that predicts from the maps of a task network how large its loss is, and the scale that losses are read on.

Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019. https://arxiv.org/abs/1905.03677
width=128 over the four stages of ResNet-18 is the published one: 123,905 parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.nets.common import fp32, unknown

FORMS = ("rank", "released")
KNOTS = 1025


class Ranker(nn.Module):
    """Maps, one per stage, to the predicted loss (b,), float32: each is averaged, then all are weighed together.

    channels: of each map. last: of each, whether they come last, as in tokens (b n d) and maps (b h w c), not as in
    (b c h w); by default in none.
    """

    def __init__(self, channels: Sequence[int], width: int = 128, last: Sequence[bool] = ()) -> None:
        super().__init__()
        if not channels or width < 1:
            raise ValueError(
                f"A ranker needs maps to read and a width of at least 1, not {list(channels)} and {width}."
            )
        self.last = tuple(last) or (False,) * len(channels)
        self.looks = nn.ModuleList(nn.Sequential(nn.Linear(c, width), nn.ReLU()) for c in channels)
        self.weigh = nn.Linear(len(channels) * width, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        with fp32(maps[0]):
            means = [mean(m.float(), last) for m, last in zip(maps, self.last, strict=True)]
            seen = torch.cat([look(each) for look, each in zip(self.looks, means, strict=True)], 1)
            predicted: Tensor = self.weigh(seen).squeeze(1)
        return predicted


def mean(x: Tensor, last: bool) -> Tensor:
    """The mean of each channel of a map, whether they come last or second: (b ...) -> (b c)."""
    return (x if last else x.movedim(1, -1)).flatten(1, -2).mean(1)


class Scale(nn.Module):
    """Predicted losses (b,) to what the decoder is told of them (b,), and what the critic is told (b,).

    "rank": both the same, the share of the pool whose predicted loss is smaller, in [0, 1]; half of the equal ones
    count. It is read off `knots`, the pool's predicted losses at 1,025 evenly spaced ranks, to a thousandth.
    "released": their sigmoid to the decoder, they themselves to the critic, as the released code has it.
    """

    knots: Tensor

    def __init__(self, form: str = "rank") -> None:
        super().__init__()
        if form not in FORMS:
            raise unknown("form of rank", form, FORMS, f"Choose from {', '.join(FORMS)}")
        self.form = form
        self.register_buffer("knots", torch.linspace(-1, 1, KNOTS))

    def forward(self, predicted: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == "released":
            return predicted.sigmoid(), predicted
        below, upto = (torch.searchsorted(self.knots, predicted, right=right) for right in (False, True))
        low, high = self.knots[(below - 1).clamp(min=0)], self.knots[below.clamp(max=KNOTS - 1)]
        between = below - 1 + (predicted - low) / (high - low)
        among = (below + upto - 1) / 2  # the middle of the knots that it equals
        rank = (torch.where(upto > below, among, between) / (KNOTS - 1)).clamp(0, 1)
        return rank, rank
