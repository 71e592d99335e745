"""Our side of `benchmarks.attacks`: the weights of the run for everybody, and our attacks.

    python -m benchmarks.ours_attack --export --run=DIR --data_dir=DIR --directory=DIR

writes the weights of the newest checkpoint of the run's first seed and the test images, and says
as one line of JSON what they are. Without --export it is the paced contestant.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from benchmarks import contest, ours
from configs import cnn
from research.adversarial import generate
from research.adversarial.augmented_lagrangian import AugmentedLagrangian
from research.adversarial.faithful import Faithful
from research.adversarial.loop import Method
from research.adversarial.minimal import Minimal
from research.adversarial.polish import Polish
from research.data import datasets
from research.experiments import classifiers, trainer
from research.experiments.noise import nets
from research.runtime import sharding
from research.structs import Config, PyTree, UserError
from research.training.evaluate import predict_all
from research.training.step import Loop

_NET = ("dataset", "filters", "pools", "dropouts", "dense", "dense_dropouts", "padding")


def attack(
    apply_fn: generate.Apply,
    params: PyTree,
    sample: contest.Sample,
    setting: Mapping[str, Any],
) -> dict[str, Any]:
    """Every case [N, 10], by a method of ours with the other values of the setting."""
    progress = generate.generate(
        apply_fn, params, sample.images, sample.labels, methods=make_methods(**setting)
    )
    return {
        "images": np.asarray(progress.best),
        "claimed": np.asarray(progress.success),
        "gradients": int(np.asarray(progress.steps).sum()),
    }


def make_methods(method: str, polish: int = 8, **settings: Any) -> tuple[Method, ...]:
    """The methods of a setting; polish: rounds, 0 for none, of a search for small noise only."""
    if method == "faithful":
        return (Faithful(**settings),)
    search = {"minimal": Minimal, "lagrangian": AugmentedLagrangian}[method](**settings)
    return (search, Polish(polish, search.required)) if polish else (search,)


def config_of(run: Path) -> Config:
    """The config of a run of configs/cnn.py whose net `benchmarks.judge` can compute.

    Raises UserError if the run is none, or one of another net.
    """
    try:
        begun: dict[str, Any] = json.loads((run / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: no run of configs/cnn.py ({error})") from error
    if begun.get("net") != "cnn" or begun.get("padding") != "valid":
        raise UserError(f"{run}: not a net of configs/cnn.py as the report's, of net=cnn")
    return ConfigDict(begun)


def flatten(params: PyTree) -> dict[str, np.ndarray]:
    """{"conv_0/kernel": array, ...}."""
    return {
        f"{layer}/{leaf}": np.asarray(array)
        for layer, leaves in params.items()
        for leaf, array in leaves.items()
    }


def export(run: Path, data_dir: str, cifar_dir: str, directory: Path) -> dict[str, Any]:
    """Write weights.npz and digits.npz into `directory`; returns what they are.

    Raises UserError for a run or data that cannot be used.
    """
    config = config_of(run)
    folder = data_dir if config.dataset == "mnist" else cifar_dir
    training_set, test_set, source = datasets.load(config.dataset, directory=folder)
    task = classifiers.make_task(config, len(training_set.images))
    epoch, states = trainer.restore(task, config.seeds, run, training_set)
    weights: dict[str, Any] = flatten(jax.tree.map(lambda array: array[0], states.params))
    np.savez(directory / "weights.npz", **weights, pools=np.array(config.pools))
    np.savez(directory / "digits.npz", images=test_set.images, labels=test_set.labels)
    return {
        "data": source.caption(),
        "seed": config.seed,
        "epoch": epoch,
        "name": config.name,
        "net": {key: config[key] for key in _NET},
        "weights": hashlib.sha256((directory / "weights.npz").read_bytes()).hexdigest()[:8],
    }


def unflatten(weights: dict[str, np.ndarray]) -> PyTree:
    """The parameters of the net from arrays as `flatten` names them."""
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, array in weights.items():
        layer, _, leaf = name.partition("/")
        if leaf:
            params.setdefault(layer, {})[leaf] = array
    return jax.tree.map(jax.numpy.asarray, params)


def measure_difference(
    model: nn.Module, params: PyTree, sample: contest.Sample, batch_size: int
) -> float:
    """Largest distance of our logits of the probes from the judge's."""
    loop = Loop(epochs=1, batch_size=1, eval_batch_size=batch_size, convolutions=True)
    stacked = jax.tree.map(lambda array: array[None], params)
    logits = predict_all(model, stacked, sample.probes, loop, seeds=1)
    return contest.difference(np.asarray(logits)[0], sample)


def compete(argv: Sequence[str]) -> None:
    """Be the paced contestant."""
    options = contest.parse_attack(argv)
    config: Config = cnn.get_config(options.net["dataset"])
    config.update({key: options.net[key] for key in _NET})
    threads = options.threads or config.cpu_threads
    sharding.configure(cpu_devices=1, cpu_threads=threads, seeds=1)
    model = classifiers.make_model(config, 10)
    sample, weights = contest.read_attacked(options.directory)
    params = unflatten(weights)
    contest.announce(
        versions=ours.versions(),
        threads=threads or os.cpu_count(),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        difference=measure_difference(model, params, sample, config.eval_batch_size),
    )
    apply_fn = nets.apply_of(model)
    contest.take_attacks(options, lambda setting: attack(apply_fn, params, sample, setting))


def main(argv: Sequence[str]) -> None:
    if "--export" not in argv:
        compete(argv)
        return
    parser = argparse.ArgumentParser()
    _ = parser.add_argument("--export", action="store_true")
    for name, kind in (("run", Path), ("data_dir", str), ("directory", Path)):
        _ = parser.add_argument(f"--{name}", required=True, type=kind)
    _ = parser.add_argument("--cifar_dir", default="")
    options = parser.parse_args(argv)
    try:
        found = export(options.run, options.data_dir, options.cifar_dir, options.directory)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
