"""One training loop for every experiment: a step is a function, an epoch a scan, seeds an axis."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import prng
from research.data import batching
from research.data.memmap import Stored, read_ahead
from research.runtime import distributed, sharding
from research.structs import (
    Array,
    Batch,
    BestState,
    Dataset,
    EarlyStoppingState,
    Metrics,
    PyTree,
    TrainState,
)
from research.training import augment, early_stopping, losses, metrics, probes

Probe = Callable[[PyTree, PyTree], Mapping[str, Array]]
Harden = Callable[[PyTree, jax.Array, Batch], jax.Array]  # of params and a key, see `make_step`
_READ_BYTES = 2**25  # of images that are read from the disk at once
StepOutput = tuple[Metrics, Mapping[str, Array]]  # what a step leaves besides the state
Step = Callable[[TrainState, Batch, Array, Array], tuple[TrainState, StepOutput]]


@flax.struct.dataclass
class EpochResult:
    """What one epoch leaves behind.

    train: sums over the epoch, each batch judged just before its update, on the images that the
    step learns from (see `make_step`).  test: after the epoch.
    probe: {statistic_reduction: [L]}.  bad_step: [] int32, first step of the epoch whose loss is
    not finite, or -1.  trained: [] bool, False where the training had stopped early before this
    epoch: its sums are of no examples then.
    """

    train: Metrics
    test: Metrics
    probe: dict[str, Array]
    bad_step: Array
    trained: Array


class Diverged(Exception):
    """A loss is not finite; `layer` is the first one whose output is not."""

    def __init__(self, epoch: int, step: int, seed: int, layer: str) -> None:
        super().__init__(
            f"the loss of seed {seed} is not finite at step {step} (epoch {epoch}); "
            f"the first layer with a non-finite value is {layer}"
        )
        self.epoch, self.step, self.seed, self.layer = epoch, step, seed, layer


def as_input(images: Array) -> jax.Array:
    """uint8 images as float32 in [0, 1] (report, Part B: divided by 255)."""
    chex.assert_type(images, jnp.uint8)
    return jnp.asarray(images, jnp.float32) / 255.0


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    seed: Array | int,
    sample: Array,
    loop: "Loop | None" = None,
) -> TrainState:
    """The state before the first step; sample: images [B, H, W, C] uint8 that fix the shapes.

    loop: of a training that stops early or keeps its best net, if it may be one.
    """
    params = model.init(prng.stream(seed, "init"), as_input(sample[:1]))["params"]
    step, opt_state = jnp.zeros((), jnp.int32), tx.init(params)
    if loop is None or not (loop.patience or loop.keep_best):
        return TrainState(step=step, params=params, opt_state=opt_state)
    kept = early_stopping.start(params, with_params=loop.keep_best)
    return EarlyStoppingState(step=step, params=params, opt_state=opt_state, kept=kept)


def init_states(
    model: nn.Module,
    tx: optax.GradientTransformation,
    seeds: Sequence[int],
    sample: Array,
    loop: "Loop | None" = None,
) -> TrainState:
    """`init_state` of every seed, stacked: [S, ...].

    Not compiled as a whole: forty layers' draws take seconds to compile and run in a moment one by
    one, each shape compiled once.
    """
    each = [init_state(model, tx, seed, sample, loop) for seed in seeds]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def judge(
    model: nn.Module,
    variables: PyTree,
    batch: Batch,
    *,
    smoothing: float = 0.0,
    floor: float = 0.0,
    dropout: jax.Array | None = None,
) -> Metrics:
    """Cross-entropy and hits of the net with `variables`, summed over the batch.

    smoothing, floor: as in `losses.cross_entropy`.
    dropout: the key if the net is in training, else None.
    """
    rngs = {} if dropout is None else {"dropout": dropout}
    logits = model.apply(variables, as_input(batch.images), train=dropout is not None, rngs=rngs)
    assert isinstance(logits, jax.Array)
    per_example = losses.cross_entropy(logits, batch.labels, smoothing=smoothing, floor=floor)
    return metrics.count_batch(logits, per_example, batch.labels, batch.mask)


def make_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    probe: Probe | None = None,
    change: augment.Augment | None = None,
    harden: Harden | None = None,
    smoothing: float = 0.0,
    floor: float = 0.0,
) -> Step:
    """step(state, batch, seed, learn): descend the mean cross-entropy of the batch.

    seed: [] uint32; dropout, `change` and `harden` draw from streams of it, at the state's step.
    learn: [] bool, False leaves the state as it is, to probe a net before it is trained; so does
    a batch that is masked as a whole.
    probe: (gradients, signals) -> statistics, from the gradients that the step has computed
    anyway; signals are those of the collection `perturbations`.  It cannot change the parameters.
    change: of the training images, see `research.augment`.
    harden: of the images after `change`, by the parameters before the update: what it returns,
    [B, H, W, C] uint8, is all that the step learns from and counts.
    smoothing, floor: as in `losses.cross_entropy`.
    """

    def objective(
        params: PyTree, signals: PyTree, batch: Batch, dropout: jax.Array
    ) -> tuple[Array, Metrics]:
        variables = {"params": params} | ({"perturbations": signals} if probe else {})
        counted = judge(model, variables, batch, smoothing=smoothing, floor=floor, dropout=dropout)
        return counted.loss_sum / jnp.maximum(counted.count, 1).astype(jnp.float32), counted

    def step(
        state: TrainState, batch: Batch, seed: Array, learn: Array
    ) -> tuple[TrainState, StepOutput]:
        chex.assert_equal_shape_prefix([batch.images, batch.labels, batch.mask], 1)
        if change is not None:
            key = prng.stream(seed, "augment", state.step)
            batch = Batch(change(key, batch.images), batch.labels, batch.mask)
        if harden is not None:
            key = prng.stream(seed, "harden", state.step)
            batch = Batch(harden(state.params, key, batch), batch.labels, batch.mask)
        signals = _zero_signals(model, batch.images) if probe else {}
        gradient = jax.grad(objective, argnums=(0, 1), has_aux=True)
        dropout = prng.stream(seed, "dropout", state.step)
        (gradients, back_signals), counted = gradient(state.params, signals, batch, dropout)
        statistics = probe(gradients, back_signals) if probe else {}
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        after = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        learn = learn & (counted.count > 0)
        kept = jax.tree.map(lambda new, old: jnp.where(learn, new, old), after, state)
        return kept, (counted, statistics)

    return step


def run_steps(
    step: Step,
    state: TrainState,
    entries: PyTree,
    pick: Callable[[Any], Batch],
    seed: Array,
    learn: Array,
) -> tuple[TrainState, StepOutput]:
    """Scan `step` over the batches pick(entry), of entries [T, ...]; results stacked along T."""

    def body(state: TrainState, entry: Any) -> tuple[TrainState, Any]:
        return step(state, pick(entry), seed, learn)

    return jax.lax.scan(body, state, entries)


def picker(data: Dataset) -> Callable[[tuple[Array, Array]], Batch]:
    """pick(entry): the batch of entry = (indices [B], mask [B]), divided among its devices."""
    return lambda entry: batching.gather(data, *sharding.split(entry))


def evaluate(
    model: nn.Module,
    params: PyTree,
    data: Dataset,
    *,
    batch_size: int,
    floor: float = 0.0,
    count: Array | None = None,
) -> Metrics:
    """Exact sums over every example of `data`, each counted once.

    count: [] int32, if only so many of them are to be counted.
    """

    pick = picker(data)

    def body(_: None, entry: tuple[Array, Array]) -> tuple[None, Metrics]:
        indices, mask = entry
        mask = mask if count is None else mask & (indices < count)
        return None, judge(model, {"params": params}, pick((indices, mask)), floor=floor)

    _, stacked = jax.lax.scan(body, None, batching.pad_batches(len(data.images), batch_size))
    return metrics.total(stacked)


def predict(model: nn.Module, params: PyTree, images: Array, *, batch_size: int) -> jax.Array:
    """Logits [N, K] float32 of images [N, H, W, C] uint8, in their order, each computed once."""
    pick = picker(Dataset(images=images, labels=jnp.zeros(len(images), jnp.int32)))

    def body(_: None, entry: tuple[Array, Array]) -> tuple[None, Any]:
        logits: Any = model.apply({"params": params}, as_input(pick(entry).images))
        return None, logits[:batch_size]  # without what `split` has filled it up with

    _, stacked = jax.lax.scan(body, None, batching.pad_batches(len(images), batch_size))
    return stacked.reshape(-1, stacked.shape[-1])[: len(images)]


def predict_all(
    model: nn.Module, params: PyTree, images: Array, loop: "Loop", *, seeds: int
) -> np.ndarray:
    """Logits [S, N, K] of every seed's net with params [S, ...], each image judged once."""
    mesh = sharding.make_mesh(seeds, data_devices=loop.data_devices)
    program = sharding.over_seeds(
        lambda params, _, images: predict(model, params, images, batch_size=loop.eval_batch_size),
        mesh,
        convolutions=loop.convolutions,
    )
    placed = sharding.place_seeds(params, mesh)
    numbers = sharding.place_seeds(np.arange(seeds, dtype=np.uint32), mesh)
    if not _streams(images):
        logits = program(placed, numbers, place_images(images, mesh))
        return sharding.fetch_seeds(logits, seeds)
    unlabelled = Dataset(images, np.zeros(len(images), np.int32))
    parts: list[np.ndarray] = []
    for piece, _ in _test_pieces(unlabelled, loop.eval_batch_size, mesh):
        logits = program(placed, numbers, piece.images)
        parts.append(sharding.fetch_seeds(logits, seeds))
    return np.concatenate(parts, axis=1)[:, : len(images)]


