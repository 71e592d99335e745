"""Crops of faces, all of one size, in small files that survive a kill.

The photographs are worked off in chunks. A chunk that is done lies in the work folder as one zip
file: the crops as PNG, and `about.json` with the face of each and what went wrong. Its name says
what it was made from. Whoever starts again makes the chunks that are missing. Threads read,
cut and encode (PIL works outside of Python's lock); faces that have no box yet are looked for in
between. How many pixels are in work at a time is limited, whatever the number of threads is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from research.data import image_files
from research.data.provenance import DataError
from research.faces import crops, splits
from research.faces.annotations import Box, Face, Photograph, Problem
from research.runtime import progress
from research.structs import one_line

T = TypeVar("T")
# The boxes [n, 4] float of the faces in each picture, left, top, right, bottom, best first.
FindFaces = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]

_PHOTOS_PER_CHUNK, _FACES_PER_CHUNK = 16, 256
# Photographs in memory that wait for the detector, and their pixels; as many are being read.
_AT_ONCE, _AT_ONCE_PX = 4, 32_000_000
_ROOM_PX = 32_000_000  # being decoded or cut at a time, 10 to 20 bytes for each
_FORMAT = "4"  # another one where the same faces shall give other chunk files


@dataclass(frozen=True)
class Cut:
    """How faces are cut out.

    margin: see `crops.crop`.  size: side of the result, in pixels.  min_side: faces whose shorter
    side has fewer pixels are left out.
    """

    margin: float
    size: int
    min_side: int


class Chunk(NamedTuple):
    """The faces of some photographs that were cut out, and what went wrong.

    pngs: the crop of each face as a PNG file; empty where they are not read.
    fingerprints: {path of a photograph with a face: see `splits.fingerprint`}.
    small: how many faces were left out because they are smaller than `Cut.min_side`.
    lost: how many were left out because of one of the problems.
    """

    faces: list[Face]
    pngs: list[bytes]
    fingerprints: dict[str, int]
    problems: list[Problem]
    small: int
    lost: int


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
    Raises DataError if it is needed and None, and if the folder cannot be written.
    """
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    by_photo = [list(group) for _, group in groupby(faces, key=lambda face: face.photograph)]
    chunks = _chunks(by_photo)
    paths = [work / _name(i, group, cut) for i, group in enumerate(chunks)]
    are_whole = [_is_whole(path, say) for path in paths]
    done = sum(len(group) for group, is_whole in zip(chunks, are_whole, strict=True) if is_whole)
    if done:
        say(f"faces of {done:,} of {len(by_photo):,} photographs are cut out already, going on")
    with (
        progress.bar(
            None, "cutting faces out", total=len(by_photo), done=done, unit="photographs"
        ) as bar,
        ThreadPoolExecutor(cores()) as pool,
    ):
        for group, path, is_whole in zip(chunks, paths, are_whole, strict=True):
            if not is_whole:
                cut_out = _find_all if group[0][0].box is None else _cut_all
                chunk = cut_out(group, cut, pool, find_faces)
                with writing(work):
                    _write(path, chunk)
                _ = bar.update(len(group))
    return paths


def read_chunk(path: Path) -> Chunk:
    """What `ingest` wrote, without the crops.  Raises DataError if the file is damaged."""
    with _opened(path) as stored:
        about = json.loads(stored.read("about.json"))
        return Chunk(
            [
                Face(Photograph(*photograph), Box(*box), label, source)
                for photograph, box, label, source in about["faces"]
            ],
            [],
            about["fingerprints"],
            [Problem(*problem) for problem in about["problems"]],
            about["small"],
            about["lost"],
        )


