"""Classifiers of images: training, saving, restoring, and evaluation by more than accuracy.

Report, Exercise 2, first half: the CNNs on MNIST and CIFAR-10 that the adversarial noise is made
against.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.adversarial.adversarial_training import make_adversarial
from research.data import batching, datasets
from research.experiments import trainer
from research.figures import classifiers as pictures
from research.figures.curves import draw_net_curves
from research.models.cnn import CNN, ResNet
from research.runtime import distributed, files, progress, sharding
from research.storage import run_directory
from research.structs import Config, Dataset, PyTree, UserError
from research.training import augment, optim, scores
from research.training.evaluate import predict_all
from research.training.step import Loop, init_state, make_step

MODES = ("train", "evaluate")
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MISTAKES = 20  # in the picture of the most confident ones
# What may differ between a run and the command that evaluates it.
_OWN_KEYS = ("mode", "data", "eval_batch_size", "steps_per_dispatch")


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Train and evaluate the net of `config` in `workdir`, or go on where a killed run stopped.

    With mode "evaluate", evaluate the net that `workdir` holds on the data of `config`.
    Returns the content of summary.json.  Raises UserError for a config, a data set or a directory
    that cannot be used, and for a loss that is not finite.
    """
    check(config)
    if config.mode == "evaluate":
        return _evaluate_run(config, workdir)
    train_set, test_set, source = trainer.load(
        config, config.dataset, download=config.data.download, workdir=workdir
    )
    progress.say(f"data: {source.caption()}")
    versions = trainer.describe_versions(config, trainer.describe_data(source))
    task = make_task(config, len(train_set.images))
    _ = trainer.template(task, config.seeds, train_set)  # refuses a net that does not fit
    with run_directory.locked(workdir):
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        if finished is not None:
            progress.say(f"{config.name}: all {config.epochs} epochs are done already")
            return finished
        states = trainer.train_net(task, config, workdir, train_set, test_set)
        evaluation = _evaluate(task, states.params, config, test_set, workdir, source)
        rows = run_directory.rows(workdir)

        def draw() -> Mapping[str, Any]:
            caption = _caption(config, source)
            curves = draw_net_curves(rows, label=task.name, title=task.name, caption=caption)
            return {"learning_curves": curves}

        run_directory.save_figures(workdir, draw)
        summary = {
            "net": task.name,
            **rows[-1],
            "seeds": list(trainer.seeds_of(config)),
            **trainer.costs_of(rows),
            "parameters": trainer.parameter_count(states.params, config.seeds),
            **evaluation,
            "data": versions["data"],
            "device": versions["device"],
        }
        run_directory.finish(workdir, summary)
        return summary


def describe(config: Config) -> str:
    """What `run` would do: config, data, layers, steps, FLOPs and memory."""
    check(config)
    train_set, test_set, source = trainer.load(config, config.dataset, download=False)
    task = make_task(config, len(train_set.images))
    state = jax.eval_shape(lambda: init_state(task.model, task.tx, 0, train_set.images[:1]))
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    lines += [f"data: {source.caption()}", "", task.name, *trainer.parameter_lines(state.params)]
    steps = batching.steps_per_epoch(len(train_set.images), config.batch_size)
    rows, shape = config.batch_size, jax.ShapeDtypeStruct
    batch = jax.eval_shape(
        batching.gather, train_set, shape((rows,), np.int32), shape((rows,), np.bool_)
    )
    program = jax.jit(
        make_step(task.model, task.tx, task.loop), compiler_options=sharding.compiler_options()
    )
    compiled = program.lower(state, batch, shape((), np.uint32), shape((), np.bool_)).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost is not None and memory is not None
    step_mib = (
        memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    ) / 2**20
    data_mib = (train_set.images.nbytes + test_set.images.nbytes) / 2**20
    return "\n".join(
        [
            *lines,
            f"{steps:,} steps an epoch, {steps * config.epochs:,} in all for each of "
            f"{config.seeds} seed(s); about {cost['flops']:.3g} FLOPs a step",
            f"about {step_mib:.0f} MiB of arrays in a step, and {data_mib:.0f} MiB of images",
        ]
    )


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    trainer.check(config)
    if config.mode not in MODES:
        raise UserError(f"mode: {config.mode!r} is not one of {', '.join(MODES)}")
    if config.dataset not in datasets.CLASSES:
        valid = ", ".join(datasets.CLASSES)
        raise UserError(f"dataset: {config.dataset!r} is not one of {valid}")
    if config.label_smoothing == 1.0:
        raise UserError("label_smoothing: 1.0 is not in [0, 1)")
    _ = make_task(config, 1)


