"""IDX files: what is healthy is read, everything else is refused by name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.data import idx


def idx_bytes(array: np.ndarray) -> bytes:
    magic = 2051 if array.ndim == 3 else 2049
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def some_arrays(n_train: int = 6, n_test: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in (("train", n_train), ("test", n_test)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, 10, n, np.uint8)
    return arrays


def write(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, Path]:
    paths = {key: folder / f"{name}.gz" for key, name in idx.NAMES.items()}
    for key, path in paths.items():
        path.write_bytes(gzip.compress(idx_bytes(arrays[key])))
    return paths


def refusal(path: Path, kind: str) -> str:
    with pytest.raises(idx.DataError) as error:
        idx.read_file(path, kind)
    assert str(path) in str(error.value)
    return str(error.value)


@given(n=st.integers(1, 4), packed=st.booleans(), seed=st.integers(0, 9))
def test_what_was_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, n: int, packed: bool, seed: int
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    generator = np.random.default_rng(seed)
    for kind, array in (
        ("images", generator.integers(0, 256, (n, 28, 28), np.uint8)),
        ("labels", generator.integers(0, 10, n, np.uint8)),
    ):
        path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
        read = idx.read_file(path, kind)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)


@given(data=st.data(), kind=st.sampled_from(["images", "labels"]), packed=st.booleans())
def test_every_truncation_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str, packed: bool
) -> None:
    content = idx_bytes(some_arrays()[f"train_{kind}"])
    content = gzip.compress(content) if packed else content
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refusal(path, kind)


def test_trailing_bytes_are_refused_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.arange(5, dtype=np.uint8)) + b"x")
    message = refusal(path, "labels")
    assert "6 bytes" in message and "expected 5" in message


def test_images_where_labels_are_expected_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.zeros((2, 28, 28), np.uint8)))
    assert "IDX images (magic number 2051), expected IDX labels (magic number 2049)" in refusal(
        path, "labels"
    )


def test_a_web_page_is_not_an_idx_file(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"<!DOCTYPE html><title>404</title>")
    assert "a web page, expected IDX images" in refusal(path, "images")


def test_a_file_that_was_packed_twice_is_read(tmp_path: Path) -> None:
    labels = np.arange(5, dtype=np.uint8)
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(gzip.compress(idx_bytes(labels))))
    np.testing.assert_array_equal(idx.read_file(path, "labels"), labels)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "a gzip file, expected IDX labels" in refusal(path, "labels")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(30), "a zip archive, expected IDX labels"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(30), "unpack it, whatever its name says"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_what_a_wrong_file_is_and_what_to_do_is_told(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "labels.gz").write_bytes(content)
    assert words in refusal(tmp_path / "labels.gz", "labels")


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.zeros((2, 32, 32), np.uint8)))
    assert "2 x 32 x 32 in the header, expected N x 28 x 28" in refusal(path, "images")


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.zeros((0, 28, 28), np.uint8)))
    assert "N > 0" in refusal(path, "images")


def test_label_ten_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.array([0, 9, 10], np.uint8)))
    assert "label 10 at index 2" in refusal(path, "labels")


def test_a_flipped_bit_in_a_gzip_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(some_arrays()["train_images"])))
    content[-6] ^= 1  # in the stored CRC, so that the payload unpacks without complaint
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    assert "damaged gzip file (CRC" in refusal(path, "images")


@pytest.mark.parametrize("folder", idx.FOLDERS)
def test_the_usual_subfolders_and_both_spellings_are_found(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    for number, (key, array) in enumerate(some_arrays().items()):
        name = idx.accepted_names(key)[number]  # another spelling for each of the four
        content = idx_bytes(array)
        (place / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = idx.find_files(tmp_path)
    assert [found[key].name for key in idx.NAMES] == [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.gz",
        "t10k-images.idx3-ubyte",
        "t10k-labels.idx1-ubyte.gz",
    ]


def test_a_folder_for_each_file_is_found(tmp_path: Path) -> None:
    arrays = some_arrays()
    for key, name in idx.NAMES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name.replace("-idx", ".idx")).write_bytes(idx_bytes(arrays[key]))
    read = idx.read_files(idx.find_files(tmp_path))
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)


def test_a_complete_folder_wins_over_an_incomplete_one(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw", some_arrays())
    write(tmp_path, some_arrays())["test_labels"].unlink()
    assert {path.parent.name for path in idx.find_files(tmp_path).values()} == {"raw"}


def test_missing_files_are_listed(tmp_path: Path) -> None:
    paths = write(tmp_path, some_arrays())
    paths["train_images"].unlink()
    paths["test_labels"].unlink()
    with pytest.raises(
        idx.DataError, match="lacks train-images-idx3-ubyte, t10k-labels-idx1-ubyte"
    ):
        idx.find_files(tmp_path)


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(idx.DataError, match=r"nowhere does not exist; expected .*t10k-images"):
        idx.find_files(tmp_path / "nowhere")


def test_images_and_labels_of_different_splits_are_refused(tmp_path: Path) -> None:
    arrays = some_arrays(n_train=6, n_test=3)
    arrays["train_labels"], arrays["test_labels"] = arrays["test_labels"], arrays["train_labels"]
    paths = write(tmp_path, arrays)
    with pytest.raises(idx.DataError, match=r"holds 6 images but .* holds 3 labels"):
        idx.read_files(paths)


def test_training_and_test_files_exchanged_are_refused(tmp_path: Path) -> None:
    for split, n in (("train", 10_000), ("test", 60_000)):
        for kind, header, size in (
            ("images", struct.pack(">4I", 2051, n, 28, 28), n * 784),
            ("labels", struct.pack(">2I", 2049, n), n),
        ):
            with (tmp_path / idx.NAMES[f"{split}_{kind}"]).open("wb") as file:
                file.write(header)
                file.truncate(len(header) + size)  # sparse: no 55 MB on the disk
    with pytest.raises(idx.DataError, match=r"exchange the train-\* and the t10k-\* files"):
        idx.read_files(idx.find_files(tmp_path))


def test_the_published_files_have_the_published_digests(real_mnist: Path) -> None:
    paths = idx.find_files(real_mnist)
    arrays = idx.read_files(paths)
    idx.check_md5(arrays, paths)
    changed = {**arrays, "test_labels": arrays["test_labels"][::-1]}
    with pytest.raises(idx.DataError, match=r"t10k-labels.*expected 27ae3e4e"):
        idx.check_md5(changed, paths)
