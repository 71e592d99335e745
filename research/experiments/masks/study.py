"""The face-mask study: annotated photographs, training, evaluation and export of a classifier.

Report, Exercise 3: three data sets, a small VGG with early stopping, evaluated on unseen faces.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.common import LOCATIONS
from research.data import batching
from research.experiments import classifiers, trainer
from research.experiments.masks import end_to_end, evaluation, faces
from research.experiments.masks.model_card import card
from research.faces import dataset as data
from research.runtime import files, progress
from research.storage import export, run_directory
from research.structs import Config, EarlyStoppingState, PyTree, TrainState, UserError
from research.training import augment, optim
from research.training.step import Loop

MODES = ("train", "ingest")


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Prepare the faces, train the net of `config` in `workdir`, evaluate it and export it.

    Resumes a run that was stopped.  With mode "ingest" it ends when the faces are prepared, and
    leaves in `ingest` of the work directory what they are, as a run that the ledger can judge.
    Returns the content of summary.json.  Raises UserError for a config, data or a directory that
    cannot be used, and for a loss that is not finite.
    """
    check(config)
    with run_directory.locked(workdir):
        if config.mode == "train" and run_directory.read_json(workdir / "config.json") is not None:
            run_directory.check_same(workdir, config, but=())
        masks = faces.load(config, workdir)
        described = faces.describe_data(masks)
        versions = trainer.describe_versions(config, described)
        if config.mode == "ingest":
            return _record(config, workdir / "ingest", masks, versions)
        task = make_task(config, len(masks.splits["train"].data.labels), masks.names)
        # Raises UserError now, before anything is written, if net and faces do not fit.
        _ = trainer.template(task, config.seeds, masks.splits["train"].data)
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        if finished is not None:
            progress.say(f"{config.name}: all is done already")
            return finished
        files.copy(masks.folder / data.PROBLEMS, workdir / data.PROBLEMS)
        return _train_and_evaluate(config, workdir, task, masks, versions)


def describe(config: Config) -> str:
    """Dry run: the config, the net and its parameters as text; no photograph is read."""
    check(config)
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    names = data.LABELS if config.data.keep_incorrect else data.LABELS[:2]
    model = make_task(config, 1, names).model
    size = config.data.size
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    )["params"]
    return "\n".join([*lines, config.name, *trainer.parameter_lines(shapes)])


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    trainer.check(config)
    if config.mode not in MODES:
        raise UserError(f"mode: {config.mode!r} is not one of {', '.join(MODES)}")
    for key in ("label_smoothing", "probability_floor"):
        if config[key] >= 0.5:
            raise UserError(f"{key}: {config[key]} is not in [0, 0.5)")
    faces.check(config)
    _ = make_task(config, 1, data.LABELS[:2])


def make_task(config: Config, train_count: int, names: tuple[str, ...]) -> trainer.Task:
    """The net of a config, its optimiser for `train_count` faces, and how it is trained."""
    tx = optim.make_optimizer(
        config.learning_rate,
        name=config.optimizer,
        schedule=config.schedule,
        steps=config.epochs * batching.steps_per_epoch(train_count, config.batch_size),
        weight_decay=config.weight_decay,
    )
    loop = Loop(
        epochs=config.epochs,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        data_devices=config.data_devices,
        augment=augment.make_augment(
            shift_pixels=config.shift, mirrored=config.mirror, jittered=config.jitter
        ),
        label_smoothing=config.label_smoothing,
        floor=config.probability_floor,
        patience=config.patience,
        keep_best=config.keep_best,
        steps_per_dispatch=config.steps_per_dispatch,
        convolutions=True,
    )
    return trainer.Task(config.name, classifiers.make_model(config, len(names)), tx, loop)


def _record(
    config: Config, into: Path, masks: data.Masks, versions: Mapping[str, Any]
) -> dict[str, Any]:
    """Keep what faces were prepared, in the place of those of an earlier time.

    Returns the summary, and where the faces are, which is of no interest elsewhere.
    """
    described = versions["data"]
    summary = {"data": described, "headline": described["caption"]}
    files.remove(into)
    files.make_folder(into)
    run_directory.begin(into, config, versions)
    files.copy(masks.folder / data.PROBLEMS, into / data.PROBLEMS)
    run_directory.finish(into, summary)
    headline = f"{summary['headline']}; the faces are in {masks.folder}"
    return {**summary, "folder": str(masks.folder), "headline": headline}


