"""Projected gradient descent within a budget (Madry et al. 2018), for curves of robust accuracy.

Every iterate is an 8-bit image: it is rounded toward the clean one, so that it stays within the
budget, and judged as it is. Rounding to the nearest level could move a value out of the ball.
"""

import dataclasses
import numbers

import flax.struct
import jax
import jax.numpy as jnp

from research import prng
from research.adversarial import criterion
from research.adversarial.loop import (
    Case,
    Classify,
    Progress,
    State,
    check_counts,
    check_required,
    evaluate,
    judge,
)
from research.structs import Array

NORMS = ("linf", "l2")
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
    required: the least margin of a success; a tie is none.
    Raises ValueError for an unknown norm and for a setting that is not positive.
    """

    radius: Array | float
    norm: str = flax.struct.field(pytree_node=False, default="linf")
    steps: int = flax.struct.field(pytree_node=False, default=40)
    restarts: int = flax.struct.field(pytree_node=False, default=2)
    required: float = flax.struct.field(pytree_node=False, default=criterion.ANY_LEAD)
    steps_per_round = 5  # a gathering copies the states of all running cases: not after each step

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm: {self.norm!r} is not one of {', '.join(NORMS)}")
        if isinstance(self.radius, numbers.Real) and not self.radius > 0:
            raise ValueError(f"radius: {self.radius} is not a positive number")
        check_counts(steps=self.steps, restarts=self.restarts)
        check_required(self.required)

    def start(self, classify: Classify, case: Case, progress: Progress) -> State:
        """The image itself is judged first: one that is taken for another class needs no noise."""
        noise = self._draw(case, jnp.zeros((), jnp.int32))
        logits = classify(criterion.decode(case.image), None)
        progress = judge(progress, case, case.image, logits, self.required)
        start_l2 = criterion.l2(toward(case.image, noise), case.image)
        progress = dataclasses.replace(progress, running=~progress.success, start_l2=start_l2)
        return State(progress, _Noise(noise, jnp.zeros((), jnp.int32)))

    def advance(self, classify: Classify, case: Case, state: State, round_index: Array) -> State:
        """Judge, climb the margin, and come back into the ball and the box."""
        candidate = toward(case.image, state.inner.noise)
        progress, _, gradient = evaluate(classify, case, state.progress, candidate, self.required)
        moved = state.inner.noise + _REACH * self.radius / self.steps * self._steepest(gradient)
        noise = self._within(criterion.decode(case.image), moved)

        restart = progress.steps // self.steps
        fresh = restart > state.inner.restart
        noise = jnp.where(fresh, self._draw(case, restart), noise)
        running = ~progress.success & (restart < self.restarts)
        return State(dataclasses.replace(progress, running=running), _Noise(noise, restart))

    def _steepest(self, gradient: Array) -> jax.Array:
        if self.norm == "linf":
            return jnp.sign(gradient)
        return jnp.asarray(gradient) / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(gradient))), 1e-12)

    def _within(self, clean: Array, noise: Array) -> jax.Array:
        noise = criterion.inside_box(clean, noise)
        if self.norm == "linf":
            return jnp.clip(noise, -self.radius, self.radius)
        length = jnp.sqrt(jnp.sum(jnp.square(noise)))
        return noise * jnp.minimum(1.0, self.radius / jnp.maximum(length, 1e-12))

    def _draw(self, case: Case, restart: Array) -> jax.Array:
        """A random point of the ball, inside the box."""
        key = prng.after(case.key, "start", restart)
        if self.norm == "linf":
            noise = jax.random.uniform(
                key, case.image.shape, jnp.float32, -self.radius, self.radius
            )
        else:
            noise = self.radius * self._steepest(
                jax.random.normal(key, case.image.shape, jnp.float32)
            )
        return self._within(criterion.decode(case.image), noise)


def toward(image: Array, noise: Array) -> jax.Array:
    """image [H, W, C] uint8 plus noise, rounded toward the image: no value moves too far.

    A noise of k / 255 is k levels, in spite of its own rounding.
    """
    # float32(k / 255) * 255 may lie just below k, which would be cut to k - 1.
    levels = jnp.trunc(noise * criterion.LEVELS * (1 + 1e-6))
    moved = jnp.asarray(image, jnp.float32) + levels
    return jnp.clip(moved, 0.0, criterion.LEVELS).astype(jnp.uint8)
