"""A loss that is not finite: which seed, which step and which layer it comes from."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.runtime import sharding
from research.structs import Batch, Dataset, PyTree
from research.training import probes
from research.training.epoch import EpochResult, epoch_order
from research.training.step import Loop, as_input, make_step


class Diverged(Exception):
    """A loss is not finite; `layer` is the first one whose output is not."""

    def __init__(self, epoch: int, step: int, seed: int, layer: str) -> None:
        super().__init__(
            f"the loss of seed {seed} is not finite at step {step} (epoch {epoch}); "
            f"the first layer with a non-finite value is {layer}"
        )
        self.epoch, self.step, self.seed, self.layer = epoch, step, seed, layer


def check(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loop: Loop,
    train: Dataset,
    before: PyTree,
    result: EpochResult,
    *,
    seeds: Sequence[int],
    number: int,
) -> None:
    """Raise Diverged if a loss of epoch `number`, in training or in the test, is not finite.

    before: the states [S, ...] before the epoch, from which its steps are repeated one by one: so
    the program of an epoch need not keep what only a net that diverges is asked for.
    result: of the epoch, [S, ...].
    """
    bad = (np.asarray(result.bad_step) >= 0) | ~np.isfinite(result.test.loss_sum)
    if not bad.any():
        return
    row = int(np.argmax(bad))
    seed, bad_step = seeds[row], int(result.bad_step[row])
    state = jax.tree.map(lambda leaf: leaf[row], before)
    order, mask = epoch_order(seed, number, len(train.images), loop.batch_size, loop.passes)

    def batch_at(t: int) -> Batch:
        places = np.asarray(order[t])
        return Batch(train.images[places], np.asarray(train.labels)[places], mask[t])

    step = jax.jit(
        make_step(model, tx, loop._replace(probe=None)),
        compiler_options=sharding.compiler_options() if loop.convolutions else None,
    )
    position = bad_step if bad_step >= 0 else len(order)  # -1: only the test was not finite
    for t in range(position):
        state, _ = step(state, batch_at(t), jnp.uint32(seed), jnp.bool_(number > 0))
    # A batch of training images is enough to see parameters that are not finite; a loss that only
    # overflows on some test image is said to be the loss itself.
    images = as_input(batch_at(min(position, len(order) - 1)).images)
    _, captured = model.apply({"params": state.params}, images, capture_intermediates=True)
    names: Sequence[str] = model.layer_names  # pyright: ignore[reportAttributeAccessIssue]
    outputs = {name: captured["intermediates"][name] for name in names}
    layer = probes.layer_of_first_nonfinite(outputs, names) or "the loss itself"
    raise Diverged(number, int(state.step), seed, layer)