class Loop(NamedTuple):
    """The settings of `fit` that shape its program.

    probe, change, harden, smoothing, floor: as in `make_step`.
    patience: epochs without a lower test loss after which a seed stops; 0 for never.
    keep_best: whether `TrainState.kept` holds the parameters after the epoch of lowest test loss.
    steps_per_dispatch: most steps after which `fit` comes up for air within an epoch; 0 for never.
    data_devices: how many devices share a batch, see `parallel.make_mesh`.
    convolutions: whether the net has any, see `parallel.compiler_options`.
    """

    epochs: int
    batch_size: int
    eval_batch_size: int
    probe: Probe | None = None
    change: augment.Augment | None = None
    harden: Harden | None = None
    smoothing: float = 0.0
    floor: float = 0.0
    patience: int = 0
    keep_best: bool = False
    steps_per_dispatch: int = 0
    data_devices: int = 0
    convolutions: bool = False


def make_steps(
    model: nn.Module, tx: optax.GradientTransformation, loop: Loop, count: int
) -> Callable[..., tuple[TrainState, StepOutput]]:
    """steps(state, seed, number, first, train): `count` steps of epoch `number` from `first` on.

    Results are stacked along `count`; those beyond the epoch's last step are of empty batches.
    """
    run = _make_run(model, tx, loop)

    def steps(
        state: TrainState, seed: Array, number: Array, first: Array | int, train: Dataset
    ) -> tuple[TrainState, StepOutput]:
        order = _order(seed, number, len(train.images), loop)
        if count < len(order[0]):
            order = batching.rows_from(order, first, count)
        return run(state, seed, number, order, picker(train))

    return steps


