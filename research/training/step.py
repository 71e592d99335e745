"""One training step: a pure function of the state, a batch and a seed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import prng
from research.runtime import sharding
from research.structs import Array, Batch, Dataset, EarlyStoppingState, Metrics, PyTree, TrainState
from research.training import early_stopping, losses, metrics
from research.training.augment import Augment

Probe = Callable[[PyTree, PyTree], Mapping[str, Array]]
Snapshot = Callable[[PyTree, jax.Array, "Derivatives"], Mapping[str, Array]]
Measure = Callable[[PyTree, Dataset], Mapping[str, Array]]
Adversarial = Callable[[PyTree, jax.Array, Batch], jax.Array]


class Loop(NamedTuple):
    """The settings of a training: of its steps, its epochs and its end.

    epochs: how many, unless it stops early.  batch_size, eval_batch_size: images in a batch of the
    training and the test set.
    probe: (gradients, signals) -> statistics of every step; signals are the gradients at the
    pre-activations, from the collection `perturbations` of the net.  It cannot change the training.
    snapshot: (params, inputs, derivatives) -> statistics of the net after every epoch, of one
    batch, see `epoch.snapshot_batch`; only with a probe.
    measure: (params, training set) -> numbers {name: []} of the net after every epoch, for
    metrics.jsonl; of images that are resident.
    passes: how many times an epoch goes through the training set.
    init_images: how many images the net is initialised with; more than one if that looks at them.
    augment: random changes of the training images, see `training.augment`.
    adversarial: (params, key, batch) -> images [B, H, W, C] uint8, after `augment` and by the
    parameters before the update; the step learns from these images alone and counts them alone.
    label_smoothing, floor: of the loss in training, and `floor` of that in the test, as in
    `losses.cross_entropy`.
    patience: epochs without a lower test loss after which a seed stops; 0 for never.
    keep_best: whether `EarlyStoppingState.kept` holds the parameters of the lowest test loss.
    steps_per_dispatch: largest number of steps in one call of the compiled program, between two of
    which `fit` calls `on_steps`; 0 for a whole epoch.
    data_devices: how many devices share a batch, as in `sharding.make_mesh`.
    convolutions: whether the net has any, as in `sharding.compiler_options`.
    """

    epochs: int
    batch_size: int
    eval_batch_size: int
    probe: Probe | None = None
    snapshot: Snapshot | None = None
    measure: Measure | None = None
    passes: int = 1
    init_images: int = 1
    augment: Augment | None = None
    adversarial: Adversarial | None = None
    label_smoothing: float = 0.0
    floor: float = 0.0
    patience: int = 0
    keep_best: bool = False
    steps_per_dispatch: int = 0
    data_devices: int = 0
    convolutions: bool = False

    @property
    def tracks_best(self) -> bool:
        """Whether the states are `EarlyStoppingState`s, which know their best epoch so far."""
        return self.patience > 0 or self.keep_best


class StepOutput(NamedTuple):
    """What a step gives besides the state.

    metrics: of its batch, before the update.  probe: {statistic: [L]}, empty without a probe.
    """

    metrics: Metrics
    probe: Mapping[str, Array]


class Derivatives(NamedTuple):
    """Gradients of a batch's mean loss.

    params: with respect to the parameters.  signals: to the pre-activations, {} without a probe.
    updates: what the optimiser makes of `params`, to be added to the parameters.
    """

    params: PyTree
    signals: PyTree
    updates: PyTree


Step = Callable[[TrainState, Batch, Array, Array], tuple[TrainState, StepOutput]]


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    seed: Array | int,
    sample: Array,
    loop: Loop | None = None,
) -> TrainState:
    """The state before the first step; an EarlyStoppingState if `loop` tracks the best epoch.

    sample: images [B, H, W, C] uint8 that fix the shapes; some inits look at them.
    """
    params = model.init(prng.stream(seed, "init"), as_input(sample))["params"]
    step, opt_state = jnp.zeros((), jnp.int32), tx.init(params)
    if loop is None or not loop.tracks_best:
        return TrainState(step=step, params=params, opt_state=opt_state)
    kept = early_stopping.start(params, with_params=loop.keep_best)
    return EarlyStoppingState(step=step, params=params, opt_state=opt_state, kept=kept)


def init_states(
    model: nn.Module,
    tx: optax.GradientTransformation,
    seeds: Sequence[int],
    sample: Array,
    loop: Loop | None = None,
) -> TrainState:
    """`init_state` of every seed, stacked to NumPy arrays [S, ...].

    One program draws a net with convolutions, each layer of which has a shape of its own.  Of
    others each operation is one by itself: their layers, and those of the next net, have shapes in
    common, which are compiled once.
    """

    def init(seed: Array) -> TrainState:
        return init_state(model, tx, seed, sample, loop)

    if loop is not None and loop.convolutions:
        init = jax.jit(init, compiler_options=sharding.options_of_one_call())
    each = [init(np.asarray(seed, np.uint32)) for seed in seeds]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def as_input(images: Array) -> jax.Array:
    """uint8 images as float32 in [0, 1] (report, Part B: divided by 255)."""
    chex.assert_type(images, jnp.uint8)
    return jnp.asarray(images, jnp.float32) / 255.0


def batch_metrics(
    model: nn.Module,
    variables: PyTree,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    floor: float = 0.0,
    dropout: jax.Array | None = None,
) -> Metrics:
    """Cross-entropy and hits of the net with `variables`, summed over the batch.

    label_smoothing, floor: as in `losses.cross_entropy`.
    dropout: the key of a net in training; None for one that is evaluated.
    """
    rngs = {} if dropout is None else {"dropout": dropout}
    logits = model.apply(variables, as_input(batch.images), train=dropout is not None, rngs=rngs)
    assert isinstance(logits, jax.Array)
    per_example = losses.cross_entropy(logits, batch.labels, smoothing=label_smoothing, floor=floor)
    return metrics.count_batch(logits, per_example, batch.labels, batch.mask)


def make_gradient(
    model: nn.Module, loop: Loop
) -> Callable[[PyTree, Batch, jax.Array], tuple[PyTree, PyTree, Metrics]]:
    """gradient(params, batch, dropout): of the mean cross-entropy of the batch.

    dropout: a key.  Returns the gradients with respect to the parameters, the signals ({} without a
    probe), and the sums over the batch.
    """

    def objective(
        params: PyTree, signals: PyTree, batch: Batch, dropout: jax.Array
    ) -> tuple[Array, Metrics]:
        variables = {"params": params} | ({"perturbations": signals} if loop.probe else {})
        counted = batch_metrics(
            model,
            variables,
            batch,
            label_smoothing=loop.label_smoothing,
            floor=loop.floor,
            dropout=dropout,
        )
        return counted.loss_sum / jnp.maximum(counted.count, 1).astype(jnp.float32), counted

    def gradient(
        params: PyTree, batch: Batch, dropout: jax.Array
    ) -> tuple[PyTree, PyTree, Metrics]:
        signals = _zero_signals(model, batch.images) if loop.probe else {}
        differentiated = jax.grad(objective, argnums=(0, 1), has_aux=True)
        (gradients, signals), counted = differentiated(params, signals, batch, dropout)
        return gradients, signals, counted

    return gradient


def make_step(model: nn.Module, tx: optax.GradientTransformation, loop: Loop) -> Step:
    """step(state, batch, seed, learn): one update by the mean cross-entropy of the batch.

    seed: [] uint32; dropout, augmentation and adversarial images draw from streams of it, each at
    the number of updates done, so that a step depends on nothing that came before but the state.
    learn: [] bool; False leaves the state as it is, to probe a net before it is trained.  So does a
    batch that is masked as a whole, which fills up the last piece of an epoch.
    """
    gradient = make_gradient(model, loop)

    def step(
        state: TrainState, batch: Batch, seed: Array, learn: Array
    ) -> tuple[TrainState, StepOutput]:
        chex.assert_equal_shape_prefix([batch.images, batch.labels, batch.mask], 1)
        if loop.augment is not None:
            key = prng.stream(seed, "augment", state.step)
            batch = Batch(loop.augment(key, batch.images), batch.labels, batch.mask)
        if loop.adversarial is not None:
            # The name of a stream decides its numbers: this one stays, whatever the code is called.
            key = prng.stream(seed, "harden", state.step)
            batch = Batch(loop.adversarial(state.params, key, batch), batch.labels, batch.mask)
        dropout = prng.stream(seed, "dropout", state.step)
        gradients, signals, counted = gradient(state.params, batch, dropout)
        # The gradients that the update needs anyway: the probe adds no second backward pass.
        statistics = loop.probe(gradients, signals) if loop.probe else {}
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        after = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        # Selected rather than skipped: momentum and weight decay would move even without gradients.
        learn = learn & (counted.count > 0)
        state = jax.tree.map(lambda new, old: jnp.where(learn, new, old), after, state)
        return state, StepOutput(counted, statistics)

    return step


def _zero_signals(model: nn.Module, images: Array) -> PyTree:
    """Zeros in the shape of every pre-activation: the gradient at them is that of the signals."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), as_input(images))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["perturbations"])
