"""Three layouts of annotated faces, read to the same result; and everything that can be wrong."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from research.data import image_files
from research.data.provenance import DataError
from research.faces import annotations
from research.faces.annotations import (
    LABELS,
    Annotated,
    Box,
    Face,
    Photograph,
    Problem,
    Settings,
)

WIDTH, HEIGHT = 60, 40
RAW = {
    "voc": {"with_mask": "with_mask", "without_mask": "without_mask"}
    | {"incorrect": "mask_weared_incorrect"},
    "json": {"with_mask": "face_with_mask", "without_mask": "face_no_mask"}
    | {"incorrect": "face_with_mask_incorrect"},
}
END = {"voc": ".xml", "json": ".json"}


def picture(colour: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, colour).save(stream, kind)
    return stream.getvalue()


def voc_object(raw: object, box: tuple[object, ...]) -> str:
    """An object as in the file; the box as it stands there: from 1, the last pixel inside."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, box, strict=True))
    return f"<object><name>{raw}</name><bndbox>{corners}</bndbox></object>"


def voc(image: str, *objects: str, size: str = f"{WIDTH} {HEIGHT}") -> bytes:
    width, height = size.split()
    text = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    name = f"<filename>{escape(image)}</filename>"
    return f"<annotation>{name}{text}{''.join(objects)}</annotation>".encode()


def json_of(image: object, *objects: tuple[object, object], count: object = None) -> bytes:
    entries = [{"classname": raw, "BoundingBox": box, "ID": 2**70} for raw, box in objects]
    count = len(entries) if count is None else count
    return json.dumps({"FileName": image, "NumOfAnno": count, "Annotations": entries}).encode()


def corpus(root: Path, pictures: dict[str, bytes], files: dict[str, bytes]) -> Path:
    """A data set with `pictures` in images/ and `files` in annotations/."""
    for folder, contents in (("images", pictures), ("annotations", files)):
        (root / folder).mkdir(exist_ok=True, parents=True)
        for name, content in contents.items():
            path = root / folder / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(content)
    return root


