"""CenterFace: one net, one pass; every fourth pixel says whether a face has its centre there.

Source: Y. Xu, W. Yan, H. Sun, G. Yang, J. Luo, "CenterFace: Joint Face Detection and Alignment
Using Face as Point", 2019, in the form of `centerface.onnx`, whose weights fit
(`research.faces.centerface_weights`): the blocks of MobileNetV2 with plain ReLUs, batch norms
folded into the convolutions, and a pyramid that goes back from 1/32 to 1/4 of the picture.

Pixels are bytes as float32, 0..255, in RGB, not normalised.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.models import conv

MULTIPLE = 32  # divides the sides of pictures
STRIDE = 4  # pixels between two outputs
# Filters, stride of the first and number of each group of blocks of MobileNetV2.
GROUPS = ((16, 1, 1), (24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3), (160, 2, 3), (320, 1, 1))
_STEM, _EXPANSION, _NECK = 32, 6, 24  # filters, or a factor of them
_TAKEN = (1, 2, 4, 6)  # the groups that the pyramid takes, at 1/4, 1/8, 1/16 and 1/32
HEADS = (1, 2, 2, 10)  # outputs: heat map, scale, offset, landmarks


class Conv(nn.Module):
    """Convolution and bias, [B, H / stride, W / stride, filters], zeros around.

    Parameters: kernel [size, size, C in, filters], bias [filters].
    """

    filters: int
    size: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.filters)
        kernel, bias = _parameters(self, shape, self.filters)
        if self.size == 1:
            return x @ kernel.reshape(shape[2:]) + bias
        x = lax.pad(x, np.float32(0), _around(self.size // 2))
        strides, dimensions = (self.stride,) * 2, ("NHWC", "HWIO", "NHWC")
        z = lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=dimensions)
        return z + bias


class Depthwise(nn.Module):
    """A 3 x 3 convolution of each channel by itself, and bias, [B, H / stride, W / stride, C].

    Parameters: kernel [3, 3, 1, C], bias [C].  On a CPU it is a sum of nine shifted products: XLA's
    grouped convolution takes a slow path there.
    """

    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        count, rows, columns, channels = x.shape
        kernel, bias = _parameters(self, (3, 3, 1, channels), channels)
        x = lax.pad(x, np.float32(0), _around(1))
        if not conv.on_cpu():
            strides, dimensions = (self.stride,) * 2, ("NHWC", "HWIO", "NHWC")
            z = lax.conv_general_dilated(
                *(x, kernel, strides, "VALID"),
                dimension_numbers=dimensions,
                feature_group_count=channels,
            )
            return z + bias
        x = lax.optimization_barrier(x)  # or every product pads for itself
        z = bias
        for i in range(3):
            for j in range(3):
                ends = (count, i + rows - self.stride + 1, j + columns - self.stride + 1, channels)
                shifted = lax.slice(x, (0, i, j, 0), ends, (1, self.stride, self.stride, 1))
                z = z + shifted * kernel[i, j].reshape(bias.shape)
        return z


class Upsample(nn.Module):
    """A transposed convolution with 2 x 2 kernels, two apart, and bias, [B, 2 H, 2 W, filters].

    Parameters: kernel [2, 2, C in, filters], bias [filters].  The kernels do not overlap, so it is
    one product of matrices.
    """

    filters: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        count, rows, columns, channels = x.shape
        kernel, bias = _parameters(self, (2, 2, channels, self.filters), self.filters)
        z = x @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
        z = z.reshape(count, rows, columns, 2, 2, self.filters).swapaxes(2, 3)
        return z.reshape(count, 2 * rows, 2 * columns, self.filters) + bias


class CenterFace(nn.Module):
    """Heat map, scale, offset and landmarks of pictures, each at the upper left of a canvas.

    images: [B, H, W, 3] float32, H and W multiples of 32.  sizes: [B, 2] int32, rows and columns of
    the picture on each canvas, multiples of 32.
    Returns [B, H / 4, W / 4, C] for C of HEADS: the probability that a face has its centre there, 0
    outside of the picture; logarithms of a face's height and width in units of 4 pixels; how far
    below and to the right of the place its centre is, in the same units; y and x of five landmarks
    from the upper left corner of its box, in units of its sides.

    Whatever a canvas holds outside of the picture, and however large it is, the outputs inside are
    those of the picture alone: where a 3 x 3 kernel would look out, it sees zeros.
    """

    @nn.compact
    def __call__(
        self, images: jax.Array, sizes: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        height = images.shape[1]

        def inside(x: jax.Array) -> jax.Array:
            """x, and zeros outside of the pictures."""
            ends = sizes // (height // x.shape[1])
            rows = jnp.arange(x.shape[1])[None] < ends[:, :1]  # [B, H]
            columns = jnp.arange(x.shape[2])[None] < ends[:, 1:]  # [B, W]
            return jnp.where((rows[:, :, None] & columns[:, None])[..., None], x, 0)

        x = nn.relu(Conv(_STEM, size=3, stride=2, name="expand_0")(inside(images)))
        taken, number = [], 0
        for i, (filters, first, repeats) in enumerate(GROUPS):
            for repeat in range(repeats):
                y = x
                if number:
                    expand = Conv(_EXPANSION * x.shape[-1], name=f"expand_{number}")
                    y = nn.relu(expand(x))
                stride = 1 if repeat else first
                y = nn.relu(Depthwise(stride, name=f"depthwise_{number}")(inside(y)))
                y = Conv(filters, name=f"project_{number}")(y)
                x = x + y if repeat else y
                number += 1
            if i in _TAKEN:
                taken.append(x)
        laterals = [
            nn.relu(Conv(_NECK, name=f"lateral_{i}")(level)) for i, level in enumerate(taken)
        ]
        x = laterals[3]
        for i in (2, 1, 0):
            x = nn.relu(Upsample(_NECK, name=f"upsample_{i}")(x)) + laterals[i]
        x = nn.relu(Conv(_NECK, size=3, name="smooth")(inside(x)))
        x = Conv(sum(HEADS), name="heads")(x)
        heat, scale, offset, landmarks = jnp.split(x, np.cumsum(HEADS)[:-1], axis=-1)
        return inside(nn.sigmoid(heat)), scale, offset, landmarks


def _parameters(
    module: nn.Module, shape: tuple[int, ...], filters: int
) -> tuple[jax.Array, jax.Array]:
    """Kernel, and bias as [1, 1, 1, filters]; zeros, because this net is loaded and not trained."""
    zeros = nn.initializers.zeros_init()
    kernel = module.param("kernel", zeros, shape, jnp.float32)
    return kernel, module.param("bias", zeros, (filters,), jnp.float32).reshape(1, 1, 1, -1)


def _around(count: int) -> tuple[tuple[int, int, int], ...]:
    """So many rows and columns before and after, as `lax.pad` wants it."""
    return (0, 0, 0), (count, count, 0), (count, count, 0), (0, 0, 0)
