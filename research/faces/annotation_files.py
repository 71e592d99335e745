"""Annotation files as programs write them: Pascal VOC, JSON of a picture each, labelme, COCO.

A parser turns the bytes of one file into what it says of each picture, and compares nothing with
the pictures themselves. What is not well-formed is read where only one reading is possible, and
that is remarked.

The files are not trusted: XML without entities (defusedxml), sizes and counts limited, numbers by a
strict pattern.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard
from xml.etree.ElementTree import Element

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from research.structs import one_line

MAX_BYTES = {"voc": 2**20, "json": 2**27}  # of a file; of one picture they have 40 kB at most

_MAX_ELEMENTS = 20_000  # of a picture
_FAR = 1e9  # pixels; no number of a box is further out
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?")
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]{0,200}encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})""")
_CODECS = re.compile(r"(utf|iso|latin|windows|cp|gb|big5|shift|euc|koi8|us-ascii|ascii).*", re.I)
_BARE_AMPERSAND = re.compile(r"&(?!(#[0-9]+|#x[0-9a-fA-F]+|amp|lt|gt|quot|apos);)")
_SHOWN = 80  # characters of a value from a file in a message
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Fault(Exception):
    """A file or an entry in it that cannot be used; the text says why."""


class Entry(NamedTuple):
    """One annotation: a label as written, and left, top, right, bottom in the file's numbers.

    fault: why the label or the corners cannot be read; "" if they can.
    """

    label: str
    corners: Sequence[float]
    fault: str


class Annotation(NamedTuple):
    """What a file says of one picture, not yet compared with it.

    image: the name it gives; "" for none.  size: (width, height) of the picture, if it is stated.
    remarks: (what, done) of what is odd about the whole.
    """

    image: str
    entries: Sequence[Entry]
    size: tuple[int, int] | None
    remarks: Sequence[tuple[str, str]]


def parse_voc(content: bytes) -> list[Annotation]:
    """The one annotation of an XML file of Pascal VOC: corners count from 1, the last one inside.

    Raises Fault for anything else.
    """
    root, remarks = _xml(content)
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]  # without the name of its namespace
    if root.tag != "annotation":
        raise Fault(f"holds <{shown(root.tag)}>, expected <annotation> as in Pascal VOC")
    elements = sum(1 for _ in root.iter())
    if elements > _MAX_ELEMENTS:
        raise Fault(f"{elements:,} elements, expected at most {_MAX_ELEMENTS:,}")
    names = (root.findtext(tag) or "" for tag in ("filename", "path"))
    image = next((name.strip() for name in names if name.strip()), "")
    entries = [
        _entry(lambda each=each: _text(each, "name"), lambda each=each: _voc_corners(each))
        for each in root.findall("object")
    ]
    size = None
    if root.find("size") is not None:
        try:
            element = _only(root, "size")
            width, height = (_number(_text(element, key)) for key in ("width", "height"))
            if width < 1 or height < 1:
                raise Fault(f"{width:g} x {height:g}")
            size = (int(width), int(height))
        except Fault as fault:
            remarks.append((f"size of the picture: {fault}", "not compared"))
    return [Annotation(image, entries, size, remarks)]


