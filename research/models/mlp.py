"""The fully connected nets of the depth study: 784 - width x depth - 10 (report, Part B).

The layers are written out one after the other, not scanned: at depth 40 both forms compile in
about the same time and the unrolled net runs faster on a CPU (`python -m benchmarks.layers`).
"""

import flax.linen as nn
import jax

from research.models.activations import ACTIVATIONS
from research.structs import UserError

# Glorot-uniform is the Keras default that the report ran on; Flax's own is lecun_normal.
INITIALIZERS: dict[str, jax.nn.initializers.Initializer] = {
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he": nn.initializers.he_uniform(),
    "orthogonal": nn.initializers.orthogonal(),
    "lecun_normal": nn.initializers.lecun_normal(),
}


class MLP(nn.Module):
    """Logits [B, classes] float32 of images [B, H, W, C] float32 in [0, 1].

    Parameters: {hidden_00: {kernel [in, out], bias [out]}, ..., output: {...}}, biases start at 0.
    The pre-activation of every layer is open to `perturb` under the layer's name in the collection
    `perturbations`, so that `jax.grad` gives the signal that arrives there.
    Raises UserError if activation or init is not in its table, or a size is not positive.
    """

    depth: int
    width: int
    activation: str
    init_name: str = "glorot_uniform"
    classes: int = 10

    def __post_init__(self) -> None:
        for key, value, table in (
            ("activation", self.activation, ACTIVATIONS),
            ("init", self.init_name, INITIALIZERS),
        ):
            if value not in table:
                raise UserError(f"{key}: {value!r} is not one of {', '.join(table)}")
        for key, size in (("depth", self.depth), ("width", self.width)):
            if size < 1:
                raise UserError(f"{key}: {size} is not a positive number of layers or units")
        super().__post_init__()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the L = depth + 1 layers, first to last."""
        return (*(f"hidden_{i:02d}" for i in range(self.depth)), "output")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # nothing here is random
        activation = ACTIVATIONS[self.activation].function
        x = images.reshape(images.shape[0], -1)
        for name in self.layer_names[:-1]:
            x = activation(self.preactivation(name, self.width, x))
        return self.preactivation("output", self.classes, x)

    def preactivation(self, name: str, units: int, x: jax.Array) -> jax.Array:
        """x W + b of one layer, [B, units]."""
        z = nn.Dense(units, kernel_init=INITIALIZERS[self.init_name], name=name)(x)
        return self.perturb(f"{name}_signal", z)
