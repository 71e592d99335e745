"""Gradients of every layer: the largest of every step, and more of the net after every epoch.

The report (Part C) plots a "max gradient" of every layer without saying which: absolute or signed,
of the kernel or of kernel and bias, over the epoch or of its last batch. All of them are recorded.

Floats are compared as integers. The bits of a float32, read as an int32 without the sign bit, order
as |x| does; of negative numbers the other bits are flipped, so that the signed values order too.
That is exact at any size, where squares would underflow; a NaN is larger than every number, so that
it is seen and not passed over; and XLA on the CPU vectorises integer maxima, which it does not do
with those of floats. `python -m benchmarks.probe` measures what all of it costs.
"""

from collections.abc import Callable, Mapping, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from research.models.conv import on_cpu
from research.structs import Array, PyTree

REDUCTIONS = ("max", "mean", "last")
STATISTICS = ("kernel_abs", "kernel_signed", "layer_abs", "layer_signed", "signal_abs")
# Of the net after an epoch, see `snapshot_statistics`.
SNAPSHOT = (
    "kernel_rms_batch", "kernel_abs_batch", "signal_rms_batch", "signal_abs_batch",
    "activation_variance", "dead_share", "saturated_share", "update_ratio",
)  # fmt: skip
DEAD, SATURATED = 1e-6, 0.05  # slopes below, of the largest that the activation has

_MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits but the sign


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
    # Signals are [B, out]: folded to one row each before they are stacked, there is B times less to
    # copy.  Magnitudes need one pass; `extremes` would take two for a smallest x that is not used.
    codes = [_bits(x) & _MAGNITUDE for x in arrays]
    rows = [_fold(c, 0)[0] if c.ndim > 1 else c for c in codes]
    return _float(_largest_codes(rows, lambda code: code))


def extremes(arrays: Sequence[Array]) -> tuple[jax.Array, jax.Array]:
    """Largest |x| and largest x of each of L arrays [...] float32: two of [L] float32.

    From the largest and the smallest x, which is less work than a pass for each.  NaN is larger
    than infinity (as a signed x only if its sign bit is not set).
    """
    high = _flip_negative(_largest_codes(arrays, _ordered))
    low = _flip_negative(~_largest_codes(arrays, lambda x: ~_ordered(x)))
    return _float(jnp.maximum(high & _MAGNITUDE, low & _MAGNITUDE)), _float(high)


def over_epoch(statistics: Mapping[str, Array]) -> dict[str, Array]:
    """Reduce {statistic: [T, ...]} over the steps of an epoch: {statistic_max, _mean, _last}."""
    reduced: dict[str, Array] = {}
    for name, values in statistics.items():
        reduced[f"{name}_max"] = jnp.max(values, axis=0)
        reduced[f"{name}_mean"] = jnp.mean(values, axis=0)
        reduced[f"{name}_last"] = values[-1]
    return reduced


def rms(x: Array) -> jax.Array:
    """Root mean square [] of x [...] float32; squares that would underflow are scaled first."""
    largest = jnp.max(jnp.abs(x))
    scale = jnp.where(largest > 0, largest, 1.0)
    return scale * jnp.sqrt(jnp.mean(jnp.square(x / scale)))


def snapshot_statistics(
    kernels: Sequence[Array],
    gradients: Sequence[Array],
    signals: Sequence[Array],
    updates: Sequence[Array],
    activations: Sequence[Array],
    slopes: Sequence[Array],
) -> dict[str, Array]:
    """Statistics of the L layers of a net on one batch: {name of SNAPSHOT: [L] float32}.

    kernels: [in, out] each; gradients dL/dW and updates of an optimiser in the same shapes.
    signals: dL/du [B, out].  activations: f(u) [B, out], of the output u itself.
    slopes: |f'(u)| [B, out] over the largest slope of f, of the L - 1 hidden layers.
    kernel_rms_batch, signal_rms_batch: root mean square over all entries; kernel_abs_batch,
    signal_abs_batch: their largest magnitude.  activation_variance: over images and units.
    dead_share: of the units whose slope is below DEAD on every image.  saturated_share: of units
    and images with a slope below SATURATED; both NaN for the output, which has no activation.
    update_ratio: rms of the update over that of the kernel.
    """

    def of(layers: Sequence[Array], statistic: Callable[[Array], Array]) -> jax.Array:
        return jnp.stack([statistic(layer) for layer in layers])

    def share(slope: Array, reduced: Callable[[Array], Array]) -> jax.Array:
        return jnp.mean(reduced(slope).astype(jnp.float32))

    none = jnp.full(1, jnp.nan, jnp.float32)
    dead = of(slopes, lambda slope: share(slope, lambda s: jnp.all(s < DEAD, axis=0)))
    saturated = of(slopes, lambda slope: share(slope, lambda s: s < SATURATED))
    return {
        "kernel_rms_batch": of(gradients, rms),
        "kernel_abs_batch": of(gradients, lambda x: jnp.max(jnp.abs(x))),
        "signal_rms_batch": of(signals, rms),
        "signal_abs_batch": of(signals, lambda x: jnp.max(jnp.abs(x))),
        "activation_variance": of(activations, jnp.var),
        "dead_share": jnp.concatenate([dead, none]),
        "saturated_share": jnp.concatenate([saturated, none]),
        "update_ratio": of(updates, rms) / of(kernels, rms),
    }


def layer_of_first_nonfinite(outputs: Mapping[str, PyTree], layers: Sequence[str]) -> str | None:
    """First layer, in the order given, with a NaN or infinity in {layer: tree}; else None."""
    for layer in layers:
        if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(outputs[layer])):
            return layer
    return None


def _largest_codes(arrays: Sequence[Array], encode: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Largest int32 code of each of L arrays [...]: [L].

    Arrays of one shape are stacked first, then encoded and reduced together: a net of forty equal
    layers has a few large operations, not hundreds of small ones whose start costs more than they.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, array in enumerate(arrays):
        by_shape.setdefault(array.shape, []).append(position)
    maxima: list[jax.Array] = []
    for positions in by_shape.values():
        group = encode(jnp.stack([jnp.asarray(arrays[i]) for i in positions]))
        group = _fold(group, 1) if group.ndim > 2 and on_cpu() else group
        maxima.append(jnp.max(group.reshape(len(positions), -1), axis=1))
    return jnp.concatenate(maxima)[np.argsort(np.concatenate(list(by_shape.values())))]


def _fold(codes: jax.Array, axis: int) -> jax.Array:
    """Maximum over `axis`, kept with length 1: of its two halves, again, until one row is left.

    An odd middle row is folded onto itself, which a maximum does not notice.  This is elementwise
    work, which XLA vectorises on the CPU; a reduction of everything to a scalar it does not.  Other
    devices reduce well by themselves, and where they share a batch the halves lie on different
    ones: folding would only make them exchange rows.
    """
    rows = codes.shape[axis]
    while rows > 1:
        kept = -(-rows // 2)
        first = jax.lax.slice_in_dim(codes, 0, kept, axis=axis)
        codes = jnp.maximum(first, jax.lax.slice_in_dim(codes, rows - kept, rows, axis=axis))
        rows = kept
    return codes


def _bits(x: Array) -> jax.Array:
    chex.assert_type(x, jnp.float32)
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _float(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _ordered(x: jax.Array) -> jax.Array:
    """int32 codes that order as the floats do."""
    return _flip_negative(_bits(x))


def _flip_negative(bits: jax.Array) -> jax.Array:
    """Bits of floats to int32 codes that order as the floats do, and back: its own inverse."""
    return bits ^ ((bits >> 31) & _MAGNITUDE)