def parse_json(content: bytes) -> list[Annotation]:
    """The annotations of a JSON file: corners in pixels from 0, the last one outside.

    Humans in the Loop: `FileName`, `NumOfAnno` and `Annotations` with `classname` and `BoundingBox`
    [x1, y1, x2, y2].  labelme: `imagePath`, `shapes` with `label` and `points`.  COCO: `images`,
    `categories` and `annotations` with `bbox` [x, y, width, height], for many pictures.
    Raises Fault for anything else.
    """
    try:
        document = json.loads(content, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except Exception as error:  # damage surfaces as any type
        raise Fault(f"no JSON that can be read ({one_line(error)})") from None
    keys = document.keys() if isinstance(document, dict) else set[str]()
    if {"images", "annotations", "categories"} <= keys:
        return _coco(document)
    if {"imagePath", "shapes"} <= keys:
        return [_labelme(document)]
    for key, kind in {"FileName": str, "Annotations": list}.items():
        if not isinstance(document, dict) or not isinstance(document.get(key), kind):
            held = f"holds {shown(', '.join(map(str, keys)))}" if keys else "holds none"
            wanted = f"an object with {key}, a {kind.__name__}, or one of COCO or labelme"
            raise Fault(f"expected {wanted}; the file {held}")
    entries = document["Annotations"]
    _check_count(entries)
    stated, remarks = document.get("NumOfAnno"), []
    if type(stated) is not int or stated != len(entries):
        what = f"NumOfAnno is {shown(stated)}, but there are {len(entries)}"
        remarks = [(what, "those that are there are taken")]
    boxes = [_json_entry(each, "classname", "BoundingBox") for each in entries]
    return [Annotation(document["FileName"], boxes, None, remarks)]


def shown(value: object) -> str:
    """A value from a file in a message: one line, not long, of printable characters."""
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"a {type(value).__name__}"


def _xml(content: bytes) -> tuple[Element, list[tuple[str, str]]]:
    """The root, and a remark if the bytes are no XML by the book but can be read all the same."""
    safe: dict[str, Any] = {"forbid_entities": True, "forbid_external": True}
    try:
        return ElementTree.fromstring(content, **safe), []
    except DefusedXmlException as error:
        raise Fault(f"no XML that can be read ({one_line(error)})") from None
    except Exception as error:  # damage surfaces as any type
        reason = one_line(error)
    declared = _DECLARED.match(content)
    codec = declared[1].decode() if declared else "utf-8"
    try:
        text = content.decode(codec if _CODECS.fullmatch(codec) else "utf-8")
    except (LookupError, UnicodeError):
        text = content.decode("utf-8", "replace")
    text = re.sub(r"^\s*<\?xml[^>]{0,200}\?>", "", text.removeprefix("\ufeff")).strip()
    text = _BARE_AMPERSAND.sub("&amp;", text)
    try:
        root = ElementTree.fromstring(text.encode("utf-8", "replace"), **safe)
    except Exception:
        raise Fault(f"no XML that can be read ({reason})") from None
    return root, [(f"not well-formed XML ({reason})", "read all the same")]


def _voc_corners(element: Element) -> Sequence[float]:
    box = _only(element, "bndbox")
    return [_number(_text(box, corner)) for corner in _CORNERS]


def _entry(label: Callable[[], str], corners: Callable[[], Sequence[float]]) -> Entry:
    raw = ""
    try:
        raw = label()
        return Entry(raw, corners(), "")
    except Fault as fault:
        return Entry(raw, (), str(fault))


def _only(element: Element, tag: str) -> Element:
    children = element.findall(tag)
    if len(children) != 1:
        raise Fault(f"{len(children)} <{tag}> in <{element.tag}>, expected one")
    return children[0]


def _text(element: Element, tag: str) -> str:
    text = (_only(element, tag).text or "").strip()
    if not text:
        raise Fault(f"<{tag}> is empty")
    return text


def _number(text: str) -> float:
    """A number as one writes it; Python's `float` also takes "nan", "1_000" and other digits."""
    if not _NUMBER.fullmatch(text) or not abs(float(text)) <= _FAR:
        raise Fault(f"{shown(text)} is no number of pixels")
    return float(text)


def _json_entry(entry: object, label: str, box: str) -> Entry:
    """An object whose label and box stand under these keys."""
    held: dict[str, object] = entry if isinstance(entry, dict) else {}

    def read_label() -> str:
        raw = held.get(label)
        if not isinstance(raw, str):
            raise Fault(f"expected an object with {label}, a str")
        return raw.strip()

    def read_corners() -> Sequence[float]:
        corners = held.get(box)
        if not isinstance(corners, list) or len(corners) != len(_CORNERS):
            raise Fault(f"expected {box}, a list of four numbers")
        for number in corners:
            # bool is an int, 1e999 is infinite, and an int may be too large for a float.
            if type(number) not in (int, float) or not -_FAR <= number <= _FAR:
                raise Fault(f"{shown(number)} is no number of pixels")
        return corners

    return _entry(read_label, read_corners)


def _coco(document: dict[str, Any]) -> list[Annotation]:
    names = {key: each.get("name") for key, each in _by_id(document["categories"]).items()}
    images = _by_id(document["images"])
    entries: defaultdict[object, list[Entry]] = defaultdict(list)
    lost = 0
    for each in document["annotations"] if isinstance(document["annotations"], list) else ():
        held = each if isinstance(each, dict) else {}
        image, category, box = (held.get(key) for key in ("image_id", "category_id", "bbox"))
        if not isinstance(image, int | str) or image not in images:
            lost += 1
            continue
        name = names.get(category) if isinstance(category, int | str) else None
        entry = _json_entry({"category": name, "bbox": box}, "category", "bbox")
        if entry.corners:
            left, top, width, height = entry.corners
            entry = entry._replace(corners=(left, top, left + width, top + height))
        entries[image].append(entry)
    if not images:
        raise Fault("COCO without images, expected images with id and file_name")
    files: list[Annotation] = []
    for key, each in images.items():
        name = each.get("file_name")
        size = _stated(each.get("width"), each.get("height"))
        files.append(Annotation(name if isinstance(name, str) else "", entries[key], size, []))
    if lost:
        what = f"{lost:,} annotations of images that it does not list"
        files[0] = files[0]._replace(remarks=[(what, "left out")])
    return files


def _by_id(listed: object) -> dict[object, dict[str, Any]]:
    """The objects of a list of COCO by their id; others are passed over."""
    objects = (
        [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    )
    return {each["id"]: each for each in objects if isinstance(each.get("id"), int | str)}


def _labelme(document: dict[str, Any]) -> Annotation:
    image, shapes = document["imagePath"], document["shapes"]
    if not isinstance(image, str) or not isinstance(shapes, list):
        raise Fault("expected an object with imagePath, a str, and shapes, a list")
    _check_count(shapes)
    entries: list[Entry] = []
    for shape in shapes:
        held = shape if isinstance(shape, dict) else {}
        points = held.get("points")
        box = None
        if held.get("shape_type", "polygon") in ("rectangle", "polygon") and _are_points(points):
            xs, ys = zip(*points, strict=True)
            box = [min(xs), min(ys), max(xs), max(ys)]
        entries.append(_json_entry({"label": held.get("label"), "points": box}, "label", "points"))
    size = _stated(document.get("imageWidth"), document.get("imageHeight"))
    return Annotation(image, entries, size, [])


def _stated(width: object, height: object) -> tuple[int, int] | None:
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        return width, height
    return None


def _are_points(points: object) -> TypeGuard[list[list[float]]]:
    return (
        isinstance(points, list)
        and len(points) > 1
        and all(isinstance(point, list) and len(point) == 2 for point in points)
        and all(type(number) in (int, float) for point in points for number in point)
    )


def _check_count(entries: Sequence[object]) -> None:
    if len(entries) > _MAX_ELEMENTS:
        raise Fault(f"{len(entries):,} annotations, expected at most {_MAX_ELEMENTS:,}")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _no_twins(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; of two equal keys the last would win without a word."""
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return result
