"""Drawn photographs of faces: what is written is what is counted, and only the mask tells."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from research.faces import annotations, drawing
from research.faces.annotations import Box, Face

PHOTOS = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Face]]:
    folder = tmp_path_factory.mktemp("drawn")
    return folder, drawing.write(folder, photos=PHOTOS, seed=0)


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pixels_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def crops_of(faces: list[Face]) -> tuple[np.ndarray, np.ndarray]:
    """[N, 16, 16, 3] float64, and whether each wears a mask."""
    crops = []
    for face in faces:
        assert face.box
        with Image.open(face.photograph.path) as image:
            crop = image.convert("RGB").crop(dataclasses.astuple(face.box))
        crops.append(np.asarray(crop.resize((16, 16)), np.float64))
    return np.stack(crops), np.array([face.label == "with_mask" for face in faces])


@pytest.mark.parametrize("layout", annotations.LAYOUTS)
def test_the_readers_find_the_faces_that_were_drawn_and_no_problem(
    corpus: tuple[Path, list[Face]], layout: str
) -> None:
    folder, drawn = corpus
    read = annotations.read(folder / layout, layout)
    assert read.problems == []
    wanted = [face for face in drawn if face.source == layout]
    if layout == "folders":  # which have no boxes
        wanted = [dataclasses.replace(face, box=None) for face in wanted]
    where = {(Path(f.photograph.path).resolve(), f.box, f.label, f.source) for f in wanted}
    assert {
        (Path(f.photograph.path).resolve(), f.box, f.label, f.source) for f in read.faces
    } == where
    assert len(read.faces) == len(wanted)
    counts = drawing.contents(PHOTOS)[layout]
    things = {name: n for name, n in counts.items() if not annotations.LABELS.get(name, "?")}
    assert read.left_out == things
    assert len(read.faces) == sum(counts.values()) - sum(things.values())


def test_contents_are_counted_by_layout_and_class(corpus: tuple[Path, list[Face]]) -> None:
    folder, drawn = corpus
    counts = drawing.contents(PHOTOS)
    voc = Counter(
        annotations.LABELS[name] for name in counts["voc"] for _ in range(counts["voc"][name])
    )
    assert voc == Counter(face.label for face in drawn if face.source == "voc")
    for name, count in counts["folders"].items():
        assert len(list((folder / "folders" / name).glob("*.jpg"))) == count
    assert len(counts["folders"]) == 4
    assert {"face_with_mask", "face_no_mask", "hat"} <= set(counts["json"])
    many = drawing.contents(3000)["voc"]
    assert many["with_mask"] / many["without_mask"] == pytest.approx(4.5, rel=0.05)
    assert many["mask_weared_incorrect"] / sum(many.values()) == pytest.approx(0.03, rel=0.05)
    assert set(drawing.contents(drawing.FEWEST)["folders"]) == set(counts["folders"])


def test_the_same_seed_draws_the_same_bytes_and_more_photographs_change_none_of_the_first(
    tmp_path: Path,
) -> None:
    for name, photos, seed in (("a", 12, 5), ("b", 15, 5), ("c", 12, 6)):
        _ = drawing.write(tmp_path / name, photos=photos, seed=seed)
    first, more, other = (bytes_of(tmp_path / name) for name in "abc")
    assert first.items() <= more.items()
    assert len(more) > len(first)
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first if name.endswith("g"))


def test_boxes_lie_in_the_picture_and_apart_and_some_are_small(
    corpus: tuple[Path, list[Face]],
) -> None:
    _, drawn = corpus
    boxes: dict[str, list[Box]] = {}
    for face in drawn:
        assert face.box
        height, width, _ = pixels_of(face.photograph.path).shape
        assert 0 <= face.box.left < face.box.right <= width
        assert 0 <= face.box.top < face.box.bottom <= height
        for box in boxes.get(face.photograph.path, []):
            apart = face.box.left >= box.right or face.box.right <= box.left
            assert apart or face.box.top >= box.bottom or face.box.bottom <= box.top
        boxes.setdefault(face.photograph.path, []).append(face.box)
    widths = [box.width for path, found in boxes.items() if "/voc/" in path for box in found]
    assert min(widths) < 20 < 60 < max(widths)


def test_nothing_but_the_mask_depends_on_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = drawing._plan

    def relabelled(photos: int, label: str) -> list[Any]:
        return [
            dataclasses.replace(
                photo, sitters=tuple(dataclasses.replace(s, label=label) for s in photo.sitters)
            )
            for photo in plan(photos)
        ]

    drawn: list[Face] = []
    for label in ("with_mask", "without_mask"):
        monkeypatch.setattr(drawing, "_plan", functools.partial(relabelled, label=label))
        drawn = drawing.write(tmp_path / label, photos=12, seed=1)
    for path in sorted((tmp_path / "with_mask" / "voc" / "images").glob("*.png")):
        one = pixels_of(path)
        other = pixels_of(tmp_path / "without_mask" / "voc" / "images" / path.name)
        outside = np.ones(one.shape[:2], bool)
        for box in (
            f.box for f in drawn if f.source == "voc" and Path(f.photograph.path).name == path.name
        ):
            assert box
            changed = (
                one[box.top : box.bottom, box.left : box.right]
                != other[box.top : box.bottom, box.left : box.right]
            )
            assert changed[box.height // 2 :].mean() > 0.5
            assert changed[: box.height // 6].mean() < 0.05
            more = 4 + round(0.15 * box.width)
            outside[
                max(0, box.top - more) : box.bottom + more,
                max(0, box.left - more) : box.right + more,
            ] = False
        np.testing.assert_array_equal(one[outside], other[outside])


def test_class_means_of_faces_tell_the_classes_and_those_of_whole_pictures_do_not(
    tmp_path: Path,
) -> None:
    sets = []
    for seed in (1, 2):
        drawn = drawing.write(tmp_path / str(seed), photos=36, seed=seed)
        sets.append([face for face in drawn if face.source != "voc"])
    (train, masked), (test, truth) = (crops_of(faces) for faces in sets)
    distances = [((test - train[masked == k].mean(axis=0)) ** 2).sum((1, 2, 3)) for k in (0, 1)]
    assert 0.8 < ((distances[1] < distances[0]) == truth).mean() <= 1.0
    means = np.array([pixels_of(face.photograph.path).mean() for faces in sets for face in faces])
    labels = np.concatenate([masked, truth])
    gap = means[labels].mean() - means[~labels].mean()
    assert abs(gap) < 0.5 * means.std()


def test_too_few_photographs_are_refused(tmp_path: Path) -> None:
    for call in (drawing.contents, lambda n: drawing.write(tmp_path, photos=n, seed=0)):
        with pytest.raises(ValueError, match="12 photographs or more to draw, got 11"):
            _ = call(11)
    assert list(tmp_path.iterdir()) == []
