"""The four activations of the depth study, in one table.

LeCun's scaled tanh: LeCun, Bottou, Orr, Mueller, "Efficient BackProp" (1998), section 4.4; the
linear term as in the report, Part D.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Activation:
    """function: elementwise.  derivative_range: (infimum, supremum) of its derivative."""

    function: Callable[[jax.Array], jax.Array]
    derivative_range: tuple[float, float]


def lecun_tanh(v: jax.Array) -> jax.Array:
    """1.7159 tanh(2v/3) + 0.01 v, elementwise."""
    return 1.7159 * jnp.tanh(2.0 / 3.0 * v) + 0.01 * v


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(jax.nn.relu, (0.0, 1.0)),
    "tanh": Activation(jnp.tanh, (0.0, 1.0)),
    "sigmoid": Activation(jax.nn.sigmoid, (0.0, 0.25)),
    "lecun": Activation(lecun_tanh, (0.01, 1.7159 * 2.0 / 3.0 + 0.01)),
}
