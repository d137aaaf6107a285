"""The pool: what it hides, what it reveals, what it refuses, and that it never changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.pool import UNKNOWN, Pool, nobody, normal, uint8
from zoo.selection import Selection

TARGETS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
Make = Callable[[], Any]  # of a second answer to the same question


def pictures(n: int = 10, c: int = 1, h: int = 4, w: int = 5) -> Tensor:
    """uint8 (n c h w), each image of one grey of its own."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, c, h, w)


def simulated() -> Pool:
    return Pool.of(pictures(), torch.tensor(TARGETS), 3)


def answering(answer: Any) -> Pool:
    """A pool before an oracle that always says the same."""
    return Pool.hidden(pictures(), 3, lambda _: answer)


def state(pool: Pool) -> list[Any]:
    """Everything a pool says of itself, as plain values."""
    return [
        pool.images.tolist(),
        pool.labels.tolist(),
        pool.supposed.tolist(),
        pool.made.tolist(),
        [asked.tolist() for asked in pool.rounds],
        pool.labeled.tolist(),
        pool.unlabeled.tolist(),
        pool.names,
        pool.classes,
        repr(pool),
    ]


# What a new pool is


def test_a_simulated_pool_starts_with_every_label_hidden() -> None:
    pool = simulated()
    assert pool.labels.tolist() == [-1] * 10
    assert pool.labeled.tolist() == []
    assert pool.unlabeled.tolist() == list(range(10))
    assert pool.rounds == ()
    assert not pool.supposed.any()


def test_a_pool_knows_its_size_shape_and_classes() -> None:
    pool = Pool.of(pictures(6, 3, 8, 10), [0, 1, 0, 1, 0, 1], 2)
    assert len(pool) == 6
    assert pool.shape == (3, 8, 10)
    assert pool.classes == 2


def test_labels_and_indices_are_int64() -> None:
    pool = simulated().reveal([3])
    assert pool.labels.dtype == pool.labeled.dtype == pool.unlabeled.dtype == pool.rounds[0].dtype == torch.int64
    assert pool.supposed.dtype == torch.bool


def test_classes_are_numbered_where_they_have_no_names() -> None:
    assert simulated().names == ("0", "1", "2")


def test_classes_are_called_as_told() -> None:
    assert Pool.of(pictures(), TARGETS, 3, ["ant", "bee", "cat"]).names == ("ant", "bee", "cat")


def test_as_many_names_as_classes() -> None:
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        Pool.of(pictures(), TARGETS, 3, ["ant", "bee"])


def test_repr_counts_what_there_is() -> None:
    text = repr(simulated().reveal([1, 2]))
    assert "10 images 1x4x5" in text
    assert "3 classes" in text
    assert "2 labeled" in text
    assert "8 unlabeled" in text
    assert "1 rounds" in text


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_targets_may_be_integers_of_any_width(dtype: torch.dtype) -> None:
    pool = Pool.of(pictures(), torch.tensor(TARGETS, dtype=dtype), 3).reveal(range(10))
    assert pool.labels.tolist() == TARGETS


# What a new pool refuses


@pytest.mark.parametrize("target", [-1, 3, 1000])
def test_targets_outside_the_classes_are_refused(target: int) -> None:
    with pytest.raises(ValueError, match=rf"target {target} is outside \[0, 3\)"):
        Pool.of(pictures(), [*TARGETS[:9], target], 3)


@pytest.mark.parametrize("targets", [TARGETS[:9], [*TARGETS, 0], [[t] for t in TARGETS]])
def test_one_target_an_image(targets: list[Any]) -> None:
    with pytest.raises(ValueError, match="targets"):
        Pool.of(pictures(), targets, 3)


