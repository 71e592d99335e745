"""What the configs share: the grammar of `--config=FILE:VARIANT[,smoke]`, and blocks of keys.

`smoke` is the same everywhere: the whole way of a study in seconds, on synthetic data. It
learns little.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

if TYPE_CHECKING:  # the parent of a benchmark's contestants reads configs without JAX
    from research.structs import Config

# Keys of configs that have a new name, old to new. A key that is a section, as "budget", stands for
# all that it holds: "budget.images" is "pgd.images".
RENAMED = {
    "look_every": "steps_per_dispatch",
    "budget": "pgd",
    "always": "extra_indices",
    "compare": "baselines",
    "deviation": "std",
    "faithful.deviation": "faithful.std",
    "data.score": "data.test (what was data.test is data.val)",
}

# Directories of data.
LOCATIONS = ("data.dir", "data.voc", "data.json", "data.folders", "data.tfds_dir")
# Keys that say where to look and what a machine has. They are no part of what a run is: not of the
# name of its directory, and a run goes on, is attacked and evaluated under other values of them.
# Which bytes the data are is told by their checksum, which is compared instead.
OF_THE_MACHINE = (
    *LOCATIONS,
    *("data.source", "data.download"),
    *("cpu_devices", "cpu_threads", "data_devices"),
)


def begin(experiment: str, arg: str, variants: Sequence[str]) -> tuple[Config, str, bool]:
    """A config with the keys `experiment` and `name`, the variant, and whether it is to be smoke.

    experiment: the study, a key of `research.main.EXPERIMENTS`.  arg: "variant" or "variant,smoke".
    Raises ValueError, naming the nearest and listing the valid ones, for anything else.
    """
    variant, *switches = arg.split(",")
    _check(variant, variants, "variant")
    for switch in switches:
        _check(switch, ("smoke",), "switch")
    config = ConfigDict({"experiment": experiment, "name": arg.replace(",", "-")})
    return config, variant, bool(switches)


def add_training(config: Config) -> None:
    """The keys of every study that trains nets."""
    config.seed = 0  # the first seed
    config.seeds = 1  # how many nets, with seeds seed, seed + 1, ...
    config.data_devices = 0  # that share each batch; 0: those that the seeds leave over; 1: none


def add_data(config: Config) -> None:
    """The keys of every study on MNIST or CIFAR-10: see docs/running.md for the sources."""
    config.data = ConfigDict()
    config.data.source = "auto"  # or idx, sample (MNIST); python, folders (CIFAR-10); tfds
    config.data.dir = ""  # directory with the files
    config.data.tfds_dir = ""  # "" is $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.download = True  # try the network if the full set is not on this machine


def add_devices(config: Config, *, cpu_devices: int, cpu_threads: int) -> None:
    """The keys of every study about the machine."""
    config.matmul_precision = "highest"  # of accelerators; or high, default
    config.cpu_devices = cpu_devices  # virtual, they share the seeds or cases; 0 is one per core
    config.cpu_threads = cpu_threads  # of XLA; 0 is one per core


def _check(word: str, valid: Sequence[str], kind: str) -> None:
    if word in valid:
        return
    near = difflib.get_close_matches(word, valid, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{kind} {word!r} is unknown; {hint}valid: {', '.join(valid)}")
