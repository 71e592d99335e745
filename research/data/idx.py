"""Reader of the IDX files of MNIST.

IDX is the format in which MNIST is published: a big-endian header (magic number, then one
32-bit size per axis) followed by the bytes of the array. Four files make a data set; their keys
here are `train_images`, `train_labels`, `test_images`, `test_labels`.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from research.data.formats import recognise
from research.data.provenance import Absent, DataError, existing_directory

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"

# The published names; "train-images.idx3-ubyte" is common too, and either may end in ".gz".
NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}

# MD5 of the uncompressed files: the gzip wrappers in circulation differ from one another.
MD5 = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}

FOLDERS = ("", "MNIST/raw", "raw", "mnist", "MNIST")  # where other libraries put the four files
EXPECTED = (
    f'the four files {", ".join(NAMES.values())} (".idx" for "-idx" and a trailing ".gz" are '
    f"accepted), there or in {', '.join(FOLDERS[1:])}, or each in a folder of its name"
)
_MAGIC = {"images": 2051, "labels": 2049}
_SIDE_PX = 28
_CLASSES = 10


def accepted_names(key: str) -> list[str]:
    """Every file name under which the array `key` is looked for, in order of preference.

    The last ones are what 7-Zip makes of each archive, a folder of its name with the file in it.
    """
    plain = NAMES[key]
    spelt = (plain, plain.replace("-idx", ".idx"))
    names = [name + end for name in spelt for end in ("", ".gz")]
    return names + [f"{folder}/{name}" for folder in spelt for name in names]


def find_files(directory: str | Path) -> dict[str, Path]:
    """The four IDX files in `directory` or one of its usual subfolders (`FOLDERS`).

    Raises DataError that lists the missing ones and the names that are accepted: Absent, if it is
    all of them.
    """
    root = existing_directory(directory, EXPECTED)
    best: dict[str, Path] = {}
    for folder in FOLDERS:
        paths: dict[str, Path] = {}
        for key in NAMES:
            candidates = [root / folder / name for name in accepted_names(key)]
            path = next((path for path in candidates if os.path.isfile(path)), None)
            paths |= {key: path} if path else {}
        best = max(best, paths, key=len)
    missing = [NAMES[key] for key in NAMES if key not in best]
    if len(missing) == len(NAMES):
        raise Absent(f"{root} holds none of the MNIST files; expected {EXPECTED}")
    if missing:
        folder = next(iter(best.values())).parent
        raise DataError(f"{folder} lacks {', '.join(missing)}; expected {EXPECTED}")
    return best


def read_files(paths: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """The four arrays: images [N, 28, 28] uint8, labels [N] uint8, each pair of equal length.

    Raises DataError for a damaged file, for files that do not belong together, and for the
    training and the test files exchanged.
    """
    arrays = {key: read_file(paths[key], key.split("_")[1]) for key in NAMES}
    for split in ("train", "test"):
        images, labels = f"{split}_images", f"{split}_labels"
        if len(arrays[images]) != len(arrays[labels]):
            raise DataError(
                f"{paths[images]} holds {len(arrays[images]):,} images but {paths[labels]} holds "
                f"{len(arrays[labels]):,} labels; expected as many labels as images: do both "
                f"belong to the {split} split?"
            )
    if (len(arrays["train_images"]), len(arrays["test_images"])) == (10_000, 60_000):
        raise DataError(
            f"{paths['train_images']} holds 10,000 images and {paths['test_images']} 60,000; "
            "expected 60,000 and 10,000: exchange the train-* and the t10k-* files"
        )
    return arrays


def read_file(path: Path, kind: str) -> np.ndarray:
    """One IDX file, gzipped or not: [N, 28, 28] uint8 for kind "images", [N] uint8 for "labels".

    Raises DataError that names the file, what it holds and what was expected.
    """
    content = _uncompressed(path)
    rank = 3 if kind == "images" else 1
    if len(content) < 4 + 4 * rank:
        raise DataError(
            f"{path}: {len(content)} bytes (uncompressed), too short for the header of an IDX "
            f"file of {kind}; copy or download it again"
        )
    magic, *shape = struct.unpack(f">{1 + rank}I", content[: 4 + 4 * rank])
    if magic != _MAGIC[kind]:
        other = next((k for k, value in _MAGIC.items() if value == magic), None)
        start = f"IDX {other} (magic number {magic})" if other else f"bytes {content[:4]!r}"
        advice = "exchange the files" if other else "it is not an IDX file of this data set"
        if kind_and_remedy := recognise(content[:32]):
            start, advice = kind_and_remedy[0], f"{kind_and_remedy[1]}, whatever its name says"
        raise DataError(
            f"{path}: starts as {start}, expected IDX {kind} (magic number {_MAGIC[kind]}): "
            f"{advice}"
        )
    if shape[0] == 0 or (kind == "images" and shape[1:] != [_SIDE_PX, _SIDE_PX]):
        expected = f"N x {_SIDE_PX} x {_SIDE_PX}" if kind == "images" else "N"
        sizes = " x ".join(map(str, shape))
        raise DataError(f"{path}: sizes {sizes} in the header, expected {expected} with N > 0")
    expected_bytes, body = int(np.prod(shape, dtype=np.int64)), len(content) - 4 - 4 * rank
    if body != expected_bytes:
        state = "truncated" if body < expected_bytes else "followed by bytes that do not belong"
        raise DataError(
            f"{path}: {body:,} bytes of {kind} after the header, expected {expected_bytes:,}: "
            f"the file is {state}; copy or download it again"
        )
    array = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    if kind == "labels" and array.max() >= _CLASSES:
        first = int(np.argmax(array >= _CLASSES))
        raise DataError(f"{path}: label {array[first]} at index {first}, expected labels 0 to 9")
    return array


def md5(array: np.ndarray) -> str:
    """MD5 of the uncompressed IDX file that holds `array`."""
    magic = _MAGIC["images" if array.ndim == 3 else "labels"]
    header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()


def check_md5(arrays: Mapping[str, np.ndarray], paths: Mapping[str, Path]) -> None:
    """Raises DataError naming the first file whose uncompressed content is not the published."""
    for key, expected in MD5.items():
        if (digest := md5(arrays[key])) != expected:
            raise DataError(
                f"{paths[key]}: MD5 {digest} (uncompressed), expected {expected} for MNIST's "
                f"{NAMES[key]}; replace it by the published file"
            )


def _uncompressed(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        # By content, not by name: browsers and mirrors unpack files and keep the ".gz", or pack
        # them twice. A third layer is refused: a file may unpack to itself.
        for _ in range(2):
            content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        return content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); copy or download it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
