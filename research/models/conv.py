"""Convolution, pooling and bias; the nets are built of these three.

On GPU and TPU they are XLA's own operations. On the CPU the same values come from the forms of
`conv_cpu`, and from `lanes` for large images with few channels, because XLA leaves its fast paths
there where training needs them (`python -m benchmarks.layers_cnn` has the figures).
"""

import chex
import jax
import numpy as np
from jax import lax

from research.models import conv_cpu, lanes
from research.models.conv_cpu import Pads

PADDINGS = ("valid", "same")


def conv2d(images: jax.Array, kernel: jax.Array, *, padding: str) -> jax.Array:
    """Cross-correlation with stride 1, [B, H', W', C out]; what deep learning calls convolution.

    images: [B, H, W, C in].  kernel: [height, width, C in, C out], of the dtype of images.
    padding: "valid", H' = H - height + 1, or "same", H' = H with zeros around, as in Keras.
    """
    chex.assert_rank([images, kernel], 4)
    pads = pads_of(kernel.shape[0], kernel.shape[1], padding)
    if not on_cpu():
        return conv_cpu.correlate(images, kernel, pads)
    if lanes.fit(images, kernel.shape):
        return lanes.from_lanes(lanes.conv2d(lanes.to_lanes(images), kernel, pads))
    return conv_cpu.conv2d(images, kernel, pads)


def max_pool(images: jax.Array, size: int) -> jax.Array:
    """Largest value of every size x size window, [B, H // size, W // size, C].

    Rows and columns that do not fill a window are left out, as Keras' "valid" does. The gradient
    goes to the largest entry, the first of them where several are equal.
    """
    chex.assert_rank(images, 4)
    height, width = images.shape[1:3]
    images = images[:, : height // size * size, : width // size * size]
    if size == 1:
        return images
    if not on_cpu():
        windows = (1, size, size, 1)
        return lax.reduce_window(
            images, np.array(-np.inf, images.dtype), lax.max, windows, windows, "VALID"
        )
    if lanes.fit(images):
        return lanes.from_lanes(conv_cpu.max_pool(lanes.to_lanes(images), size))
    return conv_cpu.max_pool(images, size)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., C] + bias [C]."""
    if not on_cpu():
        return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
    if lanes.fit(x):
        return lanes.from_lanes(lanes.add_bias(lanes.to_lanes(x), bias))
    return conv_cpu.add_bias(x, bias)


def on_cpu() -> bool:
    """Whether programs traced now are for the CPU."""
    return jax.default_backend() == "cpu"


def pads_of(height: int, width: int, padding: str) -> Pads:
    """Zeros before and after the rows and the columns.  Raises ValueError for other paddings."""
    if padding not in PADDINGS:
        raise ValueError(f"padding: {padding!r} is not one of {', '.join(PADDINGS)}")
    if padding == "valid":
        return (0, 0), (0, 0)
    return ((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2)
