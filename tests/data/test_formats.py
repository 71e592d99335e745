"""Files as their own writers begin them are recognised, and none of those that are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import pytest
from PIL import Image

from research.data.formats import recognise


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind)
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", "b")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"a", mtime=0), "a gzip file"),
        (zipped(), "a zip archive"),
        (bz2.compress(b"a"), "a bzip2 file"),
        (lzma.compress(b"a"), "an xz file"),
        (picture("TIFF"), "a TIFF picture"),
        (picture("AVIF"), "an AVIF picture"),
        (b"<!DocType HTML>", "a web page"),
        (b"\0\0\0\x20ftypisom", "a video"),
    ],
)
def test_what_a_file_is_and_what_to_do_is_told(content: bytes, what: str) -> None:
    recognised = recognise(content[:32])
    assert recognised and recognised[0] == what and recognised[1]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_pictures_that_are_read_are_not_named(kind: str) -> None:
    assert recognise(picture(kind)[:32]) is None


@pytest.mark.parametrize("content", [b"", b"PK", b"\0\0\x08\x03", b"label,pixel0", b"\x80\x02}("])
def test_nothing_is_said_of_other_bytes(content: bytes) -> None:
    assert recognise(content) is None
