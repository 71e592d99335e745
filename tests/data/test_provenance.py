"""Sources: the name says what the data are, and nothing passes for more than it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data.cifar_files import some_arrays
from research.data import provenance
from research.data.provenance import PUBLISHED, DataError, Source, verify

UNKNOWN = "it is on data of unknown origin: these"


def small(monkeypatch: pytest.MonkeyPatch, sha256: str = "") -> None:
    """20 training and 10 test images are the whole of CIFAR-10."""
    changed = dataclasses.replace(PUBLISHED["cifar10"], counts=(20, 10), sha256=sha256)
    monkeypatch.setitem(PUBLISHED, "cifar10", changed)


@pytest.mark.parametrize(
    ("pixels", "whole", "part"),
    [
        ("published", "CIFAR-10", "CIFAR-10 subset"),
        ("unknown", "CIFAR-10 (unknown digest)", "CIFAR-10 subset"),
        ("jpeg", "CIFAR-10 (JPEG copies)", "CIFAR-10 subset (JPEG copies)"),
    ],
)
def test_the_name_tells_how_many_and_whether_they_are_proved(
    monkeypatch: pytest.MonkeyPatch, pixels: str, whole: str, part: str
) -> None:
    found = verify("cifar10", some_arrays(), "here", pixels)[2]
    assert (found.name, found.full) == (part, False)
    small(monkeypatch)
    found = verify("cifar10", some_arrays(), "here", pixels)[2]
    assert (found.name, found.full) == (whole, True)


def test_a_known_checksum_proves_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, verify("cifar10", some_arrays(), "here")[2].sha256)
    assert verify("cifar10", some_arrays(), "here")[2].name == "CIFAR-10"
    arrays = some_arrays()
    arrays["test_images"][0, 0, 0, 0] ^= 1
    assert verify("cifar10", arrays, "here")[2].name == "CIFAR-10 (unknown digest)"


@pytest.mark.parametrize(
    ("dataset", "name", "sha256", "words"),
    [
        ("mnist", "MNIST", provenance.MNIST_SHA256, ""),
        ("mnist", "MNIST", "0" * 64, UNKNOWN),
        ("mnist", "MNIST (unknown digest)", "0" * 64, UNKNOWN),
        ("cifar10", "CIFAR-10", "0" * 64, ""),  # which only the digests of its files give
        (
            "cifar10",
            "CIFAR-10 (unknown digest)",
            "0" * 64,
            UNKNOWN,
        ),
        ("cifar10", "CIFAR-10 (JPEG copies)", PUBLISHED["cifar10"].copies[0], ""),
        ("cifar10", "CIFAR-10 (JPEG copies)", "0" * 64, UNKNOWN),
    ],
)
def test_only_known_digests_prove_a_data_set(
    dataset: str, name: str, sha256: str, words: str
) -> None:
    data = {"dataset": dataset, "name": name, "sha256": sha256, "full": True, "caption": "these"}
    assert provenance.shortfall(data) == words
    assert provenance.shortfall(data | {"full": False}) == "it is on these"
    assert provenance.shortfall({}) == "it is on nothing that is recorded"


def test_what_was_given_a_name_is_never_full(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    train, test, _ = verify("cifar10", some_arrays(), "here")
    found = provenance.describe("cifar10", train, test, "synthetic", name="synthetic")
    assert (found.name, found.full, found.train_count) == ("synthetic", False, 20)
    assert found.sha256 == provenance.checksum(train, test)


def test_captions_have_no_path_and_partial_data_in_capitals() -> None:
    full = ("train.tar and test.tar in /some/dir", 50_000, 10_000, "0123456789", True, "cifar10")
    assert Source("CIFAR-10 (JPEG copies)", *full).caption() == (
        "CIFAR-10 (JPEG copies), 50,000 train / 10,000 test (train.tar and test.tar), "
        "sha256 01234567"
    )
    part = ("python batches in /some/dir", 5, 1, "0123456789", False, "cifar10")
    assert Source("CIFAR-10 subset (JPEG copies)", *part).caption() == (
        "CIFAR-10 SUBSET (JPEG COPIES), 5 train / 1 test of 60,000 (python batches), "
        "sha256 01234567"
    )
    drawn = ("synthetic", 5, 1, "0123456789", False, "cifar10")
    assert Source("synthetic", *drawn).caption() == (
        "SYNTHETIC OBJECTS, not CIFAR-10, 5 train / 1 test, sha256 01234567"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_images": np.ones((10, 32, 32, 3), np.uint8)}, r"\(1, 1\); .* values above 1"),
        ({"test_images": np.full((10, 32, 32, 3), 9, np.int16)}, r"int16.*expected uint8"),
        ({"test_images": np.full((10, 3, 32, 32), 9, np.uint8)}, r"expected .*\(10, 32, 32, 3\)"),
        ({"test_images": np.full((9, 32, 32, 3), 9, np.uint8)}, r"\(9, 32, 32, 3\).*\(10, 32"),
        ({"test_labels": np.arange(1, 11)}, "test labels reach 10, expected labels 0 to 9"),
    ],
)
def test_arrays_that_break_the_contract_are_refused(
    change: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(DataError, match=f"^here: .*{words}"):
        verify("cifar10", {**some_arrays(), **change}, "here")


def test_labels_become_int32_and_grey_images_get_a_channel() -> None:
    images = np.zeros((2, 28, 28), np.uint8)
    images[:, 3] = 255
    arrays = {k: images if "images" in k else np.zeros(2, np.uint8) for k in provenance.KEYS}
    train, _, found = verify("mnist", arrays, "here")
    assert train.images.shape == (2, 28, 28, 1) and train.labels.dtype == np.int32
    assert (found.name, found.dataset) == ("MNIST subset", "mnist")


def test_every_data_set_names_its_ten_classes() -> None:
    for published in PUBLISHED.values():
        assert len(published.classes) == len(set(published.classes)) == 10
    classes = PUBLISHED["cifar10"].classes
    assert list(classes) == sorted(classes) and classes[3] == "cat"
