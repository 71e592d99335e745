"""Success criterion of an attack: the margin of the classifier on the bytes of an 8-bit image.

An image is a point of the lattice of 8-bit levels. Whatever a method computes in between, its
candidate is judged as `decode(quantise(x))`, which is what a reader of the saved file sees: a
success of real numbers that rounding takes away is none. `succeeds` is the one rule, of the
compiled loop as of whoever judges logits later.
"""

import chex
import jax
import jax.numpy as jnp

from research.structs import Array

LEVELS = 255  # the largest byte
ANY_LEAD = float(jnp.finfo(jnp.float32).tiny)  # the smallest margin that is no tie


def quantise(images: Array) -> jax.Array:
    """Images of any shape in [0, 1], float32, as the nearest bytes (halves to even); clipped."""
    return jnp.round(jnp.clip(images, 0.0, 1.0) * LEVELS).astype(jnp.uint8)


def decode(images: Array) -> jax.Array:
    """Bytes as float32 in [0, 1]: what a classifier is given for a saved image."""
    chex.assert_type(images, jnp.uint8)
    return jnp.asarray(images, jnp.float32) / LEVELS


def margin(logits: Array, actual: Array, target: Array) -> jax.Array:
    """Margin by which an attack succeeds, [] float32; negative if it fails.

    logits: [K] of any float type, K of 2 or more.  actual, target: [] integers.
    Toward a class: its logit above the largest other.  Untargeted, where the target is the actual
    class: the largest other above its logit.  NaN for a number that is no class's.
    Raises AssertionError for other shapes or types.
    """
    chex.assert_rank([logits, actual, target], [1, 0, 0])
    chex.assert_type([actual, target], int)
    chex.assert_axis_dimension_gt(logits, 0, 1)
    logits, classes = jnp.asarray(logits, jnp.float32), logits.shape[0]
    this = jnp.arange(classes) == target
    others = jnp.max(jnp.where(this, -jnp.inf, logits))
    above = jnp.sum(jnp.where(this, logits, 0.0)) - others
    exist = (0 <= target) & (target < classes) & (0 <= actual) & (actual < classes)
    return jnp.where(exist, jnp.where(target == actual, -above, above), jnp.nan)


def smooth_margin(logits: Array, actual: Array, target: Array, temperature: Array) -> jax.Array:
    """The margin with a soft maximum over the other classes, [] float32; for its gradient.

    Arguments as in `margin`.  temperature: [] float32, in units of the logits, 0 or more: the
    others count by the softmax of their logits over it, and for 0 only the largest of them counts.
    """
    logits = jnp.asarray(logits, jnp.float32)
    this = jnp.arange(logits.shape[0]) == target
    others = jnp.where(this, -jnp.inf, logits)
    scaled = (others - jnp.max(others)) / jnp.maximum(temperature, 1e-30)
    shares = jax.lax.stop_gradient(jax.nn.softmax(scaled))
    above = jnp.sum(jnp.where(this, logits, -shares * logits))
    return jnp.where(target == actual, -above, above)


def succeeds(logits: Array, actual: Array, target: Array, required: float) -> jax.Array:
    """Whether an image with these logits is a success, [] bool.  Arguments as in `margin`.

    required: above 0 the least margin, so that a tie is no success; ANY_LEAD is any that is none.
    0: the class that NumPy's argmax gives, the first of the largest logits, is the target, or
    untargeted another than the actual one.
    """
    lead = margin(logits, actual, target)
    if required > 0:
        return lead >= required
    predicted = jnp.argmax(jnp.asarray(logits, jnp.float32))
    return ~jnp.isnan(lead) & ((predicted == target) != (target == actual))


def inside_box(clean: Array, noise: Array) -> jax.Array:
    """The noise, cut so that image and noise, both float32 of any shape, sum to [0, 1].

    No value is pushed to where a clip of the sum would swallow its gradient.
    """
    return jnp.clip(jnp.asarray(noise), -jnp.asarray(clean), 1.0 - jnp.asarray(clean))


def length(values: Array, norm: str) -> jax.Array:
    """The norm "l2", "linf" or "l1" of an array of any shape; [] float32."""
    values = jnp.asarray(values)
    if norm == "l2":
        return jnp.sqrt(jnp.sum(jnp.square(values)))
    return jnp.max(jnp.abs(values)) if norm == "linf" else jnp.sum(jnp.abs(values))


def distance(one: Array, other: Array, norm: str) -> jax.Array:
    """Norm of the difference of two 8-bit images [H, W, C], as images in [0, 1]; [] float32."""
    return length(decode(one) - decode(other), norm)


def l2(one: Array, other: Array) -> jax.Array:
    """Euclidean distance of two 8-bit images [H, W, C], taken as images in [0, 1]; [] float32."""
    return distance(one, other, "l2")
