"""DeepFool against its algorithm, one image at a time: the nearest boundary, and the images beyond it."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import zoo
from trainers.pool import Pool, normal
from zoo.queries import QUERIES
from zoo.queries.boundary import adversarial, deepfool
from zoo.scan import Scan

SHAPE, K = (1, 4, 4), 5


def random_pool(n=30, labeled=6):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=chance)
    return Pool.of(images, torch.randint(0, K, (n,), generator=chance), K).reveal(torch.arange(labeled))


def scan_of(head, trunk=None, pool=None):
    trunk = nn.Flatten() if trunk is None else trunk
    return Scan(random_pool() if pool is None else pool, nn.ModuleDict({"trunk": trunk, "head": head}))


def linear(seed=0, k=K):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(16, k)


def curved(seed=0):
    """A network with bends, and batch normalisation, which must not mix images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh())
        trunk[2].running_mean.normal_(0, 0.3)
        return nn.Linear(12, K), trunk


def ask(scan, n=None, **settings):
    return QUERIES["deepfool"].ask(scan, len(scan.pool.unlabeled) if n is None else n, **settings)


def distances(scan, **settings):
    """By position in the pool, as asked: (u,)."""
    asked = ask(scan, **settings)
    return torch.empty(len(asked.scores)).index_copy_(0, asked.positions, asked.detail["distance"])


def one(task, x, iterations=50, overshoot=0.02):
    """The paper's algorithm for one image (1 c h w), all classes, word by word."""
    own = task(x).argmax().item()
    r = torch.zeros_like(x)
    for _ in range(iterations):
        here = (x + (1 + overshoot) * r).requires_grad_()
        logits = task(here)[0]
        grads = [torch.autograd.grad(logits[k], here, retain_graph=True)[0] for k in range(len(logits))]
        ways = {}
        for k in range(len(logits)):
            if k != own:
                w, f = grads[k] - grads[own], (logits[k] - logits[own]).item()
                ways[k] = abs(f) / w.norm().item(), abs(f) / w.norm().item() ** 2 * w
        r = r + min(ways.values(), key=lambda way: way[0])[1]
        if task(x + (1 + overshoot) * r).argmax().item() != own:
            return r, True
    return r, False


def test_for_a_linear_model_one_step_is_the_exact_distance_to_the_nearest_plane():
    head = linear()
    scan = scan_of(head)
    found = distances(scan, iterations=1)
    x = normal(scan.pool.images[scan.pool.unlabeled]).flatten(1)
    logits = head(x)
    for i, f in enumerate(logits.tolist()):
        own = max(range(K), key=lambda k: f[k])
        planes = [(f[own] - f[k]) / (head.weight[own] - head.weight[k]).norm().item() for k in range(K) if k != own]
        assert found[i].item() == pytest.approx(min(planes), rel=1e-4)
    assert ask(scan, iterations=1).detail["crossed"].all()


def test_it_asks_for_the_nearest_first():
    asked = ask(scan_of(linear()))
    assert (asked.detail["distance"].diff() >= 0).all()
    assert torch.equal(asked.scores, -asked.detail["distance"])
    assert not asked.scores.requires_grad


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_algorithm_image_by_image(seed):
    scan = scan_of(*curved(seed))
    scan.parts.eval()
    x = normal(scan.pool.images[scan.pool.unlabeled])
    r, crossed = deepfool(scan.task, x, 50, 0.02, 0)
    ways = [one(scan.task, x[i : i + 1]) for i in range(len(x))]
    assert torch.allclose(r, torch.cat([way for way, _ in ways]), atol=1e-5)
    assert crossed.tolist() == [there for _, there in ways]
    assert torch.allclose(distances(scan, rivals=0), torch.stack([way.norm() for way, _ in ways]), atol=1e-5)


def test_the_nearest_boundary_counts_and_not_that_of_the_last_class():
    """A port never updates its smallest value and so measures to the last class. By hand: 0.5 to class 1, 3 to 2."""
    head = nn.Linear(16, 3)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[1, 0], head.weight[2, 1] = 1.0, 1.0
        head.bias.copy_(torch.tensor([0.0, -0.5, -3.0]))
    grey = torch.full((1, *SHAPE), 0.0)
    r, crossed = deepfool(nn.Sequential(nn.Flatten(), head), grey, 1, 0.02, 0)
    assert r.flatten().tolist() == pytest.approx([0.5] + 15 * [0.0])
    assert crossed.item()


@pytest.mark.parametrize("rivals", [1, 2, 4, 9, 0])
def test_rivals_are_the_next_best_classes(rivals):
    head = linear()
    scan = scan_of(head)
    found = distances(scan, iterations=1, rivals=rivals)
    x = normal(scan.pool.images[scan.pool.unlabeled]).flatten(1)
    for i, f in enumerate(head(x).tolist()):
        own, *rest = sorted(range(K), key=lambda k: -f[k])
        tried = rest[: rivals or K]
        planes = [(f[own] - f[k]) / (head.weight[own] - head.weight[k]).norm().item() for k in tried]
        assert found[i].item() == pytest.approx(min(planes), rel=1e-4)


