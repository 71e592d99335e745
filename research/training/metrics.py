"""Sums and counts over examples; they become means only where they are printed."""

import jax.numpy as jnp

from research.structs import Array, Metrics


def count_batch(logits: Array, losses: Array, labels: Array, mask: Array) -> Metrics:
    """Metrics of one batch: logits [B, K], losses [B], labels [B], mask [B] bool."""
    hits = (jnp.argmax(logits, axis=-1) == labels) & mask
    return Metrics(
        loss_sum=jnp.sum(jnp.where(mask, losses, 0.0)),
        correct=jnp.sum(hits, dtype=jnp.int32),
        count=jnp.sum(mask, dtype=jnp.int32),
    )


def total(metrics: Metrics) -> Metrics:
    """Metrics of all the batches stacked along axis 0."""
    return Metrics(
        loss_sum=jnp.sum(metrics.loss_sum, axis=0),
        correct=jnp.sum(metrics.correct, axis=0),
        count=jnp.sum(metrics.count, axis=0),
    )


def zero() -> Metrics:
    """Metrics of no examples."""
    zero = jnp.zeros((), jnp.int32)
    return Metrics(loss_sum=jnp.zeros((), jnp.float32), correct=zero, count=zero)
