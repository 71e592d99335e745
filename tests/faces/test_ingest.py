"""Faces are cut out once, chunk by chunk, however often one has to begin again."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import resource
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from research.data import image_files
from research.data.provenance import DataError
from research.faces import crops, ingest, splits
from research.faces.annotations import Box, Face, Photograph, Problem
from research.faces.ingest import Cut

CUT = Cut(margin=0.1, size=16, min_side=3)
BOXES = (Box(2, 3, 20, 25), Box(0, 0, 10, 9), Box(21, 5, 40, 30))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of 40 x 30: 00.png to 09.png."""
    folder = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (10, 30, 40, 3), "u1")):
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_PHOTOS_PER_CHUNK", 4)


def boxed(folder: Path, count: int = 10) -> list[Face]:
    """One to three faces for each photograph."""
    return [
        Face(Photograph(f"{folder}/{i:02d}.png", 40, 30), box, "with_mask", "voc")
        for i in range(count)
        for box in BOXES[: i % 3 + 1]
    ]


def unboxed(folder: Path, count: int = 10) -> list[Face]:
    photographs = [Photograph(f"{folder}/{i:02d}.png", 40, 30) for i in range(count)]
    return [Face(photograph, None, "without_mask", "folders") for photograph in photographs]


def no_words(line: str) -> None:
    pass


def joined(paths: Sequence[Path]) -> ingest.Chunk:
    """All chunks as one, with their faces."""
    cut_out = ingest.Chunk([], [], {}, [], 0, 0)
    for path in paths:
        chunk = ingest.read_chunk(path)
        pngs = ingest.read_pngs(path, range(len(chunk.faces)))
        cut_out = ingest._joined([cut_out, chunk._replace(pngs=pngs)])
    return cut_out


