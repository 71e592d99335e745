"""Caches of decoded data sets, and the lock under which they are made.

A cache is an uncompressed .npz of the four arrays and of `about`: their checksum, the name of the
data set, and the key of the files that they were made from. It is read back in a fraction of a
second; a damaged one is noticed by its checksum and made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from research.data.provenance import KEYS, PUBLISHED, DataError, Loaded, verify
from research.runtime import files

_FOLDER = "small-net-laboratory"
_FORMAT = 1  # another number where the same files shall give other arrays


def cache_folder() -> Path:
    """Where caches of files lie that are not ours to write beside: $XDG_CACHE_HOME or ~/.cache.

    Raises UserError where there is no home.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of XDG has relative paths ignored.
    return (Path(home) if os.path.isabs(home) else files.locate("~/.cache")) / _FOLDER


def key_of(paths: Iterable[str | Path]) -> str:
    """A digest that changes when one of `paths` is another, by path, size or time of change.

    Raises DataError for a file that is not there.
    """
    listing: list[tuple[str, int, int]] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        listing.append((os.path.abspath(path), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([_FORMAT, *listing]).encode()).hexdigest()


@contextlib.contextmanager
def locked(lock: Path, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Lets one process at a time make `what`; the file `lock` stays behind, empty.

    The lock dies with its process. A read-only directory is not locked: nobody writes there. Where
    there can be no lock, as on some network file systems, it is made without; `say` gets a line.
    """
    with contextlib.suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
    if not (os.path.isdir(lock.parent) and os.access(lock.parent, os.W_OK)):
        yield
        return
    file_lock = FileLock(lock, fallback_to_soft=False)
    with contextlib.ExitStack() as held:
        try:
            try:
                _ = held.enter_context(file_lock.acquire(blocking=False))
            except Timeout:
                say(f"waiting for another process that prepares {what} in {lock.parent}")
                _ = held.enter_context(file_lock.acquire())
        except OSError as error:
            say(
                f"{lock.parent} cannot be locked ({error.strerror}): take care that no other "
                f"process prepares {what} there"
            )
        yield


def cached(
    path: Path,
    make: Callable[[], Loaded],
    *,
    dataset: str,
    source: str,
    lock: Path,
    say: Callable[[str], None],
    key: str = "",
    sha256: str = "",
) -> Loaded:
    """What the cache at `path` holds, else what `make` gives, which is then cached.

    source: where the arrays come from, for `Source.source`.
    lock: the file under which one process at a time makes it, see `locked`.
    key: names the files behind the cache; a cache with another key is made again.
    sha256: the checksum that the cached arrays must have; "" for the one stored with them.
    say: receives a line if the cache is damaged or cannot be written, which is no error.
    """
    loaded = _read(path, dataset, source, key, sha256, say)
    if loaded is not None:
        return loaded
    with locked(lock, PUBLISHED[dataset].name, say):
        # Another process may have made it meanwhile; what was wrong with it has been said.
        loaded = _read(path, dataset, source, key, sha256, lambda line: None)
        if loaded is None:
            loaded = make()
            _write(path, loaded, key, say)
    return loaded


def _read(
    path: Path, dataset: str, source: str, key: str, sha256: str, say: Callable[[str], None]
) -> Loaded | None:
    if not os.path.exists(path):
        return None
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["key"] != key:
                say(f"{path} was made from other files; making it again")
                return None
            arrays = {name: stored[name] for name in KEYS}
        train, test, stored_source = verify(dataset, arrays, source)
        if stored_source.sha256 == (sha256 or about["sha256"]):
            return train, test, dataclasses.replace(stored_source, name=about["name"])
    except Exception:  # damage surfaces as any type
        pass
    say(f"{path} is damaged or of an earlier version; making it again")
    return None


def _write(path: Path, loaded: Loaded, key: str, say: Callable[[str], None]) -> None:
    train, test, source = loaded
    about = json.dumps({"sha256": source.sha256, "name": source.name, "key": key})
    arrays = dict(zip(KEYS, (train.images, train.labels, test.images, test.labels), strict=True))
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(about), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        say(
            f"{PUBLISHED[source.dataset].name} is not cached ({error}); the next start will read "
            "it again"
        )