def clear(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            (Path(folder) / name).unlink()


def one(root: Path, layout: str, content: bytes, image: bytes | None = None) -> Annotated:
    """What is read of one annotation file of a picture `a.png` of 60 x 40."""
    clear(root)
    image = picture() if image is None else image
    return annotations.read(corpus(root, {"a.png": image}, {f"a{END[layout]}": content}), layout)


def only_problem(found: Annotated, file: str, *words: str) -> Problem:
    """The one problem there is, which must be of `file` and hold `words`."""
    (problem,) = found.problems
    assert problem.file.endswith(f"/{file}"), problem
    text = f"{problem.what}; {problem.done}"
    assert "\n" not in text and len(text) < 400
    for word in words:
        assert word in text, text
    return problem


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masks")


# Labels


WAYS = {
    "with_mask": ["with mask", "With-Mask", "WithMask", "WITH_MASK ", "mask", "Mask", "face_mask"],
    "without_mask": ["WithoutMask", "without mask", "no-mask", "No Mask", "no_mask", "NonMask"],
    "incorrect": ["mask_weared_incorrect", "Mask Weared Incorrect", "incorrect mask"],
}


def test_every_label_of_the_three_sets_has_a_meaning() -> None:
    assert set(LABELS.values()) == {"with_mask", "without_mask", "incorrect", ""}
    for layout in RAW.values():
        assert all(LABELS[raw] == label for label, raw in layout.items())
    folded = [annotations._folded(raw) for raw in LABELS]
    assert len(set(folded)) == len(folded)


@pytest.mark.parametrize("layout", ["voc", "json", "folders"])
@pytest.mark.parametrize("label", WAYS)
def test_a_label_is_known_in_all_the_ways_it_is_written(
    tmp_path: Path, layout: str, label: str
) -> None:
    for number, raw in enumerate(WAYS[label]):
        if layout == "folders":
            (tmp_path / raw).mkdir()
            (tmp_path / raw / "a.png").write_bytes(picture(number))
            continue
        name = f"{number}.png"
        content = voc(name, voc_object(raw, (1, 1, 9, 9)))
        content = content if layout == "voc" else json_of(name, (raw, [0, 0, 9, 9]))
        corpus(tmp_path, {name: picture(number)}, {f"{number}{END[layout]}": content})
    found = annotations.read(tmp_path, layout)
    assert [face.label for face in found.faces] == [label] * len(WAYS[label])
    assert not found.problems


def test_unknown_labels_are_counted_and_a_setting_says_what_they_mean(root: Path) -> None:
    raws = ["face_nask", "Face-Nask", "dog", "with_mask", "Dog"]
    content = voc("a.png", *(voc_object(raw, (1, 1, 9, 9)) for raw in raws))
    found = one(root, "voc", content)
    assert found.unknown == {"face_nask": 1, "Face-Nask": 1, "dog": 1, "Dog": 1}
    assert len(found.faces) == 1 and len(found.problems) == 4
    assert [(kind, count) for kind, count, _ in annotations.kinds(found.problems)] == [
        ("object ... (...): unknown label; data.labels can say what it means", 4)
    ]
    labels = {"face nask": "with_mask", "DOG": "", "with_mask": "incorrect"}
    found = annotations.read(root, "voc", Settings(labels))
    assert [face.label for face in found.faces] == ["with_mask", "with_mask", "incorrect"]
    assert (found.unknown, found.left_out, found.problems) == ({}, {"DOG": 2}, [])


@pytest.mark.parametrize("layout", ["voc", "json"])
def test_labels_that_are_left_out_are_counted_and_no_problem(root: Path, layout: str) -> None:
    raws = ["hat", "FACE_WITH_MASK", "Hat", "mask_surgical"]
    if layout == "voc":
        content = voc("a.png", *(voc_object(raw, (1, 1, 9, 9)) for raw in raws))
    else:
        content = json_of("a.png", *((raw, [0, 0, 9, 9]) for raw in raws))
    found = one(root, layout, content)
    assert found.left_out == {"hat": 2, "mask_surgical": 1} and not found.problems
    image = Photograph(f"{root}/images/a.png", WIDTH, HEIGHT)
    assert found.faces == [Face(image, Box(0, 0, 9, 9), "with_mask", layout)]


@pytest.mark.parametrize("layout", ["voc", "json"])
def test_an_unknown_label_is_a_problem_and_the_others_stay(root: Path, layout: str) -> None:
    if layout == "voc":
        objects = (voc_object("dog", (1, 1, 9, 9)), voc_object("with_mask", (2, 2, 9, 9)))
        content = voc("a.png", *objects)
    else:
        content = json_of("a.png", ("dog", [0, 0, 9, 9]), ("face_with_mask", [1, 1, 9, 9]))
    found = one(root, layout, content)
    only_problem(found, f"a{END[layout]}", "object 1 ('dog')", "unknown label", "left out")
    assert [face.box for face in found.faces] == [Box(1, 1, 9, 9)]


# Round trips


@st.composite
def faces_of(draw: st.DrawFn) -> dict[str, list[tuple[Box, str]]]:
    """{image: its faces}; names as people give them."""
    found: dict[str, list[tuple[Box, str]]] = {}
    names = st.text(st.sampled_from("aZ09 -_.&<'μ字"), min_size=1, max_size=8)
    for name in draw(st.lists(names, min_size=1, max_size=2, unique_by=str.lower)):
        left, top = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
        box = Box(
            left,
            top,
            draw(st.integers(max(left + 1, 2), WIDTH)),
            draw(st.integers(top + 1, HEIGHT)),
        )
        label = draw(st.sampled_from(sorted(RAW["voc"])))
        # Not hidden, and without blanks at the ends, which XML does not keep.
        faces = [(box, label), (Box(0, 0, 2, 1), "with_mask")][: draw(st.integers(1, 2))]
        found[f"x{name}.png"] = faces
    return found


@pytest.mark.parametrize("layout", ["voc", "json"])
@given(drawn=faces_of())
def test_faces_that_are_written_are_read(root: Path, layout: str, drawn: dict) -> None:
    clear(root)
    files: dict[str, bytes] = {}
    for image, faces in drawn.items():
        if layout == "voc":
            objects = [
                voc_object(RAW["voc"][label], (b.left + 1, b.top + 1, b.right, b.bottom))
                for b, label in faces
            ]
            files[f"{image[:-4]}.xml"] = voc(image, *objects)
        else:
            entries = [
                (RAW["json"][label], [b.left, b.top, b.right, b.bottom]) for b, label in faces
            ]
            files[f"{image}.json"] = json_of(image, *entries)
    pictures = {image: picture(i) for i, image in enumerate(drawn)}
    found = annotations.read(corpus(root, pictures, files), layout)
    assert found.problems == [] and found.left_out == {}
    expected = [
        Face(Photograph(f"{root}/images/{image}", WIDTH, HEIGHT), box, label, layout)
        for image, faces in drawn.items()
        for box, label in faces
    ]
    assert Counter(found.faces) == Counter(expected)
    order = [face.photograph.path for face in found.faces]
    assert order == sorted(
        order, key=lambda name: f"{name[:-4] if layout == 'voc' else name}{END[layout]}"
    )


def test_numbers_with_decimals_are_rounded(root: Path) -> None:
    content = voc("a.png", voc_object("with_mask", ("1.4", "+2.", "9.6", "1e1")))
    assert one(root, "voc", content).faces[0].box == Box(0, 1, 10, 10)
    content = json_of("a.png", ("face_with_mask", [0.4, 1.5, 9.6, 1e1]))
    assert one(root, "json", content).faces[0].box == Box(0, 2, 10, 10)


# Folders


def test_folders_are_read_by_the_nearest_known_name(root: Path) -> None:
    clear(root)
    names = [
        "train/with_mask/b.jpg",
        "train/with_mask/by hand/a.jpg",
        "Train/Non Mask/c.JPEG",
        "Train/MASK/c.png",
        "with_mask/without_mask/d.png",
    ]
    for colour, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(colour))
    (root / "manifest.csv").write_text("of nobody's interest")
    (root / "train" / "with_mask" / ".DS_Store").write_text("hidden")
    found = annotations.read(root, "folders")
    labels = ["with_mask", "with_mask", "without_mask", "with_mask", "without_mask"]
    expected = [
        Face(Photograph(f"{root}/{name}", WIDTH, HEIGHT), None, label, "folders")
        for name, label in zip(names, labels, strict=True)
    ]
    assert found.faces == sorted(expected, key=lambda face: face.photograph.path)
    assert found.problems == [] and found.left_out == {}


