"""TFDS data sets: what cannot be had is refused at once, with the way to have it."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from pathlib import Path

import pytest

from research.data import prepared
from research.data.provenance import Absent, Loaded, Unavailable


def refuse(directory: str | Path) -> None:
    raise Absent(f"nothing in {directory}")


RECIPE = prepared.Recipe(
    dataset="cifar10",
    version="cifar10/3.0.2",
    url="http://127.0.0.1:9/file",
    check_files=refuse,
    advice="put it into {manual}",
    builder=lambda: None,
)


def load(root: Path, directory: str = "", download: bool = True) -> Loaded:
    return prepared.load(RECIPE, str(root), directory, download, print)


def test_without_files_or_a_network_the_reason_and_the_way_are_told(tmp_path: Path) -> None:
    words = rf"CIFAR-10 is not in {tmp_path}, .* \(Connection refused\); put it into {tmp_path}/dow"
    with pytest.raises(Unavailable, match=words):
        load(tmp_path)
    with pytest.raises(Unavailable, match=r"\(not allowed\)"):
        load(tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_named_must_hold_the_files(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="nothing in the/data"):
        load(tmp_path, "the/data")


def test_the_directory_of_tfds_is_that_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "variable"))
    with pytest.raises(Unavailable, match=r"is not in .*/variable, and"):
        prepared.load(RECIPE, "", "", False, print)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(Unavailable, match=r"is not in .*/home/tensorflow_datasets, and"):
        prepared.load(RECIPE, "", "", False, print)


def test_a_port_that_accepts_and_never_answers_costs_no_more_than_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared, "_PROBE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        reason = prepared.unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        assert time.monotonic() - start < 3
    assert "timed out" in reason or "no answer within 0.3 s" in reason


def test_a_probe_leaves_no_thread_that_keeps_the_process_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def never(*args: object, **kwargs: object) -> None:
        release.wait(20)
        raise socket.gaierror(-2, "released")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(prepared, "_PROBE_S", 0.1)
    recipe = dataclasses.replace(RECIPE, url="http://name.invalid/x")
    before = set(threading.enumerate())
    with pytest.raises(Unavailable, match=r"no answer within 0\.1 s"):
        prepared.load(recipe, str(tmp_path), "", True, print)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    release.set()
    thread.join(5)
