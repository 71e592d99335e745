"""What the gradients of every layer look like, measured inside the training step.

The report (Part C) plots a "max gradient" of every layer without saying which: absolute or signed,
of the kernel or of kernel and bias, over the epoch or of its last batch. All readings are taken.

Magnitudes are compared as integers: the bits of |x| order like |x|, so nothing underflows (no
squares), a NaN comes out on top, and XLA on the CPU vectorises integer maxima where it does not
vectorise those of floats.
"""

from collections.abc import Callable, Mapping, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from research.types import Array, PyTree

REDUCTIONS = ("max", "mean", "last")
STATISTICS = ("kernel_abs", "kernel_signed", "layer_abs", "layer_signed", "signal_abs")

_MAGNITUDE = np.int32(0x7FFFFFFF)


def layer_statistics(
    gradients: Mapping[str, Mapping[str, Array]],
    signals: Mapping[str, Array],
    layers: Sequence[str],
) -> dict[str, Array]:
    """Largest gradient entries of every layer, for one batch.

    gradients: {layer: {kernel [in, out], bias [out]}}, of the mean loss of the batch.
    signals: {layer: [B, out]}, gradient of the same loss at each layer's pre-activation.
    Returns {statistic: [L] float32}, layers in the order given: `kernel_abs` max |dL/dW|,
    `kernel_signed` max dL/dW, `layer_abs` and `layer_signed` the same over kernel and bias,
    `signal_abs` max |dL/dz| over batch and units.  Source: report, Part C.
    Raises KeyError if a layer has no entry.
    """
    kernels = [gradients[layer]["kernel"] for layer in layers]
    biases = [gradients[layer]["bias"] for layer in layers]
    (kernel_abs, kernel_signed), (bias_abs, bias_signed) = map(extremes, (kernels, biases))
    return {
        "kernel_abs": kernel_abs,
        "kernel_signed": kernel_signed,
        "layer_abs": jnp.maximum(kernel_abs, bias_abs),
        "layer_signed": jnp.maximum(kernel_signed, bias_signed),
        "signal_abs": largest([signals[layer] for layer in layers]),
    }


def largest(arrays: Sequence[Array]) -> jax.Array:
    """Largest |x| of each of L arrays [...] float32: [L] float32; NaN is larger than infinity."""
    return _float(_largest_code(arrays, lambda x: _bits(x) & _MAGNITUDE))


def extremes(arrays: Sequence[Array]) -> tuple[jax.Array, jax.Array]:
    """Largest |x| and largest x of each of L arrays [...] float32: two of [L] float32.

    From the largest and the smallest x, which is less work than a pass for each.  NaN is larger
    than infinity (as a signed x only if its sign bit is not set).
    """
    high = _flip_negative(_largest_code(arrays, _ordered))
    low = _flip_negative(~_largest_code(arrays, lambda x: ~_ordered(x)))
    return _float(jnp.maximum(high & _MAGNITUDE, low & _MAGNITUDE)), _float(high)


def over_epoch(statistics: Mapping[str, Array]) -> dict[str, Array]:
    """Reduce {statistic: [T, ...]} over the steps of an epoch: {statistic_max, _mean, _last}."""
    reduced: dict[str, Array] = {}
    for name, values in statistics.items():
        reduced[f"{name}_max"] = jnp.max(values, axis=0)
        reduced[f"{name}_mean"] = jnp.mean(values, axis=0)
        reduced[f"{name}_last"] = values[-1]
    return reduced


def layer_of_first_nonfinite(outputs: Mapping[str, PyTree], layers: Sequence[str]) -> str | None:
    """First layer, in the order given, with a NaN or infinity in {layer: tree}; else None."""
    for layer in layers:
        if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(outputs[layer])):
            return layer
    return None


def _largest_code(arrays: Sequence[Array], encode: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Largest int32 code of each of L arrays [...] float32: [L].

    Arrays of one shape are stacked and reduced together, to keep the step short of small
    operations.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, array in enumerate(arrays):
        chex.assert_type(array, jnp.float32)
        by_shape.setdefault(array.shape, []).append(position)
    found = [
        _max_of_each(encode(jnp.stack([jnp.asarray(arrays[i]) for i in positions])))
        for positions in by_shape.values()
    ]
    return jnp.concatenate(found)[np.argsort(np.concatenate(list(by_shape.values())))]


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _float(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _ordered(x: jax.Array) -> jax.Array:
    """int32 codes that order as the floats do."""
    return _flip_negative(_bits(x))


def _flip_negative(bits: jax.Array) -> jax.Array:
    """Bits of floats to int32 codes that order as the floats do, and back: its own inverse."""
    return bits ^ ((bits >> 31) & _MAGNITUDE)


def _max_of_each(codes: jax.Array) -> jax.Array:
    """Maximum over all but the first axis of [L, ...] int32.

    The rows are folded until one is left, the middle one onto itself where their number is odd:
    elementwise work that vectorises, where a full reduction to a scalar does not on the CPU.
    """
    if codes.ndim > 2:
        rows = codes.shape[1]
        while rows > 1:
            kept = -(-rows // 2)
            codes = jnp.maximum(codes[:, :kept], codes[:, rows - kept :])
            rows = kept
    return jnp.max(codes.reshape(codes.shape[0], -1), axis=1)
