"""Convolution, pooling and bias in forms that XLA compiles to fast code for a CPU.

The values are those of XLA's own operations; the gradients are written out, because the ones that
XLA derives leave its fast paths. Each form says what XLA would do instead.

Layouts: images [B, H, W, C], kernels [height, width, C in, C out].
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.models import native
from research.models.native import Pads
from research.runtime import sharding

NO_PADS: Pads = ((0, 0), (0, 0))

# Convolutions that make up the gradient of a kernel, of 128 / 16 images each at the batch sizes of
# the configs. Measured on two cores with 1, 4, 16, 64 and 128 of them: one for all images has a
# kernel too large for a core's cache, one for each image is all overhead; both take twice the time.
_GROUPS = 16
# Below this, patches are small, and one matrix product over copies of them is faster than a
# convolution in which so few channels take the place of the batch.
_FEW_CHANNELS = 4


def correlate(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """XLA's own convolution with stride 1, [B, H', W', C out], of any device."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (1, 1), pads, dimension_numbers=dimensions)


def pad(images: jax.Array, pads: Pads) -> jax.Array:
    """Zeros around the images or lanes; where a number is negative, rows or columns cut off."""
    zero, none = jnp.zeros((), images.dtype), (0, 0, 0)
    rest = [none] * (images.ndim - 3)
    return lax.pad(images, zero, (none, *((a, b, 0) for a, b in pads), *rest))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolution with stride 1 of images with zeros around them, [B, H', W', C out].

    images: [B, H, W, C in].  kernel: [height, width, C in, C out].
    """
    if native.fit_values(images, kernel.shape):
        return native.convolve(images, kernel, pads)
    # Padding inside a convolution is slower than padding before it.
    return correlate(pad(images, pads), kernel, NO_PADS)


def _conv_forward(
    images: jax.Array, kernel: jax.Array, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(images, kernel, pads), (images, kernel)


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
        native.kernel_gradient(images, cotangent, kernel.shape, pads)
        if native.fit(images, kernel.shape)
        else of_kernel(pad(images, pads), cotangent, kernel.shape),
    )


_ = conv2d.defvjp(_conv_forward, _conv_backward)


def _image_gradient(cotangent: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """[B, H, W, C in]: the convolution of the padded cotangent with the turned kernel."""
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    (top, bottom), (left, right) = pads
    height, width = (size - 1 for size in kernel.shape[:2])
    around = ((height - top, height - bottom), (width - left, width - right))
    return conv2d(cotangent, turned, around)


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
            shifted = pad(entries[:, :, :, i, j], (rows, columns))
            total = shifted if total is None else total + shifted
    assert total is not None
    return total


def _kernel_gradient(images: jax.Array, cotangent: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[height, width, C in, C out] from padded images: channels take the place of the batch.

    Inside a scan, XLA computes the gradient that it derives in a naive loop, one to two orders of
    magnitude slower (github.com/jax-ml/jax/issues/12868). Written as plain convolutions, of the
    transposed images with the transposed cotangent, it meets the fast path again.
    """
    batch = images.shape[0]
    size = -(-batch // _GROUPS)

    def of_group(images: jax.Array, cotangent: jax.Array) -> jax.Array:
        return correlate(images.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), NO_PADS)

    def add_group(number: jax.Array, total: jax.Array) -> jax.Array:
        group = (lax.dynamic_slice_in_dim(x, number * size, size) for x in (images, cotangent))
        return total + of_group(*group)

    total, done = of_group(images[:size], cotangent[:size]), size
    if sharding.sharing() == 1:
        # As fast as the groups written out, and compiled in a third of the time. Where devices
        # share the batch, each of them would run the loop over all of it.
        total = lax.fori_loop(1, batch // size, add_group, total)
        done = batch // size * size
    for first in range(done, batch, size):
        part = slice(first, first + size)
        total = total + of_group(images[part], cotangent[part])
    return total.transpose(1, 2, 0, 3).reshape(shape)


def _kernel_gradient_of_few(
    images: jax.Array, cotangent: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """The same for few input channels: a product of all patches with the cotangent."""
    height, width, channels, filters = shape
    count = height * width * channels
    # A convolution that copies: the fast way to cut patches [B, H', W', count].
    copy = jnp.eye(count, dtype=images.dtype).reshape(height, width, channels, count)
    patches = correlate(images, copy, NO_PADS).reshape(-1, count)
    product = lax.dot_general(patches, cotangent.reshape(-1, filters), (((0,), (0,)), ((), ())))
    return product.reshape(shape)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(images: jax.Array, size: int) -> jax.Array:
    """Largest value of every size x size window of images or lanes whose sides `size` divides.

    The gradient that XLA derives for `reduce_window` scatters one by one. Here the pool remembers
    which entry was the largest, the first of several, and the gradient selects.
    """
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


_ = max_pool.defvjp(_pool_forward, _pool_backward)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., C] + bias [C]."""
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return add_bias(x, bias), None


def _add_bias_backward(_: None, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    # A sum over all rows is one that XLA cuts into windows; a product with ones is not.
    rows = cotangent.reshape(-1, cotangent.shape[-1])
    ones = jnp.ones((1, rows.shape[0]), rows.dtype)
    total = lax.dot_general(
        ones, rows, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return cotangent, total.reshape(-1).astype(cotangent.dtype)


_ = add_bias.defvjp(_add_bias_forward, _add_bias_backward)
