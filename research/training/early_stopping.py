"""When does a training stop by itself, and which of its nets is kept?

Early stopping as Keras does it (report, Exercise 3): after every epoch its test loss is compared
with the lowest so far, and the training ends once `patience` epochs in a row were no lower.
"""

import jax
import jax.numpy as jnp
import numpy as np

from research.structs import Array, BestState, Metrics, PyTree


def start(params: PyTree, *, with_params: bool) -> BestState:
    """What is kept before the first epoch.

    with_params: whether the parameters are to be kept, besides the number of the epoch.
    """
    loss, epoch = np.array(np.inf, np.float32), np.zeros((), np.int32)
    return BestState(loss=loss, epoch=epoch, params=params if with_params else {})


def update(kept: BestState, params: PyTree, test: Metrics, epoch: Array) -> BestState:
    """What is kept after `epoch`: this one, if its mean test loss is the lowest so far.

    params: after the epoch.  test: its sums; of no examples in an epoch that was not trained.
    """
    loss = test.loss_sum / jnp.asarray(test.count, jnp.float32)
    lower = loss < kept.loss  # not so for 0 / 0
    candidate = BestState(
        loss=loss,
        epoch=jnp.asarray(epoch, jnp.int32),
        params=params if jax.tree.leaves(kept.params) else {},
    )
    return jax.tree.map(lambda new, old: jnp.where(lower, new, old), candidate, kept)


def goes_on(kept: BestState, epoch: Array | int, patience: int) -> Array:
    """[...] bool: whether `epoch`, counted from 1, is still to be trained.

    kept: after the epochs before it.  patience: 0 for a training that never stops early.
    """
    if patience == 0:
        return jnp.ones_like(kept.epoch, dtype=bool)
    return epoch - 1 - kept.epoch < patience
