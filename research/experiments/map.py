"""The map of trainability: which depths train, over another hyper-parameter, and where theory says.

A cell is a net of the depth study with an init of its own, trained for a few hundred steps on real
digits and judged on the test set.  Hyper-parameters are arrays (`Cell`): the nets of one depth are
one call of a compiled program, and hidden layers that are masked let a program serve a range of
depths.

map.npz, replaced after each depth, from the shallowest on; D depths, X values of the axis, S seeds:
depths          [D] hidden layers
axis            name of the hyper-parameter that is varied
values          [X] of it
sigma_w, learning_rate     [X] of the nets, of which one is `values`
test_accuracy, test_loss   [D, X, S]; NaN of nets whose loss was not finite any more
train_loss      [D, X, S] mean over the last tenth of the steps
finite_steps    [D, X, S] steps before the first loss that was not finite
xi              [X] depth scale of the gradients at the fixed point, `depth_scales.fixed_point`
chi             [X] by what a layer multiplies their mean square there
scales          [D, X] depth in depth scales of the layers as they are, `depth_scales.decay`
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from research.data import batching
from research.experiments import trainer
from research.figures.map import draw_map
from research.models import costs
from research.models.activations import ACTIVATIONS
from research.models.mlp import MLP
from research.runtime import distributed, files, preemption, progress, sharding
from research.storage import records, run_directory
from research.structs import Array, Config, Dataset, PyTree, TrainState, UserError
from research.theory import depth_scales
from research.training import evaluate
from research.training.epoch import epoch_order, make_steps
from research.training.step import Loop, as_input, init_state, init_states

AXES = ("sigma_w", "learning_rate")  # that can be varied beside the depth
INIT = "lecun_normal"  # of sd 1 / sqrt(inputs), which sigma_w multiplies
IMAGES = 256  # that tell the mean square of the inputs
TRAINED = 0.5  # test accuracy, mean over the seeds, from which on a cell counts as trained
_MEASURED = ("test_accuracy", "test_loss", "train_loss", "finite_steps")
_AGAIN = "its depths are trained again"


class Cell(NamedTuple):
    """The hyper-parameters of a net, [] each, or of all nets of a call, [N].

    depth: hidden layers, int32.  sigma_w: kernels start with sd sigma_w / sqrt(inputs).
    learning_rate: of SGD.
    """

    depth: Array
    sigma_w: Array
    learning_rate: Array


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Train every net of the map, or go on with the depths that a killed run left.

    Returns the content of summary.json.  Raises UserError for a config, a data set or a directory
    that cannot be used.
    """
    check(config)
    train_set, test_set, source = trainer.load(
        config, "mnist", download=config.data.download, workdir=workdir
    )
    progress.say(f"data: {source.caption()}")
    versions = run_directory.describe_versions(trainer.describe_data(source))
    with run_directory.locked(workdir):
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        if finished is not None:
            progress.say(f"{config.name}: all {config.resolution} depths are done already")
            return finished
        began = time.monotonic()
        arrays = _train(config, workdir, train_set, test_set)
        caption = f"{source.caption()}. {_settings(config)}"
        limit = depth_scales.LIMIT

        def draw() -> Mapping[str, Figure]:
            return {"map": draw_map(arrays, caption=caption, limit=limit, trained=TRAINED)}

        run_directory.save_figures(workdir, draw)
        judged = scores(arrays)
        summary = {
            **judged,
            "net_count": int(arrays["test_accuracy"].size),
            "not_finite": int(np.isnan(arrays["test_accuracy"]).sum()),
            "seeds": list(trainer.seeds_of(config)),
            "seconds": round(time.monotonic() - began, 1),
            "peak_memory_mib": trainer.peak_memory_mib(),
            "data": versions["data"],
            "device": versions["device"],
            "headline": f"{config.name}: {judged['trained']:.0%} of the cells train, "
            f"{judged['agreement']:.0%} agree with depth < {limit:g} depth scales",
        }
        run_directory.finish(workdir, summary)
        return summary


