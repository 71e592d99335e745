"""LazyImages images are the array that was written, and nothing of it is held."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data import lazy_images
from research.data.lazy_images import LazyImages, read_ahead
from research.data.provenance import DataError

SHAPE = (7, 4, 5, 3)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    array = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    path = tmp_path_factory.mktemp("stored") / "images.u8"
    path.write_bytes(array.tobytes())
    return array, LazyImages(path, SHAPE)


def test_it_looks_like_the_array(both):
    array, stored = both
    assert (len(stored), stored.shape, stored.nbytes) == (7, SHAPE, array.nbytes)
    assert (stored.dtype, stored.ndim) == (array.dtype, array.ndim)


@given(st.lists(st.integers(0, 6), max_size=12))
@settings(max_examples=30)
def test_it_is_indexed_like_the_array(both, wanted):
    array, stored = both
    index = np.array(wanted, int)
    np.testing.assert_array_equal(stored[index], array[index])


@pytest.mark.parametrize("index", [slice(None), slice(2, 5), slice(9, 12), 3, np.arange(7) % 2 > 0])
def test_slices_numbers_masks_and_tables_work_too(both, index):
    array, stored = both
    np.testing.assert_array_equal(stored[index], array[index])
    table = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(stored[table], array[table])


@pytest.mark.parametrize("index", [[7], [-1], [0, 99]])
def test_an_image_that_is_not_there_is_refused(both, index):
    with pytest.raises(IndexError, match="of 7"):
        both[1][np.array(index)]


def test_neighbours_are_read_at_once(both, monkeypatch):
    """Three runs: 0 1 2, 5, 4."""
    array, stored = both
    seen = []
    runs = lazy_images._runs
    monkeypatch.setattr(
        lazy_images, "_runs", lambda *a: (seen.append(run) or run for run in runs(*a))
    )
    np.testing.assert_array_equal(stored[np.array([0, 1, 2, 5, 4])], array[[0, 1, 2, 5, 4]])
    assert [(len(run), first) for run, first in seen] == [(3, 0), (1, 5), (1, 4)]


def test_what_takes_arrays_takes_all_of_it(both):
    array, stored = both
    np.testing.assert_array_equal(np.asarray(stored), array)


def test_parts_come_in_their_order(both):
    array, stored = both
    parts = [np.array([3, 1]), np.array([], int), np.array([6])]
    found = list(read_ahead(stored, parts))
    assert [len(part) for part in found] == [2, 0, 1]
    np.testing.assert_array_equal(np.concatenate(found), array[[3, 1, 6]])


def test_a_file_of_another_size_or_none_is_refused(tmp_path, both):
    short = tmp_path / "short.u8"
    short.write_bytes(bytes(10))
    with pytest.raises(DataError, match=r"short\.u8: 10 bytes, expected 420"):
        LazyImages(short, SHAPE)
    with pytest.raises(DataError, match="is not there"):
        LazyImages(tmp_path / "none.u8", SHAPE)


def test_a_file_that_is_cut_while_it_is_in_use_is_noticed(tmp_path):
    path = tmp_path / "images.u8"
    path.write_bytes(bytes(420))
    stored = LazyImages(path, SHAPE)
    path.write_bytes(bytes(100))
    with pytest.raises(DataError, match="shorter"):
        stored[5]
