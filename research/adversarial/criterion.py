"""Who decides whether an attack succeeded: the classifier, on the bytes of an 8-bit image.

An image is a point of the lattice of 8-bit levels. Whatever a method computes in between, it is
judged on `decode(quantise(x))`, which is what a reader of the saved file sees.
"""

import chex
import jax
import jax.numpy as jnp

from research.structs import Array

LEVELS = 255  # the largest byte


def quantise(images: Array) -> jax.Array:
    """Images of any shape in [0, 1], float32, as the nearest bytes (halves to even); clipped."""
    return jnp.round(jnp.clip(images, 0.0, 1.0) * LEVELS).astype(jnp.uint8)


def decode(images: Array) -> jax.Array:
    """Bytes as float32 in [0, 1]: what a classifier is given for a saved image."""
    chex.assert_type(images, jnp.uint8)
    return jnp.asarray(images, jnp.float32) / LEVELS


def margin(logits: Array, actual: Array, target: Array) -> jax.Array:
    """By how much the classifier says what the attack wants, [] float32; negative if it does not.

    logits: [K].  actual, target: [] int32.
    Toward a class: its logit above the largest other.  Where the target is the actual class, to
    leave it: the largest other above its logit.
    """
    chex.assert_rank([logits, actual, target], [1, 0, 0])
    this = jnp.arange(logits.shape[0]) == target
    others = jnp.max(jnp.where(this, -jnp.inf, logits))
    above = jnp.sum(jnp.where(this, logits, 0.0)) - others
    return jnp.where(target == actual, -above, above)


def l2(one: Array, other: Array) -> jax.Array:
    """Euclidean distance of two 8-bit images [H, W, C], taken as images in [0, 1]; [] float32."""
    return jnp.sqrt(jnp.sum(jnp.square(decode(one) - decode(other))))
