"""The convolutional nets: those of the report (Exercises 2 and 3), and a residual net."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.models import conv
from research.structs import UserError

GLOROT = nn.initializers.glorot_uniform()  # the Keras default that the report ran on
HEADS = ("softmax", "sigmoid")
HE = nn.initializers.he_normal()


class Conv(nn.Module):
    """Convolution, then the largest of every window, then the bias: [B, H', W', filters].

    Bias and ReLU commute with the pool to the bit, and cost a quarter after it.
    Parameters: kernel [size, size, C in, filters], bias [filters].
    """

    filters: int
    padding: str
    pool: int = 1
    size: int = 3
    kernel_init: jax.nn.initializers.Initializer = GLOROT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.filters)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.filters,), jnp.float32)
        z = conv.conv2d(x, kernel.astype(x.dtype), padding=self.padding)
        return conv.add_bias(conv.max_pool(z, self.pool), bias.astype(x.dtype))


class Dense(nn.Module):
    """x W + b, [B, units].  Parameters: kernel [in, units], bias [units]."""

    units: int
    kernel_init: jax.nn.initializers.Initializer = GLOROT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.units)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.units,), jnp.float32)
        return conv.add_bias(x @ kernel.astype(x.dtype), bias.astype(x.dtype))


class Dropout(nn.Module):
    """Sets a share `rate` of the units to 0 and scales the others by 1 / (1 - rate).

    Drawn from 8 random bits a unit where they meet the rate exactly (0.25 is 64 of 256), else from
    16, which meet it within 2**-17; flax.linen.Dropout takes 32, which a CPU is slow to draw.
    Randomness: the key of the collection `dropout`, given with train=True.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not train or self.rate == 0.0:
            return x
        dtype = np.uint8 if (self.rate * 2**8).is_integer() else np.uint16
        largest = int(np.iinfo(dtype).max)
        dropped = min(round(self.rate * (largest + 1)), largest)
        kept = _random_bits(self.make_rng("dropout"), x.shape, dtype) >= dtype(dropped)
        scale = jnp.asarray(1.0 / (1.0 - self.rate), x.dtype)
        return jnp.where(kept, x * scale, jnp.zeros((), x.dtype))


def _random_bits(
    key: jax.Array, shape: tuple[int, ...], dtype: type[np.uint8] | type[np.uint16]
) -> jax.Array:
    """Random integers of a short type, cut out of words of 32 bits.

    `jax.random.bits` spends a whole word on each.
    """
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count * dtype(0).nbytes // 4),), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, dtype).reshape(-1)[:count].reshape(shape)