def test_targets_between_the_classes_are_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="integer"):
        Pool.of(pictures(), torch.tensor(TARGETS) + 0.5, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_float_images_are_refused_with_the_remedy(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"uint8.*\(x \* 255\)\.round\(\)\.to\(torch\.uint8\)"):
        Pool.of(pictures().to(dtype), TARGETS, 3)


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(torch.int64, r"in 0\.\.255: x\.to\(torch\.uint8\)$"), (torch.bool, r"x\.to\(torch\.uint8\) \* 255")],
)
def test_other_images_are_refused_with_a_remedy_that_keeps_them(dtype: torch.dtype, remedy: str) -> None:
    with pytest.raises(TypeError, match=remedy):
        Pool.of(pictures().to(dtype), TARGETS, 3)


def test_hidden_pools_refuse_floats_too() -> None:
    with pytest.raises(TypeError, match="uint8"):
        Pool.hidden(pictures().float(), 3, nobody)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_with_channels_last_are_refused_with_the_remedy(channels: int) -> None:
    with pytest.raises(ValueError, match=r"permute\(0, 3, 1, 2\)"):
        Pool.of(torch.zeros(10, 16, 16, channels, dtype=torch.uint8), TARGETS, 3)


def test_images_with_alpha_last_are_refused_with_a_remedy_that_drops_it() -> None:
    with pytest.raises(ValueError, match=r"without alpha x\[\.\.\., :3\]\.permute"):
        Pool.of(torch.zeros(10, 16, 16, 4, dtype=torch.uint8), TARGETS, 3)


@pytest.mark.parametrize("shape", [(10, 0, 8, 8), (10, 3, 0, 8), (10, 8, 8, 0)])
def test_images_without_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="have no pixels"):
        Pool.of(torch.zeros(shape, dtype=torch.uint8), TARGETS, 3)


def test_images_without_a_channel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n c h w\)"):
        Pool.of(torch.zeros(10, 16, 16, dtype=torch.uint8), TARGETS, 3)


# Reveal


def test_reveal_gives_the_true_labels_of_what_was_asked_and_no_other() -> None:
    pool = simulated().reveal([7, 2])
    assert pool.labels.tolist() == [-1, -1, 2, -1, -1, -1, -1, 1, -1, -1]
    assert pool.labeled.tolist() == [2, 7]
    assert pool.unlabeled.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]


def test_rounds_remember_what_was_asked_in_asking_order() -> None:
    pool = simulated().reveal([7, 2]).reveal([9]).reveal([4, 0, 1])
    assert [asked.tolist() for asked in pool.rounds] == [[7, 2], [9], [4, 0, 1]]


@pytest.mark.parametrize(
    "asked",
    [
        [7, 2],
        (7, 2),
        torch.tensor([7, 2]),
        torch.tensor([7, 2], dtype=torch.int32),
        torch.tensor([7, 2], dtype=torch.uint8),
        np.array([7, 2]),
        np.array([7, 2], dtype=np.int32),
        [np.int64(7), np.int64(2)],
        Selection(torch.tensor([7, 2]), torch.tensor([0.9, 0.1])),
    ],
    ids=["list", "tuple", "tensor", "int32", "uint8", "array", "array32", "numbers of numpy", "Selection"],
)
def test_reveal_takes_indices_in_many_forms(asked: Any) -> None:
    pool = simulated().reveal(asked)
    assert pool.rounds[0].tolist() == [7, 2]
    assert pool.labels[[7, 2]].tolist() == [1, 2]


def test_reveal_takes_an_array_backwards() -> None:
    assert simulated().reveal(np.arange(3)[::-1]).rounds[0].tolist() == [2, 1, 0]


def test_reveal_takes_an_array_that_cannot_be_written() -> None:
    asked = np.array([7, 2])
    asked.flags.writeable = False
    assert simulated().reveal(asked).rounds[0].tolist() == [7, 2]


def test_nothing_may_be_asked_and_is_remembered_as_a_round() -> None:
    pool = simulated().reveal(torch.empty(0, dtype=torch.int64))
    assert len(pool.labeled) == 0
    assert [len(asked) for asked in pool.rounds] == [0]


def test_an_empty_list_asks_nothing() -> None:
    assert [len(asked) for asked in simulated().reveal([]).rounds] == [0]


