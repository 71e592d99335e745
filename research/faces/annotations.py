"""Reader of annotated photographs in three layouts: each face with its photograph, box and label.

voc      pictures and *.xml, Pascal VOC                Kaggle "andrewmvd/face-mask-detection"
json     pictures and *.json, one each, or COCO        Humans in the Loop "Medical Mask Dataset"
folders  class folders at any depth, no boxes          Kaggle "prithwirajmitra/covid-face-mask-..."

Pictures and annotations lie in folders of their usual names or beside each other; `detect` finds
out which layouts a directory holds, `annotation_files` reads the files.

Boxes end as 0-based half-open pixels. Those of `voc` are read as Pascal VOC defines them, counted
from 1 with the last pixel inside: of 1,353 real boxes none starts at 0, and they pile up at 1 (15
on the left, 5 above; 4 and 4 at 2) and at the last pixel (14 at the width, 8 at the height). Six
end one beyond the width, as boxes do that count from 1 with their end outside; but none beyond the
height, where that would put the eight. For `json` there are no files to ask: edges, counted from 0.

Nothing is repaired in silence and nothing stops the reader: what cannot be used is left out, what
is changed is reported, one `Problem` each. Every annotation file and every picture ends in a face
or in a problem, or has only labels that are left out on purpose, which are counted. A picture is
only one that was found by listing the folder of pictures.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import os
import re
import stat
import unicodedata
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from research.data import image_files
from research.data.provenance import DataError, existing_directory
from research.faces.annotation_files import (
    MAX_BYTES,
    Annotation,
    Entry,
    Fault,
    parse_json,
    parse_voc,
    shown,
)

LAYOUTS = ("voc", "json", "folders")

# What a label means here; case, spaces, hyphens and underscores do not matter. "": no face, or a
# face that nobody has called with or without a mask.
LABELS = {
    # voc
    "with_mask": "with_mask",
    "without_mask": "without_mask",
    "mask_weared_incorrect": "incorrect",
    # folders
    "mask": "with_mask",
    "non mask": "without_mask",
    # other sets
    "masked": "with_mask",
    "face_mask": "with_mask",
    "wearing_mask": "with_mask",
    "mask_on": "with_mask",
    "no_mask": "without_mask",
    "unmasked": "without_mask",
    "no_face_mask": "without_mask",
    "not_wearing_mask": "without_mask",
    "mask_off": "without_mask",
    "face_without_mask": "without_mask",
    "incorrect": "incorrect",
    "incorrect_mask": "incorrect",
    "mask_incorrect": "incorrect",
    "improper_mask": "incorrect",
    "mask_worn_incorrectly": "incorrect",
    "mask_worn_incorrect": "incorrect",
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
_END = {"voc": ".xml", "json": ".json"}
_PARSE = {"voc": parse_voc, "json": parse_json}
_FIRST_PIXEL = {"voc": 1, "json": 0}  # as corners count; with 1 the last pixel is inside
_EXPECTED = {
    "voc": "annotations/*.xml (Pascal VOC) and images/, or both beside each other",
    "json": "annotations/*.json (Humans in the Loop, labelme or COCO) and images/, or both beside "
    "each other",
    "folders": "pictures in folders with_mask and without_mask (or Mask, Non Mask), at any depth",
}
# In small letters, the most usual ones first.
_IMAGE_FOLDERS = ("images", "jpegimages", "image", "imgs", "img", "pictures", "photos")
_ANNOTATION_FOLDERS = ("annotations", "annotation", "annots", "xml", "xmls", "json", "jsons")
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)  # EXIF orientations
# What differs between problems of one kind: values, paths and numbers.
_PARTICULAR = re.compile(r"""'[^']*'|"[^"]*"|/[^:;,]*|[-+]?[0-9]+([.,][0-9]+)*""")


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

    width, height: in pixels, as it is displayed.  orientation: how a viewer turns what is stored to
    display it, 1 to 8 as EXIF counts; 1 is not at all.
    """

    path: str
    width: int
    height: int
    orientation: int = 1

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


@dataclass(frozen=True)
class Settings:
    """What a user says about data of their own.

    labels: {label of theirs: its class, or "" to leave it out}, before LABELS.
    stored: whether boxes are those of a picture as it is stored, where EXIF turns it and the size
    in the annotation does not tell; else of the picture as it is displayed.
    whole: whether the pictures of `folders` are faces already, to be taken whole.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    stored: bool = False
    whole: bool = False


