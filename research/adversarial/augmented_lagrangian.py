"""The search for the smallest noise as a constrained problem, on the lattice of 8-bit images.

An augmented Lagrangian after Rony et al. 2021, "Augmented Lagrangian Adversarial Attacks" (ALMA):
the L2 norm of the noise is minimised under the constraint that the target leads, and the multiplier
of the constraint is adapted at every step. Changed here:

- the constraint is the missing margin over the norm of its own gradient, a distance. The
  multiplier is then 1 where the noise is smallest, whatever the scale of the logits;
- margin and gradient are taken at the image rounded to bytes, so that no success is lost on saving;
- the first rate is a multiple of what a linear model of the classifier asks for, and it falls by a
  clock of each case that starts at its first success: a stubborn case searches on at full size;
- a success gives back along its own noise what the linear model says is more than enough;
- noise that would leave the box is cut, not the image: no value is moved to where a clip swallows
  its gradient.
"""

import dataclasses

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
)
from research.structs import Array

_AVERAGE = 0.5  # kept of squares, of the momentum and of the multiplier at every step
_SLOPE_AVERAGE = 0.7  # kept of the norm of the gradient
_MULTIPLIERS = 1e-3, 1e3  # the least and the largest
_PENALTY, _PENALTY_GROWTH = 2.0, 1.5  # the first, and its factor where a case comes no nearer
_PATIENCE, _NEARER = 5, 0.95  # steps between two looks, and the distance that is nearer
_REACH = 4.0  # L2 of the first move, in units of what the linear model asks for
_MOST = 0.1  # of the box, over that number: a slope of nearly nothing asks for infinitely much
_LAST = 0.45  # of the first rate what is left in the end, times the number of steps
_BACK = 0.2  # most of the noise that is given back in a step
_RESTART = 60  # steps without success after which a search begins anew


@flax.struct.dataclass
class _Noise:
    """noise, squares, momentum: [H, W, C] float32, the noise inside the box.

    multiplier, penalty, slope, missing: [] float32; slope: average norm of the gradient; missing:
    distance to the constraint when the penalty was looked at last.  rate: the first of this start,
    0 before it is known.  age: [] int32, steps since this start.  clock: steps since the first
    success.
    """

    noise: Array
    squares: Array
    momentum: Array
    multiplier: Array
    penalty: Array
    slope: Array
    missing: Array
    rate: Array
    age: Array
    clock: Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class AugmentedLagrangian:
    """steps: gradients of a case after its first success.  search: most of them before it.

    required: margin, in units of the logits, from which on a candidate counts; nothing else here
    has their scale.
    Raises ValueError for a setting that is not positive.
    """

    steps: int = 160
    search: int = 200
    required: float = 0.01
    steps_per_round = 5  # a gathering copies the states of all running cases: not after each step

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, search=self.search)
        check_required(self.required)

    def start(self, classify: Classify, case: Case, progress: Progress) -> State:
        """No noise."""
        return State(progress, _begin(jnp.zeros(case.image.shape, jnp.float32)))

    def advance(self, classify: Classify, case: Case, state: State, round_index: Array) -> State:
        """Judge, adapt multiplier and penalty, and move the noise down the Lagrangian."""
        inner, clean = state.inner, criterion.decode(case.image)
        candidate = criterion.quantise(clean + inner.noise)
        progress, margin, gradient = evaluate(
            classify, case, state.progress, candidate, self.required
        )
        won = margin >= self.required
        clock = inner.clock + jnp.asarray(progress.success, jnp.int32)
        running = jnp.where(progress.success, clock < self.steps, progress.steps < self.search)

        steep = jnp.maximum(progress.gradient_last, 1e-12)
        fresh = inner.age == 0
        slope = jnp.where(fresh, steep, _SLOPE_AVERAGE * inner.slope + (1 - _SLOPE_AVERAGE) * steep)
        missing = (2 * self.required - margin) / slope
        look = inner.age % _PATIENCE == 0
        stuck = look & ~fresh & ~progress.success & (missing > _NEARER * inner.missing)
        penalty = jnp.where(stuck, _PENALTY_GROWTH * inner.penalty, inner.penalty)
        force = _derivative(missing, penalty, inner.multiplier)
        multiplier = _AVERAGE * inner.multiplier + (1 - _AVERAGE) * force
        multiplier = jnp.clip(multiplier, *_MULTIPLIERS)
        force = _derivative(missing, penalty, multiplier)

        length = jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(inner.noise))), 1e-12)
        descent = inner.noise / length - force * gradient / slope
        squares = _AVERAGE * inner.squares + (1 - _AVERAGE) * jnp.square(descent)
        seen = 1 - _AVERAGE ** jnp.asarray(inner.age + 1, jnp.float32)
        scaled = descent / jnp.maximum(jnp.sqrt(squares / seen), 1e-12)
        momentum = _AVERAGE * inner.momentum + (1 - _AVERAGE) * scaled
        values = jnp.sqrt(jnp.asarray(inner.noise.size, jnp.float32))
        asked = jnp.maximum(jnp.abs(margin), self.required) / slope
        rate = jnp.where(fresh, _REACH * jnp.minimum(asked / values, _MOST), inner.rate)
        now = rate * (_LAST / self.steps) ** (jnp.asarray(clock, jnp.float32) / self.steps)

        along = jnp.maximum(jnp.sum(gradient * inner.noise), 1e-3 * slope)
        back = jnp.where(won, jnp.clip((margin - 2 * self.required) / along, 0, _BACK), 0.0)
        noise = (1 - back) * inner.noise - 2 * now * momentum
        moved = _Noise(
            noise=criterion.inside_box(clean, noise),
            squares=squares,
            momentum=momentum,
            multiplier=multiplier,
            penalty=penalty,
            slope=slope,
            missing=jnp.where(look, missing, inner.missing),
            rate=rate,
            age=inner.age + 1,
            clock=clock,
        )
        # At once where there is no gradient. Each start lies a little farther from the image.
        flat = progress.gradient_last == 0
        restart = ~progress.success & (flat | (moved.age >= _RESTART))
        key = prng.after(case.key, "restart", progress.steps)
        drawn = jax.random.normal(key, clean.shape, jnp.float32)
        away = jnp.asarray(progress.steps, jnp.float32) / _RESTART
        drawn = away * drawn / jnp.sqrt(jnp.sum(jnp.square(drawn)))
        drawn = criterion.inside_box(clean, drawn)
        inner = jax.tree.map(lambda new, old: jnp.where(restart, new, old), _begin(drawn), moved)
        return State(dataclasses.replace(progress, running=running), inner)


def _begin(noise: Array) -> _Noise:
    """The state in which a search from this noise begins."""
    none, zero, count = jnp.zeros_like(noise), jnp.zeros(()), jnp.zeros((), jnp.int32)
    return _Noise(
        noise=noise,
        squares=none,
        momentum=none,
        multiplier=jnp.ones(()),
        penalty=jnp.full((), _PENALTY),
        slope=zero,
        missing=zero,
        rate=zero,
        age=count,
        clock=count,
    )


def _derivative(missing: Array, penalty: Array, multiplier: Array) -> jax.Array:
    """The derivative of the penalty function by the missing distance.

    The multiplier where nothing is missing, more where something is and less where the constraint
    is met.  Source: P2 of Birgin, Castillo & Martinez 2005, as in ALMA.
    """
    product = penalty * missing
    outside = multiplier + 2 * multiplier * product + jnp.square(product) / 2
    inside = multiplier / jnp.square(1 - jnp.minimum(product, 0.0))
    return jnp.where(missing >= 0, outside, inside)