def test_a_class_folder_decides_over_one_of_things_below_it(tmp_path: Path) -> None:
    names = ["without_mask/hat/a.png", "with_mask/other/b.png", "hat/c.png"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(picture(number))
    found = annotations.read(tmp_path, "folders")
    assert [face.label for face in found.faces] == ["with_mask", "without_mask"]
    assert found.left_out == {"hat": 1} and not found.problems


def test_pictures_are_known_by_their_content(tmp_path: Path) -> None:
    contents = {
        "with_mask/a.jfif": picture(1, kind="JPEG"),
        "with_mask/b": picture(2, kind="WEBP"),
        "with_mask/c.tiff": picture(3, kind="TIFF"),
        "with_mask/d.heic": b"\0\0\0\x18ftypheic" + bytes(20),
        "with_mask/e.txt": b"no picture",
        "cats/f.jpe": picture(4, kind="JPEG"),
        "cats/g.txt": b"no picture",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = annotations.read(tmp_path, "folders")
    assert [Path(face.photograph.path).name for face in found.faces] == ["a.jfif", "b"]
    problems = {Path(problem.file).name: problem.what for problem in found.problems}
    assert list(problems) == ["f.jpe", "c.tiff", "d.heic", "e.txt"]
    assert "as a TIFF picture does" in problems["c.tiff"]
    assert "as a HEIC picture does" in problems["d.heic"]
    assert problems["e.txt"] == "no picture by its name or content"
    assert found.unknown == {"cats": 1}


def test_pictures_that_are_faces_are_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "mask").mkdir()
    (tmp_path / "mask" / "a.png").write_bytes(picture())
    (face,) = annotations.read(tmp_path, "folders", Settings(whole=True)).faces
    assert face.box == Box(0, 0, WIDTH, HEIGHT)


def test_every_file_of_folders_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    contents = {
        "with_mask/a.png": picture(1),
        "with_mask/notes.txt": b"no picture",
        "with_mask/page.jpg": b"<html>",
        "other/b.png": picture(2),
        "cats/c.png": picture(3),
        "d.png": picture(4),
        "without_mask/e.png": picture(1),
        "without_mask/f.png": picture(5),
        "without_mask/g.png": picture(5),
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "with_mask" / "round").symlink_to(tmp_path)
    found = annotations.read(tmp_path, "folders")
    assert [face.photograph.path for face in found.faces] == [
        f"{tmp_path}/with_mask/a.png",
        f"{tmp_path}/without_mask/f.png",
    ]
    assert found.left_out == {"other": 1}
    problems = {p.file.removeprefix(f"{tmp_path}/"): p.what for p in found.problems}
    assert list(problems) == sorted(problems) and len(problems) == len(found.problems)
    assert problems.keys() == {
        *("cats/c.png", "d.png", "with_mask/notes.txt", "with_mask/page.jpg", "with_mask/round"),
        *("without_mask/e.png", "without_mask/g.png"),
    }
    assert "no folder above it has a known label" in problems["d.png"]
    assert problems["with_mask/page.jpg"].startswith("starts with b'<html>'")
    assert "with_mask/a.png, which is with_mask" in problems["without_mask/e.png"]
    assert problems["without_mask/g.png"].endswith("without_mask/f.png")


# Boxes


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ((1, 1, 60, 40), None),
        ((60, 40, 60, 40), None),
        ((55, 35, 61, 40), Box(54, 34, 60, 40)),
        ((0, -5, 10, 10), Box(0, 0, 10, 10)),
        ((-9, 1, 999999999, 1), Box(0, 0, 60, 1)),
    ],
)
def test_a_box_that_goes_beyond_the_picture_is_cut_and_that_is_said(
    root: Path, box: tuple[int, ...], cut: Box | None
) -> None:
    left, top, right, bottom = box
    edges = [left - 1, top - 1, right, bottom]
    contents = {
        "voc": voc("a.png", voc_object("with_mask", box)),
        "json": json_of("a.png", ("face_with_mask", edges)),
    }
    for layout, content in contents.items():
        found = one(root, layout, content)
        assert [face.box for face in found.faces] == [cut or Box(*edges)]
        if cut:
            words = ("object 1 (", "goes beyond the picture of 60 x 40", "; cut to the picture")
            only_problem(found, f"a{END[layout]}", *words)
        else:
            assert not found.problems


BAD_EDGES = [
    ([60, 0, 70, 10], "outside the picture of 60 x 40"),
    ([0, -9, 10, 0], "outside"),
    ([0, 40, 10, 41], "outside"),
    ([20, 0, 10, 10], "inverted"),
    ([0, 20, 10, 10], "inverted"),
    ([5, 0, 5, 10], "empty"),
    ([0, 5, 10, 5], "empty"),
]


@pytest.mark.parametrize("layout", ["voc", "json"])
@pytest.mark.parametrize(("edges", "found"), BAD_EDGES)
def test_a_box_without_a_pixel_in_the_picture_is_left_out(
    root: Path, layout: str, edges: list[int], found: str
) -> None:
    left, top, right, bottom = edges
    if layout == "voc":
        content = voc("a.png", voc_object("with_mask", (left + 1, top + 1, right, bottom)))
    else:
        content = json_of("a.png", ("face_with_mask", edges))
    result = one(root, layout, content)
    assert not result.faces
    only_problem(result, f"a{END[layout]}", found, "; left out")


@pytest.mark.parametrize(
    "text",
    ["nan", "inf", "-Infinity", "1e309", "1_0", "\uff11", "0x9", "1,5", "", "ten", "9" * 9999],
)
def test_only_plain_numbers_count_in_xml(root: Path, text: str) -> None:
    objects = (voc_object("with_mask", (1, 1, text, 9)), voc_object("with_mask", (1, 1, 8, 9)))
    found = one(root, "voc", voc("a.png", *objects))
    assert [face.box for face in found.faces] == [Box(0, 0, 8, 9)]
    only_problem(found, "a.xml", "object 1", "is no number" if text else "<xmax> is empty")


@pytest.mark.parametrize("number", ["true", '"9"', "null", "[9]", "1e999", "9" * 400])
def test_only_numbers_count_in_json(root: Path, number: str) -> None:
    content = json_of("a.png", ("face_no_mask", [0, 0, "HERE", 9]), ("face_no_mask", [0, 0, 8, 9]))
    found = one(root, "json", content.replace(b'"HERE"', number.encode()))
    assert [face.box for face in found.faces] == [Box(0, 0, 8, 9)]
    only_problem(found, "a.json", "object 1 ('face_no_mask')", "is no number of pixels")


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, 3, 4, 5], "1234", {"x": 1}])
def test_a_box_of_json_has_four_numbers(root: Path, box: object) -> None:
    found = one(root, "json", json_of("a.png", ("face_no_mask", box)))
    only_problem(found, "a.json", "expected BoundingBox, a list of four numbers")


