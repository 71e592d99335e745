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

Layouts: images [B, H, W, C], kernels [height, width, C in, C out].
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PADDINGS = ("valid", "same")
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_GROUPS = 16  # convolutions that make up the gradient of a filter
_FEW_CHANNELS = 4  # up to here the patches are small, and one product is faster

Pads = tuple[tuple[int, int], tuple[int, int]]


def conv2d(images: jax.Array, kernel: jax.Array, *, padding: str) -> jax.Array:
    """Cross-correlation with stride 1, [B, H', W', C out]; what deep learning calls convolution.

    images: [B, H, W, C in].  kernel: [height, width, C in, C out], of the dtype of images.
    padding: "valid", H' = H - height + 1, or "same", H' = H with zeros around, as in Keras.
    """
    chex.assert_rank([images, kernel], 4)
    pads = pads_of(kernel.shape[0], kernel.shape[1], padding)
    return _conv_fast(images, kernel, pads) if on_cpu() else _correlate(images, kernel, pads)


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
    if on_cpu():
        return _pool_fast(images, size)
    windows = (1, size, size, 1)
    return lax.reduce_window(
        images, np.array(-np.inf, images.dtype), lax.max, windows, windows, "VALID"
    )


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., C] + bias [C]."""
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
    """Zeros around the images, or rows and columns cut off where a number is negative."""
    zero = jnp.zeros((), images.dtype)
    return lax.pad(images, zero, ((0, 0, 0), *((a, b, 0) for a, b in pads), (0, 0, 0)))


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
    batch, height, width, channels = cotangent.shape
    position = jnp.arange(size * size, dtype=which.dtype).reshape(1, 1, size, 1, size, 1)
    chosen = which[:, :, None, :, None, :] == position
    spread = jnp.where(chosen, cotangent[:, :, None, :, None, :], jnp.zeros((), cotangent.dtype))
    return (spread.reshape(batch, height * size, width * size, channels),)


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
