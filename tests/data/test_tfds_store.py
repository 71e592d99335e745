"""Reading and preparing through TFDS: its records one by one, its requests in bounded time."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.core.download import downloader

from research.data import tfds_store
from research.data.provenance import DataError


@given(records=st.lists(st.binary(max_size=40), max_size=5))
def test_the_records_of_a_tfrecord_file_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("records") / "file"
    frames = (struct.pack("<QI", len(r), 7) + r + struct.pack("<I", 9) for r in records)
    path.write_bytes(b"".join(frames))
    assert list(tfds_store._tfrecords(path)) == records


def test_requests_have_a_time_out_while_tfds_downloads_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[dict[str, object]] = []
    monkeypatch.setattr(requests.Session, "get", lambda self, url, **words: given.append(words))
    retries = downloader.MAX_RETRIES
    with tfds_store._bounded_requests():
        requests.Session().get("http://127.0.0.1:9/")
        assert retries > downloader.MAX_RETRIES == tfds_store._RETRIES
    requests.Session().get("http://127.0.0.1:9/")
    assert given == [{"timeout": tfds_store._TIMEOUT_S}, {}]
    assert retries == downloader.MAX_RETRIES


def test_a_directory_without_a_data_set_is_refused_with_what_to_delete(tmp_path: Path) -> None:
    words = r"cannot be read .*; delete this directory and CIFAR-10 will be prepared again"
    with pytest.raises(DataError, match=words):
        tfds_store.read(tmp_path, "cifar10")