def read_pngs(path: Path, rows: Sequence[int]) -> list[bytes]:
    """The crops of some faces of a chunk, by number.  Raises DataError if the file is damaged."""
    with _opened(path) as stored:
        return [stored.read(f"{i:04d}.png") for i in rows]


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
def writing(where: Path) -> Iterator[None]:
    """Turns what the file system refuses inside into one DataError that says what would do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{where} cannot be written ({error.strerror or error}); make room there, or name "
            "another directory with data.tfds_dir, and start again: it goes on where it stopped"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as stored:
            yield stored
    except Exception as error:  # damage surfaces as any type
        raise DataError(
            f"{path}: damaged ({one_line(error)}); move it away and start again"
        ) from None


def fitting(
    photographs: Iterable[T], pixels_of: Callable[[T], int], *, most: int, most_px: int
) -> Iterator[list[T]]:
    """Neighbours that fit into memory together, at most so many, or one that is larger."""
    group: list[T] = []
    total = 0
    for photograph in photographs:
        pixels = pixels_of(photograph)
        if group and (len(group) == most or total + pixels > most_px):
            yield group
            group, total = [], 0
        group.append(photograph)
        total += pixels
    if group:
        yield group


def read_photo(path: str, remarks: list[Problem]) -> np.ndarray | Problem:
    """A photograph [H, W, 3] uint8, or why there is none; `remarks` gets what is odd about it."""
    odd: list[str] = []
    try:
        return image_files.read_photograph(path, remarks=odd)
    except DataError as error:
        return Problem(path, str(error).removeprefix(f"{path}: "), "left out")
    finally:
        remarks += [Problem(path, what, "read all the same") for what in odd]


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Room:
    """So many pixels are in work at a time: of several pictures, or of one that has more."""

    def __init__(self, pixels: int) -> None:
        self._all = self._left = pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for a picture, and keeps it for as long as the body takes."""
        pixels = min(pixels, self._all)
        with self._changed:
            _ = self._changed.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


_room = _Room(_ROOM_PX)


def _chunks(by_photo: Sequence[list[Face]]) -> list[list[list[Face]]]:
    """Photographs in a row, with boxes or without, with so many faces that memory holds them."""
    chunks: list[list[list[Face]]] = []
    for _, group in groupby(by_photo, key=lambda faces: faces[0].box is None):
        total = _FACES_PER_CHUNK
        for faces in group:
            if total + len(faces) > _FACES_PER_CHUNK or len(chunks[-1]) == _PHOTOS_PER_CHUNK:
                chunks.append([])
                total = 0
            chunks[-1].append(faces)
            total += len(faces)
    return chunks


def _name(number: int, group: Sequence[list[Face]], cut: Cut) -> str:
    """Of a chunk file: another one for other faces, so that none is taken for what it is not."""
    faces = [[dataclasses.asdict(face) for face in same] for same in group]
    made_of = json.dumps([_FORMAT, dataclasses.asdict(cut), faces]).encode()
    return f"chunk-{number:05d}-{hashlib.sha256(made_of).hexdigest()[:12]}.zip"


def _is_whole(path: Path, say: Callable[[str], None]) -> bool:
    """Whether a chunk file is there and was written to its end."""
    if not path.exists():
        return False
    try:
        _ = read_chunk(path)
    except DataError:
        say(f"{path} is damaged; making it again")
        return False
    return True


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
        raise DataError(f"{group[0][0].photograph.path}: has no box, and there is no face detector")
    parts: list[Chunk] = []
    cutting: list[Future[Chunk]] = []
    remarks: list[Problem] = []
    for faces, images in _read_ahead(group, pool, remarks):
        shown = [image for image in images if isinstance(image, np.ndarray)]
        boxes_of = iter(find_faces(shown) if shown else [])
        for (face,), image in zip(faces, images, strict=True):
            if isinstance(image, Problem):
                parts.append(Chunk([], [], {}, [image], 0, 1))
                continue
            boxes = next(boxes_of)
            if not len(boxes):
                problem = Problem(face.photograph.path, "no face was found in it", "left out")
                parts.append(Chunk([], [], {}, [problem], 0, 1))
                continue
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            box = whole_box(boxes[np.argmax(areas)], image.shape)
            boxed = dataclasses.replace(face, box=box)
            cutting.append(pool.submit(_cut_detected, boxed, image, cut))
    remarks.sort(key=lambda problem: problem.file)  # whichever thread came first
    parts.append(Chunk([], [], {}, remarks, 0, 0))
    return _joined(parts + [future.result() for future in cutting])


