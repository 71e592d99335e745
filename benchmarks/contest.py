"""What a contestant's process needs: its arguments, its turns, and for the peers the digits.

A paced contestant says what it is as one line of JSON, then waits for a line on standard input
before every turn and answers with its seconds. Only the standard library and NumPy, which every
environment has.
"""

import argparse
import gzip
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "masks": (200, 200, 3)}
CLASSES = {"mnist": 10, "cifar10": 10, "masks": 2}
DRAWN = {"cifar10": 50_000, "masks": 512}  # images of random bytes
WORKS = ("train", "gradient")
ATTACKED = 500  # images whose gradient is taken
STEP = 0.001  # by which they move along its sign


def parse(argv: Sequence[str], *switches: str) -> argparse.Namespace:
    """net, epochs, data_dir, paced, and the given switches, from a command line."""
    parser = argparse.ArgumentParser()
    for name in ("net", "epochs", "data_dir"):
        _ = parser.add_argument(f"--{name}", required=True, type=int if name == "epochs" else str)
    for name in ("paced", *switches):
        _ = parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(argv)


def announce(**facts: object) -> None:
    """Tell the parent what takes part: the first line of a paced contestant, and of a command."""
    print(json.dumps(facts), flush=True)


def wait() -> None:
    """Return when it is this contestant's turn; leave if the parent is gone."""
    if not sys.stdin.readline():
        sys.exit(1)


def report(seconds: float) -> None:
    """Tell the parent how long the turn took."""
    print(json.dumps(seconds), flush=True)


def take_turns(work: Callable[[], object]) -> None:
    """Do the work whenever it is this contestant's turn, until the parent has had enough."""
    while sys.stdin.readline():
        began = time.perf_counter()
        _ = work()
        report(time.perf_counter() - began)


def find(data_dir: str, name: str) -> str:
    """Path of an IDX file, gzipped or not; "" if there is none."""
    paths = (os.path.join(os.path.expanduser(data_dir), name + end) for end in ("", ".gz"))
    return next((path for path in paths if os.path.isfile(path)), "")


def check_digits(data_dir: str) -> None:
    """Exit with one line and code 2 if the directory lacks a file of MNIST."""
    lacking = [name for name in FILES if not find(data_dir, name)]
    if lacking:
        print(f"error: --data_dir: {data_dir!r} lacks {', '.join(lacking)}", file=sys.stderr)
        sys.exit(2)


def read_digits(data_dir: str) -> list[np.ndarray]:
    """Training images, training labels, test images, test labels: float32 in [0, 1] and int64.

    Images are [N, 784].  Nothing is checked: our side's door does that on the same files.
    """
    arrays: list[np.ndarray] = []
    for name in FILES:
        path = find(data_dir, name)
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            content = file.read()
        if "images" in name:
            arrays.append(as_floats(np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)))
        else:
            arrays.append(np.frombuffer(content, np.uint8, offset=8).astype(np.int64))
    return arrays


def as_floats(images: np.ndarray) -> np.ndarray:
    """uint8 as float32 in [0, 1], without a second copy."""
    floats = images.astype(np.float32)
    floats /= np.float32(255)
    return floats


def parse_cnn(argv: Sequence[str], *switches: str) -> argparse.Namespace:
    """net, work, count, data_dir and the given switches of a contestant of `benchmarks.cnn`.

    net: a dict, the keys of configs/cnn.py that shape the net.  work: "train" or "gradient".
    count: steps or gradients of a turn.
    """
    parser = argparse.ArgumentParser()
    _ = parser.add_argument("--net", required=True, type=json.loads)
    _ = parser.add_argument("--work", required=True, choices=WORKS)
    _ = parser.add_argument("--count", required=True, type=int)
    _ = parser.add_argument("--data_dir", required=True)
    for name in switches:
        _ = parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(argv)


def parse_layers(argv: Sequence[str]) -> argparse.Namespace:
    """rows, iterations and turns of a contestant of `benchmarks.layers_cnn`."""
    parser = argparse.ArgumentParser()
    for name, kind in (("rows", json.loads), ("iterations", int), ("turns", int)):
        _ = parser.add_argument(f"--{name}", required=True, type=kind)
    return parser.parse_args(argv)


def draw_pictures(dataset: str = "cifar10") -> tuple[np.ndarray, np.ndarray]:
    """Random bytes in the shape of a data set: images [N, H, W, C] uint8, labels [N] int64."""
    generator, count = np.random.default_rng(0), DRAWN[dataset]
    images = generator.integers(0, 256, (count, *SHAPES[dataset]), np.uint8)
    return images, generator.integers(0, CLASSES[dataset], count)


def read_pictures(dataset: str, data_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Training images [N, H, W, C] float32 in [0, 1] and labels [N] int64: digits or bytes."""
    if dataset == "mnist":
        images, labels, *_ = read_digits(data_dir)
        return images.reshape(-1, *SHAPES[dataset]), labels
    images, labels = draw_pictures(dataset)
    return as_floats(images), labels


def parse_net(net: str) -> tuple[str, int]:
    """Activation and depth of a net named like "tanh-40"."""
    activation, _, depth = net.partition("-")
    return activation, int(depth)


class Sample(NamedTuple):
    """The images that are attacked, and what every contestant's classifier is compared on.

    images: [N, H, W, C] uint8.  labels: [N] int64.  probes: [M, H, W, C] uint8.
    reference: logits of the probes [M, 10] float64, by the judge.
    """

    images: np.ndarray
    labels: np.ndarray
    probes: np.ndarray
    reference: np.ndarray


def parse_attack(argv: Sequence[str]) -> argparse.Namespace:
    """name, net, settings, directory and threads of a contestant of `benchmarks.attacks`.

    settings: a list of dicts, one for each turn, over and over.  directory: where the sample and
    the weights lie and where the contestant leaves what it makes.  threads: 0 for all.
    """
    parser = argparse.ArgumentParser()
    for name, kind in (("name", str), ("net", json.loads), ("settings", json.loads)):
        _ = parser.add_argument(f"--{name}", required=True, type=kind)
    _ = parser.add_argument("--directory", required=True, type=Path)
    _ = parser.add_argument("--threads", default=0, type=int)
    return parser.parse_args(argv)


def read_attacked(directory: Path) -> tuple[Sample, dict[str, np.ndarray]]:
    """The sample, and the weights in the form that `judge.logits` describes."""
    with np.load(directory / "sample.npz") as sample, np.load(directory / "weights.npz") as weights:
        return Sample(**sample), dict(weights)


def found_path(directory: Path, name: str, turn: int) -> Path:
    """The file of what a contestant made at a turn."""
    return directory / f"{name}-{turn}.npz"


def difference(logits: np.ndarray, sample: Sample) -> float:
    """Largest distance of a contestant's logits of the probes from the judge's."""
    return float(np.abs(logits - sample.reference).max())


def targeted_cells(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and target of every cell [N, 10] but those whose target is the label."""
    rows, targets = np.nonzero(labels[:, None] != np.arange(10))
    return rows, targets


def take_attacks(
    options: argparse.Namespace, attack: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    """Attack whenever it is this contestant's turn, and leave what was found for the parent."""
    for turn in itertools.count():
        if not sys.stdin.readline():
            return
        setting = options.settings[turn % len(options.settings)]
        began = time.perf_counter()
        found = attack(setting)
        seconds = time.perf_counter() - began
        np.savez(found_path(options.directory, options.name, turn), **found)
        report(seconds)
