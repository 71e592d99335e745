"""Batches of CIFAR-10: both formats hold the same pixels, and a pickle runs nothing."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cifar_files import (
    batch_files,
    binary_batch,
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
FORMS = {
    "python": (python_batch, cifar10_batches.read_python),
    "binary": (binary_batch, cifar10_batches.read_binary),
}
both = pytest.mark.parametrize("form", FORMS)
Parse = Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]


def refusal(content: bytes, parse: Parse) -> str:
    with pytest.raises(DataError) as error:
        parse(content, "the/file")
    assert str(error.value).startswith("the/file: ") and "\n" not in str(error.value)
    return str(error.value)


@given(
    row=st.integers(0, 31),
    column=st.integers(0, 31),
    channel=st.integers(0, 2),
    n=st.integers(0, 2),
)
def test_a_pixel_lies_where_the_format_puts_it(row: int, column: int, channel: int, n: int) -> None:
    content = bytearray(3 * 3073)
    content[n * 3073 + 1 + channel * 1024 + row * 32 + column] = 200
    content[n * 3073] = 7
    images, labels = cifar10_batches.read_binary(bytes(content), "")
    assert images[n, row, column, channel] == 200 and images.sum() == 200
    assert labels.tolist() == [7 if i == n else 0 for i in range(3)]


@both
def test_what_was_written_is_what_is_read(form: str) -> None:
    write, parse = FORMS[form]
    images, labels = parse(write(IMAGES, [9, 0, 4]), "")
    np.testing.assert_array_equal(images, IMAGES)
    assert images.flags.c_contiguous and (images.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert labels.tolist() == [9, 0, 4]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_python_3_are_read_too(protocol: int, order: str) -> None:
    data = np.asarray(rows(IMAGES), order=order)  # type: ignore[call-overload]
    content = pickle.dumps({"data": data, "labels": [1, 2, 3]}, protocol)
    np.testing.assert_array_equal(cifar10_batches.read_python(content, "")[0], IMAGES)


@given(data=st.data(), form=st.sampled_from(["python", "binary"]))
def test_every_truncation_is_refused(data: st.DataObject, form: str) -> None:
    write, parse = FORMS[form]
    content = write(IMAGES[:1], [3])
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    message = refusal(cut, parse)
    assert "truncated" in message


@both
def test_label_ten_is_refused_with_its_place(form: str) -> None:
    write, parse = FORMS[form]
    assert "label 10 at index 2, expected labels 0 to 9" in refusal(
        write(IMAGES, [0, 9, 10]), parse
    )


@pytest.mark.parametrize(
    "label", [-1, 1.5, "cat", None, 1 << 20_000], ids=lambda v: type(v).__name__
)
def test_a_label_that_is_no_digit_is_refused(label: object) -> None:
    content = pickle.dumps({"data": rows(IMAGES), "labels": [0, label, 0]}, 2)
    assert "at index 1, expected labels 0 to 9" in refusal(content, cifar10_batches.read_python)


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
    message = refusal(content, cifar10_batches.read_python)
    assert f"calls {os.mkdir.__module__}.mkdir" in message and "not run" in message
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # it would have been run


@pytest.mark.parametrize(
    "function", [eval, getattr, np.load, np.frombuffer, pickle.loads], ids=lambda f: f.__name__
)
def test_nothing_else_can_be_called_not_even_of_numpy(function: Callable[..., object]) -> None:
    assert f".{function.__name__}, expected nothing but" in refusal(
        pickle.dumps(_Calls(function, "x"), 2), cifar10_batches.read_python
    )


def test_a_huge_array_that_a_small_pickle_promises_is_not_made() -> None:
    content = python_batch(IMAGES, [0, 0, 0]).replace(
        b"J\3\0\0\0M\0\x0c", b"J\xff\xff\xff\x7fM\0\x0c"
    )
    assert "(2147483647, 3072) in 9,216 bytes and 3 labels" in refusal(
        content, cifar10_batches.read_python
    )


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
    assert found in refusal(pickle.dumps(value, 3), cifar10_batches.read_python)


# Where they lie


@both
@pytest.mark.parametrize("place", ["", "inside", "packed"])
def test_batches_are_found_loose_in_their_folder_and_packed(
    tmp_path: Path, form: str, place: str
) -> None:
    inside = tmp_path / cifar10_batches.FORMS[form][1] if place == "inside" else tmp_path
    write_batches(inside, form, packed=place == "packed")
    found = cifar10_batches.find(tmp_path, *cifar10_batches.FORMS)
    assert (found.form, found.archived, len(found.paths)) == (
        (form, True, 1) if place == "packed" else (form, False, 6)
    )
    arrays, published = cifar10_batches.read(found)
    assert not published
    for key, array in some_arrays().items():
        np.testing.assert_array_equal(arrays[key], array)


def test_a_complete_form_wins_over_an_incomplete_one(tmp_path: Path) -> None:
    (write_batches(tmp_path, "python") / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3; expected .*cifar-10-binary\.tar\.gz"):
        cifar10_batches.find(tmp_path, *cifar10_batches.FORMS)
    write_batches(tmp_path, "binary")
    assert cifar10_batches.find(tmp_path, *cifar10_batches.FORMS).form == "binary"


def test_an_empty_directory_and_one_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"holds no batches of CIFAR-10; expected data_batch_1"):
        cifar10_batches.find(tmp_path, *cifar10_batches.FORMS)
    with pytest.raises(DataError, match=r"nowhere does not exist; expected .*data_batch_1"):
        cifar10_batches.find(tmp_path / "nowhere", "python")


def test_an_archive_without_one_of_the_batches_is_refused(tmp_path: Path) -> None:
    files = batch_files("binary", some_arrays())
    del files["data_batch_4.bin"]
    write_tar(tmp_path / "cifar-10-binary.tar.gz", files, "w:gz")
    with pytest.raises(DataError, match=r"tar\.gz lacks data_batch_4; .* download it again"):
        cifar10_batches.read(cifar10_batches.find(tmp_path, "binary"))


def test_a_damaged_member_is_named_with_its_archive(tmp_path: Path) -> None:
    files = batch_files("binary", some_arrays())
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    write_tar(tmp_path / "cifar-10-binary.tar.gz", files, "w:gz")
    with pytest.raises(
        DataError, match=r"binary\.tar\.gz: test_batch\.bin: 30,729 bytes, expected"
    ):
        cifar10_batches.read(cifar10_batches.find(tmp_path, "binary"))


def test_a_batch_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    found = cifar10_batches.find(write_batches(tmp_path, "binary"), "binary")
    found.paths[2].unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: cannot be read \(No such file"):
        cifar10_batches.read(found)


# What is proved


def test_six_digests_prove_the_python_batches_packed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "loose", "python")
    write_batches(tmp_path / "packed", "python", packed=True)
    publish(monkeypatch, *(tmp_path / "loose").iterdir())
    for folder in ("loose", "packed"):
        assert cifar10_batches.read(cifar10_batches.find(tmp_path / folder, "python"))[1]
    monkeypatch.setitem(cifar10_batches.MD5, "data_batch_5", "0" * 32)
    for folder in ("loose", "packed"):
        assert not cifar10_batches.read(cifar10_batches.find(tmp_path / folder, "python"))[1]


def test_binary_batches_are_proved_by_their_archive_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "packed", "binary", packed=True)
    write_batches(tmp_path / "loose", "binary")
    publish(monkeypatch, *(tmp_path / "packed").iterdir())
    assert cifar10_batches.read(cifar10_batches.find(tmp_path / "packed", "binary"))[1]
    assert not cifar10_batches.read(cifar10_batches.find(tmp_path / "loose", "binary"))[1]
    shutil.copy(tmp_path / "packed" / "cifar-10-binary.tar.gz", tmp_path / "loose")
    assert not cifar10_batches.read(cifar10_batches.find(tmp_path / "loose", "binary"))[
        1
    ]  # loose files are read
