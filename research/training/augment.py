"""Augmentation: random changes of training images that keep their class; uint8 in, uint8 out."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from research.structs import Array, UserError

Augment = Callable[[jax.Array, Array], jax.Array]


def shift(key: jax.Array, images: Array, pixels: int) -> jax.Array:
    """Every image [H, W, C] of the batch moved by -pixels .. pixels along both axes.

    What comes in at the edges repeats the edge.
    """
    chex.assert_rank(images, 4)
    batch, height, width, channels = images.shape
    around = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(images, around, mode="edge")
    corners = jax.random.randint(key, (batch, 2), 0, 2 * pixels + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def mirror(key: jax.Array, images: Array) -> jax.Array:
    """Every image of the batch turned left to right with probability 1/2."""
    chosen = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def jitter(key: jax.Array, images: Array, share: float) -> jax.Array:
    """Every image [H, W, C] of the batch cut anew by a box whose four sides are moved at random.

    Each side moves by at most `share` of the image's, outwards or inwards, by itself; the box is
    then scaled to the size of the image, each pixel from the nearest. What lies outside of the
    image repeats its edge.
    """
    chex.assert_rank(images, 4)
    batch, *sides = images.shape[:3]
    moved = jax.random.uniform(key, (batch, 2, 2), minval=-share, maxval=share)

    def places(ends: jax.Array, length: int) -> jax.Array:
        """Of the pixels of one axis, [length] int32."""
        steps = (jnp.arange(length, dtype=jnp.float32) + 0.5) / length
        middles = length * (ends[0] + (1 + ends[1] - ends[0]) * steps)
        return jnp.clip(jnp.floor(middles), 0, length - 1).astype(jnp.int32)

    def cut(image: jax.Array, ends: jax.Array) -> jax.Array:
        rows, columns = (places(of, side) for of, side in zip(ends, sides, strict=True))
        return image[rows][:, columns]

    return jax.vmap(cut)(jnp.asarray(images), moved)


def make_augment(*, shift_pixels: int, mirrored: bool, jittered: float = 0.0) -> Augment | None:
    """augment(key, images [B, H, W, C] uint8), or None if nothing is to change.

    jittered: the share of `jitter`.
    Raises UserError for a negative number of pixels, and for a share that is not in [0, 0.5).
    """
    if shift_pixels < 0:
        raise UserError(f"shift: {shift_pixels} pixels is negative")
    if not 0 <= jittered < 0.5:
        raise UserError(f"jitter: {jittered} is not in [0, 0.5)")
    if not shift_pixels and not mirrored and not jittered:
        return None

    def augment(key: jax.Array, images: Array) -> jax.Array:
        of_shift, of_mirror = jax.random.split(key)
        changed = jnp.asarray(images)
        if jittered:
            changed = jitter(jax.random.fold_in(key, 2), changed, jittered)
        if shift_pixels:
            changed = shift(of_shift, changed, shift_pixels)
        return mirror(of_mirror, changed) if mirrored else changed

    return augment
