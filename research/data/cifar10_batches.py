"""Is this file a healthy batch of CIFAR-10 as it was published, and what does it hold?

CIFAR-10 is published as six batches, five for training, in two formats. Either way an image is
3,072 bytes: 1,024 of red, then green, then blue, each row by row. The binary format puts the label
before them; the Python format pickles a dictionary of the array `data` [N, 3072] and the list
`labels`.

A pickle is a program. `_Unpickler` runs only the one that builds such a dictionary: whatever else
a file calls is refused before it is called, and NumPy itself never sees the bytes of the pickle.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.data import tar
from research.data.provenance import Absent, Arrays, DataError, existing_directory

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

# Of the published files. For unpacked binary batches none is known, only for their archive.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
}

# form: the end of a batch's name, the folder that the batches are published in, their archive
FORMS = {
    "python": ("", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "binary": (".bin", "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
}
EXPECTED = (
    "data_batch_1 to data_batch_5 and test_batch (there or in cifar-10-batches-py), the same with "
    '".bin" (there or in cifar-10-batches-bin), cifar-10-python.tar.gz or cifar-10-binary.tar.gz'
)

_SIDE_PX = 32
_IMAGE_BYTES = 3 * _SIDE_PX * _SIDE_PX
_CLASSES = 10
_MAX_BYTES = 2**28  # of a batch; the published ones have 31 MB


@dataclass(frozen=True)
class Found:
    """Where the six batches are.

    form: a key of `FORMS`.  paths: six files in the order of `BATCHES`, or one archive.
    """

    form: str
    paths: tuple[Path, ...]
    archived: bool


def find(directory: str | Path, *forms: str) -> Found:
    """The batches in `directory` or in the folder that their archive unpacks to, or the archive.

    The first complete one of `forms` wins. Raises DataError that lists what is missing and what
    is accepted: Absent, if it is all of it.
    """
    root = existing_directory(directory, EXPECTED)
    lacking = ""
    for form in forms:
        end, folder, archive = FORMS[form]
        for place in (root, root / folder):
            paths = tuple(place / f"{name}{end}" for name in BATCHES)
            missing = [path.name for path in paths if not os.path.isfile(path)]
            if not missing:
                return Found(form, paths, archived=False)
            if len(missing) < len(paths):
                lacking = f"{place} lacks {', '.join(missing)}"
        if os.path.isfile(root / archive):
            return Found(form, (root / archive,), archived=True)
    if lacking:
        raise DataError(f"{lacking}; expected {EXPECTED}")
    raise Absent(f"{root} holds no batches of CIFAR-10; expected {EXPECTED}")


def read(found: Found) -> tuple[Arrays, bool]:
    """The four arrays, and whether a digest proves that they are the published ones.

    Images [N, 32, 32, 3] uint8, labels [N] uint8. Raises DataError that names the file (and the
    member of an archive), what was found in it and what was expected.
    """
    parse = read_python if found.form == "python" else read_binary
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    digests: dict[str, str] = {}
    for name, where, content in _contents(found):
        parts[name] = parse(content, where)
        digests[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    missing = [name for name in BATCHES if name not in parts]
    if missing:
        raise DataError(
            f"{found.paths[0]} lacks {', '.join(missing)}; expected the six batches of the "
            f"{found.form} version: download it again"
        )
    if found.form == "python":
        published = all(digests[name] == MD5[name] for name in BATCHES)
    else:
        published = found.archived and _md5(found.paths[0]) == MD5["cifar-10-binary.tar.gz"]
    arrays: dict[str, np.ndarray] = {}
    for split, names in (("train", BATCHES[:-1]), ("test", BATCHES[-1:])):
        arrays[f"{split}_images"] = np.concatenate([parts[name][0] for name in names])
        arrays[f"{split}_labels"] = np.concatenate([parts[name][1] for name in names])
    return arrays, published


def read_binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] and labels [N], both uint8, of a binary batch.

    Raises DataError that begins with `where`.
    """
    size = 1 + _IMAGE_BYTES
    if not content or len(content) % size:
        raise DataError(
            f"{where}: {len(content):,} bytes, expected a multiple of {size:,} above 0 (a label "
            "and an image): the file is truncated or no binary batch; copy or download it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    return _images(rows[:, 1:]), _labels(rows[:, 0].tolist(), where)


def read_python(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] and labels [N], both uint8, of a pickled batch.

    Raises DataError that begins with `where`, for a pickle that calls anything as well: it is not
    called.
    """
    try:
        rows, labels = _unpickled(content)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except Exception as error:  # damage in a pickle surfaces as any type
        raise DataError(
            f"{where}: damaged or truncated pickle ({type(error).__name__}: {error}); copy or "
            "download it again"
        ) from None
    return _images(rows), _labels(labels, where)


def _unpickled(content: bytes) -> tuple[np.ndarray, list[Any]]:
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    batch = batch if isinstance(batch, dict) else {}
    fields = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    data, labels = fields.get("data"), fields.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise DataError(
            f"a pickle of {', '.join(map(repr, fields)) or 'something else':.80}, expected a "
            "dictionary with an array 'data' and a list 'labels': it is no batch of CIFAR-10"
        )
    rows = data.rows()
    if rows is None or len(rows) != len(labels):
        raise DataError(
            f"'data' of shape {data.shape!s:.40} in {data.size:,} bytes and {len(labels):,} "
            f"labels, expected N x {_IMAGE_BYTES:,} uint8 and N labels with N > 0"
        )
    return rows, labels


class _Array:
    """The state that a pickled array restores, unused: shape, type, order and bytes."""

    shape: Any = ()
    type: Any = None
    content: Any = b""
    by_column: Any = False

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.type, self.by_column, self.content = state

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else 0

    def rows(self) -> np.ndarray | None:
        """[N, 3072] uint8, or None if it is no such array."""
        count = self.size // _IMAGE_BYTES
        found = (self.shape, self.size, getattr(self.type, "code", None))
        if not count or found != ((count, _IMAGE_BYTES), count * _IMAGE_BYTES, "u1"):
            return None
        order = "F" if self.by_column else "C"
        return np.frombuffer(self.content, np.uint8).reshape(self.shape, order=order)


class _Type:
    """Takes the place of a NumPy type in a pickle; code: "u1" for uint8."""

    def __init__(self, code: Any) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        del state  # byte order and the like, which one byte has not


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Functions made for this one call, because a pickle may set attributes of what it gets.
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        ):
            return lambda *given: _Array()
        if (module, name) == ("numpy", "dtype"):
            return lambda code, *given: _Type(code)
        if (module, name) == ("numpy", "ndarray"):
            return None  # what `_reconstruct` is given
        if (module, name) == ("_codecs", "encode"):
            return lambda text, codec: text.encode("latin1")  # how Python 3 writes bytes
        raise DataError(
            f"a pickle that calls {module}.{name}, expected nothing but a dictionary, a list and "
            "a NumPy array; it was not run: download CIFAR-10 from its page"
        )


def _images(rows: np.ndarray) -> np.ndarray:
    planes = rows.reshape(-1, 3, _SIDE_PX, _SIDE_PX)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def _labels(labels: list[Any], where: str) -> np.ndarray:
    for index, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < _CLASSES:
            plain = type(label) is int and abs(label) < 1000
            found = label if plain else f"of type {type(label).__name__}"
            raise DataError(
                f"{where}: label {found} at index {index}, expected labels 0 to 9: damaged, or "
                "another data set"
            )
    return np.array(labels, np.uint8)


def _contents(found: Found) -> Iterator[tuple[str, str, bytes]]:
    if not found.archived:
        for name, path in zip(BATCHES, found.paths, strict=True):
            try:
                yield name, str(path), path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        return
    end, folder, _ = FORMS[found.form]
    names = {f"{prefix}{name}{end}": name for name in BATCHES for prefix in ("", f"{folder}/")}
    for member in tar.members(found.paths[0], _MAX_BYTES):
        if member.name in names:
            where = f"{found.paths[0]}: {member.name}"
            yield names[member.name], where, member.read()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