def make_task(config: Config, train_count: int) -> trainer.Task:
    """The net of a config, its optimiser for `train_count` images, and how it is trained."""
    steps = config.epochs * batching.steps_per_epoch(train_count, config.batch_size)
    model = make_model(config, len(datasets.CLASSES[config.dataset]))
    tx = optim.make_optimizer(
        config.learning_rate,
        name=config.optimizer,
        schedule=config.schedule,
        steps=steps,
        weight_decay=config.weight_decay,
    )
    loop = Loop(
        epochs=config.epochs,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        data_devices=config.data_devices,
        augment=augment.make_augment(shift_pixels=config.shift, mirrored=config.mirror),
        adversarial=make_adversarial(
            model, radius=config.adversarial_radius, steps=config.adversarial_steps
        ),
        label_smoothing=config.label_smoothing,
        steps_per_dispatch=config.steps_per_dispatch,
        convolutions=True,
    )
    return trainer.Task(config.name, model, tx, loop)


def make_model(config: Config, classes: int) -> nn.Module:
    """The net of a config for so many classes.

    Raises UserError naming the key whose value cannot be used.
    """
    if config.precision not in PRECISIONS:
        valid = ", ".join(PRECISIONS)
        raise UserError(f"precision: {config.precision!r} is not one of {valid}")
    common: dict[str, Any] = {
        "classes": classes,
        "dtype": PRECISIONS[config.precision],
    }
    if config.net == "cnn":
        return CNN(
            filters=config.filters,
            pools=config.pools,
            dropouts=config.dropouts,
            dense=config.dense,
            dense_dropouts=config.dense_dropouts,
            padding=config.padding,
            head=config.head,
            **common,
        )
    if config.net == "resnet":
        return ResNet(
            widths=config.widths,
            residual=config.residual,
            mean=config.mean,
            std=config.std,
            shrink=config.shrink,
            **common,
        )
    raise UserError(f"net: {config.net!r} is not one of cnn, resnet")


def _evaluate_run(config: Config, workdir: Path) -> dict[str, Any]:
    """Evaluate the net in `workdir` on the test images of the data that `config` names.

    The run itself may be in training or read-only: its files are only read.
    """
    begun = run_directory.read_json(workdir / "config.json")
    if begun is None:
        raise UserError(
            f"{workdir} holds no run to evaluate; train one with the same command without "
            "--config.mode, or name the directory of one with --workdir"
        )
    run_directory.check_same(workdir, config, but=_OWN_KEYS)
    beside = workdir / "evaluations"
    train_set, test_set, source = trainer.load(
        config, config.dataset, download=config.data.download, workdir=beside
    )
    progress.say(f"data: {source.caption()}")
    task = make_task(config, len(train_set.images))
    epoch, states = trainer.restore(task, config.seeds, workdir, train_set)
    if epoch < config.epochs:
        progress.say(f"{workdir} is at epoch {epoch} of {config.epochs}; evaluating that")
    versions = run_directory.read_json(workdir / "versions.json") or {}
    origin = trainer.origin(begun, versions, epoch)
    if trained_on := trainer.trained_on(origin, source):
        progress.say(f"{config.name}: {trained_on}, evaluated on {source.caption()}")
    name = re.sub(r"[^a-z0-9]+", "-", source.name.lower()).strip("-")
    into = beside / f"{name}-{source.sha256[:8]}"
    kept = distributed.broadcast_from_first(lambda: files.can_write(into))
    with run_directory.locked(into) if kept else contextlib.nullcontext():
        summary = {
            "net": task.name,
            "epoch": epoch,
            "seeds": list(trainer.seeds_of(config)),
            **_evaluate(
                task, states.params, config, test_set, into if kept else None, source, trained_on
            ),
            "origin": origin,
            "data": trainer.describe_data(source),
            "device": run_directory.describe_device(),
        }
        if kept:
            run_directory.finish(into, summary)
            progress.say(f"figures and numbers of this evaluation are in {into}")
        else:
            progress.say(f"{into} cannot be written: this evaluation leaves no files")
    return summary


