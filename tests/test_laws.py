"""Every learner in the zoo keeps every law, because it is in the zoo."""

import subprocess
import sys
import tomllib
from dataclasses import asdict
from itertools import product
from pathlib import Path

import pytest
import torch

import zoo
from zoo.register import entries, find, queries
from zoo.testing import LAWS, Subject, asks_for_distinct_unlabeled_images, pool, weights

LEFT_ALONE = "the_callers_random_numbers_are_left_alone"


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", zoo.names())
def test_law(name, law):
    law(Subject(name))


@pytest.mark.parametrize("name", ["vaal", "gaal"])
def test_the_first_fit_of_a_process_leaves_random_numbers_alone_too(name):
    """Libraries are imported then, and some draw random numbers for themselves."""
    law = f"from zoo.testing import Subject, {LEFT_ALONE}; {LEFT_ALONE}(Subject({name!r}))"
    subprocess.run([sys.executable, "-c", law], check=True)


@pytest.mark.parametrize(("entry", "query"), list(product(zoo.names("entries"), zoo.names("queries"))))
def test_any_loop_with_any_query(entry, query):
    """Or it is said, before anything is trained, what the loop lacks."""
    subject = Subject(f"{entry}+{query}")
    if queries()[query].nets.keys() - subject.learner().nets.keys():
        with pytest.raises(ValueError, match=f"the query '{query}' needs .*create"):
            subject.learner().build((1, 8, 8), 2)
    else:
        asks_for_distinct_unlabeled_images(subject)


@pytest.mark.parametrize("name", zoo.names())
def test_the_task_network_of_plain_training_is_the_same_in_all(name):
    """Initialised alike and, where the training is plain, trained alike: bit by bit."""
    p = pool()
    shape, classes = p.shape, p.classes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Subject("plain").learner().build(shape, classes)
        torch.manual_seed(0)
        other = Subject(name).learner().build(shape, classes)
    for part in ("trunk", "head"):
        assert all(torch.equal(v, other[part].state_dict()[k]) for k, v in plain[part].state_dict().items())


def plainly(name):
    """Whether it is plain training with plain networks."""
    _, entry, query = find(name)
    return entry.plainly(entry.plans["ours"].loop) and not query.nets


@pytest.mark.parametrize("name", list(filter(plainly, zoo.names())))
def test_plainly_trained_learners_are_bit_equal_at_round_0(name):
    p = pool()
    plain, other = weights(Subject("plain").learner().fit(p)), weights(Subject(name).learner().fit(p))
    assert all(torch.equal(value, other[key]) for key, value in plain.items())


def test_entries_and_queries_never_share_a_name():
    assert not entries().keys() & queries().keys()


@pytest.mark.parametrize("name", zoo.names())
def test_a_learner_of_ones_own_keeps_the_laws_too(name):
    """`create` takes objects as well as names."""
    what = entries().get(name) or queries()[name]
    asks_for_distinct_unlabeled_images(Subject(what))


@pytest.mark.parametrize("plan", ["ours", "paper", "released"])
@pytest.mark.parametrize("name", zoo.names("entries"))
def test_every_plan_can_be_created_or_says_why_not(name, plan):
    entry = entries()[name]
    if plan in entry.plans:
        learner = zoo.create(name, plan=plan)
        assert learner.loop == entry.plans[plan].loop
        assert f"plan='{plan}'" in repr(learner)
    else:
        with pytest.raises(zoo.UnknownName, match=entry.missing[plan][:20]):
            zoo.create(name, plan=plan)


def test_published_plans_are_what_was_read():
    """presets.toml was compared with the sources; a value that moves in a plan has to be compared again."""
    read = tomllib.loads((Path(__file__).parent / "presets.toml").read_text())
    have = {
        name: {
            plan: {
                "augment": its.augment,
                "plan": asdict(its.loop),
                "nets": dict(its.nets),
                "asks": dict(its.asks),
                **({"lr_scale": dict(its.lr_scale)} if its.lr_scale else {}),
            }
            for plan, its in entry.plans.items()
            if plan != "ours"
        }
        for name, entry in entries().items()
    }
    assert {name: plans for name, plans in have.items() if plans} == read


@pytest.mark.parametrize("name", zoo.names("entries"))
def test_settings_have_one_home(name):
    learner = zoo.create(name)
    assert not set(vars(learner.loop)) & set(learner.nets)
    assert "augment" not in {*vars(learner.loop), *learner.nets}
