"""The fast forms against XLA's own, bit for bit: sums of small whole numbers are exact."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax, test_util

from research.models import conv


def whole(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng((seed, *shape)).integers(-4, 5, shape).astype(dtype)


def distinct(*shape):
    """No two numbers are equal."""
    return np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.float32)


def plain_conv(images, kernel, padding):
    return lax.conv_general_dilated(
        images, kernel, (1, 1), padding.upper(), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def plain_pool(images, size):
    minus_infinity = np.array(-np.inf, images.dtype)
    windows = (1, size, size, 1)
    return lax.reduce_window(images, minus_infinity, lax.max, windows, windows, "VALID")


def with_gradients(function, *arguments):
    """The value, and the gradient of every argument for a cotangent of whole numbers."""
    value, pull = jax.vjp(function, *arguments)
    return value, pull(jnp.asarray(whole(*value.shape, seed=1, dtype=value.dtype)))


@pytest.fixture
def off_the_cpu(monkeypatch):
    monkeypatch.setattr(conv, "on_cpu", lambda: False)


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


@pytest.fixture
def small_lanes(monkeypatch):
    """Images of any size in lanes, in short blocks."""
    monkeypatch.setattr(conv, "_LANE_PIXELS", 1)
    monkeypatch.setattr(conv, "_REGISTERS", 6)


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


def test_lanes_are_for_large_images_with_few_channels_in_whole_groups(off_the_cpu, monkeypatch):
    def fit(*shape, kernel=(3, 3, 10, 10), dtype=jnp.float32):
        return conv._fit_lanes(jax.ShapeDtypeStruct(shape, dtype), kernel)

    assert not fit(32, 198, 198, 10)  # of another device
    monkeypatch.setattr(conv, "on_cpu", lambda: True)
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


def test_kernels_larger_than_the_image_work_with_zeros_around():
    images, kernel = whole(3, 2, 1, 2), whole(4, 3, 2, 2)
    chex.assert_trees_all_equal(
        with_gradients(lambda *x: conv.conv2d(*x, padding="same"), images, kernel),
        with_gradients(lambda *x: plain_conv(*x, "same"), images, kernel),
    )


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


def test_a_window_may_have_more_entries_than_int8_counts():
    pool = jax.eval_shape(lambda x: conv.max_pool(x, 12), distinct(1, 24, 13, 1))
    assert pool.shape == (1, 2, 1, 1)


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
    shapes = [np.zeros(shape, np.float32) for shape in ((1, 4, 4, 1), (3, 3, 1, 2), (2,))]
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


def test_gradients_agree_with_differences_twice_over():
    generator = np.random.default_rng(0)
    images, kernel = (generator.normal(size=size) for size in ((3, 3, 3, 1), (2, 2, 1, 2)))

    def smooth(images, kernel):
        return jnp.sum(jnp.sin(conv.conv2d(images, kernel, padding="same")))

    with jax.enable_x64(True):
        test_util.check_grads(jax.jit(smooth), (images, kernel), order=2, modes=["rev"])


def test_gradients_in_lanes_agree_with_differences_twice_over(small_lanes):
    generator = np.random.default_rng(0)
    images, kernel, bias = (generator.normal(size=s) for s in ((16, 3, 3, 1), (2, 1, 1, 2), (2,)))

    def smooth(images, kernel, bias):
        z = conv.conv2d(images, kernel, padding="same")
        return jnp.sum(jnp.sin(conv.add_bias(z, bias)))

    with jax.enable_x64(True):
        test_util.check_grads(jax.jit(smooth), (images, kernel, bias), order=2, modes=["rev"])


def test_an_unknown_padding_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="'full' is not one of valid, same"):
        _ = conv.conv2d(whole(1, 4, 4, 1), whole(3, 3, 1, 1), padding="full")
