"""Shared by every experiment that trains nets: settings, checkpoints, records, progress."""

import dataclasses
import hashlib
import json
import math
import resource
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np
import optax

from configs import common
from research.data import batching, broadcast, datasets, provenance
from research.data.provenance import PUBLISHED
from research.runtime import distributed, preemption, profiling, progress, sharding
from research.storage import checkpoint, run_directory
from research.structs import Config, Dataset, Metrics, PyTree, TrainState, UserError
from research.training.divergence import Diverged
from research.training.epoch import EpochResult
from research.training.fit import fit
from research.training.step import Loop, init_state


class Layered(Protocol):
    """A net that names its layers."""

    @property
    def layer_names(self) -> tuple[str, ...]: ...


class Task(NamedTuple):
    """One net to be trained: its name in messages, model, optimiser and the settings of `fit`."""

    name: str
    model: nn.Module
    tx: optax.GradientTransformation
    loop: Loop


def check(config: Config) -> None:
    """Raise UserError naming the first key that is missing or not of its kind (`common.KINDS`)."""
    if problem := common.problem(config):
        raise UserError(problem)
    if config.seed > 2**32 - config.seeds:
        raise UserError(f"seed: {config.seed} is not in 0 .. 2**32 - seeds")


def seeds_of(config: Config) -> range:
    """The seeds of a run."""
    return range(config.seed, config.seed + config.seeds)


def load(
    config: Config, name: str, *, download: bool, workdir: Path | None = None
) -> datasets.Loaded:
    """The data set `name` from where config.data says.

    workdir: of the run; where it has several processes, they share the data through it.
    Says so if they are as many as were published and nobody knows whether they are the same.
    """
    load_all = partial(
        datasets.load,
        name,
        directory=config.data.dir,
        source=config.data.source,
        tfds_dir=config.data.tfds_dir,
        download=download,
        say=progress.say,
    )
    if workdir is None or distributed.is_single():
        loaded = load_all()
    else:
        loaded = broadcast.load(workdir / "data", load_all)
    source = loaded[2]
    if source.full and provenance.shortfall(describe_data(source)):
        progress.say(
            f"data of unknown origin: SHA-256 {source.sha256} is of no {PUBLISHED[name].name} that "
            "is known, so that this run will judge no claim and cannot be published"
        )
    return loaded


def describe_data(source: datasets.Source) -> dict[str, Any]:
    """What versions.json and summary.json say of the data."""
    return {**dataclasses.asdict(source), "caption": source.caption()}


