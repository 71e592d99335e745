"""Our side of every comparison: the programs that `fit` runs, one epoch at a call.

As a command it is the paced contestant of `benchmarks.depth`: the gradient statistics of every
layer and step are recorded, and the test set is cut to one image, so that an epoch is training only
on every side.
"""

import importlib.metadata
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from benchmarks import contest
from configs import mlp
from research.data import batching, datasets
from research.experiments import depth
from research.models.mlp import MLP
from research.runtime import sharding
from research.structs import Array, Config, Dataset, PyTree, UserError
from research.training import optim
from research.training.epoch import EpochResult, epoch_order, make_epoch, make_steps
from research.training.step import Loop, Probe, init_states


class Study(NamedTuple):
    """What an epoch of one net is made of."""

    config: Config
    model: MLP
    tx: optax.GradientTransformation
    train: Dataset
    test: Dataset
    caption: str


def load(net: str, data_dir: str, *, cpu_devices: int = 1) -> Study:
    """The study of a net such as "tanh-40" as its config sets it up, on `cpu_devices` devices.

    Call before the first JAX array is made.  Exits with one line if net or data cannot be used.
    """
    config: Config = mlp.get_config()
    try:
        model = depth.make_model(config, net)
        training, test, source = datasets.load("mnist", directory=data_dir, source="idx")
    except UserError as error:
        sys.exit(f"error: {error}")
    sharding.configure(cpu_devices=cpu_devices, cpu_threads=config.cpu_threads, seeds=cpu_devices)
    tx = optim.make_optimizer(config.learning_rate)
    return Study(config, model, tx, training, test, source.caption())


class Nets:
    """One net per seed, placed as `fit` does it.

    states: TrainState [S, ...] on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        tx: optax.GradientTransformation,
        seeds: Sequence[int],
        sample: Array,
        *,
        data_devices: int = 0,
    ) -> None:
        self.mesh = sharding.make_mesh(len(seeds), data_devices=data_devices)
        self.numbers = seeds
        self.seeds = sharding.place_seeds(np.asarray(seeds, np.uint32), self.mesh)
        self.states = sharding.place_seeds(init_states(model, tx, seeds, sample[:1]), self.mesh)

    def batches(self, loop: Loop, examples: int, number: int, first: int, count: int) -> PyTree:
        """`count` batches of epoch `number` from step `first` on, placed as `fit` does it.

        (indices [S, count, B] int32, mask [S, count, B] bool) into so many examples.
        """
        orders = [
            jax.tree.map(np.asarray, epoch_order(seed, number, examples, loop.batch_size))
            for seed in sharding.fill(
                np.asarray(self.numbers), self.mesh.shape[sharding.INDEPENDENT]
            )
        ]
        indices, mask = (
            sharding.fill_batches(np.stack(part)[:, first : first + count], self.mesh)
            for part in zip(*orders, strict=True)
        )
        return sharding.place_batches((indices, mask), indices.shape, self.mesh)


class Trainer(Nets):
    """One net per seed, trained epoch by epoch.  batched: as in `sharding.over_seeds`."""

    def __init__(
        self,
        study: Study,
        *,
        seeds: Sequence[int] = (0,),
        probe: Probe | None = None,
        batched: bool | None = None,
    ) -> None:
        super().__init__(study.model, study.tx, seeds, study.train.images)
        loop = Loop(
            epochs=study.config.epochs,
            batch_size=study.config.batch_size,
            eval_batch_size=min(study.config.eval_batch_size, len(study.test.images)),
            probe=probe,
            snapshot=depth.make_snapshot(study.model) if probe else None,
        )
        self._epoch = make_epoch(
            *(study.model, study.tx, loop, study.train, study.test),
            seeds=seeds,
            mesh=self.mesh,
            batched=batched,
        )
        steps = make_steps(study.model, study.tx, loop)
        self._steps = sharding.over_seeds(steps, self.mesh, batched=batched)
        self._loop, self._train, self._number = loop, study.train, 0

    def lower(self) -> jax.stages.Lowered:
        """The steps of an epoch, traced and still to be compiled."""
        examples = len(self._train.images)
        count = batching.steps_per_epoch(examples, self._loop.batch_size)
        batches = self.batches(self._loop, examples, 1, 0, count)
        return self._steps.lower(self.states, (self.seeds, batches), np.int32(1), self._train)

    def epoch(self) -> EpochResult:
        """Run the next epoch and fetch all that it leaves, as NumPy arrays [S, ...]."""
        self._number += 1
        self.states, result = self._epoch(self.states, self._number, lambda *_: None)
        _, fetched = sharding.fetch_seeds((self.states, result), len(self.numbers))
        return fetched


def probe_of(study: Study) -> Probe:
    """The probe that the depth study records with."""
    return depth.make_probe(study.model)


def versions() -> dict[str, str]:
    """The packages on our side whose version decides the speed."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}


def main(argv: Sequence[str]) -> None:
    options = contest.parse(argv)
    study = load(options.net, options.data_dir)
    study = study._replace(test=jax.tree.map(lambda array: array[:1], study.test))
    trainer = Trainer(study, probe=probe_of(study))
    contest.announce(versions=versions(), data=study.caption, threads=study.config.cpu_threads)
    for _ in range(options.epochs):
        contest.wait()
        began = time.perf_counter()
        _ = trainer.epoch()
        contest.report(time.perf_counter() - began)


if __name__ == "__main__":
    main(sys.argv[1:])
