"""Which real pictures does this run train on: CIFAR-10, through whatever door it came.

The published batches in either format, packed or not; a TFDS data set; or pictures in a folder per
class. No wheel ships a sample of CIFAR-10: where there is none, the run stops and says how to get
it, since drawn pictures in its place would make numbers that look like results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from research.data import cache, cifar10_batches, pictures, prepared, synthetic
from research.data.provenance import (
    Absent,
    DataError,
    Loaded,
    check_request,
    describe,
    existing_directory,
    finish,
)

EXPECTED = f"{cifar10_batches.EXPECTED}; or {pictures.EXPECTED}"
_NAME = "cifar10"


def load_cifar10(
    *,
    directory: str = "",
    source: str = "auto",
    tfds_dir: str = "",
    download: bool = True,
    say: Callable[[str], None] = print,
) -> Loaded:
    """The training set, the test set and what they are; images [N, 32, 32, 3] uint8, NumPy.

    Labels [N] int32 from 0 to 9 in the order of `PUBLISHED["cifar10"].classes`; rows in the
    published order or, from pictures, in that of `pictures`. What is slow to read is cached in
    `store.cache_folder()`, by path, size and time of change of the files.

    directory: holds the batches (`batches.find`) or the pictures (`pictures.find`); "" for none.
    source: "auto" takes the first of `directory`, a prepared TFDS data set, a TFDS download.
        "python", "binary" and "folders" take that form in `directory`, "tfds" and "synthetic"
        themselves, or fail. With "tfds", `directory` is where the data set is prepared from.
    tfds_dir: "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    download: whether the network may be tried; without one this costs 3 s at most.
    say: receives a line before anything slow, and every few seconds while pictures are decoded.
    Raises DataError for everything that is missing, damaged, or not what it should be.
    """
    check_request(_NAME, source, directory)
    if source == "synthetic":
        train, test = synthetic.objects()
        return train, test, describe(_NAME, train, test, "synthetic", name="synthetic")
    if source in (*cifar10_batches.FORMS, "folders") or (source == "auto" and directory):
        if not directory:
            raise DataError(f"data source {source!r} needs a directory with {EXPECTED}")
        found = _find(directory, source)
        if isinstance(found, cifar10_batches.Found):
            return _from_batches(found, say)
        return _from_pictures(found, say)
    return prepared.load(_recipe(), tfds_dir, directory, download, say)


def _find(directory: str, source: str) -> cifar10_batches.Found | dict[str, Path]:
    if source == "folders":
        return pictures.find(directory)
    if source in cifar10_batches.FORMS:
        return cifar10_batches.find(directory, source)
    root = existing_directory(directory, EXPECTED)
    incomplete: DataError | None = None
    for find in (
        partial(cifar10_batches.find, root, *cifar10_batches.FORMS),
        partial(pictures.find, root),
    ):
        try:
            return find()
        except Absent:
            continue
        except DataError as error:
            incomplete = incomplete or error
    raise incomplete or Absent(f"{root} holds no CIFAR-10; expected {EXPECTED}")


def _from_batches(found: cifar10_batches.Found, say: Callable[[str], None]) -> Loaded:
    first = found.paths[0]
    form = first.name if found.archived else f"{found.form} batches"
    source = f"{form} in {first.parent.resolve()}"

    def make() -> Loaded:
        if found.archived:
            say(f"reading {first} (once, a few seconds)")
        arrays, published = cifar10_batches.read(found)
        return finish(_NAME, arrays, source, "published" if published else "unknown")

    # Unpacked batches are read as fast as a cache would be.
    return _cached(make, source, cache.key_of(found.paths), say) if found.archived else make()


def _from_pictures(found: Mapping[str, Path], say: Callable[[str], None]) -> Loaded:
    names = [path.name if path.suffix else f"folder {path.name}" for path in found.values()]
    folder = next(iter(found.values())).parent.resolve()
    source = f"{' and '.join(names)} in {folder}"

    def make() -> Loaded:
        say(f"decoding {' and '.join(map(str, found.values()))} (once)")
        arrays, lossy = pictures.read(found, say)
        return finish(_NAME, arrays, source, "jpeg" if lossy else "unknown")

    return _cached(make, source, pictures.key(found), say)


def _cached(
    make: Callable[[], Loaded], source: str, key: str, say: Callable[[str], None]
) -> Loaded:
    # One cache for each place: new files replace those made from the old.
    place = hashlib.sha256(source.encode()).hexdigest()[:16]
    path = cache.cache_folder() / f"{_NAME}-{place}.npz"
    lock = path.with_suffix(".lock")
    return cache.cached(path, make, dataset=_NAME, source=source, lock=lock, say=say, key=key)


def _recipe() -> prepared.Recipe:
    def builder() -> Any:
        from research.data import cifar10_tfds

        return cifar10_tfds.Cifar10

    return prepared.Recipe(
        dataset=_NAME,
        version="cifar10/3.0.2",
        url=cifar10_batches.URL,
        check_files=lambda directory: cifar10_batches.find(directory, *cifar10_batches.FORMS),
        advice=(
            "there is no sample of it either. Name a directory with data.dir that holds "
            f"{EXPECTED}; or put the batches or one of their archives into {{manual}}"
        ),
        builder=builder,
    )
