"""How much faster are two devices than one, and how many bytes do they exchange in a step?

    python -m benchmarks.scaling [--data_dir=DIR]

The same work on one and on two virtual devices, each setting a process of its own that is pinned to
as many cores as it has devices, in turns. Independent work is dealt out, seeds of a net and cells
of an attack; of one seed the devices share each batch. The bytes are read off the programs compiled
for 2 and 8 devices, which need not run. Without a directory images are random bytes.
"""

import contextlib
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from benchmarks import contest, measure, ours
from configs import cnn, mlp
from research.adversarial import generate
from research.adversarial.minimal import Minimal
from research.adversarial.polish import Polish
from research.data import datasets
from research.experiments import classifiers, depth, trainer
from research.experiments.noise import nets
from research.models import costs
from research.runtime import commands, sharding
from research.structs import Config, Dataset, UserError
from research.training.epoch import make_steps
from research.training.step import as_input

_FLAGS = measure.make_flags("scaling")
_TURNS = flags.DEFINE_integer(
    "turns",
    5,
    "Steady turns of every setting; 0 for bytes only.",
    lower_bound=0,
    flag_values=_FLAGS,
)
_SCALE = flags.DEFINE_float(
    "scale", 1.0, "Share of the steps and images of a turn.", lower_bound=0.001, flag_values=_FLAGS
)
_SETTING = flags.DEFINE_string(
    "setting", "", "Be this contestant, as started by the benchmark.", flag_values=_FLAGS
)

DEVICES = (1, 2)
COMPILED_FOR = (2, 8)
# Where devices wait for each other XLA's pool needs more threads than there are cores.
WAITING = 16


class Work(NamedTuple):
    """What a turn does. variant: of configs/mlp.py or configs/cnn.py. seeds: 0 for an attack.

    amount: steps, or images that are attacked toward every class.  together: whether the devices
    share each batch.
    """

    label: str
    variant: str
    seeds: int
    amount: int
    together: bool


WORKS = {
    "seeds": Work("tanh-20, 2 seeds", "tanh-20", 2, 300, together=False),
    "cells": Work("attack, 40 images x 10", "", 0, 40, together=False),
    "shared_mlp": Work("relu-5, 1 seed, batch of 64 shared", "relu-5", 1, 600, together=True),
    "shared_cnn": Work("mnist, 1 seed, batch of 128 shared", "mnist", 1, 15, together=True),
}


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    for name, work in WORKS.items():
        times = list(results["seconds"].get(name, {}).values())
        timed = [f"{statistics.median(each):.2f}" for each in times] or ["-", "-"]
        gained = f"{measure.ratio(*times) / len(DEVICES):.0%}" if times else "-"
        moved = results["bytes"].get(name, {})
        asked = f"{4 * moved['parameters']:,}" if moved else "-"
        found = [_moved(moved["exchanged"][str(n)]) if moved else "-" for n in COMPILED_FOR]
        if not work.together:
            asked = "0"
        rows.append([work.label, *timed, gained, asked, *found])
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    numbers = [f"bytes, {n} devices" for n in COMPILED_FOR]
    return measure.markdown(
        ["work of a turn", "1 device (s)", "2 devices (s)", "efficiency", "gradients", *numbers],
        rows,
        "Efficiency: the time of one device over twice that of two, median of the ratios of "
        f"{results['turns']} turns. Every setting is pinned to as many cores as it has devices, "
        "its pool of threads to as many, but to "
        f"{WAITING} where devices wait for each other."
        if results["turns"]
        else "Compiled only; nothing was timed.",
        "Gradients: 4 bytes a parameter where a batch is shared. Bytes: results of the collective "
        "operations that one device takes part in at each step, from the compiled program; of a "
        "ring it sends 2 (n - 1) / n times as many. An attack exchanges nothing until its end.",
        "A collective-permute moves rows of a batch: to fold the probe's readings of signals, and "
        "for the pieces in which a CPU takes the batch for the gradient of a kernel of a "
        "convolution (`conv.py`; accelerators take it as a whole).",
        f"{results['device']}; {versions}; {results['data']}; {results['date']}.",
    )


def _moved(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in found.items()) or "0"


def set_up(work: Work, devices: int) -> None:
    """Pin this process to so many cores and give it so many devices; call before any array."""
    if not hasattr(os, "sched_setaffinity"):
        commands.fail("this system cannot pin a process to cores; Linux can")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < devices:
        commands.fail(f"{devices} devices need as many cores, and there are {len(cores)}")
    os.sched_setaffinity(0, cores[:devices])
    together = devices if work.together else 1
    sharding.configure(
        cpu_devices=devices, cpu_threads=devices, seeds=devices, data_devices=together
    )


def make_task(work: Work) -> trainer.Task:
    """The net of a workload that trains, and how it is trained."""
    if work.variant in mlp.NETS:
        config: Config = mlp.get_config(work.variant)
        return depth.make_task(config, 1)
    return classifiers.make_task(cnn.get_config(work.variant), 60_000)


