"""Heavy convolutions as products of matrices: the same maps and gradients as torch's own."""

import pytest
import torch

from zoo.nets import halving
from zoo.nets.halving import Doubling, Halving
from zoo.nets.vae import VAE


@pytest.mark.parametrize("kind", [Halving, Doubling])
@pytest.mark.parametrize("side", [(4, 4), (8, 6), (7, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_heavy_layer_is_the_light_one(monkeypatch, kind, side, layout):
    torch.manual_seed(0)
    layer = kind(6, 5).to(memory_format=layout)
    x = torch.randn(3, 6, *side).contiguous(memory_format=layout).requires_grad_()
    found = []
    for heavy in (2**40, 0):
        monkeypatch.setattr(halving, "HEAVY", heavy)
        out = layer(x)
        found.append((out, *torch.autograd.grad(out.sin().sum(), [x, layer.weight])))
    for light, dense in zip(*found, strict=True):
        assert light.shape == dense.shape
        assert torch.allclose(light, dense, atol=1e-5)


def test_only_the_published_width_is_heavy():
    with torch.device("meta"):
        heavy = [
            [m.weight.numel() >= halving.HEAVY for m in VAE((3, 32, 32), 32, width).modules() if hasattr(m, "stride")]
            for width in (8, 32, 64, 128)
        ]
    assert [sum(layers) for layers in heavy] == [0, 0, 0, 2]
