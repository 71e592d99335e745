"""Reader of CIFAR-10 saved as one picture per file, in a folder per class.

Each split is a folder or an uncompressed tar file: `train/<class>/NAME.jpg`, or `train.tar` with
`<class>/NAME.jpg`; either may lie in a further folder, as `train/train/<class>`. NAME ends in .png,
.jpg or .jpeg, the label is the place of the class in the alphabet. Such files are grouped by class
and have lost the published order. They are put into one that any prefix of is balanced: by name
within a class, the classes taking turns.

One thread decodes: of the 0.1 ms that so small a picture takes, most is spent in Python, where
threads wait for one another; with two it took longer (measured). It is done once, see `cache`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.data import tar
from research.data.image_files import JPEG_START, read_image
from research.data.provenance import PUBLISHED, Absent, Arrays, DataError, existing_directory

EXPECTED = (
    "train and test, or train.tar and test.tar, each with <class>/NAME.png or .jpg for the classes "
    + ", ".join(PUBLISHED["cifar10"].classes)
)
_CLASSES = PUBLISHED["cifar10"].classes
_SIDE_PX = 32
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MAX_BYTES = 2**20  # of a picture; those of CIFAR-10 have 3 kB at most
_SAY_EVERY_S = 2.0


@dataclass(frozen=True)
class _Picture:
    """label: of its class.  where: file or member, for messages.  offset: in its tar file."""

    label: int
    name: str
    where: str
    offset: int
    size: int


def find(directory: str | Path) -> dict[str, Path]:
    """The tar file or the folder of each split, "train" and "test", in `directory`.

    Raises DataError that says what is missing and what is accepted: Absent, if it is both.
    """
    root = existing_directory(directory, EXPECTED)
    splits: dict[str, Path] = {}
    for folder in (root / "cifar10", root):  # the first is what fast.ai's archive unpacks to
        for split in ("train", "test"):
            if os.path.isfile(folder / f"{split}.tar"):
                splits[split] = folder / f"{split}.tar"
            elif os.path.isdir(folder / split):
                splits[split] = folder / split
        if splits:
            break
    if not splits:
        raise Absent(f"{root} holds no folders of pictures; expected {EXPECTED}")
    for split in ("train", "test"):
        if split not in splits:
            raise DataError(f"{root} lacks {split} and {split}.tar; expected {EXPECTED}")
    return splits


def files(splits: Mapping[str, Path]) -> list[Path]:
    """All files behind the two splits.

    Raises DataError for a folder that does not hold what it should.
    """
    paths: list[Path] = []
    for path in splits.values():
        folder = os.path.isdir(path)
        paths += [Path(picture.where) for picture in _in_folder(path)] if folder else [path]
    return paths


def read(splits: Mapping[str, Path], say: Callable[[str], None]) -> tuple[Arrays, bool]:
    """The four arrays, and whether any picture was a JPEG, by its content.

    splits: as `find` returns them.  say: receives a line every few seconds.
    Images [N, 32, 32, 3] uint8, labels [N] uint8. Raises DataError that names the file (and the
    member of a tar file), what it holds and what was expected.
    """
    arrays: dict[str, np.ndarray] = {}
    lossy = False
    for split, path in splits.items():
        pictures = _in_turns(_in_folder(path) if os.path.isdir(path) else _in_tar(path))
        images = np.empty((len(pictures), _SIDE_PX, _SIDE_PX, 3), np.uint8)
        last = time.monotonic()
        for done, (position, content) in enumerate(_contents(path, pictures), 1):
            where = pictures[position].where
            images[position] = read_image(content, shape=(_SIDE_PX, _SIDE_PX, 3), name=where)
            lossy = lossy or content.startswith(JPEG_START)
            if time.monotonic() - last > _SAY_EVERY_S:
                say(f"decoding {path.name}: {done:,} of {len(pictures):,} images")
                last = time.monotonic()
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.array([p.label for p in pictures], np.uint8)
    return arrays, lossy


def _in_folder(folder: Path) -> list[_Picture]:
    pictures: list[_Picture] = []
    try:
        names = _visible(folder)
        while len(names) == 1 and names[0] not in _CLASSES and os.path.isdir(folder / names[0]):
            folder /= names[0]
            names = _visible(folder)
        for class_name in names:
            place = str(folder / class_name)
            if class_name.lower().endswith(_SUFFIXES):
                raise _flat(folder, class_name)
            label = _label(class_name, place)
            for name in _visible(folder / class_name):
                where = f"{place}/{name}"
                _check_name(name, where)
                pictures.append(_Picture(label, name, where, 0, 0))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None
    _check_classes(pictures, folder)
    return pictures


def _in_tar(path: Path) -> list[_Picture]:
    pictures: list[_Picture] = []
    above: set[str] = set()
    for member in tar.members(path, _MAX_BYTES):
        folder, _, name = member.name.rpartition("/")
        outer, _, class_name = folder.rpartition("/")
        where = f"{path}: {member.name}"
        if name.startswith("."):
            continue
        if class_name in ("", "train", "test") and name.lower().endswith(_SUFFIXES):
            raise _flat(path, member.name)
        label = _label(class_name, where)
        above.add(outer)
        if len(above) > 1:
            first, second = (name or "the top" for name in sorted(above))
            raise DataError(
                f"{path}: holds classes in {first} and in {second}; expected one folder of classes"
            )
        _check_name(name, where)
        pictures.append(_Picture(label, name, where, member.offset, member.size))
    _check_classes(pictures, path)
    return pictures


def _flat(path: Path, name: str) -> DataError:
    return DataError(
        f"{path} holds {name} in no class folder; expected <class>/NAME. In Kaggle's competition "
        "the labels of train/ are in trainLabels.csv and those of test/ are not published: use "
        "cifar-10-python.tar.gz, or move each picture into a folder of its class"
    )


def _visible(folder: Path) -> list[str]:
    """Names in a folder; the hidden ones belong to file managers."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _label(class_name: str, where: str) -> int:
    if class_name not in _CLASSES:
        raise DataError(
            f"{where}: {class_name!r} is no class of CIFAR-10; expected {', '.join(_CLASSES)}: "
            "rename it or move it elsewhere"
        )
    return _CLASSES.index(class_name)


