"""The depth study: which activation lets the gradient through 5, 20 or 40 layers?

Report, Exercise 1: accuracies (Parts B and D), gradient maxima of every layer (Part C, figures 1-3
and 5) and learning curves (figure 4).
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from research import checkpoint, costs, figures, optim, preemption, probes, record, train
from research.data import arrays, standard
from research.models.activations import ACTIVATIONS
from research.models.mlp import MLP
from research.types import Array, Config, Dataset, Metrics, PyTree, UserError

REPORT_EPOCHS = (0, 1, 2, 3)  # the report trains Part C for three epochs; 0 is initialisation


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Train every net of `config.nets` in `workdir`, or go on where a killed run stopped.

    One net uses `workdir` itself, several a directory each inside it.  Returns the content of
    summary.json.  Raises UserError for a config, a data set or a directory that cannot be used, and
    for a loss that is not finite.
    """
    check(config)
    training, test, source = _load(config, download=config.data.download)
    say(f"data: {source.caption()}")
    versions = record.describe_versions(_describe_data(source))
    if len(config.nets) == 1:
        return _run_net(config, workdir, training, test, versions)
    with record.locked(workdir):
        began = time.monotonic()
        record.begin(workdir, config, versions)
        results = {
            net: _run_net(net_config(config, net), workdir / net, training, test, versions)
            for net in config.nets
        }
        _draw_study(workdir, config.nets, _caption(config, source.caption()))
        summary = {"nets": results, "data": versions["data"], "device": versions["device"]}
        say(f"{len(results)} nets in {time.monotonic() - began:.0f} s")
        best = max(results, key=lambda net: np.mean(results[net]["test_accuracy"]))
        summary["headline"] = (
            f"{len(results)} nets, {config.seeds} seed(s) each, on {source.caption()}; "
            f"best: {results[best]['headline']}"
        )
        record.write_json(workdir / "summary.json", summary)
        return summary


def describe(config: Config) -> str:
    """What `run` would do: config, data, and for every net its layers, steps, FLOPs and memory."""
    check(config)
    training, test, source = _load(config, download=False)
    if config.data.download and not source.full and config.data.source in ("auto", "tfds"):
        say("the run itself would try to download the full set first")
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    lines += [f"data: {source.caption()}"]
    for net in config.nets:
        lines += ["", net, *_describe_net(config, net, training, test)]
    return "\n".join(lines)


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    for key in ("epochs", "batch_size", "eval_batch_size", "seeds"):
        if config[key] < 1:
            raise UserError(f"{key}: {config[key]} is not a positive number")
    if not 0 <= config.seed <= 2**32 - config.seeds:
        raise UserError(f"seed: {config.seed} is not in 0 .. 2**32 - seeds")
    if not config.nets:
        raise UserError("nets: empty; give names such as 'tanh-40'")
    for net in config.nets:
        _ = make_model(config, net)
    _ = optim.make_optimizer(config.learning_rate)


def make_model(config: Config, net: str) -> MLP:
    """The net named "activation-depth".  Raises UserError if there is no such net."""
    activation, _, depth = net.partition("-")
    if not depth.isdecimal() or int(depth) < 1 or activation not in ACTIVATIONS:
        names = ", ".join(ACTIVATIONS)
        raise UserError(f"nets: {net!r} is not an activation ({names}), a hyphen and a depth")
    return MLP(int(depth), config.width, activation, config.init)


def net_config(config: Config, net: str) -> Config:
    """The config under which one net of a study runs: that of the net alone."""
    single = ConfigDict(config)
    single.nets = (net,)
    single.name = net
    return single


def _run_net(
    config: Config,
    workdir: Path,
    training: Dataset,
    test: Dataset,
    versions: Mapping[str, Any],
) -> dict[str, Any]:
    (net,) = config.nets
    with record.locked(workdir):
        finished = record.finished_summary(workdir)
        record.begin(workdir, config, versions, resuming=finished is None)
        if finished is not None:
            say(f"{net}: all {config.epochs} epochs are done already")
            return finished
        _train_net(config, net, workdir, training, test)
        return _finish(config, net, workdir, len(test.images), versions)