def test_indices_twice_in_the_list_are_refused() -> None:
    with pytest.raises(ValueError, match="duplicate"):
        simulated().reveal([1, 2, 1])


@pytest.mark.parametrize("index", [-1, 10, 10**12])
def test_indices_out_of_range_are_refused(index: int) -> None:
    with pytest.raises(ValueError, match=rf"index {index} is outside \[0, 10\)"):
        simulated().reveal([0, index])


def test_labeled_indices_are_refused() -> None:
    with pytest.raises(ValueError, match="labeled already"):
        simulated().reveal([3]).reveal([2, 3])


@pytest.mark.parametrize(
    "asked",
    [torch.tensor([0.0, 1.0]), torch.ones(10, dtype=torch.bool), torch.tensor([[0, 1]]), torch.tensor(3)],
    ids=["floats", "mask", "table", "number"],
)
def test_only_a_row_of_integers_is_an_index(asked: Tensor) -> None:
    with pytest.raises(ValueError, match="indices are integers"):
        simulated().reveal(asked)


def test_a_selection_of_made_images_is_refused_naming_judge_and_admit() -> None:
    made = Selection(torch.empty(0, dtype=torch.int64), torch.tensor([1.0]), images=pictures(1))
    with pytest.raises(ValueError, match=r"zoo\.judge\(.*pool\.admit"):
        simulated().reveal(made)


# Answers


def test_labels_given_by_hand_are_taken_for_the_oracles() -> None:
    pool = simulated().reveal([4, 1], labels=[2, 0])
    assert pool.labels[[4, 1]].tolist() == [2, 0]


@pytest.mark.parametrize(
    "labels",
    [
        (2, 0),
        torch.tensor([2, 0]),
        torch.tensor([2, 0], dtype=torch.int32),
        torch.tensor([2, 0], dtype=torch.uint8),
        np.array([2, 0]),
        np.array([2, 0], dtype=np.uint8),
        np.array([2, 0], dtype=np.uint16),
    ],
    ids=["tuple", "tensor", "int32", "uint8", "array", "array of uint8", "array of uint16"],
)
def test_labels_by_hand_come_in_many_forms(labels: Any) -> None:
    assert simulated().reveal([4, 1], labels=labels).labels[[4, 1]].tolist() == [2, 0]


def test_narrow_labels_do_for_many_classes() -> None:
    pool = Pool.of(pictures(), TARGETS, 200)
    assert pool.reveal([4], labels=torch.tensor([5], dtype=torch.int8)).labels[4] == 5


def test_labels_by_hand_spare_the_oracle() -> None:
    pool = Pool.hidden(pictures(), 3, nobody).reveal([5], labels=[1])
    assert pool.labels[5] == 1


def test_where_nobody_can_answer_the_refusal_says_how_to() -> None:
    with pytest.raises(ValueError, match=r"nobody can answer.*reveal takes labels="):
        Pool.hidden(pictures(), 3, nobody).reveal([5])


@pytest.mark.parametrize("answer", [-2, 3, 99])
def test_an_oracle_that_leaves_the_classes_is_refused(answer: int) -> None:
    with pytest.raises(ValueError, match=rf"answer {answer} is outside \[0, 3\)"):
        answering(torch.tensor([0, answer])).reveal([0, 1])


@pytest.mark.parametrize("answer", [-2, 3])
def test_labels_by_hand_outside_the_classes_are_refused(answer: int) -> None:
    with pytest.raises(ValueError, match=rf"answer {answer} is outside \[0, 3\)"):
        simulated().reveal([0], labels=[answer])


def test_what_an_oracle_cannot_tell_stays_unlabeled() -> None:
    pool = answering(torch.tensor([1, -1, 2])).reveal([0, 1, 2])
    assert pool.labels[:3].tolist() == [1, -1, 2]
    assert pool.labeled.tolist() == [0, 2]
    assert 1 in pool.unlabeled.tolist()


