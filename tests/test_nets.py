"""Networks: published sizes, any image size, float32 where it matters, and refusals that say why."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from zoo.nets.common import Mean
from zoo.nets.critic import Critic
from zoo.nets.trunk import Head, Trunk, freeze, task, trunk
from zoo.nets.vae import VAE

SIDES = [(8, 8), (10, 10), (28, 28), (31, 31), (32, 32), (33, 33), (50, 50), (64, 64), (224, 224), (9, 40), (50, 16)]


@pytest.fixture(autouse=True)
def alone() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def maps(net: Trunk, x: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    hooks = [stage.register_forward_hook(lambda _m, _i, out: seen.append(out)) for stage in net.stages]
    net.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_published_sizes() -> None:
    with torch.device("meta"):
        assert count(VAE((3, 32, 32), latent=32, width=128)) == 22_835_139
        assert count(VAE((3, 64, 64), latent=64, width=128)) == 28_389_379
        assert count(Critic(32)) == 280_065
        assert count(Critic(32, hidden=4)) == 805_377
        assert count(Critic(33)) == 280_577
        assert count(*task((3, 32, 32), 10, "resnet18").values()) == 11_173_962
        assert count(*task((3, 32, 32), 10, "vgg16_bn").values()) == 134_309_962
        assert 150_000 < count(*task((3, 32, 32), 10).values()) < 300_000


@pytest.mark.parametrize(("h", "w"), SIDES)
@pytest.mark.parametrize("c", [1, 3, 5])
def test_vae_keeps_every_shape(c: int, h: int, w: int) -> None:
    vae, x = VAE((c, h, w), latent=6, width=8), torch.rand(2, c, h, w) * 2 - 1
    recon, mu, logvar = vae(x)
    assert recon.shape == x.shape
    assert mu.shape == logvar.shape == (2, 6)
    recon.square().mean().backward()
    assert all(p.grad is not None for p in vae.parameters())


@pytest.mark.parametrize("name", ["small", "resnet18", "cnn13", "vgg16_conv"])
def test_what_comes_back_through_a_trunk_lies_as_its_maps_do(name: str) -> None:
    """The channels last: where two orders meet, a step takes ten times as long."""
    net, x = trunk(name, (3, 32, 32), 8), torch.randn(2, 3, 32, 32)
    net, x = (each.to(memory_format=torch.channels_last) for each in (net, x))  # type: ignore[attr-defined]
    seen: list[Tensor] = []
    for stage in net.stages:
        stage.register_forward_hook(lambda _m, _i, out: seen.append(out))
    out = net(x)
    for found in torch.autograd.grad(out.square().sum(), seen):
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_mean_of_maps_is_torchs_own_pooling(layout: torch.memory_format) -> None:
    x = torch.randn(3, 5, 4, 6).to(memory_format=layout).requires_grad_()
    one, other = Mean()(x), nn.AdaptiveAvgPool2d(1)(x)
    assert torch.allclose(one, other, atol=1e-6)
    weights = torch.randn_like(one)
    (back,), (plainly,) = (torch.autograd.grad((y * weights).sum(), x) for y in (one, other))
    assert torch.equal(back, plainly)


@pytest.mark.parametrize("side", [8, 32, 33])
def test_encoder_alone_is_the_same_and_the_noise_is_the_generators(side: int) -> None:
    vae, x = VAE((1, side, side), width=8).eval(), torch.randn(4, 1, side, side)
    (recon, mu, logvar), (mu_alone, logvar_alone) = vae(x), vae.encoder(x)
    assert torch.equal(mu, mu_alone)
    assert torch.equal(logvar, logvar_alone)
    assert not torch.equal(recon, vae(x)[0])
    torch.manual_seed(5)
    z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
    torch.manual_seed(5)
    assert torch.equal(vae(x)[0], vae.decoder(z))


def test_wild_images_keep_the_spread_finite() -> None:
    _, _, logvar = VAE((1, 8, 8), width=8).eval()(torch.randn(4, 1, 8, 8) * 1e6)
    assert logvar.abs().max() == 10


def test_released_initialisation() -> None:
    vae = VAE((3, 32, 32), width=64)
    for layer, fan in ((vae.encoder.body[3], 64 * 16), (vae.decoder.body[0][0], 32)):
        assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
    assert vae.encoder.mu.weight.abs().max().item() <= vae.encoder.mu.in_features**-0.5


def test_critic_is_flat_even_alone() -> None:
    assert Critic(6, width=8)(torch.randn(5, 6)).shape == (5,)
    assert Critic(6, width=8)(torch.randn(1, 6)).shape == (1,)
    assert Critic(6, hidden=0)(torch.randn(3, 6)).shape == (3,)


@pytest.mark.parametrize(
    ("name", "shape", "d"),
    [
        ("small", (1, 8, 8), 128),
        ("small", (3, 32, 32), 128),
        ("small", (5, 9, 33), 128),
        ("resnet18", (3, 8, 11), 512),
        ("timm/resnet18", (1, 32, 32), 512),
        ("timm/resnet18", (3, 64, 32), 512),
        ("timm/test_vit", (1, 32, 32), 64),
        ("timm/test_vit", (3, 64, 32), 64),
        ("timm/test_mambaout", (5, 32, 32), 256),
    ],
)
def test_trunks(name: str, shape: tuple[int, int, int], d: int) -> None:
    parts = task(shape, 7, name)
    assert list(parts) == ["trunk", "head"]
    net, head, x = parts["trunk"], parts["head"], torch.rand(2, *shape) * 2 - 1
    assert isinstance(net, Trunk)
    assert net.training
    assert net.d == d
    assert net(x).shape == (2, d)
    assert head(net(x)).shape == (2, 7)
    if name == "timm/test_vit":
        assert all(tokens.dim() == 3 for tokens in maps(net, x))
    else:
        seen = maps(net, x)
        sides = [min(out.shape[2:]) for out in seen]
        assert len(seen) == len(net.stages) >= 3
        assert all(out.dim() == 4 for out in seen)
        assert sides == sorted(sides, reverse=True)


def test_vgg_stages() -> None:
    with torch.device("meta"):
        net = trunk("vgg16_bn", (3, 32, 32))
        assert [out.shape[1:] for out in maps(net, torch.zeros(2, 3, 32, 32))] == [
            (64, 16, 16),
            (128, 8, 8),
            (256, 4, 4),
            (512, 2, 2),
            (512, 1, 1),
        ]
        assert net(torch.zeros(2, 3, 50, 40)).shape == (2, net.d) == (2, 4096)


def test_a_copy_has_its_own_stages() -> None:
    net = trunk("small", (1, 8, 8), 4)
    twin = copy.deepcopy(net)
    assert len(maps(twin, torch.zeros(2, 1, 8, 8))) == 3
    assert twin.stages[0] is not net.stages[0]


def test_timm_sees_its_own_statistics() -> None:
    import timm

    net = trunk("timm/resnet18", (3, 32, 32)).eval()
    own = timm.create_model("resnet18", num_classes=0).eval()
    own.load_state_dict({k.removeprefix("body.1."): v for k, v in net.state_dict().items() if k.startswith("body.1.")})
    x = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    theirs = own((x - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(net(x * 2 - 1), theirs, rtol=1e-4, atol=1e-4)


def test_full_precision_under_autocast() -> None:
    x = torch.randn(4, 1, 16, 16)
    net, head, vae, critic = trunk("small", (1, 16, 16), 8), Head(32, 3, 0.5), VAE((1, 16, 16), width=8), Critic(32)
    with torch.autocast("cpu", torch.bfloat16):
        features, (recon, mu, logvar) = net(x), vae(x)
        for out in (head(features), critic(mu.bfloat16()), recon, mu, logvar, vae.decoder(mu)):
            assert out.dtype == torch.float32
        assert nn.Linear(32, 3)(mu).dtype == torch.bfloat16  # autocast is on again
    torch.testing.assert_close(critic(mu.float()), critic.layers(mu), rtol=0, atol=0)


def test_head_has_dropout_only_when_asked() -> None:
    kinds = [{type(m) for m in task((1, 8, 8), 3, dropout=p)["head"].modules()} for p in (0.0, 0.2)]
    assert [nn.Dropout in kind for kind in kinds] == [False, True]
    Head(4, 2, 0.5).load_state_dict(Head(4, 2).state_dict())


def test_frozen_stays_frozen() -> None:
    parts = task((1, 8, 8), 3, width=4)
    names = list(parts["trunk"].state_dict())
    freeze(parts["trunk"])
    both = nn.Sequential(parts["trunk"], parts["head"])
    for net in (both, copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        before = {k: v.clone() for k, v in net[0].state_dict().items()}
        net.train()(torch.randn(4, 1, 8, 8)).sum().backward()
        assert not any(m.training for m in net[0].modules())
        assert net[1].training
        assert all(p.grad is None and not p.requires_grad for p in net[0].parameters())
        assert list(net[0].state_dict()) == names
        assert all(torch.equal(v, before[k]) for k, v in net[0].state_dict().items())
    assert copy.deepcopy(both)[0].train() is not both[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smal", "Unknown trunk 'smal'. Did you mean 'small'. Choose from small, resnet18"),
        ("zzz", "Unknown trunk 'zzz'. Choose from small"),
        ("timm/resnet81", "Unknown timm model 'resnet81'. Did you mean 'resnet"),
        ("timm/resnet18.a1_in2k", "Unknown tag of timm/resnet18 'a1_in2k'. Did you mean 'a1_in1k'"),
    ],
)
def test_unknown_names(name: str, says: str) -> None:
    with pytest.raises(ValueError, match="Unknown") as error:
        trunk(name, (3, 32, 32))
    assert str(error.value).replace("?", ".").startswith(says)


@pytest.mark.parametrize(
    ("name", "side", "says"),
    [
        ("small", 7, "7x7 images: below 8"),
        ("vgg16_bn", 7, "7x7 images: below 8"),
        ("timm/test_vit", 24, "24x24 images: .*divisible"),
    ],
)
def test_too_small(name: str, side: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        trunk(name, (3, side, side))


def test_refused_settings() -> None:
    with pytest.raises(ValueError, match="VAE cannot take 7x32"):
        VAE((1, 7, 32))
    with pytest.raises(ValueError, match="channel"):
        VAE((0, 8, 8))
    with pytest.raises(ValueError, match="latent=0"):
        VAE((1, 8, 8), latent=0)
    with pytest.raises(ValueError, match="hidden=-1"):
        Critic(4, hidden=-1)
    with pytest.raises(ValueError, match="width=0"):
        trunk("small", (1, 8, 8), 0)
    with pytest.raises(ValueError, match="dropout"):
        Head(4, 2, 1.0)
