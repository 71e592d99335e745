"""Convolution, pooling and bias, fast on a CPU as well; the nets are built of these three.

On GPU and TPU they are XLA's own operations. On the CPU the same values come from other forms,
because XLA leaves its fast paths where training needs them (`python -m benchmarks.layers_cnn` has
the figures):

- The gradient of a filter, inside a scan, falls to a naive loop
  (github.com/jax-ml/jax/issues/12868). Here it is itself a plain convolution, of the transposed
  images with the transposed cotangent, in a few groups of images that use several cores.
- Padding inside a convolution is slower than padding before it.
- The gradient of `reduce_window` scatters one by one; here the pool remembers which entry was the
  largest and the gradient selects.
- The gradient of a bias is a sum over all rows that XLA cuts into windows; here it is a product
  with a vector of ones.
- Large images with few channels leave the vector registers half empty, and the library spends its
  time on copying patches. Batches of them are laid out in lanes, the same pixel and channel of
  sixteen images side by side, and the sums are written out as products of whole lanes
  (`python -m benchmarks.masks_net`).

Layouts: images [B, H, W, C], kernels [height, width, C in, C out], lanes [B / 16, H, W, C, 16].
"""

import operator
from functools import partial, reduce

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PADDINGS = ("valid", "same")
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_GROUPS = 16  # convolutions that make up the gradient of a filter
_FEW_CHANNELS = 4  # up to here the patches are small, and one product is faster
# Where lanes are faster: smaller images fit a core's cache as they are, and more terms would be
# more code than is worth its compilation.
_LANES = 16  # float32 numbers of the widest register; two of the next smaller
_LANE_PIXELS = 1600
_LANE_CHANNELS = 10
_LANE_TERMS = 100  # height * width * C in of a kernel
_REGISTERS = 28  # of 32, that hold pixels while the gradient of a kernel is summed

Pads = tuple[tuple[int, int], tuple[int, int]]


def conv2d(images: jax.Array, kernel: jax.Array, *, padding: str) -> jax.Array:
    """Cross-correlation with stride 1, [B, H', W', C out]; what deep learning calls convolution.

    images: [B, H, W, C in].  kernel: [height, width, C in, C out], of the dtype of images.
    padding: "valid", H' = H - height + 1, or "same", H' = H with zeros around, as in Keras.
    """
    chex.assert_rank([images, kernel], 4)
    pads = pads_of(kernel.shape[0], kernel.shape[1], padding)
    if not on_cpu():
        return _correlate(images, kernel, pads)
    if _fit_lanes(images, kernel.shape):
        return _from_lanes(_conv_lanes(_to_lanes(images), kernel, pads))
    return _conv_fast(images, kernel, pads)


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
    if _fit_lanes(images):
        return _from_lanes(_pool_fast(_to_lanes(images), size))
    if on_cpu():
        return _pool_fast(images, size)
    windows = (1, size, size, 1)
    return lax.reduce_window(
        images, np.array(-np.inf, images.dtype), lax.max, windows, windows, "VALID"
    )


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., C] + bias [C]."""
    if _fit_lanes(x):
        return _from_lanes(_add_bias_lanes(_to_lanes(x), bias))
    return _add_bias_fast(x, bias) if on_cpu() else x + _to_rank(bias, x.ndim)


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


def _correlate(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return lax.conv_general_dilated(images, kernel, (1, 1), pads, dimension_numbers=_DIMENSIONS)


def _pad(images: jax.Array, pads: Pads) -> jax.Array:
    """Zeros around the images or lanes; where a number is negative, rows or columns cut off."""
    zero, none = jnp.zeros((), images.dtype), (0, 0, 0)
    rest = [none] * (images.ndim - 3)
    return lax.pad(images, zero, (none, *((a, b, 0) for a, b in pads), *rest))


_NONE: Pads = ((0, 0), (0, 0))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_fast(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return _correlate(_pad(images, pads), kernel, _NONE)


def _conv_forward(
    images: jax.Array, kernel: jax.Array, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv_fast(images, kernel, pads), (images, kernel)


def _conv_backward(
    pads: Pads, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of the images and of the kernel; what is not asked for is never computed."""
    images, kernel = saved
    few = kernel.shape[2] < _FEW_CHANNELS
    of_images = _image_gradient_of_few if few else _image_gradient
    of_kernel = _kernel_gradient_of_few if few else _kernel_gradient
    return (
        of_images(cotangent, kernel, pads),
        of_kernel(_pad(images, pads), cotangent, kernel.shape),
    )


