"""What the gradients of every layer look like, measured inside the training step.

The report (Part C) plots a "max gradient" of every layer without saying which: absolute or signed,
of the kernel or of kernel and bias, over the epoch or of its last batch. All readings are taken.

Magnitudes are compared as integers: the bits of |x| order like |x|, so nothing underflows (no
squares), a NaN comes out on top, and XLA on the CPU vectorises integer maxima where it does not
vectorise those of floats.
"""

from collections.abc import Mapping, Sequence

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
    kernel_abs, kernel_signed = largest(kernels), largest(kernels, signed=True)
    return {
        "kernel_abs": kernel_abs,
        "kernel_signed": kernel_signed,
        "layer_abs": jnp.maximum(kernel_abs, largest(biases)),
        "layer_signed": jnp.maximum(kernel_signed, largest(biases, signed=True)),
        "signal_abs": largest([signals[layer] for layer in layers]),
    }


def largest(arrays: Sequence[Array], *, signed: bool = False) -> jax.Array:
    """Largest entry of each of L arrays [...] float32: [L] float32, of |x| unless `signed`.

    Arrays of one shape are stacked and reduced together, to keep the step short of small
    operations.  NaN counts as larger than any number (signed: a NaN whose sign bit is not set).
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, array in enumerate(arrays):
        chex.assert_type(array, jnp.float32)
        by_shape.setdefault(array.shape, []).append(position)
    found: list[jax.Array] = []
    for positions in by_shape.values():
        group = jnp.stack([jnp.asarray(arrays[i]) for i in positions])
        codes = _flip_negative(_bits(group)) if signed else _bits(group) & _MAGNITUDE
        found.append(_max_of_each(codes))
    code = jnp.concatenate(found)[np.argsort(np.concatenate(list(by_shape.values())))]
    return jax.lax.bitcast_convert_type(_flip_negative(code) if signed else code, jnp.float32)


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


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _flip_negative(bits: jax.Array) -> jax.Array:
    """Bits of floats to int32 codes that order as the floats do, and back: its own inverse."""
    return bits ^ ((bits >> 31) & _MAGNITUDE)


def _max_of_each(codes: jax.Array) -> jax.Array:
    """Maximum over all but the first axis of [L, ...] int32.

    The rows are halved until few lanes remain, which is elementwise work that vectorises; a full
    reduction to a scalar is not vectorised on the CPU.
    """
    if codes.ndim > 2:
        rows = codes.shape[1]
        while rows % 2 == 0:
            rows //= 2
            codes = jnp.maximum(codes[:, :rows], codes[:, rows:])
    return jnp.max(codes.reshape(codes.shape[0], -1), axis=1)