def load(data_dir: str, count: int = 60_000) -> tuple[Dataset, str]:
    """MNIST's training images, or so many of random bytes; and what they are."""
    if data_dir:
        try:
            data, _, source = datasets.load("mnist", directory=data_dir, source="idx")
        except UserError as error:
            sys.exit(f"error: {error}")
        return data, source.caption()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *contest.SHAPES["mnist"]), np.uint8)
    labels = generator.integers(0, 10, count).astype(np.int32)
    return Dataset(images=images, labels=labels), "random bytes"


class Steps:
    """Nets that are trained the first `count` steps of an epoch at a turn, over and over."""

    def __init__(self, work: Work, data: Dataset, count: int, devices: int) -> None:
        task, seeds = make_task(work), range(work.seeds)
        sample = np.asarray(data.images[:1])
        shared = devices if work.together else 0
        placed = ours.Nets(task.model, task.tx, seeds, sample, data_devices=shared)
        self.program = sharding.over_seeds(
            make_steps(task.model, task.tx, task.loop),
            placed.mesh,
            convolutions=task.loop.convolutions,
        )
        self.parameters = trainer.parameter_count(placed.states.params, len(placed.seeds))
        self._states = placed.states
        self._batches = placed.seeds, placed.batches(task.loop, len(data.images), 1, 0, count)
        self._data = sharding.place_whole(data, placed.mesh)

    def arguments(self) -> tuple[Any, ...]:
        """What the program is called with at the next turn."""
        return self._states, self._batches, np.int32(1), self._data

    def turn(self) -> None:
        """Take the steps."""
        self._states, taken = self.program(*self.arguments())
        _ = jax.block_until_ready((self._states, taken))


def read_bytes(steps: Steps) -> dict[str, int]:
    """{operation: bytes} that a device exchanges in a step, from the compiled program."""
    return costs.collective_bytes(steps.program.lower(*steps.arguments()).compile().as_text() or "")


def make_attack(data: Dataset, count: int) -> Callable[[], object]:
    """A turn that attacks `count` images under a small CNN of random weights."""
    config: Config = cnn.get_config("mnist")
    config.filters, config.dense = (8, 16), (32,)
    model = classifiers.make_model(config, 10)
    params = model.init(jax.random.key(0), as_input(data.images[:1]))["params"]
    attack = functools.partial(
        generate.generate,
        nets.apply_of(model),
        params,
        data.images[:count],
        data.labels[:count],
        methods=(Minimal(steps=20, search=40), Polish()),
    )
    return lambda: jax.block_until_ready(attack())


def count_bytes(work: Work) -> dict[str, Any]:
    """{devices: {operation: bytes}} of a step, of programs that are compiled and not run."""
    data, _ = load("", 4 * make_task(work).loop.batch_size)
    found: dict[str, Any] = {"exchanged": {}}
    for devices in COMPILED_FOR:
        each = work._replace(seeds=work.seeds if work.together else devices)
        steps = Steps(each, data, 2, devices)
        found["exchanged"][str(devices)] = read_bytes(steps)
        found["parameters"] = steps.parameters
    return found


def contend(setting: str) -> None:
    """Be one setting: turns on demand, or what the programs exchange."""
    name, _, number = setting.partition("/")
    if name == "bytes":
        most = max(COMPILED_FOR)
        sharding.configure(cpu_devices=most, cpu_threads=0, seeds=most, data_devices=most)
        contest.announce(**{each: count_bytes(WORKS[each]) for each in WORKS if WORKS[each].seeds})
        return
    work, devices = WORKS[name], int(number)
    set_up(work, devices)
    data, caption = load(_FLAGS.data_dir)
    amount = max(1, round(work.amount * _SCALE.value))
    if work.seeds:
        turn: Callable[[], object] = Steps(work, data, amount, devices).turn
    else:
        turn = make_attack(data, amount)
    contest.announce(data=caption)
    for _ in range(_TURNS.value + 1):
        contest.wait()
        began = time.perf_counter()
        _ = turn()
        contest.report(time.perf_counter() - began)


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    if _SETTING.value:
        contend(_SETTING.value)
        return 0
    same = [f"--{key}={_FLAGS[key].value}" for key in ("data_dir", "turns", "scale")]
    command = [sys.executable, "-m", "benchmarks.scaling", *same]
    versions = {name: ours.versions()[name] for name in ("jax", "jaxlib")}
    results: dict[str, Any] = {**measure.describe(), "versions": versions, "seconds": {}}
    results |= {"turns": _TURNS.value, "data": "nothing run"}
    with measure.Paced("bytes", [*command, "--setting=bytes"]) as compiled:
        results["bytes"] = compiled.facts
    for name in WORKS if _TURNS.value else ():
        with contextlib.ExitStack() as stack:
            contestants = {
                str(devices): stack.enter_context(
                    measure.Paced(name, [*command, f"--setting={name}/{devices}"])
                )
                for devices in DEVICES
            }
            taken = measure.pace(contestants, _TURNS.value + 1)
            results["seconds"][name] = {devices: each[1:] for devices, each in taken.items()}
            results["data"] = contestants["1"].facts["data"]
        print(f"{name}: measured", file=sys.stderr, flush=True)
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