class Reads:
    """Stands for `image_files.read_photograph` and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self._read = image_files.read_photograph
        monkeypatch.setattr(image_files, "read_photograph", self)

    def __call__(self, path: str, **settings: Any) -> np.ndarray:
        self.names.append(Path(path).name)
        return self._read(path, **settings)


def test_every_face_is_the_crop_of_its_box_in_the_order_of_the_faces(
    folder: Path, tmp_path: Path
) -> None:
    faces = boxed(folder)
    paths = ingest.ingest(faces, CUT, tmp_path, None, no_words)
    assert len(paths) == 3  # 4 + 4 + 2 photographs
    cut_out = joined(paths)
    assert cut_out.faces == faces
    for face, png in zip(cut_out.faces, cut_out.pngs, strict=True):
        image = image_files.read_photograph(face.photograph.path)
        expected = crops.crop(image, face.box, margin=0.1, size=16)
        np.testing.assert_array_equal(ingest.decode(png), expected)
        assert cut_out.fingerprints[face.photograph.path] == splits.fingerprint(image)
    assert cut_out.problems == [] and (cut_out.small, cut_out.lost) == (0, 0)


def test_small_faces_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    faces = boxed(folder)  # the shorter sides are 18, 9 and 19
    cut_out = joined(ingest.ingest(faces, Cut(0.0, 16, 18), tmp_path, None, no_words))
    assert {face.box for face in cut_out.faces} == {BOXES[0], BOXES[2]}
    assert cut_out.small == sum(face.box == BOXES[1] for face in faces) == 6
    assert len(cut_out.faces) == len(faces) - 6


def test_a_second_start_reads_only_the_photographs_of_chunks_that_are_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ingest.ingest(boxed(folder), CUT, tmp_path, None, no_words)
    before, reads, said = [path.read_bytes() for path in paths], Reads(monkeypatch), []
    assert ingest.ingest(boxed(folder), CUT, tmp_path, None, said.append) == paths
    assert reads.names == []
    paths[1].unlink()
    paths[2].write_bytes(before[2][:-9])
    assert ingest.ingest(boxed(folder), CUT, tmp_path, None, said.append) == paths
    assert sorted(reads.names) == [f"{i:02d}.png" for i in range(4, 10)]
    assert [path.read_bytes() for path in paths] == before
    assert said == [
        "faces of 10 of 10 photographs are cut out already, going on",
        f"{paths[2]} is damaged; making it again",
        "faces of 4 of 10 photographs are cut out already, going on",
    ]


@pytest.mark.parametrize("make", [boxed, unboxed])
def test_what_is_stopped_anywhere_ends_as_if_it_had_not_been(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object
) -> None:
    def find(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.array([[1, 2, 30, 20]], np.float32)] * len(images)

    faces = make(folder)
    whole = ingest.ingest(faces, CUT, tmp_path / "whole", find, no_words)
    calls, read = [], image_files.read_photograph

    def read_some(path: str, **settings: Any) -> np.ndarray:
        calls.append(path)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return read(path, **settings)

    monkeypatch.setattr(image_files, "read_photograph", read_some)
    with pytest.raises(KeyboardInterrupt):
        ingest.ingest(faces, CUT, tmp_path / "cut", find, no_words)
    assert len(list((tmp_path / "cut").glob("*.zip"))) == 1
    again = ingest.ingest(faces, CUT, tmp_path / "cut", find, no_words)
    assert [path.name for path in again] == [path.name for path in whole]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]


def test_a_chunk_file_holds_no_time_of_writing(folder: Path, tmp_path: Path) -> None:
    (path,) = ingest.ingest(boxed(folder, 2), CUT, tmp_path, None, no_words)
    with zipfile.ZipFile(path) as stored:
        assert {entry.date_time[0] for entry in stored.infolist()} == {1980}


def test_a_chunk_of_other_faces_or_another_cut_is_not_taken(folder: Path, tmp_path: Path) -> None:
    faces = boxed(folder, 3)
    (first,) = ingest.ingest(faces, CUT, tmp_path, None, no_words)
    (second,) = ingest.ingest(faces[:-1], CUT, tmp_path, None, no_words)
    (third,) = ingest.ingest(faces, Cut(0.1, 8, 3), tmp_path, None, no_words)
    assert len({first, second, third}) == 3
    assert len(ingest.read_chunk(second).faces) == len(faces) - 1
    assert ingest.decode(ingest.read_pngs(third, [0])[0]).shape == (8, 8, 3)


def test_a_damaged_face_is_one_line_with_the_file_to_move(folder: Path, tmp_path: Path) -> None:
    (path,) = ingest.ingest(boxed(folder, 1), CUT, tmp_path, None, no_words)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{path}: damaged \(.*\); move it away and start again$"):
        ingest.read_pngs(path, [0])


@pytest.mark.parametrize("place", [8, 10])
def test_a_chunk_that_states_a_password_or_an_odd_method_is_one_line(
    folder: Path, tmp_path: Path, place: int
) -> None:
    """Of which `zipfile` raises RuntimeError and NotImplementedError."""
    (path,) = ingest.ingest(boxed(folder, 1), CUT, tmp_path, None, no_words)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + place] ^= 1 if place == 8 else 99
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{path}: damaged \(.*\); move it away and start again$"):
        ingest.read_chunk(path)


@pytest.mark.parametrize("make", [boxed, unboxed])
def test_a_photograph_that_cannot_be_read_is_a_problem_with_its_faces_counted(
    folder: Path, tmp_path: Path, make: object
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((folder / "02.png").read_bytes()[:500])
    faces = make(folder)
    faces = [
        dataclasses.replace(face, photograph=Photograph(str(broken), 40, 30))
        if "02.png" in face.photograph.path
        else face
        for face in faces
    ]
    box = np.array([[1, 1, 9, 9]], np.float32)
    cut_out = joined(
        ingest.ingest(faces, CUT, tmp_path / "work", lambda im: [box] * len(im), no_words)
    )
    (problem,) = cut_out.problems
    count = 3 if make is boxed else 1
    assert problem.file == str(broken) and "truncated" in problem.what
    assert problem.done == ("left out with its 3 annotated faces" if count == 3 else "left out")
    assert cut_out.lost == count and len(cut_out.faces) == len(faces) - count


# Faces without boxes


def test_of_the_faces_found_in_a_photograph_the_largest_is_taken(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_AT_ONCE", 2)
    shown: list[int] = []

    def find(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        shown.append(len(images))
        boxes = []
        for image in images:  # known by their first pixel, since photographs have no names here
            if tuple(image[0, 0]) == tuple(image_files.read_photograph(f"{folder}/05.png")[0, 0]):
                boxes.append(np.zeros((0, 4), np.float32))
            else:
                boxes.append(np.array([[0, 0, 9, 9], [3.6, 2.4, 55, 20.5], [1, 1, 2, 2]]))
        return boxes

    faces = unboxed(folder)
    cut_out = joined(ingest.ingest(faces, CUT, tmp_path, find, no_words))
    expected = [face.photograph.path for face in faces if "05.png" not in face.photograph.path]
    assert [face.photograph.path for face in cut_out.faces] == expected
    # 20.5 is rounded to even; 55 is beyond the picture.
    assert {face.box for face in cut_out.faces} == {Box(4, 2, 40, 20)}
    assert cut_out.problems == [
        Problem(faces[5].photograph.path, "no face was found in it", "left out")
    ]
    assert cut_out.lost == 1 and shown == [2, 2, 2, 2, 2]
    image = image_files.read_photograph(faces[7].photograph.path)
    crop = crops.crop(image, Box(4, 2, 40, 20), margin=0.1, size=16)
    np.testing.assert_array_equal(ingest.decode(cut_out.pngs[6]), crop)


def test_without_a_detector_a_face_without_a_box_is_one_line(folder: Path, tmp_path: Path) -> None:
    message = r"00\.png: has no box, and there is no face detector$"
    with pytest.raises(DataError, match=message):
        ingest.ingest(unboxed(folder), CUT, tmp_path, None, no_words)


@given(st.lists(st.floats(-60, 60), min_size=4, max_size=4), st.integers(1, 40), st.integers(1, 40))
def test_a_found_box_has_a_pixel_of_the_picture(corners: list, width: int, height: int) -> None:
    box = ingest.whole_box(np.array(corners), (height, width, 3))
    assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height


# Memory


@given(st.lists(st.tuples(st.integers(1, 150), st.booleans()), max_size=60))
def test_chunks_keep_the_order_and_have_few_photographs_and_faces(drawn: list) -> None:
    by_photo = [
        [Face(Photograph(f"{i}", 40, 30), None if is_bare else BOXES[0], "with_mask", "voc")]
        * count
        for i, (count, is_bare) in enumerate(drawn)
    ]
    chunks = ingest._chunks(by_photo)
    assert [same for chunk in chunks for same in chunk] == by_photo
    for chunk in chunks:
        assert 1 <= len(chunk) <= 4 == ingest._PHOTOS_PER_CHUNK
        assert sum(map(len, chunk)) <= 256 == ingest._FACES_PER_CHUNK
        assert len({same[0].box is None for same in chunk}) == 1


def test_no_more_pixels_are_in_work_than_there_is_room_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads, pictures of 1,200 pixels and one of 4,800 that takes all the room there is."""
    large = tmp_path / "large.png"
    Image.new("RGB", (80, 60)).save(large)
    monkeypatch.setattr(ingest, "cores", lambda: 8)
    monkeypatch.setattr(ingest, "_PHOTOS_PER_CHUNK", 16)
    monkeypatch.setattr(ingest, "_room", ingest._Room(3_000))
    lock, now, seen, read, cut = threading.Lock(), [], [], image_files.read_photograph, crops.crop

    def read_slowly(path: str, **settings: Any) -> np.ndarray:
        with lock:
            now.append(Path(path).name)
            seen.append(sorted(now))
        time.sleep(0.005)
        return read(path, **settings)

    def cut_and_leave(image: np.ndarray, *rest: object, **settings: object) -> np.ndarray:
        made = cut(image, *rest, **settings)
        with lock:
            del now[0]
        return made

    monkeypatch.setattr(image_files, "read_photograph", read_slowly)
    monkeypatch.setattr(crops, "crop", cut_and_leave)
    faces = [face for face in boxed(folder) if face.box == BOXES[0]]
    faces.insert(5, Face(Photograph(str(large), 80, 60), BOXES[0], "with_mask", "voc"))
    ingest.ingest(faces, CUT, tmp_path / "work", None, no_words)
    assert ["large.png"] in seen and max(map(len, seen)) == 2
    assert all(names == ["large.png"] for names in seen if "large.png" in names)