def describe(config: Config) -> str:
    """What `run` would do: config, data, nets, FLOPs and memory, and what the theory expects."""
    check(config)
    train_set, test_set, source = trainer.load(config, "mnist", download=False)
    if config.data.download and not source.full and config.data.source in ("auto", "tfds"):
        progress.say("the run itself would try to download the full set first")
    model = MLP(config.deepest, config.width, config.activation, INIT)
    state = jax.eval_shape(lambda: init_state(model, optax.sgd(1.0), 0, train_set.images[:1]))
    kernels = {name: state.params[name]["kernel"].shape for name in model.layer_names}
    depths, nets = depths_of(config), config.resolution * config.seeds
    layers = [layers_of(config, depth) for depth in depths]
    images = config.steps * config.batch_size + len(test_set.images) / 3  # a third: forward alone
    flops = sum(
        nets * images * costs.flops_per_image({name: kernels[name] for name in names})
        for names in (model.clone(depth=count).layer_names for count in layers)
    )
    memory = train_set.images.nbytes + test_set.images.nbytes
    memory += nets * costs.training_bytes(kernels, config.batch_size, config.steps, 0)
    theory = predict(config, train_set)
    expected = np.mean(depth_in_scales(theory) < depth_scales.LIMIT)
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    lines += [
        f"data: {source.caption()}",
        "",
        f"{len(depths)} depths up to {config.deepest} x {config.resolution} values of "
        f"{config.axis} x {config.seeds} seed(s): {nets * len(depths):,} nets of {config.steps:,} "
        f"steps; about {flops:.3g} FLOPs; {len(set(layers))} program(s) to compile",
        f"at most about {memory / 2**20:.0f} MiB of arrays on the devices",
        f"theory: {expected:.0%} of the cells are less than {depth_scales.LIMIT:g} depth scales "
        "deep and should train",
        "",
        f"{config.axis:>14}{'chi':>10}{'depth scale':>14}{'trains up to depth':>22}",
    ]
    for value, chi, xi in zip(theory["values"], theory["chi"], theory["xi"], strict=True):
        reach = depth_scales.LIMIT * xi
        depth = f"{reach:.0f}" if reach < config.deepest else f"all {config.deepest}"
        lines.append(f"{value:>14.4g}{chi:>10.3f}{xi:>14.3g}{depth:>22}")
    return "\n".join(lines)


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    trainer.check(config)
    _ = MLP(config.deepest, config.width, config.activation, INIT)
    if config.axis not in AXES:
        raise UserError(f"axis: {config.axis!r} is not one of {', '.join(AXES)}")
    for key in AXES:
        ends = config.ranges[key]
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise UserError(f"ranges.{key}: {ends!r} is not a smaller and a larger number")
    if config.deepest < config.resolution:
        raise UserError(
            f"deepest: {config.deepest} layers have fewer depths than the {config.resolution} of "
            "resolution; give one of them another value"
        )


def depths_of(config: Config) -> list[int]:
    """The depths of the map, [D], evenly up to the deepest."""
    steps = range(1, config.resolution + 1)
    return [round(config.deepest * step / config.resolution) for step in steps]


