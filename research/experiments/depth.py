"""The depth study: activations that let the gradient through 5, 20 or 40 layers, or do not.

Report, Exercise 1: accuracies (Parts B and D), gradient maxima of every layer (Part C, figures 1-3
and 5) and learning curves (figure 4).
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from research.data import batching
from research.experiments import trainer
from research.figures.curves import draw_learning_curves
from research.figures.depth import (
    draw_gradient_comparison,
    draw_gradient_maxima,
    draw_net_gradients,
    draw_theory,
)
from research.models import costs
from research.models.activations import ACTIVATIONS
from research.models.mlp import INITIALIZERS, MLP, SHIFT
from research.runtime import distributed, progress
from research.storage import run_directory
from research.structs import Array, Config, Dataset, PyTree, UserError
from research.theory import comparison, depth_scales, mean_field
from research.training import optim, probes
from research.training.epoch import snapshot_batch
from research.training.step import Derivatives, Loop, Probe, Snapshot, as_input, init_state

REPORT_DEPTHS = (5, 20, 40)  # hidden layers, in figures 1, 2 and 3, and all of them in 4 and 5
LSUV_IMAGES = 256  # that an init looks at which does
REPORT_EPOCHS = (0, 1, 2, 3)  # the report trains Part C for three epochs; 0 is initialisation
_NO_GRADIENTS = "no gradients are recorded with probe=False"


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Train every net of `config.nets` in `workdir`, or go on where a killed run stopped.

    One net uses `workdir` itself, several a directory each inside it.  Returns the content of
    summary.json.  Raises UserError for a config, a data set or a directory that cannot be used, and
    for a loss that is not finite.
    """
    check(config)
    train_set, test_set, source = trainer.load(
        config, "mnist", download=config.data.download, workdir=workdir
    )
    progress.say(f"data: {source.caption()}")
    versions = trainer.describe_versions(config, trainer.describe_data(source))
    if len(config.nets) == 1:
        return _run_net(config, workdir, train_set, test_set, versions)
    with run_directory.locked(workdir):
        began = time.monotonic()
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        results = {
            net: _run_net(net_config(config, net), workdir / net, train_set, test_set, versions)
            for net in config.nets
        }
        if finished is not None and finished["nets"] == results:
            return finished
        rows = {net: run_directory.rows(workdir / net) for net in config.nets}
        caption = _caption(config, source.caption())
        run_directory.save_figures(workdir, lambda: _draw_study(workdir, rows, caption))
        summary = {"nets": results, "data": versions["data"], "device": versions["device"]}
        progress.say(f"{len(results)} nets in {time.monotonic() - began:.0f} s")
        best = max(results, key=lambda net: np.mean(results[net]["test_accuracy"]))
        summary["headline"] = (
            f"{len(results)} nets, {config.seeds} seed(s) each, on {source.caption()}; "
            f"best: {results[best]['headline']}"
        )
        run_directory.finish(workdir, summary)
        return summary


def describe(config: Config) -> str:
    """What `run` would do: config, data, and for every net its layers, steps, FLOPs and memory."""
    check(config)
    train_set, test_set, source = trainer.load(config, "mnist", download=False)
    if config.data.download and not source.full and config.data.source in ("auto", "tfds"):
        progress.say("the run itself would try to download the full set first")
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    lines += [f"data: {source.caption()}"]
    tx = optim.make_optimizer(config.learning_rate, name=config.optimizer)
    steps = batching.steps_per_epoch(len(train_set.images), config.batch_size)
    statistics = len(probes.STATISTICS) if config.probe else 0
    epochs = config.epochs + config.probe  # the initial net is probed over an epoch of its own
    data_bytes = train_set.images.nbytes + test_set.images.nbytes
    for net in config.nets:
        model = make_model(config, net)
        state = jax.eval_shape(lambda model=model: init_state(model, tx, 0, train_set.images[:1]))
        kernels = {name: state.params[name]["kernel"].shape for name in model.layer_names}
        flops = costs.flops_per_image(kernels) * len(train_set.images) * epochs * config.seeds
        net_bytes = costs.training_bytes(kernels, config.batch_size, steps, statistics)
        memory = data_bytes + net_bytes * config.seeds
        lines += [
            "",
            net,
            *costs.layer_table(kernels),
            f"{steps:,} steps an epoch, {steps * config.epochs:,} in all; about {flops:.3g} FLOPs "
            f"for {config.seeds} seed(s)",
            f"about {memory / 2**20:.0f} MiB of arrays on the device, {data_bytes / 2**20:.0f} MiB "
            "of them the data set",
            will_it_train(model, train_set.images[: mean_field.IMAGES]),
        ]
    return "\n".join(lines)


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    trainer.check(config)
    if not config.nets:
        raise UserError("nets: empty; give names such as 'tanh-40'")
    twice = [net for net in config.nets if config.nets.count(net) > 1]
    if twice:
        raise UserError(f"nets: {twice[0]!r} is there twice; name each once")
    for net in config.nets:
        _ = make_model(config, net)
    _ = optim.make_optimizer(config.learning_rate, name=config.optimizer)


