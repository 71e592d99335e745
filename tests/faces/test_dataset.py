"""Faces from annotations to a TFDS data set and back: nothing lost, leaked or made twice."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from research.data import image_files
from research.data.provenance import DataError
from research.faces import crops, dataset, ingest, splits
from research.faces.annotations import Box, Face, Photograph
from research.structs import UserError, printable

SIZE = 16
VOC = {"+": "with_mask", "-": "without_mask", "o": "mask_weared_incorrect"}
JSON = {"+": "face_with_mask", "-": "face_no_mask", "o": "face_with_mask_incorrect"}


def pixels(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), "u1"))


def box_of(k: int) -> tuple[int, int, int, int]:
    """Of the k-th face of a photograph: 0-based, half-open, 12 x 10 pixels."""
    return (k, 2 * k, k + 12, 2 * k + 10)


def write_voc(root: Path, name: str, faces: str, image: Image.Image | bytes) -> None:
    """A photograph with a face for each letter, see VOC; others stand for themselves."""
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    save(root / "images" / f"{name}.png", image)
    objects = ""
    for k, face in enumerate(faces):
        left, top, right, bottom = box_of(k)
        box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        box += f"<xmax>{right}</xmax><ymax>{bottom}</ymax>"
        objects += f"<object><name>{VOC.get(face, face)}</name><bndbox>{box}</bndbox></object>"
    text = f"<annotation><filename>{name}.png</filename>{objects}</annotation>"
    (root / "annotations" / f"{name}.xml").write_text(text)


def write_json(root: Path, name: str, faces: str, image: Image.Image | bytes) -> None:
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    save(root / "images" / f"{name}.png", image)
    entries = [
        {"classname": JSON.get(face, face), "BoundingBox": box_of(k)}
        for k, face in enumerate(faces)
    ]
    content = {"FileName": f"{name}.png", "NumOfAnno": len(entries), "Annotations": entries}
    (root / "annotations" / f"{name}.json").write_text(json.dumps(content))


def save(path: Path, image: Image.Image | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path)


def png(image: Image.Image) -> bytes:
    return ingest.encode(np.asarray(image))


def find_faces() -> ingest.FindFaces:
    """A face in every picture but those that are white in the corner."""

    def find(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        none, one = np.zeros((0, 4)), np.array([[4, 5, 20, 25]])
        return [none if image[0, 0].min() == 255 else one for image in images]

    return find


def no_words(line: str) -> None:
    pass


def request(directories: dict[str, Path], **changes: Any) -> dataset.Request:
    settings = {
        "directories": {layout: str(path) for layout, path in directories.items()},
        **{"keep_incorrect": False, "cut": ingest.Cut(0.0, SIZE, 1), "val": 3, "test": 2},
        **{"balance": 1.0, "seed": 0, "detector": {"min_face_px": 20.0}},
    }
    return dataset.Request(**(settings | changes))


def write_clean(root: Path) -> dict[str, Path]:
    """Nine photographs of voc with 14 faces with a mask, 4 without, 2 worn incorrectly."""
    for i, faces in enumerate(("++", "++-", "+", "+++", "-", "+o", "++", "--o", "+++")):
        write_voc(root / "voc", f"p{i}", faces, pixels(i))
    return {"voc": root / "voc"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree_of(folder: Path) -> dict[str, str]:
    """{name: digest} of the files of a data set whose bytes are determined."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        # A zip file has the time of day in it, and a record its features in any order.
        if path.suffix != ".npz" and ".array_record" not in path.name
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def made(clean: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dataset.Masks:
    """The clean corpus, prepared; not to be changed."""
    home = tmp_path_factory.mktemp("made")
    return dataset.prepare(request(clean), str(home), find_faces, no_words)


@pytest.fixture
def copied(made: dataset.Masks, tmp_path: Path) -> Path:
    """A copy of the prepared data set that a test may damage."""
    folder = tmp_path / "2.0.0"
    shutil.copytree(made.folder, folder)
    return folder


def labels_of(faces: dataset.Faces, names: Sequence[str]) -> Counter[str]:
    return Counter(names[label] for label in faces.data.labels[~faces.synthetic])


# What is in it


def test_the_stock_reader_of_tfds_finds_the_crops_with_all_that_is_known_of_them(
    made: dataset.Masks,
) -> None:
    builder = tfds.builder_from_directory(made.folder)
    assert builder.info.features["label"].names == ["with_mask", "without_mask"] == [*made.names]
    for split in splits.SPLITS:
        faces = made.splits[split]
        source = builder.as_data_source(split)
        assert len(source) == len(faces.data.images) == len(faces.data.labels) > 0
        for i, example in enumerate(source):
            image = np.asarray(faces.data.images[i])
            np.testing.assert_array_equal(example["image"], image)
            path, box = example["photo"].decode(), Box(*example["box"].tolist())
            known = (example["label"], example["synthetic"])
            assert known == (faces.data.labels[i], faces.synthetic[i])
            assert (path, faces.sources[i]) == (faces.photos[i], "voc")
            if not example["synthetic"]:
                crop = crops.crop(image_files.read_photograph(path), box, margin=0.0, size=SIZE)
                np.testing.assert_array_equal(image, crop)


def test_each_face_is_there_once_with_the_label_of_its_annotation(made: dataset.Masks) -> None:
    found = Counter(
        (Path(photo).stem, made.names[label])
        for faces in made.splits.values()
        for photo, label, copy in zip(faces.photos, faces.data.labels, faces.synthetic, strict=True)
        if not copy
    )
    written = ("++", "++-", "+", "+++", "-", "+", "++", "--", "+++")
    assert found == {
        (f"p{i}", VOC[kind]): faces.count(kind)
        for i, faces in enumerate(written)
        for kind in set(faces)
    }
    assert made.about["splits"] == {
        split: {"voc": dict(labels_of(faces, made.names))} for split, faces in made.splits.items()
    }
    assert [len(made.splits[s].data.labels) for s in ("val", "test")] == [3, 2]


def test_copies_fill_up_the_smaller_class_of_the_training_faces_alone(made: dataset.Masks) -> None:
    train = made.splits["train"]
    assert not made.splits["val"].synthetic.any() and not made.splits["test"].synthetic.any()
    real = labels_of(train, made.names)
    after = Counter(made.names[label] for label in train.data.labels)
    assert after["without_mask"] == after["with_mask"] == real["with_mask"] > real["without_mask"]
    missing = real["with_mask"] - real["without_mask"]
    assert made.about["copies"] == {"voc": {"without_mask": missing}}
    # Copies stand last, of photographs that are trained on, each another picture.
    count = len(train.synthetic)
    assert train.synthetic.tolist() == [False] * (count - missing) + [True] * missing
    assert {*train.photos[train.synthetic]} <= {*train.photos[~train.synthetic]}
    assert len({image.tobytes() for image in train.data.images[:]}) == count


@pytest.mark.parametrize(("balance", "copies"), [(0.0, 0), (0.5, 3), (3.0, 18)])
def test_balance_is_a_share_of_the_largest_class(balance: float, copies: int) -> None:
    labels = ["with_mask"] * 10 + ["without_mask"] * 2 + ["incorrect"] * 10
    photograph = Photograph("a", 9, 9)
    examples = [
        dataset.Example(0, i, -1, Face(photograph, None, label, "voc"))
        for i, label in enumerate(labels)
    ]
    found = [each[:3] for each in dataset._copies(examples, request({}, balance=balance))]
    # At 3.0 those that are largest stay as they are.
    assert len(found) == (copies if balance < 3 else 28) and found == sorted(found)
    assert {i for _, i, _ in found} <= {10, 11}
    each = Counter(i for _, i, _ in found)
    assert not each or max(each.values()) - min(each[10], each[11]) <= 1
    assert len(set(found)) == len(found)


ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(dataset.LABELS)), min_size=4, max_size=40
)


