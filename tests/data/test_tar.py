"""Tar files: members are listed and read in memory, and nothing odd is taken for an archive."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cifar_files import write_tar
from research.data import tar
from research.data.provenance import DataError

FILES = {"cat/1.png": b"one", "cat/2.png": bytes(700), "dog/1.png": b"three"}


def contents(path: Path, max_bytes: int = 10_000) -> dict[str, bytes]:
    return {member.name: member.read() for member in tar.members(path, max_bytes)}


def refusal(path: Path, max_bytes: int = 10_000) -> str:
    with pytest.raises(DataError) as error:
        contents(path, max_bytes)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def one_member(path: Path, **fields: object) -> Path:
    info = tarfile.TarInfo("cat/1.png")
    for name, value in fields.items():
        setattr(info, name, value)
    with tarfile.open(path, "w") as archive:
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_have_the_packed_bytes_and_nothing_is_unpacked(tmp_path: Path, mode: str) -> None:
    path = write_tar(tmp_path / "a.tar", FILES, mode)
    assert contents(path) == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar"]
    if mode == "w":
        raw = path.read_bytes()
        assert all(
            raw[member.offset : member.offset + member.size] == FILES[member.name]
            for member in tar.members(path, 10_000)
        )


def test_folders_are_passed_over_and_a_leading_dot_is_dropped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("./cat", tarfile.DIRTYPE), ("./cat/1.png", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    assert contents(tmp_path / "a.tar") == {"cat/1.png": b""}


@given(data=st.data(), packed=st.booleans())
def test_every_truncation_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, packed: bool
) -> None:
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", FILES, "w:gz" if packed else "w")
    content = path.read_bytes()
    # Up to the first block of zeros, which ends an archive; what follows it is padding.
    whole = len(content) if packed else 512 * (2 + 3 + 2) + 512
    path.write_bytes(content[: data.draw(st.integers(0, whole - 1))])
    refusal(path)


@given(bit=st.integers(0, 8 * 512 - 1), member=st.integers(0, 2))
def test_a_flipped_bit_in_a_header_is_refused(
    tmp_path_factory: pytest.TempPathFactory, bit: int, member: int
) -> None:
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", FILES)
    content = bytearray(path.read_bytes())
    content[512 * (0, 2, 5)[member] + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    if 148 <= bit // 8 < 156:
        return  # the checksum itself, a number in octal with spare bytes
    assert "bad checksum" in refusal(path)


def test_a_flipped_bit_in_the_checksum_of_gzip_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", FILES, "w:gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    assert "CRC check failed" in refusal(path)


@pytest.mark.parametrize("name", ["../cat/1.png", "/cat/1.png", "cat/../../1.png"])
def test_a_member_that_points_outside_is_refused_by_name(tmp_path: Path, name: str) -> None:
    message = refusal(one_member(tmp_path / "a.tar", name=name))
    assert repr(name) in message and "points outside" in message


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.FIFOTYPE, "of a special type"),
        (tarfile.CHRTYPE, "of a special type"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, word: str) -> None:
    path = one_member(tmp_path / "a.tar", type=kind, linkname="/etc/passwd")
    assert f"'cat/1.png' is {word}" in refusal(path)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("cat/1.png", "./cat/1.png"):
            archive.addfile(tarfile.TarInfo(name))
    assert "cat/1.png is there twice" in refusal(tmp_path / "a.tar")


def test_a_member_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    assert "cat/2.png has 700 bytes, expected 600 at most" in refusal(path, 600)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8bno"])
def test_a_file_that_is_no_tar_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    assert "copy or download it again" in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><title>404</title>", "is a web page, expected a tar file: download"),
        (b"PK\x03\x04" + bytes(600), "is a zip archive, expected a tar file: unpack it"),
    ],
)
def test_what_is_in_the_place_of_an_archive_is_told(
    tmp_path: Path, content: bytes, words: str
) -> None:
    for packed in (content, gzip.compress(content)):
        (tmp_path / "a.tar").write_bytes(packed)
        assert words in refusal(tmp_path / "a.tar")


def test_an_archive_that_was_packed_twice_is_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES, "w:gz")
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert contents(path) == FILES


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "a.tar")
