"""Distances of images: closed forms, and a second implementation of SSIM in double precision."""

import json
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d

from research.adversarial import distances

SHAPES = [(28, 28, 1), (32, 32, 3)]


def second_ssim(clean, changed):
    """Of one pair [H, W, C] uint8, by filters of SciPy."""
    x, y = clean / 255, changed / 255
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def blurred(values):
        return correlate1d(correlate1d(values, window, axis=0), window, axis=1)[5:-5, 5:-5]

    mean_x, mean_y = blurred(x), blurred(y)
    variances = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    up = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return np.mean(up / ((mean_x**2 + mean_y**2 + c1) * (variances + c2)))


def pairs(shape, seed, count=1, amplitude=30, low=0, high=255):
    rng = np.random.default_rng(seed)
    clean = rng.integers(low, high + 1, (count, *shape))
    noise = rng.integers(-amplitude, amplitude + 1, clean.shape)
    return clean.astype(np.uint8), np.clip(clean + noise, 0, 255).astype(np.uint8)


def test_three_changes_of_a_black_image_have_the_distances_of_the_textbook():
    clean = np.zeros((1, 28, 28, 3), np.uint8)
    changed = clean.copy()
    changed[0, 3, 4] = (30, 0, 40)
    changed[0, 20, 7, 1] = 120
    found = distances.measure(clean, changed)
    assert found.l0.tolist() == [2] and np.issubdtype(found.l0.dtype, np.integer)
    assert found.l2.tolist() == [130 / 255]
    assert found.linf.tolist() == [120 / 255]
    assert found.l1.tolist() == [190 / 255]
    mean_square = 130**2 / 255**2 / (28 * 28 * 3)
    np.testing.assert_allclose(found.psnr, -10 * math.log10(mean_square), rtol=1e-15)


def test_the_whole_range_apart_does_not_overflow_a_byte():
    clean = np.zeros((2, 28, 28, 1), np.uint8)
    changed = np.full_like(clean, 255)
    clean[1], changed[1] = 255, 0
    found = distances.measure(clean, changed)
    assert found.l0.tolist() == [784, 784] and found.linf.tolist() == [1, 1]
    assert found.l2.tolist() == [28, 28] and found.psnr.tolist() == [0, 0]


@pytest.mark.parametrize(("before", "after"), [(0, 255), (100, 101), (255, 254)])
def test_ssim_of_two_even_images_compares_their_means(before, after):
    clean = np.full((1, 28, 28, 1), before, np.uint8)
    found = distances.measure(clean, np.full_like(clean, after)).ssim
    x, y, c1 = before / 255, after / 255, 0.01**2
    np.testing.assert_allclose(found, (2 * x * y + c1) / (x * x + y * y + c1), atol=1e-10)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_equal_images_are_at_no_distance(value):
    image = np.full((1, 28, 28, 1), value, np.uint8)
    (row,) = distances.measure(image, image).rows()
    assert row == {"l0": 0, "l1": 0.0, "l2": 0.0, "linf": 0.0, "psnr": None, "ssim": 1.0}
    assert distances.measure(image, image).psnr.tolist() == [math.inf]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**32 - 1),
    amplitude=st.sampled_from([1, 3, 30, 255]),
    levels=st.sampled_from([(0, 255), (0, 0), (255, 255), (0, 3), (250, 255)]),
)
def test_ssim_is_that_of_a_second_implementation(shape, seed, amplitude, levels):
    clean, changed = pairs(shape, seed, amplitude=amplitude, low=levels[0], high=levels[1])
    found = distances.measure(clean, changed)
    np.testing.assert_allclose(found.ssim, [second_ssim(clean[0], changed[0])], atol=1e-10)
    assert found.ssim.dtype == np.float64


@settings(max_examples=25, deadline=None)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**32 - 1), amplitude=st.integers(1, 255))
def test_norms_are_those_of_numpy_and_psnr_follows_from_them(shape, seed, amplitude):
    clean, changed = pairs(shape, seed, count=2, amplitude=amplitude)
    difference = (changed / 255 - clean / 255).reshape(2, -1)
    found = distances.measure(clean, changed)
    np.testing.assert_allclose(found.l2, np.linalg.norm(difference, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.linf, np.abs(difference).max(axis=1), rtol=1e-12)
    per_pixel = difference.reshape(2, -1, shape[2])
    assert found.l0.tolist() == np.abs(per_pixel).max(axis=2).astype(bool).sum(axis=1).tolist()
    np.testing.assert_allclose(found.psnr, -10 * np.log10(np.mean(difference**2, axis=1)))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_is_measured_by_itself_whatever_else_is_in_the_batch(shape):
    clean, changed = pairs(shape, 0, count=5)
    changed[3] = clean[3]
    together = distances.measure(clean, changed).rows()
    for i, row in enumerate(together):
        assert distances.measure(clean[i : i + 1], changed[i : i + 1]).rows() == [row]
    assert json.loads(json.dumps(together, allow_nan=False)) == together
    assert [row["psnr"] is None for row in together] == [False, False, False, True, False]


def test_no_images_have_no_distances():
    nothing = np.zeros((0, 28, 28, 1), np.uint8)
    assert distances.measure(nothing, nothing).rows() == []


def test_the_caller_keeps_single_precision():
    clean, changed = pairs((28, 28, 1), 0)
    _ = distances.measure(clean, changed)
    assert jax.numpy.ones(1).dtype == np.float32


@pytest.mark.parametrize(
    ("clean", "changed", "words"),
    [
        (np.zeros((1, 28, 28, 1)), np.zeros((1, 28, 28, 1), np.uint8), "clean .* got float64"),
        (np.zeros((1, 28, 28, 1), np.uint8), np.zeros((1, 28, 28, 1), np.int8), "changed .* int8"),
        (np.zeros((28, 28, 28), np.uint8), np.zeros((28, 28, 28), np.uint8), r"\[28, 28, 28\]"),
        (np.zeros((1, 28, 10, 1), np.uint8), np.zeros((1, 28, 10, 1), np.uint8), "11 x 11 pixels"),
        (np.zeros((1, 28, 28, 3), np.uint8), np.zeros((1, 28, 28, 1), np.uint8), "one shape"),
        (np.zeros((1, 28, 28, 1), np.uint8), np.zeros((2, 28, 28, 1), np.uint8), "one shape"),
    ],
)
def test_what_cannot_be_compared_is_refused(clean, changed, words):
    with pytest.raises(ValueError, match=words):
        distances.measure(clean, changed)
