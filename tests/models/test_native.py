"""Our own convolutions against XLA's, bit for bit: sums of small whole numbers are exact."""

import functools
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from models.plain_conv import plain_conv, whole, with_gradients
from research.models import conv, native
from research.models.cnn import CNN
from research.storage import export

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")

SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 18),  # sums of sixteen parts, and of fewer
        "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "more": st.tuples(st.integers(0, 14), st.integers(0, 14)),
        "channels": st.integers(1, 40),
        "filters": st.integers(1, 140),  # one tile of 64 filters or several, the last in part
        "padding": st.sampled_from(conv.PADDINGS),
    }
)


@pytest.fixture(scope="module")
def enabled(tmp_path_factory):
    """Compiled once, and in use for the tests that ask for it."""
    before = native._in_use
    said = native.enable(str(tmp_path_factory.mktemp("library")))
    assert said == "convolutions are our own, compiled for this CPU"
    yield
    native._in_use = before


def ours(padding="valid"):
    """A new function each time: what was traced before knows nothing of them."""
    return lambda *x: with_gradients(functools.partial(conv.conv2d, padding=padding), *x)


def xlas(padding="valid"):
    return lambda *x: with_gradients(lambda *y: plain_conv(*y, padding), *x)


@given(shapes=SHAPES)
@settings(max_examples=25)
def test_value_and_gradients_are_those_of_xla(enabled, shapes):
    (high, wide), (rows, columns) = shapes["kernel"], shapes["more"]
    images = whole(shapes["batch"], high + rows, wide + columns, shapes["channels"])
    kernel = whole(high, wide, shapes["channels"], shapes["filters"])
    padding = shapes["padding"]
    chex.assert_trees_all_equal(
        jax.jit(ours(padding))(images, kernel), jax.jit(xlas(padding))(images, kernel)
    )


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("mapped", [jax.vmap, "lax.map"])
def test_they_are_the_same_under_vmap_and_in_a_loop(enabled, axes, mapped):
    arguments = [
        whole(*[3] * (axis == 0), *shape)
        for axis, shape in zip(axes, ((2, 7, 6, 5), (3, 2, 5, 17)), strict=True)
    ]

    def each(function):
        if mapped is jax.vmap:
            return jax.jit(jax.vmap(function, in_axes=axes))(*arguments)
        stacked = [
            x if axis == 0 else np.stack([x] * 3) for x, axis in zip(arguments, axes, strict=True)
        ]
        return jax.jit(lambda *x: lax.map(lambda pair: function(*pair), x))(*stacked)

    chex.assert_trees_all_equal(each(ours("same")), each(xlas("same")))


def test_they_are_the_same_on_every_device_of_a_mesh(enabled):
    mesh = jax.make_mesh((2,), ("rows",), (AxisType.Auto,), devices=jax.devices()[:2])
    images, kernel = whole(6, 7, 6, 5), whole(3, 2, 5, 17)
    spread = jax.shard_map(
        lambda images, kernel: conv.conv2d(images, kernel, padding="valid"),
        mesh=mesh,
        in_specs=(PartitionSpec("rows"), PartitionSpec()),
        out_specs=PartitionSpec("rows"),
    )
    np.testing.assert_array_equal(
        jax.jit(spread)(images, kernel), plain_conv(images, kernel, "valid")
    )


def test_a_large_kernel_has_the_convolution_of_xla_and_a_gradient_of_ours(enabled):
    images, kernel = whole(3, 5, 4, 128), whole(3, 3, 128, 130)
    traced = str(jax.make_jaxpr(ours("same"))(images, kernel))
    assert ("native_convolve" in traced, "native_kernel_gradient" in traced) == (False, True)
    chex.assert_trees_all_equal(
        jax.jit(ours("same"))(images, kernel), jax.jit(xlas("same"))(images, kernel)
    )


def test_an_image_has_the_same_bits_in_every_batch(enabled):
    images = np.asarray(jax.random.normal(jax.random.key(0), (7, 9, 8, 5)))
    kernel = np.asarray(jax.random.normal(jax.random.key(1), (3, 3, 5, 20)))
    together = jax.jit(functools.partial(conv.conv2d, padding="same"))(images, kernel)
    alone = jax.jit(jax.vmap(lambda x: conv.conv2d(x[None], kernel, padding="same")[0]))(images)
    one = jax.jit(functools.partial(conv.conv2d, padding="same"))(images[3:4], kernel)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[3:4], one)


def test_nan_and_infinity_go_through(enabled):
    images, kernel = whole(1, 5, 5, 3), whole(3, 3, 3, 20)
    images[0, 0, 0, 0], kernel[1, 1, 1, 7] = np.nan, np.inf
    found = jax.jit(functools.partial(conv.conv2d, padding="valid"))(images, kernel)
    np.testing.assert_array_equal(found, plain_conv(images, kernel, "valid"))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((0, 5, 5, 3), jnp.float32), ((2, 5, 5, 3), jnp.bfloat16)]
)
def test_what_they_do_not_know_is_xlas(enabled, shape, dtype):
    images, kernel = jnp.zeros(shape, dtype), jnp.zeros((3, 3, 3, 4), dtype)
    assert "ffi_call" not in str(jax.make_jaxpr(ours())(images, kernel))


def test_a_program_that_leaves_the_machine_does_not_name_them(enabled):
    model = CNN(filters=(20,), pools=(2,), dropouts=(0.0,), dense=(), dense_dropouts=(), classes=2)
    images = jnp.zeros((1, 8, 8, 3), jnp.float32)
    params = model.init(jax.random.key(0), images)["params"]
    with native.unused():
        expected = export.trace(model, params, size=8, precision="highest").mlir_module()
    assert "native" not in expected
    assert export.trace(model, params, size=8, precision="highest").mlir_module() == expected
    assert native.settings() == {"--native_convolutions": "on"}


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("no-such-compiler", "No such file or directory: 'no-such-compiler'; install a C++"),
        ("false", "convolutions are XLA's: false failed"),
    ],
)
def test_without_a_compiler_they_are_xlas_and_a_line_says_so(compiler, said, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_in_use", False)
    monkeypatch.setenv("CXX", compiler)
    assert said in native.enable(str(tmp_path))
    assert native.settings() == {}
    assert "ffi_call" not in str(jax.make_jaxpr(ours())(whole(1, 5, 5, 3), whole(3, 3, 3, 4)))


def test_a_second_start_in_a_process_is_as_good(enabled, tmp_path):
    assert "are our own" in native.enable(str(tmp_path))


def test_the_library_is_compiled_once_for_each_source(enabled, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    path = native._compile(["c++"], folder)
    before = path.stat().st_mtime_ns
    assert native._compile(["c++"], folder) == path
    assert path.stat().st_mtime_ns == before
    other = tmp_path / "native.cc"
    other.write_text(f"{native.SOURCE.read_text()}// another\n")
    monkeypatch.setattr(native, "SOURCE", other)
    assert native._compile(["c++"], folder) != path
    assert len(list(folder.iterdir())) == 2  # and nothing that is left of compiling