@given(ROWS, st.integers(1, 4), st.integers(0, 3), st.sampled_from([0.0, 0.7, 1.0]))
@settings(max_examples=40)
def test_neither_two_faces_of_a_photograph_nor_a_copy_stand_on_both_sides(
    drawn: list[tuple[int, str]], val: int, test: int, balance: float
) -> None:
    faces = [
        Face(Photograph(f"{photo}", 9, 9), Box(0, 0, 9, 9), label, "voc") for photo, label in drawn
    ]
    chunks = [
        ingest.Chunk(some, [], {face.photograph.path: 0 for face in some}, [], 0, 0)
        for some in (faces[:3], faces[3:])
    ]
    asked = request({}, val=val, test=test, balance=balance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "read_chunk", lambda path: chunks[int(path.name)])
        try:
            plan = dataset._plan(asked, [Path("0"), Path("1")], [], {"lost": 0})
        except UserError:
            return
    every = [example for some in plan.examples.values() for example in some]
    assert all(chunks[c].faces[i] == face for c, i, _, face in every)
    photos_of = {
        split: {example.face.photograph.path for example in some}
        for split, some in plan.examples.items()
    }
    assert sum(map(len, photos_of.values())) == len(set.union(*photos_of.values()))
    real = [(c, i) for c, i, copy, _ in every if copy < 0]
    assert sorted(real) == [(0, i) for i in range(3)] + [(1, i) for i in range(len(faces) - 3)]
    copies = {split: sum(n.copy >= 0 for n in some) for split, some in plan.examples.items()}
    assert copies["val"] == copies["test"] == 0
    originals = {(c, i) for c, i, n, _ in plan.examples["train"] if n < 0}
    assert {(c, i) for c, i, n, _ in plan.examples["train"] if n >= 0} <= originals


