"""One door to both data sets: every source by name, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.cifar_files import write_batches, write_pictures
from research.data import datasets, tfds
from research.data.datasets import DataError, load


@pytest.mark.parametrize(("name", "side"), [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_drawn_pictures_never_pass_for_the_published(name: str, side: tuple[int, ...]) -> None:
    train, _, source = load(name, source="synthetic")
    assert (train.images.shape, len(datasets.CLASSES[name])) == ((512, *side), 10)
    assert (source.name, source.full, source.dataset) == ("synthetic", False, name)
    assert source.caption().startswith("SYNTHETIC") and ", not " in source.caption()


def test_a_directory_is_read_and_never_replaced_by_something_else(tmp_path: Path) -> None:
    folder = write_pictures(write_batches(tmp_path / "data"))
    for source, start in (("auto", "python"), ("python", "python"), ("folders", "folder train")):
        assert load("cifar10", directory=str(folder), source=source)[2].source.startswith(start)
    for name, words in (("mnist", "none of the MNIST files"), ("cifar10", "holds no CIFAR-10")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=words):
            load(name, directory=str(tmp_path / "empty"))


def test_mnist_by_any_door_is_the_same(real_mnist: Path) -> None:
    train, _, source = load("mnist", directory=str(real_mnist), source="idx")
    assert source == load("mnist", directory=str(real_mnist))[2]
    np.testing.assert_array_equal(train.labels[:5], [5, 0, 4, 1, 9])
    assert load("mnist", source="sample")[2].name == "MNIST sample"


def test_a_source_that_needs_a_directory_says_what_must_be_in_it() -> None:
    with pytest.raises(DataError, match="'idx' needs a directory with the four files"):
        load("mnist", source="idx")
    for source in ("python", "folders"):
        with pytest.raises(DataError, match=f"'{source}' needs a directory with data_batch_1"):
            load("cifar10", source=source)


def test_a_name_or_source_that_is_not_known_lists_the_valid_ones() -> None:
    for name, source, words in (
        ("cifar", "synthetic", "data set 'cifar' is unknown; expected one of mnist, cifar10"),
        ("cifar10", "sample", r"'sample' is unknown; .*auto, python, folders, tfds, .*CIFAR-10"),
        ("mnist", "folders", "'folders' is unknown; .*auto, idx, tfds, sample, synthetic for"),
        ("cifar10", "binary", r"'binary' is no longer read; .*cifar-10-python\.tar\.gz"),
    ):
        with pytest.raises(DataError, match=words):
            load(name, source=source)
    with pytest.raises(DataError, match="'synthetic' reads no directory"):
        load("mnist", source="synthetic", directory="here")


def test_without_a_network_mnist_goes_on_with_its_sample_and_cifar_10_stops(tmp_path: Path) -> None:
    lines: list[str] = []
    root = str(tmp_path / "tfds")
    source = load("mnist", tfds_dir=root, download=False, say=lines.append)[2]
    assert source.name == "MNIST sample" and len(lines) == 1
    assert "not allowed" in lines[0] and lines[0].endswith("with the sample of real MNIST")
    for name in ("mnist", "cifar10"):
        with pytest.raises(DataError, match=rf"{root}, .*\(not allowed\); name a directory"):
            load(name, source="tfds", tfds_dir=root, download=False)
    with pytest.raises(DataError, match=r"train\.tar and test\.tar"):
        load("cifar10", tfds_dir=root, download=False)


def test_every_argument_of_a_prepared_data_set_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(tfds, "load", lambda *values: given.append(values))
    load("cifar10", source="tfds", directory="d", tfds_dir="t", download=False, say=print)
    load("mnist")
    assert given == [("cifar10", "t", "d", False, print), ("mnist", "", "", True, print)]
