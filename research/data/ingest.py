"""From photographs to faces of one size, in small files that survive a kill.

The photographs are worked off in chunks. A chunk that is done lies in the work folder as one zip
file: the faces as PNG, and `rows.json` with where each comes from and what went wrong. Whoever
starts again goes on with the first chunk that is missing. Threads read, cut and encode (PIL works
outside of Python's lock); faces that have no box yet are looked for in between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from research.data import crops, photos, splits
from research.data.source import DataError
from research.types import Box, Face, Problem

# The boxes [n, 4] float of the faces in each picture, left, top, right, bottom, best first.
FindFaces = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]

_PHOTOS_PER_CHUNK = 16
# Photographs in memory that wait for the detector, and their pixels; as many are being read.
_AT_ONCE, _AT_ONCE_PX = 4, 32_000_000
_LARGE_PX = 16_000_000  # what has more is decoded one at a time: it takes up to 20 bytes a pixel
_large = threading.Lock()
_SAY_EVERY_S = 5.0
_FORMAT = "1"


@dataclass(frozen=True)
class Cut:
    """How faces are cut out.

    margin: see `crops.crop`.  size: side of the result, in pixels.  min_side: faces whose shorter
    side has fewer pixels are left out.
    """

    margin: float
    size: int
    min_side: int


class Row(NamedTuple):
    """One face that was cut out.  print: of its photograph, see `splits.fingerprint`."""

    face: Face
    print: int


class Chunk(NamedTuple):
    """What became of some photographs: their faces as rows and PNG files, and what went wrong.

    small: how many faces were left out because they are smaller than `Cut.min_side`.
    """

    rows: list[Row]
    pngs: list[bytes]
    problems: list[Problem]
    small: int


def ingest(
    faces: Sequence[Face],
    cut: Cut,
    work: Path,
    find_faces: FindFaces | None,
    say: Callable[[str], None],
) -> list[Path]:
    """The chunk files of all photographs, in their order; those that exist are not made again.

    faces: those of one photograph in a row.  work: a folder of these faces and this cut alone.
    find_faces: for photographs whose face has no box; the largest it finds is taken.
    Raises DataError if it is needed and None.
    """
    work.mkdir(parents=True, exist_ok=True)
    by_photo = [list(group) for _, group in groupby(faces, key=lambda face: face.image)]
    chunks = _chunks(by_photo)
    paths = [work / f"chunk-{_FORMAT}-{i:05d}.zip" for i in range(len(chunks))]
    done = sum(len(group) for group, path in zip(chunks, paths, strict=True) if path.exists())
    if done:
        say(f"faces: {done:,} of {len(by_photo):,} photographs are cut already, going on")
    began, first, said = time.monotonic(), done, 0.0
    with ThreadPoolExecutor(cores()) as pool:
        for group, path in zip(chunks, paths, strict=True):
            if path.exists():
                continue
            found = _find_all if group[0][0].box is None else _cut_all
            _write(path, found(group, cut, pool, find_faces))
            done += len(group)
            elapsed = time.monotonic() - began
            if elapsed - said > _SAY_EVERY_S:
                said = elapsed
                left = elapsed / (done - first) * (len(by_photo) - done)
                say(f"faces: {done:,} of {len(by_photo):,} photographs, about {left:.0f} s left")
    return paths


def read_rows(path: Path) -> Chunk:
    """What `ingest` wrote, without the PNG files.  Raises DataError if the file is damaged."""
    with _opened(path) as stored:
        about = json.loads(stored.read("rows.json"))
        rows = [_row(entry) for entry in about["rows"]]
        return Chunk(rows, [], [Problem(*entry) for entry in about["problems"]], about["small"])


def read_pngs(path: Path, places: Sequence[int]) -> list[bytes]:
    """The faces of some rows of a chunk.  Raises DataError if the file is damaged."""
    with _opened(path) as stored:
        return [stored.read(f"{i:04d}.png") for i in places]


def encode(face: np.ndarray) -> bytes:
    """A PNG file of pixels [S, S, 3] uint8."""
    file = io.BytesIO()
    Image.fromarray(face).save(file, "PNG", compress_level=1)  # three times as fast, 15 % larger
    return file.getvalue()


def decode(png: bytes) -> np.ndarray:
    """The pixels [S, S, 3] uint8 of what `encode` wrote."""
    return np.asarray(Image.open(io.BytesIO(png), formats=["PNG"]))


def whole_box(corners: np.ndarray, shape: Sequence[int]) -> Box:
    """left, top, right, bottom [4] float as whole pixels of a picture [H, W, 3], one at least."""
    left, top, right, bottom = (int(value) for value in np.rint(corners))
    left, top = min(max(left, 0), shape[1] - 1), min(max(top, 0), shape[0] - 1)
    return Box(left, top, min(max(right, left + 1), shape[1]), min(max(bottom, top + 1), shape[0]))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as stored:
            yield stored
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and start again") from None


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(by_photo: Sequence[list[Face]]) -> list[list[list[Face]]]:
    """Photographs in a row, at most so many, with boxes or without."""
    chunks: list[list[list[Face]]] = []
    for _, group in groupby(by_photo, key=lambda faces: faces[0].box is None):
        same = list(group)
        starts = range(0, len(same), _PHOTOS_PER_CHUNK)
        chunks += [same[start : start + _PHOTOS_PER_CHUNK] for start in starts]
    return chunks


def _cut_all(
    group: Sequence[list[Face]], cut: Cut, pool: ThreadPoolExecutor, find_faces: FindFaces | None
) -> Chunk:
    """A chunk of photographs whose faces have boxes; a thread sees to the whole of one."""
    del find_faces
    return _joined(list(pool.map(lambda faces: _cut_one(faces, cut), group)))


def _find_all(
    group: Sequence[list[Face]], cut: Cut, pool: ThreadPoolExecutor, find_faces: FindFaces | None
) -> Chunk:
    """A chunk of photographs of one person each: read, searched and cut a few at a time.

    Those after them are read while the detector works.
    """
    if find_faces is None:
        raise DataError(f"{group[0][0].image}: has no box, and there is no face detector")
    parts: list[Chunk] = []
    cutting: list[Future[Chunk]] = []
    for faces, images in _read_ahead(group, pool):
        shown = [image for image in images if isinstance(image, np.ndarray)]
        boxes = iter(find_faces(shown) if shown else [])
        for (face,), image in zip(faces, images, strict=True):
            if isinstance(image, Problem):
                parts.append(Chunk([], [], [image], 0))
                continue
            found = next(boxes)
            if not len(found):
                problem = Problem(face.image, "no face was found in it", "left out")
                parts.append(Chunk([], [], [problem], 0))
                continue
            areas = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
            box = whole_box(found[np.argmax(areas)], image.shape)
            boxed = dataclasses.replace(face, box=box)
            cutting.append(pool.submit(_cut_read, [boxed], image, cut))
    return _joined(parts + [future.result() for future in cutting])


def _read_ahead(
    group: Sequence[list[Face]], pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[list[Face]], list[np.ndarray | Problem]]]:
    """The photographs a few at a time, in their order, with the next few being read meanwhile."""
    parts = _parts(group)
    following: list[Future[np.ndarray | Problem]] = []
    for i, part in enumerate(parts):
        reading = following or [pool.submit(_read, faces[0].image) for faces in part]
        after = parts[i + 1] if i + 1 < len(parts) else []
        following = [pool.submit(_read, faces[0].image) for faces in after]
        yield part, [future.result() for future in reading]


def _parts(group: Sequence[list[Face]]) -> list[list[list[Face]]]:
    """Photographs in a row that fit into memory together."""
    parts: list[list[list[Face]]] = []
    total = 0
    for faces in group:
        pixels = _pixels(faces[0].image)
        if not parts or len(parts[-1]) == _AT_ONCE or total + pixels > _AT_ONCE_PX:
            parts.append([])
            total = 0
        parts[-1].append(faces)
        total += pixels
    return parts


def _pixels(path: str) -> int:
    """How many a photograph has; 0 if that cannot be told, which reading it will say."""
    try:
        return math.prod(photos.size_of(path))
    except DataError:
        return 0


def _read(path: str) -> np.ndarray | Problem:
    try:
        with _large if _pixels(path) > _LARGE_PX else contextlib.nullcontext():
            return photos.read(path)
    except DataError as error:
        return Problem(path, str(error).removeprefix(f"{path}: "), "left out")


def _cut_one(faces: Sequence[Face], cut: Cut) -> Chunk:
    image = _read(faces[0].image)
    if isinstance(image, Problem):
        lost = f"left out, and with it {len(faces)} annotated face{'s' if len(faces) > 1 else ''}"
        return Chunk([], [], [dataclasses.replace(image, done=lost)], 0)
    return _cut_read(faces, image, cut)


def _cut_read(faces: Sequence[Face], image: np.ndarray, cut: Cut) -> Chunk:
    rows: list[Row] = []
    pngs: list[bytes] = []
    seen = splits.fingerprint(image)
    for face in faces:
        assert face.box is not None
        if min(face.box.width, face.box.height) >= cut.min_side:
            rows.append(Row(face, seen))
            pngs.append(encode(crops.crop(image, face.box, margin=cut.margin, size=cut.size)))
    return Chunk(rows, pngs, [], len(faces) - len(rows))


def _joined(parts: Sequence[Chunk]) -> Chunk:
    return Chunk(
        [row for part in parts for row in part.rows],
        [png for part in parts for png in part.pngs],
        [problem for part in parts for problem in part.problems],
        sum(part.small for part in parts),
    )


def _write(path: Path, chunk: Chunk) -> None:
    """In one move, so that a chunk file is whole if it is there."""
    about = {
        "rows": [
            {**dataclasses.asdict(row.face), "print": f"{row.print:016x}"} for row in chunk.rows
        ],
        "problems": [dataclasses.astuple(problem) for problem in chunk.problems],
        "small": chunk.small,
    }
    temporary = path.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as stored:
        stored.writestr("rows.json", json.dumps(about))
        for i, png in enumerate(chunk.pngs):
            stored.writestr(f"{i:04d}.png", png)
    os.replace(temporary, path)


def _row(entry: dict[str, Any]) -> Row:
    seen = int(entry.pop("print"), 16)
    return Row(Face(**{**entry, "box": Box(**entry["box"])}), seen)