def test_what_an_oracle_cannot_tell_is_remembered_as_asked() -> None:
    pool = answering(torch.tensor([1, -1, 2])).reveal([0, 1, 2])
    assert pool.rounds[0].tolist() == [0, 1, 2]


def test_what_an_oracle_could_not_tell_may_be_asked_again() -> None:
    pool = answering(torch.tensor([-1])).reveal([4]).reveal([4], labels=[2])
    assert pool.labels[4] == 2
    assert [asked.tolist() for asked in pool.rounds] == [[4], [4]]


def test_an_oracle_may_answer_with_a_list() -> None:
    assert answering([2, 0]).reveal([4, 1]).labels[[4, 1]].tolist() == [2, 0]


def test_an_oracle_may_answer_with_an_array() -> None:
    assert answering(np.array([2, 0])).reveal([4, 1]).labels[[4, 1]].tolist() == [2, 0]


@pytest.mark.parametrize("answer", [[], [1], [1, 1, 1], [[1], [1]], 1])
def test_an_oracle_answers_once_for_each_image(answer: Any) -> None:
    with pytest.raises(ValueError, match="2 answers are due"):
        answering(answer).reveal([4, 1])


@pytest.mark.parametrize("answer", [[1.0, 2.0], torch.tensor([0.2, 0.8]), np.array([1.0, 0.0])])
def test_an_oracle_that_answers_with_floats_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match="2 answers are due, integers"):
        answering(answer).reveal([4, 1])


def test_an_oracle_is_asked_in_asking_order_on_the_cpu() -> None:
    heard: list[Tensor] = []

    def oracle(indices: Tensor) -> Tensor:
        heard.append(indices.clone())
        return torch.zeros(len(indices), dtype=torch.int64)

    Pool.hidden(pictures(), 3, oracle).reveal([8, 3, 5])
    assert [asked.tolist() for asked in heard] == [[8, 3, 5]]
    assert heard[0].device.type == "cpu"
    assert heard[0].dtype == torch.int64


def test_nothing_but_reveal_asks_the_oracle() -> None:
    def oracle(_: Tensor) -> Tensor:
        raise AssertionError("asked")

    pool = Pool.hidden(pictures(), 3, oracle).reveal([0], labels=[1])
    pool = pool.admit(pictures(1), [0]).suppose([5], [2])
    assert len(pool.take(pool.unlabeled)) == 8
    assert repr(pool)


# Never changed, only replaced


def test_fields_cannot_be_set() -> None:
    with pytest.raises(FrozenInstanceError):
        simulated().labels = torch.zeros(10)  # type: ignore[misc]


@pytest.mark.parametrize(
    "step",
    [
        lambda pool: pool.reveal([1, 2]),
        lambda pool: pool.reveal([1, 2], labels=[0, 0]),
        lambda pool: pool.suppose([1, 2], [0, 0]),
        lambda pool: pool.admit(pictures(2), [0, 0]),
    ],
    ids=["reveal", "by hand", "suppose", "admit"],
)
def test_every_step_leaves_the_old_pool_as_it_was(step: Callable[[Pool], Pool]) -> None:
    pool = simulated().reveal([5])
    before = state(pool)
    after = step(pool)
    assert state(pool) == before
    assert state(after) != before


@pytest.mark.parametrize(
    "step",
    [
        lambda pool: pool.reveal([1, 1]),
        lambda pool: pool.reveal([1], labels=[7]),
        lambda pool: pool.suppose([1], [7]),
        lambda pool: pool.admit(pictures(1), [7]),
    ],
    ids=["reveal", "by hand", "suppose", "admit"],
)
def test_a_refused_step_leaves_the_pool_as_it_was(step: Callable[[Pool], Pool]) -> None:
    pool = simulated().reveal([5])
    before = state(pool)
    with pytest.raises(ValueError, match=r"duplicate|outside"):
        step(pool)
    assert state(pool) == before


