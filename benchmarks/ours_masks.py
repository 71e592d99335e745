"""Our contestant of `benchmarks.masks_net`: the steps that `fit` runs, some at a turn."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import contest, ours, ours_cnn
from research.experiments import trainer
from research.models.cnn import CNN
from research.runtime import sharding
from research.structs import Dataset
from research.training import optim
from research.training.step import Loop

_OF_THE_MODEL = ("filters", "pools", "dropouts", "dense", "dense_dropouts")


def make_task(net: Mapping[str, Any]) -> trainer.Task:
    """The net, its optimiser and its loop, from the values of `masks_net.net`."""
    sizes: dict[str, Any] = {key: tuple(net[key]) for key in _OF_THE_MODEL}
    model = CNN(**sizes, padding=net["padding"], classes=contest.CLASSES[net["dataset"]])
    tx = optim.make_optimizer(net["learning_rate"], name="adam")
    batch_size = net["batch_size"]
    loop = Loop(epochs=1, batch_size=batch_size, eval_batch_size=batch_size, convolutions=True)
    return trainer.Task("masks", model, tx, loop)


def main(argv: Sequence[str]) -> None:
    options = contest.parse_cnn(argv, "copying", "native")
    sharding.configure(cpu_devices=1, cpu_threads=0, seeds=1)
    if options.native:
        ours_cnn.use_native()
    images, labels = contest.draw_pictures(options.net["dataset"])
    data = Dataset(images=images, labels=labels.astype(np.int32))
    steps = ours_cnn.Steps(make_task(options.net), data, options.count, copying=options.copying)
    contest.announce(
        versions=ours.versions(),
        data="random bytes",
        threads=os.cpu_count(),
        parameters=ours_cnn.count_parameters(steps.states.params),
    )
    contest.take_turns(steps.turn)


if __name__ == "__main__":
    main(sys.argv[1:])
