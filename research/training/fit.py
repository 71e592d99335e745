"""One training loop for every experiment: a step is a function, an epoch a scan, seeds an axis.

A batch takes five calls to its update: `fit` -> `epoch` -> `steps` -> `body` of the scan -> `step`
-> `tx.update`.  The first is here, `step` in step.py, those between in epoch.py.
"""

import time
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np
import optax

from research.runtime import sharding
from research.structs import Dataset, PyTree, TrainState, check_classes
from research.training import divergence, early_stopping
from research.training.epoch import EpochResult, OnSteps, make_epoch
from research.training.step import Loop, as_input, init_states


def fit(
    model: nn.Module,
    tx: optax.GradientTransformation,
    train: Dataset,
    test: Dataset,
    loop: Loop,
    *,
    seeds: Sequence[int],
    resume: tuple[int, TrainState] | None,
    on_epoch: Callable[[int, PyTree, EpochResult, float], None],
    on_steps: OnSteps = lambda number, done, steps: None,
) -> PyTree:
    """Train one net per seed, all in one program, and return their states [S, ...] (NumPy).

    train, test: images uint8.  `LazyImages` that are not resident are read from the disk as they
    are needed, others are copied to the devices.
    resume: (epochs done, states [S, ...]) of an earlier run, or None.
    on_epoch(number, states, result, seconds): called after every epoch with NumPy arrays [S, ...];
    number 0, of a training with a probe, is that of the initial nets over the batches of epoch 1.
    on_steps(number, done, steps): called within an epoch after every piece of
    `loop.steps_per_dispatch` steps; what it raises ends the training, and the epoch is lost.
    With loop.patience a seed that has stopped keeps its state while others go on.
    Raises ValueError for labels that are no integers or not below the number of outputs, and
    Diverged, before on_epoch sees the epoch, when a loss is not finite.
    """
    mesh = sharding.make_mesh(len(seeds), data_devices=loop.data_devices)
    epoch = make_epoch(model, tx, loop, train, test, seeds=seeds, mesh=mesh)
    sample = np.asarray(train.images[: loop.init_images])
    host: PyTree = init_states(model, tx, seeds, sample, loop)
    one: PyTree = {"params": jax.tree.map(lambda leaf: leaf[0], host.params)}
    classes = jax.eval_shape(model.apply, one, as_input(sample)).shape[-1]
    for name, data in (("training labels", train), ("test labels", test)):
        _ = check_classes(data.labels, name, classes)
    first = 0 if loop.probe else 1
    if resume is not None:
        first, host = resume[0] + 1, resume[1]
    states = sharding.place_seeds(host, mesh)
    for number in range(first, loop.epochs + 1):
        if loop.patience and not early_stopping.is_active(host.kept, number, loop.patience).any():
            break
        began, before = time.monotonic(), host
        states, result = epoch(states, number, on_steps)
        host, result = sharding.fetch_seeds((states, result), len(seeds))
        divergence.check(model, tx, loop, train, before, result, seeds=seeds, number=number)
        on_epoch(number, host, result, time.monotonic() - began)
    return host
