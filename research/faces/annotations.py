"""Reader of annotated photographs in three layouts: each face with its photograph, box and label.

voc      images/ and annotations/*.xml, Pascal VOC     Kaggle "andrewmvd/face-mask-detection"
json     images/ and annotations/*.json, one per image Humans in the Loop "Medical Mask Dataset"
folders  class folders at any depth, no boxes          Kaggle "prithwirajmitra/covid-face-mask-..."

Boxes end as 0-based half-open pixels. Those of `voc` are read as Pascal VOC defines them, counted
from 1 with the last pixel inside: of 1,353 real boxes none starts at 0, and they pile up at 1 (15
on the left, 5 above; 4 and 4 at 2) and at the last pixel (14 at the width, 8 at the height). Six
end one beyond the width, as boxes do that count from 1 with their end outside; but none beyond the
height, where that would put the eight. For `json` there are no files to ask: edges, counted from 0.

Nothing is repaired in silence and nothing stops the reader: what cannot be used is left out, what
is changed is reported, one `Problem` each. Every annotation file and every picture ends in a face
or in a problem, or has only labels that are left out on purpose, which are counted.

The files are not trusted: XML without entities (defusedxml), sizes and counts limited, numbers by a
strict pattern, and an image is only one that was found by listing `images/`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from defusedxml import ElementTree

from research.data import image_files
from research.data.provenance import DataError, existing_directory
from research.structs import one_line

LAYOUTS = ("voc", "json", "folders")

# What each label of the three data sets means here, whatever its case. "": no face, or a face that
# nobody has called with or without a mask.
LABELS = {
    # voc
    "with_mask": "with_mask",
    "without_mask": "without_mask",
    "mask_weared_incorrect": "incorrect",
    # folders
    "mask": "with_mask",
    "non mask": "without_mask",
    # json
    "face_with_mask": "with_mask",
    "face_no_mask": "without_mask",
    "face_with_mask_incorrect": "incorrect",
    "face_other_covering": "",
    "mask_surgical": "",
    "mask_colorful": "",
    "gas_mask": "",
    "balaclava_ski_mask": "",
    "face_shield": "",
    "scarf_bandana": "",
    "hijab_niqab": "",
    "turban": "",
    "hood": "",
    "hat": "",
    "helmet": "",
    "hair_net": "",
    "eyeglasses": "",
    "sunglasses": "",
    "goggles": "",
    "other": "",
}

_LEFT_OUT = "left out"
_MAX_BYTES = 2**20  # of an annotation file; the real ones have 40 kB at most
_MAX_ELEMENTS = 20_000
_FAR = 1e9  # pixels; no number of a box is further out
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?")
_SHOWN = 80  # characters of a value from a file in a message
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_EXPECTED = {
    "voc": "annotations/*.xml (Pascal VOC) and images/",
    "json": "annotations/*.json (Humans in the Loop) and images/",
    "folders": "pictures in folders with_mask and without_mask (or Mask, Non Mask), at any depth",
}


@dataclass(frozen=True)
class Box:
    """A part of a picture, in whole pixels: columns left .. right - 1, rows top .. bottom - 1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top


@dataclass(frozen=True)
class Photograph:
    """A file with a photograph; its header is read once, its bytes are hashed once at most.

    width, height: in pixels, as it is displayed (turned as its EXIF entry says).
    """

    path: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """How many it has; decoding takes memory in proportion."""
        return self.width * self.height

    @functools.cached_property
    def sha256(self) -> bytes:
        """Digest of the file, read when it is first asked for.  Raises OSError."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


@dataclass(frozen=True)
class Face:
    """One face of a photograph, as it is annotated.

    box: in the photograph as it is displayed; None if there is one person in it whose face has
    still to be detected.  label: its class.  source: the layout of its data set, as "voc".
    """

    photograph: Photograph
    box: Box | None
    label: str
    source: str


@dataclass(frozen=True)
class Problem:
    """Something wrong in data of a user's: the file, what is wrong, and what was done about it."""

    file: str
    what: str
    done: str