def test_messages_hold_the_numbers_of_the_file(root: Path) -> None:
    found = one(root, "voc", voc("a.png", voc_object("with_mask", (0, 0, 60.5, 40))))
    only_problem(found, "a.xml", "box from 0, 0 to 60.5, 40 goes beyond the picture of 60 x 40")


@pytest.mark.parametrize("layout", ["voc", "json"])
def test_normalised_coordinates_are_refused(root: Path, layout: str) -> None:
    box = (0.25, 0.1, 0.75, 1)
    content = voc("a.png", voc_object("with_mask", box))
    content = content if layout == "voc" else json_of("a.png", ("mask", list(box)))
    found = one(root, layout, content)
    assert not found.faces
    only_problem(found, f"a{END[layout]}", "0.25, 0.1 to 0.75, 1 has normalised coordinates")


# Orientation


def turned_picture(orientation: int) -> tuple[bytes, Box, bytes]:
    """A picture with one bright box that EXIF turns, that box as stored, its annotation's size."""
    stored, exif = Image.new("L", (WIDTH, HEIGHT)), Image.Exif()
    box = Box(5, 3, 25, 13)
    stored.paste(255, (box.left, box.top, box.right, box.bottom))
    exif[0x0112] = orientation
    stream = io.BytesIO()
    stored.save(stream, "PNG", exif=exif)
    return stream.getvalue(), box, b""


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("told", ["by the size", "by the setting"])
def test_boxes_of_a_picture_as_it_is_stored_are_turned_with_it(
    root: Path, orientation: int, told: str
) -> None:
    content, box, _ = turned_picture(orientation)
    corners = (box.left + 1, box.top + 1, box.right, box.bottom)
    written = voc("a.png", voc_object("with_mask", corners), size=f"{WIDTH} {HEIGHT}")
    if told == "by the size" and orientation < 5:
        return  # it is the same both ways
    if told == "by the setting":
        start, end = written.index(b"<size>"), written.index(b"</size>") + 7
        written = written[:start] + written[end:]
    clear(root)
    corpus(root, {"a.png": content}, {"a.xml": written})
    settings = Settings(stored=told == "by the setting")
    found = annotations.read(root, "voc", settings)
    (face,) = found.faces
    assert face.box
    seen = image_files.read_photograph(content)[..., 0]
    expected = np.zeros_like(seen)
    expected[face.box.top : face.box.bottom, face.box.left : face.box.right] = 255
    np.testing.assert_array_equal(seen, expected)
    only_problem(found, "a.xml", f"EXIF orientation {orientation} turns the picture", "turned with")


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_an_orientation_that_no_size_tells_is_said(root: Path, orientation: int) -> None:
    content, box, _ = turned_picture(orientation)
    found = one(root, "voc", voc("a.png", voc_object("with_mask", (6, 4, 25, 13))), content)
    assert [face.box for face in found.faces] == [box]
    words = ("no size tells", "taken as displayed: not turned (data.exif says which)")
    only_problem(found, "a.xml", *words)


def test_a_size_that_is_off_by_one_is_said_and_the_faces_stay(root: Path) -> None:
    found = one(root, "voc", voc("a.png", FACE, size="61 39"))
    assert len(found.faces) == 1
    only_problem(found, "a.xml", "a picture of 61 x 39 pixels, and", "has 60 x 40")


# Files of many pictures


