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


def make_augment(*, shift_pixels: int, mirrored: bool) -> Augment | None:
    """augment(key, images [B, H, W, C] uint8), or None if nothing is to change.

    Raises UserError for a negative number of pixels.
    """
    if shift_pixels < 0:
        raise UserError(f"shift: {shift_pixels} pixels is negative")
    if not shift_pixels and not mirrored:
        return None

    def augment(key: jax.Array, images: Array) -> jax.Array:
        of_shift, of_mirror = jax.random.split(key)
        changed = jnp.asarray(images)
        if shift_pixels:
            changed = shift(of_shift, changed, shift_pixels)
        return mirror(of_mirror, changed) if mirrored else changed

    return augment