def _evaluate(
    task: trainer.Task,
    params: PyTree,
    config: Config,
    test_set: Dataset,
    into: Path | None,
    source: datasets.Source,
    trained_on: str = "",
) -> dict[str, Any]:
    """Write predictions and figures into `into`; returns what the summary says of them.

    into: None where nothing can be written.  trained_on: what other data the net was trained on,
    in words.
    """
    logits = predict_all(task.model, params, test_set.images, task.loop, seeds=config.seeds)
    labels = np.asarray(test_set.labels)
    names = datasets.CLASSES[config.dataset]
    results = [scores.summary(each, labels, names) for each in logits]
    caption = ", of a net ".join(filter(None, (_caption(config, source), trained_on)))
    if into is not None:
        run_directory.write_arrays(into / "predictions.npz", {"logits": logits, "labels": labels})
        run_directory.save_figures(into, lambda: _draw(task.name, logits, test_set, names, caption))
    accuracies = trainer.plain(np.array([each["accuracy"] for each in results]))
    return {
        "test_accuracy": accuracies,
        "test": results,
        "headline": f"{task.name}: test accuracy {trainer.spread(accuracies, len(labels))}",
    }


def _draw(
    name: str, logits: np.ndarray, test_set: Dataset, names: Sequence[str], caption: str
) -> Mapping[str, Any]:
    labels = np.asarray(test_set.labels)
    predicted = logits.argmax(axis=-1)
    counts = [scores.confusion(each, labels, len(names)) for each in predicted]
    per_class = np.array([scores.per_class_accuracy(each) for each in counts])
    over = f", {len(logits)} seeds together" if len(logits) > 1 else ""
    drawn = {
        "confusion": pictures.draw_confusion(
            np.sum(counts, axis=0), names, title=f"{name}: confusion{over}", caption=caption
        ),
        "per_class": pictures.draw_per_class(
            dict(zip(names, per_class.T, strict=True)),
            title=f"{name}: test accuracy of every class",
            caption=caption,
        ),
        "reliability": pictures.draw_reliability(
            [scores.reliability(each, labels) for each in logits],
            title=f"{name}: how often its confidence is right",
            caption=caption,
        ),
    }
    wrong = np.flatnonzero(predicted[0] != labels)
    if len(wrong):
        confidence = scores.softmax(logits[0][wrong]).max(axis=-1)
        first = np.argsort(-confidence, kind="stable")[:MISTAKES]
        order = wrong[first]
        titles = [
            f"{i}: {names[int(labels[i])]}\nsaid {names[int(predicted[0, i])]} {p:.0%}"
            for i, p in zip(order, confidence[first], strict=True)
        ]
        drawn["mistakes"] = pictures.draw_examples(
            np.asarray(test_set.images)[order],
            titles,
            title=f"{name}: the most confident mistakes of {len(wrong):,}, first seed",
            caption=caption,
        )
    return drawn


def _caption(config: Config, source: datasets.Source) -> str:
    """What a figure was made from: the data, and the settings that the name leaves out."""
    radius = config.adversarial_radius
    against = f", trained on images attacked within {radius:g}" if radius else ""
    return (
        f"{source.caption()}. {config.optimizer} {config.learning_rate:g}, batches of "
        f"{config.batch_size}, {config.epochs} epochs{against}"
    )