def test_epoch(
    model: nn.Module,
    loop: Loop,
    state: TrainState,
    number: Array,
    test: Dataset,
    count: Array | None = None,
) -> Metrics:
    """Sums over the test set, or `count` images of it, after epoch `number`.

    Of no images, if the seed had stopped before.
    """

    def go() -> Metrics:
        size = loop.eval_batch_size
        return evaluate(model, state.params, test, batch_size=size, floor=loop.floor, count=count)

    return _unless_stopped(loop, state, number, go, metrics.none)


def close_epoch(
    state: TrainState, number: Array, taken: StepOutput, tested: Metrics
) -> tuple[BestState | None, EpochResult]:
    """What the steps of one epoch, stacked along T, and the tested net after them amount to.

    state: after them.  Returns what a `EarlyStoppingState` is to keep, else None, and the result.
    """
    counted, statistics = taken
    finite = jnp.isfinite(counted.loss_sum)
    result = EpochResult(
        train=metrics.total(counted),
        test=tested,
        probe=probes.over_epoch(statistics),
        bad_step=jnp.where(jnp.all(finite), -1, jnp.argmin(finite)).astype(jnp.int32),
        trained=tested.count > 0,
    )
    if not isinstance(state, EarlyStoppingState):
        return None, result
    return early_stopping.update(state.kept, state.params, tested, number), result


def make_epoch(
    model: nn.Module, tx: optax.GradientTransformation, loop: Loop
) -> Callable[..., tuple[TrainState, EpochResult]]:
    """epoch(state, seed, number, train, test) for one seed, `number` counting from 1.

    Number 0 goes over the batches of epoch 1 without learning.
    """

    def epoch(
        state: TrainState, seed: Array, number: Array, train: Dataset, test: Dataset
    ) -> tuple[TrainState, EpochResult]:
        count = batching.steps_per_epoch(len(train.images), loop.batch_size)
        state, taken = make_steps(model, tx, loop, count)(state, seed, number, 0, train)
        tested = test_epoch(model, loop, state, number, test)
        kept, result = close_epoch(state, number, taken, tested)
        return _keeping(state, kept), result

    return epoch