def _read_ahead(
    group: Sequence[list[Face]], pool: ThreadPoolExecutor, remarks: list[Problem]
) -> Iterator[tuple[Sequence[list[Face]], list[np.ndarray | Problem]]]:
    """The photographs a few at a time, in their order, with the next few being read meanwhile."""
    parts = _parts(group)
    following: list[Future[np.ndarray | Problem]] = []
    for i, part in enumerate(parts):
        reading = following or [pool.submit(_read, faces[0].photograph, remarks) for faces in part]
        after = parts[i + 1] if i + 1 < len(parts) else []
        following = [pool.submit(_read, faces[0].photograph, remarks) for faces in after]
        yield part, [future.result() for future in reading]


def _parts(group: Sequence[list[Face]]) -> list[list[list[Face]]]:
    """Photographs in a row that wait for the detector together."""
    return list(
        fitting(group, lambda faces: faces[0].photograph.pixels, most=_AT_ONCE, most_px=_AT_ONCE_PX)
    )


def _read(photograph: Photograph, remarks: list[Problem]) -> np.ndarray | Problem:
    with _room.taken(photograph.pixels):
        return read_photo(photograph.path, remarks)


def _cut_one(faces: Sequence[Face], cut: Cut) -> Chunk:
    photograph = faces[0].photograph
    with _room.taken(photograph.pixels):
        remarks: list[Problem] = []
        image = read_photo(photograph.path, remarks)
        if isinstance(image, np.ndarray):
            return _joined([_cut_read(faces, image, cut), Chunk([], [], {}, remarks, 0, 0)])
    lost = f"left out with its {len(faces)} annotated face{'s' if len(faces) > 1 else ''}"
    return Chunk([], [], {}, [dataclasses.replace(image, done=lost)], 0, len(faces))


def _cut_detected(face: Face, image: np.ndarray, cut: Cut) -> Chunk:
    with _room.taken(image.shape[0] * image.shape[1]):
        return _cut_read([face], image, cut)


def _cut_read(faces: Sequence[Face], image: np.ndarray, cut: Cut) -> Chunk:
    large: list[Face] = []
    pngs: list[bytes] = []
    for face in faces:
        assert face.box is not None
        if min(face.box.width, face.box.height) >= cut.min_side:
            large.append(face)
            pngs.append(encode(crops.crop(image, face.box, margin=cut.margin, size=cut.size)))
    fingerprints = {faces[0].photograph.path: splits.fingerprint(image)} if large else {}
    return Chunk(large, pngs, fingerprints, [], len(faces) - len(large), 0)


def _joined(parts: Sequence[Chunk]) -> Chunk:
    return Chunk(
        [face for part in parts for face in part.faces],
        [png for part in parts for png in part.pngs],
        {path: bits for part in parts for path, bits in part.fingerprints.items()},
        [problem for part in parts for problem in part.problems],
        sum(part.small for part in parts),
        sum(part.lost for part in parts),
    )


def _write(path: Path, chunk: Chunk) -> None:
    """In one move, so that a chunk file is whole if it is there; equal chunks are equal files."""
    about = {
        "faces": [dataclasses.astuple(face) for face in chunk.faces],
        "fingerprints": chunk.fingerprints,
        "problems": [dataclasses.astuple(problem) for problem in chunk.problems],
        "small": chunk.small,
        "lost": chunk.lost,
    }
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as stored:
            stored.writestr(zipfile.ZipInfo("about.json"), json.dumps(about))  # dated 1980
            for i, png in enumerate(chunk.pngs):
                stored.writestr(zipfile.ZipInfo(f"{i:04d}.png"), png)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
