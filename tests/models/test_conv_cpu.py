"""The forms for a CPU against XLA's own, bit for bit: sums of small whole numbers are exact."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax, test_util

from models.plain_conv import distinct, plain_conv, whole, with_gradients
from research.models import conv, costs
from research.runtime import sharding

SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 20),
        "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "more": st.tuples(st.integers(0, 4), st.integers(0, 4)),
        "channels": st.tuples(st.integers(1, 6), st.integers(1, 6)),
        "padding": st.sampled_from(conv.PADDINGS),
    }
)


@given(shapes=SHAPES)
@settings(max_examples=12, deadline=None)
def test_value_and_gradients_are_those_of_xla(shapes):
    (high, wide), (rows, columns) = shapes["kernel"], shapes["more"]
    images = whole(shapes["batch"], high + rows, wide + columns, shapes["channels"][0])
    kernel = whole(high, wide, *shapes["channels"])
    padding = shapes["padding"]

    @jax.jit
    def both(images, kernel):
        return (
            with_gradients(lambda *x: conv.conv2d(*x, padding=padding), images, kernel),
            with_gradients(lambda *x: plain_conv(*x, padding), images, kernel),
        )

    chex.assert_trees_all_equal(*both(images, kernel))


@pytest.mark.parametrize("channels", [1, 5])  # either form of the gradient of a kernel
def test_gradients_are_the_same_in_a_scan_and_under_vmap(channels):
    images, kernels = whole(2, 9, 5, 4, channels), whole(2, 3, 2, channels, 3)

    def fast(images, kernel):
        return with_gradients(lambda *x: conv.conv2d(*x, padding="same"), images, kernel)

    _, scanned = jax.jit(lambda *x: lax.scan(lambda _, one: (None, fast(*one)), None, x))(
        images, kernels
    )
    batched = jax.jit(jax.vmap(fast))(images, kernels)
    plain = jax.vmap(lambda *x: with_gradients(lambda *y: plain_conv(*y, "same"), *x))
    expected = jax.jit(plain)(images, kernels)
    chex.assert_trees_all_equal(scanned, expected)
    chex.assert_trees_all_equal(batched, expected)


def of_kernel(kernel, images):
    return jax.grad(lambda kernel: jnp.sum(conv.conv2d(images, kernel, padding="valid") ** 2))(
        kernel
    )


def test_the_program_of_a_larger_batch_is_as_long():
    def convolutions(batch):
        lowered = jax.jit(of_kernel).lower(whole(3, 3, 4, 2), whole(batch, 6, 6, 4))
        return lowered.as_text().count("stablehlo.convolution")

    assert convolutions(35) == convolutions(140) < 8


def test_devices_that_share_a_batch_share_the_gradient_of_a_kernel():
    """Two devices with half of 32 images each; none of them is given the other's."""
    mesh = sharding.make_mesh(1, data_devices=2)
    images, kernel = whole(32, 6, 6, 4), whole(3, 3, 4, 2)

    def program(kernel, seed, images):
        del seed
        return of_kernel(kernel, images[sharding.split(jnp.arange(32))])

    arguments = *sharding.place_seeds((kernel[None], np.arange(1)), mesh), images
    compiled = sharding.over_seeds(program, mesh).lower(*arguments).compile()
    np.testing.assert_array_equal(compiled(*arguments)[0], jax.jit(of_kernel)(kernel, images))
    assert "all-gather" not in costs.collective_bytes(compiled.as_text())


def test_kernels_larger_than_the_image_work_with_zeros_around():
    images, kernel = whole(3, 2, 1, 2), whole(4, 3, 2, 2)
    chex.assert_trees_all_equal(
        with_gradients(lambda *x: conv.conv2d(*x, padding="same"), images, kernel),
        with_gradients(lambda *x: plain_conv(*x, "same"), images, kernel),
    )


def test_a_window_may_have_more_entries_than_int8_counts():
    pool = jax.eval_shape(lambda x: conv.max_pool(x, 12), distinct(1, 24, 13, 1))
    assert pool.shape == (1, 2, 1, 1)


def test_gradients_agree_with_differences_twice_over():
    generator = np.random.default_rng(0)
    images, kernel = (generator.normal(size=size) for size in ((3, 3, 3, 1), (2, 2, 1, 2)))

    def smooth(images, kernel):
        return jnp.sum(jnp.sin(conv.conv2d(images, kernel, padding="same")))

    with jax.enable_x64(True):
        test_util.check_grads(jax.jit(smooth), (images, kernel), order=2, modes=["rev"])
