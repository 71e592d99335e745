"""Reader of the published batches of CIFAR-10, the Python version.

Six files, five for training, each the pickle of a dictionary with the array `data` [N, 3072] uint8
and the list `labels`. A row holds 1,024 values of red, then green, then blue, each row by row.

A pickle is a program. Here it can call nothing: the few names that such a dictionary needs build
inert records of their arguments, every other name is refused, and NumPy itself never restores an
array from the bytes of a stranger.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.data import tar
from research.data.formats import recognise
from research.data.provenance import PUBLISHED, Absent, Arrays, DataError, existing_directory
from research.structs import one_line

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
FOLDER = "cifar-10-batches-py"  # in the archive
ARCHIVE = "cifar-10-python.tar.gz"
EXPECTED = f"data_batch_1 to data_batch_5 and test_batch (there or in {FOLDER}), or {ARCHIVE}"

MD5 = {  # of the published files
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

_SIDE_PX = 32
_IMAGE_BYTES = 3 * _SIDE_PX * _SIDE_PX
_CLASSES = len(PUBLISHED["cifar10"].classes)
_MAX_BYTES = 2**28  # of a batch; the published ones have 31 MB


def find(directory: str | Path) -> tuple[Path, ...]:
    """The six batches in the order of `BATCHES`, or their archive alone.

    They are looked for in `directory` and in the folder that the archive unpacks to. Raises
    DataError that lists what is missing and what is accepted: Absent, if it is all of it.
    """
    root = existing_directory(directory, EXPECTED)
    incomplete = ""
    for folder in (root, root / FOLDER):
        paths = tuple(folder / name for name in BATCHES)
        missing = [path.name for path in paths if not os.path.isfile(path)]
        if not missing:
            return paths
        if len(missing) < len(paths):
            incomplete = f"{folder} lacks {', '.join(missing)}"
    for name in (ARCHIVE, ARCHIVE.removesuffix(".gz")):  # browsers unpack gzip without a word
        if os.path.isfile(root / name):
            return (root / name,)
    if incomplete:
        raise DataError(f"{incomplete}; expected {EXPECTED}")
    raise Absent(f"{root} holds no batches of CIFAR-10; expected {EXPECTED}")


def read(paths: Sequence[Path]) -> tuple[Arrays, bool]:
    """The four arrays of what `find` returns, and whether all digests are those published.

    Images [N, 32, 32, 3] uint8, labels [N] uint8. Raises DataError that names the file (and the
    member of an archive), what it holds and what was expected.
    """
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    published = True
    for name, where, content in _contents(paths):
        batches[name] = read_batch(content, where)
        published &= hashlib.md5(content, usedforsecurity=False).hexdigest() == MD5[name]
    missing = [name for name in BATCHES if name not in batches]
    if missing:
        raise DataError(
            f"{paths[0]} lacks {', '.join(missing)}; expected the six batches: download it again"
        )
    arrays: dict[str, np.ndarray] = {}
    for split, names in (("train", BATCHES[:-1]), ("test", BATCHES[-1:])):
        arrays[f"{split}_images"] = np.concatenate([batches[name][0] for name in names])
        arrays[f"{split}_labels"] = np.concatenate([batches[name][1] for name in names])
    return arrays, published


def read_batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] and labels [N], both uint8, of a pickled batch.

    Raises DataError that begins with `where`, also for a pickle that calls anything: it is not run.
    """
    try:
        if what := recognise(content[:32]):
            raise DataError(f"is {what[0]}, expected a pickled batch: {what[1]}")
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        batch = batch if isinstance(batch, dict) else {}
        fields = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
        data, labels = fields.get("data"), fields.get("labels")
        if not isinstance(data, _Call) or not isinstance(labels, list):
            raise DataError(
                f"a pickle of {', '.join(map(repr, fields)) or 'something else':.80}, expected a "
                "dictionary with an array 'data' and a list 'labels': it is no batch of CIFAR-10"
            )
        rows = _rows(data, len(labels))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except Exception as error:  # damage in a pickle surfaces as any type
        raise DataError(
            f"{where}: damaged or truncated pickle ({type(error).__name__}: {one_line(error)}); "
            "copy or download it again"
        ) from None
    for index, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < _CLASSES:
            plain = type(label) is int and abs(label) < 1000
            shown = label if plain else f"of type {type(label).__name__}"
            raise DataError(
                f"{where}: label {shown} at index {index}, expected labels 0 to {_CLASSES - 1}: "
                "damaged, or another data set"
            )
    planes = rows.reshape(-1, 3, _SIDE_PX, _SIDE_PX)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.uint8)


def _rows(array: _Call, count: int) -> np.ndarray:
    """The pickled array as [count, 3072] uint8; raises DataError if it is another."""
    _, shape, dtype, by_column, content = array.state
    size = len(content) if isinstance(content, bytes) else 0
    is_bytes = isinstance(dtype, _Call) and dtype.arguments[0] in ("u1", b"u1")
    if not is_bytes or not count or (shape, size) != ((count, _IMAGE_BYTES), count * _IMAGE_BYTES):
        raise DataError(
            f"'data' of shape {shape!s:.40} in {size:,} bytes and {count:,} labels, expected "
            f"N x {_IMAGE_BYTES:,} uint8 and N labels with N > 0"
        )
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")


class _Call:
    """A call that a pickle asks for: its arguments and the state set on its result, not run."""

    state: Any = (None, (), None, False, b"")  # of an ndarray: version, shape, dtype, order, bytes

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        # Lambdas made for this one use, because a pickle may set attributes of what it gets.
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "dtype"),
        ):
            return lambda *arguments: _Call(*arguments)
        if (module, name) == ("numpy", "ndarray"):
            return None  # the first argument of _reconstruct
        if (module, name) == ("_codecs", "encode"):
            return lambda text, codec: text.encode("latin1")  # how Python 3 writes bytes
        raise DataError(
            f"a pickle that calls {module}.{name}, expected nothing but a dictionary, a list and "
            "a NumPy array; it was not run: download CIFAR-10 from its page"
        )


def _contents(paths: Sequence[Path]) -> Iterator[tuple[str, str, bytes]]:
    """Name, place for messages and content of each batch."""
    if len(paths) > 1:
        for path in paths:
            try:
                yield path.name, str(path), path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        return
    seen: dict[str, str] = {}
    for member in tar.members(paths[0], _MAX_BYTES):
        name = member.name.rpartition("/")[2]  # whatever folders it was packed with
        if name in seen:
            raise DataError(
                f"{paths[0]}: holds {seen[name]} and {member.name}; expected one of them"
            )
        if name in BATCHES:
            seen[name] = member.name
            yield name, f"{paths[0]}: {member.name}", member.read()