def _check_name(name: str, where: str) -> None:
    if not name.lower().endswith(_SUFFIXES):
        raise DataError(
            f"{where}: expected a name with {', '.join(_SUFFIXES)}; rename it or move it elsewhere"
        )


def _check_classes(pictures: Sequence[_Picture], path: Path) -> None:
    labels = {picture.label for picture in pictures}
    missing = [name for label, name in enumerate(_CLASSES) if label not in labels]
    if missing:
        raise DataError(
            f"{path} holds no pictures of {', '.join(missing)}; expected <class>/NAME with "
            f"{', '.join(_SUFFIXES)} for each of {', '.join(_CLASSES)}"
        )


def _in_turns(pictures: Sequence[_Picture]) -> list[_Picture]:
    ranks = [0] * len(_CLASSES)
    keyed: list[tuple[int, int, _Picture]] = []
    for picture in sorted(pictures, key=lambda p: p.name):
        keyed.append((ranks[picture.label], picture.label, picture))
        ranks[picture.label] += 1
    return [picture for *_, picture in sorted(keyed, key=lambda entry: entry[:2])]


def _contents(path: Path, pictures: Sequence[_Picture]) -> Iterator[tuple[int, bytes]]:
    """Position and content of each picture, in the order in which they lie on the disk."""
    where = str(path)
    try:
        if os.path.isdir(path):
            for position, picture in enumerate(pictures):
                where = picture.where
                yield position, Path(where).read_bytes()
            return
        with path.open("rb") as file:
            for position in sorted(range(len(pictures)), key=lambda i: pictures[i].offset):
                _ = file.seek(pictures[position].offset)
                yield position, file.read(pictures[position].size)
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from None
