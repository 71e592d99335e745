"""How is MNIST prepared and read through TensorFlow Datasets without TensorFlow?

The stock builder unpacks and decodes with TensorFlow. `Mnist` keeps its name, version, features
and place on disk, so that either reads what the other wrote, and does the same work with NumPy
and PIL. Importing this module imports `tensorflow_datasets` (0.5 s), hence it stands alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import requests
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.hashing import Hasher

from research.data import idx

_TIMEOUT_S = 20.0
_RETRIES = 2
_CHUNK = 5_000  # examples decoded at a time: few enough to stay small, many enough to be fast


class Mnist(tfds.image_classification.MNIST, skip_registration=True):
    """The stock data set `mnist`, made from the four IDX files without TensorFlow."""

    name = "mnist"
    URL = idx.URL
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Optional: the four files " + ", ".join(idx.NAMES.values()) + ", gzipped or not."
    )

    def _split_generators(self, dl_manager: Any) -> Any:
        try:
            paths = idx.find_files(dl_manager.manual_dir)
        except (AssertionError, idx.DataError):  # nothing there: TFDS asserts, idx explains
            urls = {key: f"{self.URL}{name}.gz" for key, name in idx.NAMES.items()}
            paths = {key: Path(path) for key, path in dl_manager.download(urls).items()}
        arrays = idx.read_files(paths)
        idx.check_md5(arrays, paths)
        return {
            split: _keyed_examples(arrays[f"{split}_images"], arrays[f"{split}_labels"])
            for split in ("train", "test")
        }


def _keyed_examples(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, Any]]:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        # A PIL image, because TFDS encodes arrays with TensorFlow.
        yield index, {"image": Image.fromarray(image), "label": int(label)}


@contextlib.contextmanager
def locked(tfds_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Lets one process at a time prepare and read back the data set in `tfds_dir`.

    The lock dies with its process. A read-only directory is not locked: nobody writes there.
    """
    try:
        (tfds_dir / "mnist").mkdir(parents=True, exist_ok=True)
        handle = (tfds_dir / "mnist" / ".lock").open("w")
    except OSError:
        yield
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that prepares MNIST in {tfds_dir}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def prepare(tfds_dir: Path, manual_dir: Path | None) -> None:
    """Writes the data set below `tfds_dir`, from the IDX files in `manual_dir` or a download.

    Call it under `locked`: what killed preparations left behind is removed first. Raises
    `idx.DataError` if the files are damaged or not MNIST, `idx.Unavailable` if they cannot be
    downloaded within bounded time or the directory cannot be written.
    """
    leftovers = [
        *(tfds_dir / "mnist").glob(f"incomplete.*_{Mnist.VERSION}"),
        *(tfds_dir / "downloads" / "mnist").glob("*.tmp.*"),
    ]
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    tfds.disable_progress_bar()
    try:
        with _bounded_requests(), contextlib.redirect_stdout(io.StringIO()):
            builder = Mnist(data_dir=tfds_dir, file_format="array_record")
            builder.download_and_prepare(download_config=config)
    except (
        OSError,  # `requests` and the file system
        tfds.download.DownloadError,
        NonMatchingChecksumError,
    ) as error:
        raise idx.Unavailable(f"MNIST could not be prepared in {tfds_dir}: {error}") from error


def read(version_dir: Path) -> dict[str, np.ndarray]:
    """The four arrays of a prepared data set, in the order of the IDX files.

    Reads what TFDS stored as `array_record` or as `tfrecord`, the stock default. TFDS sorts the
    examples by a hash of their key, which is their index in the IDX file: the same hash puts
    them back. Raises `idx.DataError` if the data set is damaged or in another format.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS recommends OpenCV at every first decoding
    try:
        builder = tfds.builder_from_directory(version_dir)
        splits = {split: _read_split(builder, split) for split in ("train", "test")}
    except idx.DataError:
        raise
    except Exception as error:  # damage surfaces as any type, from four libraries
        raise idx.DataError(
            f"{version_dir} cannot be read ({type(error).__name__}: {error}); delete this "
            "directory and MNIST will be prepared again"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    return {
        f"{split}_{kind}": array
        for split, pair in splits.items()
        for kind, array in zip(("images", "labels"), pair, strict=True)
    }


def _read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    count = builder.info.splits[split].num_examples
    hasher = Hasher(salt=split)
    original = sorted(range(count), key=hasher.hash_key)
    images = np.empty((count, 28, 28), np.uint8)
    labels = np.empty(count, np.uint8)
    for index, example in zip(original, _examples(builder, split), strict=True):
        images[index] = example["image"][..., 0]
        labels[index] = example["label"]
    return images, labels


def _examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    file_format = builder.info.file_format.value
    if file_format == "array_record":
        source = builder.as_data_source(split)
        for start in range(0, len(source), _CHUNK):
            yield from source.__getitems__(range(start, min(start + _CHUNK, len(source))))
    elif file_format == "tfrecord":
        for path in builder.info.splits[split].filepaths:
            for record in _tfrecords(Path(path)):
                yield builder.info.features.deserialize_example_np(record)
    else:
        raise idx.DataError(
            f"{builder.data_dir} is stored as {file_format}, expected array_record or tfrecord; "
            "name another TFDS directory, or delete this one and MNIST will be prepared again"
        )


def _tfrecords(path: Path) -> Iterator[bytes]:
    """Records of a TFRecord file: length (8 bytes), its CRC (4), data, their CRC (4).

    The CRCs are not checked here: the caller verifies the checksum of the whole data set.
    """
    content, start = path.read_bytes(), 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield content[start + 12 : start + 12 + length]
        start += length + 16


@contextlib.contextmanager
def _bounded_requests() -> Iterator[None]:
    """TFDS asks without a time-out and retries for minutes; this bounds both, and no more."""
    get = functools.partialmethod(requests.Session.get, timeout=_TIMEOUT_S)
    with (
        mock.patch.object(requests.Session, "get", get),
        mock.patch.object(downloader, "MAX_RETRIES", _RETRIES),
    ):
        yield