def test_two_ways_on_from_one_pool_do_not_meet() -> None:
    start = simulated().reveal([0])
    one, other = start.reveal([1]), start.reveal([2])
    assert one.labeled.tolist() == [0, 1]
    assert other.labeled.tolist() == [0, 2]


def test_indices_changed_afterwards_change_nothing() -> None:
    asked = torch.tensor([7, 2])
    pool = simulated().reveal(asked)
    asked.zero_()
    assert pool.rounds[0].tolist() == [7, 2]
    assert pool.labeled.tolist() == [2, 7]


def test_an_array_of_indices_changed_afterwards_changes_nothing() -> None:
    asked = np.array([7, 2])
    pool = simulated().reveal(asked)
    asked[:] = 0
    assert pool.rounds[0].tolist() == [7, 2]


def test_labels_changed_afterwards_change_nothing() -> None:
    labels = torch.tensor([2, 0])
    pool = simulated().reveal([4, 1], labels=labels)
    labels.fill_(1)
    assert pool.labels[[4, 1]].tolist() == [2, 0]


def test_targets_changed_afterwards_change_nothing() -> None:
    targets = torch.tensor(TARGETS)
    pool = Pool.of(pictures(), targets, 3)
    targets.zero_()
    assert pool.reveal([2]).labels[2] == 2


def test_an_array_of_targets_changed_afterwards_changes_nothing() -> None:
    targets = np.array(TARGETS)
    pool = Pool.of(pictures(), targets, 3)
    targets[:] = 0
    assert pool.reveal([2]).labels[2] == 2


def test_a_list_of_names_changed_afterwards_changes_nothing() -> None:
    names = ["ant", "bee", "cat"]
    pool = Pool.of(pictures(), TARGETS, 3, names)
    names[0] = "dog"
    assert pool.names == ("ant", "bee", "cat")


def test_supposed_labels_changed_afterwards_change_nothing() -> None:
    indices, labels = torch.tensor([7, 2]), torch.tensor([2, 0])
    pool = simulated().suppose(indices, labels)
    indices.zero_()
    labels.fill_(1)
    assert pool.labels[[7, 2]].tolist() == [2, 0]


def test_made_images_changed_afterwards_change_nothing() -> None:
    images, labels = pictures(2), torch.tensor([2, 0])
    pool = simulated().admit(images, labels)
    images.fill_(77)
    labels.fill_(1)
    assert pool.made[:, 0, 0, 0].tolist() == [0, 1]
    assert pool.labels[10:].tolist() == [2, 0]


def test_an_oracle_that_writes_on_its_question_changes_nothing() -> None:
    def oracle(indices: Tensor) -> Tensor:
        indices.zero_()
        return torch.ones(len(indices), dtype=torch.int64)

    pool = Pool.hidden(pictures(), 3, oracle).reveal([7, 2])
    assert pool.rounds[0].tolist() == [7, 2]
    assert pool.labeled.tolist() == [2, 7]


def test_an_oracle_that_changes_its_answer_afterwards_changes_nothing() -> None:
    answer = torch.tensor([1, 2])
    pool = answering(answer).reveal([7, 2])
    answer.zero_()
    assert pool.labels[[7, 2]].tolist() == [1, 2]


# Suppose


def test_supposed_labels_are_there_and_marked() -> None:
    pool = simulated().reveal([0]).suppose([6, 3], [1, 2])
    assert pool.labels[[6, 3]].tolist() == [1, 2]
    assert pool.supposed.nonzero().squeeze(1).tolist() == [3, 6]
    assert pool.labeled.tolist() == [0, 3, 6]
    assert pool.unlabeled.tolist() == [1, 2, 4, 5, 7, 8, 9]


def test_a_supposition_is_no_round() -> None:
    pool = simulated().reveal([0])
    assert len(pool.suppose([6], [1]).rounds) == 1


def test_a_supposition_refuses_to_reveal() -> None:
    with pytest.raises(ValueError, match=r"supposition.*real pool"):
        simulated().suppose([6], [1]).reveal([5])