def _train_and_evaluate(
    config: Config,
    workdir: Path,
    task: trainer.Task,
    masks: data.Masks,
    versions: Mapping[str, Any],
) -> dict[str, Any]:
    parts = {split: faces_of.data for split, faces_of in masks.splits.items()}
    states = trainer.train_net(
        task, config, workdir, parts["train"], parts["val"], held_out_name="val"
    )
    params = _params(config, states)
    caption = faces.caption(masks)
    predictions = evaluation.predict(task, params, config.seeds, masks, workdir)
    evaluation.draw(task, predictions, workdir, caption, f"{caption}. {_settings(config)}")
    photographed = end_to_end.measure(
        task, params, config.seeds, masks, faces.finders(config), "test"
    )
    final: dict[str, Any] = {}
    if config.final_epochs:
        params, final = _train_on(config, workdir, task, masks, states, versions)
    rows = run_directory.rows(workdir)
    epochs = np.array([np.atleast_1d(row["val_loss"]) for row in rows], np.float64)
    summary = {
        "net": task.name,
        "names": list(masks.names),
        "seeds": list(trainer.seeds_of(config)),
        "epochs_trained": np.isfinite(epochs).sum(axis=0).tolist(),
        "best_epoch": (1 + np.nanargmin(epochs, axis=0)).tolist(),
        "end_to_end": photographed,
        "val": predictions.metrics("val"),
        "test": predictions.metrics("test"),
        "final": final,
        "parameters": trainer.parameter_count(params, config.seeds),
        **trainer.costs_of(rows),
        "data": versions["data"],
        "device": versions["device"],
    }
    summary["headline"] = _headline(task.name, summary)
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], params)
    settings = json.loads(config.to_json_best_effort())
    # An export is given to others: it must not disclose the directories of the photographs.
    settings["data"] |= {key: "" for key in settings["data"] if f"data.{key}" in LOCATIONS}
    export.write(
        workdir / "export",
        model=task.model,
        params=first,
        config=settings,
        labels=masks.names,
        origin=trainer.origin(settings, versions, summary["epochs_trained"][0]),
        card=card(summary, settings),
    )
    run_directory.finish(workdir, summary)
    return summary


def _train_on(
    config: Config,
    workdir: Path,
    task: trainer.Task,
    masks: data.Masks,
    states: TrainState,
    versions: Mapping[str, Any],
) -> tuple[PyTree, dict[str, Any]]:
    """The report's last step: some epochs on the validation faces, evaluated on the test faces."""
    progress.say(
        f"{task.name}: {config.final_epochs} more epochs, on the validation faces. No figure on "
        "them says anything of this net; only the test faces are still held out"
    )
    params = _params(config, states)
    start = TrainState(step=states.step, params=params, opt_state=states.opt_state)
    loop = task.loop._replace(epochs=config.final_epochs, patience=0, keep_best=False)
    last = task._replace(name=f"{task.name} final", loop=loop)
    val, test = masks.splits["val"].data, masks.splits["test"].data
    held_out = "test" if len(test.labels) else "val"
    into = workdir / "final"
    files.make_folder(into)
    run_directory.begin(into, config, versions)
    ended = trainer.train_net(
        last,
        config,
        into,
        val,
        masks.splits[held_out].data,
        held_out_name=held_out,
        start=start,
    )
    if held_out == "val":
        return ended.params, {"epochs": config.final_epochs, "test": {}}
    predictions = evaluation.predict(
        last, ended.params, config.seeds, masks, into, predicted_splits=("test",)
    )
    return ended.params, {"epochs": config.final_epochs, "test": predictions.metrics("test")}


def _params(config: Config, states: TrainState) -> PyTree:
    """The parameters to evaluate: the last, or with keep_best the best."""
    if not config.keep_best:
        return states.params
    assert isinstance(states, EarlyStoppingState)
    return states.kept.params


def _settings(config: Config) -> str:
    """The settings that a figure names."""
    stop = ""
    if config.patience:
        stop = f", stopped after {config.patience} without a lower validation loss"
    return (
        f"{config.optimizer} {config.learning_rate:g}, batches of {config.batch_size}, at most "
        f"{config.epochs} epochs{stop}"
    )


def _headline(name: str, summary: Mapping[str, Any]) -> str:
    def words(group: Mapping[str, Any]) -> str:
        accuracy = trainer.spread(trainer.plain(np.array(group["accuracies"])), group["count"])
        return f"{accuracy}, majority {group['majority']:.2%}"

    headline = f"{name}: "
    for detector, measured in summary["end_to_end"].items():
        people = measured["sources"]["all"]["all"]
        headline += (
            f"{people['share']:.2%} of {people['count']:,} faces in test photographs found by "
            f"{detector} and called right; "
        )
    headline += f"validation accuracy {words(summary['val']['all'])}"
    if summary["test"]:
        headline += f"; test accuracy {words(summary['test']['all'])}"
    return headline
