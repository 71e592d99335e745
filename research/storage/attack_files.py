"""The files of an attack's run: pictures, and one row for each cell, an image with a target.

cells.jsonl     one line per cell, K cells per image    appended, all cells of an image at once
*.png           8 bits, grey or RGB                     each in one move

Pictures are written before the rows that name them. A run that is killed in between and started
again finds those images unfinished and makes them anew, in files of the same names. Of several
processes the first alone writes, and all of them read.
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from research.runtime import distributed, files
from research.structs import UserError

_KINDS = {1: "grey", 3: "RGB"}  # by channels
_MODES = {
    "1": "grey", "L": "grey", "I": "grey", "I;16": "grey", "LA": "grey with transparency",
    "RGBA": "RGB with transparency", "P": "palette",
}  # fmt: skip
_PLUGINS = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8", JpegImagePlugin.JpegImageFile),
)
_PNG_BITS_AT = 24
_KEYS = ("image", "target")


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image [H, W, C] uint8 in one move, grey (C = 1) or RGB (3), making its folder.

    Raises ValueError for another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in _KINDS:
        raise ValueError(f"expected [H, W, 1 or 3] uint8, got {image.dtype} {list(image.shape)}")
    if not distributed.is_first():
        return
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    files.make_folder(path.parent)
    files.replace(path, stream.getvalue())


def read_png(path: Path) -> np.ndarray:
    """The pixels [H, W, C] uint8 of a picture as `write_png` leaves them, of any size.

    Raises UserError that names the file, if it is missing, damaged or of another kind.
    """
    return _read(path, None)


def read_input(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The pixels of a picture somebody gives, a PNG or a JPEG, as an image [H, W, C] uint8.

    shape: (H, W, C) that it must have; nothing is scaled or converted, so that what is attacked is
    what is in the file.
    Raises UserError that names the file, what was found in it and what was expected: if it is
    missing, no picture or damaged, or of another size or kind (grey for RGB and the reverse, a
    palette, transparency, other than 8 bits).
    """
    return _read(path, shape)


class CellLog:
    """cells.jsonl: a dict for each cell, with at least its `image` and `target`.

        log = CellLog(workdir, cells=10)
        for chunk in chunks(set(images) - log.finished(images)):
            ...  # pictures
            log.write(rows)  # 10 for each image of the chunk

    Meant for one run that holds the work directory, see `record.locked`; all of its processes have
    to call the same methods.
    """

    def __init__(self, workdir: Path, *, cells: int) -> None:
        """Continue the log in `workdir`, or begin it; `cells` is K, the rows of an image.

        Lines that a kill has cut short and rows of images that lack some are dropped from the file,
        in one move.
        """
        self._path, self._cells = workdir / "cells.jsonl", cells
        with distributed.first_process_first():
            content = self._path.read_bytes() if self._path.exists() else b""
            found = [
                (row, line)
                for line in content.splitlines(keepends=True)
                if (row := _row_of(line)) is not None
            ]
            self._rows = self._complete(row for row, _ in found)
            kept = b"".join(line for row, line in found if row["image"] in self._rows)
            if kept != content:
                files.replace(self._path, kept)

    def finished(self, images: Iterable[int]) -> set[int]:
        """Those of `images` that have all their cells."""
        return self._rows.keys() & set(images)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append all rows of some images; they are on the disk when this returns in any process.

        So are the pictures that were written before.

        Raises ValueError, and writes nothing, if an image has not one row for each of K targets or
        is finished already, or if JSON cannot hold a number (infinity, NaN).
        """
        lines = [json.dumps(dict(row), allow_nan=False) + "\n" for row in rows]
        read = [json.loads(line) for line in lines]
        added = self._complete(read)
        for image in {row["image"] for row in read}:
            if image not in added or image in self._rows:
                fault = "lacks or repeats a cell" if image not in added else "is finished already"
                raise ValueError(f"image {image} {fault}; expected {self._cells} new cells")
        files.append(self._path, "".join(lines))
        distributed.barrier("cells")
        self._rows |= added

    def rows(self) -> list[dict[str, Any]]:
        """All rows of finished images, by image and then by target."""
        return [row for image in sorted(self._rows) for row in self._rows[image]]

    def _complete(self, rows: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
        """{image: its rows by target} of the images that have one row for each of K targets."""
        grouped: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            grouped[row["image"]].append(row)
        return {
            image: sorted(group, key=lambda row: row["target"])
            for image, group in grouped.items()
            if len(group) == len({row["target"] for row in group}) == self._cells
        }


def _row_of(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None if the line is not whole."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(row, dict)
    return row if whole and all(isinstance(row.get(key), int) for key in _KEYS) else None


def _read(path: Path, shape: tuple[int, int, int] | None) -> np.ndarray:
    size = f"{shape[1]} x {shape[0]} pixels, {_KINDS[shape[2]]}" if shape else "grey or RGB"
    expected = f"expected a PNG or JPEG picture, {size}, 8 bits a channel"
    try:
        with path.open("rb") as file:
            return _decode(file, path, shape, expected)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); {expected}: give the path of one"
        ) from None


def _decode(
    file: BinaryIO, path: Path, shape: tuple[int, int, int] | None, expected: str
) -> np.ndarray:
    """Pixels [H, W, C]; size and kind are refused by the header, before memory is filled."""
    head = file.read(_PNG_BITS_AT + 1)
    plugin = next((plugin for start, plugin in _PLUGINS if head.startswith(start)), None)
    if plugin is None:
        found = f"starts with {head[:8]!r}" if head else "is empty"
        raise UserError(f"{path}: {found}; {expected}: give one")
    try:
        _ = file.seek(0)
        picture = plugin(file)
        # PIL would cut 16 bits to 8 without a word.
        bits = head[_PNG_BITS_AT] if plugin is PngImagePlugin.PngImageFile else 8
        kind = _MODES.get(picture.mode, picture.mode)
        kind += " with transparency" if "transparency" in picture.info else ""
        width, height = picture.size
        fits = shape is None or (height, width, kind) == (*shape[:2], _KINDS[shape[2]])
        if not fits or kind not in _KINDS.values() or bits != 8:
            raise UserError(
                f"{path}: {width:,} x {height:,} pixels, {kind}, {bits} bits a channel; {expected},"
                " without palette or transparency: save it like that"
            )
        pixels = np.frombuffer(picture.tobytes(), np.uint8)
    except UserError:
        raise
    except Exception as error:  # damage surfaces as any type
        raise UserError(
            f"{path}: damaged or truncated ({error}); {expected}: restore or replace it"
        ) from None
    return pixels.reshape(height, width, -1)
