"""The judge sees what a reader of the saved file sees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.adversarial import criterion
from research.training.step import as_input

BYTES = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "compiled"])
def test_bytes_are_what_the_nets_were_trained_on_and_come_back_as_they_were(how):
    decoded = np.asarray(how(criterion.decode)(BYTES))
    np.testing.assert_array_equal(decoded, how(as_input)(BYTES))
    np.testing.assert_allclose(decoded, BYTES / 255, rtol=2e-7)
    np.testing.assert_array_equal(how(criterion.quantise)(decoded), BYTES)


def test_halves_go_to_even_and_what_is_outside_is_cut():
    halves = np.float32([0.5, 1.5, 2.5, 253.5, 254.5])
    exact = halves[np.float32(halves / np.float32(255)) * np.float32(255) == halves]
    assert len(exact) >= 3  # those that float32 can hold
    np.testing.assert_array_equal(criterion.quantise(exact / np.float32(255)), np.rint(exact))
    assert {0.5, 2.5} & set(exact.tolist())  # where half up would differ
    np.testing.assert_array_equal(criterion.quantise(np.float32([-0.3, 1.3])), [0, 255])


def test_only_bytes_are_decoded():
    with pytest.raises(AssertionError, match="uint8"):
        _ = criterion.decode(np.zeros(3, np.float32))


def test_a_success_that_rounding_takes_away_is_none():
    """The classifier says class 1 from a mean of 100.4 levels on; the image has 100.45."""

    def logits(image):
        mean = 255 * jnp.mean(image)
        return jnp.stack([jnp.float32(100.4), mean])

    image = np.full((2, 2, 1), 100.45 / 255, np.float32)
    zero, one = np.int32(0), np.int32(1)
    assert float(criterion.margin(logits(image), zero, one)) > 0
    seen = criterion.decode(criterion.quantise(image))
    assert float(criterion.margin(logits(seen), zero, one)) < -0.3


@given(st.lists(st.integers(-8, 8), min_size=2, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_the_margin_is_that_of_the_wanted_class_over_the_best_other(values, data):
    index = st.integers(0, len(values) - 1)
    actual, target = data.draw(index), data.draw(index)
    others = [value for k, value in enumerate(values) if k != target]
    expected = values[target] - max(others)
    if actual == target:
        expected = -expected
    padded = np.full(6, -1e9, np.float32)
    padded[: len(values)] = values
    assert float(MARGIN(padded, np.int32(actual), np.int32(target))) == expected


MARGIN = jax.jit(criterion.margin)


VALUES = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=4)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
@given(VALUES, st.data())
@settings(max_examples=40, deadline=None)
def test_a_tie_is_no_success_but_where_argmax_decides_and_there_it_is_that_of_numpy(
    dtype, values, data
):
    index = st.integers(0, len(values) - 1)
    actual, target = data.draw(index), data.draw(index)
    logits, cases = np.array(values, dtype), (np.int32(actual), np.int32(target))
    only = [k for k, value in enumerate(values) if value == max(values)]
    largest = only[0] if len(only) == 1 else None
    if actual == target:
        leads = max(v for k, v in enumerate(values) if k != actual) > values[actual]
    else:
        leads = largest == target
    assert bool(criterion.succeeds(logits, *cases, criterion.ANY_LEAD)) == leads
    assert bool(criterion.succeeds(logits, *cases, 0.5)) == leads
    assert not criterion.succeeds(logits, *cases, 2.5)
    predicted = np.argmax(np.float32(values))
    said = predicted != actual if actual == target else predicted == target
    assert bool(criterion.succeeds(logits, *cases, 0)) == said
    assert criterion.margin(logits, *cases).dtype == np.float32


@pytest.mark.parametrize(("actual", "target"), [(0, 3), (0, -1), (3, 0), (3, 3), (-1, -1)])
def test_a_number_of_no_class_has_no_margin_and_never_succeeds(actual, target):
    logits, cases = np.float32([1, 2, 3]), (np.int32(actual), np.int32(target))
    assert np.isnan(criterion.margin(logits, *cases))
    for required in (0, criterion.ANY_LEAD, 0.01):
        assert not criterion.succeeds(logits, *cases, required)


@pytest.mark.parametrize(
    ("logits", "target"), [(np.float32([1]), np.int32(0)), (np.float32([1, 2]), np.float32(1))]
)
def test_one_class_and_a_class_that_is_no_integer_are_refused(logits, target):
    with pytest.raises(AssertionError):
        _ = criterion.margin(logits, np.int32(0), target)


def test_logits_of_minus_infinity_do_not_make_the_margin_no_number():
    found = criterion.margin(np.float32([1, -np.inf, 3]), np.int32(0), np.int32(2))
    assert float(found) == 2.0


def test_the_distance_is_euclidean_over_all_values_and_does_not_wrap():
    one, other = (np.full((2, 2, 1), value, np.uint8) for value in (3, 5))
    for pair in ((one, other), (other, one)):
        assert float(criterion.l2(*pair)) == pytest.approx(2 * 2 / 255, rel=1e-5)
    np.testing.assert_allclose(criterion.l2(0 * one, 0 * one + 255), 2.0, rtol=1e-6)


@pytest.mark.parametrize("target", [1, 2])
def test_the_soft_margin_pulls_at_the_other_classes_by_their_shares(target):
    """Its gradient by the logits; at temperature 0 that of the margin itself."""
    logits, actual = np.float32([1.0, 3.0, 2.5, -1.0]), 2
    others = np.arange(4) != target
    sign = -1 if target == actual else 1

    def gradient(temperature):
        soft = functools.partial(criterion.smooth_margin, temperature=jnp.float32(temperature))
        return np.asarray(jax.grad(soft)(logits, np.int32(actual), np.int32(target)))

    shares = np.where(others, np.exp(logits / 0.5), 0)
    expected = sign * np.where(others, -shares / shares.sum(), 1)
    np.testing.assert_allclose(gradient(0.5), expected, rtol=1e-5)
    hard = jax.grad(criterion.margin)(logits, np.int32(actual), np.int32(target))
    np.testing.assert_array_equal(gradient(0.0), hard)
