"""The search for the smallest noise: direction and norm apart, on the lattice of 8-bit images.

After Rony et al. 2019, "Decoupling Direction and Norm" (DDN): the noise moves along the normalised
gradient and is then brought to a given norm, which shrinks after a success and grows after a
failure. Changed here:

- every candidate is rounded to bytes before it is judged, so that no success is lost on saving;
- the objective is the margin between logits, which does not saturate;
- the first norm is what a linear model of the classifier asks for;
- step and change of norm are annealed, by a clock of each case that starts at its first success: a
  stubborn case searches on at full size, now and then from a new random start, and an easy one is
  finished early.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import optax

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

_FACTOR = 2.0  # of the norm that the linear model asks for
_GROWTH = 0.1  # most that the norm grows after a failure, as a share
_RETRY = 40  # steps without success after which a search begins anew


@flax.struct.dataclass
class _Noise:
    """noise: [H, W, C] float32, inside the box.  norm: the wanted L2.  clock: [] int32.

    random_direction: [H, W, C], for where there is no gradient and for new beginnings.
    """

    noise: Array
    norm: Array
    clock: Array
    random_direction: Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Minimal:
    """steps: gradients of a case after its first success.  search: most of them before it.

    required: margin, in units of the logits, from which on a candidate counts.
    first_step, last_step: L2 of the moves along the gradient.  first_change, last_change: of the
    norm, as a share of it.
    Raises ValueError for a setting that is not positive.
    """

    steps: int = 160
    search: int = 200
    required: float = 0.01
    first_step: float = 1.0
    last_step: float = 0.02
    first_change: float = 0.3
    last_change: float = 0.01
    steps_per_round = 5  # a gathering copies the states of all running cases: not after each step

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, search=self.search)
        check_required(self.required)

    def start(self, classify: Classify, case: Case, progress: Progress) -> State:
        """No noise."""
        shape = case.image.shape
        noise = _Noise(
            noise=jnp.zeros(shape, jnp.float32),
            norm=jnp.zeros((), jnp.float32),
            clock=jnp.zeros((), jnp.int32),
            random_direction=jax.random.normal(case.key, shape, jnp.float32),
        )
        return State(progress, noise)

    def advance(self, classify: Classify, case: Case, state: State, round_index: Array) -> State:
        """Judge, turn the noise along the gradient, and bring it to its new norm."""
        inner, clean = state.inner, criterion.decode(case.image)
        candidate = criterion.quantise(clean + inner.noise)
        progress, margin, gradient = evaluate(
            classify, case, state.progress, candidate, self.required
        )
        # The clock stands until the first success. Steps by which a stubborn case looks for one
        # would else use up the annealing, and its noise could not be made small any more.
        clock = inner.clock + jnp.asarray(progress.success, jnp.int32)
        running = jnp.where(progress.success, clock < self.steps, progress.steps < self.search)

        norm = self._next_norm(inner, progress.best_l2, margin, progress.gradient_last)
        size = optax.cosine_decay_schedule(
            self.first_step, self.steps, self.last_step / self.first_step
        )(jnp.asarray(clock, jnp.float32))
        direction = jnp.where(jnp.any(gradient != 0), gradient, inner.random_direction)
        moved = inner.noise + size * _to_length(direction, 1.0)
        noise = criterion.inside_box(clean, _to_length(criterion.inside_box(clean, moved), norm))

        # A search without success begins anew: rolling the one random direction gives another at
        # every restart without a key in the state, and norm 0 asks the linear model again.
        restart = ~progress.success & (progress.steps % _RETRY == 0)
        fresh = _to_length(jnp.roll(inner.random_direction, progress.steps), 1.0)
        noise = jnp.where(restart, criterion.inside_box(clean, fresh), noise)
        norm = jnp.where(restart, 0.0, norm)
        inner = _Noise(noise, norm, clock, inner.random_direction)
        return State(dataclasses.replace(progress, running=running), inner)

    def _next_norm(self, inner: _Noise, best: Array, margin: Array, slope: Array) -> jax.Array:
        """Norm of the next candidate: smaller after a success, larger after a failure."""
        largest = jnp.sqrt(jnp.asarray(inner.noise.size, jnp.float32))
        missing = jnp.maximum(jnp.abs(margin), self.required)  # above 0 where two classes tie
        asked = _FACTOR * missing / jnp.maximum(slope, 1e-12)
        norm = jnp.where(inner.norm > 0, inner.norm, jnp.minimum(asked, 0.1 * largest))
        change = optax.cosine_decay_schedule(
            self.first_change, self.steps, self.last_change / self.first_change
        )(jnp.asarray(inner.clock, jnp.float32))
        shrunk = jnp.minimum(norm, best) * (1 - change)
        grown = jnp.minimum(norm * (1 + jnp.minimum(change, _GROWTH)), largest)
        return jnp.where(margin >= self.required, shrunk, grown)


def _to_length(noise: Array, length: Array | float) -> jax.Array:
    """The noise with that L2 norm; zero stays zero."""
    return jnp.asarray(noise) * (length / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(noise))), 1e-12))
