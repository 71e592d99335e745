"""MNIST and CIFAR-10 by TFDS without TensorFlow: prepared, read in their order, downloaded."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.cifar_files import publish, some_arrays, write_batches, write_pictures
from research.data import idx, tfds
from research.data.provenance import PUBLISHED, DataError, Loaded, Unavailable

ROOT = Path(__file__).parents[2]
CLOSED = "http://127.0.0.1:9"  # nobody listens on the discard port


def idx_files() -> dict[str, bytes]:
    """Four small IDX files by their published names."""
    generator = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for split, n in (("train", 60), ("test", 20)):
        arrays = {
            "images": generator.integers(0, 256, (n, 28, 28), np.uint8),
            "labels": generator.integers(0, 10, n, np.uint8),
        }
        for kind, array in arrays.items():
            magic = 2051 if kind == "images" else 2049
            header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
            files[idx.NAMES[f"{split}_{kind}"]] = header + array.tobytes()
    return files


def publish_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `idx_files` pass for the published during one test."""
    by_name = {name: key for key, name in idx.NAMES.items()}
    for name, content in idx_files().items():
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(idx.MD5, by_name[name], digest)


@pytest.fixture(params=["mnist", "cifar10"])
def dataset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def files(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files that pass for the published ones during one test, and no network."""
    folder = tmp_path / "files"
    if dataset == "mnist":
        folder.mkdir()
        for name, content in idx_files().items():
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        publish_mnist(monkeypatch)
        changed = dataclasses.replace(PUBLISHED["mnist"], counts=(60, 20), sha256="")
        monkeypatch.setitem(PUBLISHED, "mnist", changed)
    else:
        write_batches(folder, packed=True)
        publish(monkeypatch)
    serve(monkeypatch, dataset, CLOSED, folder)
    return folder


def serve(monkeypatch: pytest.MonkeyPatch, dataset: str, address: str, folder: Path) -> None:
    """Lets the files in `folder` be downloaded from `address`."""
    urls = {
        f"{address}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }
    monkeypatch.setitem(tfds.DOWNLOADS, dataset, urls)


def load(
    dataset: str, root: Path, directory: Path | str = "", lines: list[str] | None = None
) -> Loaded:
    return tfds.load(
        dataset, str(root), str(directory), True, ([] if lines is None else lines).append
    )


def published_arrays(dataset: str, files: Path) -> dict[str, np.ndarray]:
    if dataset == "cifar10":
        return some_arrays()
    arrays = idx.read_files(idx.find_files(files))
    return {key: a[..., None] if a.ndim == 3 else a for key, a in arrays.items()}


def assert_published(loaded: Loaded, dataset: str, files: Path) -> None:
    arrays = published_arrays(dataset, files)
    for split, data in zip(("train", "test"), loaded[:2], strict=True):
        np.testing.assert_array_equal(data.images, arrays[f"{split}_images"])
        np.testing.assert_array_equal(data.labels, arrays[f"{split}_labels"])
    assert loaded[2].name == PUBLISHED[dataset].name


def version_of(root: Path, dataset: str) -> Path:
    return root / dataset / tfds.VERSIONS[dataset]


# Prepared and read back


def test_the_published_order_comes_back_from_records_and_from_the_cache(
    dataset: str, files: Path, tmp_path: Path
) -> None:
    root, lines = tmp_path / "tfds", []
    first = load(dataset, root, files, lines)
    assert_published(first, dataset, files)
    assert first[2].source == f"TFDS {dataset}/{tfds.VERSIONS[dataset]} in {root}"
    assert str(tmp_path) not in first[2].caption()
    assert ["preparing" in lines[0], "reading" in lines[1], len(lines)] == [True, True, 2]
    assert load(dataset, root, lines=lines)[2] == first[2] and len(lines) == 2  # from the cache
    (version_of(root, dataset) / "arrays.npz").unlink()
    assert_published(load(dataset, root, lines=lines), dataset, files)
    assert len(lines) == 3 and "reading" in lines[2]
    assert "tensorflow" not in sys.modules


def test_the_stock_builder_reads_what_was_prepared_here(
    dataset: str, files: Path, tmp_path: Path
) -> None:
    import tensorflow_datasets

    train = load(dataset, tmp_path / "tfds", files)[0]
    stock = tensorflow_datasets.builder(dataset, data_dir=tmp_path / "tfds")
    assert stock.is_prepared() and stock.info.full_name == f"{dataset}/{tfds.VERSIONS[dataset]}"
    assert stock.info.features["label"].names == list(PUBLISHED[dataset].classes)
    labels = {image.tobytes(): n for image, n in zip(train.images, train.labels, strict=True)}
    examples: Any = stock.as_data_source("train")
    assert len(examples) == len(labels)
    assert all(labels[e["image"].tobytes()] == e["label"] for e in examples)
    if dataset == "cifar10":
        numbers = sorted(e["id"].decode() for e in examples)
        assert numbers == [f"train_{number:05d}" for number in range(20)]


def test_the_order_is_that_of_the_hash_of_tfds() -> None:
    from tensorflow_datasets.core.hashing import Hasher

    for split in ("train", "test"):
        expected = sorted(range(500), key=Hasher(salt=split).hash_key)
        assert tfds._published_order(split, 500) == expected


def test_versions_and_addresses_are_those_of_the_stock_builders() -> None:
    import tensorflow_datasets

    stock = tensorflow_datasets.image_classification
    assert {"mnist": str(stock.MNIST.VERSION), "cifar10": str(stock.Cifar10.VERSION)} == (
        tfds.VERSIONS
    )
    assert {url.rpartition("/")[0] + "/" for url in tfds.DOWNLOADS["mnist"]} == {stock.MNIST.URL}


def test_the_cache_of_a_read_only_data_set_is_missing_and_said(
    dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, original = tmp_path / "tfds", Path.open
    first = load(dataset, root, files)
    (version_of(root, dataset) / "arrays.npz").unlink()

    def read_only(self: Path, mode: str = "r", *rest: Any, **options: Any) -> object:
        if root in self.parents and "w" in mode:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", read_only)  # the tests may run as root
    lines: list[str] = []
    assert load(dataset, root, lines=lines)[2] == first[2]
    assert "not cached" in lines[-1]


def test_what_killed_preparations_left_behind_is_removed(
    dataset: str, files: Path, tmp_path: Path
) -> None:
    leftover = tmp_path / "tfds" / dataset / f"incomplete.ABC123_{tfds.VERSIONS[dataset]}"
    leftover.mkdir(parents=True)
    (leftover / "part").write_bytes(b"x")
    load(dataset, tmp_path / "tfds", files)
    assert not leftover.exists()


# Refusals


def test_a_damaged_record_is_refused_with_what_to_do(
    dataset: str, files: Path, tmp_path: Path
) -> None:
    load(dataset, tmp_path / "tfds", files)
    version = version_of(tmp_path / "tfds", dataset)
    (version / "arrays.npz").unlink()
    shard = next(version.glob(f"{dataset}-train.array_record*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 4] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=rf"{version} cannot be read .* move this directory away"):
        load(dataset, tmp_path / "tfds")


def test_a_folder_without_a_data_set_is_refused_with_what_to_do(
    dataset: str, tmp_path: Path
) -> None:
    version_of(tmp_path, dataset).mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot be read .*; move this directory away and"):
        load(dataset, tmp_path)


@pytest.mark.parametrize("file_format", ["tfrecord", "riegeli"])
def test_another_format_is_refused_by_its_name(
    files: Path, dataset: str, tmp_path: Path, file_format: str
) -> None:
    load(dataset, tmp_path / "tfds", files)
    version = version_of(tmp_path / "tfds", dataset)
    (version / "arrays.npz").unlink()
    info = version / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", file_format))
    with pytest.raises(DataError, match=f"stored as {file_format}, expected array_record"):
        load(dataset, tmp_path / "tfds")


def test_records_that_are_not_those_that_were_prepared_are_refused(
    dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(dataset, tmp_path / "tfds", files)
    version = version_of(tmp_path / "tfds", dataset)
    (version / "arrays.npz").unlink()
    if dataset == "mnist":  # whose checksum is known, whoever has prepared it
        changed = dataclasses.replace(PUBLISHED["mnist"], sha256="0" * 64)
        monkeypatch.setitem(PUBLISHED, "mnist", changed)
    else:
        (version / "sha256.txt").write_text("0" * 64)
    with pytest.raises(DataError, match=r"does not hold .* as published .*move this direct"):
        load(dataset, tmp_path / "tfds")


def test_what_somebody_else_prepared_is_not_called_published(
    dataset: str, files: Path, tmp_path: Path
) -> None:
    load(dataset, tmp_path / "tfds", files)
    for name in ("arrays.npz", "sha256.txt"):
        (version_of(tmp_path / "tfds", dataset) / name).unlink()
    loaded = load(dataset, tmp_path / "tfds")
    assert loaded[2].name == f"{PUBLISHED[dataset].name} (unknown digest)"


def test_files_that_are_not_those_published_are_not_prepared(
    dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.data import cifar10_batches

    monkeypatch.setitem(idx.MD5, "train_labels", "0" * 32)
    monkeypatch.setitem(cifar10_batches.MD5, "test_batch", "0" * 32)
    with pytest.raises(DataError, match=rf"{files}.* MD5 .*"):
        load(dataset, tmp_path / "tfds", files)
    assert not version_of(tmp_path / "tfds", dataset).exists()


def test_a_directory_that_was_named_must_hold_the_published_files(
    dataset: str, tmp_path: Path
) -> None:
    folder = write_pictures(tmp_path / "pictures")
    with pytest.raises(DataError, match=r"pictures holds no.* of"):
        load(dataset, tmp_path / "tfds", folder)
    assert not (tmp_path / "tfds").exists()


# Downloads


def test_without_files_or_a_network_the_reason_and_the_way_are_told(
    dataset: str, files: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tfds"
    name = next(files.iterdir()).name
    words = rf"is not in {root}, .*Connection refused.*; name a directory .*{name}.* into {root}/do"
    with pytest.raises(Unavailable, match=words):
        load(dataset, root)
    with pytest.raises(Unavailable, match=r"\(not allowed\)"):
        tfds.load(dataset, str(root), "", False, print)
    assert not root.exists()


def test_the_directory_of_tfds_is_that_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "variable"))
    with pytest.raises(Unavailable, match=r"is not in .*/variable, and"):
        tfds.load("mnist", "", "", False, print)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(Unavailable, match=r"is not in .*/home/tensorflow_datasets, and"):
        tfds.load("mnist", "", "", False, print)


def test_files_in_the_manual_folder_of_tfds_are_used_without_a_network(
    dataset: str, files: Path, tmp_path: Path
) -> None:
    shutil.copytree(files, tmp_path / "tfds" / "downloads" / "manual")
    assert_published(load(dataset, tmp_path / "tfds"), dataset, files)


class _Files(http.server.SimpleHTTPRequestHandler):
    """Counts requests; the server's `state` "silent" accepts and never answers."""

    release = threading.Event()

    def do_GET(self) -> None:
        server: Any = self.server
        server.requests += 1
        if server.silent:
            self.release.wait(20)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server(files: Path) -> Iterator[Any]:
    """A loopback server of `files`."""
    _Files.release.clear()

    def handler(*args: Any) -> _Files:
        return _Files(*args, directory=str(files))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        each: Any = httpd
        each.requests, each.silent = 0, False
        each.address = f"http://127.0.0.1:{httpd.server_port}"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield each
        _Files.release.set()
        httpd.shutdown()


def test_the_files_are_downloaded_once_and_only_those_that_are_missing(
    dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    serve(monkeypatch, dataset, server.address, files)
    root, manual = tmp_path / "tfds", tmp_path / "tfds" / "downloads" / "manual"
    names = sorted(path.name for path in files.iterdir())
    if dataset == "mnist":
        manual.mkdir(parents=True)
        shutil.copy(files / names[0], manual)
    assert_published(load(dataset, root), dataset, files)
    assert server.requests == (3 if dataset == "mnist" else 1)
    assert sorted(path.name for path in manual.iterdir()) == [".lock", *names]
    shutil.rmtree(version_of(root, dataset))
    assert_published(load(dataset, root), dataset, files)
    assert server.requests == (3 if dataset == "mnist" else 1)


def test_a_download_with_another_digest_is_not_kept(
    dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    urls = {f"{server.address}/{path.name}": "0" * 64 for path in files.iterdir()}
    monkeypatch.setitem(tfds.DOWNLOADS, dataset, urls)
    with pytest.raises(Unavailable, match=r"cannot be downloaded \(.*: SHA-256 .*, expected 000"):
        load(dataset, tmp_path / "tfds")
    manual = tmp_path / "tfds" / "downloads" / "manual"
    assert [path.name for path in manual.iterdir()] == [".lock"]


def test_a_server_that_lacks_the_file_or_falls_silent_is_an_error_soon(
    dataset: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    serve(monkeypatch, dataset, f"{server.address}/absent", files)
    with pytest.raises(Unavailable, match=r"cannot be downloaded \(.*404"):
        load(dataset, tmp_path / "tfds")
    serve(monkeypatch, dataset, server.address, files)
    monkeypatch.setattr(tfds, "CONNECT_S", 0.3)
    server.silent = True
    start = time.monotonic()
    with pytest.raises(Unavailable, match="timed out"):
        load(dataset, tmp_path / "tfds")
    assert time.monotonic() - start < 5
    assert not (tmp_path / "tfds").exists()


# The whole of it


@pytest.mark.slow
def test_a_preparation_killed_at_any_moment_is_completed_by_the_next_run(
    real_mnist: Path, tmp_path: Path
) -> None:
    call = (
        "from research.data import datasets\n"
        f"datasets.load('mnist', source='tfds', directory={str(real_mnist)!r}, "
        f"tfds_dir={str(tmp_path)!r})"
    )
    generator = random.Random(0)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", call], cwd=ROOT) as process:
            time.sleep(generator.uniform(2, 12))
            process.send_signal(signal.SIGKILL)
    subprocess.run([sys.executable, "-c", call], cwd=ROOT, check=True)
    names = sorted(path.name for path in (tmp_path / "mnist").iterdir())
    assert names == [".lock", "3.0.1"]
    assert not list((tmp_path / "mnist" / "3.0.1").glob("*.tmp"))
    assert os.path.getsize(tmp_path / "mnist" / "3.0.1" / "arrays.npz") > 54_000_000
    assert load("mnist", tmp_path)[2].sha256 == PUBLISHED["mnist"].sha256
