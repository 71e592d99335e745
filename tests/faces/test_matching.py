"""Detected boxes and annotated faces, matched as by going through all pairs."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from research.faces.matching import OVERLAP, match

FACE = [10.0, 10.0, 20.0, 20.0]


def overlap(one, other):
    """By counting the pixels of whole boxes."""
    first, second = (
        set(itertools.product(range(box[0], box[2]), range(box[1], box[3]))) for box in (one, other)
    )
    return len(first & second) / len(first | second)


def test_a_box_of_exactly_the_least_overlap_is_taken_and_less_is_not():
    for right, expected in ((14.0, 0), (13.99, -1)):
        assert OVERLAP == 0.4
        assert match(np.array([[10, 10, right, 20]]), np.array([FACE])).tolist() == [expected]


def test_the_better_box_takes_the_face_and_none_takes_two():
    boxes = np.array([[10, 10, 19, 20], FACE, [100, 100, 120, 120]])
    assert match(boxes, np.array([FACE, [40, 40, 50, 50]])).tolist() == [0, -1]
    # The second box takes what the first has left, though it overlaps it less.
    beside = [12.0, 10.0, 22.0, 20.0]
    assert match(np.array([FACE, FACE]), np.array([FACE, beside])).tolist() == [0, 1]


def test_nothing_is_matched_with_nothing():
    assert match(np.zeros((0, 4)), np.array([FACE])).tolist() == [-1]
    assert match(np.array([FACE]), np.zeros((0, 4))).tolist() == []


corner = st.integers(0, 6)
box = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h), corner, corner, st.integers(1, 5), st.integers(1, 5)
)


@given(st.lists(box, max_size=6), st.lists(box, min_size=1, max_size=5))
def test_boxes_in_turn_take_the_free_face_that_they_overlap_most(boxes, faces):
    free, expected = dict(enumerate(faces)), [-1] * len(faces)
    for i, one in enumerate(boxes):
        best = max(free, key=lambda j: overlap(one, free[j]), default=None)
        if best is not None and overlap(one, free[best]) >= OVERLAP:
            expected[best] = i
            del free[best]
    assert match(np.array(boxes).reshape(-1, 4), np.array(faces)).tolist() == expected