class Annotated(NamedTuple):
    """Content of a data set: faces by annotation file and then as in it, problems by file.

    left_out: {raw label: its count}, of labels that mean "" in LABELS.
    """

    faces: list[Face]
    problems: list[Problem]
    left_out: dict[str, int]


def read(directory: str | Path, layout: str) -> Annotated:
    """The faces of a data set in one of LAYOUTS. Raises DataError as the three readers do."""
    readers = {"voc": read_voc, "json": read_json, "folders": read_folders}
    if layout not in readers:
        raise DataError(f"layout {layout!r} is unknown; expected one of {', '.join(LAYOUTS)}")
    return readers[layout](directory)


def read_voc(directory: str | Path) -> Annotated:
    """The faces of `annotations/*.xml` in the pictures of `images/`, as Pascal VOC writes them.

    Raises DataError if the directory or one of the two folders is missing, with what is expected.
    """
    return _read_annotated(directory, "voc")


def read_json(directory: str | Path) -> Annotated:
    """The faces of `annotations/*.json` in the pictures of `images/`, one file for each picture.

    A file holds `FileName`, `NumOfAnno` and `Annotations`, each with `classname` and `BoundingBox`
    [x1, y1, x2, y2]. Raises DataError if the directory or one of the two folders is missing, with
    what is expected.
    """
    return _read_annotated(directory, "json")


def read_folders(directory: str | Path) -> Annotated:
    """One face without a box for each picture; its label is the nearest folder that LABELS knows.

    Files that are neither in such a folder nor named like a picture are passed over.
    Raises DataError if the directory is missing or has no such folder, with what is expected.
    """
    root = existing_directory(directory, _EXPECTED["folders"])
    reading = _Reading("folders")
    raws = {name: _label_folder(name) for name in _names(root, reading)}
    if not any(raws.values()):
        raise DataError(f"{root} has no folder of a known label; expected {_EXPECTED['folders']}")
    for name, raw in raws.items():
        path, is_picture = f"{root}/{name}", name.lower().endswith(image_files.SUFFIXES)
        if not raw:
            if is_picture:
                reading.problem(path, "no folder above it has a known label", _LEFT_OUT)
        elif not is_picture:
            reading.problem(path, "no picture by its name", _LEFT_OUT)
        elif not LABELS[raw]:
            reading.left_out[raw] += 1
        elif photograph := reading.photograph(path, _LEFT_OUT):
            reading.faces.append(Face(photograph, None, LABELS[raw], "folders"))
    return reading.finish()


def duplicates(photographs: Iterable[Photograph]) -> dict[str, str]:
    """{path: the first path with the same bytes} of every photograph that is not the first.

    Only files of the same length are hashed.  One that cannot be read has no duplicate.
    """
    lengths: defaultdict[int, list[Photograph]] = defaultdict(list)
    for photograph in photographs:
        if os.path.isfile(photograph.path):  # a pipe would be waited for
            lengths[os.path.getsize(photograph.path)].append(photograph)
    first_of: dict[str, str] = {}
    for group in lengths.values():
        firsts: dict[bytes, str] = {}
        for photograph in group if len(group) > 1 else ():
            try:
                first = firsts.setdefault(photograph.sha256, photograph.path)
            except OSError:
                continue
            if first != photograph.path:
                first_of[photograph.path] = first
    return first_of


class _Fault(Exception):
    """A file or an entry in it that cannot be used; the text says why."""


class _File(NamedTuple):
    """An annotation file as it stands, not yet compared with its photograph.

    image: the name it gives.  entries: elements of XML or values of JSON, one for each annotation.
    size: (width, height) of the picture, if it is stated.  remarks: (what, done) of what is odd
    about the whole file.
    """

    image: str
    entries: Sequence[Any]
    size: tuple[int, int] | None
    remarks: Sequence[tuple[str, str]]