def coco(*annotated: dict[str, object], images: int = 2) -> bytes:
    listed = [
        {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(images)
    ]
    categories = [{"id": 7, "name": "with-mask"}, {"id": 9, "name": "dog"}]
    document = {"images": listed, "annotations": annotated, "categories": categories}
    return json.dumps(document).encode()


def test_coco_gives_the_boxes_of_every_picture_it_lists(tmp_path: Path) -> None:
    content = coco(
        {"image_id": 1, "category_id": 7, "bbox": [5, 3, 20, 10]},
        {"image_id": 0, "category_id": 7, "bbox": [0, 0, 9.5, 9]},
        {"image_id": 0, "category_id": 9, "bbox": [0, 0, 9, 9]},
        {"image_id": 0, "category_id": 7, "bbox": [0, 0, 9]},
        {"image_id": 8, "category_id": 7, "bbox": [0, 0, 9, 9]},
        images=3,
    )
    pictures = {f"{i}.png": picture(i) for i in range(2)}
    for name, image in pictures.items():
        (tmp_path / name).write_bytes(image)
    (tmp_path / "_annotations.coco.json").write_bytes(content)
    found = annotations.read(tmp_path, "json")
    assert [(Path(face.photograph.path).name, face.box) for face in found.faces] == [
        ("0.png", Box(0, 0, 10, 9)),
        ("1.png", Box(5, 3, 25, 13)),
    ]
    assert sorted(problem.what for problem in found.problems) == [
        "'0.png': 1 annotations of images that it does not list",
        "'0.png': object 2 ('dog'): unknown label; data.labels can say what it means",
        "'0.png': object 3 ('with-mask'): expected bbox, a list of four numbers",
        f"names the image '2.png', which is not in {tmp_path.name}/",
    ]
    assert annotations.detect(tmp_path) == {"json": str(tmp_path)}


# Directories


def test_the_layouts_below_a_directory_are_found(tmp_path: Path) -> None:
    corpus(tmp_path / "kaggle", {"a.png": picture(1)}, {"a.xml": voc("a.png", FACE)})
    corpus(tmp_path / "medical", {"b.png": picture(2)}, {"b.json": json_of("b.png")})
    for name in ("faces/train/WithMask", "faces/test/No Mask"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "c.png").write_bytes(picture(3))
    (tmp_path / "package.json").write_text("{}")
    found = annotations.detect(tmp_path)
    assert found == {
        layout: f"{tmp_path}/{name}"
        for layout, name in (("voc", "kaggle"), ("json", "medical"), ("folders", "faces"))
    }
    for name in ("kaggle", "medical", "faces"):
        clear(tmp_path / name)
    with pytest.raises(DataError, match=r"holds 1 .json files; expected one or more of: annotat"):
        annotations.detect(tmp_path)


def test_problems_are_one_kind_whatever_is_particular_about_them(tmp_path: Path) -> None:
    home = tmp_path / "my data"
    files = {f"{i}.xml": voc(f"{i} x.gif", FACE) for i in range(3)} | {"9.xml": b"<annotation>"}
    found = annotations.read(corpus(home, {"z.png": picture()}, files), "voc")
    kinds = [(kind, count) for kind, count, _ in annotations.kinds(found.problems)]
    assert kinds[0] == ("names the image ..., which is not in images...", 3) and len(kinds) == 3


# Files


@pytest.mark.parametrize(
    ("layout", "content", "words"),
    [
        ("voc", b"", "no XML that can be read (no element found"),
        ("voc", b"<annotation><filename>a.png</annotation>", "mismatched tag"),
        ("voc", b"\xff\xfe\0\xd8", "no XML"),
        ("voc", b"<html></html>", "holds <'html'>, expected <annotation>"),
        ("voc", b"<?xml version='1.0' encoding='zip'?><a\xff/>", "no XML"),
        ("voc", voc("a.png") + b" " * 2**20, "bytes, expected at most 1,048,576"),
        ("voc", voc("a.png", "<x/>" * 20_000), "elements, expected at most 20,000"),
        ("voc", b"<a>" * 200_000, "no XML"),
        ("json", b"", "no JSON that can be read"),
        ("json", b'{"FileName": "a.png"', "no JSON"),
        ("json", b"\xff\xfe\0\xd8", "no JSON"),
        ("json", b"[" * 500_000, "no JSON"),
        ("json", b"[]", "expected an object with FileName, a str"),
        ("json", b"{}", "expected an object with FileName, a str"),
        ("json", b'{"FileName": 3, "Annotations": []}', "FileName, a str"),
        ("json", b'{"FileName": "a.png", "Annotations": {}}', "Annotations, a list"),
        ("json", b'{"FileName": "a.png", "FileName": "b"}', "a key stands twice"),
        ("json", json_of("a.png", ("face_no_mask", [float("nan")] * 4)), "NaN is no number"),
        ("json", json_of("a.png", ("face_no_mask", [float("inf")] * 4)), "Infinity is no number"),
        ("json", json_of("a.png").replace(b"[]", b"[1" + b",1" * 20_000 + b"]"), "20,001 annot"),
        ("json", b"9" * 5000, "no JSON"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_left_out_and_named(
    root: Path, layout: str, content: bytes, words: str
) -> None:
    found = one(root, layout, content)
    assert not found.faces and not found.left_out
    annotation, image = found.problems
    assert annotation.file == f"{root}/annotations/a{END[layout]}" and annotation.done == "left out"
    assert words in annotation.what and len(annotation.what) < 200
    assert image.file == f"{root}/images/a.png" and "no usable annotation" in image.what


LAUGHS = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))


@pytest.mark.parametrize(
    "declared",
    [
        f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{LAUGHS}]>',
        '<!DOCTYPE annotation [<!ENTITY l9 SYSTEM "file:///etc/hostname">]>',
    ],
)
def test_entities_are_not_followed(root: Path, declared: str) -> None:
    content = f"{declared}<annotation><filename>&l9;</filename></annotation>"
    found = one(root, "voc", content.encode())
    assert found.problems[0].file.endswith("a.xml")
    assert "no XML that can be read (EntitiesForbidden" in found.problems[0].what


# The link between annotation and picture

FACE = voc_object("with_mask", (1, 1, 9, 9))


@pytest.mark.parametrize("layout", ["voc", "json"])
@pytest.mark.parametrize(
    ("name", "image", "means"),
    [
        ("photo", "photo.jpg", "its name with another ending or case"),
        ("photo.jpg", "photo.png", "its name with another ending or case"),
        ("PHOTO.JPG", "photo.jpg", "its name with another ending or case"),
        ("1.v2", "1.v2.png", "its name with another ending or case"),
        ("a.xml", "a.png", "its name with another ending or case"),
        ("old name.jpg", "a.png", "the name of the annotation"),
        ("", "a.png", "the name of the annotation"),
        ("/home/me/images/photo.png", "photo.png", "its name without folders"),
        ("C:\\Users\\me\\photo.png", "photo.png", "its name without folders"),
        ("JPEGImages/photo.png", "photo.png", "its name without folders"),
        ("../photo.png", "b/photo.png", "its name without folders"),
        ("my%20photo.png", "my photo.png", "its name without %-signs"),
        ("cafe\u0301.png", "caf\u00e9.png", "its name without folders"),
        ("caf\u00e9.png", "cafe\u0301.png", "its name without folders"),
    ],
)
def test_a_picture_of_a_similar_name_is_taken_with_a_line(
    tmp_path: Path, layout: str, name: str, image: str, means: str
) -> None:
    content = voc(name, FACE) if layout == "voc" else json_of(name, ("mask", [0, 0, 9, 9]))
    files = {f"a{END[layout]}": content}
    found = annotations.read(corpus(tmp_path, {image: picture()}, files), layout)
    assert [face.photograph.path for face in found.faces] == [f"{tmp_path}/images/{image}"]
    only_problem(found, f"a{END[layout]}", f"found by {means}", f"{image!r} is taken")


@pytest.mark.parametrize("layout", ["voc", "json"])
@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "C:\\x.png", "b.png", "." * 99])
def test_only_what_is_in_images_is_an_image(root: Path, layout: str, name: str) -> None:
    clear(root)
    (root / "secret.png").write_bytes(picture())
    content = voc(name, FACE) if layout == "voc" else json_of(name, ("mask", [0, 0, 9, 9]))
    corpus(root, {"a.png": picture()}, {f"x{END[layout]}": content})
    found = annotations.read(root, layout)
    assert not found.faces
    assert [Path(problem.file).name for problem in found.problems] == [f"x{END[layout]}", "a.png"]
    assert "which is not in images/" in found.problems[0].what


