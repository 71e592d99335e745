"""Trained classifiers for other experiments: found in their run directories, or trained there."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from research.adversarial import generate
from research.experiments import classifiers, depth, trainer
from research.runtime import files, progress
from research.storage import run_directory
from research.structs import Array, Config, Dataset, PyTree, UserError

_EXPERIMENTS = {"classifiers": classifiers, "depth": depth}


class Net(NamedTuple):
    """A trained net: its first seed's parameters, and apply_fn(params, images) -> logits.

    images: [B, H, W, C] float32 in [0, 1].  With `dropout=key` its dropout is on.
    origin: see `trainer.origin`; {"changes": {key: value}} as well, in which the config of its run
    differs from the variant that it is called after.
    """

    name: str
    apply_fn: Callable[..., jax.Array]
    params: PyTree
    workdir: Path
    epochs: int
    origin: Mapping[str, Any]

    def logits(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Logits [N, K] float32 of images [N, H, W, C] uint8, all in batches of one size."""
        return generate.logits_of(self.apply_fn, self.params, images, batch_size=batch_size)


def locate(spec: str, run: str, dataset: str) -> Path | None:
    """Where the run of the net "file:variant", as "cnn:mnist", lies, or None if there is none.

    run: "", for a run that has come to its end, in the directory where its own command puts it; or
    the directory of a run at any epoch, or one that holds it by its name.
    Raises UserError for a name of no net or of one for another data set, and for a directory that
    cannot be used.
    """
    _check_dataset(spec, _stated(spec), dataset)
    for workdir in _places(spec, run):
        begun = _begun(workdir)
        if begun is None:
            continue
        same = begun.get("name") == name_of(spec)
        if same and (run or run_directory.finished_summary(workdir) is not None):
            return workdir
    return None


def find(spec: str, run: str, train_set: Dataset, dataset: str) -> Net | None:
    """The net that `locate` finds, at the newest epoch of its run.

    Raises what `locate` raises, and UserError for a run without a checkpoint.
    """
    workdir = locate(spec, run, dataset)
    return None if workdir is None else _restore(spec, workdir, train_set, dataset)


def train(spec: str, data: Config, train_set: Dataset, dataset: str) -> Net:
    """The same net, trained now to its end, on the data that `data` names.

    Raises what `locate` and the net's experiment raise.
    """
    config = _stated(spec)
    config.data = ConfigDict(data)
    workdir = _places(spec, "")[0]
    _check_dataset(spec, config, dataset)
    if _begun(workdir) is not None:
        progress.say(
            f"{config.name} is not trained to its end: going on in {workdir} first; "
            f"--config.run={workdir} takes it as it is"
        )
    else:
        progress.say(f"{config.name} is not trained yet: training it in {workdir} first")
    _ = _EXPERIMENTS[config.experiment].run(config, workdir)
    return _restore(spec, workdir, train_set, dataset)


def name_of(spec: str) -> str:
    """ "mnist" of "cnn:mnist"."""
    return spec.partition(":")[2].replace(",", "-")


def _stated(spec: str) -> Config:
    file, _, variant = spec.partition(":")
    try:
        module = importlib.import_module(f"configs.{file}")
    except ImportError:
        raise UserError(
            f"nets: {spec!r} is not the name of a config file of configs/, a colon and a variant, "
            "such as 'cnn:mnist'"
        ) from None
    try:
        config: Config = module.get_config(variant)
    except AttributeError:
        raise UserError(f"nets: {spec!r} trains no classifier") from None
    except ValueError as error:
        raise UserError(f"nets: {spec!r}: {error}") from None
    if config.experiment not in _EXPERIMENTS:
        raise UserError(f"nets: {spec!r} trains no classifier")
    if config.experiment == "depth" and len(config.nets) > 1:
        raise UserError(f"nets: {spec!r} is a study of several; name one, as 'mlp:tanh-5'")
    return config


def _places(spec: str, run: str) -> Sequence[Path]:
    """Where the run of a net may lie; of those of no given `run` the first is where it is made."""
    file, name = spec.partition(":")[0], name_of(spec)
    if run:
        return files.locate(run) / name, files.locate(run)
    return Path("runs") / file / name, Path("runs") / file / "all" / name


def _restore(spec: str, workdir: Path, train_set: Dataset, dataset: str) -> Net:
    stated = json.loads(_stated(spec).to_json_best_effort())
    try:
        # Keys that are younger than the run have their stated values.
        begun = run_directory.complete(_begun(workdir) or {}, stated)
        config: Config = ConfigDict(begun)
        experiment = _EXPERIMENTS[config.experiment]
        task = experiment.make_task(config, len(train_set.images))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unusable(workdir, error) from error
    _check_dataset(spec, config, dataset)
    epoch, states = trainer.restore(task, config.seeds, workdir, train_set)
    if run_directory.finished_summary(workdir) is None:
        progress.say(f"{workdir}: its training is not finished; going on with epoch {epoch}")
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[0], states.params)
    usual, own = (flatten_dict(each, sep=".") for each in (stated, begun))
    changes = {
        key: value
        for key, value in own.items()
        if value != usual.get(key) and not key.startswith("data.")
    }
    versions = run_directory.read_json(workdir / "versions.json") or {}
    origin = {**trainer.origin(begun, versions, epoch), "changes": changes}
    return Net(name_of(spec), apply_of(task.model), params, workdir, epoch, origin)


def _begun(workdir: Path) -> dict[str, Any] | None:
    """The config with which a run was begun, or None if there is no run."""
    try:
        begun = run_directory.read_json(workdir / "config.json")
        return None if begun is None else dict(begun)
    except (ValueError, TypeError, UserError) as error:
        raise _unusable(workdir, error) from error


def _unusable(workdir: Path, error: Exception) -> UserError:
    return UserError(
        f"{workdir} holds no classifier of this version ({error}); name the directory of one with "
        "--config.run, or move this one away to have it trained again"
    )


def _check_dataset(spec: str, config: Config, dataset: str) -> None:
    own = config.dataset if config.experiment == "classifiers" else "mnist"
    if own != dataset:
        raise UserError(f"nets: {spec!r} is a net for {own}, but the images are of {dataset}")


def apply_of(model: nn.Module) -> Callable[..., jax.Array]:
    """apply_fn(params, images, dropout=None) of a model."""

    def apply_fn(params: PyTree, images: Array, dropout: jax.Array | None = None) -> Any:
        if dropout is None:
            return model.apply({"params": params}, images)
        return model.apply({"params": params}, images, train=True, rngs={"dropout": dropout})

    return apply_fn
