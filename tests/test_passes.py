"""Batches through a network together or apart."""

import pytest
import torch
from torch import nn

from trainers.passes import through


class Two(nn.Module):
    """(b 3), (b 1) -> (b 3), (b,)"""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x, more):
        out = self.norm(x + more)
        return out, out.sum(1)


def test_apart_each_batch_has_its_own_statistics_and_together_they_share():
    norm, x, u = nn.BatchNorm1d(3), torch.randn(5, 3), torch.randn(7, 3) + 4
    one, two = through(norm, [(x,), (u,)], apart=True)
    assert torch.allclose(one, norm(x))
    assert torch.allclose(two, norm(u))
    one, two = through(norm, [(x,), (u,)], apart=False)
    assert torch.allclose(torch.cat([one, two]), norm(torch.cat([x, u])))
    assert two.mean() > one.mean() + 1, "what sets them apart is still to be seen"


@pytest.mark.parametrize("apart", [True, False])
def test_several_arguments_and_several_answers_keep_their_batches(apart):
    net = Two()
    batches = [(torch.randn(n, 3), torch.randn(n, 1)) for n in (4, 2, 6)]
    outs = through(net, batches, apart=apart)
    assert [(len(a), len(b)) for a, b in outs] == [(4, 4), (2, 2), (6, 6)]
    for a, b in outs:
        assert torch.allclose(a.sum(1), b, atol=1e-5)


def test_the_same_batch_twice_comes_out_the_same_either_way():
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), torch.randn(6, 1, 5, 5)
    for a, b in zip(*(through(net, [(x,), (x,)], apart=apart) for apart in (True, False)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
