"""One epoch of every seed: its batches in pieces, then the test set.

A piece is one call of a compiled program, a scan over as many steps as `Loop.steps_per_dispatch`
says; there is a single one if it is 0.  Resident and streamed images take the same way.  A resident
data set stays on the devices as a whole, and a step gathers its batch by index; of a streamed one
the batches of a piece are read from the disk while the piece before it is computed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import prng
from research.data import batching
from research.data.lazy_images import read_ahead
from research.runtime import distributed, sharding
from research.structs import Array, Batch, BestState, Dataset, Metrics, PyTree, TrainState
from research.training import early_stopping, evaluate, metrics, probes
from research.training.step import (
    Derivatives,
    Loop,
    StepOutput,
    as_input,
    make_gradient,
    make_step,
)

OnSteps = Callable[[int, int, int], None]  # of the epoch, its steps done, and all its steps


@flax.struct.dataclass
class EpochResult:
    """What one epoch leaves behind, besides the states.

    train: sums over the epoch, those of each batch just before its update, on the images that the
    step learns from (see `Loop`).  test: after the epoch.
    probe: {statistic_reduction: [L]} over the steps, and {statistic: [L]} of the net after them, as
    `Loop.probe` and `Loop.snapshot` give them.
    bad_step: [] int32, first step of the epoch whose loss is not finite, or -1.
    trained: [] bool, False where the training had stopped early before this epoch: its sums are of
    no examples then.
    """

    train: Metrics
    test: Metrics
    probe: dict[str, Array]
    bad_step: Array
    trained: Array
    measured: dict[str, Array] = flax.struct.field(default_factory=dict)


def epoch_order(
    seed: Array | int, number: Array | int, examples: int, batch_size: int, passes: int = 1
) -> tuple[Array, Array]:
    """Indices [T, B] int32 and mask [T, B] bool of the batches of epoch `number`.

    Epoch 0, which probes the initial net, has the batches of epoch 1: what it records is what the
    first epoch would have seen, had it not learned.  Each of several passes is shuffled anew.
    """
    numbers = passes * jnp.maximum(number, 1) - jnp.arange(passes, dtype=jnp.int32)[::-1]
    indices, mask = jax.vmap(
        lambda each: batching.epoch_order(prng.stream(seed, "order", each), examples, batch_size)
    )(numbers)
    return indices.reshape(-1, batch_size), mask.reshape(-1, batch_size)


def make_steps(
    model: nn.Module, tx: optax.GradientTransformation, loop: Loop
) -> Callable[..., tuple[TrainState, StepOutput]]:
    """steps(state, (seed, batches), number, data): the steps of one piece of epoch `number`.

    batches: a Batch [T, B, ...], or (indices [T, B] int32, mask [T, B] bool) into the Dataset
    `data`, which is None otherwise.  Returns the state after them and outputs [T, ...].  Nothing is
    learned in epoch 0, nor by a seed that has stopped: its outputs are zeros.
    """
    step = make_step(model, tx, loop)

    def steps(
        state: PyTree, seeded: tuple[Array, PyTree], number: Array, data: Dataset | None
    ) -> tuple[TrainState, StepOutput]:
        seed, batches = seeded

        def body(state: TrainState, batch: PyTree) -> tuple[TrainState, StepOutput]:
            # Gathered here, a batch at a time: no second, shuffled copy of the data set is held.
            batch = batch if data is None else batching.gather(data, *batch)
            return step(state, batch, seed, number > 0)

        def train() -> tuple[TrainState, StepOutput]:
            return jax.lax.scan(body, state, batches)

        if loop.patience == 0:
            return train()
        # A seed that has stopped is skipped, not masked: on the CPU, where the seeds of a device
        # run one after the other, it then costs nothing.
        outputs = jax.eval_shape(train)[1]
        idle = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
        active = early_stopping.is_active(state.kept, number, loop.patience)
        return jax.lax.cond(active, train, lambda: (state, idle))

    return steps


def make_test(model: nn.Module, loop: Loop) -> Callable[..., Metrics]:
    """test(state, seed, number, data, count): sums over the first `count` examples of `data`.

    count: [] int32, or None for all.  Of no examples for a seed that has stopped.
    """

    def test(state: PyTree, _: Array, number: Array, data: Dataset, count: Array | None) -> Metrics:
        def run() -> Metrics:
            size = loop.eval_batch_size
            return evaluate.evaluate(
                model, state.params, data, batch_size=size, floor=loop.floor, count=count
            )

        if loop.patience == 0:
            return run()
        active = early_stopping.is_active(state.kept, number, loop.patience)
        return jax.lax.cond(active, run, metrics.zero)

    return test


def make_summary(loop: Loop) -> Callable[..., tuple[BestState | None, EpochResult]]:
    """summary((state, output, tested), seed, number): the best epoch so far, and the result.

    state: after the epoch.  output: of all its steps, [T, ...].  tested: sums over the test set.
    The best epoch is None if `loop` does not track it.
    """

    def summary(
        ended: tuple[PyTree, StepOutput, Metrics], _: Array, number: Array
    ) -> tuple[BestState | None, EpochResult]:
        state, output, tested = ended
        finite = jnp.isfinite(output.metrics.loss_sum)
        result = EpochResult(
            train=metrics.total(output.metrics),
            test=tested,
            probe=probes.over_epoch(output.probe),
            bad_step=jnp.where(jnp.all(finite), -1, jnp.argmin(finite)).astype(jnp.int32),
            trained=tested.count > 0,
        )
        if not loop.tracks_best:
            return None, result
        return early_stopping.update(state.kept, state.params, tested, number), result

    return summary


def snapshot_batch(train: Dataset, batch_size: int) -> Batch:
    """The batch [B] that snapshots are taken on: one for all seeds and epochs, drawn at random."""
    order = jax.jit(batching.epoch_order, static_argnums=(1, 2))  # one program for twenty
    indices, mask = order(prng.stream(0, "snapshot"), len(train.images), batch_size)
    places = np.asarray(indices[0])
    return Batch(train.images[places], np.asarray(train.labels)[places], np.asarray(mask[0]))


def make_snapshot(
    model: nn.Module, tx: optax.GradientTransformation, loop: Loop
) -> Callable[..., Mapping[str, Array]]:
    """snapshot(state, seed, batch): what `loop.snapshot` sees of the net as it is."""
    gradient = make_gradient(model, loop)
    take = loop.snapshot
    assert take is not None

    def snapshot(state: PyTree, seed: Array, batch: Batch) -> Mapping[str, Array]:
        dropout = prng.stream(seed, "dropout", state.step)
        gradients, signals, _ = gradient(state.params, batch, dropout)
        updates, _ = tx.update(gradients, state.opt_state, state.params)
        derivatives = Derivatives(gradients, signals, updates)
        return take(state.params, as_input(batch.images), derivatives)

    return snapshot


def place_pieces(
    order: tuple[np.ndarray, np.ndarray], train: Dataset, size: int, mesh: jax.sharding.Mesh
) -> Iterator[PyTree]:
    """The batches of every piece of an epoch, on the devices, as `make_steps` takes them.

    order: indices and mask [S, T, B].  Resident images: (indices, mask) of `size` batches; streamed
    images: a Batch of them, read while the piece before it is computed.
    """
    count = order[0].shape[1]
    # All pieces have one shape, so that one program is compiled; those steps of the last one that
    # are beyond the epoch are masked as a whole, and change nothing.
    filled = ((0, 0), (0, -count % size), (0, 0))
    indices, mask = (sharding.fill_batches(np.pad(part, filled), mesh) for part in order)
    shape = (len(indices), size, indices.shape[2])
    own = sharding.own_batches(shape, mesh)
    pieces = [
        tuple(part[:, first : first + size][own] for part in (indices, mask))
        for first in range(0, count, size)
    ]
    batches: Iterable[PyTree] = pieces
    if evaluate.is_streamed(train.images):
        labels = np.asarray(train.labels)
        images = read_ahead(train.images, [indices for indices, _ in pieces])
        batches = (
            Batch(read, labels[indices], mask)
            for read, (indices, mask) in zip(images, pieces, strict=True)
        )
    for each in batches:
        yield sharding.place_batches(each, shape, mesh)


def make_epoch(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loop: Loop,
    train: Dataset,
    test: Dataset,
    *,
    seeds: Sequence[int],
    mesh: jax.sharding.Mesh,
    batched: bool | None = None,
) -> Callable[[PyTree, int, OnSteps], tuple[PyTree, EpochResult]]:
    """epoch(states, number, on_steps): train and test every seed; number 0 does not learn.

    states: [S, ...], placed on the mesh.  Returns those after the epoch, and an EpochResult [S, ..]
    on the devices.  on_steps: called after every piece.
    train, test: on the host.  If the images of `train` are streamed, those of `test` are as well,
    and the memory that both take does not depend on their number.
    batched: as in `sharding.over_seeds`.
    """
    examples, streamed = len(train.images), evaluate.is_streamed(train.images)
    seed_array = sharding.place_seeds(np.asarray(seeds, np.uint32), mesh)
    count = loop.passes * batching.steps_per_epoch(examples, loop.batch_size)
    most = loop.steps_per_dispatch or count
    if streamed:  # what is read at once is of all seeds, and every process reads its part
        images = evaluate.images_in_memory(train.images) * distributed.process_count()
        most = max(1, min(most, images // (len(seed_array) * loop.batch_size)))
    size = batching.even_pieces(count, most)  # one shape, one program; see `place_pieces`
    resident, resident_test = (
        None if streamed else evaluate.place_images(data, mesh) for data in (train, test)
    )

    over_seeds = partial(
        sharding.over_seeds, mesh=mesh, batched=batched, convolutions=loop.convolutions
    )
    order = over_seeds(
        lambda _, seed, number: epoch_order(seed, number, examples, loop.batch_size, loop.passes)
    )
    steps = over_seeds(make_steps(model, tx, loop))
    test_piece = over_seeds(make_test(model, loop))
    summary = over_seeds(make_summary(loop))
    snapshot = over_seeds(make_snapshot(model, tx, loop)) if loop.snapshot else None
    still = snapshot_batch(train, loop.batch_size) if loop.snapshot else None
    take = loop.measure
    measure = over_seeds(lambda state, _, data: take(state.params, data)) if take else None

    # The states are not donated to `steps`: one copy of them a piece is too little to be measured,
    # and `fit` still holds those from before the epoch.
    def epoch(states: PyTree, number: int, on_steps: OnSteps) -> tuple[PyTree, EpochResult]:
        at, outputs = np.int32(number), list[StepOutput]()
        orders = sharding.fetch(order(seed_array, seed_array, at))
        for i, batches in enumerate(place_pieces(orders, train, size, mesh)):
            states, output = steps(states, (seed_array, batches), at, resident)
            outputs.append(jax.block_until_ready(output))
            on_steps(number, min((i + 1) * size, count), count)
        output = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1)[:, :count], *outputs)
        test_pieces = (
            evaluate.read_pieces(test, loop.eval_batch_size, mesh)
            if streamed
            else [(resident_test, None)]
        )
        tested = [test_piece(states, seed_array, at, *piece) for piece in test_pieces]
        tested = jax.tree.map(lambda *sums: reduce(jnp.add, sums), *tested)
        best, result = summary((states, output, tested), seed_array, at)
        if snapshot is not None:
            taken = snapshot(states, seed_array, still)
            result = result.replace(probe={**result.probe, **taken})
        if measure is not None:
            result = result.replace(measured=measure(states, seed_array, resident))
        return states if best is None else states.replace(kept=best), result

    return epoch
