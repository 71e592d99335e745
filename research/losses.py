"""Losses: one value per example, never reduced here."""

import chex
import optax

from research.types import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy [B] in nats of logits [B, K] against labels [B] int32."""
    chex.assert_rank([logits, labels], [2, 1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
