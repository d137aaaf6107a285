"""One copy in place of many: the layer ends, and the function goes, where the whole one would have gone."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam

from trainers import ensemble, supervised
from trainers.copies import OneCopy, collapsed
from trainers.pool import Pool
from trainers.run import Run
from zoo.nets.vgg import Copied


def copying():
    """Four maps of one pixel, each copied four times."""
    torch.manual_seed(0)
    layers = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), Copied(4 * 4, 8, 4), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "fused": True}),
        (Adam, {"lr": 0.01}),
    ],
)
def test_weights_end_where_the_whole_layer_would_have_ended(optimizer, settings):
    whole, lean = copying(), copying()
    whole[2].copies = 1  # every copy by itself
    of_whole = optimizer(whole.parameters(), **settings)
    with collapsed(lean):
        assert isinstance(lean[2], OneCopy)
        of_lean = optimizer(lean.parameters(), **settings)
        for _ in range(20):
            x, y = torch.randn(5, 4, 1, 1).double(), torch.randint(3, (5,))
            for net, step in ((whole, of_whole), (lean, of_lean)):
                step.zero_grad()
                F.cross_entropy(net(x), y).backward()
                step.step()
            assert torch.allclose(whole(x), lean(x), atol=1e-12)
    for name, weights in whole.state_dict().items():
        assert torch.allclose(weights, lean.state_dict()[name], atol=1e-12), name


def test_a_copied_layer_answers_as_a_linear_one_and_learns_alike():
    net, x = copying(), torch.randn(5, 4, 1, 1).double()
    gradients = []
    for copies in (4, 1):
        net[2].copies = copies
        net.zero_grad()
        net(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*gradients, strict=True))


def test_what_is_frozen_or_copies_nothing_is_left_alone():
    net, frozen = copying(), copying().requires_grad_(False)
    net[2].copies = 1
    with collapsed(net), collapsed(frozen):
        assert type(net[2]) is Copied
        assert type(frozen[2]) is Copied


@pytest.mark.parametrize(("settings", "collapses"), [({"optimizer": "sgd"}, True), ({"optimizer": "adam"}, False)])
def test_a_loop_collapses_where_its_optimizer_allows_it(settings, collapses):
    seen, head = [], nn.Linear(3, 2)
    trunk = copying().float()
    trunk[2].register_forward_hook(lambda *_: seen.append("whole"))
    pool = Pool.of(torch.randint(0, 256, (8, 4, 1, 1), dtype=torch.uint8), torch.arange(8) % 2, 2)
    plan = ensemble.Plan(steps=2, batch=4, **settings)  # weight decay is on by default
    ensemble.train(Run(pool.reveal(torch.arange(8))), pool.reveal(torch.arange(8)), plan, trunk=trunk, head=head)
    assert ("whole" not in seen) == collapses
    assert type(trunk[2]) is Copied


def test_a_loop_that_collapses_ends_where_the_plain_one_does():
    pool = Pool.of(torch.randint(0, 256, (8, 4, 1, 1), dtype=torch.uint8), torch.arange(8) % 2, 2)
    pool, ends = pool.reveal(torch.arange(8)), []
    for train in (ensemble.train, supervised.train):
        torch.manual_seed(3)
        trunk, head = copying().float(), nn.Linear(3, 2)
        start = deepcopy(trunk.state_dict())
        train(Run(pool), pool, ensemble.Plan(steps=5, batch=4), trunk=trunk, head=head)
        assert not torch.equal(start["2.weight"], trunk[2].weight)
        ends.append(trunk.state_dict())
    for name, weights in ends[0].items():
        assert torch.allclose(weights, ends[1][name], atol=1e-5), name
