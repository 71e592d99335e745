"""Files of a work directory, on a disk or in an object store, written by the first process only.

An object store is named by a URL, gs://bucket/path or s3://bucket/path, and reached through
`etils.epath`, the path library of Orbax and TFDS. It has objects instead of files: they appear
whole or not at all, and are replaced as a whole. There are no folders, nothing can be appended or
renamed atomically, and nothing can be locked.

All functions that write may be called by every process of a run (`runtime.distributed`); all but
the first do nothing and do not wait: to read what the first has just written, wait at a barrier.
"""

import contextlib
import errno
import io
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import fsspec
import fsspec.config
import numpy as np
from etils import epath

from research.runtime import distributed
from research.structs import UserError, one_line

T = TypeVar("T")

# Of a file system that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
STORES = {"gs": "gcsfs", "s3": "s3fs"}  # scheme of the URL: package that it needs
_held: list[tuple[Path, tuple[int, int] | None]] = []  # locks of this process, see `guarded`
_LOOKS = 5  # of `check_shared`, a second apart


def locate(text: str) -> Path:
    """What a user names as a path: one of this machine, or the URL of one in a bucket.

    A leading "~" is the user's home, as in a shell.  A URL gives an `epath.Path`, of which only
    what both kinds of path have may be used.  Raises UserError for another kind of URL, if the
    package that the object store needs is missing, and for a home that is not known.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise UserError(f"{text}: no such home is known; set HOME, or write it out") from None
    if scheme not in STORES or not rest.strip("/"):
        stores = ", ".join(f"{known}://bucket/path" for known in STORES)
        raise UserError(f"{text}: not a path, nor one of {stores}")
    try:
        _ = fsspec.get_filesystem_class(scheme)
    except ImportError:
        package = STORES[scheme]
        raise UserError(
            f"{text}: {scheme}:// needs the package {package}, of the version of fsspec: "
            f"pip install {package}=={fsspec.__version__}"
        ) from None
    # What another process has written is not in a list from before.
    fsspec.config.conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
    return cast(Path, epath.Path(text))


def stored(path: Path) -> bool:
    """Whether `path` is in an object store."""
    return "://" in os.fspath(path)


def check_store(path: Path) -> None:
    """Raise UserError if the bucket of `path` is not there or cannot be reached."""
    bucket = locate("/".join(os.fspath(path).split("/")[:3]))
    try:
        found = bucket.exists()
    except Exception as error:  # each object store has errors of its own
        raise UserError(f"{path}: {bucket} cannot be reached: {one_line(error)}") from error
    if not found:
        raise UserError(f"{path}: there is no bucket {bucket} that you may see; make it first")


def check_shared(folder: Path) -> None:
    """Raise UserError, in every process, unless all read what the first one writes into `folder`.

    Collective.
    """
    if distributed.is_single():
        return
    file = folder / ".shared"

    def write() -> str:
        token = secrets.token_hex(8)
        try:
            make_folder(folder)
            replace(file, token)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be used as a work directory: {error.strerror or error}"
            ) from error
        return token

    token, seen = distributed.broadcast_from_first(write), False
    for _ in range(_LOOKS):
        with contextlib.suppress(Exception):  # each object store has errors of its own
            seen = file.read_text() == token
        if seen:
            break
        time.sleep(1)  # a network file system may be late
    blind = distributed.max_over_processes(-1 if seen else distributed.process_index())
    remove(file)
    if blind >= 0:
        raise UserError(
            f"{folder} is not the same directory for process {blind} of "
            f"{distributed.process_count()} (from 0) and the first one; give a --workdir on "
            "storage that all of them share"
        )


def can_write(folder: Path) -> bool:
    """Whether files may be written into a directory that is there or can be made."""
    if stored(folder):
        return True
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK)


@contextlib.contextmanager
def guarded(lock: Path) -> Iterator[None]:
    """For the process that holds `lock`, a file of the directory that the lock is for.

    While this lasts, a write anywhere in the directory raises UserError, before anything is
    written, once the file has been removed or replaced: then others may hold a lock there as well.
    """
    entry = (lock, _identity(lock))
    _held.append(entry)
    try:
        yield
    finally:
        _held.remove(entry)


def check_held(path: Path) -> None:
    """Raise UserError if `path` is in a directory whose lock has been lost, see `guarded`."""
    for lock, identity in _held:
        if path.is_relative_to(lock.parent) and _identity(lock) != identity:
            raise UserError(
                f"{lock} was removed or replaced while this run held it, and another run may be "
                f"writing to {lock.parent}: this one has stopped and wrote nothing since; start it "
                "again when no other is running there"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from others, None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def read(path: Path, parse: Callable[[bytes], T], *, remedy: str) -> T:
    """What `parse` makes of the content of a file.

    Raises UserError naming the file, what is wrong with it and the remedy, whatever `parse` raises:
    damage surfaces as any type, such as NotImplementedError for the method of an entry of a zip.
    """
    try:
        return parse(path.read_bytes())
    except Exception as error:
        errno_text = error.strerror if isinstance(error, OSError) else None
        raise UserError(
            f"{path}: cannot be read ({errno_text or one_line(error)}); {remedy}"
        ) from error


def parse_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.  Raises whatever `zipfile` raises for damage.

    Each is read to its end, where its CRC-32 is compared; NumPy stops where the header says.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as stored:
        names = stored.namelist()
        # `zipfile` takes a directory that begins too late for the whole of it.
        if int.from_bytes(content[-12:-10], "little") not in (len(names), 0xFFFF):
            raise zipfile.BadZipFile(f"lists {len(names)} arrays, and has another number")
        return {
            name.removesuffix(".npy"): np.load(io.BytesIO(stored.read(name)), allow_pickle=False)
            for name in names
        }


def make_folder(path: Path) -> None:
    """Make a directory and those above it, unless it is there; it is on the disk then."""
    if not distributed.is_first() or stored(path) or path.is_dir():
        return
    if not path.parent.exists():
        make_folder(path.parent)
    Path(path).mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring what was made, renamed or removed in a directory onto the disk; in a bucket it is."""
    if stored(path):
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have none
            raise
    finally:
        os.close(number)


