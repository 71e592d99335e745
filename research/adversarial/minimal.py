"""The smallest noise that does it: direction and norm apart, on the lattice of 8-bit images.

After Rony et al. 2019, "Decoupling Direction and Norm" (DDN): the noise moves along the normalised
gradient and is then brought to a given norm, which shrinks after a success and grows after a
failure. Changed here:

- every candidate is rounded to bytes before it is judged, so that no success is lost on saving;
- the objective is the margin between logits, which does not saturate;
- the first norm is what a linear model of the classifier asks for;
- step and change of norm are annealed, by a clock of each cell that starts at its first success: a
  stubborn cell searches on at full size, now and then from a new random start, and an easy one is
  finished early.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import optax

from research.adversarial import criterion
from research.adversarial.loop import Cell, Classify, State, consider, count_step, no_progress
from research.structs import Array

_FACTOR = 2.0  # of the norm that the linear model asks for
_GROWTH = 0.1  # most that the norm grows after a failure, as a share
_RETRY = 40  # steps without success after which a search begins anew
_ROUND = 5  # steps between two gatherings of the running cells


@flax.struct.dataclass
class _Noise:
    """noise: [H, W, C] float32, inside the box.  norm: the wanted L2.  clock: [] int32.

    kick: [H, W, C], a random direction, for where there is no gradient and for new beginnings.
    """

    noise: Array
    norm: Array
    clock: Array
    kick: Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Minimal:
    """steps: gradients of a cell after its first success.  search: most of them before it.

    required: margin, in units of the logits, from which on a candidate counts.
    first_step, last_step: L2 of the moves along the gradient.  first_change, last_change: of the
    norm, as a share of it.
    """

    steps: int = 160
    search: int = 200
    required: float = 0.01
    first_step: float = 1.0
    last_step: float = 0.02
    first_change: float = 0.3
    last_change: float = 0.01

    def start(self, classify: Classify, cell: Cell) -> State:
        """No noise."""
        del classify
        shape, zero = cell.image.shape, jnp.zeros((), jnp.float32)
        kick = jax.random.normal(cell.key, shape, jnp.float32)
        noise = jnp.zeros(shape, jnp.float32)
        return State(no_progress(cell), _Noise(noise, zero, jnp.zeros((), jnp.int32), kick))

    def advance(self, classify: Classify, cell: Cell, state: State, number: Array) -> State:
        """Some steps, each of which judges the candidate before it moves on."""
        del number

        def step(_: Array, state: State) -> State:
            after = self.step(classify, cell, state)
            running = state.progress.running
            return jax.tree.map(lambda new, old: jnp.where(running, new, old), after, state)

        return jax.lax.fori_loop(0, _ROUND, step, state)

    def step(self, classify: Classify, cell: Cell, state: State) -> State:
        """Judge, turn the noise along the gradient, and bring it to its new norm."""
        clean = criterion.decode(cell.image)
        candidate = criterion.quantise(clean + state.inner.noise)

        def objective(image: Array) -> jax.Array:
            return criterion.margin(classify(image, None), cell.actual, cell.target)

        margin, gradient = jax.value_and_grad(objective)(criterion.decode(candidate))
        progress = consider(state.progress, cell, candidate, margin, self.required)
        progress = count_step(progress, gradient, 0.0)
        clock = state.inner.clock + jnp.asarray(progress.success, jnp.int32)
        running = jnp.where(progress.success, clock < self.steps, progress.steps < self.search)

        norm = self._next_norm(state.inner, progress.best_l2, margin, progress.gradient_last)
        size = optax.cosine_decay_schedule(
            self.first_step, self.steps, self.last_step / self.first_step
        )(jnp.asarray(clock, jnp.float32))
        direction = jnp.where(jnp.any(gradient != 0), gradient, state.inner.kick)
        moved = state.inner.noise + size * _to_length(direction, 1.0)
        noise = _inside(clean, _to_length(_inside(clean, moved), norm))
        anew = ~progress.success & (progress.steps % _RETRY == 0)
        fresh = _to_length(jnp.roll(state.inner.kick, progress.steps), 1.0)
        noise = jnp.where(anew, _inside(clean, fresh), noise)
        inner = _Noise(noise, jnp.where(anew, 0.0, norm), clock, state.inner.kick)
        return State(dataclasses.replace(progress, running=running), inner)

    def _next_norm(self, inner: _Noise, best: Array, margin: Array, slope: Array) -> jax.Array:
        """Of the next candidate: smaller after a success, larger after a failure."""
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


def _inside(clean: Array, noise: Array) -> jax.Array:
    """The noise, cut so that image and noise stay in [0, 1].

    No value is pushed to where a clip would swallow its gradient.
    """
    return jnp.clip(jnp.asarray(noise), -jnp.asarray(clean), 1.0 - jnp.asarray(clean))