@pytest.mark.parametrize("images", [("b.png", "b.jpg"), ("1/b.png", "2/b.png")])
def test_two_pictures_that_can_be_meant_are_refused(tmp_path: Path, images: list[str]) -> None:
    pictures = {image: picture(i) for i, image in enumerate(images)}
    found = annotations.read(corpus(tmp_path, pictures, {"b.xml": voc("B", FACE)}), "voc")
    first, second = sorted(repr(image) for image in images)
    words = f"{first} and {second} could be meant by its name with another ending or case"
    assert not found.faces and words in found.problems[0].what and len(found.problems) == 3


def test_of_two_pictures_the_one_in_the_folder_of_the_annotation_is_meant(tmp_path: Path) -> None:
    pictures = {f"{split}/b.png": picture(i) for i, split in enumerate(("train", "val"))}
    files = {"val/b.xml": voc("b.jpg", FACE)}
    found = annotations.read(corpus(tmp_path, pictures, files), "voc")
    assert [face.photograph.path for face in found.faces] == [f"{tmp_path}/images/val/b.png"]


def test_a_picture_is_not_taken_from_the_annotation_that_names_it(tmp_path: Path) -> None:
    files = {"a.xml": voc("b", FACE), "b.xml": voc("b.png", FACE, FACE)}
    found = annotations.read(corpus(tmp_path, {"b.png": picture()}, files), "voc")
    assert len(found.faces) == 2
    only_problem(found, "a.xml", "'b.png' is annotated already, by", "b.xml")


def test_the_name_may_stand_in_the_path_alone(tmp_path: Path) -> None:
    content = voc("a.png", FACE).replace(b"filename>", b"path>")
    found = annotations.read(corpus(tmp_path, {"a.png": picture()}, {"x.xml": content}), "voc")
    assert len(found.faces) == 1 and not found.problems


@pytest.mark.parametrize(
    ("images", "files"),
    [
        ("JPEGImages/", "Annotations/"),
        ("set/JPEGImages/", "set/Annotations/"),
        ("imgs/", "xmls/"),
        ("", ""),
        ("train/", "train/"),
        ("images/train/", "annotations/train/"),
        ("pictures of mine/", "annotations/"),
    ],
)
@pytest.mark.parametrize("layout", ["voc", "json"])
def test_folders_are_found_by_their_usual_names_or_beside_each_other(
    tmp_path: Path, layout: str, images: str, files: str
) -> None:
    content = voc("a.png", FACE) if layout == "voc" else json_of("a.png", ("mask", [0, 0, 9, 9]))
    written = {f"{images}a.png": picture(), f"{files}a{END[layout]}": content}
    for name, content in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = annotations.read(tmp_path, layout)
    assert [face.photograph.path for face in found.faces] == [f"{tmp_path}/{images}a.png"]
    assert all("found by its name without folders" in each.what for each in found.problems)
    assert annotations.detect(tmp_path).keys() == {layout}


def test_images_lie_in_folders_too_with_either_slash(root: Path) -> None:
    clear(root)
    box = voc_object("with_mask", (1, 1, 9, 9))
    corpus(root, {"b/c.png": picture()}, {"x/y.XML": voc(".\\b\\c.png", box)})
    found = annotations.read(root, "voc")
    assert [face.photograph.path for face in found.faces] == [f"{root}/images/b/c.png"]
    assert not found.problems


def test_a_wrong_count_is_said_and_the_faces_are_taken(root: Path) -> None:
    for count in (0, 2, True, 1.0, "1", [[]]):
        content = json_of("a.png", ("face_no_mask", [0, 0, 9, 9]), count=count)
        found = one(root, "json", content)
        assert len(found.faces) == 1
        only_problem(found, "a.json", "NumOfAnno is ", "but there are 1", "are taken")


def test_a_size_that_is_not_the_pictures_leaves_its_faces_out(root: Path) -> None:
    face = voc_object("with_mask", (1, 1, 9, 9))
    found = one(root, "voc", voc("a.png", face, face, size="40 60"))
    words = ("a picture of 40 x 60 pixels, but", "has 60 x 40", "left out with its 2 annotations")
    assert not found.faces and only_problem(found, "a.xml", *words)


@pytest.mark.parametrize("size", ["0 0", "x 40", "60 nan", "1e300 40"])
def test_a_size_that_makes_no_sense_is_said_and_not_compared(root: Path, size: str) -> None:
    found = one(root, "voc", voc("a.png", voc_object("with_mask", (1, 1, 9, 9)), size=size))
    assert len(found.faces) == 1
    only_problem(found, "a.xml", "size of the picture: ", "; not compared")


def test_a_size_that_is_missing_is_not_asked_for(root: Path) -> None:
    content = voc("a.png", voc_object("with_mask", (1, 1, 9, 9)))
    start, end = content.index(b"<size>"), content.index(b"</size>") + 7
    found = one(root, "voc", content[:start] + content[end:])
    assert len(found.faces) == 1 and not found.problems


