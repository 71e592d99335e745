"""Taking away quanta from a success on the lattice of 8-bit images while the class holds.

Each changed value may move one level at a time back toward the clean image. What it costs of the
margin is read off the gradient, what it saves of the squared norm is known; the cheapest are taken
together until the linear model says that the margin is used up, and the judge decides. A refusal
halves the appetite.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from research.adversarial import criterion
from research.adversarial.loop import Cell, Classify, State, consider, count_step
from research.structs import Array

_APPETITE = 0.75  # share of the spare margin that is first spent


@flax.struct.dataclass
class _Trial:
    """candidate: [H, W, C] uint8, to be judged next.  appetite: [] float32.

    rounds: [] int32.  gradient: [H, W, C] float32 at the best candidate.
    """

    candidate: Array
    appetite: Array
    rounds: Array
    gradient: Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Polish:
    """rounds: gradients of a cell at most.  required: as of the method that came before."""

    rounds: int = 8
    required: float = 0.01

    def resume(self, state: State) -> State:
        """The state from which to polish what another method has found; only successes run."""
        progress = state.progress
        trial = _Trial(
            candidate=progress.best,
            appetite=jnp.full((), _APPETITE),
            rounds=jnp.zeros((), jnp.int32),
            gradient=jnp.zeros(progress.best.shape, jnp.float32),
        )
        return State(
            dataclasses.replace(progress, running=progress.success & (self.rounds > 0)), trial
        )

    def start(self, classify: Classify, cell: Cell) -> State:
        """There is nothing to polish in an image that nothing was done to."""
        raise NotImplementedError("polish goes on from another method; see `resume`")

    def advance(self, classify: Classify, cell: Cell, state: State, number: Array) -> State:
        """Judge the candidate; then take away more, or less, from the best."""
        del number
        trial, before = state.inner, state.progress

        def objective(image: Array) -> jax.Array:
            return criterion.margin(classify(image, None), cell.actual, cell.target)

        margin, gradient = jax.value_and_grad(objective)(criterion.decode(trial.candidate))
        progress = consider(before, cell, trial.candidate, margin, self.required)
        progress = count_step(progress, gradient, 0.0)
        first = trial.rounds == 0  # this candidate is the best itself, whose gradient was missing
        taken = (margin >= self.required) & (first | (progress.best_l2 < before.best_l2))
        gradient = jnp.where(taken, gradient, trial.gradient)
        appetite = jnp.where(taken, trial.appetite, trial.appetite / 2)
        spare = appetite * (progress.best_margin - self.required)
        candidate = lighten(progress.best, cell.image, gradient, spare)
        rounds = trial.rounds + 1
        changed = jnp.any(candidate != progress.best)
        running = changed & (rounds < self.rounds) & (appetite > _APPETITE / 8)
        inner = _Trial(candidate, appetite, rounds, gradient)
        return State(dataclasses.replace(progress, running=running), inner)


def lighten(best: Array, clean: Array, gradient: Array, spare: Array) -> jax.Array:
    """`best` with levels taken back toward `clean` that cost at most `spare` margin in all.

    best, clean: [H, W, C] uint8.  gradient: of the margin by the image in [0, 1].  spare: [].
    A value moves by one level; the costs are those of the linear model, cheapest first by what a
    level saves of the squared norm.
    """
    difference = jnp.asarray(best, jnp.int32) - jnp.asarray(clean, jnp.int32)
    away = jnp.sign(difference)
    cost = jnp.asarray(away, jnp.float32) * gradient / criterion.LEVELS
    saved = jnp.asarray(2 * jnp.abs(difference) - 1, jnp.float32)
    movable = difference != 0
    price = jnp.where(movable, cost / jnp.maximum(saved, 1.0), jnp.inf)
    order = jnp.argsort(price.reshape(-1))
    spent = jnp.cumsum(jnp.where(movable, jnp.maximum(cost, 0.0), 0.0).reshape(-1)[order])
    taken = jnp.zeros(price.size, bool).at[order].set(spent <= spare)
    step = jnp.where(taken.reshape(price.shape) & movable, away, 0)
    return (jnp.asarray(best, jnp.int32) - step).astype(jnp.uint8)