def make_model(config: Config, net: str) -> MLP:
    """The net named "activation-depth".  Raises UserError if there is no such net."""
    activation, _, depth = net.partition("-")
    # No leading zeros: one name for one net.
    if not re.fullmatch("[1-9][0-9]{0,2}|1000", depth) or activation not in ACTIVATIONS:
        names = ", ".join(ACTIVATIONS)
        raise UserError(
            f"nets: {net!r} is not an activation ({names}), a hyphen and a depth from 1 to 1000"
        )
    return MLP(
        int(depth),
        config.width,
        activation,
        config.init,
        gain=config.gain,
        residual=config.residual,
        shift=config.shift,
    )


def net_config(config: Config, net: str) -> Config:
    """The config under which one net of a study runs: that of the net alone."""
    single = ConfigDict(config)
    single.nets = (net,)
    single.name = net
    return single


def make_task(config: Config, _train_count: int) -> trainer.Task:
    """The one net of a config, its optimiser, and how it is trained.

    Called as `classifiers.make_task`; a constant learning rate needs no number of images.
    """
    (net,) = config.nets
    model = make_model(config, net)
    loop = Loop(
        epochs=config.epochs,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        data_devices=config.data_devices,
        probe=make_probe(model) if config.probe else None,
        snapshot=make_snapshot(model) if config.probe else None,
        init_images=LSUV_IMAGES if INITIALIZERS[config.init].normalised else 1,
    )
    return trainer.Task(
        net, model, optim.make_optimizer(config.learning_rate, name=config.optimizer), loop
    )


def _run_net(
    config: Config,
    workdir: Path,
    train_set: Dataset,
    test_set: Dataset,
    versions: Mapping[str, Any],
) -> dict[str, Any]:
    """Train the one net of `config`, draw its figures, and write its summary."""
    (net,) = config.nets
    with run_directory.locked(workdir):
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        if finished is not None:
            progress.say(f"{net}: all {config.epochs} epochs are done already")
            return finished
        task = make_task(config, len(train_set.images))
        predicted: dict[str, np.ndarray] = {}
        if config.probe:
            predicted = predict(make_model(config, net), train_set, config.batch_size)
            run_directory.write_arrays(workdir / "theory.npz", predicted)
        _ = trainer.train_net(task, config, workdir, train_set, test_set)
        rows = run_directory.rows(workdir)
        caption = _caption(config, versions["data"]["caption"])

        def draw() -> Mapping[str, Any]:
            curves = draw_learning_curves({net: rows}, title=net, caption=caption)
            drawn = {"learning_curves": curves}
            if gradients := run_directory.gradients(workdir):
                drawn["gradients"] = draw_net_gradients(gradients, label=net, caption=caption)
                if _begins_with_a_snapshot(gradients):
                    drawn["theory"] = draw_theory(gradients, predicted, label=net, caption=caption)
            else:
                progress.say(f"figure gradients is not drawn: {_NO_GRADIENTS}")
            return drawn

        run_directory.save_figures(workdir, draw)
        explained = ""
        if config.probe:

            def explain() -> str:
                gradients = run_directory.gradients(workdir)
                if not _begins_with_a_snapshot(gradients):
                    return ""
                return comparison.sentence(predicted, gradients)

            explained = distributed.broadcast_from_first(explain)
            progress.say(f"{net}: {explained or 'begun by an earlier version, without snapshots'}")
        accuracy = trainer.spread(rows[-1]["test_accuracy"], len(test_set.images))
        summary = {
            "net": net,
            **rows[-1],
            "seeds": list(trainer.seeds_of(config)),
            **trainer.costs_of(rows),
            "data": versions["data"],
            "device": versions["device"],
            "theory": explained,
            "headline": f"{net}: test accuracy {accuracy}",
        }
        run_directory.finish(workdir, summary)
        return summary


