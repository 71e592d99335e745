"""Early stopping and the best epoch, as in Keras (report, Exercise 3).

After every epoch its mean test loss is compared with the lowest so far; the training of a seed ends
once `patience` epochs in a row were no lower. The best epoch is part of the state, so that a run
that resumes decides as the uninterrupted one would have.
"""

import jax
import jax.numpy as jnp
import numpy as np

from research.structs import Array, BestState, Metrics, PyTree


def start(params: PyTree, *, with_params: bool) -> BestState:
    """The best epoch before the first one: number 0, with an infinite loss.

    with_params: whether the parameters are kept, besides the number of the epoch.
    """
    loss, epoch = np.array(np.inf, np.float32), np.zeros((), np.int32)
    return BestState(loss=loss, epoch=epoch, params=params if with_params else {})


def update(best: BestState, params: PyTree, test: Metrics, epoch: Array) -> BestState:
    """The best epoch after `epoch`: this one, if its mean test loss is the lowest so far.

    params: after the epoch.  test: its sums; of no examples in an epoch that was not trained.
    """
    loss = test.loss_sum / jnp.asarray(test.count, jnp.float32)
    lower = loss < best.loss  # False for the 0 / 0 of no examples
    candidate = BestState(
        loss=loss,
        epoch=jnp.asarray(epoch, jnp.int32),
        params=params if jax.tree.leaves(best.params) else {},
    )
    return jax.tree.map(lambda new, old: jnp.where(lower, new, old), candidate, best)


def is_active(best: BestState, epoch: Array | int, patience: int) -> Array:
    """[...] bool: whether `epoch`, counted from 1, is still to be trained.

    best: after the epochs before it.  patience: 0 for a training that never stops early.
    """
    if patience == 0:
        return jnp.ones_like(best.epoch, dtype=bool)
    return epoch - 1 - best.epoch < patience
