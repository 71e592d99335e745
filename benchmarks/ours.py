"""Our side of every comparison: the programs that `train.fit` runs, one epoch at a call.

As a command it is the paced contestant of `benchmarks.depth`: the gradient statistics of every
layer and step are recorded, and the test set is cut to one image, so that an epoch is training only
on every side.
"""

import importlib.metadata
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import contest
from configs import mlp
from research.data import datasets
from research.experiments import depth
from research.models.mlp import MLP
from research.runtime import sharding
from research.structs import Config, Dataset, UserError
from research.training import optim, train


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
    """One net per seed and its data, placed as `train.fit` does it.

    states: TrainState [S, ...] on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        tx: optax.GradientTransformation,
        seeds: Sequence[int],
        *data: Dataset,
    ) -> None:
        self.mesh = sharding.make_mesh(len(seeds))
        self.data = sharding.place_whole(data, self.mesh)
        self.seeds = sharding.place_seeds(np.asarray(seeds, np.uint32), self.mesh)
        states = train.init_states(model, tx, seeds, np.asarray(data[0].images[:1]))
        self.states = sharding.place_seeds(states, self.mesh)


class Trainer(Nets):
    """One net per seed, trained epoch by epoch.

    program: the compiled epoch.  batched: as in `parallel.over_seeds`.
    """

    def __init__(
        self,
        study: Study,
        *,
        seeds: Sequence[int] = (0,),
        probe: train.Probe | None = None,
        batched: bool | None = None,
    ) -> None:
        super().__init__(study.model, study.tx, seeds, study.train, study.test)
        loop = train.Loop(
            epochs=study.config.epochs,
            batch_size=study.config.batch_size,
            eval_batch_size=min(study.config.eval_batch_size, len(study.test.images)),
            probe=probe,
        )
        epoch = train.make_epoch(study.model, study.tx, loop)
        self.program = sharding.over_seeds(epoch, self.mesh, batched=batched)
        self._number = 0

    def arguments(self) -> tuple[Any, ...]:
        """What the program is called with at the next epoch."""
        return self.states, self.seeds, jnp.int32(self._number + 1), *self.data

    def epoch(self) -> train.EpochResult:
        """Run the next epoch and fetch all that it leaves, as NumPy arrays [S, ...]."""
        self.states, result = self.program(*self.arguments())
        self._number += 1
        _, fetched = sharding.fetch_seeds((self.states, result), len(self.seeds))
        return fetched


def probe_of(study: Study) -> train.Probe:
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