def origin(config: Mapping[str, Any], versions: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """What a net was made from, for the records of all that is made with it.

    config, versions: of its run, as its files hold them.  epochs: that it was trained for.
    Returns {experiment, name, config_sha256, epochs, epochs_asked, data, git_commit, device}.  The
    digest is over `run_directory.identity` of the config.
    """
    settings = json.dumps(run_directory.identity(config), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()
    data = versions.get("data", {})
    return {
        "experiment": config["experiment"],
        "name": config["name"],
        "config_sha256": digest,
        "epochs": epochs,
        "epochs_asked": config.get("epochs"),
        "data": {key: value for key, value in data.items() if key not in ("source", "about")},
        "git_commit": versions.get("git_commit", ""),
        "device": versions.get("device", ""),
    }


def trained_on(origin: Mapping[str, Any], source: datasets.Source) -> str:
    """In words what a net was trained on, if that is another data set than `source`, else ""."""
    data = origin["data"]
    if data.get("sha256") == source.sha256:
        return ""
    return f"trained on {data.get('caption', 'data that its run does not name')}"


def describe_versions(config: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    """versions.json of a run that trains: besides `run_directory.describe_versions` the number of
    devices that share a batch, on which the last bits depend.
    """
    mesh = sharding.make_mesh(config.seeds, data_devices=config.data_devices)
    described = run_directory.describe_versions(data)
    return {**described, "batch_devices": mesh.shape[sharding.DATA]}


def train_net(
    task: Task,
    config: Config,
    workdir: Path,
    training: Dataset,
    held_out: Dataset,
    *,
    held_out_name: str = "test",
    start: TrainState | None = None,
) -> TrainState:
    """Train one net, or go on with it, until its records hold every epoch or it stops early.

    held_out: judged after every epoch; early stopping watches its loss.  held_out_name: of its
    columns in metrics.jsonl, as in "test_loss".
    workdir: where the run has been begun (`run_directory.begin`), to which its checkpoints belong.
    start: the states [S, ...] to begin with, of an earlier training; None for fresh ones.
    Returns the states [S, ...] after the last.  Raises UserError for a loss that is not finite,
    preemption.Stopped when told to stop.
    """
    seeds, loop = seeds_of(config), task.loop
    model: Layered = task.model  # pyright: ignore[reportAssignmentType]
    steps = loop.passes * batching.steps_per_epoch(len(training.labels), loop.batch_size)
    if traced := profiling.steps():  # a trace holds one piece
        loop = loop._replace(steps_per_dispatch=min(traced, loop.steps_per_dispatch or traced))
    trace = profiling.Trace(workdir)
    folder, run = workdir / "checkpoints", run_of(workdir, task)
    with (
        preemption.deferred(),
        checkpoint.Checkpoints(folder, run) as checkpoints,
        run_directory.EpochLog(workdir, model.layer_names, probed=loop.probe is not None) as log,
    ):
        restored = checkpoint.restore_newest(
            folder, run, template(task, len(seeds), training), say=progress.say
        )
        log.continue_from(restored.records if restored else {})
        if restored:
            progress.say(f"{task.name}: going on after epoch {restored.epoch}")

        def on_epoch(number: int, states: PyTree, result: EpochResult, seconds: float) -> None:
            row = row_of(number, result, seconds, steps, held_out_name) if number else None
            log.write(number, row, result.probe)
            if row is not None:
                checkpoints.save(number, states, log.contents())
                progress.say(epoch_line(task.name, loop.epochs, row))
                preemption.raise_if_requested()

        def on_steps(number: int, done: int, steps: int) -> None:
            preemption.mark_unsaved()
            if number:
                _ = bar.update((number - 1) * steps + done - bar.n)
            if line := trace.between():
                progress.say(line)
            if done < steps:  # else the epoch is all but saved, and a stop can wait for that
                preemption.raise_if_requested()

        try:
            with progress.bar(
                None,
                task.name,
                total=loop.epochs * steps,
                done=restored.epoch * steps if restored else 0,
                unit="steps",
            ) as bar:
                return fit(
                    task.model,
                    task.tx,
                    training,
                    held_out,
                    loop,
                    seeds=seeds,
                    resume=restored[:2] if restored else start and (0, start),
                    on_epoch=on_epoch,
                    on_steps=on_steps,
                )
        except Diverged as error:
            kept = f"epoch {error.epoch - 1} is kept in {workdir}" if error.epoch > 1 else ""
            raise UserError(
                f"{task.name}: {error}. {kept or 'No epoch was finished'}; "
                "a smaller learning_rate may help"
            ) from error


def restore(task: Task, seeds: int, workdir: Path, training: Dataset) -> tuple[int, TrainState]:
    """The newest (epoch, states [S, ...]) of the run in `workdir`.

    training: any images of the right shape.  Raises UserError if there is none.
    """
    restored = checkpoint.restore_newest(
        workdir / "checkpoints",
        run_of(workdir, task),
        template(task, seeds, training),
        say=progress.say,
    )
    if restored is None:
        raise UserError(
            f"{workdir} holds no checkpoint; train the net first, without --config.mode"
        )
    return restored.epoch, restored.state


def run_of(workdir: Path, task: Task) -> dict[str, Any]:
    """What tells the training of a net in `workdir` from others: for its checkpoints."""
    config = run_directory.read_json(workdir / "config.json") or {}
    versions = run_directory.read_json(workdir / "versions.json") or {}
    return {
        "net": task.name,
        "config": run_directory.identity(config),
        "data": versions.get("data", {}).get("sha256", ""),
    }


def template(task: Task, seeds: int, training: Dataset) -> PyTree:
    """Shapes and dtypes of the states of a run, [S, ...]."""
    sample = training.images[:1]
    return jax.eval_shape(
        jax.vmap(lambda seed: init_state(task.model, task.tx, seed, sample, task.loop)),
        jax.ShapeDtypeStruct((seeds,), np.uint32),
    )


def row_of(
    epoch: int, result: EpochResult, seconds: float, steps: int, held_out: str = "test"
) -> dict[str, Any]:
    """One line of metrics.jsonl: numbers, or lists over the seeds where there are several.

    A seed that had stopped before this epoch has None.  steps: of the epoch.  step_ms: of all seeds
    together, with its share of the held-out images and, in the first epoch, of compiling.
    device_memory_mib: see `device_memory_mib`.  held_out: the split that `result.test` is of.
    What `Loop.measure` gives has its own names.
    """

    def means(metrics: Metrics) -> tuple[np.ndarray, np.ndarray]:
        count = np.where(result.trained, np.asarray(metrics.count, np.float64), np.nan)
        return np.asarray(metrics.loss_sum) / count, np.asarray(metrics.correct) / count

    (train_loss, train_accuracy), (held_out_loss, held_out_accuracy) = map(
        means, (result.train, result.test)
    )
    return {
        "epoch": epoch,
        "train_loss": plain(train_loss),
        "train_accuracy": plain(train_accuracy),
        f"{held_out}_loss": plain(held_out_loss),
        f"{held_out}_accuracy": plain(held_out_accuracy),
        **{name: plain(np.asarray(values)) for name, values in result.measured.items()},
        "seconds": round(seconds, 3),
        "step_ms": round(1000 * seconds / steps, 3),
        "device_memory_mib": device_memory_mib(),
    }


def plain(values: np.ndarray) -> Any:
    """The number of a single seed, or a list over several; None for what is not a number."""
    plain = [None if math.isnan(value) else value for value in values.tolist()]
    return plain if len(plain) > 1 else plain[0]


def spread(accuracies: float | list[float], count: int) -> str:
    """An accuracy over `count` images in words, or its mean and range over the seeds."""
    values = np.atleast_1d(accuracies)
    if len(values) == 1:
        return f"{values[0]:.2%} ({round(values[0] * count):,} of {count:,} images)"
    return (
        f"{values.mean():.2%} mean, {values.std(ddof=1):.2%} sd, {values.min():.2%} min, "
        f"{values.max():.2%} max ({len(values)} seeds, {count:,} images)"
    )


def parameter_count(params: PyTree, seeds: int) -> int:
    """How many numbers a net has, of params [S, ...] of so many seeds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params)) // seeds


def parameter_lines(params: PyTree) -> list[str]:
    """A line for each array of a net, with its shape and size, and one for their sum.

    params: arrays, or shapes and dtypes.
    """
    lines: list[str] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = ".".join(str(part.key) for part in path)  # pyright: ignore[reportAttributeAccessIssue]
        lines.append(f"{name:32}{' x '.join(map(str, leaf.shape)):>20}{leaf.size:>14,}")
    return [*lines, f"{'parameters':52}{parameter_count(params, 1):>14,}"]


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def device_memory_mib() -> float | None:
    """Most memory that the first device of this process has held so far; None if it cannot say.

    The CPU cannot: its arrays are in `peak_memory_mib`.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    return None if peak is None else round(peak / 2**20, 1)


def costs_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What summary.json says of time and memory, from the lines of metrics.jsonl.

    seconds: of all epochs.  step_ms: the median over the epochs.  Epochs of before there were these
    keys are left out.
    """
    steps = [row["step_ms"] for row in rows if "step_ms" in row]
    peaks = [row["device_memory_mib"] for row in rows if row.get("device_memory_mib") is not None]
    return {
        "seconds": sum(row["seconds"] for row in rows),
        "step_ms": float(np.median(steps)) if steps else None,
        "device_memory_mib": max(peaks, default=None),
        "peak_memory_mib": peak_memory_mib(),
    }


def epoch_line(name: str, epochs: int, row: Mapping[str, Any]) -> str:
    """A line of metrics.jsonl in words, with means over the seeds that were trained."""
    mean = {key: run_directory.mean(value) for key, value in row.items()}
    held_out = "val" if "val_loss" in row else "test"
    return (
        f"{name} epoch {row['epoch']}/{epochs}: "
        f"train loss {mean['train_loss']:.4f} accuracy {mean['train_accuracy']:.4f}, "
        f"{held_out} loss {mean[f'{held_out}_loss']:.4f} "
        f"accuracy {mean[f'{held_out}_accuracy']:.4f}, "
        f"{mean['seconds']:.2f} s"
    )