def test_an_image_that_has_crossed_stays_where_it_is():
    scan = scan_of(*curved())
    asked = ask(scan, iterations=1)
    early, late = distances(scan, iterations=1), distances(scan, iterations=50)
    crossed = torch.empty(len(early), dtype=torch.bool).index_copy_(0, asked.positions, asked.detail["crossed"])
    assert 0 < crossed.sum() < len(crossed)
    assert torch.equal(early[crossed], late[crossed])
    assert (late[~crossed] != early[~crossed]).all()


def test_no_image_depends_on_the_others():
    scan = scan_of(*curved())
    alone = replaced(scan, scan.pool.unlabeled[7])
    assert distances(alone).item() == pytest.approx(distances(scan)[7].item(), rel=1e-4)


def replaced(scan, index):
    """The same networks before a pool of which one image alone is unlabeled."""
    others = scan.pool.unlabeled[scan.pool.unlabeled != index]
    return Scan(scan.pool.reveal(others), scan.parts)


def test_no_gradient_no_mode_and_no_weight_is_left_behind():
    scan = scan_of(*curved())
    before = deepcopy(scan.parts.state_dict())
    ask(scan)
    assert all(p.grad is None and p.requires_grad for p in scan.parts.parameters())
    assert scan.parts.training
    assert all(torch.equal(value, before[name]) for name, value in scan.parts.state_dict().items())


def test_where_the_network_is_flat_an_image_is_as_far_as_an_image_can_be():
    head = nn.Linear(16, 3)
    nn.init.zeros_(head.weight)
    asked = ask(scan_of(head, pool=random_pool()))
    assert len(asked.positions.unique()) == 24
    assert asked.detail["distance"].tolist() == pytest.approx(24 * [2 * 16**0.5])
    assert not asked.detail["crossed"].any()

    class Half(nn.Module):  # dark images see nothing
        def forward(self, x):
            return x.flatten(1) * (x.mean((1, 2, 3)) > 0).float()[:, None]

    scan = scan_of(linear(), Half())
    dark = normal(scan.pool.images[scan.pool.unlabeled]).mean((1, 2, 3)) <= 0
    asked = ask(scan)
    assert 0 < dark.sum() < 24
    assert dark[asked.positions[-int(dark.sum()) :]].all()


def test_copies_lie_just_beyond_the_boundary_and_are_admitted_with_the_labels_of_their_originals():
    head = linear()
    scan = scan_of(head)
    far = ask(scan).positions[-8:]
    asked = scan.pool.unlabeled[far]
    copies = adversarial(scan, asked)
    assert copies.dtype == torch.uint8
    before, after = normal(scan.pool.images[asked]), normal(copies)
    inside = (after.abs().amax((1, 2, 3)) < 1).nonzero().squeeze(1)  # none of whose pixels has been cut off
    assert len(inside)
    moved = (after - before)[inside].flatten(1).norm(dim=1)
    assert torch.allclose(moved, 1.02 * distances(scan)[far][inside], atol=16**0.5 / 255)
    assert (scan.task(before)[inside].argmax(1) != scan.task(after)[inside].argmax(1)).float().mean() > 0.5

    told = scan.pool.reveal(asked)
    more = told.admit(copies, told.labels[asked])
    assert torch.equal(more.labels[-8:], more.labels[asked])
    assert len(more.unlabeled) == len(scan.pool.unlabeled) - 8
    assert torch.equal(more.take(torch.arange(30, 38)), copies)


def test_a_learner_trains_on_the_copies_it_has_made():
    pool, _ = zoo.data("digits", initial=20, seed=0)
    pool = Pool.of(pool.images[:60], pool.oracle(torch.arange(60)), 10).reveal(torch.arange(20))
    learner = zoo.create("deepfool", device="cpu", width=4, steps=3, batch=8).fit(pool)
    selection = learner.select(pool, 4)
    copies = adversarial(learner.scan(pool), selection.indices)
    pool = pool.reveal(selection)
    pool = pool.admit(copies, pool.labels[selection.indices])
    assert len(pool.labeled) == 28
    assert len(set(learner.fit(pool).select(pool, 36))) == 36


def test_all_rivals_can_be_asked_for():
    assert zoo.create("deepfool", query_settings={"rivals": 0}, device="cpu").query_settings["rivals"] == 0


@pytest.mark.parametrize("setting", [{"iterations": 0}, {"overshoot": -0.1}, {"rivals": -1}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        ask(scan_of(linear()), **setting)
