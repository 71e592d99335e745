"""One data set for all processes of a run: the first one loads it and writes it for the others.

The work directory is all that processes on several machines are known to share. The first of them
loads and verifies the data set as a process by itself would, from wherever it finds it, and writes
its pixels there; every process then reads the rows that its devices hold, and no others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from research.data.lazy_images import LazyImages
from research.data.provenance import Loaded, Source
from research.runtime import distributed, files
from research.structs import Dataset

_SPLITS = ("train", "test")


def load(folder: Path, load_all: Callable[[], Loaded]) -> Loaded:
    """What `load_all` gives in the first process, with images that every process reads by rows.

    folder: where they are laid out, in a directory that all processes see.
    Raises in every process the UserError that `load_all` raises in the first.
    """
    about = distributed.broadcast_from_first(lambda: _write(folder, load_all()))
    train, test = (_open(folder / name, about[name]) for name in _SPLITS)
    return train, test, Source(**about["source"])


def _write(folder: Path, loaded: Loaded) -> dict[str, Any]:
    """Write both splits; returns what is needed to read them."""
    files.make_folder(folder)
    about: dict[str, Any] = {"source": dataclasses.asdict(loaded[2])}
    for name, data in zip(_SPLITS, loaded[:2], strict=True):
        files.replace(folder / f"{name}.images", np.ascontiguousarray(data.images).tobytes())
        about[name] = {
            "shape": list(data.images.shape),
            "labels": np.asarray(data.labels).tolist(),
        }
    return about


def _open(path: Path, about: dict[str, Any]) -> Dataset:
    images: Any = LazyImages(path.with_name(f"{path.name}.images"), about["shape"], resident=True)
    return Dataset(images, np.asarray(about["labels"], np.int32))