class _Format(NamedTuple):
    """How the annotation files of a layout are read; all three raise `_Fault`.

    corners: of an entry: left, top, right, bottom in pixels, 0-based half-open.
    """

    end: str
    parse: Callable[[bytes], _File]
    label: Callable[[Any], str]
    corners: Callable[[Any], Sequence[float]]


class _Reading:
    """The content of a data set while it is read."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.faces: list[Face] = []
        self.problems: list[Problem] = []
        self.left_out: Counter[str] = Counter()

    def problem(self, file: str, what: str, done: str) -> None:
        self.problems.append(Problem(file, what, done))

    def photograph(self, path: str, done: str) -> Photograph | None:
        """The photograph of a file; None, and a problem, if its header cannot be read."""
        try:
            return Photograph(path, *image_files.photograph_size(path))
        except DataError as error:
            self.problem(path, str(error).removeprefix(f"{path}: "), done)
            return None

    def finish(self) -> Annotated:
        """All of it, without the faces of duplicate photographs."""
        counts = Counter(face.photograph for face in self.faces)
        faces_of = {photograph.path: count for photograph, count in counts.items()}
        label_of = {face.photograph.path: face.label for face in self.faces}
        first_of = duplicates(counts)
        for path, first in first_of.items():
            what = f"the same bytes as {first}"
            if self.source == "folders" and label_of[path] != label_of[first]:
                what += f", which is {label_of[first]}"
            self.problem(path, what, f"left out with {_count(faces_of[path], 'face')}")
        faces = [face for face in self.faces if face.photograph.path not in first_of]
        problems = sorted(self.problems, key=lambda problem: problem.file)
        return Annotated(faces, problems, dict(sorted(self.left_out.items())))


def _read_annotated(directory: str | Path, layout: str) -> Annotated:
    root, form = existing_directory(directory, _EXPECTED[layout]), _FORMATS[layout]
    for folder in ("annotations", "images"):
        if not os.path.isdir(root / folder):
            raise DataError(f"{root} lacks {folder}/; expected {_EXPECTED[layout]}")
    reading = _Reading(layout)
    annotated_by = dict.fromkeys(_names(root / "images", reading), "")
    for name in _names(root / "annotations", reading):
        path = f"{root}/annotations/{name}"
        try:
            if not name.lower().endswith(form.end):
                raise _Fault(f"expected a name with {form.end}")
            file = form.parse(_content(path))
            image = _image(file.image, annotated_by)
            if annotated_by[image]:
                raise _Fault(f"{image!r} is annotated already, by {annotated_by[image]}")
        except _Fault as fault:
            reading.problem(path, str(fault), _LEFT_OUT)
            continue
        annotated_by[image] = path
        _read_entries(file, path, f"{root}/images/{image}", form, reading)
    for image, path in annotated_by.items():
        if not path:
            reading.problem(f"{root}/images/{image}", "no usable annotation names it", _LEFT_OUT)
    return reading.finish()


def _read_entries(file: _File, path: str, image: str, form: _Format, reading: _Reading) -> None:
    """Add the faces of one annotation file, found at `path`, to what is read."""
    for what, done in file.remarks:
        reading.problem(path, what, done)
    if not file.entries:
        reading.problem(path, "annotates nothing", "its picture is left out")
        return
    done = f"left out with {_count(len(file.entries), 'annotation')}"
    photograph = reading.photograph(image, done)
    if photograph is None:
        return
    size = (photograph.width, photograph.height)
    if file.size not in (None, size):
        stated, actual = (f"{width} x {height}" for width, height in (file.size or size, size))
        what = f"is of a picture of {stated} pixels, but {image} has {actual}"
        reading.problem(path, what, done)
        return
    for number, entry in enumerate(file.entries, 1):
        raw = ""
        try:
            raw = form.label(entry)
            label = LABELS.get(raw.lower())
            if label == "":
                reading.left_out[raw.lower()] += 1
                continue
            corners = form.corners(entry)
            if label is None:
                raise _Fault(
                    "unknown label; expected one of LABELS in research/faces/annotations.py"
                )
            box, cut = _box(corners, photograph)
        except _Fault as fault:
            reading.problem(path, f"object {number} ({_shown(raw)}): {fault}", _LEFT_OUT)
            continue
        if cut:
            what = f"object {number} ({_shown(raw)}): {cut}"
            reading.problem(path, what, "cut to the picture")
        reading.faces.append(Face(photograph, box, label, reading.source))


def _box(corners: Sequence[float], photograph: Photograph) -> tuple[Box, str]:
    """The box in whole pixels, cut to the picture; and how it goes beyond it, "" if it does not.

    Raises _Fault if it has no pixel of the picture.
    """
    left, top, right, bottom = (math.floor(corner + 0.5) for corner in corners)
    width, height = photograph.width, photograph.height
    shown = f"box from {left}, {top} to {right}, {bottom}"
    beyond = f"the picture of {width} x {height} pixels"
    if right < left or bottom < top:
        raise _Fault(f"{shown} is inverted")
    if right == left or bottom == top:
        raise _Fault(f"{shown} is empty")
    inside = Box(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    if inside.width < 1 or inside.height < 1:
        raise _Fault(f"{shown} is outside {beyond}")
    is_cut = inside != Box(left, top, right, bottom)
    return inside, f"{shown} goes beyond {beyond}" if is_cut else ""


def _parse_voc(content: bytes) -> _File:
    try:
        root = ElementTree.fromstring(content, forbid_dtd=True)
    except Exception as error:  # damage surfaces as any type
        raise _Fault(f"no XML that can be read ({one_line(error)})") from None
    if root.tag != "annotation":
        raise _Fault(f"holds <{_shown(root.tag)}>, expected <annotation> as in Pascal VOC")
    elements = sum(1 for _ in root.iter())
    if elements > _MAX_ELEMENTS:
        raise _Fault(f"{elements:,} elements, expected at most {_MAX_ELEMENTS:,}")
    image, objects = _text(root, "filename"), root.findall("object")
    if root.find("size") is None:
        return _File(image, objects, None, ())
    try:
        element = _only(root, "size")
        width, height = (_number(_text(element, key)) for key in ("width", "height"))
        if width < 1 or height < 1:
            raise _Fault(f"{width:g} x {height:g}")
    except _Fault as fault:
        return _File(image, objects, None, [(f"size of the picture: {fault}", "not compared")])
    return _File(image, objects, (int(width), int(height)), ())


def _voc_label(element: Element) -> str:
    return _text(element, "name")


def _voc_corners(element: Element) -> Sequence[float]:
    box = _only(element, "bndbox")
    left, top, right, bottom = (_number(_text(box, corner)) for corner in _CORNERS)
    return left - 1, top - 1, right, bottom


def _only(element: Element, tag: str) -> Element:
    children = element.findall(tag)
    if len(children) != 1:
        raise _Fault(f"{len(children)} <{tag}> in <{element.tag}>, expected one")
    return children[0]


def _text(element: Element, tag: str) -> str:
    text = (_only(element, tag).text or "").strip()
    if not text:
        raise _Fault(f"<{tag}> is empty")
    return text


def _number(text: str) -> float:
    """A number as one writes it; Python's `float` also takes "nan", "1_000" and other digits."""
    if not _NUMBER.fullmatch(text) or not abs(float(text)) <= _FAR:
        raise _Fault(f"{_shown(text)} is no number of pixels")
    return float(text)


