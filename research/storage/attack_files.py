"""The files of an attack's run: pictures, and one row for each cell, an image with a target.

cells.jsonl     one line per cell, K cells per image    appended, all cells of an image at once
*.png           8 bits, grey or RGB                     each in one move

Pictures are written before the rows that name them, each with the SHA-256 of its picture. A run
that is killed in between, or whose rows or pictures are not what was written, finds those images
unfinished when it is started again and makes them anew, in files of the same names. Of several
processes the first alone writes, and all of them read.
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from research.data.image_files import read_image
from research.runtime import distributed, files
from research.storage import records

_KEYS = ("image", "target")


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image [H, W, C] uint8 in one move, grey (C = 1) or RGB (3), making its folder.

    Its name is on the disk when the row of `CellLog.write` is that names it.
    Raises ValueError for another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"expected [H, W, 1 or 3] uint8, got {image.dtype} {list(image.shape)}")
    if not distributed.is_first():
        return
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    files.make_folder(path.parent)
    files.replace(path, stream.getvalue(), named=False)


def read_png(path: Path) -> np.ndarray:
    """The pixels [H, W, C] uint8 of a picture as `write_png` leaves them, of any size.

    Raises DataError that names the file, if it is missing, damaged or of another kind.
    """
    return read_image(path, formats=("PNG",))


def targeted_examples(rows: Iterable[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """At most `count` targeted successes, spread evenly over the sizes of their noise.

    rows: of cells.jsonl.  Smallest L2 first; empty if no targeted attack succeeded.
    """
    won = [row for row in rows if row["success"] and row["target"] != row["actual"]]
    won.sort(key=lambda row: row["l2"])
    places = np.unique(np.linspace(0, len(won) - 1, count).round().astype(int))
    return [won[place] for place in places] if won else []


class CellLog:
    """cells.jsonl: a dict for each cell, with at least its `image` and `target`.

        log = CellLog(workdir, cells=10)
        for chunk in chunks(set(images) - log.finished(images)):
            ...  # pictures
            log.write(rows)  # 10 for each image of the chunk

    Meant for one run that holds the work directory, see `run_directory.locked`; all of its
    processes have to call the same methods.
    """

    def __init__(self, workdir: Path, *, cells: int) -> None:
        """Continue the log in `workdir`, or begin it; `cells` is K, the rows of an image.

        Lines that are cut short or changed, rows of changed pictures and of images that lack some
        are dropped from the file, in one move.
        """
        self._path, self._cells = workdir / "cells.jsonl", cells
        with distributed.first_process_first():
            content = self._path.read_bytes() if self._path.exists() else b""
            whole = [row for row in records.whole_rows(content) if row is not None]
            whole = [row for row in whole if all(isinstance(row.get(key), int) for key in _KEYS)]
            named = {row["file"] for row in whole if "file" in row}
            pictures = records.digests(workdir, named)
            whole = [row for row in whole if pictures.get(row.get("file", "")) == row.get("sha256")]
            self._rows = self._complete(whole)
            lines, self._check = records.lines([row for row in whole if row["image"] in self._rows])
            if lines.encode() != content:
                files.replace(self._path, lines)

    def finished(self, images: Iterable[int]) -> set[int]:
        """Those of `images` that have all their cells."""
        return self._rows.keys() & set(images)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append all rows of some images; they are on the disk when this returns in any process.

        So are the pictures that were written before.

        Raises ValueError, and writes nothing, if an image has not one row for each of K targets or
        is finished already, or if JSON cannot hold a number (infinity, NaN).
        """
        read = [json.loads(json.dumps(dict(row), allow_nan=False)) for row in rows]
        added = self._complete(read)
        for image in {row["image"] for row in read}:
            if image not in added or image in self._rows:
                fault = "lacks or repeats a cell" if image not in added else "is finished already"
                raise ValueError(f"image {image} {fault}; expected {self._cells} new cells")
        if distributed.is_first():
            names = {row["file"] for row in read if "file" in row}
            for folder in {(self._path.parent / name).parent for name in names}:
                files.sync_folder(folder)
            sums = records.digests(self._path.parent, names)
            listed = [row | {"sha256": sums[row["file"]]} if "file" in row else row for row in read]
            lines, self._check = records.lines(listed, self._check)
            files.append(self._path, lines)
        distributed.barrier("cells")
        self._rows |= added

    def rows(self) -> list[dict[str, Any]]:
        """All rows of finished images, by image and then by target."""
        return [row for image in sorted(self._rows) for row in self._rows[image]]

    def _complete(self, rows: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
        """{image: its rows by target} of the images that have one row for each of K targets."""
        grouped: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            kept = {key: value for key, value in row.items() if key != "sha256"}
            grouped[row["image"]].append(kept)
        return {
            image: sorted(group, key=lambda row: row["target"])
            for image, group in grouped.items()
            if len(group) == len({row["target"] for row in group}) == self._cells
        }
