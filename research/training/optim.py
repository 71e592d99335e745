"""Optimisers: optax transformations from the numbers of a config, and Adam as Keras computes it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.structs import Array, PyTree, UserError

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "one_cycle")


class KerasAdamState(NamedTuple):
    """updates: [] int32, how many were done.  mean, square: running moments, as the parameters."""

    updates: Array
    mean: PyTree
    square: PyTree


def scale_by_keras_adam(
    *, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Adam as Keras computes it: epsilon meets the second moment before its bias correction.

    mean / (sqrt(square) + epsilon) * sqrt(1 - b2^t) / (1 - b1^t), so that early on epsilon weighs
    up to 1 / sqrt(1 - b2) = 32 times more than in Kingma & Ba 2015, algorithm 1, and in optax.
    Source: the formula before section 2.1 of that paper, which is what Keras took.
    """

    def init(params: PyTree) -> KerasAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return KerasAdamState(updates=jnp.zeros((), jnp.int32), mean=zeros, square=zeros)

    def update(
        updates: PyTree, state: PyTree, params: PyTree | None = None
    ) -> tuple[PyTree, KerasAdamState]:
        del params
        done = state.updates + 1
        t = done.astype(jnp.float32)
        mean = jax.tree.map(lambda m, g: m + (g - m) * (1 - b1), state.mean, updates)
        square = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - b2), state.square, updates)
        rate = jnp.sqrt(1 - b2**t) / (1 - b1**t)
        scaled = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + epsilon), mean, square)
        return scaled, KerasAdamState(updates=done, mean=mean, square=square)

    return optax.GradientTransformation(init, update)


def make_optimizer(
    learning_rate: float,
    *,
    name: str = "sgd",
    schedule: str = "constant",
    steps: int = 1,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """The optimiser `name`: sgd (plain), adam (Keras', see above) or adamw (optax, b2 0.99).

    schedule: "constant"; or "one_cycle" over `steps` updates, linear up to learning_rate during
    the first fifth and down to 0 at the end (Smith 2018, without its cycling momentum).
    weight_decay: of adamw, on kernels only.
    Raises UserError naming the key whose value cannot be used.
    """
    if not learning_rate > 0:
        raise UserError(f"learning_rate: {learning_rate} is not a positive number")
    for key, value, valid in (("optimizer", name, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
        if value not in valid:
            raise UserError(f"{key}: {value!r} is not one of {', '.join(valid)}")
    if not weight_decay >= 0:
        raise UserError(f"weight_decay: {weight_decay} is negative")
    if weight_decay and name != "adamw":
        raise UserError(f"weight_decay: only adamw decays weights, not {name!r}; set it to 0")
    rate: optax.ScalarOrSchedule = learning_rate
    if schedule == "one_cycle":
        peak = max(1, steps // 5)
        rate = optax.join_schedules(
            [
                optax.linear_schedule(learning_rate / 20, learning_rate, peak),
                optax.linear_schedule(learning_rate, 0.0, max(1, steps - peak)),
            ],
            [peak],
        )
    if name == "sgd":
        return optax.sgd(rate)
    if name == "adam":
        return optax.chain(scale_by_keras_adam(), optax.scale_by_learning_rate(rate))
    return optax.adamw(
        rate,
        b2=0.99,
        weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
