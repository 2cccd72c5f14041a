"""Following faces by their boxes: hand-made cases, and what must hold for any boxes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mien.prediction.tracking import GAP, Follower, agreement

SIDE = 100.0


def box(x, y=0.0, side=SIDE):
    return (x - side / 2, y - side / 2, side, side)


def follow(looks, every=0.5, **settings):
    """The numbers for each look: a list of boxes, or None for a cut before the next look."""
    follower, new_shot, numbers = Follower(**settings), False, []
    for step, boxes in enumerate(looks):
        if boxes is None:
            new_shot = True
            continue
        numbers.append(follower(step * every, boxes, new_shot))
        new_shot = False
    return numbers


def test_agreement_is_the_share_in_common_of_boxes_twice_as_wide():
    assert agreement(box(0), box(0)) == 1
    assert agreement(box(0), box(200)) == 0  # doubled, they touch
    assert agreement(box(0), box(100)) == pytest.approx(100 * 200 / (2 * 200**2 - 100 * 200))
    assert agreement(box(0), box(0, side=200)) == pytest.approx(1 / 4)


def test_a_face_that_moves_and_grows_is_one_track():
    assert follow([[box(70 * n, side=100 * 1.1**n)] for n in range(8)]) == [[0]] * 8


def test_two_faces_that_cross_keep_their_numbers():
    left = [box(60 * n) for n in range(12)]
    right = [box(660 - 60 * n, 12) for n in range(12)]
    looks = [[a, b] if n % 2 else [b, a] for n, (a, b) in enumerate(zip(left, right, strict=True))]
    first = follow(looks)[0]
    assert first == [0, 1]  # [right, left]
    assert follow(looks) == [[1, 0] if n % 2 else [0, 1] for n in range(12)]


def test_two_faces_that_cross_while_one_hides_the_other_keep_their_numbers():
    looks = [[box(60 * n), box(660 - 60 * n, 12)] for n in range(12)]
    looks[5], looks[6] = looks[5][:1], looks[6][:1]
    assert follow(looks) == [[0, 1]] * 5 + [[0]] * 2 + [[0, 1]] * 5


def test_looks_far_apart_follow_a_face_that_moves_to_and_fro():
    assert follow([[box(60 * (n % 2))] for n in range(8)], every=5, gap=10) == [[0]] * 8


def test_a_face_that_comes_back_soon_is_the_same_track_and_later_another():
    there, away = [box(300)], []
    assert follow([there] * 3 + [away] * 3 + [there]) == [[0]] * 3 + [[]] * 3 + [[0]]
    assert follow([there] * 3 + [away] * 4 + [there]) == [[0]] * 3 + [[]] * 4 + [[1]]
    assert follow([there, away, there], every=10, gap=20) == [[0], [], [0]]
    assert GAP == 2.0


def test_no_track_goes_on_after_a_cut():
    assert follow([[box(0)], [box(0)], None, [box(0)], [box(0)]]) == [[0], [0], [1], [1]]


def test_a_face_elsewhere_is_another_track():
    assert follow([[box(0)], [box(400)], [box(0), box(400)]]) == [[0], [1], [0, 1]]


def test_boxes_that_shake_do_not_carry_a_track_away():
    random = np.random.default_rng(0)
    shaking = [[box(*random.normal(300, 3, 2))] for _ in range(60)]
    looks = [*shaking, *[[]] * 50, [box(300, 300)]]
    assert follow(looks, every=1 / 30)[-1] == [0]


numbers = st.integers(0, 1000).map(float)
any_box = st.tuples(numbers, numbers, st.integers(8, 400).map(float), st.integers(8, 400).map(float))
any_looks = st.lists(st.lists(any_box, max_size=5), max_size=8)


@settings(max_examples=50, deadline=None)
@given(any_looks)
def test_numbers_are_given_in_order_and_once_a_look(looks):
    found = follow(looks)
    assert [len(row) for row in found] == [len(row) for row in looks]
    assert all(len(set(row)) == len(row) for row in found)
    firsts = list(dict.fromkeys(itertools.chain(*found)))
    assert firsts == list(range(len(firsts)))


@settings(max_examples=50, deadline=None)
@given(any_looks, st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_the_size_of_the_picture_does_not_matter(looks, scale):
    larger = [[tuple(scale * edge for edge in one) for one in boxes] for boxes in looks]
    assert follow(larger) == follow(looks)


@settings(max_examples=50, deadline=None)
@given(any_looks, st.integers(0, 7))
def test_a_cut_starts_anew(looks, place):
    before, after = looks[:place], looks[place:]
    found = follow([*before, None, *after])[len(before) :]
    offset = len(set(itertools.chain(*follow(before))))
    assert [[number - offset for number in row] for row in found] == follow(after)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40)), min_size=5, max_size=5),
    st.randoms(use_true_random=False),
)
def test_faces_apart_are_followed_as_the_best_assignment_does(count, steps, random):
    """Faces ten sides apart, each with a steady step, in any order: scipy's assignment to the places before."""
    follower, before, names = Follower(), [], []
    for look in range(6):
        boxes = [box(1000 * face + steps[face][0] * look, steps[face][1] * look) for face in range(count)]
        order = list(range(count))
        random.shuffle(order)
        boxes = [boxes[face] for face in order]
        found = follower(look / 2, boxes)
        if before:
            cost = [[-agreement(old, new) for new in boxes] for old in before]
            rows, columns = linear_sum_assignment(np.array(cost))
            expected = {int(column): names[row] for row, column in zip(rows, columns, strict=True)}
            assert found == [expected[place] for place in range(count)]
        before, names = boxes, found