def _parse_json(content: bytes) -> _File:
    try:
        document = json.loads(content, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except Exception as error:  # damage surfaces as any type
        raise _Fault(f"no JSON that can be read ({one_line(error)})") from None
    keys = {"FileName": str, "Annotations": list}
    for key, kind in keys.items():
        if not isinstance(document, dict) or not isinstance(document.get(key), kind):
            raise _Fault(f"expected an object with {key}, a {kind.__name__}")
    entries = document["Annotations"]
    if len(entries) > _MAX_ELEMENTS:
        raise _Fault(f"{len(entries):,} annotations, expected at most {_MAX_ELEMENTS:,}")
    stated, remarks = document.get("NumOfAnno"), []
    if type(stated) is not int or stated != len(entries):
        what = f"NumOfAnno is {_shown(stated)}, but there are {len(entries)}"
        remarks = [(what, "those that are there are taken")]
    return _File(document["FileName"], entries, None, remarks)


def _json_label(entry: object) -> str:
    raw = entry.get("classname") if isinstance(entry, dict) else None
    if not isinstance(raw, str):
        raise _Fault("expected an object with classname, a str")
    return raw


def _json_corners(entry: dict[str, object]) -> Sequence[float]:
    box = entry.get("BoundingBox")
    if not isinstance(box, list) or len(box) != len(_CORNERS):
        raise _Fault("expected BoundingBox, a list of four numbers")
    for number in box:
        # bool is an int, 1e999 is infinite, and an int may be too large for a float.
        if type(number) not in (int, float) or not -_FAR <= number <= _FAR:
            raise _Fault(f"{_shown(number)} is no number of pixels")
    return box


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _no_twins(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; of two equal keys the last would win without a word."""
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _image(name: str, images: Mapping[str, str]) -> str:
    """The one of `images`, names with "/", that an annotation names."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts or not parts[0] or re.match("[A-Za-z]:", name):
        raise _Fault(f"names the image {_shown(name)}, which leads out of images/")
    inside = "/".join(part for part in parts if part not in ("", "."))
    if inside not in images:
        raise _Fault(f"names the image {_shown(name)}, which is not in images/")
    return inside


def _content(path: str) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise _Fault("is no regular file")
        if status.st_size > _MAX_BYTES:
            raise _Fault(f"{status.st_size:,} bytes, expected at most {_MAX_BYTES:,}")
        return Path(path).read_bytes()
    except OSError as error:
        raise _Fault(f"cannot be read ({error.strerror})") from None


def _names(root: Path, reading: _Reading) -> list[str]:
    """All files below a folder, sorted, as "folder/name"; hidden ones belong to file managers."""
    names: list[str] = []
    waiting, seen = [""], {os.path.realpath(root)}
    while waiting:
        below = waiting.pop()
        try:
            inside = [name for name in os.listdir(root / below) if not name.startswith(".")]
        except OSError as error:
            reading.problem(str(root / below), f"cannot be listed ({error.strerror})", _LEFT_OUT)
            continue
        for name in (f"{below}{name}" for name in inside):
            real = os.path.realpath(root / name)
            if not os.path.isdir(real):
                names.append(name)
            elif real in seen:  # a link may lead round in a circle
                reading.problem(f"{root}/{name}", "a folder that is read already", _LEFT_OUT)
            else:
                seen.add(real)
                waiting.append(f"{name}/")
    return sorted(names)


def _label_folder(name: str) -> str:
    """The nearest folder above a file that LABELS knows, in small letters; "" if there is none."""
    folders = name.lower().split("/")[:-1]
    return next((folder for folder in reversed(folders) if folder in LABELS), "")


def _count(number: int, noun: str) -> str:
    return f"its {number:,} {noun}{'s' if number > 1 else ''}" if number > 1 else f"its {noun}"


def _shown(value: object) -> str:
    """A value from a file in a message: one line, not long, of printable characters."""
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"a {type(value).__name__}"


_FORMATS = {
    "voc": _Format(".xml", _parse_voc, _voc_label, _voc_corners),
    "json": _Format(".json", _parse_json, _json_label, _json_corners),
}