def _train_net(config: Config, net: str, workdir: Path, training: Dataset, test: Dataset) -> None:
    """Train one net, or go on with it, until its records hold every epoch."""
    model = make_model(config, net)
    tx = optim.make_optimizer(config.learning_rate)
    seeds = _seeds(config)
    with (
        preemption.deferred(),
        checkpoint.Checkpoints(workdir / "checkpoints") as checkpoints,
        record.EpochLog(workdir, model.layer_names, probed=config.probe) as log,
    ):
        template = jax.eval_shape(
            jax.vmap(lambda seed: train.init_state(model, tx, seed, training.images[:1])),
            jax.ShapeDtypeStruct((len(seeds),), np.uint32),
        )
        resume = checkpoints.restore_newest(template, say=say, usable=log.covers)
        log.continue_after(resume[0] if resume else None)
        if resume:
            say(f"{net}: going on after epoch {resume[0]}")

        def on_epoch(
            number: int, states: PyTree, result: train.EpochResult, seconds: float
        ) -> None:
            row = _row(number, result, seconds) if number else None
            log.write(number, row, result.probe)
            if row is not None:
                checkpoints.save(number, states)
                say(_progress(net, config.epochs, row))
                preemption.raise_if_requested()

        loop = train.Loop(
            epochs=config.epochs,
            batch_size=config.batch_size,
            eval_batch_size=config.eval_batch_size,
            probe=make_probe(model) if config.probe else None,
        )
        try:
            _ = train.fit(
                model, tx, training, test, loop, seeds=seeds, resume=resume, on_epoch=on_epoch
            )
        except train.Diverged as error:
            kept = f"epoch {error.epoch - 1} is kept in {workdir}" if error.epoch > 1 else ""
            raise UserError(
                f"{net}: {error}. {kept or 'No epoch was finished'}; "
                "a smaller learning_rate may help"
            ) from error


def _finish(
    config: Config, net: str, workdir: Path, test_count: int, versions: Mapping[str, Any]
) -> dict[str, Any]:
    """Draw the figures of one net and write its summary."""
    rows, gradients = record.rows(workdir), record.gradients(workdir)
    caption = _caption(config, versions["data"]["caption"])
    drawn = {
        "learning_curves": figures.draw_learning_curves({net: rows}, title=net, caption=caption)
    }
    if gradients:
        drawn["gradients"] = figures.draw_net_gradients(gradients, label=net, caption=caption)
    record.save_figures(workdir, drawn)
    last = rows[-1]
    summary = {
        "net": net,
        **last,
        "seeds": list(_seeds(config)),
        "seconds": sum(row["seconds"] for row in rows),
        "data": versions["data"],
        "device": versions["device"],
        "headline": f"{net}: test accuracy {_spread(last['test_accuracy'], test_count)}",
    }
    record.write_json(workdir / "summary.json", summary)
    return summary


def _draw_study(workdir: Path, nets: Sequence[str], caption: str) -> None:
    """Figures 1-5 of the report, as far as the nets of this run allow."""
    gradients = {net: record.gradients(workdir / net) for net in nets}
    gradients = {net: arrays_ for net, arrays_ in gradients.items() if arrays_}
    rows = {net: record.rows(workdir / net) for net in nets}
    drawn: dict[str, Any] = {}
    for number, depth in enumerate((5, 20, 40), start=1):
        chosen = _chosen(gradients, ("relu", "tanh", "sigmoid"), (depth,))
        if chosen:
            for suffix, reading, words in (
                ("", "kernel_abs_max", ""),
                ("_signal", "signal_abs_max", ", back-propagated signal"),
            ):
                drawn[f"figure_{number}{suffix}"] = figures.draw_gradient_maxima(
                    chosen,
                    epochs=REPORT_EPOCHS,
                    reading=reading,
                    title=f"Figure {number}: {depth} hidden layers{words}",
                    caption=caption,
                )
    pair = ("lecun", "tanh")
    if curves := _chosen(rows, pair, (5, 20, 40)):
        title = "Figure 4: learning curves, LeCun against tanh"
        drawn["figure_4"] = figures.draw_learning_curves(curves, title=title, caption=caption)
    if chosen := _chosen(gradients, pair, (5, 20, 40)):
        title = "Figure 5: gradient maxima, LeCun against tanh"
        drawn["figure_5"] = figures.draw_gradient_comparison(
            chosen, epochs=REPORT_EPOCHS, title=title, caption=caption
        )
    record.save_figures(workdir, drawn)


def _chosen(
    records: Mapping[str, Any], activations: Sequence[str], depths: Sequence[int]
) -> dict[str, Any]:
    names = [f"{activation}-{depth}" for depth in depths for activation in activations]
    return {name: records[name] for name in names if name in records}


