"""The spectrum study: the Jacobian of a net before its first step, and its sharpness in training.

A study of its own and not a part of the depth study: it trains other nets, by gradient descent on
few images at learning rates that reach the edge of stability, and the settings of that study are
the report's.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from research.data import batching
from research.experiments import depth, trainer
from research.figures.spectrum import draw_jacobian, draw_sharpness
from research.models import costs
from research.models.mlp import INITIALIZERS, MLP
from research.runtime import progress
from research.storage import run_directory
from research.structs import Config, Dataset, UserError
from research.theory import jacobian
from research.training import optim, sharpness
from research.training.step import Loop, as_input, init_state

_ROUNDING = 1e-14  # singular values below, of the largest one of a matrix, are rounding


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Measure every net of `config.nets` in `workdir`, or go on where a killed run stopped.

    One net uses `workdir` itself, several a directory each inside it; each of its trainings has a
    directory in that.  Returns the content of summary.json.  Raises UserError for a config, a data
    set or a directory that cannot be used, and for a loss that is not finite.
    """
    check(config)
    train_set, test_set, source = trainer.load(
        config, "mnist", download=config.data.download, workdir=workdir
    )
    progress.say(f"data: {source.caption()}")
    train_set = _first(train_set, config.images)
    versions = trainer.describe_versions(config, trainer.describe_data(source))
    if len(config.nets) == 1:
        return _run_net(config, workdir, train_set, test_set, versions)
    with run_directory.locked(workdir):
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        results = {
            net: _run_net(
                depth.net_config(config, net), workdir / net, train_set, test_set, versions
            )
            for net in config.nets
        }
        if finished is not None and finished["nets"] == results:
            return finished
        ranks = {net: result["jacobian"]["effective_rank"] for net, result in results.items()}
        worst, best = min(ranks, key=ranks.__getitem__), max(ranks, key=ranks.__getitem__)
        summary = {
            "nets": results,
            "data": versions["data"],
            "device": versions["device"],
            "headline": f"{len(results)} nets; effective rank of the Jacobian from "
            f"{ranks[worst]:.1f} ({worst}) to {ranks[best]:.1f} ({best})",
        }
        run_directory.finish(workdir, summary)
        return summary


def describe(config: Config) -> str:
    """What `run` would do: config, data, and of every net its layers, its trainings, and cost."""
    check(config)
    train_set, _, source = trainer.load(config, "mnist", download=False)
    train_set = _first(train_set, config.images)
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    lines += [f"data: {source.caption()}, of which the first {len(train_set.images):,} train"]
    for net in config.nets:
        task = make_task(config, net, config.batch_sizes[0], len(train_set.images))
        state = jax.eval_shape(lambda t=task: init_state(t.model, t.tx, 0, train_set.images[:1]))
        names = depth.make_model(config, net).layer_names
        kernels = {name: state.params[name]["kernel"].shape for name in names}
        lines += [
            "",
            net,
            *costs.layer_table(kernels),
            f"Jacobian of the hidden layers: {config.draws} nets, {config.inputs} images",
        ]
        for size in config.batch_sizes:
            loop = make_task(config, net, size, len(train_set.images)).loop
            steps = _steps(loop, len(train_set.images))
            images = loop.epochs * loop.passes * len(train_set.images)
            flops = costs.flops_per_image(kernels) * images * config.seeds
            lines.append(
                f"{_words(size)}: {loop.epochs * steps:,} steps, sharpness after every {steps:,}; "
                f"about {flops:.3g} FLOPs without it"
            )
    return "\n".join(lines)


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    trainer.check(config)
    if config.seed > 2**32 - config.draws:
        raise UserError(f"seed: {config.seed} is not in 0 .. 2**32 - draws")
    for key in ("nets", "batch_sizes"):
        values = config[key]
        if not values:
            raise UserError(f"{key}: empty; give at least one")
        if twice := [each for each in values if values.count(each) > 1]:
            raise UserError(f"{key}: {twice[0]!r} is there twice; name each once")
    for net in config.nets:
        if depth.make_model(config, net).depth < 2:
            raise UserError(f"nets: {net!r} has no layer between hidden ones; give a depth from 2")
    _ = optim.make_optimizer(config.learning_rate)


