"""Images that stay on the disk: an array of which only the rows that are indexed are read.

The pixels lie one after the other in a plain file. They are read, not mapped: what a program reads
from a mapped file counts as its memory for as long as it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from research.data.provenance import DataError
from research.runtime import files
from research.structs import Array


class LazyImages:
    """[N, H, W, C] uint8 in the file `path`, of which indexing reads the images asked for.

    path: on a disk or in a bucket, see `runtime.files`.
    resident: whether they are few enough for a training to copy them to its devices as a whole.
    Raises DataError if the file is not there or has another size.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, shape: Sequence[int], *, resident: bool = False) -> None:
        self.path, self.shape, self.resident = path, tuple(shape), resident
        size = int(np.prod(shape, dtype=np.int64))
        actual = _size(path) if path.exists() else -1
        if actual != size:
            state = f"{actual:,} bytes" if actual >= 0 else "is not there"
            raise DataError(f"{path}: {state}, expected {size:,} bytes; move its directory away")
        self.nbytes = size
        self._image = size // max(shape[0], 1)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """The images of a slice, of integers [...] or of one: [..., H, W, C].

        Raises IndexError for an integer outside 0 .. N - 1, DataError if the file cannot be read.
        """
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        wanted = np.asarray(index)
        if wanted.dtype == bool:
            wanted = np.flatnonzero(wanted)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"images {wanted.min()} .. {wanted.max()} of {len(self)}")
        images = np.empty((wanted.size, *self.shape[1:]), np.uint8)
        # Unbuffered from a disk: what a buffer reads ahead is of images that were not asked for.
        buffer: Any = {} if files.stored(self.path) else {"buffering": 0}
        with self.path.open("rb", **buffer) as file:
            for run, first in _runs(images, wanted.ravel()):
                _ = file.seek(first * self._image)
                if file.readinto(run.data) != run.nbytes:
                    raise DataError(f"{self.path}: is shorter than it was; move its directory away")
        return images.reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, for what takes arrays."""
        del copy
        return self[:].astype(dtype or self.dtype, copy=False)


def _runs(images: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Stretches of `images` whose numbers follow one another, and the first number of each."""
    starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
    for start, end in zip(starts, np.append(starts, len(wanted))[1:], strict=True):
        yield images[start:end], int(wanted[start])


def _size(path: Path) -> int:
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def read_ahead(images: Array | LazyImages, parts: list[np.ndarray]) -> Iterator[Array]:
    """images[part] for every part, each read while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        following = None
        for part in [*parts, None]:
            ready = following
            following = None if part is None else pool.submit(images.__getitem__, part)
            if ready is not None:
                yield ready.result()