def test_boxes_are_in_the_picture_as_it_is_seen(root: Path) -> None:
    stream, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (HEIGHT, WIDTH)).save(stream, "JPEG", exif=turned)
    content = voc("a.png", voc_object("with_mask", (1, 1, 60, 40)))
    found = one(root, "voc", content, image=stream.getvalue())
    assert [face.box for face in found.faces] == [Box(0, 0, 60, 40)] and not found.problems


@pytest.mark.parametrize("layout", ["voc", "json"])
@pytest.mark.parametrize(
    ("image", "words"),
    [(b"", "is empty"), (b"GIF89a", "whole header"), (picture(size=(9000, 9000)), "9,000 x 9,000")],
)
def test_a_picture_without_a_usable_header_is_named(
    root: Path, layout: str, image: bytes, words: str
) -> None:
    content = voc("a.png", voc_object("with_mask", (1, 1, 9, 9)))
    content = content if layout == "voc" else json_of("a.png", ("face_no_mask", [0, 0, 9, 9]))
    found = one(root, layout, content, image=image)
    assert not found.faces
    only_problem(found, "images/a.png", words, "left out with its annotation")


def test_a_nameless_or_doubled_part_is_named(root: Path) -> None:
    face = voc_object("with_mask", (1, 1, 9, 9))
    twice = face.replace("</object>", face.removeprefix("<object>"))
    found = one(root, "voc", voc("a.png", "<object/>", twice, face))
    assert len(found.faces) == 1
    assert [p.what for p in found.problems] == [
        "object 1 (''): 0 <name> in <object>, expected one",
        "object 2 (''): 2 <name> in <object>, expected one",
    ]
    found = one(root, "json", json_of("a.png", (None, [0, 0, 9, 9]), ([], [0, 0, 9, 9])))
    assert ["classname" in p.what for p in found.problems] == [True, True]


def test_a_file_that_annotates_nothing_is_named(root: Path) -> None:
    only_problem(one(root, "voc", voc("a.png")), "a.xml", "annotates nothing")
    only_problem(one(root, "json", json_of("a.png")), "a.json", "annotates nothing")


@pytest.mark.parametrize("layout", ["voc", "json"])
def test_files_that_are_too_many_or_too_few_are_named(root: Path, layout: str) -> None:
    clear(root)
    end = END[layout]

    def annotation(image: str) -> bytes:
        if layout == "voc":
            return voc(image, *[voc_object("with_mask", (1, 1, 9, 9))] * 2)
        return json_of(image, *[("face_with_mask", [0, 0, 9, 9])] * 2)

    images = {f"{name}.png": picture(i) for i, name in enumerate("abcd")}
    images |= {"b copy.png": images["b.png"], ".hidden": b"", "Thumbs.db": b"of a file manager"}
    files = {f"{name}{end}": annotation(f"{name}.png") for name in "abc"}
    files |= {f"a2{end}": annotation("a.png"), f"b copy{end}": annotation("b copy.png")}
    files |= {f".b{end}": b"hidden", "readme.txt": b"no annotation"}
    corpus(root, images, files)
    os.mkfifo(root / "annotations" / f"pipe{end}")
    found = annotations.read(root, layout)
    problems = {p.file.removeprefix(f"{root}/"): f"{p.what}; {p.done}" for p in found.problems}
    assert list(problems) == [
        f"annotations/a2{end}",
        f"annotations/pipe{end}",
        "annotations/readme.txt",
        "images/Thumbs.db",
        "images/b.png",
        "images/d.png",
    ]
    first = f"{root}/annotations/a{end}"
    assert f"'a.png' is annotated already, by {first}" in problems[f"annotations/a2{end}"]
    assert f"expected a name with {end}" in problems["annotations/readme.txt"]
    assert "is no regular file" in problems[f"annotations/pipe{end}"]
    same = f"the same bytes as {root}/images/b copy.png; left out with its 2 faces"
    assert problems["images/b.png"] == same
    assert [Path(face.photograph.path).name for face in found.faces] == [
        *("a.png", "a.png", "b copy.png", "b copy.png", "c.png", "c.png"),
    ]