def make_program(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loop: Loop,
    mesh: jax.sharding.Mesh,
    examples: int,
    on_steps: Callable[[int, int, int], None],
) -> Callable[..., tuple[PyTree, PyTree]]:
    """program(states, seeds, number, train, test): one epoch of every seed, compiled.

    examples: how many there are in `train`.
    on_steps(number, done, steps): called within the epoch, at least every
    `loop.steps_per_dispatch` steps.
    """
    over_seeds = partial(sharding.over_seeds, mesh=mesh, convolutions=loop.convolutions)
    if not loop.steps_per_dispatch:
        return over_seeds(make_epoch(model, tx, loop))
    count = batching.steps_per_epoch(examples, loop.batch_size)
    size = batching.even_pieces(count, loop.steps_per_dispatch)
    some = over_seeds(make_steps(model, tx, loop, size))

    def end(ended: PyTree, _: Array, number: Array, test: Dataset) -> PyTree:
        state, taken = ended
        tested = test_epoch(model, loop, state, number, test)
        return close_epoch(state, number, taken, tested)

    close = over_seeds(end)

    def program(
        states: PyTree, seeds: Array, number: Array, train: Dataset, test: Dataset
    ) -> tuple[PyTree, PyTree]:
        parts: list[StepOutput] = []
        for first in range(0, count, size):
            states, taken = some(states, seeds, number, np.int32(first), train)
            parts.append(jax.block_until_ready(taken))
            on_steps(int(number), min(first + size, count), count)
        kept, result = close((states, _joined(parts, count)), seeds, number, test)
        return _keeping(states, kept), result

    return program