def layers_of(config: Config, depth: int) -> int:
    """How many hidden layers the program has that serves a depth."""
    layers = -(-config.deepest // min(config.programs, config.deepest))
    return min(-(-depth // layers) * layers, config.deepest)


def cells_of(config: Config) -> Cell:
    """The hyper-parameters over the axis [X], at the least depth: of `Cell` all that is swept."""
    first, last = config.ranges[config.axis]
    values = np.geomspace(first, last, config.resolution)
    swept = {key: np.full(len(values), config[key]) for key in AXES}
    return Cell(np.ones(len(values), np.int32), **swept | {config.axis: values})


def predict(config: Config, train_set: Dataset) -> dict[str, np.ndarray]:
    """What theory says of a map: all arrays of map.npz that need no training."""
    cells = cells_of(config)
    function, depths = ACTIVATIONS[config.activation].function, depths_of(config)
    sigma_w = np.asarray(cells.sigma_w)
    point = depth_scales.fixed_point(function, sigma_w)
    square = np.mean(np.asarray(as_input(train_set.images[:IMAGES]), np.float64) ** 2)
    lost = depth_scales.decay(function, sigma_w, sigma_w**2 * square, config.deepest)
    return {
        "activation": np.array(config.activation),
        "axis": np.array(config.axis),
        "depths": np.array(depths, np.int32),
        "values": np.asarray(getattr(cells, config.axis)),
        **{key: np.asarray(getattr(cells, key)) for key in AXES},
        "xi": point.xi,
        "chi": point.chi,
        "scales": lost[:, np.array(depths) - 1].T,
    }


def depth_in_scales(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Depth over the depth scale at the fixed point of each cell of map.npz: [D, X]."""
    return arrays["depths"][:, None] / arrays["xi"]


def accuracy(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean test accuracy over the seeds of each cell [D, X]; 0 of nets that are not finite."""
    return np.nan_to_num(np.asarray(arrays["test_accuracy"], np.float64)).mean(axis=2)


def scores(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How well theory tells which cells train: of whole map.npz, see `depth_scales.auc`.

    trained: the share of cells that do.  agreement: that of cells which do if and only if they are
    less than `depth_scales.LIMIT` depth scales deep.  auc, threshold: of depth / xi, the depth
    scale at the fixed point.  layers_...: the same of the layers as they are.
    """
    outcomes = accuracy(arrays) >= TRAINED
    judged: dict[str, Any] = {"trained": float(outcomes.mean())}
    for prefix, deep in (("", depth_in_scales(arrays)), ("layers_", arrays["scales"])):
        judged[f"{prefix}agreement"] = float(np.mean((deep < depth_scales.LIMIT) == outcomes))
        alike = outcomes.all() or not outcomes.any()
        judged[f"{prefix}auc"] = None if alike else depth_scales.auc(deep, outcomes)
        best = None if alike else depth_scales.best_threshold(deep, outcomes)
        judged[f"{prefix}threshold"] = best
    return judged


def make_net(config: Config, layers: int) -> Callable[..., dict[str, Array]]:
    """net(cell, place, seeds, starts, orders, train, test): train a net of the map and judge it.

    layers: hidden layers that it has; `Cell.depth` of them act.
    place: [] of its seed in what follows: seeds [S], their parameters at sigma_w 1 [S, ...] and
    their batches, indices and mask [S, T, B].
    Returns the entries of map.npz, [] each.
    """
    loop = Loop(1, config.batch_size, config.eval_batch_size)
    last = -(-config.steps // 10)

    def net(
        cell: Cell,
        place: Array,
        seeds: Array,
        starts: PyTree,
        orders: PyTree,
        train: Dataset,
        test: Dataset,
    ) -> dict[str, Array]:
        model = MLP(layers, config.width, config.activation, INIT, active=cell.depth)
        tx = optax.sgd(cell.learning_rate)  # pyright: ignore[reportArgumentType]
        drawn = {name: starts[name] for name in model.layer_names}
        params = jax.tree.map(lambda leaf: cell.sigma_w * leaf[place], drawn)
        order = jax.tree.map(lambda leaf: leaf[place], orders)
        state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
        state, output = make_steps(model, tx, loop)(
            state, (seeds[place], order), jnp.int32(1), train
        )
        losses = output.metrics.loss_sum / output.metrics.count.astype(jnp.float32)
        tested = evaluate.evaluate(model, state.params, test, batch_size=loop.eval_batch_size)
        count = tested.count.astype(jnp.float32)
        finite = jnp.append(jnp.isfinite(losses), jnp.isfinite(tested.loss_sum))
        # NaN is no class: its argmax is 0, and a share of the images is of that class.
        accuracy = jnp.where(jnp.all(finite), tested.correct.astype(jnp.float32) / count, jnp.nan)
        return {
            "test_accuracy": accuracy,
            "test_loss": tested.loss_sum / count,
            "train_loss": jnp.mean(losses[-last:]),
            "finite_steps": jnp.where(jnp.all(finite), len(losses), jnp.argmin(finite)),
        }

    return net


def _train(
    config: Config, workdir: Path, train_set: Dataset, test_set: Dataset
) -> dict[str, np.ndarray]:
    """map.npz, with the depths that are there and those that are trained now."""
    theory, path = predict(config, train_set), workdir / "map.npz"
    arrays = {key: value for key, value in _stored(path).items() if key in _MEASURED}
    depths, done = depths_of(config), len(next(iter(arrays.values()), ()))
    if done:
        progress.say(f"{config.name}: going on after depth {depths[done - 1]}")
    cells, seeds = cells_of(config), np.array(trainer.seeds_of(config), np.uint32)
    # A net for each value of the axis and each seed, the seeds of a value side by side.
    mesh = sharding.make_mesh(config.resolution * config.seeds, data_devices=1)
    row = sharding.place_seeds(
        Cell(
            np.repeat(cells.depth, config.seeds),
            *(np.repeat(leaf, config.seeds).astype(np.float32) for leaf in cells[1:]),
        ),
        mesh,
    )
    places = np.tile(np.arange(config.seeds, dtype=np.int32), config.resolution)
    places = sharding.place_seeds(places, mesh)
    model = MLP(config.deepest, config.width, config.activation, INIT)
    starts = init_states(model, optax.sgd(1.0), seeds.tolist(), train_set.images[:1]).params
    shared = sharding.place_whole((seeds, starts, _orders(config, len(train_set.images))), mesh)
    data = [evaluate.place_images(each, mesh) for each in (train_set, test_set)]
    programs: dict[int, Callable[..., PyTree]] = {}
    nets = config.resolution * config.seeds
    with (
        preemption.deferred(),
        progress.bar(
            None, config.name, unit="nets", total=nets * len(depths), done=nets * done
        ) as bar,
    ):
        for depth in depths[done:]:
            layers = layers_of(config, depth)
            if layers not in programs:
                programs[layers] = sharding.over_seeds(make_net(config, layers), mesh)
            here = row._replace(depth=jnp.full_like(row.depth, depth))
            outcome = sharding.fetch_seeds(programs[layers](here, places, *shared, *data), nets)
            preemption.mark_unsaved()  # a later depth takes as long as this one, less compiling
            for key, values in outcome.items():
                values = values.reshape(1, config.resolution, config.seeds)
                arrays[key] = np.concatenate([*([arrays[key]] if key in arrays else []), values])
            run_directory.write_arrays(path, theory | arrays)
            _ = bar.update(nets)
            trained = np.mean(accuracy(arrays)[-1] >= TRAINED)
            progress.say(f"{config.name}: depth {depth}: {trained:.0%} of the cells train")
            preemption.raise_if_requested()
    return theory | arrays


def _stored(path: Path) -> dict[str, np.ndarray]:
    """The arrays of map.npz, {} if there is none; a file that is not what was written is told."""

    def read() -> dict[str, np.ndarray]:
        if not path.exists():
            return {}
        try:
            listed = records.read_digests(path.parent, remedy=_AGAIN)
            return records.read_listed(
                path.parent, path.name, listed, files.parse_arrays, remedy=_AGAIN
            )
        except UserError as error:
            progress.say(str(error))
            return {}

    return distributed.broadcast_from_first(read)


def _orders(config: Config, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and mask [S, T, B] of the batches of every seed, as the depth study draws them."""
    epochs = -(-config.steps // batching.steps_per_epoch(examples, config.batch_size))
    order = jax.jit(epoch_order, static_argnums=(2, 3))
    each = [
        [
            order(np.uint32(seed), np.int32(epoch), examples, config.batch_size)
            for epoch in range(1, epochs + 1)
        ]
        for seed in trainer.seeds_of(config)
    ]
    return tuple(  # pyright: ignore[reportReturnType]
        np.stack([np.concatenate([part[i] for part in parts])[: config.steps] for parts in each])
        for i in range(2)
    )


def _settings(config: Config) -> str:
    """What a figure was made from besides the data."""
    rate = "" if config.axis == "learning_rate" else f"learning rate {config.learning_rate:g}, "
    sigma = "" if config.axis == "sigma_w" else f"sigma_w {config.sigma_w:g}, "
    return (
        f"{config.width} units a layer, {sigma}{rate}{config.steps} steps of SGD, batches of "
        f"{config.batch_size}, {config.seeds} seed(s)"
    )
