"""Lanes of sixteen images against XLA's own forms, bit for bit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from models.plain_conv import plain_conv, plain_pool, whole, with_gradients
from research.models import conv, lanes


@pytest.fixture
def small_lanes(monkeypatch):
    """Images of any size in lanes, in short blocks."""
    monkeypatch.setattr(lanes, "_MIN_PIXELS", 1)
    monkeypatch.setattr(lanes, "_REGISTERS", 6)


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "padding"),
    [
        (16, (6, 7), (3, 3, 5, 4), "valid"),  # one column is left over by the blocks
        (48, (5, 4), (2, 3, 1, 3), "same"),
        (64, (4, 19), (1, 2, 2, 2), "same"),  # two groups at a time, twice
    ],
)
def test_value_and_gradients_in_lanes_are_those_of_xla(batch, size, kernel, padding, small_lanes):
    images, kernel, bias = whole(batch, *size, kernel[2]), whole(*kernel), whole(kernel[3])

    def fast(images, kernel, bias):
        z = conv.add_bias(conv.conv2d(images, kernel, padding=padding), bias)
        return conv.max_pool(jax.nn.relu(z), 2)

    def plain(images, kernel, bias):
        z = plain_conv(images, kernel, padding) + bias.reshape(1, 1, 1, -1)
        return plain_pool(jax.nn.relu(z), 2)

    assert lanes_of(fast, images, kernel, bias)
    found = jax.jit(lambda *x: with_gradients(fast, *x))(images, kernel, bias)
    expected = jax.jit(lambda *x: with_gradients(plain, *x))(images, kernel, bias)
    chex.assert_trees_all_equal(found, expected)


def lanes_of(function, *arguments):
    """Whether any of it is computed in lanes: on arrays of five axes."""
    return "16]" in str(jax.make_jaxpr(function)(*arguments)).replace(" ", "")


def test_a_broken_kernel_breaks_the_same_values_in_lanes(small_lanes):
    images, kernel = whole(16, 6, 5, 2), whole(3, 2, 2, 3)
    kernel[0, 0, 0, 0] = np.nan  # takes the other branch
    found = conv.conv2d(images, kernel, padding="same")
    np.testing.assert_array_equal(found, plain_conv(images, kernel, "same"))


def test_lanes_are_for_large_images_with_few_channels_in_whole_groups():
    def fit(*shape, kernel=(3, 3, 10, 10), dtype=jnp.float32):
        return lanes.fit(jax.ShapeDtypeStruct(shape, dtype), kernel)

    assert fit(32, 198, 198, 10)
    assert fit(16, 40, 40, 3, kernel=(3, 3, 3, 10))
    assert not fit(24, 198, 198, 10)
    assert not fit(0, 198, 198, 10)
    assert not fit(32, 40, 39, 10)
    assert not fit(32, 198, 198, 10, kernel=(3, 3, 10, 16))
    assert not fit(32, 198, 198, 10, kernel=(5, 5, 10, 10))
    assert not fit(32, 198, 198, 10, dtype=jnp.bfloat16)
    assert not fit(128, 28, 28, 1, kernel=(3, 3, 1, 32))  # MNIST
    assert not fit(128, 32, 32, 3, kernel=(3, 3, 3, 64))  # CIFAR-10


def test_gradients_in_lanes_agree_with_differences_twice_over(small_lanes):
    generator = np.random.default_rng(0)
    images, kernel, bias = (generator.normal(size=s) for s in ((16, 3, 3, 1), (2, 1, 1, 2), (2,)))

    def smooth(images, kernel, bias):
        z = conv.conv2d(images, kernel, padding="same")
        return jnp.sum(jnp.sin(conv.add_bias(z, bias)))

    with jax.enable_x64(True):
        test_util.check_grads(jax.jit(smooth), (images, kernel, bias), order=2, modes=["rev"])
