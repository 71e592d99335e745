"""Convolution, pool and bias are those of XLA on every device, bit for bit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.plain_conv import distinct, plain_pool, whole, with_gradients
from research.models import conv


@pytest.fixture
def off_the_cpu(monkeypatch):
    monkeypatch.setattr(conv, "on_cpu", lambda: False)


@pytest.mark.parametrize(
    ("size", "shape"), [(1, (2, 3, 4, 2)), (2, (3, 5, 7, 2)), (3, (1, 6, 8, 3))]
)
def test_the_pool_is_that_of_xla_and_leaves_out_what_fills_no_window(size, shape):
    images = distinct(*shape)
    found, gradient = with_gradients(lambda x: conv.max_pool(x, size), images)
    assert found.shape == (shape[0], shape[1] // size, shape[2] // size, shape[3])
    expected = with_gradients(lambda x: plain_pool(x, size), images)
    chex.assert_trees_all_equal((found, gradient), expected)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_first_of_equals_gets_the_gradient(platform, monkeypatch):
    monkeypatch.setattr(conv, "on_cpu", lambda: platform == "cpu")
    images = np.float32([[0, 7, 3, 3], [7, 7, 3, 3]]).reshape(1, 2, 4, 1)
    gradient = jax.grad(lambda x: jnp.sum(conv.max_pool(x, 2)))(images)
    assert gradient[0, ..., 0].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]


def test_the_pool_lets_nan_through():
    images = np.zeros((1, 2, 2, 1), np.float32)
    images[0, 1, 0] = np.nan
    assert jnp.isnan(conv.max_pool(images, 2)).all()


def test_a_bias_is_added_to_every_row_and_its_gradient_is_their_sum():
    x, bias = whole(3, 4, 5, 2), whole(2)
    found, (of_x, of_bias) = with_gradients(conv.add_bias, x, bias)
    cotangent = whole(*x.shape, seed=1)
    np.testing.assert_array_equal(found, x + bias)
    np.testing.assert_array_equal(of_x, cotangent)
    np.testing.assert_array_equal(of_bias, cotangent.sum((0, 1, 2)))


def layer(images, kernel, bias):
    return conv.add_bias(conv.max_pool(conv.conv2d(images, kernel, padding="same"), 2), bias)


def test_a_layer_off_the_cpu_is_the_same(monkeypatch):
    arguments = distinct(3, 5, 4, 1), whole(3, 3, 1, 2), whole(2)
    here = jax.jit(lambda *x: with_gradients(layer, *x))(*arguments)
    monkeypatch.setattr(conv, "on_cpu", lambda: False)
    elsewhere = jax.jit(lambda *x: with_gradients(layer, *x))(*arguments)
    chex.assert_trees_all_equal(here, elsewhere)


def test_off_the_cpu_there_is_no_rule_of_our_own(off_the_cpu):
    shapes = [np.zeros(shape, np.float32) for shape in ((16, 40, 40, 1), (3, 3, 1, 2), (2,))]
    assert "custom_vjp" not in str(jax.make_jaxpr(layer)(*shapes))


@pytest.mark.parametrize("channels", [1, 5])
def test_bfloat16_stays_bfloat16_in_values_and_gradients(channels):
    arguments = whole(9, 4, 4, channels), whole(2, 2, channels, 2), whole(2)
    small = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), arguments)
    found = jax.jit(lambda *x: with_gradients(layer, *x))(*small)
    chex.assert_trees_all_equal_dtypes(*jax.tree.leaves(found), small[0])
    _, (_, of_kernel, of_bias) = jax.jit(lambda *x: with_gradients(layer, *x))(*arguments)
    for gradient, exact in ((found[1][1], of_kernel), (found[1][2], of_bias)):
        scale = np.abs(exact).max()
        np.testing.assert_allclose(gradient.astype(np.float32), exact, atol=0.02 * scale)


def test_an_unknown_padding_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="'full' is not one of valid, same"):
        _ = conv.conv2d(whole(1, 4, 4, 1), whole(3, 3, 1, 1), padding="full")