def test_parts_for_the_detector_are_few_photographs_of_few_pixels(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = [[face] for face in unboxed(folder)]
    monkeypatch.setattr(ingest, "_AT_ONCE_PX", 3_600)  # three of 40 x 30
    assert [len(part) for part in ingest._parts(group)] == [3, 3, 3, 1]
    monkeypatch.setattr(ingest, "_AT_ONCE_PX", 100)
    assert [len(part) for part in ingest._parts(group)] == [1] * 10


# The disk, and words


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can have more bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_the_next_start_goes_on(folder: Path, tmp_path: Path) -> None:
    message = rf"^{tmp_path} cannot be written \(.*\); make room there, or name another directory"
    with files_end_at(3_000), pytest.raises(DataError, match=message):
        ingest.ingest(boxed(folder), CUT, tmp_path, None, no_words)
    assert list(tmp_path.glob("*.zip")) == []
    assert len(joined(ingest.ingest(boxed(folder), CUT, tmp_path, None, no_words)).faces) == 19
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        ingest.ingest(boxed(folder), CUT, tmp_path / "file" / "work", None, no_words)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_an_encoded_face_is_decoded_to_itself(seed: int, size: int) -> None:
    face = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    np.testing.assert_array_equal(ingest.decode(ingest.encode(face)), face)


@pytest.mark.parametrize("kind", ["boxed", "unboxed"])
def test_what_is_odd_about_a_photograph_that_is_read_is_a_problem_of_no_face(
    tmp_path: Path, kind: str
) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(stream, "JPEG")
    (tmp_path / "00.png").write_bytes(stream.getvalue()[:-2])
    faces = boxed(tmp_path, 1) if kind == "boxed" else unboxed(tmp_path, 1)
    found = lambda images: [np.array([[5.0, 5, 20, 20]]) for _ in images]  # noqa: E731
    paths = ingest.ingest(faces, ingest.Cut(0.0, 8, 1), tmp_path / "work", found, no_words)
    chunk = joined(paths)
    assert len(chunk.faces) == 1 and chunk.lost == 0
    assert chunk.problems == [
        Problem(f"{tmp_path}/00.png", "a JPEG without its end marker", "read all the same")
    ]