def replace(path: Path, content: str | bytes, *, named: bool = True) -> None:
    """Write a file in one move; it is on the disk or in the bucket when this returns.

    named: whether its name is, too; if not, `sync_folder` has to follow: for many files at once.
    Raises OSError if that fails.
    """
    if not distributed.is_first():
        return
    content = content.encode() if isinstance(content, str) else content
    if stored(path):
        with _as_oserror(path):
            _ = path.write_bytes(content)
        return
    check_held(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        _ = file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if named:
        sync_folder(path.parent)


def append(path: Path, content: str) -> None:
    """Add to a file; it is on the disk or in the bucket when this returns.

    In a bucket the whole object is read and written anew.  Raises OSError if that fails.
    """
    if not distributed.is_first():
        return
    if stored(path):
        with _as_oserror(path):
            before = path.read_bytes() if path.exists() else b""
        replace(path, before + content.encode())
        return
    check_held(path)
    is_new = not path.exists()
    with Path(path).open("a") as file:
        if is_new:
            sync_folder(path.parent)
        _ = file.write(content)
        file.flush()
        os.fsync(file.fileno())


def copy(source: Path, target: Path) -> None:
    """Copy a file in one move."""
    if distributed.is_first():
        replace(target, source.read_bytes())


def copy_tree(source: Path, target: Path) -> None:
    """Copy every file beneath a directory of this machine to the same place beneath `target`."""
    if not distributed.is_first():
        return
    for file in sorted(each for each in source.rglob("*") if each.is_file()):
        into = target / file.relative_to(source).as_posix()
        make_folder(into.parent)
        replace(into, file.read_bytes())


def remove(path: Path) -> None:
    """Delete a file, or a directory with all that is in it, if it is there."""
    if not distributed.is_first():
        return
    if not stored(path):
        check_held(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            Path(path).unlink(missing_ok=True)
        return
    with _as_oserror(path):
        if path.exists():
            remote = cast(Any, path)
            remote.rmtree() if path.is_dir() else remote.unlink()


@contextlib.contextmanager
def _as_oserror(path: Path) -> Iterator[None]:
    """Errors of an object store as OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each object store has errors of its own
        raise OSError(f"{path}: {one_line(error)}") from error