def _draw_study(workdir: Path, rows: Mapping[str, Any], caption: str) -> Mapping[str, Any]:
    """Figures 1-5 of the report, as far as the nets of this run allow; a line says what is not.

    A depth that none of them shows gets its learning curves and gradients in figures of its own.
    """
    gradients = {net: run_directory.gradients(workdir / net) for net in rows}
    gradients = {net: arrays_ for net, arrays_ in gradients.items() if arrays_}
    drawn: dict[str, Any] = {}

    def draw_maxima(name: str, chosen: Mapping[str, Any], title: str) -> None:
        for suffix, statistic, words in (
            ("", "kernel_abs_max", ""),
            ("_signal", "signal_abs_max", ", back-propagated signal"),
        ):
            drawn[f"{name}{suffix}"] = draw_gradient_maxima(
                chosen,
                epochs=REPORT_EPOCHS,
                statistic=statistic,
                title=f"{title}{words}",
                caption=caption,
            )

    three, pair = ("relu", "tanh", "sigmoid"), ("lecun", "tanh")
    for number, depth in enumerate(REPORT_DEPTHS, start=1):
        if chosen := _chosen(gradients, three, (depth,)):
            draw_maxima(f"figure_{number}", chosen, f"Figure {number}: {depth} hidden layers")
    if curves := _chosen(rows, pair, REPORT_DEPTHS):
        title = "Figure 4: learning curves, LeCun against tanh"
        drawn["figure_4"] = draw_learning_curves(curves, title=title, caption=caption)
    if chosen := _chosen(gradients, pair, REPORT_DEPTHS):
        title = "Figure 5: gradient maxima, LeCun against tanh"
        drawn["figure_5"] = draw_gradient_comparison(
            chosen, epochs=REPORT_EPOCHS, title=title, caption=caption
        )
    shown = {*curves, *_chosen(gradients, three, REPORT_DEPTHS)}
    for depth in sorted({_depth(net) for net in rows} - {_depth(net) for net in shown}):
        title = f"{depth} hidden layers"
        nets = [net for net in rows if _depth(net) == depth]
        drawn[f"learning_curves_{depth}"] = draw_learning_curves(
            {net: rows[net] for net in nets}, title=title, caption=caption
        )
        if chosen := {net: gradients[net] for net in nets if net in gradients}:
            draw_maxima(f"gradients_{depth}", chosen, title)
    needed = {str(n): (three, (depth,)) for n, depth in enumerate(REPORT_DEPTHS, start=1)}
    needed |= {"4": (pair, REPORT_DEPTHS), "5": (pair, REPORT_DEPTHS)}
    no_nets = [n for n, (names, depths) in needed.items() if not _chosen(rows, names, depths)]
    no_gradients = [n for n in needed if f"figure_{n}" not in drawn and n not in no_nets]
    reasons = {"this run has none of their nets": no_nets, _NO_GRADIENTS: no_gradients}
    if lines := [f"{', '.join(numbers)} ({why})" for why, numbers in reasons.items() if numbers]:
        progress.say(f"figures of the report that are not drawn: {'; '.join(lines)}")
    return drawn


def _depth(net: str) -> int:
    return int(net.partition("-")[2])


def _chosen(
    records: Mapping[str, Any], activations: Sequence[str], depths: Sequence[int]
) -> dict[str, Any]:
    names = [f"{activation}-{depth}" for depth in depths for activation in activations]
    return {name: records[name] for name in names if name in records}


def _caption(config: Config, data: str) -> str:
    """What a figure was made from: the data, and the settings that the name of a net leaves out."""
    return (
        f"{data}. {config.width} units a layer, {config.init}, "
        f"{config.optimizer.upper()} {config.learning_rate:g}, "
        f"batches of {config.batch_size}"
    )


def make_probe(model: MLP) -> Probe:
    """The probe of the study: `probes.layer_statistics` over the layers of `model`."""

    def probe(gradients: PyTree, signals: PyTree) -> Mapping[str, Array]:
        by_layer = {layer: signals[f"{layer}_signal"] for layer in model.layer_names}
        return probes.layer_statistics(gradients, by_layer, model.layer_names)

    return probe


