"""Our contestant of `benchmarks.cnn`: the program that `fit` runs, and an attack's gradients.

A training turn is one call of the compiled steps: a scan that gathers uint8 batches, draws dropout,
descends, and counts loss and hits. A gradient turn is one program too, a scan of images that each
move along the sign of their gradient before the next is taken.
"""

import os
import sys
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import contest, ours
from configs import cnn
from research.data import batching, datasets
from research.experiments import classifiers, trainer
from research.models import native
from research.runtime import sharding
from research.structs import Array, Config, Dataset, PyTree, UserError
from research.training import losses
from research.training.epoch import make_steps
from research.training.step import StepOutput, as_input, init_state

_OPTION = "xla_cpu_copy_insertion_use_region_analysis"


class Steps(ours.Nets):
    """One net and its data, trained `count` steps at a turn.

    copying: without the option that spares copies, see `sharding.compiler_options`.
    """

    def __init__(
        self, task: trainer.Task, data: Dataset, count: int, *, copying: bool = False
    ) -> None:
        super().__init__(task.model, task.tx, (0,), data.images)
        self.program: Callable[..., PyTree] = sharding.over_seeds(
            make_steps(task.model, task.tx, task.loop),
            self.mesh,
            convolutions=task.loop.convolutions,
        )
        self._copying = copying
        self._loop, self._count = task.loop, count
        self._examples = len(data.images)
        self._data = sharding.place_whole(data, self.mesh)
        self._steps = batching.steps_per_epoch(self._examples, task.loop.batch_size)
        self._number, self._first = 1, 0

    def turn(self) -> StepOutput:
        """Take the next steps, beginning a new epoch where too few are left of this one."""
        if self._first + self._count > self._steps:
            self._number, self._first = self._number + 1, 0
        where = self._number, self._first
        batches = self.batches(self._loop, self._examples, *where, self._count)
        given = self.states, (self.seeds, batches), np.int32(self._number), self._data
        if self._copying and isinstance(self.program, jax.stages.Wrapped):
            known = _OPTION in (sharding.compiler_options() or {})
            others: dict[str, bool | str] | None = {_OPTION: False} if known else None
            self.program = self.program.lower(*given).compile(others)
        self.states, output = self.program(*given)
        self._first += self._count
        return jax.block_until_ready((self.states, output))[1]


class Gradients:
    """Images that move along the sign of their gradient, `count` times at a turn."""

    def __init__(self, model: nn.Module, params: PyTree, data: Dataset, count: int) -> None:
        self.images = as_input(data.images)
        self._params = params
        labels = jnp.asarray(data.labels)

        def move(params: PyTree, images: Array) -> jax.Array:
            def loss(images: jax.Array) -> jax.Array:
                logits = model.apply({"params": params}, images)
                assert isinstance(logits, jax.Array)
                return jnp.sum(losses.cross_entropy(logits, labels))

            def body(images: jax.Array, _: None) -> tuple[jax.Array, None]:
                return images - contest.STEP * jnp.sign(jax.grad(loss)(images)), None

            return jax.lax.scan(body, jnp.asarray(images), length=count)[0]

        self.program = jax.jit(move, compiler_options=sharding.compiler_options())

    def turn(self) -> jax.Array:
        """Move the images on."""
        self.images = jax.block_until_ready(self.program(self._params, self.images))
        return self.images


def use_native() -> None:
    """Our own convolutions from now on.  Ends the process where they cannot be compiled."""
    said = native.enable("runs/.compiled")
    if not native.settings():
        sys.exit(f"error: {said}")


def load(config: Config, data_dir: str) -> tuple[Dataset, str]:
    """Training images of MNIST, or random ones in the shape of CIFAR-10; and what they are."""
    if config.dataset == "mnist":
        try:
            data, _, source = datasets.load("mnist", directory=data_dir, source="idx")
        except UserError as error:
            sys.exit(f"error: {error}")
        return data, source.caption()
    images, labels = contest.draw_pictures()
    return Dataset(images=images, labels=labels.astype(np.int32)), "random bytes"


def make_turn(
    config: Config, data: Dataset, work: str, count: int, *, copying: bool = False
) -> tuple[Callable[[], object], int]:
    """What a turn of this work does, and the number of the net's parameters; see `Steps`."""
    task = classifiers.make_task(config, len(data.images))
    if work == "train":
        steps = Steps(task, data, count, copying=copying)
        return steps.turn, count_parameters(steps.states.params)
    few = jax.tree.map(lambda array: array[: contest.ATTACKED], data)
    params = init_state(task.model, task.tx, 0, few.images).params
    return Gradients(task.model, params, few, count).turn, count_parameters(params)


def count_parameters(params: PyTree) -> int:
    """The number of parameters of a net."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def main(argv: Sequence[str]) -> None:
    options = contest.parse_cnn(argv, "copying", "bfloat16", "native")
    config: Config = cnn.get_config(options.net["variant"])
    if "padding" in options.net:
        config.padding = options.net["padding"]
    if options.bfloat16:
        config.precision = "bfloat16"
    sharding.configure(cpu_devices=1, cpu_threads=config.cpu_threads, seeds=1)
    if options.native:
        use_native()
    data, caption = load(config, options.data_dir)
    turn, parameters = make_turn(config, data, options.work, options.count, copying=options.copying)
    contest.announce(
        versions=ours.versions(),
        data=caption,
        threads=config.cpu_threads or os.cpu_count(),
        parameters=parameters,
    )
    contest.take_turns(turn)


if __name__ == "__main__":
    main(sys.argv[1:])
