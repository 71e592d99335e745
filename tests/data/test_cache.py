"""Caches: made once, read back unchanged, and made again where anything is wrong."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from data.cifar_files import some_arrays
from research.data import cache
from research.data.provenance import DataError, Loaded, verify
from research.structs import UserError


class _Maker:
    """Counts how often it had to make the arrays."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Loaded:
        self.calls += 1
        return verify("cifar10", some_arrays(), "there", "jpeg")


def cached(path: Path, make: _Maker, said: list[str], **options: str) -> Loaded:
    return cache.cached(
        path,
        make,
        dataset="cifar10",
        source="there",
        lock=path.with_suffix(".lock"),
        say=said.append,
        **options,
    )


def test_a_user_without_a_home_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "expanduser", home)
    with pytest.raises(UserError, match=r"^~/.cache: no such home is known; set HOME"):
        _ = cache.cache_folder()


def test_what_was_made_once_is_read_with_its_name(tmp_path: Path) -> None:
    make, said = _Maker(), []
    first, second = (cached(tmp_path / "deep" / "a.npz", make, said) for _ in range(2))
    assert make.calls == 1 and said == []
    assert first[2] == second[2] and second[2].name == "CIFAR-10 subset (JPEG copies)"
    for a, b in zip(first[:2], second[:2], strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a.lock", "a.npz"]


def test_another_key_makes_it_again(tmp_path: Path) -> None:
    make, said = _Maker(), []
    for key in ("one", "one", "two", "two"):
        cached(tmp_path / "a.npz", make, said, key=key)
    assert make.calls == 2
    assert said == [f"{tmp_path / 'a.npz'} was made from other files; making it again"]


def test_arrays_without_the_checksum_that_is_demanded_are_made_again(tmp_path: Path) -> None:
    make, said = _Maker(), []
    digest = cached(tmp_path / "a.npz", make, said)[2].sha256
    cached(tmp_path / "a.npz", make, said, sha256=digest)
    assert make.calls == 1
    cached(tmp_path / "a.npz", make, said, sha256="0" * 64)
    assert make.calls == 2


@pytest.mark.parametrize(
    "damage", ["truncate", "empty", "text", "pixel", "lacks about", "method", "locked"]
)
def test_a_damaged_cache_is_noticed_said_once_and_made_again(tmp_path: Path, damage: str) -> None:
    make, said, path = _Maker(), [], tmp_path / "a.npz"
    cached(path, make, said)
    with np.load(path) as stored:
        members = dict(stored)
    if damage == "pixel":  # and no container that would notice it
        members["test_images"][3, 2, 1, 0] ^= 1
    if damage == "lacks about":
        del members["about"]
    whole = path.read_bytes()
    content = {"truncate": whole[:-999], "empty": b"", "text": b"no"}.get(damage)
    if damage in ("method", "locked"):  # of the first entry in the directory of the ZIP file
        place = whole.index(b"PK\1\2") + {"method": 10, "locked": 8}[damage]
        content = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    if content is None:
        np.savez(path, **members)
    else:
        path.write_bytes(content)
    assert cached(path, make, said)[2].name == "CIFAR-10 subset (JPEG copies)"
    assert make.calls == 2 and len(said) == 1 and "is damaged" in said[0]
    cached(path, make, said)
    assert make.calls == 2


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    make, said, path = _Maker(), [], tmp_path / "a.npz"
    first = cached(path, make, said)
    healthy = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(healthy), 30):
        content = bytearray(healthy)
        content[position] ^= 16
        path.write_bytes(content)
        again = cached(path, make, said)
        assert again[2] == first[2]
        np.testing.assert_array_equal(again[0].images, first[0].images)


def test_a_folder_that_cannot_be_written_is_said_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = _Maker(), []
    (tmp_path / "file").write_bytes(b"")  # nobody can make a folder below it, root neither
    for _ in range(2):
        assert cached(tmp_path / "file" / "a.npz", make, said)[2].train_count == 20
    assert make.calls == 2 and len(said) == 2
    assert "CIFAR-10 is not cached" in said[0] and "the next start will read it again" in said[0]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_it_is_cached_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    make, said = _Maker(), []
    for _ in range(2):
        assert cached(tmp_path / "a.npz", make, said)[2].train_count == 20
    assert make.calls == 1 and len(said) == 1
    assert f"{tmp_path} cannot be locked (No locks available)" in said[0]


def test_one_process_makes_it_and_the_other_waits_and_reads(tmp_path: Path) -> None:
    make, said, path = _Maker(), [], tmp_path / "a.npz"
    with FileLock(tmp_path / "a.lock"):
        thread = threading.Thread(target=cached, args=(path, make, said))
        thread.start()
        end = time.monotonic() + 10
        while not said and time.monotonic() < end:
            time.sleep(0.01)
        assert said == [f"waiting for another process that prepares CIFAR-10 in {tmp_path}"]
        assert make.calls == 0
        cache._write(path, _Maker()(), "", said.append)
    thread.join(10)
    assert make.calls == 0 and len(said) == 1


def test_the_key_sees_path_size_and_time_of_change(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        path.write_bytes(b"one")
        os.utime(path, ns=(1, 1))
    keys = {cache.key_of([first]), cache.key_of([second]), cache.key_of([first, second])}
    os.utime(first, ns=(1, 2))
    keys.add(cache.key_of([first]))
    first.write_bytes(b"three")
    os.utime(first, ns=(1, 2))
    keys.add(cache.key_of([first]))
    assert len(keys) == 5
    with pytest.raises(DataError, match=r"nothing: cannot be read \(No such file"):
        cache.key_of([tmp_path / "nothing"])


def test_the_cache_lies_where_the_desktop_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_folder() == Path("/xdg/small-net-laboratory")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache.cache_folder() == Path.home() / ".cache" / "small-net-laboratory"


def test_a_source_read_back_is_told_under_the_place_asked_for(tmp_path: Path) -> None:
    make, said = _Maker(), []
    cached(tmp_path / "a.npz", make, said)
    moved = cache.cached(
        tmp_path / "a.npz",
        make,
        dataset="cifar10",
        source="elsewhere",
        lock=tmp_path / "a.lock",
        say=said.append,
    )
    assert make.calls == 1
    assert moved[2] == dataclasses.replace(make()[2], source="elsewhere")
