"""Crops and their synthetic copies: where their pixels come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.faces import crops
from research.faces.annotations import Box


def coordinates(width: int, height: int) -> np.ndarray:
    """A picture that says in each pixel which column and row it is."""
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([column, row, np.zeros_like(row)], -1).astype(np.uint8)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    """A box in a picture of width and height."""
    width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return Box(left, top, right, bottom), width, height


@given(boxes(), st.integers(1, 40))
def test_a_crop_without_margin_has_no_pixel_from_outside_its_box(
    drawn: tuple[Box, int, int], size: int
) -> None:
    box, width, height = drawn
    part = crops.crop(coordinates(width, height), box, margin=0, size=size)
    assert part.shape == (size, size, 3) and part.dtype == np.uint8
    columns, rows = part[..., 0], part[..., 1]
    assert box.left <= columns.min() and columns.max() < box.right
    assert box.top <= rows.min() and rows.max() < box.bottom
    assert (columns == columns[:1]).all() and (rows == rows[:, :1]).all()
    assert (np.diff(columns[0].astype(int)) >= 0).all()
    assert (np.diff(rows[:, 0].astype(int)) >= 0).all()
    # Centred: the two ends are as far from those of the box, but for rounding.
    assert abs(int(columns[0, 0]) - box.left - (box.right - 1 - int(columns[0, -1]))) <= 1
    assert abs(int(rows[0, 0]) - box.top - (box.bottom - 1 - int(rows[-1, 0]))) <= 1


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 20), st.randoms())
def test_a_box_as_large_as_the_crop_is_copied(side: int, left: int, top: int, random) -> None:
    generator = np.random.default_rng(random.randrange(2**32))
    image = generator.integers(0, 256, (side + top + 3, side + left + 2, 3), np.uint8)
    box = Box(left, top, left + side, top + side)
    part = crops.crop(image, box, margin=0, size=side)
    np.testing.assert_array_equal(part, image[top : top + side, left : left + side])


@given(boxes(), st.floats(0, 2))
def test_a_margin_is_a_larger_box_cut_at_the_picture(
    drawn: tuple[Box, int, int], margin: float
) -> None:
    box, width, height = drawn
    image = coordinates(width, height)
    beside, above = round(margin * box.width), round(margin * box.height)
    larger = Box(
        max(0, box.left - beside),
        max(0, box.top - above),
        min(width, box.right + beside),
        min(height, box.bottom + above),
    )
    np.testing.assert_array_equal(
        crops.crop(image, box, margin=margin, size=9), crops.crop(image, larger, margin=0, size=9)
    )


def test_a_margin_of_a_half_takes_half_a_side_more_on_each_side() -> None:
    image = coordinates(40, 40)
    part = crops.crop(image, Box(10, 16, 20, 24), margin=0.5, size=20)
    assert (part[0, :, 0] == np.arange(5, 25)).all()
    assert part[:, 0, 1].min() == 12 and part[:, 0, 1].max() == 27


def test_many_pixels_become_their_average_and_few_never_leave_their_range() -> None:
    checks = np.indices((64, 64)).sum(0)[..., None] % 2 * np.array([200, 100, 50])
    small = crops.crop(checks.astype(np.uint8), Box(0, 0, 64, 64), margin=0, size=8)
    np.testing.assert_allclose(small, np.broadcast_to([100, 50, 25], small.shape), atol=1)
    edge = np.full((6, 6, 3), 60, np.uint8)
    edge[:, 3:] = 190
    large = crops.crop(edge, Box(0, 0, 6, 6), margin=0, size=120)
    assert large.min() == 60 and large.max() == 190


@pytest.mark.parametrize(
    ("box", "margin"),
    [
        (Box(10, 0, 12, 5), 0),
        (Box(-3, 0, 0, 5), 0),
        (Box(3, 3, 3, 5), 1),
        (Box(4, 3, 3, 5), 1),
        (Box(0, 9, 3, 12), 0.1),
        (Box(0, 0, 3, 3), -0.1),
    ],
)
def test_a_box_without_a_pixel_in_the_picture_is_an_error(box: Box, margin: float) -> None:
    with pytest.raises(ValueError, match=r"picture of 10 x 8|margin is -0\.1"):
        crops.crop(coordinates(10, 8), box, margin=margin, size=4)


# Copies


class Drawn:
    """A generator that draws given numbers: mirrored if the first is under 0.5, angle, factor."""

    def __init__(self, first: float, angle: float, factor: float) -> None:
        self._first, self._rest = first, iter((angle, factor))

    def random(self) -> float:
        return self._first

    def uniform(self, low: float, high: float) -> float:
        value = next(self._rest)
        assert low <= value <= high
        return value


@given(st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_a_face_of_one_colour_stays_so_without_dark_corners(side: int, seed: int) -> None:
    copy = crops.augment(np.full((side, side, 3), 100, np.uint8), np.random.default_rng(seed))
    assert copy.shape == (side, side, 3) and copy.dtype == np.uint8
    assert copy.min() == copy.max() and 80 <= copy.min() <= 120


def test_without_a_turn_a_copy_is_the_face_or_its_mirror_image_times_a_factor() -> None:
    face = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(crops.augment(face, Drawn(0.5, 0, 1)), face)
    np.testing.assert_array_equal(crops.augment(face, Drawn(0.49, 0, 1)), face[:, ::-1])
    brighter = np.minimum(np.rint(face * 1.2), 255)
    np.testing.assert_allclose(crops.augment(face, Drawn(0.5, 0, 1.2)), brighter, atol=1)


@pytest.mark.parametrize("angle", [-15.0, 4.0, 15.0])
def test_a_turn_is_about_the_centre_by_its_angle(angle: float) -> None:
    side, at = 101, np.array([20.0, -30.0])  # right of and below the centre
    row, column = np.mgrid[:side, :side] - side // 2
    spot = np.exp(-((column - at[0]) ** 2 + (row - at[1]) ** 2) / 18)
    face = (255 * spot)[..., None].repeat(3, 2).astype(np.uint8)
    weight = crops.augment(face, Drawn(0.9, angle, 1.0))[..., 0].astype(float)
    seen = np.array([(column * weight).sum(), (row * weight).sum()]) / weight.sum()
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    expected = [cos * at[0] + sin * at[1], -sin * at[0] + cos * at[1]]
    np.testing.assert_allclose(seen, expected, atol=0.3)


@given(st.integers(2, 60), st.sampled_from([-15.0, 15.0]))
def test_the_corners_continue_the_face(side: int, angle: float) -> None:
    """Values grow to the right by 1 a column: nothing is far from what a plain turn would bring."""
    face = coordinates(side, side) + np.uint8(100)
    copy = crops.augment(face, Drawn(0.9, angle, 1.0))
    assert copy[..., :2].min() >= 100 and copy[..., :2].max() < 100 + side


def test_copies_differ_and_repeat_with_their_generator() -> None:
    face = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    one, two = np.random.default_rng(7), np.random.default_rng(7)
    first = [crops.augment(face, one) for _ in range(60)]
    np.testing.assert_array_equal(first, [crops.augment(face, two) for _ in range(60)])
    assert len({copy.tobytes() for copy in first}) == 60
    mirrored = [
        np.corrcoef(c.ravel(), face[:, ::-1].ravel())[0, 1]
        > np.corrcoef(c.ravel(), face.ravel())[0, 1]
        for c in first
    ]
    assert 15 <= sum(mirrored) <= 45