def test_of_a_photograph_the_header_the_bytes_and_the_pixels_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three faces for each photograph, all files of the same length, in two layouts."""
    for i in range(4):
        write_voc(tmp_path / "voc", f"v{i}", "+-+", pixels(i))
        save(tmp_path / "voc" / "images" / f"v{i}.png", png(pixels(i)).ljust(9_000, b"."))
        write_json(tmp_path / "json", f"j{i}", "+-+", png(pixels(9 + i)).ljust(9_000, b"."))
    calls: list[tuple[str, str]] = []

    def counted(module: Any, name: str) -> None:
        call = getattr(module, name)

        def count(source: Any, *rest: Any, **settings: Any) -> Any:
            path = source if isinstance(source, str) else source.name
            if path.endswith(".png"):
                calls.append((name, path))
            return call(source, *rest, **settings)

        monkeypatch.setattr(module, name, count)

    counted(image_files, "photograph_header")
    counted(image_files, "pixel_count")
    counted(image_files, "read_photograph")
    counted(hashlib, "file_digest")
    asked = request({layout: tmp_path / layout for layout in ("voc", "json")})
    dataset.prepare(asked, str(tmp_path / "tfds"), find_faces, no_words)
    names = ("photograph_header", "file_digest", "read_photograph")
    assert Counter(name for name, _ in calls) == dict.fromkeys(names, 8)
    assert len(set(calls)) == len(calls)


# Nothing lost


ODD = os.fsdecode(b"\xff\n\xe9.png")  # neither UTF-8 nor one line
BAD = {  # the files that have a problem, as problems.csv has to name them
    *("broken.xml", "climbs.xml", "truncated.png", "nothing.png", "unknown.xml", "w0.png"),
    *("lonely.png", "broken.json", "copy.png", "nobody.png", "cut.png", "dangling.png"),
    "bad \\udcff\\n\\udce9.png",
}


def write_dirty(root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Good and bad files in all three layouts, and {photograph: the faces that it is said to have}.

    The faces as in VOC, h for a hat, d for a dog.
    """
    roots = {layout: root / layout for layout in ("voc", "json", "folders")}
    known: dict[str, str] = {}

    def write(layout: str, name: str, faces: str, image: Image.Image | bytes) -> None:
        if layout == "folders":
            path = roots[layout] / {"+": "with_mask", "-": "Non Mask"}[faces] / name
            save(path, image)
            known[str(path)] = faces
            return
        words = [{"h": "hat", "d": "dog"}.get(face, face) for face in faces]
        {"voc": write_voc, "json": write_json}[layout](roots[layout], name, words, image)
        known[f"{roots[layout]}/images/{name}.png"] = faces

    for i, faces in enumerate(("++-", "+", "-o", "++", "+-", "-", "h+", "+")):
        write("voc", f"v{i}", faces, pixels(i))
    for i, faces in enumerate(("+-", "-", "h++", "o")):
        write("json", f"j{i}", faces, pixels(20 + i))
    for i in range(5):
        write("folders", f"f{i}.png", "+-"[i % 2], pixels(30 + i))
    whole = png(pixels(50))
    write("voc", "truncated", "+-o", whole[: len(whole) // 2])
    write("voc", "nothing", "++", b"")
    write("voc", "unknown", "d+", pixels(60))
    write("voc", "w0", "+", png(pixels(0)))
    (roots["voc"] / "images" / "v0.png").write_bytes(png(pixels(0)))
    (roots["voc"] / "annotations" / "broken.xml").write_text("<annotation><object>")
    climbing = "<annotation><filename>../v0.png</filename></annotation>"
    (roots["voc"] / "annotations" / "climbs.xml").write_text(climbing)
    save(roots["voc"] / "images" / "lonely.png", pixels(61))
    (roots["voc"] / "images" / "v1.png").write_bytes(png(pixels(1)))
    write("json", "copy", "+-", png(pixels(1)))
    (roots["json"] / "annotations" / "broken.json").write_text("{")
    write("folders", "nobody.png", "+", Image.new("RGB", (40, 30), "white"))
    write("folders", "cut.png", "+", png(pixels(35))[:600])
    write("folders", ODD, "-", pixels(36))
    write("folders", f"bad {ODD}", "-", b"no picture")
    os.symlink("nowhere", roots["folders"] / "with_mask" / "dangling.png")
    return roots, known


@pytest.mark.parametrize(("keep", "min_side"), [(False, 1), (True, 11)])
def test_every_face_is_in_a_split_or_left_out_by_a_setting_or_named_in_a_problem(
    tmp_path: Path, keep: bool, min_side: int
) -> None:
    directories, known = write_dirty(tmp_path / "data")
    asked = request(
        directories, keep_incorrect=keep, cut=ingest.Cut(0.0, SIZE, min_side), balance=0.0
    )
    found = dataset.prepare(asked, str(tmp_path / "tfds"), find_faces, no_words)
    lines = (found.folder / dataset.PROBLEMS).read_text().splitlines()
    problems = rows_of(found.folder / dataset.PROBLEMS)
    named = [Path(row["file"]).name for row in problems]
    assert set(named) == BAD and len(named) == len(BAD) == found.about["problems"]
    assert len(lines) == len(named) + 1 and all(row["what"] and row["done"] for row in problems)

    in_splits = Counter(str(p) for faces in found.splits.values() for p in faces.photos)
    left_out = Counter[str]()
    for photo, faces in known.items():
        used = faces.replace("h", "")
        left_out["hat"] += len(faces) - len(used)
        if not keep:
            left_out["incorrect"] += used.count("o")
            used = used.replace("o", "")
        name = Path(photo).name
        if {printable(name), f"{Path(name).stem}.xml"} & BAD:
            used = "+" if name == "unknown.png" else ""
        # The boxes of voc and json are 12 x 10, those that are found 16 x 20.
        if min_side > 10 and "folders" not in photo:
            left_out["small"] += len(used)
            used = ""
        assert in_splits.pop(photo, 0) == len(used), photo
    assert not in_splits
    about = found.about
    assert (about["incorrect"], about["too_small"]) == (left_out["incorrect"], left_out["small"])
    hats = sum(counts.get("hat", 0) for counts in about["left_out"].values())
    assert hats == left_out["hat"] == 2
    # What the readers gave, and what went wrong after them: one truncated, a copy, two in folders.
    annotated = sum(sum(counts.values()) for counts in about["annotated"].values())
    usable = sum(sum(counts.values()) for counts in about["usable"].values())
    assert about["lost"] == (3 if keep else 2) + 2 + 2
    assert annotated == usable + about["incorrect"] + about["too_small"] + about["lost"]
    assert usable == sum(len(faces.data.labels) for faces in found.splits.values())


def test_if_no_face_is_left_the_line_says_why(tmp_path: Path, clean: dict[str, Path]) -> None:
    write_voc(tmp_path / "voc", "only", "+", b"\x89PNG\r\n\x1a\n")
    for number in range(3):
        (tmp_path / "voc" / "annotations" / f"{number}.xml").write_text("<html/>")
    message = (
        r"no face with a usable .*/voc; the commonest of 4 problems: 3 like .*/0\.xml: holds "
        r"<'html'>.*; 1 like .*/only\.png: starts with"
    )
    with pytest.raises(DataError, match=message):
        dataset.prepare(
            request({"voc": tmp_path / "voc"}), str(tmp_path / "t"), find_faces, no_words
        )
    asked = request(clean, cut=ingest.Cut(0.0, SIZE, 99))
    with pytest.raises(DataError, match=r"^no face is left; 18 are smaller than min_side$"):
        dataset.prepare(asked, str(tmp_path / "t"), find_faces, no_words)


def test_where_the_detector_finds_nothing_pictures_are_proposed_to_be_faces(tmp_path: Path) -> None:
    save(tmp_path / "folders" / "with_mask" / "a.png", Image.new("RGB", (40, 30), "white"))
    message = r"1 like .*/a\.png: no face was found in it; data\.whole=True takes pictures"
    with pytest.raises(DataError, match=message):
        dataset.prepare(
            request({"folders": tmp_path / "folders"}), str(tmp_path / "t"), find_faces, no_words
        )


def test_copies_of_a_photograph_on_two_sides_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(8):
        image = pixels(i // 2, (8, 6)).resize((80, 60), Image.Resampling.BICUBIC)
        image = image.resize((60, 50), Image.Resampling.BILINEAR) if i % 2 else image
        write_voc(tmp_path / "voc", f"{i}", "+-"[i // 2 % 2], image)
    sides = {f"{tmp_path}/voc/images/{i}.png": "train" for i in range(8)}
    sides |= {f"{tmp_path}/voc/images/{i}.png": split for i, split in ((1, "val"), (6, "test"))}
    monkeypatch.setattr(splits, "split_by_image", lambda faces, **_: sides)
    asked = request({"voc": tmp_path / "voc"})
    found = dataset.prepare(asked, str(tmp_path / "t"), find_faces, no_words)
    rows = rows_of(found.folder / dataset.NEAR)
    pairs = {(Path(row["image"]).stem, Path(row["other"]).stem) for row in rows}
    assert pairs == {("0", "1"), ("6", "7")} and found.about["near_duplicates"] == 2
    assert all(int(row["bits"]) <= splits.NEAR for row in rows)


# Once


def test_what_is_there_is_not_made_again(clean: dict[str, Path], made: dataset.Masks) -> None:
    def fail() -> ingest.FindFaces:
        raise AssertionError("looked for faces again")

    said: list[str] = []
    home = str(made.folder.parents[2])
    again = dataset.prepare(request(clean), home, fail, said.append)
    assert said == [] and again.about == made.about and again.folder == made.folder
    relative = {"voc": Path(os.path.relpath(clean["voc"]))}
    assert dataset.prepare(request(relative), home, fail, said.append).folder == made.folder
    assert not list((made.folder.parents[1]).glob(".work*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"keep_incorrect": True},
        {"cut": ingest.Cut(0.1, SIZE, 1)},
        {"cut": ingest.Cut(0.0, SIZE + 1, 1)},
        {"cut": ingest.Cut(0.0, SIZE, 2)},
        {"val": 4},
        {"test": 1},
        {"balance": 0.9},
        {"seed": 1},
        {"detector": {"min_face_px": 21.0}},
    ],
    ids=str,
)
def test_another_setting_is_another_data_set(clean: dict[str, Path], changes: dict) -> None:
    assert request(clean).key() == request(clean).key() != request(clean, **changes).key()


def test_another_file_is_another_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, elsewhere = tmp_path / "voc", tmp_path / "elsewhere"
    write_voc(root, "a", "+", pixels(0))
    save(elsewhere / "b.png", pixels(1))
    os.symlink(elsewhere, root / "images" / "more")
    os.symlink(root, root / "images" / "round")
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = request({"voc": root})
    keys = [asked.key(), request({"json": root}).key()]
    assert request({"voc": Path("~/voc")}).key() == keys[0]
    annotation = root / "annotations" / "a.xml"
    annotation.write_bytes(annotation.read_bytes().replace(b"with_mask", b"with__ask"))
    os.utime(annotation, ns=(0, annotation.stat().st_mtime_ns + 1))
    keys.append(asked.key())
    save(elsewhere / "c.png", pixels(2))
    keys.append(asked.key())
    (elsewhere / "c.png").rename(elsewhere / "d.png")
    keys.append(asked.key())
    assert len(set(keys)) == 5
    # Hidden files belong to file managers, and a link may lead nowhere.
    (root / ".DS_Store").write_text("")
    os.symlink("nowhere", root / "images" / "e.png")
    assert asked.key() == keys[-1]


def test_of_two_at_once_one_makes_it_and_both_have_it(
    clean: dict[str, Path], made: dataset.Masks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, ingested, found, said = [], ingest.ingest, [], []

    def slowly(*arguments: Any) -> Any:
        calls.append(arguments)
        threading.Event().wait(0.2)
        return ingested(*arguments)

    monkeypatch.setattr(ingest, "ingest", slowly)

    def prepare() -> None:
        found.append(dataset.prepare(request(clean), str(tmp_path), find_faces, said.append))

    both = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(calls) == 1 and len(found) == 2
    assert any(line.startswith("waiting for another process") for line in said)
    assert {each.about["sha256"] for each in found} == {made.about["sha256"]}


# Killed


KILLED = """
import os, signal, sys
from research.faces import ingest
from research.faces import dataset as masks
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def some(function, count):
    calls = []
    def counted(*arguments):
        calls.append(die() if len(calls) == count else None)
        return function(*arguments)
    return counted
stage, voc, home = sys.argv[1:]
ingest._PHOTOS_PER_CHUNK = 2
if stage == "writing":
    masks._digested = some(masks._digested, 15)
if stage == "decoding":
    masks.np.savez = die
cut = ingest.Cut(0.0, 16, 1)
asked = masks.Request({"voc": voc}, False, cut, 3, 2, 1.0, 0, {"min_face_px": 20.0})
masks.prepare(asked, home, lambda: None, print)
"""


def test_what_is_killed_goes_on_and_ends_as_if_it_had_not_been(
    clean: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while writing, then while decoding, then left alone; for cutting see test_ingest."""
    home = tmp_path / "cut" / "masks"
    for stage, chunks in (("writing", 5), ("decoding", 0)):
        words = [sys.executable, "-c", KILLED, stage, str(clean["voc"]), str(home.parent)]
        root = Path(__file__).parents[2]
        done = subprocess.run(words, capture_output=True, text=True, cwd=root)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert len(list(home.glob(".work-*/*.zip"))) == chunks
        assert bool(list(home.glob("*/.incomplete*/about.json"))) == (stage == "writing")
        assert bool(list(home.glob("*/2.0.0/.train.npz.tmp"))) == (stage == "decoding")
    monkeypatch.setattr(ingest, "_PHOTOS_PER_CHUNK", 2)
    found, whole = (
        dataset.prepare(request(clean), str(tmp_path / name), find_faces, no_words)
        for name in ("cut", "whole")
    )
    assert tree_of(found.folder) == tree_of(whole.folder)
    assert found.folder.parent.name == whole.folder.parent.name
    left = {path.name.removeprefix(".") for path in home.iterdir()}
    assert left == {whole.folder.parent.name, f"{whole.folder.parent.name}.lock"}


def test_chunks_that_were_left_behind_are_removed(
    clean: dict[str, Path], made: dataset.Masks, tmp_path: Path
) -> None:
    home = tmp_path / "masks"
    shutil.copytree(made.folder.parents[1], home)
    work = home / f".work-{made.folder.parent.name}"
    work.mkdir()
    (work / "chunk").write_text("")
    dataset.prepare(request(clean), str(tmp_path), find_faces, no_words)
    assert not work.exists()


# Damaged


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["train.u8", "train.npz"])
@pytest.mark.parametrize("how", ["flipped", "cut", "deleted"])
def test_pixels_that_are_damaged_are_decoded_again(
    made: dataset.Masks, copied: Path, name: str, how: str
) -> None:
    path = copied / name
    if how == "flipped":
        flip(path, path.stat().st_size // 2)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    said: list[str] = []
    found = dataset.load(copied, said.append)
    expected = [f"{copied}/train.u8 is damaged; making it again"]
    assert said == (expected if (name, how) != ("train.npz", "deleted") else [])
    assert found.about == made.about and tree_of(copied) == tree_of(made.folder)
    for split, faces in found.splits.items():
        whole = made.splits[split]
        np.testing.assert_array_equal(faces.data.images[:], whole.data.images[:])
        for one, other in zip(faces[1:], whole[1:], strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(faces.data.labels, whole.data.labels)


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("masks-train.array_record-00000", "cut"),
        ("masks-train.array_record-00000", "deleted"),
        ("masks-test.array_record-00000", "flipped"),
        ("about.json", "cut"),
        ("features.json", "deleted"),
        ("test.sha256", "flipped"),
    ],
)
def test_other_damage_is_one_line_that_names_the_folder(
    copied: Path, decoded: bool, name: str, how: str
) -> None:
    if how == "flipped" and decoded and name.startswith("masks"):
        return  # nobody reads the records then, and their length is what it was
    path = copied / name
    if how == "flipped":
        pixels_at = path.read_bytes().find(b"IDAT") + 9 if name.startswith("masks") else 0
        flip(path, pixels_at or path.stat().st_size // 3)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    if not decoded:
        for pixels_of in copied.glob("*.npz"):
            pixels_of.unlink()
    with pytest.raises(DataError) as told:
        dataset.load(copied, no_words)
    message = str(told.value)
    assert message.startswith(f"{copied} cannot be read (") and "\n" not in message
    assert message.endswith("); move it away and the faces will be prepared again")


# Directories and disks


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can have more bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_at_any_time_is_one_line_and_the_next_start_goes_on(
    clean: dict[str, Path], made: dataset.Masks, tmp_path: Path
) -> None:
    """No room for chunks, which have 20 kB; for records, 130 kB; for pixels, 15 kB."""

    def prepare(end: int) -> dataset.Masks:
        with files_end_at(end):
            return dataset.prepare(request(clean), str(tmp_path), find_faces, no_words)

    folder = tmp_path / made.folder.relative_to(made.folder.parents[2])
    for end, chunks in ((3_000, 0), (100_000, 1)):
        with pytest.raises(DataError) as told:
            prepare(end)
        assert "cannot be written (" in str(told.value) and "\n" not in str(told.value)
        assert "make room there, or name another directory with data.tfds_dir" in str(told.value)
        assert len(list(folder.parents[1].glob(".work-*/*.zip"))) == chunks
        assert not folder.exists() and not list(folder.parent.glob(".incomplete*"))
    assert prepare(10**9).about["sha256"] == made.about["sha256"]
    for path in folder.glob("train.[nu]*"):
        path.unlink()
    with pytest.raises(DataError, match=rf"^{folder} cannot be written \(.*\); make room there, "):
        prepare(10_000)
    assert prepare(10**9).about["sha256"] == made.about["sha256"]


def test_a_directory_that_cannot_be_written_is_one_line_before_the_work(
    clean: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(ingest, "ingest", lambda *_: pytest.fail("began to work"))
    message = rf"^{tmp_path}/file/masks cannot be written \(.*\); make room there, or name another"
    with pytest.raises(DataError, match=message):
        dataset.prepare(request(clean), str(tmp_path / "file"), find_faces, no_words)


def test_photographs_and_prepared_faces_are_not_in_one_another(
    clean: dict[str, Path], made: dataset.Masks, tmp_path: Path
) -> None:
    os.symlink(clean["voc"], tmp_path / "link")
    inside = (clean["voc"] / "tfds", tmp_path / "link", made.folder.parents[2])
    asked = [request(clean)] * 2 + [request({"folders": made.folder})]
    for home, each in zip(inside, asked, strict=True):
        (directory,) = each.directories.values()
        message = rf"^{directory} is to hold photographs and {home}/masks the prepared faces, but"
        with pytest.raises(DataError, match=message):
            dataset.prepare(each, str(home), find_faces, no_words)
    assert not (clean["voc"] / "tfds").exists()


def test_the_directory_of_tfds_is_the_default(
    clean: dict[str, Path], made: dataset.Masks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(made.folder.parents[2]))
    assert dataset.prepare(request(clean), "", find_faces, no_words).folder == made.folder


def test_names_that_are_not_utf8_come_back_as_they_were(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "data" / ("mask", "non mask")[i % 2] / f"{i}{ODD}", pixels(i))
    asked = request({"folders": tmp_path / "data"}, val=1, test=0)
    found = dataset.prepare(asked, str(tmp_path / "t"), find_faces, no_words)
    names = {Path(str(p)).name for faces in found.splits.values() for p in faces.photos}
    assert names == {f"{i}{ODD}" for i in range(4)}
    assert len(found.splits["test"].data.images) == 0  # of which TFDS knows nothing
    assert found.splits["val"].data.images[:].shape == (1, SIZE, SIZE, 3)


# The real photographs


def test_the_real_faces_are_as_many_as_their_description_says(
    real_faces: Path, tmp_path: Path
) -> None:
    asked = request(
        {"voc": real_faces / "voc"}, keep_incorrect=True, val=0.16, test=0.08, balance=0.0
    )
    found = dataset.prepare(asked, str(tmp_path), find_faces, no_words)
    total = sum((labels_of(f, found.names) for f in found.splits.values()), Counter())
    assert total == {"with_mask": 1025, "without_mask": 223, "incorrect": 105}
    assert found.about["annotated"] == {"voc": dict(total)} == found.about["usable"]
    counts = {split: len(faces.data.labels) for split, faces in found.splits.items()}
    assert counts == {"train": 1353 - 216 - 108, "val": 216, "test": 108}
    assert found.about["lost"] == 0
    # Five boxes end a pixel beyond the width, and one of them twice.
    rows = rows_of(found.folder / dataset.PROBLEMS)
    assert len(rows) == 6 and {row["done"] for row in rows} == {"cut to the picture"}