def will_it_train(model: MLP, images: Array) -> str:
    """A sentence from the depth scales of the init, before any step; images: [B, H, W, C] uint8."""
    scales = {init: depth_in_scales(model.clone(init_name=init), images) for init in INITIALIZERS}
    own, limit = scales[model.init_name], depth_scales.LIMIT
    depth = f"{model.depth} hidden layers are {own:.1f} depth scales of the signal"
    if own <= limit:
        return f"will it train? {depth}, up to {limit:g} train: yes"
    others = [f"{init} ({scale:.1f})" for init, scale in scales.items() if scale <= limit]
    cure = f"with init {', '.join(others)} it should" if others else "no other init changes that"
    return (
        f"will it train? {depth}, and beyond {limit:g} hardly any net does in some hundred steps; "
        f"many epochs may reach about twice as deep; {cure}"
    )


def depth_in_scales(model: MLP, images: Array) -> float:
    """Hidden layers over the depth scale of the signal before any step; images as above."""
    x = _vectors(images)
    return depth_scales.depth_in_scales(theory_net(model, x), x)


def _begins_with_a_snapshot(gradients: Mapping[str, np.ndarray]) -> bool:
    """Whether the net before its first step was recorded, which earlier versions did not do."""
    return "kernel_rms_batch" in gradients and bool(
        np.isfinite(gradients["kernel_rms_batch"][0]).all()
    )


def make_snapshot(model: MLP) -> Snapshot:
    """The snapshot of the study: `probes.snapshot_statistics` over the layers of `model`."""
    activation = ACTIVATIONS[model.activation]
    steepest = max(activation.derivative_range)
    names = model.layer_names

    def snapshot(
        params: PyTree, inputs: jax.Array, derivatives: Derivatives
    ) -> Mapping[str, Array]:
        captured: PyTree = model.apply({"params": params}, inputs, capture_intermediates=True)[1]
        outputs = [captured["intermediates"][name]["__call__"][0] for name in names]
        hidden = [jax.jvp(activation.function, (u,), (jnp.ones_like(u),)) for u in outputs[:-1]]
        return probes.snapshot_statistics(
            kernels=[params[name]["kernel"] for name in names],
            gradients=[derivatives.params[name]["kernel"] for name in names],
            signals=[derivatives.signals[f"{name}_signal"] for name in names],
            updates=[derivatives.updates[name]["kernel"] for name in names],
            activations=[*(value for value, _ in hidden), outputs[-1]],
            slopes=[jnp.abs(slope) / steepest for _, slope in hidden],
        )

    return snapshot


def _vectors(images: Array) -> np.ndarray:
    """Images [B, H, W, C] uint8 as the net multiplies them: [B, inputs] float32."""
    return np.asarray(as_input(images)).reshape(len(images), -1)


def theory_net(model: MLP, images: np.ndarray) -> mean_field.Net:
    """What the theory has to know of a net before its first step; images: [B, inputs] float."""
    widths = (images.shape[1], *[model.width] * model.depth, model.classes)
    init = INITIALIZERS[model.init_name]
    net = mean_field.Net(
        ACTIVATIONS[model.activation].function,
        widths,
        tuple(init.variance(*widths[i : i + 2]) for i in range(len(widths) - 1)),
        orthogonal=init.orthogonal,
        centre=SHIFT if model.shift else 0.0,
        branch=model.branch,
    )
    gains = np.array([model.gain_of(layer) for layer in range(model.depth + 1)])
    if init.normalised:
        return mean_field.normalised(net, images, gains**2)
    return net._replace(variances=tuple(np.array(net.variances) * gains**2))


def predict(model: MLP, train_set: Dataset, batch_size: int) -> dict[str, np.ndarray]:
    """theory.npz: what `mean_field.predict` says of a net, on the images of its snapshots.

    Of a larger batch its first images stand for all.
    """
    batch = snapshot_batch(train_set, batch_size)
    images = _vectors(batch.images[: mean_field.IMAGES])
    labels = np.asarray(batch.labels)[: mean_field.IMAGES]
    predicted = mean_field.predict(theory_net(model, images), images, labels, batch_size)
    return {"layers": np.asarray(model.layer_names), **predicted}