def _seeds(config: Config) -> range:
    return range(config.seed, config.seed + config.seeds)


def _caption(config: Config, data: str) -> str:
    """What a figure was made from: the data, and the settings that the name of a net leaves out."""
    return (
        f"{data}. {config.width} units a layer, {config.init}, SGD {config.learning_rate:g}, "
        f"batches of {config.batch_size}"
    )


def make_probe(model: MLP) -> train.Probe:
    """The probe of the study: `probes.layer_statistics` over the layers of `model`."""

    def probe(gradients: PyTree, signals: PyTree) -> Mapping[str, Array]:
        by_layer = {layer: signals[f"{layer}_signal"] for layer in model.layer_names}
        return probes.layer_statistics(gradients, by_layer, model.layer_names)

    return probe


def _load(config: Config, *, download: bool) -> tuple[Dataset, Dataset, standard.Source]:
    return standard.load_mnist(
        directory=config.data.dir,
        source=config.data.source,
        tfds_dir=config.data.tfds_dir,
        download=download,
        say=say,
    )


def _describe_data(source: standard.Source) -> dict[str, Any]:
    return {**dataclasses.asdict(source), "caption": source.caption()}


def _row(epoch: int, result: train.EpochResult, seconds: float) -> dict[str, Any]:
    """One line of metrics.jsonl: numbers, or lists over the seeds where there are several."""

    def means(metrics: Metrics) -> tuple[np.ndarray, np.ndarray]:
        count = np.asarray(metrics.count, np.float64)
        return np.asarray(metrics.loss_sum) / count, np.asarray(metrics.correct) / count

    def plain(values: np.ndarray) -> float | list[float]:
        return values.tolist() if len(values) > 1 else values.item()

    (train_loss, train_accuracy), (test_loss, test_accuracy) = map(
        means, (result.train, result.test)
    )
    return {
        "epoch": epoch,
        "train_loss": plain(train_loss),
        "train_accuracy": plain(train_accuracy),
        "test_loss": plain(test_loss),
        "test_accuracy": plain(test_accuracy),
        "seconds": round(seconds, 3),
    }


def _progress(net: str, epochs: int, row: Mapping[str, Any]) -> str:
    mean = {key: float(np.mean(value)) for key, value in row.items()}
    return (
        f"{net} epoch {row['epoch']}/{epochs}: "
        f"train loss {mean['train_loss']:.4f} accuracy {mean['train_accuracy']:.4f}, "
        f"test loss {mean['test_loss']:.4f} accuracy {mean['test_accuracy']:.4f}, "
        f"{mean['seconds']:.2f} s"
    )


def _spread(accuracies: float | list[float], count: int) -> str:
    values = np.atleast_1d(accuracies)
    if len(values) == 1:
        return f"{values[0]:.2%} ({round(values[0] * count):,} of {count:,} images)"
    return (
        f"{values.mean():.2%} mean, {values.std(ddof=1):.2%} sd, {values.min():.2%} min, "
        f"{values.max():.2%} max ({len(values)} seeds, {count:,} images)"
    )


def _describe_net(config: Config, net: str, training: Dataset, test: Dataset) -> list[str]:
    model = make_model(config, net)
    tx = optim.make_optimizer(config.learning_rate)
    state = jax.eval_shape(
        lambda seed: train.init_state(model, tx, seed, training.images[:1]), np.zeros((), np.uint32)
    )
    kernels = {name: state.params[name]["kernel"].shape for name in model.layer_names}
    steps = arrays.steps_per_epoch(len(training.images), config.batch_size)
    statistics = len(probes.STATISTICS) if config.probe else 0
    epochs = config.epochs + config.probe  # the initial net is probed over an epoch of its own
    flops = costs.flops_per_image(kernels) * len(training.images) * epochs * config.seeds
    data_bytes = training.images.nbytes + test.images.nbytes
    net_bytes = costs.training_bytes(kernels, config.batch_size, steps, statistics) * config.seeds
    return [
        *costs.layer_table(kernels),
        f"{steps:,} steps an epoch, {steps * config.epochs:,} in all; about {flops:.3g} FLOPs for "
        f"{config.seeds} seed(s)",
        f"about {(data_bytes + net_bytes) / 2**20:.0f} MiB of arrays on the device, "
        f"{data_bytes / 2**20:.0f} MiB of them the data set",
    ]


def say(line: str) -> None:
    """Progress for the person at the terminal; standard output is kept for the summary."""
    print(line, file=sys.stderr, flush=True)
