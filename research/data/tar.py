"""Reader of tar files in memory; nothing is unpacked to the disk.

Python's `tarfile` takes a damaged or missing header for the end of the archive. Here an archive
ends with the block of zeros that ends it, or it is refused; so are members that are neither files
nor folders, or whose names point outside.
"""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from research.data.formats import recognise
from research.data.provenance import DataError

_BLOCK = 512


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    name: without a leading "./".  offset, size: of its content in the uncompressed archive.
    read: gives the content; call it before the next member is asked for.
    """

    name: str
    offset: int
    size: int
    read: Callable[[], bytes]


def members(path: Path, max_bytes: int) -> Iterator[Member]:
    """The files of the archive, gzipped or not, in its order; folders are passed over.

    Raises DataError that names the archive, and the member where there is one: for an archive
    that is truncated or damaged, for a link or a device, for a name that is absolute, climbs out
    or comes twice, and for a member of more than `max_bytes`, before any of it is read.
    """
    names: set[str] = set()
    with (
        _refusing(path),
        _uncompressed(path) as content,
        tarfile.open(fileobj=content, mode="r:", tarinfo=_Header) as archive,
    ):
        for info in archive:
            name = _checked_name(path, info)
            if info.isdir():
                continue
            if name in names:
                raise DataError(f"{path}: {name} is there twice; make the archive again")
            names.add(name)
            if info.size > max_bytes:
                raise DataError(
                    f"{path}: {name} has {info.size:,} bytes, expected {max_bytes:,} at most: it "
                    "does not belong into this archive"
                )

            def read(info: tarfile.TarInfo = info) -> bytes:
                with _refusing(path):
                    file = archive.extractfile(info)
                    return file.read() if file else b""

            yield Member(name, info.offset_data, info.size, read)
        while content.read(2**20):  # to the end, where gzip compares its checksum
            pass


@contextlib.contextmanager
def _uncompressed(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of the archive, unpacked by gzip as often as it was packed, twice at most."""
    with contextlib.ExitStack() as stack:
        content = stack.enter_context(path.open("rb"))
        for _ in range(2):
            if content.peek(2)[:2] == b"\x1f\x8b":
                content = stack.enter_context(gzip.open(content))
        start = content.peek(_BLOCK)[:_BLOCK]
        what = None if start[257:262] == b"ustar" else recognise(start)
        if what:
            raise DataError(f"{path}: is {what[0]}, expected a tar file: {what[1]}")
        yield cast(IO[bytes], content)


def _checked_name(path: Path, info: tarfile.TarInfo) -> str:
    name = info.name.removeprefix("./")
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(
            f"{path}: member {info.name!r} points outside the archive; expected names like "
            "folder/file: do not trust this archive"
        )
    if not (info.isdir() or info.isfile()) or info.issparse():
        kind = "a link" if info.issym() or info.islnk() else "of a special type"
        raise DataError(
            f"{path}: member {info.name!r} is {kind}, expected files and folders only; make the "
            "archive again (tar --dereference)"
        )
    return name


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == _BLOCK and not any(buf):
                raise  # the end, as it should be
            raise tarfile.ReadError(f"{error} where the next member or the end should be") from None


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{path}: damaged or truncated tar file ({error}); copy or download it again"
        ) from None
    except OSError as error:
        reason = error.strerror or error  # gzip raises an OSError without a number
        raise DataError(f"{path}: cannot be read ({reason}); copy or download it again") from None
