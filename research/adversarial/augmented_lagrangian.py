"""The search for the smallest noise as a constrained problem, on the lattice of 8-bit images.

An augmented Lagrangian after Rony et al. 2021, "Augmented Lagrangian Adversarial Attacks" (ALMA):
the L2 norm of the noise is minimised under the constraint that the target leads, and the multiplier
of the constraint is adapted at every step. Changed here:

- the constraint is the missing margin over the norm of its own gradient, a distance. The
  multiplier is then 1 where the noise is smallest, whatever the scale of the logits;
- margin and gradient are taken at the image rounded to bytes, so that no success is lost on saving;
- the gradient is that of the margin with a soft maximum over the other classes, at a temperature
  that is a share of the margin where the search begins: which of them leads changes from step to
  step, and the noise need not run to and fro between them;
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

NORMS = ("l2", "linf", "l1")
_DUAL = {"l2": "l2", "linf": "l1", "l1": "linf"}  # by which a gradient is measured

_AVERAGE = 0.5  # kept of squares, of the momentum and of the multiplier at every step
_SLOPE_AVERAGE = 0.7  # kept of the norm of the gradient
_MULTIPLIERS = 1e-3, 1e3  # the least and the largest
_PENALTY, _PENALTY_GROWTH = 2.0, 1.5  # the first, and its factor where a case comes no nearer
_PATIENCE, _NEARER = 5, 0.95  # steps between two looks, and the distance that is nearer
_SOFT, _SOFT_LAST = 0.1, 0.05  # temperature by the first margin, and what is left of it in the end
_REACH = 4.0  # L2 of the first move, in units of what the linear model asks for
_MOST = 0.1  # of the box, over that number: a slope of nearly nothing asks for infinitely much
_LAST = 0.45  # of the first rate what is left in the end, times the number of steps
_BACK = 0.2  # most of the noise that is given back in a step
_RESTART = 60  # steps without success after which a search begins anew

_TURN = 0.5  # of linf: the first rate of a value's share of the radius
_PACE = 0.3  # of linf: the first rate of the logarithm of the radius
_RADIUS = 1.5  # of linf: the first radius, in units of what the linear model asks for
_FEW = 40.0  # of l1: as _REACH; few values move far, and not all of them a little
_RATES = 0.02, 0.5  # of l1: the least first rate, about five levels, and the largest


@flax.struct.dataclass
class _Noise:
    """noise, squares, momentum, direction: [H, W, C] float32; direction: random, of L2 1.

    noise: of l2 and l1 inside the box; of linf the radius times a share in -1..1, before the box
    cuts it.  radius: [] float32, of linf.
    What follows is of this start, and known from its first step on.
    multiplier, penalty, slope, missing: [] float32; slope: average dual norm of the gradient;
    missing: distance to the constraint when the penalty was looked at last.  unit: distance of
    which the penalty is a multiple.  rate: the first.  temperature: the first of the soft maximum.
    age: [] int32, steps since this start.  clock: steps since the first success.
    """

    noise: Array
    squares: Array
    momentum: Array
    direction: Array
    radius: Array
    multiplier: Array
    penalty: Array
    slope: Array
    missing: Array
    unit: Array
    rate: Array
    temperature: Array
    age: Array
    clock: Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class AugmentedLagrangian:
    """steps: gradients of a case after its first success.  search: most of them before it.

    required: margin, in units of the logits, from which on a candidate counts; nothing else here
    has their scale.
    norm: of NORMS, the one that is made small.
    Raises ValueError for a setting that is not positive, or for an unknown norm.
    """

    steps: int = 160
    search: int = 200
    required: float = 0.01
    norm: str = "l2"
    steps_per_round = 5  # a gathering copies the states of all running cases: not after each step

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, search=self.search)
        check_required(self.required)
        if self.norm not in NORMS:
            raise ValueError(f"norm: {self.norm!r} is not one of {', '.join(NORMS)}")

    def start(self, classify: Classify, case: Case, progress: Progress) -> State:
        """No noise."""
        none, zero = jnp.zeros(case.image.shape, jnp.float32), jnp.zeros(())
        # Drawn here: in every step it would take as long to compile as everything else.
        direction = jax.random.normal(case.key, case.image.shape, jnp.float32)
        inner = _Noise(
            noise=none,
            squares=none,
            momentum=none,
            direction=direction / criterion.length(direction, "l2"),
            radius=zero,
            multiplier=zero,
            penalty=zero,
            slope=zero,
            missing=zero,
            unit=zero,
            rate=zero,
            temperature=zero,
            age=jnp.zeros((), jnp.int32),
            clock=jnp.zeros((), jnp.int32),
        )
        return State(progress, inner)

    def advance(self, classify: Classify, case: Case, state: State, round_index: Array) -> State:
        """Judge, adapt multiplier and penalty, and move the noise down the Lagrangian."""
        inner, clean, norm = state.inner, criterion.decode(case.image), self.norm
        candidate = criterion.quantise(clean + inner.noise)
        time = jnp.asarray(inner.clock, jnp.float32) / self.steps
        # No more than the noise is worth: a search may begin where it is far less than the margin.
        length = jnp.minimum(criterion.length(inner.noise, norm), state.progress.best_norm)
        worth = _SOFT * inner.slope * length
        temperature = jnp.minimum(inner.temperature, worth) * _SOFT_LAST**time
        progress, margin, gradient = evaluate(
            classify,
            case,
            state.progress,
            candidate,
            self.required,
            temperature=temperature,
            norm=norm,
        )
        won = margin >= self.required
        clock = inner.clock + jnp.asarray(progress.success, jnp.int32)
        running = jnp.where(progress.success, clock < self.steps, progress.steps < self.search)
        time = jnp.asarray(clock, jnp.float32) / self.steps
        fresh, decay = inner.age == 0, (_LAST / self.steps) ** time
        kept = jnp.where(fresh, 0.0, _AVERAGE)

        # A value at the edge of the box cannot follow its gradient. In l2 it still counts: its
        # gradient may turn at the next step, and without it the others would be moved too far.
        edge = jnp.where(gradient < 0, candidate == 0, candidate == criterion.LEVELS)
        free = gradient if norm == "l2" else jnp.where(edge, 0.0, gradient)
        steep = jnp.maximum(criterion.length(free, _DUAL[norm]), 1e-12)
        slope = jnp.where(fresh, steep, _SLOPE_AVERAGE * inner.slope + (1 - _SLOPE_AVERAGE) * steep)
        asked = jnp.maximum(jnp.abs(margin), self.required) / slope
        unit = jnp.where(fresh, 1.0 if norm == "l2" else asked, inner.unit)
        missing = (2 * self.required - margin) / slope / unit
        look = inner.age % _PATIENCE == 0
        stuck = look & ~fresh & ~progress.success & (missing > _NEARER * inner.missing)
        penalty = jnp.where(fresh, _PENALTY, inner.penalty)
        penalty = jnp.where(stuck, _PENALTY_GROWTH * penalty, penalty)
        multiplier = jnp.where(fresh, 1.0, inner.multiplier)
        force = _derivative(missing, penalty, multiplier)
        multiplier = _AVERAGE * multiplier + (1 - _AVERAGE) * force
        multiplier = jnp.clip(multiplier, *_MULTIPLIERS)
        force = _derivative(missing, penalty, multiplier)

        pull = force * free / slope
        if norm == "l2":
            descent = inner.noise / jnp.maximum(criterion.length(inner.noise, norm), 1e-12) - pull
        elif norm == "l1":  # the least subgradient: a value without noise stays where that pays
            rest = jnp.sign(pull) * jnp.minimum(1 - jnp.abs(pull), 0.0)
            descent = jnp.where(inner.noise != 0, jnp.sign(inner.noise) - pull, rest)
        else:  # within the radius, which has the force to itself
            descent = -free / slope
        squares = kept * inner.squares + (1 - _AVERAGE) * jnp.square(descent)
        seen = 1 - _AVERAGE ** jnp.asarray(inner.age + 1, jnp.float32)
        scaled = descent / jnp.maximum(jnp.sqrt(squares / seen), 1e-12)
        momentum = kept * inner.momentum + (1 - _AVERAGE) * scaled

        size = float(inner.noise.size)
        first_rate = {
            "l2": _REACH * jnp.minimum(asked / size**0.5, _MOST),
            "l1": jnp.clip(_FEW * asked / size, *_RATES),
            "linf": _TURN,
        }[norm]
        rate = jnp.where(fresh, first_rate, inner.rate)
        move = 2 * rate * decay * momentum
        moved = criterion.inside_box(clean, inner.noise)
        along = jnp.maximum(jnp.sum(gradient * moved), 1e-3 * slope * criterion.length(moved, norm))
        back = jnp.where(won, jnp.clip((margin - 2 * self.required) / along, 0, _BACK), 0.0)
        radius = inner.radius
        if norm == "linf":
            share = inner.noise / jnp.maximum(radius, 1e-12)
            lever = jnp.maximum(jnp.sum(free * share) / steep, 0.1)
            grown = radius * jnp.exp(_PACE * decay * jnp.clip(force * lever - 1, -1, 1))
            grown = jnp.minimum((1 - back) * grown, progress.best_norm)
            radius = jnp.where(fresh, _RADIUS * jnp.minimum(asked, 0.5), grown)
            radius = jnp.clip(radius, 0.5 / criterion.LEVELS, 1.0)
            noise = radius * jnp.where(fresh, jnp.sign(free), jnp.clip(share - move, -1, 1))
        else:
            noise = (1 - back) * inner.noise - move
            if norm == "l1":  # no value runs past none at all, nor has less than bytes can show
                other_side = inner.noise * noise < 0
                little = jnp.abs(noise) < 0.5 / criterion.LEVELS
                noise = jnp.where(other_side | little, 0.0, noise)
            noise = criterion.inside_box(clean, noise)
        soft = _SOFT * jnp.maximum(jnp.abs(margin), self.required)
        # At once where there is no gradient. Each start lies a little farther from the image, and
        # rolling the one random direction gives another every time.
        flat = progress.gradient_last == 0
        restart = ~progress.success & (flat | (inner.age + 1 >= _RESTART))
        away = jnp.asarray(progress.steps, jnp.float32) / _RESTART
        drawn = away * jnp.roll(inner.direction, progress.steps)
        inner = _Noise(
            noise=jnp.where(restart, criterion.inside_box(clean, drawn), noise),
            squares=squares,
            momentum=momentum,
            direction=inner.direction,
            radius=radius,
            multiplier=multiplier,
            penalty=penalty,
            slope=slope,
            missing=jnp.where(look, missing, inner.missing),
            unit=unit,
            rate=rate,
            temperature=jnp.where(fresh, soft, inner.temperature),
            age=jnp.where(restart, 0, inner.age + 1),
            clock=clock,
        )
        return State(dataclasses.replace(progress, running=running), inner)


def _derivative(missing: Array, penalty: Array, multiplier: Array) -> jax.Array:
    """The derivative of the penalty function by the missing distance.

    The multiplier where nothing is missing, more where something is and less where the constraint
    is met.  Source: P2 of Birgin, Castillo & Martinez 2005, as in ALMA.
    """
    product = penalty * missing
    outside = multiplier + 2 * multiplier * product + jnp.square(product) / 2
    inside = multiplier / jnp.square(1 - jnp.minimum(product, 0.0))
    return jnp.where(missing >= 0, outside, inside)
