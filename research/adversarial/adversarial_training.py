"""Training images moved, within a budget, to where the net as it stands does worst on them.

Every image is moved on the lattice of 8-bit levels and rounded toward the clean one, as `pgd` does,
so that what is trained on stays within the budget and is a picture like any other.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from research.adversarial import criterion
from research.adversarial.pgd import toward
from research.structs import Array, Batch, PyTree, UserError
from research.training import losses
from research.training.step import Adversarial

_REACH_OF_ONE = 1.25  # radii that a single step goes
_REACH = 2.5  # radii that several steps go together


def make_adversarial(model: nn.Module, *, radius: float, steps: int) -> Adversarial | None:
    """adversarial(params, key, batch) -> images [B, H, W, C] uint8, or None for a radius of 0.

    No value is moved by more than `radius`, in units of [0, 1].  From a random point of the ball,
    `steps` steps along the sign of the gradient of the cross-entropy; the net is in evaluation.
    One step is FGSM from a random start (Wong, Rice & Kolter 2020), more are PGD (Madry et al.
    2018).
    Raises UserError naming the key of the config whose value cannot be used.
    """
    if not 0.0 <= radius <= 1.0:
        raise UserError(f"adversarial_radius: {radius} is not in [0, 1]")
    if 0.0 < radius < 1.0 / criterion.LEVELS:
        raise UserError(
            f"adversarial_radius: {radius} is less than one of the {criterion.LEVELS} levels of an "
            "image; 0 means off"
        )
    if steps < 1:
        raise UserError(f"adversarial_steps: {steps} is not a positive number")
    if not radius:
        return None
    most = radius * criterion.LEVELS  # all noise is in levels, of which the box has a whole number
    size = most * (_REACH_OF_ONE if steps == 1 else _REACH / steps)

    def adversarial(params: PyTree, key: jax.Array, batch: Batch) -> jax.Array:
        chex.assert_rank(batch.images, 4)
        frozen, clean = jax.lax.stop_gradient(params), jnp.asarray(batch.images, jnp.float32)

        def picture(noise: Array) -> jax.Array:
            return toward(batch.images, noise / criterion.LEVELS)

        def objective(images: Array) -> jax.Array:
            logits = model.apply({"params": frozen}, images, train=False)
            assert isinstance(logits, jax.Array)
            return jnp.sum(losses.cross_entropy(logits, batch.labels))

        def step(_: Array | int, noise: Array) -> jax.Array:
            gradient = jax.grad(objective)(criterion.decode(picture(noise)))
            moved = jnp.clip(noise + size * jnp.sign(gradient), -most, most)
            return jnp.clip(moved, -clean, criterion.LEVELS - clean)

        # The start may lie outside of the box, where `toward` cuts it: a single step from inside
        # would take a black pixel back to black or to the edge of the ball, and nowhere between.
        noise = jax.random.uniform(key, clean.shape, jnp.float32, -most, most)
        return picture(jax.lax.fori_loop(0, steps, step, noise))

    return adversarial