class Annotated(NamedTuple):
    """Content of a data set: faces by annotation file and then as in it, problems by file.

    pictures: how many there are, whether or not they can be used.

    left_out: {raw label: its count}, of labels that mean "".  unknown: the same, of labels that
    mean nothing; each is a problem as well.
    """

    pictures: int
    faces: list[Face]
    problems: list[Problem]
    left_out: dict[str, int]
    unknown: dict[str, int]


def read(directory: str | Path, layout: str, settings: Settings = Settings()) -> Annotated:
    """The faces of a data set in one of LAYOUTS.

    Raises DataError if the directory is missing or holds nothing of the layout, with what it holds
    and what is expected.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r} is unknown; expected one of {', '.join(LAYOUTS)}")
    root = existing_directory(directory, _EXPECTED[layout])
    reading = _Reading(layout, settings)
    if layout == "folders":
        _read_folders(root, reading)
    else:
        _read_annotated(root, layout, reading)
    return reading.finish()


def detect(directory: str | Path) -> dict[str, str]:
    """{layout: the directory below `directory`, or itself, that `read` takes}, by what lies there.

    Raises DataError if there is nothing of any layout.
    """
    root = existing_directory(directory, "annotated photographs")
    names = _names(root, _Reading("", Settings()))
    layouts: dict[str, str] = {}
    for layout, end in _END.items():
        files = [name for name in names if name.lower().endswith(end)]
        if layout == "json":
            files = [name for name in files if _is_annotation(root / name)]
        if files:
            common = os.path.commonpath([os.path.dirname(name) for name in files])
            above, name = os.path.split(common)
            layouts[layout] = above if name.lower() in _ANNOTATION_FOLDERS else common
    meanings = _meanings(Settings())
    tops = {
        os.path.dirname(folder)
        for folder in {
            os.path.dirname(name) for name in names if image_files.is_picture(root / name)
        }
        if meanings.get(_folded(os.path.basename(folder)), ("", ""))[1]
        and not any(_is_below(folder, taken) for taken in layouts.values())
    }
    if tops:
        layouts["folders"] = os.path.commonpath(tops)
    if not layouts:
        raise DataError(
            f"{root} {_contents(names)}; expected one or more of: {'; '.join(_EXPECTED.values())}"
        )
    return {layout: str(root / folder) for layout, folder in layouts.items()}


def kinds(problems: Iterable[Problem]) -> list[tuple[str, int, Problem]]:
    """(what is wrong without what is particular, how often, the first), the commonest first."""
    groups: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[_PARTICULAR.sub("...", problem.what)].append(problem)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [(kind, len(group), group[0]) for kind, group in ordered]


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


class _Reading:
    """The content of a data set while it is read."""

    def __init__(self, source: str, settings: Settings) -> None:
        self.source = source
        self.settings = settings
        self.meanings = _meanings(settings)
        self.pictures = 0
        self.faces: list[Face] = []
        self.problems: list[Problem] = []
        self.left_out: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()

    def problem(self, file: str, what: str, done: str) -> None:
        self.problems.append(Problem(file, what, done))

    def photograph(self, path: str, done: str) -> Photograph | None:
        """The photograph of a file; None, and a problem, if its header cannot be read."""
        try:
            return Photograph(path, *image_files.photograph_header(path))
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
        left_out, unknown = (dict(sorted(each.items())) for each in (self.left_out, self.unknown))
        return Annotated(self.pictures, faces, problems, left_out, unknown)


class _Pictures:
    """The pictures of a data set, and which of them an annotation means.

    names: below the folder of pictures, with "/".  folder: what it is called in messages.
    """

    def __init__(self, names: Sequence[str], folder: str) -> None:
        self.folder = folder
        self._names = set(names)
        self._by_base: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            base = unicodedata.normalize("NFC", os.path.basename(name))
            self._by_base[base].append(name)
            self._by_stem[os.path.splitext(base)[0].casefold()].append(name)

    def exact(self, image: str, annotation: str) -> str:
        """The picture of just this name, beside the annotation or from the top; "" for none."""
        parts = re.split(r"[/\\]", image)
        inside = "/".join(part for part in parts if part not in ("", "."))
        beside = f"{os.path.dirname(annotation)}/{inside}".lstrip("/")
        if ".." in parts or not parts[0]:
            return ""
        return next((name for name in (beside, inside) if name in self._names), "")

    def similar(self, image: str, annotation: str) -> tuple[str, str]:
        """The picture that can be meant, and by what; both names are without their folders.

        Raises Fault if there is none, or more than one by the first means that finds any.
        """
        base = unicodedata.normalize("NFC", re.split(r"[/\\]", image)[-1])
        plain = urllib.parse.unquote(base)
        own = unicodedata.normalize("NFC", os.path.basename(annotation))
        ways = [
            ("its name without folders", self._by_base, base),
            ("its name without %-signs", self._by_base, plain),
            ("its name with another ending or case", self._by_stem, os.path.splitext(plain)[0]),
            ("its name with another ending or case", self._by_stem, plain),
            ("the name of the annotation", self._by_stem, os.path.splitext(own)[0]),
        ]
        named = f"names the image {shown(image)}" if image else "names no image"
        for means, table, key in ways:
            candidates = table.get(key if table is self._by_base else key.casefold(), [])
            candidates = candidates if key else []
            folder = os.path.dirname(annotation)
            beside = [name for name in candidates if os.path.dirname(name) == folder]
            candidates = beside if len(beside) == 1 else candidates
            if len(candidates) > 1:
                first, second = candidates[:2]
                raise Fault(
                    f"{named}; {shown(first)} and {shown(second)} could be meant by {means}"
                )
            if candidates:
                return candidates[0], f"{named}, which is not in {self.folder}; found by {means}"
        raise Fault(f"{named}, which is not in {self.folder}" if image else named)


def _read_folders(root: Path, reading: _Reading) -> None:
    """One face for each picture; its label is the nearest folder above it that means a class.

    Files that are neither in a folder of a known label nor pictures are passed over.
    """
    names = _names(root, reading)
    raws = {name: _label_folder(name, reading.meanings) for name in names}
    if not any(raws.values()):
        raise DataError(
            f"{root} has no folder of a known label: it {_contents(names)}; "
            f"expected {_EXPECTED['folders']}, or name its folders with data.labels"
        )
    for name, raw in raws.items():
        path = f"{root}/{name}"
        if not image_files.is_picture(path):
            if raw:
                reading.problem(path, "no picture by its name or content", _LEFT_OUT)
            continue
        reading.pictures += 1
        if not raw:
            folder = os.path.basename(os.path.dirname(name))
            reading.unknown.update([folder] if folder else [])
            reading.problem(path, "no folder above it has a known label", _LEFT_OUT)
            continue
        label = reading.meanings[_folded(raw)][1]
        if not label:
            reading.left_out[reading.meanings[_folded(raw)][0]] += 1
        elif photograph := reading.photograph(path, _LEFT_OUT):
            whole = Box(0, 0, photograph.width, photograph.height)
            box = whole if reading.settings.whole else None
            reading.faces.append(Face(photograph, box, label, "folders"))


def _read_annotated(root: Path, layout: str, reading: _Reading) -> None:
    """The faces of annotation files, in the pictures that they name."""
    root, pictures, annotated = _places(root)
    end, every = _END[layout], _names(root, reading)
    names = [name.removeprefix(annotated) for name in every if name.startswith(annotated)]
    if not annotated or not any(name.lower().endswith(end) for name in names):
        annotated, names = "", [name for name in every if name.lower().endswith(end)]
    images = [name.removeprefix(pictures) for name in every if name.startswith(pictures)]
    if not pictures:
        images = [name for name in images if image_files.is_picture(root / name)]
    if not names or not images:
        lacking = f"{end} file" if not names else "picture"
        raise DataError(
            f"{root} holds no {lacking}: it {_contents(every)}; expected {_EXPECTED[layout]}"
        )
    reading.pictures = len(images)
    shelf = _Pictures(images, pictures or f"{root.name}/")
    annotated_by = dict.fromkeys(images, "")
    faces: dict[tuple[str, int], list[Face]] = {}

    def take(name: str, number: int, annotation: Annotation, image: str, several: bool) -> None:
        path = f"{root}/{annotated}{name}"
        if annotated_by[image]:
            what = f"{shown(image)} is annotated already, by {annotated_by[image]}"
            reading.problem(path, what, _LEFT_OUT)
            return
        annotated_by[image] = path
        where = f"{shown(image)}: " if several else ""
        picture = f"{root}/{pictures}{image}"
        faces[name, number] = _faces_of(annotation, path, where, picture, reading)

    # Those that name their picture come first: none is taken away from them by a similar name.
    waiting: list[tuple[str, int, Annotation, bool]] = []
    for name in names:
        path = f"{root}/{annotated}{name}"
        try:
            if not name.lower().endswith(end):
                raise Fault(f"expected a name with {end}")
            parsed = _PARSE[layout](_bytes(path, MAX_BYTES[layout]))
        except Fault as fault:
            reading.problem(path, str(fault), _LEFT_OUT)
            continue
        for number, annotation in enumerate(parsed):
            if image := shelf.exact(annotation.image, name):
                take(name, number, annotation, image, len(parsed) > 1)
            else:
                waiting.append((name, number, annotation, len(parsed) > 1))
    for name, number, annotation, several in waiting:
        path = f"{root}/{annotated}{name}"
        try:
            image, what = shelf.similar(annotation.image, "" if several else name)
        except Fault as fault:
            reading.problem(path, str(fault), _LEFT_OUT)
            continue
        if not annotated_by[image]:
            reading.problem(path, what, f"{shown(image)} is taken")
        take(name, number, annotation, image, several)
    reading.faces += itertools.chain.from_iterable(faces[key] for key in sorted(faces))
    for image, path in annotated_by.items():
        if not path:
            where = f"{root}/{pictures}{image}"
            reading.problem(where, "no usable annotation names it", _LEFT_OUT)


def _faces_of(
    annotation: Annotation, path: str, where: str, picture: str, reading: _Reading
) -> list[Face]:
    """The faces of one picture.

    path: of the annotation file.  where: begins what is said of the picture, in a file of several.
    """
    for what, done in annotation.remarks:
        reading.problem(path, where + what, done)
    entries = annotation.entries
    if not entries:
        reading.problem(path, f"{where}annotates nothing", "its picture is left out")
        return []
    done = f"left out with {_count(len(entries), 'annotation')}"
    photograph = reading.photograph(picture, done)
    if photograph is None:
        return []
    try:
        turned = _is_turned(annotation.size, photograph, reading, path, where)
    except Fault as fault:
        reading.problem(path, f"{where}{fault}", done)
        return []
    faces: list[Face] = []
    for number, entry in enumerate(entries, 1):
        what = f"{where}object {number} ({shown(entry.label)}): "
        raw, label = reading.meanings.get(_folded(entry.label), ("", None))
        if label == "":
            reading.left_out[raw] += 1
            continue
        try:
            if entry.fault:
                raise Fault(entry.fault)
            if label is None:
                reading.unknown[entry.label] += 1
                raise Fault("unknown label; data.labels can say what it means")
            box, cut = _box(entry, photograph, turned, _FIRST_PIXEL[reading.source])
        except Fault as fault:
            reading.problem(path, f"{what}{fault}", _LEFT_OUT)
            continue
        if cut:
            reading.problem(path, what + cut, "cut to the picture")
        faces.append(Face(photograph, box, label, reading.source))
    return faces


def _is_turned(
    size: tuple[int, int] | None, photograph: Photograph, reading: _Reading, path: str, where: str
) -> bool:
    """Whether boxes are those of the picture as it is stored and have to be turned with it.

    Raises Fault if the stated size is that of another picture.
    """
    displayed = (photograph.width, photograph.height)
    stored = displayed[::-1] if photograph.orientation in _TRANSPOSED else displayed
    stated = size or displayed
    if not any(_nearly(stated, actual) for actual in (displayed, stored)):
        given, actual = (f"{width} x {height}" for width, height in (stated, displayed))
        raise Fault(f"is of a picture of {given} pixels, but {photograph.path} has {actual}")
    if stated not in (displayed, stored):
        given, actual = (f"{width} x {height}" for width, height in (stated, displayed))
        what = f"{where}is of a picture of {given} pixels, and {photograph.path} has {actual}"
        reading.problem(path, what, "its boxes are taken as they are")
    if photograph.orientation == 1:
        return False
    exif = f"EXIF orientation {photograph.orientation} turns the picture"
    tells = size is not None and _nearly(stated, displayed) != _nearly(stated, stored)
    turned = _nearly(stated, stored) if tells else reading.settings.stored
    if tells and turned:
        what = f"{where}{exif}, and the size is that of the picture as it is stored"
        reading.problem(path, what, "its boxes are turned with it")
    elif not tells:
        form = "stored: turned with it" if turned else "displayed: not turned"
        what = f"{where}{exif}, and no size tells whether its boxes are"
        reading.problem(path, what, f"taken as {form} (data.exif says which)")
    return turned


def _nearly(size: Sequence[int], other: Sequence[int]) -> bool:
    return all(abs(one - two) <= 1 for one, two in zip(size, other, strict=True))


def _box(entry: Entry, photograph: Photograph, turned: bool, first: int) -> tuple[Box, str]:
    """The box in whole pixels, cut to the picture; and how it goes beyond it, "" if it does not.

    turned: whether the corners are those of the picture as it is stored.  first: the number of the
    first pixel in the file, whose last one is inside if it is 1.
    Raises Fault if it has no pixel of the picture.
    """
    given = "{}, {} to {}, {}".format(*(f"{corner:.10g}" for corner in entry.corners))
    if all(0 <= corner <= 1 for corner in entry.corners):
        left, top, right, bottom = entry.corners
        if left < right and top < bottom:
            raise Fault(f"box from {given} has normalised coordinates, expected pixels")
    left, top, right, bottom = (
        math.floor(corner + 0.5) - (first if number < 2 else 0)
        for number, corner in enumerate(entry.corners)
    )
    if right < left or bottom < top:
        raise Fault(f"box from {given} is inverted")
    if right == left or bottom == top:
        raise Fault(f"box from {given} is empty")
    width, height = photograph.width, photograph.height
    if turned and photograph.orientation in _TRANSPOSED:
        left, top, right, bottom = top, left, bottom, right
    if turned and photograph.orientation in _MIRRORED:
        left, right = width - right, width - left
    if turned and photograph.orientation in _UPSIDE_DOWN:
        top, bottom = height - bottom, height - top
    beyond = f"the picture of {width} x {height} pixels"
    inside = Box(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    if inside.width < 1 or inside.height < 1:
        raise Fault(f"box from {given} is outside {beyond}")
    is_cut = inside != Box(left, top, right, bottom)
    return inside, f"box from {given} goes beyond {beyond}" if is_cut else ""


def _places(root: Path) -> tuple[Path, str, str]:
    """The directory of a data set and its folders of pictures and annotations, as "images/" or "".

    A folder alone in the directory is gone into.
    """
    while True:
        inside = [name for name in sorted(os.listdir(root)) if not name.startswith(".")]
        folders = [name for name in inside if os.path.isdir(root / name)]
        pictures, annotated = (
            next((f"{name}/" for each in usual for name in folders if name.lower() == each), "")
            for usual in (_IMAGE_FOLDERS, _ANNOTATION_FOLDERS)
        )
        if pictures or annotated or len(inside) != 1 or not folders:
            return root, pictures, annotated
        root /= inside[0]


def _meanings(settings: Settings) -> dict[str, tuple[str, str]]:
    """{folded label: (the label as it is counted, its class or "")}."""
    return {_folded(raw): (raw, label) for raw, label in {**LABELS, **settings.labels}.items()}


def _folded(label: str) -> str:
    """A label without what people write in several ways: "With Mask", "with-mask", "WithMask"."""
    return re.sub(r"[\s_-]+", "", label).casefold()


def _label_folder(name: str, meanings: Mapping[str, tuple[str, str]]) -> str:
    """The nearest folder above a file that means a class, else one that means ""; "" for none."""
    known = [each for each in name.split("/")[-2::-1] if _folded(each) in meanings]
    return next((each for each in known if meanings[_folded(each)][1]), known[0] if known else "")


def _is_annotation(path: Path) -> bool:
    """Whether a JSON file begins like one of those that are read."""
    try:
        start = _bytes(str(path), MAX_BYTES["json"])[: 2**20]
    except Fault:
        return False
    return any(key in start for key in (b'"FileName"', b'"imagePath"', b'"images"'))


def _is_below(folder: str, other: str) -> bool:
    return folder == other or folder.startswith(f"{other}/") or not other


def _contents(names: Sequence[str]) -> str:
    """What a directory holds, for a message: the commonest endings."""
    ends = Counter(os.path.splitext(name)[1].lower() or "without ending" for name in names)
    listed = ", ".join(f"{count:,} {end}" for end, count in ends.most_common(4))
    return f"holds {listed} files" if listed else "is empty"


def _bytes(path: str, most: int) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise Fault("is no regular file")
        if status.st_size > most:
            raise Fault(f"{status.st_size:,} bytes, expected at most {most:,}")
        return Path(path).read_bytes()
    except OSError as error:
        raise Fault(f"cannot be read ({error.strerror})") from None


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


def _count(number: int, noun: str) -> str:
    return f"its {number:,} {noun}{'s' if number > 1 else ''}" if number > 1 else f"its {noun}"