def test_duplicates_are_of_the_same_bytes_and_the_first_stays(tmp_path: Path) -> None:
    contents = {"a": b"12", "b": b"21", "c": b"12", "d": b"12", "e": b"", "f": b"123"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    paths = [f"{tmp_path}/{name}" for name in ("d", "gone", "a", "b", "e", "c", "pipe", "f")]
    twice = annotations.duplicates([Photograph(path, 1, 1) for path in paths])
    assert twice == {f"{tmp_path}/a": f"{tmp_path}/d", f"{tmp_path}/c": f"{tmp_path}/d"}


@pytest.mark.parametrize(
    ("layout", "folders", "words"),
    [
        ("voc", None, "does not exist; expected a directory with annotations/*.xml"),
        ("voc", ["images"], "no .xml file: it holds 1 .png files; expected annotations/*.xml"),
        ("json", [], "holds no .json file: it is empty"),
        ("json", ["images"], "annotations/*.json"),
        ("folders", ["cats"], "no folder of a known label: it holds 1 .png files; expected "),
        ("coco", [], "layout 'coco' is unknown; expected one of voc, json, folders"),
    ],
)  # fmt: skip
def test_a_directory_of_another_layout_is_refused(
    tmp_path: Path, layout: str, folders: list[str] | None, words: str
) -> None:
    for folder in folders or ():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(picture())
    directory = tmp_path / "gone" if folders is None else tmp_path
    with pytest.raises(DataError) as error:
        annotations.read(directory, layout)
    assert words in str(error.value) and "\n" not in str(error.value)


# Anything at all


def accounted(found: Annotated, root: Path, layout: str) -> None:
    """What must be true of every result for one annotation file of `a.png`."""
    annotation, image = f"{root}/annotations/a{END[layout]}", f"{root}/images/a.png"
    named = {problem.file for problem in found.problems}
    assert found.faces or found.left_out or annotation in named or image in named
    assert named <= {annotation, image}
    for face in found.faces:
        assert face.photograph.path == image and face.source == layout
        assert face.label in ("with_mask", "without_mask", "incorrect")
        box = face.box
        assert box and 0 <= box.left < box.right <= WIDTH and 0 <= box.top < box.bottom <= HEIGHT
    for problem in found.problems:
        text = f"{problem.file}{problem.what}{problem.done}"
        assert problem.what and problem.done and text.isprintable() and text.encode()


@pytest.mark.parametrize("layout", ["voc", "json"])
@given(content=st.binary(max_size=200))
def test_no_bytes_stop_a_reader(root: Path, layout: str, content: bytes) -> None:
    found = one(root, layout, content)
    accounted(found, root, layout)
    assert len(found.problems) == 2


VALID = {
    "voc": voc("a.png", voc_object("with_mask", (1, 2, 30, 40)), voc_object("hat", (1, 1, 9, 9))),
    "json": json_of("a.png", ("face_with_mask", [0, 1, 30, 40]), ("hat", [0, 0, 9, 9.5])),
}


@pytest.mark.parametrize("layout", ["voc", "json"])
@given(data=st.data())
def test_no_damage_stops_a_reader(root: Path, layout: str, data: st.DataObject) -> None:
    content = bytearray(VALID[layout])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        end = at + data.draw(st.sampled_from([0, 1, 1, 5, 10**6]))
        content[at:end] = data.draw(st.binary(max_size=2) | st.sampled_from([b"<a>", b"9", b"-"]))
    accounted(one(root, layout, bytes(content)), root, layout)


ODD = [None, True, -1, 2**70, 0.5, -1e308, float("nan"), float("inf"), "", "9", "\ud800", "\n"]
ANYTHING = st.sampled_from([*ODD, [], {}, [[]], [None], {"": {}}, {"classname": "hat"}])
NUMBERS = st.integers(-5, 70) | ANYTHING
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "classname": st.sampled_from([*LABELS, "dog"]) | ANYTHING,
        "BoundingBox": st.lists(NUMBERS, min_size=3, max_size=5) | ANYTHING,
    },
)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "FileName": st.just("a.png") | ANYTHING,
        "NumOfAnno": st.integers(0, 3) | ANYTHING,
        "Annotations": st.lists(ENTRIES | ANYTHING, max_size=4) | ANYTHING,
    },
)


@given(tree=TREES | ANYTHING)
def test_no_json_stops_its_reader(root: Path, tree: object) -> None:
    accounted(one(root, "json", json.dumps(tree).encode()), root, "json")


TEXTS = st.sampled_from(
    ["a.png", "with_mask", "hat", "dog", "1", "60", "40", "-3", "nan", "", "7.5"]
)
TAGS = (
    *("annotation", "filename", "size", "width", "height", "object", "name", "bndbox"),
    *("xmin", "ymin", "xmax", "ymax"),
)
LEAVES = st.builds("<{0}>{1}</{0}>".format, st.sampled_from(TAGS), TEXTS)
ELEMENTS = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda tag, inside: f"<{tag}>{''.join(inside)}</{tag}>",
        st.sampled_from(TAGS),
        st.lists(inner, max_size=5),
    ),
    max_leaves=12,
)
CORNERS = st.one_of(st.integers(-5, 70), TEXTS)
OBJECTS = st.builds(voc_object, TEXTS, st.tuples(CORNERS, CORNERS, CORNERS, CORNERS))


@given(inside=st.lists(ELEMENTS | OBJECTS, max_size=4), named=st.booleans())
def test_no_xml_stops_its_reader(root: Path, inside: list[str], named: bool) -> None:
    name = "<filename>a.png</filename>" if named else ""
    content = f"<annotation>{name}{''.join(inside)}</annotation>".encode()
    accounted(one(root, "voc", content), root, "voc")


@given(st.dictionaries(st.text(st.sampled_from("ab./"), max_size=6), st.binary(max_size=9)))
def test_no_folder_stops_its_reader(root: Path, drawn: dict[str, bytes]) -> None:
    clear(root)
    parts = ("", "with_mask/", "Non Mask/x/", "hat/")
    contents = {
        f"{parts[i % 4]}f{name.replace('/', '-')}{'.png' if i % 3 else ''}": content
        for i, (name, content) in enumerate(drawn.items())
    }
    for name, content in ({"with_mask/z.png": picture()} | contents).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    found = annotations.read(root, "folders")
    assert [face.photograph.path for face in found.faces] == [f"{root}/with_mask/z.png"]
    named = {problem.file.removeprefix(f"{root}/") for problem in found.problems}
    pictures = {name for name in contents if image_files.is_picture(root / name)}
    nobodys = {name for name in contents.keys() - pictures if "/" not in name}
    hats = {name for name in pictures if name.startswith("hat/")}
    assert named == contents.keys() - nobodys - hats
    assert found.left_out == ({"hat": len(hats)} if hats else {})


# The real ones


def test_the_real_counts_are_those_of_their_readme(real_faces: Path) -> None:
    found = annotations.read(real_faces / "voc", "voc")
    counts = Counter(face.label for face in found.faces)
    assert counts == {"with_mask": 1025, "without_mask": 223, "incorrect": 105}
    assert len({face.photograph.path for face in found.faces}) == 247 and not found.left_out
    beyond = {Path(problem.file).stem.removeprefix("maksssksksss") for problem in found.problems}
    assert beyond == {"231", "457", "501", "603", "787"} and len(found.problems) == 6
    assert all("goes beyond" in problem.what for problem in found.problems)

    found = annotations.read(real_faces / "folders", "folders")
    counts = Counter(face.label for face in found.faces)
    assert counts == {"with_mask": 210, "without_mask": 320} and not found.problems
