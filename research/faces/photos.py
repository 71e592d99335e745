"""What are the pixels of a photograph that somebody has on disk, whatever program has saved it?

PNG, JPEG, WebP, BMP or the first frame of a GIF, known by content; the name may say anything. Every
one ends as 8-bit RGB, the way up it is meant to be seen:

* 16 bits a channel: the high byte, in colour and in grey (PIL would clip the grey ones);
* grey, palette, CMYK and 1 bit: as PIL converts them; colour profiles are not applied;
* transparency: a pixel of which anything is seen has its own colour; one of which nothing is seen
  is white, whatever a program has left there. White is not mixed in: of 247 pictures of the Kaggle
  set "andrewmvd", 177 have a row or column at the edge that is seen in part, left over from
  scaling; its colours are 5 levels from those beside it, on average, and 58 with white mixed in;
* a colour that stands for transparent is not looked for in pictures of 16 bits, where the high
  byte does not tell it from those about it;
* EXIF orientation: applied once, here, and in the size too. It is parsed here because PIL warns of
  damaged entries, and decodes the pixels of a PNG to get at those behind them.

May be called from several threads; a second one pays, since PIL decodes outside of Python's lock.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile

from research.data.provenance import DataError

MAX_PIXELS = 64_000_000  # a camera has 12 to 50 million; `read` takes 10 to 20 bytes for each
ENDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")  # of the names of what can be read

_MAX_BYTES = 8 * MAX_PIXELS  # of a file: 16 bits of four channels, not compressed
_EXPECTED = "expected a PNG, JPEG, WebP, BMP or GIF picture"
_PLUGINS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", PngImagePlugin.PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), "JPEG", JpegImagePlugin.JpegImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP", WebPImagePlugin.WebPImageFile),
    (re.compile(rb"GIF8[79]a"), "GIF", GifImagePlugin.GifImageFile),
    (re.compile(rb"BM"), "BMP", BmpImagePlugin.BmpImageFile),
)
_PNG_BITS_AT = 24
_TURNS = {  # by EXIF orientation: what brings the picture into its place
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_FIRST_ON_ITS_SIDE = 5
_ORIENTATION_TAG, _SHORT = 0x0112, 3
_ENTRY_BYTES = 12
_MAX_CHUNKS, _MAX_EXIF_BYTES = 100_000, 2**16


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels of a photograph as it is displayed, from its header alone.

    Raises DataError that begins with the path: for what is no picture, damaged in its header or
    larger than MAX_PIXELS. Damage among the pixels is found by `read` only.
    """
    with _opened(path) as (image, orientation, _):
        width, height = image.size
    return (height, width) if orientation >= _FIRST_ON_ITS_SIDE else (width, height)


def read(path: str | Path) -> np.ndarray:
    """The pixels [H, W, 3] uint8, RGB, of a photograph as it is displayed; not to be written to.

    Raises DataError that begins with the path: for what is no picture, damaged, truncated or larger
    than MAX_PIXELS.
    """
    with _opened(path) as (image, orientation, deep):
        _ = image.load()
        upright = _rgb(image, deep)
        if orientation in _TURNS:
            upright = upright.transpose(_TURNS[orientation])
        return np.asarray(upright)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[ImageFile, int, bool]]:
    """The picture of a file with its header read, its orientation, and if it has 16 bits.

    What goes wrong in the body is a DataError of this file too.
    """
    kind = ""
    try:
        # A pipe would be waited for until somebody writes to it.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is no regular file; {_EXPECTED}: remove it")
        if status.st_size > _MAX_BYTES:
            raise DataError(
                f"{path}: {status.st_size:,} bytes; expected at most {_MAX_BYTES:,}: remove it"
            )
        with open(path, "rb") as file, _silence:
            head = file.read(_PNG_BITS_AT + 1)
            kind, plugin = _kind(path, head)
            _ = file.seek(0)
            image = plugin(file)
            _check_size(path, image)
            deep = kind == "PNG" and head[_PNG_BITS_AT] == 16
            yield image, _orientation(_exif(file, image, kind)), deep
    except DataError:
        raise
    except OSError as error:
        if error.errno is None:  # PIL's own
            raise _damaged(path, kind, error) from None
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_EXPECTED}") from None
    except Exception as error:  # damage surfaces as any type
        raise _damaged(path, kind, error) from None


def _damaged(path: str | Path, kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: damaged or truncated {kind or 'picture'} ({reason}); copy it again")


def _kind(path: str | Path, head: bytes) -> tuple[str, type[ImageFile]]:
    for start, kind, plugin in _PLUGINS:
        if start.match(head):
            return kind, plugin
    found = f"starts with {head[:8]!r}" if head else "is empty"
    raise DataError(f"{path}: {found}; {_EXPECTED}: convert or remove it")


def _check_size(path: str | Path, image: ImageFile) -> None:
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: {width:,} x {height:,} pixels; expected at least one and at most "
            f"{MAX_PIXELS:,}: make it smaller or remove it"
        )


def _rgb(image: ImageFile, deep: bool) -> Image.Image:
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    has_colour_key = "transparency" in image.info and not (deep and image.mode == "RGB")
    if image.mode in ("RGBA", "LA", "PA") or has_colour_key:
        seen = image if image.mode == "RGBA" else image.convert("RGBA")  # which would be a copy
        white = Image.new("RGB", image.size, "white")
        white.paste(seen, mask=seen.getchannel("A").point([0] + [255] * 255))
        return white
    _ = image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def _exif(file: BinaryIO, image: ImageFile, kind: str) -> bytes:
    """The EXIF block of a picture whose header has been read; empty if there is none."""
    found = image.info.get("exif", b"")
    if not found and kind == "PNG":
        raw = image.info.get("Raw profile type exif")  # as ImageMagick keeps it: hex, after a head
        if isinstance(raw, str):
            with contextlib.suppress(ValueError):
                found = bytes.fromhex("".join(raw.split("\n")[3:]))
        found = found or _late_exif(file)
    return found if isinstance(found, bytes) else b""


def _late_exif(file: BinaryIO) -> bytes:
    """The eXIf chunk of a PNG, which may come after the pixels; they are skipped."""
    place, before = len(b"\x89PNG\r\n\x1a\n"), file.tell()
    try:
        for _ in range(_MAX_CHUNKS):
            _ = file.seek(place)
            head = file.read(8)
            if len(head) < 8:
                break
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf":
                return file.read(min(length, _MAX_EXIF_BYTES))
            place += length + 12
        return b""
    finally:
        _ = file.seek(before)


def _orientation(exif: bytes) -> int:
    """1 to 8 as EXIF counts them; 1 where it says nothing or nonsense."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(count):
            place = start + 2 + entry * _ENTRY_BYTES
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, place)
            if tag == _ORIENTATION_TAG and kind == _SHORT:
                return value if value in _TURNS else 1
    except struct.error:
        pass
    return 1


class _Silence:
    """PIL's warnings ignored while any thread is inside.

    `warnings.catch_warnings` of two threads that overlap would leave the filters of one behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                _ = self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_silence = _Silence()
