"""The fully connected nets of the depth study: 784 - width x depth - 10 (report, Part B).

The layers are written out one after the other, not scanned: at depth 40 both forms compile in
about the same time and the unrolled net runs faster on a CPU (`python -m benchmarks.layers`).
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.models.activations import ACTIVATIONS
from research.structs import Array, UserError


@dataclasses.dataclass(frozen=True)
class Init:
    """How the kernels of a layer are drawn.

    function: (key, (inputs, outputs)) -> kernel.  variance: of its entries, of (inputs, outputs).
    orthogonal: whether square kernels are.  normalised: whether each kernel is then divided by the
    root mean square of what it makes of the images that the net is initialised with.
    """

    function: jax.nn.initializers.Initializer
    variance: Callable[[int, int], float]
    orthogonal: bool = False
    normalised: bool = False


def _orthogonal_variance(inputs: int, outputs: int) -> float:
    return 1 / max(inputs, outputs)


# Glorot-uniform is the Keras default that the report ran on; Flax's own is lecun_normal.
# lsuv: Mishkin & Matas 2016, layer-sequential unit variance, in its single exact step.
INITIALIZERS: dict[str, Init] = {
    "glorot_uniform": Init(nn.initializers.glorot_uniform(), lambda i, o: 2 / (i + o)),
    "he": Init(nn.initializers.he_uniform(), lambda i, _: 2 / i),
    "orthogonal": Init(nn.initializers.orthogonal(), _orthogonal_variance, orthogonal=True),
    "lecun_normal": Init(nn.initializers.lecun_normal(), lambda i, _: 1 / i),
    "lsuv": Init(
        nn.initializers.orthogonal(), _orthogonal_variance, orthogonal=True, normalised=True
    ),
}
SHIFT = 0.5  # the sigmoid is SHIFT + SHIFT tanh(v / 2)


class Layer(nn.Module):
    """x W + b, with parameters {kernel [in, out], bias [out]}; the bias starts at 0.

    gain: factor on the kernel as `scheme` draws it.  centre: the bias starts where x = centre gives
    0, at -centre times the column sums of the kernel.
    """

    units: int
    scheme: Init
    gain: float
    centre: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def kernel_init(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
            kernel = self.scheme.function(key, shape)
            if self.scheme.normalised:
                u = (x - self.centre) @ kernel
                kernel = kernel / jnp.sqrt(jnp.mean(u * u))
            return kernel if self.gain == 1.0 else self.gain * kernel

        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.units))
        start = -self.centre * jnp.sum(kernel, axis=0) if self.centre else jnp.zeros(self.units)
        bias = self.param("bias", lambda _: start)
        return x @ kernel + bias[None]


class MLP(nn.Module):
    """Logits [B, classes] float32 of images [B, H, W, C] float32 in [0, 1].

    Parameters: {hidden_00: {kernel [in, out], bias [out]}, ..., output: {...}}, biases start at 0.
    The pre-activation of every layer is open to `perturb` under the layer's name in the collection
    `perturbations`, so that `jax.grad` gives the signal that arrives there.
    gain: factor on the kernels that the init draws.
    residual: each hidden layer but the first adds to its input, by 1 / sqrt(depth).
    shift: of sigmoids, starts where the net of tanh would, which it then is: v is doubled, hidden
    kernels are fourfold, those of the first and the output layer twofold, biases take off 1/2, and
    with residual connections 1/2 of each layer that was added.
    active: [] int32, how many of the hidden layers act; the others hand on what comes to them, so
    that one program is that of nets of every depth up to `depth`.  None: all; not with `residual`.
    Raises UserError if activation or init is not in its table, a size or the gain is not positive,
    or another activation than the sigmoid is to be shifted.
    """

    depth: int
    width: int
    activation: str
    init_name: str = "glorot_uniform"
    classes: int = 10
    gain: float = 1.0
    residual: bool = False
    shift: bool = False
    active: Array | None = None

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
        if not self.gain > 0:
            raise UserError(f"gain: {self.gain} is not a positive factor")
        if self.shift and self.activation != "sigmoid":
            raise UserError(
                f"shift: {self.activation} is not shifted, sigmoids are; leave it False"
            )
        super().__post_init__()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the L = depth + 1 layers, first to last."""
        return (*(f"hidden_{i:02d}" for i in range(self.depth)), "output")

    @property
    def branch(self) -> float:
        """Factor on what a hidden layer adds to its input; 0 without residual connections."""
        return self.depth**-0.5 if self.residual else 0.0

    def gain_of(self, layer: int) -> float:
        """Factor on the kernel of a layer, 0 the first, as the init draws it."""
        if not self.shift:
            return self.gain
        return self.gain * (2.0 if layer in (0, self.depth) else 4.0)

    def centre_of(self, layer: int) -> float:
        """Where the input of a layer, 0 the first, lies if all activations before it are SHIFT."""
        return SHIFT * (1 + self.branch * (layer - 1)) if self.shift and layer else 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # nothing here is random
        activation = ACTIVATIONS[self.activation].function
        x = images.reshape(images.shape[0], -1)
        for number, name in enumerate(self.layer_names[:-1]):
            h = activation(self.preactivation(name, self.width, x))
            if number == 0:
                x = h
            elif self.residual:
                x = x + self.branch * h
            else:
                x = h if self.active is None else jnp.where(number < self.active, h, x)
        return self.preactivation("output", self.classes, x)

    def preactivation(self, name: str, units: int, x: jax.Array) -> jax.Array:
        """x W + b of one layer, [B, units]."""
        number = self.layer_names.index(name)
        scheme, gain = INITIALIZERS[self.init_name], self.gain_of(number)
        z = Layer(units, scheme, gain, self.centre_of(number), name=name)(x)
        return self.perturb(f"{name}_signal", z)