def test_a_supposition_refuses_labels_by_hand_too() -> None:
    with pytest.raises(ValueError, match="supposition"):
        simulated().suppose([6], [1]).reveal([5], labels=[0])


def test_a_supposition_with_made_images_refuses_to_reveal() -> None:
    with pytest.raises(ValueError, match="supposition"):
        simulated().suppose([6], [1]).admit(pictures(1), [0]).reveal([5])


def test_what_was_supposed_never_reaches_the_truth() -> None:
    pool = simulated()
    pool.suppose([0], [2])
    assert pool.reveal([0]).labels[0] == TARGETS[0]


def test_true_labels_cannot_be_supposed_away() -> None:
    with pytest.raises(ValueError, match="true labels"):
        simulated().reveal([6]).suppose([5, 6], [1, 1])


def test_what_is_supposed_may_be_supposed_anew() -> None:
    pool = simulated().suppose([6, 7], [1, 1]).suppose([6], [2])
    assert pool.labels[[6, 7]].tolist() == [2, 1]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_supposed_label_is_a_class(label: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        simulated().suppose([6], [label])


@pytest.mark.parametrize("indices", [[1, 1], [0, 10], [-1, 2]])
def test_suppose_refuses_the_indices_that_reveal_refuses(indices: list[int]) -> None:
    with pytest.raises(ValueError, match=r"duplicate|outside"):
        simulated().suppose(indices, [0, 0])


def test_one_supposed_label_an_index() -> None:
    with pytest.raises(ValueError, match="2 answers are due"):
        simulated().suppose([1, 2], [0])


# Admit


def test_made_images_come_after_the_real_ones() -> None:
    pool = simulated().reveal([3]).admit(pictures(2), [2, 1])
    assert len(pool) == 10
    assert pool.labels.tolist() == [-1, -1, -1, 0, *[-1] * 6, 2, 1]
    assert pool.labeled.tolist() == [3, 10, 11]


def test_made_images_are_never_unlabeled() -> None:
    pool = simulated().admit(pictures(2), [2, 1]).reveal(range(9))
    assert pool.unlabeled.tolist() == [9]
    assert pool.reveal([9]).unlabeled.tolist() == []


def test_real_indices_never_move() -> None:
    pool = simulated().admit(pictures(1), [2])
    for asked in ([4], [8, 1]):
        pool = pool.reveal(asked).admit(pictures(3), [0, 0, 0])
    assert pool.labels[[4, 8, 1]].tolist() == [TARGETS[i] for i in (4, 8, 1)]
    assert torch.equal(pool.take(torch.arange(10)), pictures())


def test_made_images_are_no_round() -> None:
    assert simulated().admit(pictures(2), [2, 1]).rounds == ()


def test_made_images_add_up() -> None:
    pool = simulated().admit(pictures(2), [2, 1]).admit(pictures(1) + 50, [0])
    assert pool.made[:, 0, 0, 0].tolist() == [0, 1, 50]
    assert pool.labels[10:].tolist() == [2, 1, 0]
    assert not pool.supposed.any()
    assert len(pool.supposed) == 13


def test_made_images_cannot_be_revealed() -> None:
    with pytest.raises(ValueError, match="index 10 is outside"):
        simulated().admit(pictures(2), [2, 1]).reveal([10])


def test_take_gives_real_and_made_images_in_the_order_asked() -> None:
    pool = simulated().admit(pictures(2) + 100, [2, 1])
    taken = pool.take(torch.tensor([11, 3, 10, 0]))
    assert taken[:, 0, 0, 0].tolist() == [101, 3, 100, 0]
    assert taken.shape == (4, 1, 4, 5)
    assert taken.dtype == torch.uint8


def test_take_gives_the_real_images_where_none_are_made() -> None:
    assert simulated().take(torch.tensor([9, 3]))[:, 0, 0, 0].tolist() == [9, 3]


def test_what_is_taken_is_a_copy() -> None:
    pool = simulated().admit(pictures(1), [0])
    pool.take(torch.tensor([3, 10])).fill_(200)
    assert pool.images.max() == 9
    assert pool.made.max() == 0


def test_made_images_have_the_pools_shape() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        simulated().admit(pictures(1, 1, 5, 4), [0])


def test_made_images_are_uint8() -> None:
    with pytest.raises(TypeError, match="uint8"):
        simulated().admit(pictures(1).float(), [0])


@pytest.mark.parametrize("labels", [[0], [0, 3], [0, -1], [0.0, 1.0]])
def test_made_images_have_one_class_each(labels: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"answers are due|outside"):
        simulated().admit(pictures(2), labels)


# Where the pixels lie


def test_a_view_of_channels_last_storage_is_taken_as_it_lies() -> None:
    storage = torch.randint(256, (10, 6, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = storage.permute(0, 3, 1, 2)
    pool = Pool.of(images, TARGETS, 3)
    assert pool.shape == (3, 6, 7)
    assert pool.images.data_ptr() == storage.data_ptr()
    assert torch.equal(pool.take(torch.tensor([4, 1])), images[[4, 1]])


def test_a_view_of_channels_last_storage_takes_made_images() -> None:
    images = torch.zeros(10, 6, 7, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    pool = Pool.of(images, TARGETS, 3).admit(torch.full((2, 3, 6, 7), 9, dtype=torch.uint8), [0, 1])
    assert pool.take(torch.tensor([11, 0]))[:, 0, 0, 0].tolist() == [9, 0]


def test_one_grey_channel_may_be_shown_as_three() -> None:
    pool = Pool.of(pictures().expand(-1, 3, -1, -1), TARGETS, 3).admit(pictures(1, 3) + 50, [0])
    assert pool.take(torch.tensor([10, 8]))[:, :, 0, 0].tolist() == [[50] * 3, [8] * 3]


def test_images_go_to_the_loops_and_come_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = normal(every)
    assert x.dtype == torch.float32
    assert x.min() == -1
    assert x.max() == 1
    assert torch.equal(uint8(x), every)


def test_loud_pixels_are_clamped() -> None:
    assert uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


# Laws for any order of questions

asking = st.permutations(range(10)).flatmap(
    lambda order: st.lists(st.integers(0, 4), max_size=5).map(lambda sizes: cut(order, sizes))
)


def cut(order: list[int], sizes: list[int]) -> list[list[int]]:
    """The order in rounds of these sizes, as far as it goes."""
    rounds, rest = [], list(order)
    for size in sizes:
        rounds.append(rest[:size])
        rest = rest[size:]
    return rounds


@settings(max_examples=60, deadline=None, derandomize=True)
@given(asking, st.lists(st.booleans(), min_size=10, max_size=10))
def test_labeled_and_unlabeled_always_make_up_the_pool(rounds: list[list[int]], told: list[bool]) -> None:
    answers = torch.tensor([target if can else UNKNOWN for target, can in zip(TARGETS, told, strict=True)])
    pool = Pool.hidden(pictures(), 3, lambda indices: answers[indices])
    for asked in rounds:
        pool = pool.reveal(torch.tensor(asked, dtype=torch.int64))
    labeled, unlabeled = set(pool.labeled.tolist()), set(pool.unlabeled.tolist())
    assert labeled == {i for asked in rounds for i in asked if told[i]}
    assert unlabeled == set(range(10)) - labeled
    assert all(pool.labels[i] == TARGETS[i] for i in labeled)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(asking, st.lists(st.integers(0, 2), max_size=3))
def test_rounds_end_to_end_are_all_that_was_asked(rounds: list[list[int]], made: list[int]) -> None:
    pool = simulated()
    for asked in rounds:
        pool = pool.reveal(torch.tensor(asked, dtype=torch.int64)).admit(pictures(len(made)), made)
    assert [asked.tolist() for asked in pool.rounds] == rounds
    assert sorted(i for asked in rounds for i in asked) == pool.labeled[pool.labeled < 10].tolist()
