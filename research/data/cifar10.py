"""CIFAR-10 from a directory: the published Python batches, or pictures in a folder per class.

No wheel ships a sample of CIFAR-10: where there is none, the run stops and says how to get it,
since drawn pictures in its place would make numbers that look like results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from research.data import cache, cifar10_batches, cifar10_pictures
from research.data.provenance import Absent, Loaded, existing_directory, verify

EXPECTED = f"{cifar10_batches.EXPECTED}; or {cifar10_pictures.EXPECTED}"


def load_files(directory: str | Path, form: str, say: Callable[[str], None]) -> Loaded:
    """The data set in a directory.

    Rows are in the published order or, from pictures, in that of `cifar10_pictures`. What is slow
    to read is cached in `cache.cache_folder()`, by path, size and time of change of the files.

    form: "python" (`cifar10_batches.find`), "folders" (`cifar10_pictures.find`), or "auto" for the
        first of them that is there.
    say: receives a line before anything slow, and every few seconds while pictures are decoded.
    Raises DataError for everything that is missing, damaged, or not what it should be.
    """
    loaders = {"python": _load_batches, "folders": _load_pictures}
    if form != "auto":
        return loaders[form](directory, say)
    root = existing_directory(directory, EXPECTED)
    for load in loaders.values():
        try:
            return load(root, say)
        except Absent:
            continue
    raise Absent(f"{root} holds no CIFAR-10; expected {EXPECTED}")


def _load_batches(directory: str | Path, say: Callable[[str], None]) -> Loaded:
    paths = cifar10_batches.find(directory)
    packed = len(paths) == 1
    name = paths[0].name if packed else "python batches"
    source = f"{name} in {paths[0].parent.resolve()}"

    def read() -> Loaded:
        if packed:
            say(f"reading {paths[0]} (once, a few seconds)")
        arrays, published = cifar10_batches.read(paths)
        return verify("cifar10", arrays, source, "published" if published else "unknown")

    # Unpacked batches are read as fast as a cache would be.
    return _cached(read, source, paths, say) if packed else read()


def _load_pictures(directory: str | Path, say: Callable[[str], None]) -> Loaded:
    splits = cifar10_pictures.find(directory)
    names = [path.name if path.suffix else f"folder {path.name}" for path in splits.values()]
    folder = next(iter(splits.values())).parent.resolve()
    source = f"{' and '.join(names)} in {folder}"

    def read() -> Loaded:
        say(f"decoding {' and '.join(map(str, splits.values()))} (once)")
        arrays, lossy = cifar10_pictures.read(splits, say)
        return verify("cifar10", arrays, source, "jpeg" if lossy else "unknown")

    return _cached(read, source, cifar10_pictures.files(splits), say)


def _cached(
    read: Callable[[], Loaded], source: str, files: Iterable[Path], say: Callable[[str], None]
) -> Loaded:
    # One cache for each place: new files replace those made from the old.
    place = hashlib.sha256(source.encode()).hexdigest()[:16]
    path = cache.cache_folder() / f"cifar10-{place}.npz"
    return cache.cached(
        path,
        read,
        dataset="cifar10",
        source=source,
        lock=path.with_suffix(".lock"),
        say=say,
        key=cache.key_of(files),
    )