class CNN(nn.Module):
    """Logits [B, classes] float32 of images [B, H, W, C] float32 in [0, 1].

    Convolutions of 3 x 3 with ReLU, each followed by its pool (1 for none) and its dropout (0 for
    none); then dense layers with ReLU, each followed by its dropout; then the output layer.
    head: "softmax", or "sigmoid" for output units that are each a sigmoid p. The logits are log p
    then, so that a softmax of them is p / sum(p), which is what Keras makes of such outputs in its
    categorical cross-entropy.
    Source: report, Exercises 2 and 3.
    Raises UserError if lengths differ, the padding or the head is unknown, a size is not positive
    or a rate is not in [0, 1).
    """

    filters: Sequence[int]
    pools: Sequence[int]
    dropouts: Sequence[float]
    dense: Sequence[int]
    dense_dropouts: Sequence[float]
    padding: str = "valid"
    head: str = "softmax"
    classes: int = 10
    dtype: jax.typing.DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        _check_lengths("filters", self.filters, pools=self.pools, dropouts=self.dropouts)
        _check_lengths("dense", self.dense, dense_dropouts=self.dense_dropouts)
        if self.padding not in conv.PADDINGS:
            raise UserError(f"padding: {self.padding!r} is not one of {', '.join(conv.PADDINGS)}")
        if self.head not in HEADS:
            raise UserError(f"head: {self.head!r} is not one of {', '.join(HEADS)}")
        for key in ("filters", "pools", "dense"):
            if any(size < 1 for size in getattr(self, key)):
                raise UserError(f"{key}: {getattr(self, key)} has a number below 1")
        for key in ("dropouts", "dense_dropouts"):
            if not all(0.0 <= rate < 1.0 for rate in getattr(self, key)):
                raise UserError(f"{key}: {getattr(self, key)} has a rate outside [0, 1)")
        super().__post_init__()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers with parameters, first to last."""
        convs = (f"conv_{i}" for i in range(len(self.filters)))
        return (*convs, *(f"dense_{i}" for i in range(len(self.dense))), "output")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = images.astype(self.dtype)
        stages = zip(self.filters, self.pools, self.dropouts, strict=True)
        for i, (filters, pool, rate) in enumerate(stages):
            least = pool + (2 if self.padding == "valid" else 0)
            remedy = "take fewer layers, smaller pools or padding 'same'"
            _check_size("filters, pools", f"conv_{i}", x, least, remedy)
            x = nn.relu(Conv(filters, self.padding, pool, name=f"conv_{i}")(x))
            x = Dropout(rate)(x, train=train)
        x = x.reshape(x.shape[0], -1)
        for i, (units, rate) in enumerate(zip(self.dense, self.dense_dropouts, strict=True)):
            x = nn.relu(Dense(units, name=f"dense_{i}")(x))
            x = Dropout(rate)(x, train=train)
        logits = Dense(self.classes, name="output")(x).astype(jnp.float32)
        return jax.nn.log_sigmoid(logits) if self.head == "sigmoid" else logits


class Norm(nn.Module):
    """Group normalisation (Wu & He 2018) with scale and offset; no image sees another."""

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.GroupNorm(num_groups=self.groups, dtype=x.dtype)(x)


class ResNet(nn.Module):
    """Logits [B, classes] float32 of images [B, H, W, C] float32 in [0, 1].

    A stem, then for every further width a convolution with a pool of 2 and, where `residual` says
    so, a block of two convolutions around which the input passes by; group normalisation and ReLU
    after every convolution; the largest value of every channel; the output layer, scaled.
    The images are brought to mean 0 and std 1 inside, by `mean` and `std` [C].
    shrink: before anything else, squares of so many pixels by so many are averaged into one.
    After D. Page, "How to train your ResNet" (2018, the net of DAWNBench), with group instead of
    batch normalisation, so that the images of a batch never influence one another.
    Raises UserError if lengths differ, a width is not a multiple of 8, or a std not positive.
    """

    widths: Sequence[int]
    residual: Sequence[bool]
    mean: Sequence[float]
    std: Sequence[float]
    shrink: int = 1
    classes: int = 10
    dtype: jax.typing.DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        _check_lengths("widths", self.widths, residual=self.residual)
        if self.shrink < 1:
            raise UserError(f"shrink: {self.shrink} is below 1")
        if any(width % 8 or width < 8 for width in self.widths):
            raise UserError(f"widths: {self.widths} has a number that is not a multiple of 8")
        if not all(value > 0 for value in self.std):
            raise UserError(f"std: {self.std} has a number that is not positive")
        super().__post_init__()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers with parameters that are convolutions or dense, first to last."""
        names: list[str] = []
        for i, residual in enumerate(self.residual):
            names += [f"conv_{i}", *([f"block_{i}_a", f"block_{i}_b"] if residual else [])]
        return (*names, "output")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # nothing here is random
        for key in ("mean", "std"):
            _check_channels(key, getattr(self, key), images.shape[-1])
        if self.shrink > 1:
            images = _shrunk(images, self.shrink)
        mean, std = (jnp.asarray(v, jnp.float32) for v in (self.mean, self.std))
        x = (images - mean.reshape(1, 1, 1, -1)) / std.reshape(1, 1, 1, -1)
        x = x.astype(self.dtype)
        for i, (width, residual) in enumerate(zip(self.widths, self.residual, strict=True)):
            _check_size("widths", f"conv_{i}", x, 2 if i else 1, "take fewer")
            x = self.layer(f"conv_{i}", width, x, pool=2 if i else 1)
            if residual:
                y = self.layer(f"block_{i}_a", width, x)
                x = x + self.layer(f"block_{i}_b", width, y)
        x = jnp.max(x, axis=(1, 2))
        return 0.125 * Dense(self.classes, kernel_init=HE, name="output")(x).astype(jnp.float32)

    def layer(self, name: str, width: int, x: jax.Array, *, pool: int = 1) -> jax.Array:
        """Convolution, pool, normalisation, ReLU."""
        z = Conv(width, "same", pool, kernel_init=HE, name=name)(x)
        return nn.relu(Norm(width // 8, name=f"{name}_norm")(z))


def _shrunk(images: jax.Array, side: int) -> jax.Array:
    """The means of squares [B, H // side, W // side, C]; what does not fill one is left out."""
    batch, height, width, channels = images.shape
    rows, columns = height // side, width // side
    cut = images[:, : rows * side, : columns * side]
    return cut.reshape(batch, rows, side, columns, side, channels).mean((2, 4))


def _check_size(key: str, layer: str, x: jax.Array, least: int, remedy: str) -> None:
    if min(x.shape[1:3]) < least:
        raise UserError(
            f"{key}: nothing is left of the image after layer {layer}, which gets "
            f"{x.shape[1]} x {x.shape[2]}; {remedy}"
        )


def _check_lengths(key: str, values: Sequence[object], **others: Sequence[object]) -> None:
    for name, other in others.items():
        if len(other) != len(values):
            raise UserError(
                f"{name}: {tuple(other)} has {len(other)} entries, expected one for each of the "
                f"{len(values)} {key}"
            )


def _check_channels(key: str, values: Sequence[float], channels: int) -> None:
    if len(values) != channels:
        raise UserError(
            f"{key}: {tuple(values)} has {len(values)} entries, expected {channels}, one for each "
            "channel of the images"
        )
