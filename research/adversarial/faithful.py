"""The report's attack to the letter (Exercise 2), so that its weaknesses can be measured.

Noise drawn with standard deviation 0.05 is added to the image and clipped; Adam with Keras' formula
descends the mean squared error between the softmax and the one-hot target, or ascends it where the
target is the actual class; after 1, 101, 201, ... steps the noise is rounded to 8-bit levels and
the clipped sum classified, and a success ends the case.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import optax

from research import prng
from research.adversarial import criterion
from research.adversarial.loop import (
    Case,
    Classify,
    Progress,
    State,
    check_counts,
    count_step,
    judge,
)
from research.structs import Array, PyTree
from research.training import optim


@flax.struct.dataclass
class _Noise:
    """noise: [H, W, C] float32, the parameter.  opt_state: of Adam."""

    noise: Array
    opt_state: PyTree


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Faithful:
    """std: of the first noise.  steps: at most.  check_every: steps between two checks.

    dropout: whether the classifier's dropout is on while the noise is optimised, as Keras' `fit`
    leaves it; the checks have it off.
    Raises ValueError for a number of steps that is not positive.
    """

    steps: int = 3000
    check_every: int = 100
    learning_rate: float = 0.01
    std: float = 0.05
    dropout: bool = False
    required = 0.0  # the report compares what is predicted, by argmax
    steps_per_round = 1  # an `advance` is many updates of Adam, up to the next check

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, check_every=self.check_every)

    def start(self, classify: Classify, case: Case, progress: Progress) -> State:
        """Random noise, not yet judged."""
        drawn = jax.random.normal(case.key, case.image.shape, jnp.float32)
        noise = self.std * drawn
        start_l2 = criterion.l2(_candidate(case, noise), case.image)
        progress = dataclasses.replace(progress, start_l2=start_l2)
        return State(progress, _Noise(noise, self._optimiser().init(noise)))

    def advance(self, classify: Classify, case: Case, state: State, round_index: Array) -> State:
        """One step and a check at first, then `check_every` steps and a check at a time.

        The steps that are left over at the end are made and what they lead to is looked at, but a
        success there does not count: the report never checks it.
        """
        done = jnp.where(round_index == 0, 0, 1 + (round_index - 1) * self.check_every)
        count = jnp.where(round_index == 0, 1, jnp.minimum(self.check_every, self.steps - done))
        state = jax.lax.fori_loop(0, count, lambda _, s: self.step(classify, case, s), state)
        candidate = _candidate(case, state.inner.noise)
        logits = classify(criterion.decode(candidate), None)
        seen = judge(state.progress, case, candidate, logits, self.required)
        due = seen.steps == 1 + round_index * self.check_every
        progress = jax.tree.map(lambda new, old: jnp.where(due, new, old), seen, state.progress)
        progress = dataclasses.replace(progress, last=seen.last, last_margin=seen.last_margin)
        running = ~progress.success & (progress.steps < self.steps)
        return State(dataclasses.replace(progress, running=running), state.inner)

    def step(self, classify: Classify, case: Case, state: State) -> State:
        """One update of Adam."""
        clean, noise = criterion.decode(case.image), state.inner.noise
        key = prng.after(case.key, "dropout", state.progress.steps) if self.dropout else None

        def loss(noise: Array) -> jax.Array:
            return squared_error(classify(clip(clean + noise), key), case.actual, case.target)

        gradient = jax.grad(loss)(noise)
        updates, opt_state = self._optimiser().update(gradient, state.inner.opt_state)
        total = clean + noise
        dead = jnp.mean(jnp.asarray((total < 0) | (total > 1), jnp.float32))
        progress = count_step(state.progress, gradient, dead)
        return State(progress, _Noise(jnp.asarray(optax.apply_updates(noise, updates)), opt_state))

    def _optimiser(self) -> optax.GradientTransformation:
        return optim.make_optimizer(self.learning_rate, name="adam")


@jax.custom_jvp
def clip(x: Array) -> jax.Array:
    """x cut to [0, 1], with TensorFlow's derivative: 1 from 0 to 1 inclusive, 0 outside.

    `jnp.clip` has one half at the ends, which matters where most of an image is exactly 0.
    """
    return jnp.clip(x, 0.0, 1.0)


@clip.defjvp
def _clip_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return clip(x), jnp.where((x >= 0.0) & (x <= 1.0), tangent, 0.0)


def squared_error(logits: Array, actual: Array, target: Array) -> jax.Array:
    """Mean over the classes of (softmax - one-hot)^2, [] float32; negative if untargeted."""
    wanted = jax.nn.one_hot(target, logits.shape[0], dtype=jnp.float32)
    error = jnp.mean(jnp.square(jax.nn.softmax(logits) - wanted))
    return jnp.where(target == actual, -error, error)


def _candidate(case: Case, noise: Array) -> jax.Array:
    """The noise rounded to 8-bit levels, added to the image and clipped, as bytes."""
    levels = jnp.round(noise * criterion.LEVELS)
    return criterion.quantise(criterion.decode(case.image) + levels / criterion.LEVELS)
