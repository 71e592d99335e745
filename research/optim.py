"""From the numbers of a config to an optax transformation."""

import optax

from research.types import UserError


def make_optimizer(learning_rate: float) -> optax.GradientTransformation:
    """Plain stochastic gradient descent, as in the report (Part B: SGD, 0.01, no momentum)."""
    if not learning_rate > 0:
        raise UserError(f"learning_rate: {learning_rate} is not a positive number")
    return optax.sgd(learning_rate)
