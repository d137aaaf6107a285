"""Heavy convolutions as products of matrices: the same maps and gradients as torch's own."""

import pytest
import torch

from zoo.nets import halving
from zoo.nets.halving import Doubling, Halving
from zoo.nets.vae import VAE

KINDS = pytest.mark.parametrize("kind", [Halving, Doubling])


def light_and_heavy(monkeypatch, layer, x, run=lambda layer, x: layer(x)):
    """What a layer makes of x, and the gradients of both, once by torch's own and once by products."""
    for weights in (2**40, 0):
        monkeypatch.setattr(halving, "HEAVY", weights)
        out = run(layer, x)
        yield (out, *torch.autograd.grad(out.float().sin().sum(), [x, layer.weight]))


@KINDS
@pytest.mark.parametrize("side", [(4, 4), (8, 6), (7, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_heavy_layer_is_the_light_one(monkeypatch, kind, side, layout):
    torch.manual_seed(0)
    layer = kind(6, 5).to(memory_format=layout)
    x = torch.randn(3, 6, *side).contiguous(memory_format=layout).requires_grad_()
    for light, heavy in zip(*light_and_heavy(monkeypatch, layer, x), strict=True):
        assert light.shape == heavy.shape
        assert torch.allclose(light, heavy, atol=1e-5)


@KINDS
def test_in_bf16_too(monkeypatch, kind):
    torch.manual_seed(0)
    layer, x = kind(6, 5).to(memory_format=torch.channels_last), torch.randn(3, 6, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = [*light_and_heavy(monkeypatch, layer, x)]
    for light, heavy in zip(*found, strict=True):
        assert light.dtype == heavy.dtype
        assert torch.allclose(light.float(), heavy.float(), atol=0.02 * light.abs().max().item())


@KINDS
def test_compiled_too(monkeypatch, kind):
    torch.manual_seed(0)
    layer, x = kind(6, 5), torch.randn(3, 6, 4, 4, requires_grad=True)
    compiled = light_and_heavy(monkeypatch, layer, x, torch.compile(lambda layer, x: layer(x), backend="aot_eager"))
    for light, heavy in zip(*compiled, strict=True):
        assert torch.allclose(light, heavy, atol=1e-5)
    torch._dynamo.reset()


@KINDS
def test_gradients_of_gradients_are_right(monkeypatch, kind):
    monkeypatch.setattr(halving, "HEAVY", 0)
    torch.manual_seed(0)
    layer, x = kind(2, 3).double(), torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


@KINDS
def test_gradients_lie_as_the_filters_do(monkeypatch, kind):
    """Or each step would copy them: the fused optimizers go through both in the order of memory."""
    monkeypatch.setattr(halving, "HEAVY", 0)
    layer = kind(6, 5).to(memory_format=torch.channels_last)
    layer(torch.randn(3, 6, 4, 4)).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_only_the_published_width_is_heavy():
    with torch.device("meta"):
        heavy = [
            [m.weight.numel() >= halving.HEAVY for m in VAE((3, 32, 32), 32, width).modules() if hasattr(m, "stride")]
            for width in (8, 32, 64, 128)
        ]
    assert [sum(layers) for layers in heavy] == [0, 0, 0, 2]
