"""CIFAR-10 in every form, tiny: 20 training and 10 test images that the tests write themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from research.data import cifar10_batches
from research.data.provenance import PUBLISHED

CLASSES = PUBLISHED["cifar10"].classes


def some_arrays(n_train: int = 20, n_test: int = 10) -> dict[str, np.ndarray]:
    """Noise; the classes take turns, as they do in what is read from pictures."""
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in (("train", n_train), ("test", n_test)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (n, 32, 32, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8) % 10
    return arrays


def rows(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def python_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """What Python 2 wrote: the opcodes of the published files, strings of bytes and all."""
    raw = rows(images).tobytes()
    return b"".join(
        (
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n",
            b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01",
            b"J" + struct.pack("<i", len(images)) + b"M\x00\x0c\x86",
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN",
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + struct.pack("<i", len(raw)) + raw + b"tb",
            b"U\x06labels](",
            *(b"J" + struct.pack("<i", label) for label in labels),
            b"eU\x0bbatch_labelU\x04testu.",
        )
    )


def batch_files() -> dict[str, bytes]:
    """The six batches of `some_arrays` by name."""
    arrays = some_arrays()
    parts = [
        *zip(np.split(arrays["train_images"], 5), np.split(arrays["train_labels"], 5), strict=True),
        (arrays["test_images"], arrays["test_labels"]),
    ]
    return {
        name: python_batch(images, labels.tolist())
        for name, (images, labels) in zip(cifar10_batches.BATCHES, parts, strict=True)
    }


def write_batches(folder: Path, *, packed: bool = False) -> Path:
    """The six batches in `folder`, or their archive."""
    folder.mkdir(parents=True, exist_ok=True)
    files = batch_files()
    if packed:
        inside = {f"{cifar10_batches.FOLDER}/{name}": files[name] for name in files}
        write_tar(folder / cifar10_batches.ARCHIVE, inside, "w:gz")
    else:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return folder


def picture(pixels: np.ndarray, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG" if kind == "png" else "JPEG")
    return stream.getvalue()


def pictures_of(split: str, kind: str = "png") -> dict[str, bytes]:
    arrays = some_arrays()
    pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
    return {
        f"{CLASSES[label]}/{number:04d}.{kind}": picture(image, kind)
        for number, (image, label) in enumerate(pairs)
    }


def write_pictures(folder: Path, *, packed: bool = False, kind: str = "png") -> Path:
    """`train` and `test` in `folder`, as folders or as tar files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        files = pictures_of(split, kind)
        if packed:
            write_tar(folder / f"{split}.tar", files)
            continue
        for name, content in files.items():
            path = folder / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def publish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the batches, and as few images as they hold, pass for the published during one test."""
    for name, content in batch_files().items():
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(cifar10_batches.MD5, name, digest)
    changed = dataclasses.replace(PUBLISHED["cifar10"], counts=(20, 10))
    monkeypatch.setitem(PUBLISHED, "cifar10", changed)
