"""Refinement of a success: levels are taken back toward the clean image while the class holds.

Each changed value may move one level at a time back toward the clean image. What it costs of the
margin is read off the gradient, what it saves of the squared norm is known; the cheapest are taken
together until the linear model says that a fraction of the spare margin is used up, and the
criterion decides. A refusal halves that fraction.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from research.adversarial import criterion
from research.adversarial.loop import (
    Case,
    Classify,
    Progress,
    State,
    check_counts,
    check_required,
    evaluate,
)
from research.structs import Array

_FRACTION = 0.75  # share of the spare margin that is spent at first


@flax.struct.dataclass
class _Trial:
    """candidate: [H, W, C] uint8, to be judged next.  fraction: [] float32, of the spare margin.

    rounds: [] int32.  gradient: [H, W, C] float32 at the best candidate.
    """

    candidate: Array
    fraction: Array
    rounds: Array
    gradient: Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Polish:
    """rounds: gradients of a case at most.  required: as of the method that came before.

    Raises ValueError for a negative number of rounds, or a margin that is not positive.
    """

    rounds: int = 8
    required: float = 0.01
    steps_per_round = 1  # most cases end after a few: gathering pays at once

    def __post_init__(self) -> None:
        check_counts(0, rounds=self.rounds)
        check_required(self.required)

    def start(self, classify: Classify, case: Case, progress: Progress) -> State:
        """From the best candidate of the method before; only successes run."""
        trial = _Trial(
            candidate=progress.best,
            fraction=jnp.full((), _FRACTION),
            rounds=jnp.zeros((), jnp.int32),
            gradient=jnp.zeros(progress.best.shape, jnp.float32),
        )
        running = progress.success & (self.rounds > 0)
        return State(dataclasses.replace(progress, running=running), trial)

    def advance(self, classify: Classify, case: Case, state: State, round_index: Array) -> State:
        """Judge the candidate; then take back more, or less, from the best."""
        trial, before = state.inner, state.progress
        progress, margin, gradient = evaluate(
            classify, case, before, trial.candidate, self.required
        )
        first = trial.rounds == 0  # this candidate is the best itself, whose gradient was missing
        accepted = (margin >= self.required) & (first | (progress.best_l2 < before.best_l2))
        gradient = jnp.where(accepted, gradient, trial.gradient)
        fraction = jnp.where(accepted, trial.fraction, trial.fraction / 2)
        spare = fraction * (progress.best_margin - self.required)
        candidate = shrink(progress.best, case.image, gradient, spare)
        rounds = trial.rounds + 1
        changed = jnp.any(candidate != progress.best)
        running = changed & (rounds < self.rounds) & (fraction > _FRACTION / 8)
        inner = _Trial(candidate, fraction, rounds, gradient)
        return State(dataclasses.replace(progress, running=running), inner)


def shrink(best: Array, clean: Array, gradient: Array, spare: Array) -> jax.Array:
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
    chosen = jnp.zeros(price.size, bool).at[order].set(spent <= spare)
    step = jnp.where(chosen.reshape(price.shape) & movable, away, 0)
    return (jnp.asarray(best, jnp.int32) - step).astype(jnp.uint8)