def make_streaming_program(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loop: Loop,
    mesh: jax.sharding.Mesh,
    examples: int,
    on_steps: Callable[[int, int, int], None],
) -> Callable[..., tuple[PyTree, PyTree]]:
    """`make_program` for `Stored` images: a piece is read while the one before it is computed.

    Its steps are the same to the bit.  The memory it takes does not depend on the number of images.
    """
    over_seeds = partial(sharding.over_seeds, mesh=mesh, convolutions=loop.convolutions)
    count = batching.steps_per_epoch(examples, loop.batch_size)
    run = _make_run(model, tx, loop)

    def fed(state: TrainState, given: PyTree, number: Array) -> tuple[TrainState, StepOutput]:
        seed, batches = given
        return run(state, seed, number, batches, lambda batch: batch)

    some = over_seeds(fed)
    close = over_seeds(lambda ended, _, number: close_epoch(ended[0], number, *ended[1:]))
    test_some = over_seeds(
        lambda state, _, number, data, valid: test_epoch(model, loop, state, number, data, valid)
    )
    orders = jax.jit(
        jax.vmap(lambda seed, number: _order(seed, number, examples, loop), in_axes=(0, None))
    )

    def program(
        states: PyTree, seeds: Array, number: Array, train: Dataset, test: Dataset
    ) -> tuple[PyTree, PyTree]:
        stored: Any = train.images
        order, mask = sharding.fetch(orders(sharding.fetch(seeds), number))
        most = (
            _images_in_memory(stored)
            * distributed.process_count()
            // (len(seeds) * loop.batch_size)
        )
        size = batching.even_pieces(count, max(1, min(most, loop.steps_per_dispatch or most)))
        filled = ((0, 0), (0, -count % size), (0, 0))
        order, mask = (sharding.fill_batches(np.pad(part, filled), mesh) for part in (order, mask))
        shape = (len(order), size, order.shape[2])
        own = sharding.own_batches(shape, mesh)
        places, masks = (
            [piece[own] for piece in np.split(part, part.shape[1] // size, axis=1)]
            for part in (order, mask)
        )
        parts: list[StepOutput] = []
        for i, images in enumerate(read_ahead(stored, places)):
            batches = Batch(images, np.asarray(train.labels)[places[i]], masks[i])
            placed = sharding.place_batches(batches, shape, mesh)
            states, taken = some(states, (seeds, placed), number)
            parts.append(jax.block_until_ready(taken))
            on_steps(int(number), min((i + 1) * size, count), count)
        tested: Any = None
        for data, valid in _test_pieces(test, loop.eval_batch_size, mesh):
            found = test_some(states, seeds, number, data, valid)
            tested = found if tested is None else jax.tree.map(jnp.add, tested, found)
        kept, result = close((states, _joined(parts, count), tested), seeds, number)
        return _keeping(states, kept), result

    return program


def fit(
    model: nn.Module,
    tx: optax.GradientTransformation,
    train: Dataset,
    test: Dataset,
    loop: Loop,
    *,
    seeds: Sequence[int],
    resume: tuple[int, TrainState] | None,
    on_epoch: Callable[[int, TrainState, EpochResult, float], None],
    on_steps: Callable[[int, int, int], None] = lambda number, done, steps: None,
) -> TrainState:
    """Train one net per seed, all in one program, and return their states [S, ...] (NumPy).

    train, test: with `Stored` images that are not resident, they are read from the disk as they are
    needed, else they are copied to the devices.
    resume: (epochs done, states [S, ...]) of an earlier run, or None.
    on_epoch(number, states, result, seconds): called after every epoch with NumPy arrays [S, ...];
    number 0 is the probe of the initial nets, over all the batches of epoch 1.
    on_steps(number, done, steps): called within an epoch if loop.steps_per_dispatch asks for it;
    what it raises ends the training, and the epoch is lost.
    With loop.patience a seed that has stopped keeps its state while others go on.
    Raises Diverged, before on_epoch sees the epoch, when a loss is not finite.
    """
    mesh = sharding.make_mesh(len(seeds), data_devices=loop.data_devices)
    sample, given = np.asarray(train.images[:1]), train
    streams = _streams(train.images)
    if not streams:
        train, test = (place_images(part, mesh) for part in (train, test))
    seed_array = sharding.place_seeds(np.asarray(seeds, np.uint32), mesh)

    make = make_streaming_program if streams else make_program
    program = make(model, tx, loop, mesh, len(train.images), on_steps)
    host = init_states(model, tx, seeds, sample, loop) if resume is None else resume[1]
    states = sharding.place_seeds(host, mesh)
    first = resume[0] + 1 if resume else 0 if loop.probe else 1
    for number in range(first, loop.epochs + 1):
        if not np.any(_goes_on(loop, host, number)):
            break
        began = time.monotonic()
        before = states
        states, result = program(before, seed_array, np.int32(number), train, test)
        host, found = sharding.fetch_seeds((states, result), len(seeds))
        row = _diverged_seed(found)
        if row is not None:
            state = jax.tree.map(lambda leaf, row=row: leaf[row], sharding.fetch(before))
            bad_step = int(found.bad_step[row])
            raise _diagnose(model, tx, loop, given, state, seeds[row], number, bad_step)
        on_epoch(number, host, found, time.monotonic() - began)
    return sharding.fetch_seeds(states, len(seeds))


def _make_run(
    model: nn.Module, tx: optax.GradientTransformation, loop: Loop
) -> Callable[..., tuple[TrainState, StepOutput]]:
    """run(state, seed, number, entries, pick): `run_steps`, unless the seed has stopped."""
    step = make_step(
        model,
        tx,
        probe=loop.probe,
        change=loop.change,
        harden=loop.harden,
        smoothing=loop.smoothing,
        floor=loop.floor,
    )

    def run(
        state: TrainState, seed: Array, number: Array, entries: PyTree, pick: Callable[[Any], Batch]
    ) -> tuple[TrainState, StepOutput]:
        def go() -> tuple[TrainState, StepOutput]:
            return run_steps(step, state, entries, pick, seed, number > 0)

        def rest() -> tuple[TrainState, StepOutput]:
            taken = jax.eval_shape(go)[1]
            return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), taken)

        return _unless_stopped(loop, state, number, go, rest)

    return run


def _unless_stopped(
    loop: Loop, state: TrainState, number: Array, go: Callable[[], Any], rest: Callable[[], Any]
) -> Any:
    """go(), or rest() if the seed had stopped before epoch `number`."""
    if loop.patience == 0:
        return go()
    return jax.lax.cond(_goes_on(loop, state, number), go, rest)


def _goes_on(loop: Loop, state: TrainState, number: Array | int) -> Any:
    """[...] bool: whether epoch `number` is still to be trained."""
    if not isinstance(state, EarlyStoppingState):
        return True
    return early_stopping.goes_on(state.kept, number, loop.patience)


