"""What a contestant's process needs: its arguments, its turns, and for the peers the digits.

A paced contestant says what it is as one line of JSON, then waits for a line on standard input
before every epoch and answers with the epoch's seconds. Only the standard library and NumPy, which
every environment has.
"""

import argparse
import gzip
import json
import os
import sys
from collections.abc import Sequence

import numpy as np

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


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
    """Tell the parent how long the epoch took."""
    print(json.dumps(seconds), flush=True)


def find(data_dir: str, name: str) -> str:
    """Path of an IDX file, gzipped or not; "" if there is none."""
    paths = (os.path.join(os.path.expanduser(data_dir), name + end) for end in ("", ".gz"))
    return next((path for path in paths if os.path.isfile(path)), "")


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
            images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)
            arrays.append(images.astype(np.float32) / np.float32(255))
        else:
            arrays.append(np.frombuffer(content, np.uint8, offset=8).astype(np.int64))
    return arrays


def parse_net(net: str) -> tuple[str, int]:
    """Activation and depth of a net named like "tanh-40"."""
    activation, _, depth = net.partition("-")
    return activation, int(depth)
