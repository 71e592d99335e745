"""Losses: one value per example, never reduced here."""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from research.structs import Array


def cross_entropy(
    logits: Array, labels: Array, *, smoothing: float = 0.0, floor: float = 0.0
) -> Array:
    """Softmax cross-entropy [B] in nats of logits [B, K] against labels [B] int32.

    smoothing: share of the target that is spread evenly over all classes (Szegedy et al. 2016).
    floor: probabilities of the right class are cut to [floor, 1 - floor], where they have no
    gradient then; Keras does so with 1e-7 if a net gives probabilities instead of logits.
    """
    chex.assert_rank([logits, labels], [2, 1])
    sharp = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if floor > 0.0:
        sharp = jnp.clip(sharp, -math.log1p(-floor), -math.log(floor))
    if smoothing == 0.0:
        return sharp
    even = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return (1.0 - smoothing) * sharp + smoothing * even
