"""Deep probabilistic ensembles against their equations."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

import zoo
from trainers import dpe
from trainers.run import Run
from zoo.register import entries
from zoo.testing import CLASSES, SHAPE, Subject, pool


def cast():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return entries()["dpe"].build(SHAPE, CLASSES, width=4)


def test_the_kl_is_that_of_gaussians():
    nets = [nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 4)) for _ in range(3)]
    total = 0.0
    for name in ("0.weight", "2.weight"):
        together = torch.stack([net.state_dict()[name] for net in nets]).double()
        prior = Normal(0.0, (2 / together[0][0].numel()) ** 0.5)
        total += kl_divergence(Normal(together.mean(0), together.std(0, unbiased=False)), prior).sum()
    assert torch.allclose(dpe.spread_apart(nets, least=0).double(), total, rtol=1e-5)


def test_members_that_agree_are_pushed_apart_by_finite_gradients():
    net = nn.Linear(4, 3)
    nets = [net, deepcopy(net), deepcopy(net)]
    with torch.no_grad():
        nets[1].weight += 1e-3
    spread = dpe.spread_apart(nets)
    spread.backward()
    assert spread.isfinite()
    with torch.no_grad():
        for each in nets:
            each.weight -= 1e-8 * each.weight.grad
    assert dpe.spread_apart(nets) < spread


def test_one_step_is_the_sum_of_the_members_losses_and_the_kl():
    p, parts = pool(), cast()
    mirror = deepcopy(parts)
    plan = dpe.Plan(steps=1, batch=8, beta=1e-3, optimizer="adam", lr=0.01, schedule="constant")
    dpe.train(Run(p, seed=3), p, plan, **parts)

    nets = [nn.Sequential(mirror["trunk"], mirror["head"]), *mirror["members"]]
    step = torch.optim.Adam([w for net in nets for w in net.parameters()], 0.01)
    x, y = next(Run(p, seed=3).stream(p.labeled, 8))
    loss = sum(F.cross_entropy(net(x), y) for net in nets)
    for name in [name for name, w in nets[0].named_parameters() if w.ndim > 1]:
        w = torch.stack([dict(net.named_parameters())[name] for net in nets])
        mean, variance, he = w.mean(0), w.var(0, unbiased=False) + 1e-8, 2 / w[0][0].numel()
        loss = loss + 1e-3 * 0.5 * ((variance + mean**2) / he - 1 - torch.log(variance / he)).sum()
    loss.backward()
    step.step()
    for part in parts:
        for key, value in parts[part].state_dict().items():
            assert torch.allclose(value, mirror[part].state_dict()[key], atol=2e-5), f"{part}.{key}"


def test_the_kl_keeps_the_members_apart():
    p = pool()
    loose, held = (Subject("dpe").learner(steps=60, beta=beta).fit(p) for beta in (0.0, 3e-3))
    near, far = (dpe.spread_apart(learner.scan(p).members).item() for learner in (loose, held))
    assert far < near


def test_it_asks_by_the_mean_of_its_members():
    p = pool()
    learner = Subject("dpe").learner().fit(p)
    asked = learner.select(p, 36)
    probs = learner.scan(p).probs
    spread = -(probs * probs.log()).sum(1)
    order = [p.unlabeled.tolist().index(i) for i in asked]
    assert torch.allclose(asked.detail["entropy"], spread[order], atol=1e-5)


def test_one_member_alone_is_refused():
    with pytest.raises(ValueError, match="members=1"):
        zoo.create("dpe", members=1, device="cpu").build(SHAPE, CLASSES)