def make_task(config: Config, net: str, batch_size: int, examples: int) -> trainer.Task:
    """One training of a net, on so many examples; batch_size: 0 for all of them at once."""
    model = depth.make_model(config, net)
    size = min(batch_size or examples, examples)
    passes = max(1, round(config.every / batching.steps_per_epoch(examples, size)))
    loop = Loop(
        epochs=-(-config.steps // (passes * batching.steps_per_epoch(examples, size))),
        batch_size=size,
        eval_batch_size=config.eval_batch_size,
        measure=sharpness.make_sharpness(
            model, images=config.sharpness_images or examples, iterations=config.lanczos
        ),
        passes=passes,
        init_images=_init_images(model),
        data_devices=config.data_devices,
    )
    name = f"{net}, {_words(batch_size)}"
    return trainer.Task(name, model, optim.make_optimizer(config.learning_rate), loop)


def measure_jacobian(config: Config, net: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """Singular values of the hidden layers of `config.draws` nets, and what theory says of them.

    images: [N, H, W, C] uint8, of which the first `config.inputs` are used.  Layers are 2 to L, a
    product is of the layers from the second on.  D draws, B images, n units:
    depth: [L - 1] layers in a product.  singular_values: [D, B, n] of the whole, float64.
    ranked: [n, L - 1] of the products, from the largest to the smallest of a matrix: the median
    over draws and images.
    mean, spread: [D, L - 1] of s^2 of the products, means over the images; layer_mean,
    layer_spread: of each layer by itself.  predicted_*: as `theory.jacobian.predict` has them.
    """
    model = depth.make_model(config, net)
    inputs = np.asarray(as_input(images[: config.inputs])).reshape(-1, images[0].size)
    theory = depth.theory_net(model, inputs)
    tx, hidden = optim.make_optimizer(config.learning_rate), model.layer_names[:-1]
    of_layers, of_products = list[np.ndarray](), list[np.ndarray]()
    seeds = range(config.seed, config.seed + config.draws)
    for seed in progress.bar(seeds, f"{net}: singular values", unit="nets"):
        params = init_state(model, tx, seed, images[: _init_images(model)]).params
        kernels, biases = ([params[name][part] for name in hidden] for part in ("kernel", "bias"))
        layers, products = zip(*jacobian.jacobians(theory, kernels, biases, inputs), strict=True)
        of_layers.append(np.linalg.svd(np.stack(layers), compute_uv=False))
        of_products.append(np.linalg.svd(np.stack(products), compute_uv=False))
    values = np.stack(of_products)  # [D, L - 1, B, n]
    values = np.where(values < _ROUNDING * values.max(axis=-1, keepdims=True), 0.0, values)
    record = {
        "depth": np.arange(1, model.depth),
        "singular_values": values[:, -1],
        "ranked": np.median(values, axis=(0, 2)).T,
    }
    for name, each in (("", values), ("layer_", np.stack(of_layers))):
        record[f"{name}mean"] = np.mean(each**2, axis=(2, 3))
        record[f"{name}spread"] = np.nanmean(jacobian.spread(each), axis=2)
    predicted = jacobian.predict(theory, inputs)
    return record | {f"predicted_{name}": array for name, array in predicted.items()}


def _run_net(
    config: Config,
    workdir: Path,
    train_set: Dataset,
    test_set: Dataset,
    versions: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure the one net of `config`, draw its figures, and write its summary."""
    (net,) = config.nets
    with run_directory.locked(workdir):
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        if finished is not None:
            progress.say(f"{net}: all is done already")
            return finished
        began = time.monotonic()
        record = measure_jacobian(config, net, np.asarray(train_set.images))
        trainings: dict[str, Any] = {}
        for size in config.batch_sizes:
            name = "full_batch" if not size else f"batch_{size}"
            task = make_task(config, net, size, len(train_set.images))
            trainings[name], curves = _train(
                config, task, size, workdir / name, train_set, test_set, versions
            )
            record |= {f"{name}_{key}": values for key, values in curves.items()}
        run_directory.write_arrays(workdir / "spectrum.npz", record)
        rate = config.learning_rate
        caption = (
            f"{versions['data']['caption']}. {config.width} units a layer, {config.init}, "
            f"gain {config.gain:g}"
        )
        trained = f"{caption}, the first {len(train_set.images):,} images, learning rate {rate:g}"
        run_directory.save_figures(
            workdir,
            lambda: {
                "jacobian": draw_jacobian(record, label=net, caption=caption),
                "sharpness": draw_sharpness(
                    {name: training["words"] for name, training in trainings.items()},
                    record,
                    edge=2 / rate,
                    label=net,
                    caption=trained,
                ),
            },
        )
        spectrum = {name: float(record[name].mean(axis=0)[-1]) for name in ("mean", "spread")} | {
            name: float(record[name][-1]) for name in record if name.startswith("predicted_")
        }
        spectrum["effective_rank"] = float(
            np.nanmean(config.width / (1 + jacobian.spread(record["singular_values"])))
        )
        spectrum["ceiling"] = config.width - 1.0
        explained = sentence(net, config.width, spectrum, trainings)
        progress.say(f"{net}: {explained}")
        summary = {
            "net": net,
            "jacobian": spectrum,
            "trainings": trainings,
            "edge": 2 / rate,
            "seeds": list(trainer.seeds_of(config)),
            "seconds": time.monotonic() - began,
            "peak_memory_mib": trainer.peak_memory_mib(),
            "data": versions["data"],
            "device": versions["device"],
            "explained": explained,
            "headline": f"{net}: {explained}",
        }
        run_directory.finish(workdir, summary)
        return summary


def _train(
    config: Config,
    task: trainer.Task,
    batch_size: int,
    workdir: Path,
    train_set: Dataset,
    test_set: Dataset,
    versions: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One training in a run directory of its own: its summary, and its curves [E] and [E, S]."""
    own = ConfigDict(config)
    own.batch_sizes = (batch_size,)
    edge, every = 2 / config.learning_rate, _steps(task.loop, len(train_set.images))
    with run_directory.locked(workdir):
        summary = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, own, versions, resuming=summary is None)
        if summary is None:
            _ = trainer.train_net(task, config, workdir, train_set, test_set)
        rows = run_directory.rows(workdir)
        curves = {
            "steps": every * np.arange(1.0, len(rows) + 1),
            **{
                key: np.array([np.atleast_1d(row[key]) for row in rows], np.float64)
                for key in ("sharpness", "train_loss")
            },
        }
        if summary is None:
            held = [sharpness.plateau(column, edge) for column in curves["sharpness"].T]
            summary = {
                "net": task.name,
                "words": _words(batch_size),
                "steps": int(curves["steps"][-1]),
                "every": every,
                "plateau": [every * longest for longest, _ in held],
                "at_edge": [every * number for _, number in held],
                "last_over_edge": (curves["sharpness"][-1] / edge).tolist(),
                "highest_over_edge": (curves["sharpness"].max(axis=0) / edge).tolist(),
                **{key: rows[-1][key] for key in ("train_loss", "test_accuracy")},
                **trainer.costs_of(rows),
                "headline": task.name,
            }
            run_directory.finish(workdir, summary)
        return summary, curves


def sentence(
    net: str, width: int, spectrum: Mapping[str, float], trainings: Mapping[str, Any]
) -> str:
    """What is seen of a net, and why: of `jacobian` and `trainings` of its summary."""
    rank, spread = spectrum["effective_rank"], spectrum["spread"]
    wide, finite = spectrum["predicted_spread"], spectrum["predicted_finite_spread"]
    factor, predicted = np.sqrt(spectrum["mean"]), np.sqrt(spectrum["predicted_mean"])
    if rank < 2:
        fate = "hardly more than one direction passes all layers"
    elif rank > width / 2:
        fate = "most directions pass all layers alike"
    else:
        fate = "few directions pass all layers"
    parts = [
        f"{fate} (effective rank {rank:.1f} of {width}), rescaled by {factor:.2g}, predicted "
        f"{predicted:.2g}; spread {spread:.3g}, predicted {wide:.3g} for wide nets, {finite:.3g} "
        f"at this width, {width - 1} at most"
    ]
    for training in trainings.values():
        longest, number = max(training["plateau"]), max(training["at_edge"])
        highest, last = max(training["highest_over_edge"]), max(training["last_over_edge"])
        low, high = sharpness.BAND
        if number:
            seen = (
                f"has a sharpness of {low:g} to {high:g} of 2 / learning rate in {number:,} of "
                f"{training['steps']:,} steps, {longest:,} of them in a row: more curvature throws "
                f"it out again (at most {highest:.2g} of it)"
            )
            if last < low:
                seen += ", and little is left of it where the loss is small"
        elif highest < low:
            seen = f"never nears the edge of stability ({highest:.2g} of it at most)"
        else:
            seen = f"passes the edge of stability without staying ({highest:.2g} of it at most)"
        parts.append(f"{training['words']} {seen}")
    return "; ".join(parts)


def _first(data: Dataset, count: int) -> Dataset:
    """The first examples of a data set; 0 for all."""
    return Dataset(data.images[: count or None], data.labels[: count or None])


def _steps(loop: Loop, examples: int) -> int:
    """Steps of an epoch."""
    return loop.passes * batching.steps_per_epoch(examples, loop.batch_size)


def _init_images(model: MLP) -> int:
    return depth.LSUV_IMAGES if INITIALIZERS[model.init_name].normalised else 1


def _words(batch_size: int) -> str:
    return f"SGD, batches of {batch_size}" if batch_size else "full batch"
