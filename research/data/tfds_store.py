"""How is a data set prepared and read through TensorFlow Datasets without TensorFlow?

The stock builders unpack and decode with TensorFlow; `mnist_tfds` and `cifar10_tfds` have builders
that do the same work with NumPy and PIL. Importing this module imports `tensorflow_datasets`
(0.5 s), hence it stands alone.
"""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import requests
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.hashing import Hasher

from research.data.provenance import PUBLISHED, DataError, Unavailable

DIGEST = "sha256.txt"  # beside the records: the checksum of what they were made from
_TIMEOUT_S = 20.0
_RETRIES = 2
_CHUNK = 5_000  # examples decoded at a time: few enough to stay small, many enough to be fast


def prepare(builder_class: Any, tfds_dir: Path, manual_dir: Path | None) -> None:
    """Writes the data set of a builder below `tfds_dir`, from `manual_dir` or a download.

    Call it under `store.locked`: what killed preparations left behind is removed first. Raises
    `DataError` if the files are damaged or not the published, `Unavailable` if they cannot be
    downloaded within bounded time or the directory cannot be written.
    """
    name = builder_class.name
    leftovers = [
        *(tfds_dir / name).glob(f"incomplete.*_{builder_class.VERSION}"),
        *(tfds_dir / "downloads" / name).glob("*.tmp.*"),
    ]
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    tfds.disable_progress_bar()
    try:
        with _bounded_requests(), contextlib.redirect_stdout(io.StringIO()):
            builder = builder_class(data_dir=tfds_dir, file_format="array_record")
            builder.download_and_prepare(download_config=config)
    except (
        OSError,  # `requests` and the file system
        tfds.download.DownloadError,
        NonMatchingChecksumError,
    ) as error:
        raise Unavailable(
            f"{PUBLISHED[name].name} could not be prepared in {tfds_dir}: {error}"
        ) from error


def read(version_dir: Path, dataset: str) -> dict[str, np.ndarray]:
    """The four arrays of a prepared data set, in the order in which they were published.

    Images [N, H, W, C] uint8, labels [N] uint8. Reads what TFDS stored as `array_record` or as
    `tfrecord`, the stock default. TFDS sorts the examples by a hash of their key, which is their
    index in the published files: the same hash puts them back. Raises `DataError` if the data set
    is damaged or in another format.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS recommends OpenCV at every first decoding
    try:
        builder = tfds.builder_from_directory(version_dir)
        shape = PUBLISHED[dataset].shape
        splits = {split: _read_split(builder, split, shape) for split in ("train", "test")}
    except DataError:
        raise
    except Exception as error:  # damage surfaces as any type, from four libraries
        raise DataError(
            f"{version_dir} cannot be read ({type(error).__name__}: {error}); delete this "
            f"directory and {PUBLISHED[dataset].name} will be prepared again"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    return {
        f"{split}_{kind}": array
        for split, pair in splits.items()
        for kind, array in zip(("images", "labels"), pair, strict=True)
    }


def _read_split(
    builder: Any, split: str, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    count = builder.info.splits[split].num_examples
    hasher = Hasher(salt=split)
    original = sorted(range(count), key=hasher.hash_key)
    images = np.empty((count, *shape), np.uint8)
    labels = np.empty(count, np.uint8)
    for index, example in zip(original, _examples(builder, split), strict=True):
        images[index] = example["image"]
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
        raise DataError(
            f"{builder.data_dir} is stored as {file_format}, expected array_record or tfrecord; "
            "name another TFDS directory, or delete this one and it will be prepared again"
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
