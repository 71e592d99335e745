"""Convolution of large images with few channels on a CPU, in lanes of sixteen images.

An image of 198 x 198 pixels and 10 channels leaves vector registers half empty where the channels
lie innermost, and XLA's convolution spends its time on copying patches. Here the same pixel and
channel of sixteen images lie side by side, which fill a register of 16 float32 numbers, and a
convolution is written out as sums of products of whole lanes. A step of the face-mask net takes
two thirds of the time, and half with registers of 512 bits (`python -m benchmarks.masks_net`).

Layouts: images [B, H, W, C], kernels [height, width, C in, C out], lanes [B / 16, H, W, C, 16].
"""

import operator
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

from research.models.conv_cpu import Pads, pad

_LANES = 16  # float32 numbers of the widest register; two of the next smaller
# Where lanes are faster. Smaller images fit a core's cache as they are; more channels fill the
# registers by themselves; more terms would be more code than is worth its compilation.
_MIN_PIXELS = 1600
_MAX_CHANNELS = 10
_MAX_TERMS = 100  # height * width * C in of a kernel
# Of the 32 vector registers, those that hold pixels while the gradient of a kernel is summed; the
# others hold the cotangent and the sums.
_REGISTERS = 28


def fit(images: jax.Array, kernel: tuple[int, ...] | None = None) -> bool:
    """Whether lanes pay for images as they are, or in their convolution with a kernel."""
    batch, height, width, channels = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    most = max(channels, kernel[3] if kernel else 0)
    terms = kernel[0] * kernel[1] * kernel[2] if kernel else 0
    return (
        images.dtype in (jnp.float32, jnp.float64)
        and batch > 0
        and batch % _LANES == 0
        and height * width >= _MIN_PIXELS
        and most <= _MAX_CHANNELS
        and terms <= _MAX_TERMS
    )


