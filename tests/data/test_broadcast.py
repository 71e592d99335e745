"""The data set of several processes is laid out once, and read by rows."""

import dataclasses

import chex
import numpy as np
import pytest

from research.data import broadcast, synthetic
from research.data.lazy_images import LazyImages
from research.data.provenance import DataError, describe
from research.runtime import distributed


@pytest.fixture
def as_second(monkeypatch):
    """What the first process has been told is known; this one is the second."""

    def become(about):
        monkeypatch.setattr(distributed, "broadcast_from_first", lambda function: about)
        monkeypatch.setattr(distributed, "is_first", lambda: False)

    return become


def digits():
    train, test = synthetic.digits()
    return train, test, describe("mnist", train, test, "synthetic", name="synthetic")


def test_another_process_reads_what_the_first_has_laid_out_and_loads_nothing(tmp_path, as_second):
    given = digits()
    about = broadcast._write(tmp_path / "data", given)
    as_second(about)
    train, test, source = broadcast.load(tmp_path / "data", lambda: pytest.fail("loads by itself"))
    assert source == given[2]
    for read, loaded in ((train, given[0]), (test, given[1])):
        assert isinstance(read.images, LazyImages)
        assert read.images.resident
        chex.assert_trees_all_equal(read.images[:], loaded.images)
        chex.assert_trees_all_equal(read.labels, loaded.labels)


def test_the_first_process_reads_its_rows_like_the_others(tmp_path):
    train, _, _ = broadcast.load(tmp_path, digits)
    assert isinstance(train.images, LazyImages)
    np.testing.assert_array_equal(train.images[7:9], digits()[0].images[7:9])


def test_what_is_told_is_json(tmp_path):
    train, test, source = digits()
    some = dataclasses.replace(train, images=train.images[:3], labels=train.labels[:3])
    about = broadcast._write(tmp_path, (some, test, source))
    assert about["train"] == {"shape": [3, 28, 28, 1], "labels": train.labels[:3].tolist()}
    assert about["source"]["name"] == "synthetic"


def test_pixels_that_a_process_cannot_see_are_named(tmp_path, as_second):
    about = broadcast._write(tmp_path / "here", digits())
    as_second(about)
    with pytest.raises(DataError, match=r"there/train\.images: is not there"):
        _ = broadcast.load(tmp_path / "there", digits)
