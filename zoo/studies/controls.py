"""The learners that are run beside others, to tell what their gain comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainers.pool import Pool, nobody
from zoo.learner import Learner
from zoo.query import SHUFFLED

Settings = dict[str, dict[str, Any]]  # by the learner's name
RANDOM, COMPUTE = "random", "plain"  # the same learner; the second trains for as many steps as the costliest


def controls(learners: Mapping[str, Learner], settings: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Random questions on plain training; and for each learner with a training of its own two more, with its settings.

    ENTRY+random is its training with random questions, and plain+ENTRY its questions with plain training.
    Raises ValueError where two learners would need one of a name but of different settings.
    """
    made: Settings = {RANDOM: {}}
    for name, learner in learners.items():
        if not (pair := controls_of(learner)) or learner.query.name == RANDOM:
            continue
        own = {key: value for key, value in settings.get(name, {}).items() if key != "query"}
        training = {key: value for key, value in own.items() if key != "query_settings"}
        for control, its in zip(pair, (training, own), strict=True):
            if made.setdefault(control, its) != its and control not in learners:
                raise ValueError(
                    f"two learners would have a control {control!r}, but of different settings. Give them the same "
                    "ones, or name the control among the learners with its own"
                )
    return {name: its for name, its in made.items() if name not in learners}


def shuffles(learners: Mapping[str, Learner], settings: Mapping[str, Mapping[str, Any]]) -> Settings:
    """For each learner that asks by scores, the same with these scores shuffled over the unlabeled images."""
    made = {}
    for name, learner in learners.items():
        if learner.query.name != RANDOM and not learner.query.name.endswith(SHUFFLED) and learner.twin is None:
            made[f"{name}{SHUFFLED}"] = dict(settings.get(name, {}))
    return {name: its for name, its in made.items() if name not in learners}


def equal_steps(learners: Mapping[str, Learner], settings: Mapping[str, Mapping[str, Any]], pool: Pool) -> Settings:
    """Plain training with random questions, for as many steps as the longest fit takes in all its stages together.

    As in the first round: where a plan's steps grow with the labels, these do not. None where `random` takes as many
    itself, or where `plain` is among the learners already.
    """
    some = few(pool)
    most = max(learner.length(some) for learner in learners.values())
    if COMPUTE in learners or learners[RANDOM].loop.steps >= most:
        return {}
    return {COMPUTE: {**settings.get(RANDOM, {}), "steps": most}}


def controls_of(learner: Learner) -> tuple[str, ...]:
    """The names of its training with random questions, and of its questions with plain training.

    None where the network that answers is trained plainly: such a learner is its own control.
    """
    if learner.entry.plainly(learner.loop) or learner.twin is not None:
        return ()
    return f"{learner.entry.name}+{RANDOM}", f"plain+{learner.name.removesuffix(SHUFFLED)}"


def few(pool: Pool, most: int = 64) -> Pool:
    """A few of the labeled images and of the others: enough to count steps on."""
    known = pool.labeled[:most]
    images = pool.take(torch.cat([known, pool.unlabeled[:most]]))
    return Pool.hidden(images, pool.classes, nobody).reveal(torch.arange(len(known)), labels=pool.labels[known])
