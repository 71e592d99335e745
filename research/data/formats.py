"""What the first bytes of a file say it is, for the message that refuses it."""

from __future__ import annotations

_UNPACK = "unpack it"
_AGAIN = "download the file itself"
CONVERT = "save it as PNG or JPEG"
_STARTS = {
    b"\x1f\x8b": ("a gzip file", _UNPACK),
    b"PK\x03\x04": ("a zip archive", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", _UNPACK),
    b"Rar!": ("a RAR archive", _UNPACK),
    b"BZh": ("a bzip2 file", _UNPACK),
    b"\xfd7zXZ": ("an xz file", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", _UNPACK),
    b"<!doctype html": ("a web page", _AGAIN),
    b"<html": ("a web page", _AGAIN),
    b"version https://git-lfs": ("a pointer of Git LFS", f"{_AGAIN} (git lfs pull)"),
    b"II*\0": ("a TIFF picture", CONVERT),
    b"MM\0*": ("a TIFF picture", CONVERT),
    b"\xff\x0a": ("a JPEG XL picture", CONVERT),
    b"8BPS": ("a Photoshop picture", CONVERT),
    b"<svg": ("an SVG drawing", CONVERT),
    b"%PDF": ("a PDF document", CONVERT),
}
_BRANDS = {  # of the container of ISO 14496-12, which begins with "ftyp" at byte 4
    b"avif": ("an AVIF picture", CONVERT),
    b"avis": ("an AVIF picture", CONVERT),
    b"heic": ("a HEIC picture", CONVERT),
    b"heix": ("a HEIC picture", CONVERT),
    b"mif1": ("a HEIC picture", CONVERT),
    b"msf1": ("a HEIC picture", CONVERT),
}


def recognise(start: bytes) -> tuple[str, str] | None:
    """(what it is, what to do) from the first 32 bytes of a file, ("a zip archive", "unpack it").

    None for what has no entry here: nothing that this project reads but gzip has one.
    """
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], ("a video", CONVERT))
    lower = start[:32].lower()
    return next((what for head, what in _STARTS.items() if lower.startswith(head.lower())), None)
