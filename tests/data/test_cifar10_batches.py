"""Batches of CIFAR-10: what they hold, and pickles that run nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cifar_files import (
    batch_files,
    publish,
    python_batch,
    rows,
    some_arrays,
    write_batches,
    write_tar,
)
from research.data import cifar10_batches
from research.data.provenance import Absent, DataError

IMAGES = some_arrays()["test_images"][:3]


def refusal(content: bytes) -> str:
    with pytest.raises(DataError) as error:
        cifar10_batches.read_batch(content, "the/file")
    assert str(error.value).startswith("the/file: ") and "\n" not in str(error.value)
    return str(error.value)


def test_planes_of_red_green_and_blue_become_pixels() -> None:
    images, labels = cifar10_batches.read_batch(python_batch(IMAGES, [9, 0, 4]), "")
    np.testing.assert_array_equal(images, IMAGES)
    assert images.flags.c_contiguous and (images.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert labels.tolist() == [9, 0, 4]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_python_3_are_read_too(protocol: int, order: str) -> None:
    data = np.asarray(rows(IMAGES), order=order)  # type: ignore[call-overload]
    content = pickle.dumps({"data": data, "labels": [1, 2, 3]}, protocol)
    np.testing.assert_array_equal(cifar10_batches.read_batch(content, "")[0], IMAGES)


@given(data=st.data())
def test_every_truncation_is_refused(data: st.DataObject) -> None:
    content = python_batch(IMAGES[:1], [3])
    assert "truncated" in refusal(content[: data.draw(st.integers(0, len(content) - 1))])


def test_label_ten_is_refused_with_its_place() -> None:
    assert "label 10 at index 2, expected labels 0 to 9" in refusal(
        python_batch(IMAGES, [0, 9, 10])
    )


@pytest.mark.parametrize(
    "label", [-1, 1.5, "cat", None, 1 << 20_000], ids=lambda v: type(v).__name__
)
def test_a_label_that_is_no_digit_is_refused(label: object) -> None:
    content = pickle.dumps({"data": rows(IMAGES), "labels": [0, label, 0]}, 2)
    assert "at index 1, expected labels 0 to 9" in refusal(content)


# Pickles that are programs


class _Calls:
    def __init__(self, function: Callable[..., object], *given: object) -> None:
        self.call = (function, given)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["alone", "value", "label"])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, protocol: int, place: str
) -> None:
    marker = tmp_path / "was-run"
    attack = _Calls(os.mkdir, str(marker))
    content = pickle.dumps(
        {
            "alone": attack,
            "value": {"data": rows(IMAGES), "labels": [0, 0, 0], "batch_label": attack},
            "label": {"data": rows(IMAGES), "labels": [0, attack, 0]},
        }[place],
        protocol,
    )
    message = refusal(content)
    assert f"calls {os.mkdir.__module__}.mkdir" in message and "not run" in message
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # it would have been run


@pytest.mark.parametrize(
    "function", [eval, getattr, np.load, np.frombuffer, pickle.loads], ids=lambda f: f.__name__
)
def test_nothing_else_can_be_called_not_even_of_numpy(function: Callable[..., object]) -> None:
    assert f".{function.__name__}, expected nothing but" in refusal(
        pickle.dumps(_Calls(function, "x"), 2)
    )


def test_a_huge_array_that_a_small_pickle_promises_is_not_made() -> None:
    content = python_batch(IMAGES, [0, 0, 0]).replace(
        b"J\3\0\0\0M\0\x0c", b"J\xff\xff\xff\x7fM\0\x0c"
    )
    assert "(2147483647, 3072) in 9,216 bytes and 3 labels" in refusal(content)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"data": rows(IMAGES), "fine_labels": [0, 0, 0]}, "a pickle of 'data', 'fine_labels'"),
        ([1, 2], "a pickle of something else"),
        ({"data": b"x", "labels": [0]}, "a pickle of 'data', 'labels'"),
        ({"data": rows(IMAGES), "labels": [0]}, "9,216 bytes and 1 labels"),
        ({"data": rows(IMAGES)[:, :-1], "labels": [0, 0, 0]}, "(3, 3071) in 9,213 bytes"),
        ({"data": rows(IMAGES)[:0], "labels": []}, "in 0 bytes and 0 labels"),
        ({"data": rows(IMAGES).astype(np.int16), "labels": [0] * 3}, "(3, 3072) in 18,432 bytes"),
        ({"data": rows(IMAGES).view(np.int8), "labels": [0] * 3}, "expected N x 3,072 uint8"),
        ({"data": np.array([None]), "labels": [0]}, "of shape (1,) in 0 bytes"),
    ],
)
def test_other_pickles_are_refused_with_what_they_hold(value: object, found: str) -> None:
    assert found in refusal(pickle.dumps(value, 3))


# Where they lie


@pytest.mark.parametrize("place", ["", cifar10_batches.FOLDER, "packed"])
def test_batches_are_read_loose_in_their_folder_and_packed(tmp_path: Path, place: str) -> None:
    write_batches(tmp_path if place == "packed" else tmp_path / place, packed=place == "packed")
    paths = cifar10_batches.find(tmp_path)
    assert len(paths) == (1 if place == "packed" else 6)
    arrays, published = cifar10_batches.read(paths)
    assert not published
    for key, array in some_arrays().items():
        np.testing.assert_array_equal(arrays[key], array)


def test_the_archive_wins_over_incomplete_batches(tmp_path: Path) -> None:
    (write_batches(tmp_path) / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3; expected .*cifar-10-python\.tar\.gz"):
        cifar10_batches.find(tmp_path)
    write_batches(tmp_path, packed=True)
    assert cifar10_batches.find(tmp_path) == (tmp_path / cifar10_batches.ARCHIVE,)


def test_an_empty_directory_and_one_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"holds no batches of CIFAR-10; expected data_batch_1"):
        cifar10_batches.find(tmp_path)
    with pytest.raises(DataError, match=r"nowhere does not exist; expected .*data_batch_1"):
        cifar10_batches.find(tmp_path / "nowhere")


def test_an_archive_without_one_of_the_batches_is_refused(tmp_path: Path) -> None:
    files = batch_files()
    del files["data_batch_4"]
    write_tar(tmp_path / cifar10_batches.ARCHIVE, files, "w:gz")
    with pytest.raises(DataError, match=r"tar\.gz lacks data_batch_4; .* download it again"):
        cifar10_batches.read(cifar10_batches.find(tmp_path))


def test_a_damaged_member_is_named_with_its_archive(tmp_path: Path) -> None:
    files = batch_files()
    files["test_batch"] = files["test_batch"][:-1]
    write_tar(tmp_path / cifar10_batches.ARCHIVE, files, "w:gz")
    with pytest.raises(DataError, match=r"python\.tar\.gz: test_batch: damaged or truncated"):
        cifar10_batches.read(cifar10_batches.find(tmp_path))


def test_a_batch_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    paths = cifar10_batches.find(write_batches(tmp_path))
    paths[2].unlink()
    with pytest.raises(DataError, match=r"data_batch_3: cannot be read \(No such file"):
        cifar10_batches.read(paths)


@pytest.mark.parametrize("packed", [False, True])
def test_six_digests_prove_the_batches_packed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    paths = cifar10_batches.find(write_batches(tmp_path, packed=packed))
    publish(monkeypatch)
    assert cifar10_batches.read(paths)[1]
    monkeypatch.setitem(cifar10_batches.MD5, "data_batch_5", "0" * 32)
    assert not cifar10_batches.read(paths)[1]


@pytest.mark.parametrize("above", ["", "cifar/cifar-10-batches-py/"])
def test_the_archive_may_hold_other_folders_and_not_be_packed(tmp_path: Path, above: str) -> None:
    files = {f"{above}{name}": content for name, content in batch_files().items()}
    path = write_tar(tmp_path / "cifar-10-python.tar", files)
    arrays, _ = cifar10_batches.read(cifar10_batches.find(tmp_path))
    np.testing.assert_array_equal(arrays["test_images"], some_arrays()["test_images"])
    write_tar(path, {**files, "old/test_batch": files[f"{above}test_batch"]})
    with pytest.raises(DataError, match=r"holds .*test_batch and old/test_batch; expected one"):
        cifar10_batches.read(cifar10_batches.find(tmp_path))


def test_a_zip_archive_under_the_name_of_a_batch_is_recognised() -> None:
    assert "is a zip archive, expected a pickled batch: unpack it" in refusal(b"PK\x03\x04")
