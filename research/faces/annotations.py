"""Whose faces are in these photographs, whichever of three ways they are annotated in?

voc      images/ and annotations/*.xml, Pascal VOC     Kaggle "andrewmvd/face-mask-detection"
json     images/ and annotations/*.json, one per image Humans in the Loop "Medical Mask Dataset"
folders  class folders at any depth, no boxes          Kaggle "prithwirajmitra/covid-face-mask-..."

Boxes end as 0-based half-open pixels. Those of `voc` are read as Pascal VOC defines them, counted
from 1 with the last pixel inside: of 1,353 real boxes none starts at 0, and they pile up at 1 (15
on the left, 5 above; 4 and 4 at 2) and at the last pixel (14 at the width, 8 at the height). Six
end one beyond the width, as boxes do that count from 1 with their end outside; but none beyond the
height, where that would put the eight. For `json` there are no files to ask: edges, counted from 0.

Nothing is repaired in silence and nothing stops the reader: what cannot be used is left out, what
is changed is said, one `Problem` each. Every annotation file and every picture ends in a face or in
a problem, or has only labels that are left out on purpose, which are counted.

The files are read as a stranger's: XML without entities (defusedxml), sizes and counts limited,
numbers by a strict pattern, and an image is only one that was found by listing `images/`.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from defusedxml import ElementTree

from research.data import image_files
from research.data.provenance import DataError, existing_directory
from research.structs import Box, Face, Problem, one_line

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
_SHOWN = 80  # characters of a stranger's in a message
_NOWHERE = (0.0, 0.0, 0.0, 0.0)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_EXPECTED = {
    "voc": "annotations/*.xml (Pascal VOC) and images/",
    "json": "annotations/*.json (Humans in the Loop) and images/",
    "folders": "pictures in folders with_mask and without_mask (or Mask, Non Mask), at any depth",
}


class Annotated(NamedTuple):
    """What a reader has found: faces by annotation file and then as in it, problems by file.

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
    return _read_annotated(directory, "voc", ".xml", _parse_voc)


def read_json(directory: str | Path) -> Annotated:
    """The faces of `annotations/*.json` in the pictures of `images/`, one file for each picture.

    A file holds `FileName`, `NumOfAnno` and `Annotations`, each with `classname` and `BoundingBox`
    [x1, y1, x2, y2]. Raises DataError if the directory or one of the two folders is missing, with
    what is expected.
    """
    return _read_annotated(directory, "json", ".json", _parse_json)


def read_folders(directory: str | Path) -> Annotated:
    """One face without a box for each picture; its label is the nearest folder that LABELS knows.

    Files that are neither in such a folder nor named like a picture are nobody's loss, and pass.
    Raises DataError if the directory is missing or has no such folder, with what is expected.
    """
    root = existing_directory(directory, _EXPECTED["folders"])
    found = _Found("folders")
    raws = {name: _label_folder(name) for name in _names(root, found)}
    if not any(raws.values()):
        raise DataError(f"{root} has no folder of a known label; expected {_EXPECTED['folders']}")
    for name, raw in raws.items():
        path, picture = f"{root}/{name}", name.lower().endswith(image_files.SUFFIXES)
        if not raw:
            if picture:
                found.problem(path, "no folder above it has a known label", _LEFT_OUT)
        elif not picture:
            found.problem(path, "no picture by its name", _LEFT_OUT)
        elif found.means(raw) and found.size_of(path, _LEFT_OUT):
            found.faces.append(Face(path, None, LABELS[raw], "folders"))
    return found.finish()


def duplicates(paths: Iterable[str]) -> dict[str, str]:
    """{path: the first path with the same bytes} of every file that is not the first of its kind.

    Only files of the same length are read. What cannot be read is taken to be like no other.
    """
    lengths: defaultdict[int, list[str]] = defaultdict(list)
    for path in paths:
        if os.path.isfile(path):  # a pipe would be waited for
            lengths[os.path.getsize(path)].append(path)
    same: dict[str, str] = {}
    for group in lengths.values():
        first: dict[bytes, str] = {}
        for path in group if len(group) > 1 else ():
            try:
                digest = _sha256(path, os.stat(path).st_mtime_ns)
            except OSError:
                continue
            if first.setdefault(digest, path) != path:
                same[path] = first[digest]
    return same


@functools.cache  # a layout is compared with itself, then all layouts with one another
def _sha256(path: str, modified_ns: int) -> bytes:
    del modified_ns  # part of the key: a file that has changed is read again
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class _Object(NamedTuple):
    """One annotated thing; corners: left, top, right, bottom, 0-based half-open.

    fault: why it cannot be used, if so.
    """

    raw: str
    corners: tuple[float, float, float, float]
    fault: str = ""


