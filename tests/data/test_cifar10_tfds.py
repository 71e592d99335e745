"""CIFAR-10 by TFDS without TensorFlow: prepared from the published files, read in their order."""

from __future__ import annotations

import http.server
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.cifar_files import publish, some_arrays, write_batches, write_pictures
from research.data import cifar10, cifar10_batches, prepared
from research.data.cifar10 import load_cifar10
from research.data.provenance import DataError, Loaded, Unavailable

CLOSED = "http://127.0.0.1:9/"  # nobody listens on the discard port


def set_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    from research.data import cifar10_tfds

    monkeypatch.setattr(cifar10_batches, "URL", f"{url}cifar-10-binary.tar.gz")
    monkeypatch.setattr(cifar10_tfds.Cifar10, "URL", f"{url}cifar-10-binary.tar.gz")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small archive that passes for the published one, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_batches(tmp_path / "data", "binary", packed=True)
    publish(monkeypatch, *folder.iterdir())
    set_url(monkeypatch, CLOSED)
    return folder


def prepare(folder: Path, root: Path) -> Loaded:
    return load_cifar10(
        source="tfds", directory=str(folder), tfds_dir=str(root), say=lambda line: None
    )


def assert_published(loaded: Loaded) -> None:
    for split, data in zip(("train", "test"), loaded[:2], strict=True):
        np.testing.assert_array_equal(data.images, some_arrays()[f"{split}_images"])
        np.testing.assert_array_equal(data.labels, some_arrays()[f"{split}_labels"])
    assert loaded[2].name == "CIFAR-10"


def test_the_published_order_comes_back_and_the_name(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "tfds"
    first = prepare(archive, root)
    assert_published(first)
    assert first[2].source == f"TFDS cifar10/3.0.2 in {root}"
    assert "tensorflow" not in sys.modules
    said: list[str] = []
    assert load_cifar10(tfds_dir=str(root), say=said.append)[2] == first[2]  # "auto" finds it
    assert said == []
    (root / "cifar10" / "3.0.2" / "arrays.npz").unlink()
    assert_published(load_cifar10(tfds_dir=str(root), say=said.append))
    assert len(said) == 1 and "reading CIFAR-10 back" in said[0]


def test_python_batches_with_the_published_digests_do_too(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_batches(tmp_path / "python", "python")
    publish(monkeypatch, *folder.iterdir())
    assert prepare(folder, tmp_path / "a")[2].sha256 == prepare(archive, tmp_path / "b")[2].sha256


def test_the_stock_builder_reads_what_was_prepared_here(archive: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    from research.data import cifar10_tfds

    train = prepare(archive, tmp_path / "tfds")[0]
    stock = tfds.builder("cifar10", data_dir=tmp_path / "tfds")
    assert type(stock) is not cifar10_tfds.Cifar10 and stock.is_prepared()
    assert stock.info.features["label"].names == list(cifar10_tfds.PUBLISHED["cifar10"].classes)
    examples = {example["id"].decode(): example for example in stock.as_data_source("train")}
    assert sorted(examples) == [f"train_{number:05d}" for number in range(20)]
    for number in range(20):
        example = examples[f"train_{number:05d}"]
        np.testing.assert_array_equal(example["image"], train.images[number])
        assert example["label"] == train.labels[number]


def test_what_somebody_else_prepared_is_not_called_published(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "tfds"
    prepare(archive, root)
    for name in ("arrays.npz", "sha256.txt"):
        (root / "cifar10" / "3.0.2" / name).unlink()
    loaded = load_cifar10(tfds_dir=str(root), say=lambda line: None)
    assert loaded[2].name == "CIFAR-10 (unknown digest)"


def test_records_that_are_not_those_that_were_prepared_are_refused(
    archive: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tfds"
    prepare(archive, root)
    version = root / "cifar10" / "3.0.2"
    (version / "arrays.npz").unlink()
    (version / "sha256.txt").write_text("0" * 64)
    with pytest.raises(DataError, match=r"3\.0\.2 does not hold CIFAR-10 as published .*delete"):
        load_cifar10(tfds_dir=str(root), say=lambda line: None)


@pytest.mark.parametrize("form", ["binary", "python"])
def test_files_that_are_not_proved_to_be_cifar_10_are_not_prepared(
    archive: Path, tmp_path: Path, form: str
) -> None:
    del archive
    folder = write_batches(tmp_path / "other", form)
    with pytest.raises(DataError, match=r"other.*not known to be CIFAR-10 as published"):
        prepare(folder, tmp_path / "tfds")
    assert not (tmp_path / "tfds" / "cifar10" / "3.0.2").exists()


def test_pictures_are_not_prepared(archive: Path, tmp_path: Path) -> None:
    del archive
    with pytest.raises(DataError, match="holds no batches of CIFAR-10"):
        prepare(write_pictures(tmp_path / "pictures"), tmp_path / "tfds")


def test_an_archive_in_the_manual_folder_is_used_without_a_network(
    archive: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tfds"
    shutil.copytree(archive, root / "downloads" / "manual")
    assert_published(load_cifar10(tfds_dir=str(root), say=lambda line: None))


def test_address_and_version_are_those_of_the_stock_builder() -> None:
    import tensorflow_datasets as tfds

    from research.data import cifar10_tfds

    stock = tfds.image_classification.Cifar10
    assert stock._cifar_info.fget(stock).url == cifar10_tfds.Cifar10.URL  # type: ignore[attr-defined]
    assert f"cifar10/{stock.VERSION}" == cifar10._recipe().version


class _Files(http.server.SimpleHTTPRequestHandler):
    stall = threading.Event()

    def do_GET(self) -> None:
        if self.server.stalls:  # type: ignore[attr-defined]
            self.stall.wait(20)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server(archive: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """A loopback server of the archive; `stalls = True` makes it accept and never answer."""
    _Files.stall.clear()

    def handler(*args: object) -> _Files:
        return _Files(*args, directory=str(archive))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.stalls = False  # type: ignore[attr-defined]
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        _Files.stall.set()
        httpd.shutdown()


def test_with_a_network_the_archive_is_downloaded_once_and_its_digest_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: http.server.ThreadingHTTPServer
) -> None:
    root = tmp_path / "tfds"
    set_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
    assert_published(load_cifar10(tfds_dir=str(root), say=lambda line: None))
    set_url(monkeypatch, CLOSED)
    assert_published(load_cifar10(tfds_dir=str(root), say=lambda line: None))
    shutil.rmtree(root)
    monkeypatch.setitem(cifar10_batches.MD5, "cifar-10-binary.tar.gz", "0" * 32)
    set_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
    with pytest.raises(DataError, match="not known to be CIFAR-10 as published"):
        load_cifar10(tfds_dir=str(root), say=lambda line: None)


def test_a_server_that_has_it_not_or_falls_silent_is_an_error_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: http.server.ThreadingHTTPServer
) -> None:
    from research.data import tfds_store

    set_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/absent/")
    with pytest.raises(Unavailable, match=r"cannot be downloaded \(.*[Nn]ot [Ff]ound"):
        load_cifar10(tfds_dir=str(tmp_path / "tfds"))
    set_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(tfds_store, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(tfds_store, "_RETRIES", 0)
    server.stalls = True  # type: ignore[attr-defined]
    start = time.monotonic()
    with pytest.raises(Unavailable, match="CIFAR-10 could not be prepared in"):
        load_cifar10(tfds_dir=str(tmp_path / "tfds"), say=lambda line: None)
    assert time.monotonic() - start < 10
    assert prepared.unreachable(f"{CLOSED}x") == "Connection refused"
