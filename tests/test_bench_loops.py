"""The bench of data, loops and studies: its forms agree, and can be timed. Nothing is asserted about time."""

from importlib import import_module

import pytest
import torch

from trainers.losses import says
from zoo.bench import Case, data, loops, measure, released, study
from zoo.nets.vae import VAE

ROOMS = ("data", "loops", "study")


def quick(room):
    return [case for case in import_module(f"zoo.bench.{room}").cases(quick=True) if case.name != "start"]


@pytest.mark.parametrize("room", ROOMS)
def test_cases_have_names_of_their_own_and_require_only_forms_they_have(room):
    cases = import_module(f"zoo.bench.{room}").cases()
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert set(case.required) < set(case.forms)


@pytest.mark.parametrize("room", ROOMS)
def test_every_case_agrees_and_can_be_timed(room):
    for case in quick(room):
        for figure in measure([case], rounds=1):
            assert 0 < figure.least <= figure.seconds <= figure.most


@pytest.mark.parametrize(("asked", "seen"), [(None, 3), (2, 2)])
def test_a_case_is_timed_with_its_own_threads_or_those_asked_for_and_the_callers_are_back_afterwards(asked, seen):
    before, during = torch.get_num_threads(), []
    case = Case(name="", work="", forms={"ours": lambda: lambda: during.append(torch.get_num_threads())}, threads=3)
    (figure,) = measure([case], rounds=1, number=asked)
    assert (figure.threads, during, torch.get_num_threads()) == (seen, [seen], before)


def test_images_that_differ_are_found_out(monkeypatch):
    monkeypatch.setattr(data, "augmented", lambda: lambda _: torch.zeros(3, 32, 32))
    with pytest.raises(RuntimeError, match="not show the same images"):
        data.agree(data.made_up(32))


@pytest.mark.parametrize(("entry", "nets"), [("vaal", loops.TINY), ("ta_vaal", {**loops.TINY, "rank": "released"})])
def test_a_loop_that_plays_another_game_is_found_out(monkeypatch, entry, nets):
    monkeypatch.setattr(released, "bce", lambda logits, answer: 2 * says(logits, labeled=bool(answer)))
    with pytest.raises(RuntimeError, match="vae/fool is"):
        loops.agree("a game", loops.Play(entry=entry, nets=nets, batch=4), loops.FULL)


def test_another_critic_is_found_out():
    play = loops.Play(entry="waal", nets={"trunk": "small", "width": 4, "critic_output": "linear"}, batch=4)
    with pytest.raises(RuntimeError, match="in ours"):
        loops.agree("a linear critic beside a sigmoid", play, loops.FULL)


def test_the_released_networks_are_torchs_own_layers_with_the_same_weights():
    vae = VAE((3, 32, 32), 4, 4)
    names = list(vae.state_dict())
    released.plainly({"vae": vae})
    assert list(vae.state_dict()) == names
    assert {type(layer).__module__.split(".")[0] for layer in vae.encoder.body} == {"torch"}


def test_a_script_that_asks_for_other_images_is_found_out(monkeypatch):
    monkeypatch.setattr(study, "script", lambda _: torch.arange(20))
    with pytest.raises(RuntimeError, match="do not ask for the same images"):
        study.same_round({"steps": 1, "game_steps": 1, "device": "cpu"})