def _keeping(state: Any, kept: BestState | None) -> Any:
    """The state with another `kept`, if it has one."""
    return state if kept is None else dataclasses.replace(state, kept=kept)


def _order(seed: Array, number: Array, examples: int, loop: Loop) -> tuple[Array, Array]:
    """Which examples make up the batches of epoch `number`; 0 has those of epoch 1."""
    key = prng.stream(seed, "order", jnp.maximum(number, 1))
    return batching.epoch_order(key, examples, loop.batch_size)


def _joined(parts: Sequence[StepOutput], count: int) -> StepOutput:
    """What the steps of all pieces of an epoch left, [S, T, ...], without those after its end."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1)[:, :count], *parts)


def _streams(images: Any) -> bool:
    """Whether images are read from the disk as they are needed."""
    return isinstance(images, Stored) and not images.resident


def place_images(data: Any, mesh: jax.sharding.Mesh) -> Any:
    """A data set [N, ...], or its images, on every device; each row is read by one process."""
    count = len(jax.tree.leaves(data)[0])
    own = sharding.own_rows(count, mesh)
    return sharding.join_rows(jax.tree.map(lambda rows: rows[own], data), count, mesh)


def _images_in_memory(images: Stored) -> int:
    """How many images are read at once, at least one."""
    return max(1, _READ_BYTES // (images.nbytes // len(images)))


def _test_pieces(
    test: Dataset, batch_size: int, mesh: jax.sharding.Mesh
) -> Iterator[tuple[Dataset, np.int32]]:
    """A stored test set on the devices, in pieces of equal size of which so many are valid.

    The last is filled up.
    """
    stored: Any = test.images
    batches = batching.steps_per_epoch(len(stored), batch_size)
    size = min(batches, max(1, _images_in_memory(stored) // batch_size)) * batch_size
    places = np.arange(-(-len(stored) // size) * size).reshape(-1, size)
    places = np.minimum(places, len(stored) - 1)[:, sharding.own_rows(size, mesh)]
    for i, images in enumerate(read_ahead(stored, list(places))):
        piece = Dataset(images, np.asarray(test.labels)[places[i]])
        valid = min(size, len(stored) - i * size)
        yield sharding.join_rows(piece, size, mesh), np.int32(valid)


def _zero_signals(model: nn.Module, images: Array) -> PyTree:
    """Zeros in the shape of every pre-activation: the point at which signals are taken."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), as_input(images))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["perturbations"])


def _diverged_seed(result: EpochResult) -> int | None:
    """Position of the first seed with a loss that is not finite, in training or after it."""
    bad = (np.asarray(result.bad_step) >= 0) | ~np.isfinite(result.test.loss_sum)
    return int(np.argmax(bad)) if bad.any() else None


def _diagnose(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loop: Loop,
    data: Dataset,
    state: TrainState,
    seed: int,
    number: int,
    bad_step: int,
) -> Diverged:
    """Repeat the epoch of one seed up to its bad step, and name the first layer not finite there.

    state: before the epoch.  bad_step: -1 if only the evaluation after the epoch was not finite.
    """
    key = prng.stream(seed, "order", max(number, 1))
    order, mask = batching.epoch_order(key, len(data.images), loop.batch_size)

    def batch_at(t: int) -> Batch:
        places = np.asarray(order[t])
        return Batch(data.images[places], np.asarray(data.labels)[places], mask[t])

    position = bad_step if bad_step >= 0 else len(order)
    options = sharding.compiler_options() if loop.convolutions else None
    step = jax.jit(
        make_step(
            model,
            tx,
            change=loop.change,
            harden=loop.harden,
            smoothing=loop.smoothing,
            floor=loop.floor,
        ),
        compiler_options=options,
    )
    for t in range(position):
        state, _ = step(state, batch_at(t), jnp.uint32(seed), jnp.bool_(number > 0))
    t = min(position, len(order) - 1)
    # A batch of training images is enough to see parameters that are not finite; a loss that only
    # overflows on some test image is said to be the loss itself.
    images = as_input(batch_at(t).images)
    _, found = model.apply({"params": state.params}, images, capture_intermediates=True)
    outputs = {name: found["intermediates"][name] for name in model.layer_names}
    layer = probes.layer_of_first_nonfinite(outputs, model.layer_names) or "the loss itself"
    return Diverged(number, int(state.step), seed, layer)