def to_lanes(images: jax.Array) -> jax.Array:
    """[B / 16, H, W, C, 16]; between two layers XLA cancels it with the way back."""
    batch, *shape = images.shape
    return images.reshape(batch // _LANES, _LANES, *shape).transpose(0, 2, 3, 4, 1)


def from_lanes(lanes: jax.Array) -> jax.Array:
    """[B, H, W, C]."""
    groups, *shape, _ = lanes.shape
    return lanes.transpose(0, 4, 1, 2, 3).reshape(groups * _LANES, *shape)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(lanes: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolution with stride 1 of lanes with zeros around them, [B / 16, H', W', C out, 16].

    lanes: [B / 16, H, W, C in, 16].  kernel: [height, width, C in, C out].
    """
    return _correlate(pad(lanes, pads), kernel)


def _conv_forward(
    lanes: jax.Array, kernel: jax.Array, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(lanes, kernel, pads), (lanes, kernel)


def _conv_backward(
    pads: Pads, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The two gradients read the same cotangent, with zeros around it."""
    lanes, kernel = saved
    high, wide = kernel.shape[0] - 1, kernel.shape[1] - 1
    around = pad(cotangent, ((high, high), (wide, wide)))
    of_padded = _correlate(around, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    (top, bottom), (left, right) = pads
    return (
        pad(of_padded, ((-top, -bottom), (-left, -right))),
        _kernel_gradient(pad(lanes, pads), around, kernel.shape),
    )


_ = conv2d.defvjp(_conv_forward, _conv_backward)


def _correlate(lanes: jax.Array, kernel: jax.Array) -> jax.Array:
    """[G, H', W', C out, 16], all terms of a value in one sum.

    XLA does not fuse across a branch, and that is why there is one: fused with what reads them, a
    pool or zeros around, the sums would be taken again for every reader. The condition is false for
    every healthy kernel, which XLA cannot know while it compiles; the other branch takes the same
    terms one by one, in little code.
    """
    return lax.cond(jnp.isnan(kernel[0, 0, 0, 0]), _sum_one_by_one, _sum_at_once, lanes, kernel)


def _sum_at_once(lanes: jax.Array, kernel: jax.Array) -> jax.Array:
    groups, height, width, channels, _ = lanes.shape
    high, wide, _, filters = kernel.shape
    rows, columns = height - high + 1, width - wide + 1
    shape = (groups, rows, columns, filters, _LANES)

    def term(i: int, j: int, c: int) -> jax.Array:
        pixels = lax.slice(lanes, (0, i, j, c, 0), (groups, i + rows, j + columns, c + 1, _LANES))
        weights = kernel[i, j, c].reshape(1, 1, 1, filters, 1)
        return jnp.broadcast_to(pixels, shape) * jnp.broadcast_to(weights, shape)

    # A sum for every position of the kernel: one chain of all terms would wait for itself.
    parts = [
        reduce(operator.add, [term(i, j, c) for c in range(channels)])
        for i in range(high)
        for j in range(wide)
    ]
    return reduce(operator.add, parts)


def _sum_one_by_one(lanes: jax.Array, kernel: jax.Array) -> jax.Array:
    groups, height, width, channels, _ = lanes.shape
    high, wide, _, filters = kernel.shape
    size = (groups, height - high + 1, width - wide + 1)
    weights = kernel.reshape(-1, 1, 1, 1, filters, 1)

    def add(n: int, total: jax.Array) -> jax.Array:
        i, j, c = n // (wide * channels), n // channels % wide, n % channels
        return total + lax.dynamic_slice(lanes, (0, i, j, c, 0), (*size, 1, _LANES)) * weights[n]

    zeros = jnp.zeros((*size, filters, _LANES), lanes.dtype)
    return lax.fori_loop(0, len(weights), add, zeros)


def _kernel_gradient(lanes: jax.Array, around: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[height, width, C in, C out] from padded lanes and the cotangent with zeros around it.

    One row of pixels at a time, in blocks of columns whose pixels stay in registers while they meet
    all filters in as many rows of the cotangent as the kernel has; each block sums by itself.
    """
    groups, rows, width, channels, _ = lanes.shape
    high, wide, _, filters = shape
    together = 2 if groups % 2 == 0 else 1
    size = _block_size(width, _REGISTERS // together)
    lanes, around = (pad(x, ((0, 0), (0, -width % size))) for x in (lanes, around))
    blocks = -(-width // size)
    sums = (blocks, high, channels, filters, _LANES)

    def every(x: jax.Array, group: jax.Array, row: jax.Array, column: int, count: int) -> jax.Array:
        """One column of every block, in `count` rows: [blocks, count, channels, 16]."""
        length = (blocks - 1) * size + 1
        entries = lax.dynamic_slice(
            x, (group, row, column, 0, 0), (1, count, length, x.shape[3], _LANES)
        )
        return entries[0, :, ::size].swapaxes(0, 1)

    def add(totals: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        first, row = index // rows * together, index % rows

        def term(j: int, column: int, group: jax.Array) -> jax.Array:
            pixels = every(lanes, group, row, column, 1)[:, :, :, None]
            signals = every(around, group, row, column + j, high)[:, :, None]
            return jnp.broadcast_to(pixels, sums) * jnp.broadcast_to(signals, sums)

        pairs = [(column, first + g) for column in range(size) for g in range(together)]
        parts = [reduce(operator.add, [term(j, *pair) for pair in pairs]) for j in range(wide)]
        return [total + part for total, part in zip(totals, parts, strict=True)], None

    zeros = [jnp.zeros(sums, lanes.dtype)] * wide
    totals, _ = lax.scan(add, zeros, jnp.arange(groups // together * rows))
    # The rows of the cotangent come in the order opposite to that of the kernel's.
    return jnp.flip(jnp.stack([total.sum((0, 4)) for total in totals], axis=1), (0, 1))


def _block_size(width: int, most: int) -> int:
    """Columns of a block, half of `most` or more: fewest columns left over, then most columns."""
    return min(range(most, most // 2 - 1, -1), key=lambda size: -width % size)


@jax.custom_vjp
def add_bias(lanes: jax.Array, bias: jax.Array) -> jax.Array:
    """lanes [B / 16, H, W, C, 16] + bias [C]."""
    return lanes + bias.reshape(1, 1, 1, -1, 1)


def _bias_forward(lanes: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return add_bias(lanes, bias), None


def _bias_backward(_: None, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Some rows at a time: a sum over all of them at once would be taken number by number."""
    height = cotangent.shape[1]
    rows = next(rows for rows in range(16, 0, -1) if height % rows == 0)

    def add(total: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        some = [lax.dynamic_slice_in_dim(cotangent, first + row, 1, 1) for row in range(rows)]
        return total + reduce(operator.add, some), None

    total, _ = lax.scan(add, jnp.zeros_like(cotangent[:, :1]), jnp.arange(0, height, rows))
    return cotangent, total.sum((0, 1, 2, 4))


_ = add_bias.defvjp(_bias_forward, _bias_backward)
