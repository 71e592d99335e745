"""What the configs share: the grammar of `--config=FILE:VARIANT[,smoke]`, and blocks of keys.

`smoke` is the same everywhere: the whole way of a study in seconds, on synthetic data. It
learns little.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


# What each key may hold: bool, str; whole numbers of a range; numbers from a least to a most, both
# included, none of them infinite or NaN; [kind] for a tuple of any length. Which words a key knows,
# and what depends on other keys, is checked where they are used.
_COUNT = range(1_000_001)
_POSITIVE = range(1, 1_000_001)
_UNITS = range(1, 65_537)  # of a layer
_SEED = range(2**32)
_DEVICES = range(1025)
_SHARE = (0.0, 1.0)
_RATE = (1e-30, 1e30)  # float32 holds it
_ANY = (-1e30, 1e30)
_EVERY: dict[str, Any] = {
    "experiment": str,
    "name": str,
    "eval_batch_size": _POSITIVE,
    "matmul_precision": str,
    "cpu_devices": _DEVICES,
    "cpu_threads": _DEVICES,
}
_TRAINING: dict[str, Any] = {
    **_EVERY,
    "seed": _SEED,
    "seeds": _POSITIVE,
    "data_devices": _DEVICES,
    "epochs": _POSITIVE,
    "batch_size": _POSITIVE,
    "learning_rate": _RATE,
}
_IMAGES: dict[str, Any] = {
    **_TRAINING,
    "mode": str,
    "precision": str,
    "net": str,
    "steps_per_dispatch": _COUNT,
    "label_smoothing": _SHARE,
    "shift": _COUNT,
    "mirror": bool,
    "weight_decay": (0.0, 1e30),
    "optimizer": str,
    "schedule": str,
}
_SEARCH: dict[str, Any] = {  # of the smallest noise
    "steps": _POSITIVE,
    "search": _POSITIVE,
    "required": (1e-30, 1e30),
    "polish": _COUNT,
}
_DATA = {"source": str, "dir": str, "tfds_dir": str, "download": bool}
KINDS: dict[str, dict[str, Any]] = {
    "depth": {
        **_TRAINING,
        "nets": [str],
        "width": _UNITS,
        "init": str,
        "optimizer": str,
        "probe": bool,
        "gain": _RATE,
        "residual": bool,
        "shift": bool,
        "data": _DATA,
    },
    "spectrum": {
        **_EVERY,
        "seed": _SEED,
        "seeds": _POSITIVE,
        "data_devices": _DEVICES,
        "nets": [str],
        "width": _UNITS,
        "init": str,
        "gain": _RATE,
        "residual": bool,
        "shift": bool,
        "inputs": _POSITIVE,
        "draws": _POSITIVE,
        "images": _COUNT,
        "batch_sizes": [_COUNT],
        "steps": _POSITIVE,
        "every": _POSITIVE,
        "sharpness_images": _COUNT,
        "lanczos": _POSITIVE,
        "learning_rate": _RATE,
        "data": _DATA,
    },
    "classifiers": {
        **_IMAGES,
        "dataset": str,
        "adversarial_radius": _SHARE,
        "adversarial_steps": _POSITIVE,
        "data": _DATA,
    },
    "masks": {
        **_IMAGES,
        "strict": bool,
        "detector": str,
        "keep_best": bool,
        "final_epochs": _COUNT,
        "patience": _COUNT,
        "probability_floor": _SHARE,
        "jitter": _SHARE,
        "data": {
            "dir": str,
            "voc": str,
            "json": str,
            "folders": str,
            "labels": str,
            "exif": str,
            "whole": bool,
            "drawn": _COUNT,
            "tfds_dir": str,
            "size": range(8, 4097),
            "margin": _SHARE,
            "min_side": range(1, 4097),
            "keep_incorrect": bool,
            "val": (0.0, 1e9),
            "test": (0.0, 1e9),
            "balance": _SHARE,
            "seed": _SEED,
            "min_face_px": (1.0, 1e6),
        },
    },
    "map": {
        **_EVERY,
        "activation": str,
        "axis": str,
        "resolution": range(2, 1025),
        "deepest": range(2, 1001),
        "ranges": {"sigma_w": [_RATE], "learning_rate": [_RATE]},
        "sigma_w": _RATE,
        "learning_rate": _RATE,
        "seed": _SEED,
        "seeds": _POSITIVE,
        "width": _UNITS,
        "steps": _POSITIVE,
        "batch_size": _POSITIVE,
        "programs": _POSITIVE,
        "data": _DATA,
    },
    "noise": {
        **_EVERY,
        "dataset": str,
        "nets": [str],
        "baselines": [str],
        "run": str,
        "method": str,
        "norm": str,
        "seed": range(2**31 - 1),
        "classes": [range(10)],
        "per_class": _COUNT,
        "only_correct": bool,
        "extra_indices": [_COUNT],
        "images": _COUNT,
        "input": str,
        "batch": _POSITIVE,
        "minimal": _SEARCH,
        "lagrangian": _SEARCH,
        "faithful": {
            "steps": _POSITIVE,
            "check_every": _POSITIVE,
            "learning_rate": _RATE,
            "std": (0.0, 1e30),
            "dropout": bool,
        },
        "pgd": {
            "levels": [(0.0, 1e6)],
            "norm": str,
            "images": _COUNT,
            "steps": _POSITIVE,
            "restarts": _POSITIVE,
        },
        "data": _DATA,
    },
}
# Further keys, of the net that the key `net` names.
KINDS_OF_NETS: dict[str, dict[str, Any]] = {
    "cnn": {
        "filters": [_UNITS],
        "pools": [_UNITS],
        "dropouts": [_SHARE],
        "padding": str,
        "dense": [_UNITS],
        "dense_dropouts": [_SHARE],
        "head": str,
    },
    "resnet": {
        "widths": [_UNITS],
        "residual": [bool],
        "shrink": _UNITS,
        "mean": [_ANY],
        "std": [_ANY],
    },
}


def kinds(config: Config) -> dict[str, Any]:
    """{path: what the key may hold} of all keys that the experiment of `config` needs."""
    own = KINDS.get(str(config.get("experiment")), {"experiment": str})
    of_net = KINDS_OF_NETS.get(str(config.get("net")), {}) if "net" in own else {}
    return dict(_flat(own | of_net))


def missing(config: Config) -> list[str]:
    """The paths of the keys that the experiment of `config` needs and `config` has not."""
    return [path for path in kinds(config) if _value(config, path) is _MISSING]


def problem(config: Config) -> str:
    """What is wrong with the first key that is missing or has no value of its kind; or ""."""
    for path, kind in kinds(config).items():
        value = _value(config, path)
        if value is _MISSING:
            return f"{path}: the config has no such key, which a run of it needs"
        if not _is_of(value, kind):
            return f"{path}: {value!r} is not {in_words(kind)}"
    return ""


def in_words(kind: Any) -> str:
    """What values of a kind, as in `KINDS`, are."""
    if isinstance(kind, list):
        return f"a tuple in which each is {in_words(kind[0])}"
    if isinstance(kind, range):
        return f"a whole number from {kind[0]:,} to {kind[-1]:,}"
    if isinstance(kind, tuple):
        return f"a number from {kind[0]:g} to {kind[1]:g}"
    return {bool: "True or False", str: "a text"}[kind]


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list | tuple) and all(_is_of(each, kind[0]) for each in value)
    if isinstance(kind, range):
        return type(value) is int and value in kind
    if isinstance(kind, tuple):
        return type(value) in (int, float) and kind[0] <= value <= kind[1]
    return type(value) is kind


_MISSING = object()


def _value(config: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(config, Mapping | ConfigDict) or key not in config:
            return _MISSING
        config = config[key]
    return config


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, kind in table.items():
        if isinstance(kind, Mapping):
            yield from _flat(kind, f"{prefix}{key}.")
        else:
            yield prefix + key, kind


def begin(experiment: str, arg: str, variants: Sequence[str]) -> tuple[Config, str, bool]:
    """A config with the keys `experiment` and `name`, the variant, and whether it is to be smoke.

    experiment: the study, a key of `research.main.EXPERIMENTS`.  arg: "variant" or "variant,smoke".
    Raises ValueError, naming the nearest and listing the valid ones, for anything else.
    """
    variant, *switches = arg.split(",")
    _check(variant, variants, "variant")
    for switch in switches:
        if not switch:
            raise ValueError(f"nothing follows a comma of {arg!r}; leave it out, or valid: smoke")
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