_ = _conv_fast.defvjp(_conv_forward, _conv_backward)


def _image_gradient(cotangent: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """[B, H, W, C in]: the convolution of the padded cotangent with the turned kernel."""
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    (top, bottom), (left, right) = pads
    height, width = (size - 1 for size in kernel.shape[:2])
    around = ((height - top, height - bottom), (width - left, width - right))
    return _correlate(_pad(cotangent, around), turned, _NONE)


def _image_gradient_of_few(cotangent: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """The same for few input channels: one product, then a shift for each entry of the kernel."""
    height, width, channels, filters = kernel.shape
    flat = kernel.transpose(3, 0, 1, 2).reshape(filters, -1)
    product = cotangent.reshape(-1, filters) @ flat
    entries = product.reshape(*cotangent.shape[:3], height, width, channels)
    (top, bottom), (left, right) = pads
    total = None
    for i in range(height):
        for j in range(width):
            rows, columns = (i - top, height - 1 - i - bottom), (j - left, width - 1 - j - right)
            shifted = _pad(entries[:, :, :, i, j], (rows, columns))
            total = shifted if total is None else total + shifted
    assert total is not None
    return total


def _kernel_gradient(images: jax.Array, cotangent: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[height, width, C in, C out] from padded images: channels take the place of the batch."""
    batch = images.shape[0]
    size = -(-batch // _GROUPS)
    total = None
    for first in range(0, batch, size):
        part = slice(first, first + size)
        of_channels = images[part].transpose(3, 1, 2, 0)
        as_kernel = cotangent[part].transpose(1, 2, 0, 3)
        found = _correlate(of_channels, as_kernel, _NONE)
        total = found if total is None else total + found
    assert total is not None
    return total.transpose(1, 2, 0, 3).reshape(shape)


def _kernel_gradient_of_few(
    images: jax.Array, cotangent: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """The same for few input channels: a product of all patches with the cotangent."""
    height, width, channels, filters = shape
    count = height * width * channels
    # A convolution that copies: the fast way to cut patches [B, H', W', count].
    copy = jnp.eye(count, dtype=images.dtype).reshape(height, width, channels, count)
    patches = _correlate(images, copy, _NONE).reshape(-1, count)
    product = lax.dot_general(patches, cotangent.reshape(-1, filters), (((0,), (0,)), ((), ())))
    return product.reshape(shape)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool_fast(images: jax.Array, size: int) -> jax.Array:
    return _pool_forward(images, size)[0]


def _pool_forward(images: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Largest values, and which of the size * size entries of its window each one is."""
    entries = [images[:, i::size, j::size] for i in range(size) for j in range(size)]
    largest, which = entries[0], jnp.zeros(entries[0].shape, _index_dtype(size))
    for position, entry in enumerate(entries[1:], start=1):
        larger = entry > largest
        which = jnp.where(larger, which.dtype.type(position), which)
        largest = jnp.maximum(largest, entry)
    return largest, which


def _pool_backward(size: int, which: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    batch, height, width, *rest = cotangent.shape
    position = jnp.arange(size * size, dtype=which.dtype)
    chosen = which[:, :, None, :, None] == position.reshape(1, 1, size, 1, size, *[1] * len(rest))
    spread = jnp.where(chosen, cotangent[:, :, None, :, None], jnp.zeros((), cotangent.dtype))
    return (spread.reshape(batch, height * size, width * size, *rest),)


def _index_dtype(size: int) -> type[np.int8] | type[np.int32]:
    """The type that counts the entries of a window; a short one costs less memory."""
    return np.int8 if size * size <= np.iinfo(np.int8).max else np.int32


_ = _pool_fast.defvjp(_pool_forward, _pool_backward)


@jax.custom_vjp
def _add_bias_fast(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + _to_rank(bias, x.ndim)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return _add_bias_fast(x, bias), None


def _add_bias_backward(_: None, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows = cotangent.reshape(-1, cotangent.shape[-1])
    ones = jnp.ones((1, rows.shape[0]), rows.dtype)
    total = lax.dot_general(
        ones, rows, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return cotangent, total.reshape(-1).astype(cotangent.dtype)


_ = _add_bias_fast.defvjp(_add_bias_forward, _add_bias_backward)


def _to_rank(bias: jax.Array, rank: int) -> jax.Array:
    return bias.reshape((1,) * (rank - 1) + bias.shape)


def _fit_lanes(images: jax.Array, kernel: tuple[int, ...] | None = None) -> bool:
    """Whether images are laid out in lanes, for their convolution with a kernel or as they are."""
    batch, height, width, channels = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    most = max(channels, kernel[3] if kernel else 0)
    terms = kernel[0] * kernel[1] * kernel[2] if kernel else 0
    return (
        on_cpu()
        and images.dtype in (jnp.float32, jnp.float64)
        and batch > 0
        and batch % _LANES == 0
        and height * width >= _LANE_PIXELS
        and most <= _LANE_CHANNELS
        and terms <= _LANE_TERMS
    )


def _to_lanes(images: jax.Array) -> jax.Array:
    """[B / 16, H, W, C, 16]; between two layers XLA cancels it with the way back."""
    batch, *shape = images.shape
    return images.reshape(batch // _LANES, _LANES, *shape).transpose(0, 2, 3, 4, 1)


def _from_lanes(lanes: jax.Array) -> jax.Array:
    groups, *shape, _ = lanes.shape
    return lanes.transpose(0, 4, 1, 2, 3).reshape(groups * _LANES, *shape)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_lanes(lanes: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return _correlate_lanes(_pad(lanes, pads), kernel)


def _conv_lanes_forward(
    lanes: jax.Array, kernel: jax.Array, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv_lanes(lanes, kernel, pads), (lanes, kernel)


def _conv_lanes_backward(
    pads: Pads, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The two gradients read the same cotangent, with zeros around it."""
    lanes, kernel = saved
    high, wide = kernel.shape[0] - 1, kernel.shape[1] - 1
    around = _pad(cotangent, ((high, high), (wide, wide)))
    of_padded = _correlate_lanes(around, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    (top, bottom), (left, right) = pads
    return (
        _pad(of_padded, ((-top, -bottom), (-left, -right))),
        _kernel_gradient_lanes(_pad(lanes, pads), around, kernel.shape),
    )


_ = _conv_lanes.defvjp(_conv_lanes_forward, _conv_lanes_backward)


def _correlate_lanes(lanes: jax.Array, kernel: jax.Array) -> jax.Array:
    """[G, H', W', C out, 16], all terms of a value in one sum.

    XLA does not fuse across a branch, and that is why there is one: fused with what reads them, a
    pool or zeros around, the sums would be taken again for every reader. The other branch takes the
    same terms one by one.
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


def _kernel_gradient_lanes(
    lanes: jax.Array, around: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """[height, width, C in, C out] from padded lanes and the cotangent with zeros around it.

    One row of pixels at a time, in blocks of columns whose pixels stay in registers while they meet
    all filters in as many rows of the cotangent as the kernel has; each block sums by itself.
    """
    groups, rows, width, channels, _ = lanes.shape
    high, wide, _, filters = shape
    together = 2 if groups % 2 == 0 else 1
    size = _block_size(width, _REGISTERS // together)
    lanes, around = (_pad(x, ((0, 0), (0, -width % size))) for x in (lanes, around))
    blocks = -(-width // size)
    sums = (blocks, high, channels, filters, _LANES)

    def every(x: jax.Array, group: jax.Array, row: jax.Array, column: int, count: int) -> jax.Array:
        """One column of every block, in `count` rows: [blocks, count, channels, 16]."""
        length = (blocks - 1) * size + 1
        found = lax.dynamic_slice(
            x, (group, row, column, 0, 0), (1, count, length, x.shape[3], _LANES)
        )
        return found[0, :, ::size].swapaxes(0, 1)

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
def _add_bias_lanes(lanes: jax.Array, bias: jax.Array) -> jax.Array:
    return lanes + bias.reshape(1, 1, 1, -1, 1)


def _add_bias_lanes_forward(lanes: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return _add_bias_lanes(lanes, bias), None


def _add_bias_lanes_backward(_: None, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Some rows at a time: a sum over all of them at once would be taken number by number."""
    height = cotangent.shape[1]
    rows = next(rows for rows in range(16, 0, -1) if height % rows == 0)

    def add(total: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        some = [lax.dynamic_slice_in_dim(cotangent, first + row, 1, 1) for row in range(rows)]
        return total + reduce(operator.add, some), None

    total, _ = lax.scan(add, jnp.zeros_like(cotangent[:, :1]), jnp.arange(0, height, rows))
    return cotangent, total.sum((0, 1, 2, 4))


_ = _add_bias_lanes.defvjp(_add_bias_lanes_forward, _add_bias_lanes_backward)
