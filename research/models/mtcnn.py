"""The three nets of MTCNN: proposals on every 12 x 12 window, then two refinements.

Source: K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask
Cascaded Convolutional Networks", 2016, in the form of the package `mtcnn` 1.0.0, whose weights fit
(`research.faces.mtcnn_weights`): first pools that are filled up at the right and the bottom, and
rows and columns exchanged before the first dense layer.

Pixels are (byte - 127.5) / 128, in RGB. Boxes come as offsets of left, top, right and bottom, in
units of the window's sides.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.models import conv

WINDOW = 12  # pixels of the side of the receptive field of PNet
STRIDE = 2  # pixels between two such windows
# Padding of maxima: below every activation, and finite: the next convolution makes NaN of -inf.
LOW = np.float32(-1e30)


class Conv(nn.Module):
    """Convolution, bias and PReLU, [B, H - size + 1, W - size + 1, filters].

    Parameters: kernel [size, size, C in, filters], bias [filters], slope [filters].
    """

    filters: int
    size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.filters)
        z = conv.conv2d(x, _parameter(self, "kernel", shape), padding="valid")
        z = conv.add_bias(z, _parameter(self, "bias", (self.filters,)))
        return _prelu(z, _parameter(self, "slope", (self.filters,)))


class FirstConv(nn.Module):
    """Conv(filters) of a picture, [B, H / 2 - 1, W / 2 - 1, 4, filters]: in blocks of 2 x 2.

    H and W are even. Entry [.., i, j, 2 a + b, :] is row 2 i + a and column 2 j + b of the plain
    convolution. Made of pixels in the same blocks, by a kernel that holds the plain one four times:
    twice the operations, at several times the rate, for three channels are few.
    """

    filters: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        batch, height, width, channels = images.shape
        kernel = _parameter(self, "kernel", (3, 3, channels, self.filters))
        blocks = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
        blocks = blocks.swapaxes(2, 3).reshape(batch, height // 2, width // 2, 4 * channels)
        # Row r of a block of outputs needs pixels r .. r + 2 of two blocks, which hold 0 .. 3.
        wide = jnp.stack(
            [
                jnp.pad(kernel, ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0)))
                for a in (0, 1)
                for b in (0, 1)
            ],
            axis=3,
        )
        wide = wide.reshape(2, 2, 2, 2, channels, 4 * self.filters).swapaxes(1, 2)
        wide = wide.reshape(2, 2, 4 * channels, 4 * self.filters)
        z = conv.conv2d(blocks, wide, padding="valid")
        z = z.reshape(*z.shape[:3], 4, self.filters)
        z = conv.add_bias(z, _parameter(self, "bias", (self.filters,)))
        return _prelu(z, _parameter(self, "slope", (self.filters,)))


class Dense(nn.Module):
    """x W + b, and a PReLU where `bent`, [..., units].

    Parameters: kernel [in, units] (or [1, 1, in, units], as a convolution has it), bias [units],
    slope [units].
    """

    units: int
    bent: bool = False
    pointwise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.units)
        kernel = _parameter(self, "kernel", (1, 1, *shape) if self.pointwise else shape)
        z = conv.add_bias(x @ kernel.reshape(shape), _parameter(self, "bias", (self.units,)))
        return _prelu(z, _parameter(self, "slope", (self.units,))) if self.bent else z


class PNet(nn.Module):
    """Proposals: box and probability of a face for windows of 12 x 12 pixels, two pixels apart.

    images: [B, H, W, 3] float32.  inside: [B, H, W] bool, where several pictures share an image:
    False for the pixels between them.  Returns boxes [B, H', W', 4] and the probability of a face
    [B, H', W'], H' = ceil((H - 2) / 2) - 4.  A window that begins inside a picture and ends one row
    or column outside is evaluated without it, as it is at the end of an image.
    """

    @nn.compact
    def __call__(
        self, images: jax.Array, inside: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        images, inside = _fill_up(images, inside)
        x = FirstConv(10, name="conv_0")(images)
        if inside is not None:
            # The pool must not see what a window across the edge of a picture computes; an output
            # belongs to the picture if the last pixel of its 3 x 3 kernel does.
            x = jnp.where(_in_blocks(inside[:, 2:, 2:]), x, LOW)
        x = jnp.max(x, axis=3)  # the 2 x 2 pool: a block is a window of it
        x = Conv(32, name="conv_2")(Conv(16, name="conv_1")(x))
        boxes = Dense(4, pointwise=True, name="box")(x)
        return boxes, _probability(Dense(2, pointwise=True, name="face")(x))


class RNet(nn.Module):
    """Patches [B, 24, 24, 3] float32 -> boxes [B, 4] and the probability of a face [B]."""

    @nn.compact
    def __call__(self, patches: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _pool_blocks(FirstConv(28, name="conv_0")(patches))
        x = _pool(Conv(48, name="conv_1")(x), 3)
        x = _flatten(Conv(64, size=2, name="conv_2")(x))
        x = Dense(128, bent=True, name="dense")(x)
        return Dense(4, name="box")(x), _probability(Dense(2, name="face")(x))


class ONet(nn.Module):
    """Patches [B, 48, 48, 3] float32 -> boxes [B, 4], landmarks [B, 2, 5] and the probability of a
    face [B].

    Landmarks: both eyes, the nose and both corners of the mouth, the one that is left in the
    picture first; x of all five and then y, from the corner of the patch in units of its sides.
    """

    @nn.compact
    def __call__(self, patches: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = _pool_blocks(FirstConv(32, name="conv_0")(patches))
        x = _pool(Conv(64, name="conv_1")(x), 3)
        x = _pool(Conv(64, name="conv_2")(x), 2)
        x = _flatten(Conv(128, size=2, name="conv_3")(x))
        x = Dense(256, bent=True, name="dense")(x)
        landmarks = Dense(10, name="landmarks")(x).reshape(-1, 2, 5)
        return Dense(4, name="box")(x), landmarks, _probability(Dense(2, name="face")(x))


def normalise(pixels: jax.Array) -> jax.Array:
    """(pixels - 127.5) / 128; pixels are float32 of 0..255."""
    return (pixels - np.float32(127.5)) * np.float32(1 / 128)


def _parameter(module: nn.Module, name: str, shape: Sequence[int]) -> jax.Array:
    """A float32 parameter; zeros, because these nets are loaded and not trained."""
    return module.param(name, nn.initializers.zeros_init(), tuple(shape), jnp.float32)


def _prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    slope = slope.reshape((1,) * (x.ndim - 1) + slope.shape)
    return jnp.where(x >= 0, x, slope * x)


def _fill_up(images: jax.Array, inside: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """The images with an even number of rows and columns; what is added is not inside."""
    height, width = images.shape[1:3]
    missing = ((0, 0), (0, height % 2), (0, width % 2))
    if height % 2 or width % 2:
        inside = jnp.ones(images.shape[:3], bool) if inside is None else inside
        inside = jnp.pad(inside, missing)
    return jnp.pad(images, (*missing, (0, 0))), inside


def _in_blocks(inside: jax.Array) -> jax.Array:
    """[B, H, W] -> [B, H / 2, W / 2, 4, 1], in the order of `FirstConv`."""
    batch, height, width = inside.shape
    blocks = inside.reshape(batch, height // 2, 2, width // 2, 2)
    return blocks.swapaxes(2, 3).reshape(batch, height // 2, width // 2, 4, 1)


def _pool_blocks(x: jax.Array) -> jax.Array:
    """Largest of every 3 x 3 window, two apart, of what `FirstConv` makes: [B, H, W, 4, C] ->
    [B, H, W, C]. The last windows are those two rows or columns wide that there are."""
    pairs = jnp.maximum(x[..., 0, :], x[..., 1, :]), jnp.maximum(x[..., 2, :], x[..., 3, :])
    first = lax.pad(x, np.array(LOW, x.dtype), ((0, 0, 0), (0, 1, 0), (0, 1, 0), *[(0, 0, 0)] * 2))
    upper = jnp.maximum(pairs[0], first[:, :-1, 1:, 0])  # row 2 i, columns 2 j .. 2 j + 2
    lower = jnp.maximum(pairs[1], first[:, :-1, 1:, 2])
    below = jnp.maximum(
        jnp.maximum(first[:, 1:, :-1, 0], first[:, 1:, :-1, 1]), first[:, 1:, 1:, 0]
    )
    return jnp.maximum(jnp.maximum(upper, lower), below)


def _pool(x: jax.Array, size: int) -> jax.Array:
    """Largest of every whole size x size window, two apart: a maximum of shifted slices, which the
    CPU is faster at than at windows."""
    rows, columns = (n - size + 1 for n in x.shape[1:3])
    largest = None
    for i in range(size):
        for j in range(size):
            entry = x[:, i : i + rows : STRIDE, j : j + columns : STRIDE]
            largest = entry if largest is None else jnp.maximum(largest, entry)
    assert largest is not None
    return largest


def _flatten(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, W * H * C]: these weights count columns first."""
    return x.swapaxes(1, 2).reshape(x.shape[0], -1)


def _probability(logits: jax.Array) -> jax.Array:
    """Of the second of two classes, [...]."""
    return nn.softmax(logits, axis=-1)[..., 1]
