"""The nets of MTCNN against what the package `mtcnn` computes, and in their own equivalent forms.

`mtcnn_reference.json` holds the outputs of `mtcnn` 1.0.0 on TensorFlow 2.21 for `pattern`, flat:
    net = PNet(); net.build(); net.set_weights(load_weights("pnet.lz4")); net(pattern(1, 15, 18))
and so for RNet (3, 24, 24) and ONet (3, 48, 48); of the probabilities the second.
"""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from research.faces import mtcnn_weights
from research.models import mtcnn

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mtcnn") is None, reason="the package mtcnn is not installed"
)
REFERENCE = Path(__file__).parent / "mtcnn_reference.json"
NETS = {
    "pnet": (mtcnn.PNet(), (1, 15, 18)),
    "rnet": (mtcnn.RNet(), (3, 24, 24)),
    "onet": (mtcnn.ONet(), (3, 48, 48)),
}


@pytest.fixture(scope="module")
def weights():
    return mtcnn_weights.load()


def pattern(*shape):
    """Waves of a few lengths as pixels of MTCNN, [..., H, W, 3] float32."""
    count, height, width = shape
    i, y, x, c = np.meshgrid(*(np.arange(n) for n in (count, height, width, 3)), indexing="ij")
    wave = np.sin(0.9 * x / (1 + i) + c) + np.cos(0.7 * y / (1 + i)) * np.sin(0.3 * x * (1 + c))
    return ((np.round(127 + 60 * wave) - 127.5) / 128).astype(np.float32)


def noise(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", NETS)
def test_the_outputs_are_those_of_the_package(name, weights):
    net, shape = NETS[name]
    outputs = jax.jit(net.apply)({"params": weights[name]}, pattern(*shape))
    expected = json.loads(REFERENCE.read_text())[name]
    assert 0.01 < np.max(expected[-1]) < 0.999  # not all of them are where every net would be right
    for mine, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(np.asarray(mine).ravel(), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_the_weights_are_all_that_a_net_asks_for(name, weights):
    net, shape = NETS[name]
    asked = jax.eval_shape(net.init, jax.random.key(0), pattern(*shape))["params"]
    shapes = jax.tree.map(np.shape, weights[name])
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, dict(asked))


def test_the_outputs_on_noise_are_those_of_the_installed_package(weights):
    tensorflow = pytest.importorskip("tensorflow")
    reference = pytest.importorskip("mtcnn")
    del tensorflow
    stages = reference.MTCNN().stages
    for stage, (name, (net, shape)) in zip(stages, NETS.items(), strict=True):
        x = noise(*shape, 3)
        *mine, probability = net.apply({"params": weights[name]}, x)
        *theirs, both = (np.asarray(a) for a in stage.model(x))
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(np.asarray(a).reshape(b.shape), b, atol=1e-5)
        np.testing.assert_allclose(probability, both[..., 1], atol=1e-5)


@pytest.mark.parametrize(("rows", "columns", "filters"), [(2, 2, 1), (4, 3, 2)])
def test_a_convolution_in_blocks_is_the_plain_one(rows, columns, filters):
    params = {
        "kernel": noise(3, 3, 3, filters),
        "bias": noise(filters),
        "slope": noise(filters, seed=1),
    }
    x = noise(2, 2 * rows, 2 * columns, 3)
    plain, blocks = (
        jax.jit(layer.apply)({"params": params}, x)
        for layer in (mtcnn.Conv(filters), mtcnn.FirstConv(filters))
    )
    assert blocks.shape == (2, rows - 1, columns - 1, 4, filters)
    found = blocks.reshape(2, rows - 1, columns - 1, 2, 2, filters).swapaxes(2, 3)
    np.testing.assert_allclose(found.reshape(plain.shape), plain, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_pools_leave_out_what_fills_no_window(size):
    x = noise(2, 8, 11, 3)
    windows = (1, size, size, 1)
    expected = lax.reduce_window(x, np.float32(-np.inf), lax.max, windows, (1, 2, 2, 1), "VALID")
    found = jax.jit(lambda x: mtcnn._pool(x, size))(x)
    np.testing.assert_array_equal(found, expected)


def test_a_pool_of_blocks_is_the_pool_of_the_plain_order():
    x = noise(2, 10, 14, 3)
    blocks = x.reshape(2, 5, 2, 7, 2, 3).swapaxes(2, 3).reshape(2, 5, 7, 4, 3)
    # An even number of rows and columns is filled up at the end.
    expected = lax.reduce_window(
        x, np.float32(-np.inf), lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
    )
    np.testing.assert_array_equal(jax.jit(mtcnn._pool_blocks)(blocks), expected)


@pytest.mark.parametrize("size", [(12, 12), (13, 16), (17, 13)])
def test_a_picture_among_others_has_the_outputs_it_has_alone(size, weights):
    rows, columns = size
    params = {"params": weights["pnet"]}
    picture = pattern(1, rows, columns)
    canvas, inside = 5 * noise(1, 20, 30, 3), np.zeros((1, 20, 30), bool)
    canvas[:, :rows, 8 : 8 + columns], inside[:, :rows, 8 : 8 + columns] = picture, True
    alone = jax.jit(mtcnn.PNet().apply)(params, picture)
    among = jax.jit(mtcnn.PNet().apply)(params, canvas, inside)
    height, width = (-(-(n - 2) // 2) - 4 for n in size)
    assert alone[1].shape == (1, height, width)
    for a, b in zip(alone, among, strict=True):
        np.testing.assert_allclose(b[:, :height, 4 : 4 + width], a, atol=1e-5)


def test_pixels_are_centred():
    found = mtcnn.normalise(jnp.array([0.0, 127.5, 255.5]))
    np.testing.assert_array_equal(found, [-127.5 / 128, 0, 1])
