"""Projected gradient descent within a budget (Madry et al. 2018), for curves of robust accuracy.

Every iterate is an 8-bit image: it is rounded toward the clean one, so that it stays within the
budget, and judged as it is.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from research import prng
from research.adversarial import criterion
from research.adversarial.loop import Cell, Classify, State, consider, count_step, no_progress
from research.structs import Array

NORMS = ("linf", "l2")
_ROUND = 5  # steps between two gatherings of the running cells
_REACH = 2.5  # the steps of one start could cross the ball this many times its radius


@flax.struct.dataclass
class _Noise:
    """noise: [H, W, C] float32, within the budget.  restart: [] int32, whose start this is."""

    noise: Array
    restart: Array


@flax.struct.dataclass
class PGD:
    """radius: of the ball, in units of [0, 1]; another one needs no new program.  norm: of NORMS.

    steps: of each start.  restarts: random starts, of which the next begins where one has failed.
    Raises ValueError for an unknown norm.
    """

    radius: Array | float
    norm: str = flax.struct.field(pytree_node=False, default="linf")
    steps: int = flax.struct.field(pytree_node=False, default=40)
    restarts: int = flax.struct.field(pytree_node=False, default=2)
    required: float = flax.struct.field(pytree_node=False, default=0.0)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm: {self.norm!r} is not one of {', '.join(NORMS)}")

    def start(self, classify: Classify, cell: Cell) -> State:
        """The image itself is judged first: one that is taken for another class needs no noise."""
        noise = self._drawn(cell, jnp.zeros((), jnp.int32))
        margin = criterion.margin(
            classify(criterion.decode(cell.image), None), cell.actual, cell.target
        )
        progress = consider(no_progress(cell), cell, cell.image, margin, self.required)
        start_l2 = criterion.l2(toward(cell.image, noise), cell.image)
        progress = dataclasses.replace(progress, running=~progress.success, start_l2=start_l2)
        return State(progress, _Noise(noise, jnp.zeros((), jnp.int32)))

    def advance(self, classify: Classify, cell: Cell, state: State, number: Array) -> State:
        """Some steps."""
        del number

        def step(_: Array, state: State) -> State:
            after = self.step(classify, cell, state)
            running = state.progress.running
            return jax.tree.map(lambda new, old: jnp.where(running, new, old), after, state)

        return jax.lax.fori_loop(0, _ROUND, step, state)

    def step(self, classify: Classify, cell: Cell, state: State) -> State:
        """Judge, climb the margin, and come back into the ball and the box."""
        candidate = toward(cell.image, state.inner.noise)

        def objective(image: Array) -> jax.Array:
            return criterion.margin(classify(image, None), cell.actual, cell.target)

        margin, gradient = jax.value_and_grad(objective)(criterion.decode(candidate))
        progress = consider(state.progress, cell, candidate, margin, self.required)
        progress = count_step(progress, gradient, 0.0)
        moved = state.inner.noise + _REACH * self.radius / self.steps * self._steepest(gradient)
        noise = self._within(criterion.decode(cell.image), moved)

        restart = progress.steps // self.steps
        fresh = restart > state.inner.restart
        noise = jnp.where(fresh, self._drawn(cell, restart), noise)
        running = ~progress.success & (restart < self.restarts)
        return State(dataclasses.replace(progress, running=running), _Noise(noise, restart))

    def _steepest(self, gradient: Array) -> jax.Array:
        if self.norm == "linf":
            return jnp.sign(gradient)
        return jnp.asarray(gradient) / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(gradient))), 1e-12)

    def _within(self, clean: Array, noise: Array) -> jax.Array:
        noise = jnp.clip(jnp.asarray(noise), -jnp.asarray(clean), 1.0 - jnp.asarray(clean))
        if self.norm == "linf":
            return jnp.clip(noise, -self.radius, self.radius)
        length = jnp.sqrt(jnp.sum(jnp.square(noise)))
        return noise * jnp.minimum(1.0, self.radius / jnp.maximum(length, 1e-12))

    def _drawn(self, cell: Cell, restart: Array) -> jax.Array:
        """A random point of the ball, inside the box."""
        key = prng.after(cell.key, "start", restart)
        if self.norm == "linf":
            noise = jax.random.uniform(
                key, cell.image.shape, jnp.float32, -self.radius, self.radius
            )
        else:
            noise = self.radius * self._steepest(
                jax.random.normal(key, cell.image.shape, jnp.float32)
            )
        return self._within(criterion.decode(cell.image), noise)


def toward(image: Array, noise: Array) -> jax.Array:
    """image [H, W, C] uint8 and noise, rounded toward the image: no value moves farther than asked.

    A noise of k / 255 is k levels, in spite of its own rounding.
    """
    levels = jnp.trunc(noise * criterion.LEVELS * (1 + 1e-6))
    moved = jnp.asarray(image, jnp.float32) + levels
    return jnp.clip(moved, 0.0, criterion.LEVELS).astype(jnp.uint8)