@dataclass
class _Parsed:
    """What an annotation file says. size: (width, height) of the picture, if it says so.

    remarks: (what, done) of what is odd about the whole file.
    """

    image: str
    objects: list[_Object]
    size: tuple[int, int] | None = None
    remarks: list[tuple[str, str]] = field(default_factory=list)


class _Fault(Exception):
    """A file or a thing in it that cannot be used; the text says why."""


class _Found:
    """Faces, problems and counts, as they are found."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.faces: list[Face] = []
        self.problems: list[Problem] = []
        self.left_out: Counter[str] = Counter()

    def problem(self, file: str, what: str, done: str) -> None:
        self.problems.append(Problem(file, what, done))

    def means(self, raw: str) -> str:
        """The label behind a raw one that LABELS has; what it leaves out is counted."""
        if not LABELS[raw]:
            self.left_out[raw] += 1
        return LABELS[raw]

    def size_of(self, path: str, done: str) -> tuple[int, int] | None:
        """Width and height of a picture; None, and a problem, if its header cannot be read."""
        try:
            return image_files.photograph_size(path)
        except DataError as error:
            self.problem(path, str(error).removeprefix(f"{path}: "), done)
            return None

    def finish(self) -> Annotated:
        """All of it, without the faces of pictures that are there twice."""
        counts = Counter(face.image for face in self.faces)
        labels = {face.image: face.label for face in self.faces}
        twice = duplicates(counts)
        for path, first in twice.items():
            what = f"the same bytes as {first}"
            if self.source == "folders" and labels[path] != labels[first]:
                what += f", which is {labels[first]}"
            self.problem(path, what, f"left out with {_count(counts[path], 'face')}")
        faces = [face for face in self.faces if face.image not in twice]
        problems = sorted(self.problems, key=lambda problem: problem.file)
        return Annotated(faces, problems, dict(sorted(self.left_out.items())))


def _read_annotated(
    directory: str | Path, layout: str, end: str, parse: Callable[[bytes], _Parsed]
) -> Annotated:
    root = existing_directory(directory, _EXPECTED[layout])
    for folder in ("annotations", "images"):
        if not os.path.isdir(root / folder):
            raise DataError(f"{root} lacks {folder}/; expected {_EXPECTED[layout]}")
    found = _Found(layout)
    annotated_by = dict.fromkeys(_names(root / "images", found), "")
    for name in _names(root / "annotations", found):
        path = f"{root}/annotations/{name}"
        try:
            if not name.lower().endswith(end):
                raise _Fault(f"expected a name with {end}")
            parsed = parse(_content(path))
            image = _image(parsed.image, annotated_by)
            if annotated_by[image]:
                raise _Fault(f"{image!r} is annotated already, by {annotated_by[image]}")
        except _Fault as fault:
            found.problem(path, str(fault), _LEFT_OUT)
            continue
        annotated_by[image] = path
        _take(parsed, path, f"{root}/images/{image}", found)
    for image, path in annotated_by.items():
        if not path:
            found.problem(f"{root}/images/{image}", "no usable annotation names it", _LEFT_OUT)
    return found.finish()


def _take(parsed: _Parsed, path: str, image: str, found: _Found) -> None:
    """Enter the faces of one annotation file."""
    for what, done in parsed.remarks:
        found.problem(path, what, done)
    if not parsed.objects:
        found.problem(path, "annotates nothing", "its picture is left out")
        return
    done = f"left out with {_count(len(parsed.objects), 'annotation')}"
    size = found.size_of(image, done)
    if size is None:
        return
    if parsed.size not in (None, size):
        said, seen = (f"{width} x {height}" for width, height in (parsed.size or size, size))
        found.problem(path, f"is of a picture of {said} pixels, but {image} has {seen}", done)
        return
    for number, thing in enumerate(parsed.objects, 1):
        where, raw = f"object {number} ({_shown(thing.raw)})", thing.raw.lower()
        if raw in LABELS and not found.means(raw):
            continue
        box, what = (None, thing.fault) if thing.fault else _box(thing.corners, size)
        if raw not in LABELS and not thing.fault:
            box, what = (
                None,
                "unknown label; expected one of LABELS in research/faces/annotations.py",
            )
        if what:
            found.problem(path, f"{where}: {what}", "cut to the picture" if box else _LEFT_OUT)
        if box:
            found.faces.append(Face(image, box, LABELS[raw], found.source))


def _box(
    corners: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[Box | None, str]:
    """The box in whole pixels, cut to the picture, or None; and what is wrong with it, or ""."""
    left, top, right, bottom = (math.floor(corner + 0.5) for corner in corners)
    width, height = size
    shown = f"box from {left}, {top} to {right}, {bottom}"
    beyond = f"the picture of {width} x {height} pixels"
    if right < left or bottom < top:
        return None, f"{shown} is inverted"
    if right == left or bottom == top:
        return None, f"{shown} is empty"
    inside = Box(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    if inside.width < 1 or inside.height < 1:
        return None, f"{shown} is outside {beyond}"
    if inside != Box(left, top, right, bottom):
        return inside, f"{shown} goes beyond {beyond}"
    return inside, ""


def _parse_voc(content: bytes) -> _Parsed:
    try:
        root = ElementTree.fromstring(content, forbid_dtd=True)
    except Exception as error:  # damage surfaces as any type
        raise _Fault(f"no XML that can be read ({one_line(error)})") from None
    if root.tag != "annotation":
        raise _Fault(f"holds <{_shown(root.tag)}>, expected <annotation> as in Pascal VOC")
    elements = sum(1 for _ in root.iter())
    if elements > _MAX_ELEMENTS:
        raise _Fault(f"{elements:,} elements, expected at most {_MAX_ELEMENTS:,}")
    parsed = _Parsed(_text(root, "filename"), [_voc_object(e) for e in root.findall("object")])
    try:
        parsed.size = _voc_size(root)
    except _Fault as fault:
        parsed.remarks.append((f"size of the picture: {fault}", "not compared"))
    return parsed


def _voc_size(root: Element) -> tuple[int, int] | None:
    if root.find("size") is None:
        return None
    size = _only(root, "size")
    width, height = (_number(_text(size, key)) for key in ("width", "height"))
    if width < 1 or height < 1:
        raise _Fault(f"{width:g} x {height:g}")
    return int(width), int(height)


def _voc_object(element: Element) -> _Object:
    raw = ""
    try:
        raw = _text(element, "name")
        box = _only(element, "bndbox")
        left, top, right, bottom = (_number(_text(box, corner)) for corner in _CORNERS)
    except _Fault as fault:
        return _Object(raw, _NOWHERE, str(fault))
    return _Object(raw, (left - 1, top - 1, right, bottom))


def _only(element: Element, tag: str) -> Element:
    found = element.findall(tag)
    if len(found) != 1:
        raise _Fault(f"{len(found)} <{tag}> in <{element.tag}>, expected one")
    return found[0]


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


def _parse_json(content: bytes) -> _Parsed:
    try:
        parsed = json.loads(content, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except Exception as error:  # damage surfaces as any type
        raise _Fault(f"no JSON that can be read ({one_line(error)})") from None
    keys = {"FileName": str, "Annotations": list}
    for key, kind in keys.items():
        if not isinstance(parsed, dict) or not isinstance(parsed.get(key), kind):
            raise _Fault(f"expected an object with {key}, a {kind.__name__}")
    entries = parsed["Annotations"]
    if len(entries) > _MAX_ELEMENTS:
        raise _Fault(f"{len(entries):,} annotations, expected at most {_MAX_ELEMENTS:,}")
    result = _Parsed(parsed["FileName"], [_json_object(entry) for entry in entries])
    said = parsed.get("NumOfAnno")
    if type(said) is not int or said != len(entries):
        what = f"NumOfAnno is {_shown(said)}, but there are {len(entries)}"
        result.remarks.append((what, "those that are there are taken"))
    return result


def _json_object(entry: object) -> _Object:
    raw = entry.get("classname") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(raw, str):
        return _Object("", _NOWHERE, "expected an object with classname, a str")
    box = entry.get("BoundingBox")
    if not isinstance(box, list) or len(box) != len(_CORNERS):
        return _Object(raw, _NOWHERE, "expected BoundingBox, a list of four numbers")
    for number in box:
        # bool is an int, 1e999 is infinite, and an int may be too large for a float.
        if type(number) not in (int, float) or not -_FAR <= number <= _FAR:
            return _Object(raw, _NOWHERE, f"{_shown(number)} is no number of pixels")
    left, top, right, bottom = box
    return _Object(raw, (left, top, right, bottom))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _no_twins(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; of two equal keys the last would win without a word."""
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _image(name: str, images: Mapping[str, str]) -> str:
    """The one of `images`, names with "/", that an annotation means."""
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


def _names(root: Path, found: _Found) -> list[str]:
    """All files below a folder, sorted, as "folder/name"; hidden ones belong to file managers."""
    names: list[str] = []
    waiting, seen = [""], {os.path.realpath(root)}
    while waiting:
        below = waiting.pop()
        try:
            inside = [name for name in os.listdir(root / below) if not name.startswith(".")]
        except OSError as error:
            found.problem(str(root / below), f"cannot be listed ({error.strerror})", _LEFT_OUT)
            continue
        for name in (f"{below}{name}" for name in inside):
            real = os.path.realpath(root / name)
            if not os.path.isdir(real):
                names.append(name)
            elif real in seen:  # a link may lead round in a circle
                found.problem(f"{root}/{name}", "a folder that is read already", _LEFT_OUT)
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
    """A stranger's value in a message: one line, not long, of printable characters."""
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"a {type(value).__name__}"
