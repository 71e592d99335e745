"""Batches of a data set, as arrays of indices and masks.

T = ceil(N / B) batches: the last, partial batch is kept and filled up with masked entries.
"""

import jax
import jax.numpy as jnp

from research.structs import Array, Batch, Dataset


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Number of batches that cover n examples once."""
    return -(-n // batch_size)


def even_pieces(steps: int, most: int) -> int:
    """The size of equal pieces of an epoch, above most / 2, that overshoots its end the least."""
    sizes = range(min(most, steps), most // 2, -1)
    return min(sizes, key=lambda size: -steps % size, default=steps)


def pad_batches(n: int, batch_size: int) -> tuple[Array, Array]:
    """Indices [T, B] int32 and mask [T, B] bool that visit every example once, in order."""
    positions = jnp.arange(steps_per_epoch(n, batch_size) * batch_size, dtype=jnp.int32)
    mask = (positions < n).reshape(-1, batch_size)
    return jnp.where(positions < n, positions, 0).reshape(-1, batch_size), mask


def epoch_order(key: jax.Array, n: int, batch_size: int) -> tuple[Array, Array]:
    """Indices [T, B] int32 and mask [T, B] bool that visit every example once, shuffled."""
    indices, mask = pad_batches(n, batch_size)
    return jax.random.permutation(key, n).astype(jnp.int32)[indices], mask


def gather(data: Dataset, indices: Array, mask: Array) -> Batch:
    """The batch at `indices` [B]; they must lie inside the data set."""
    images = jnp.asarray(data.images).at[indices].get(mode="promise_in_bounds")
    labels = jnp.asarray(data.labels).at[indices].get(mode="promise_in_bounds")
    return Batch(images=images, labels=labels, mask=mask)
