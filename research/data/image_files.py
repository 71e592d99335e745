"""Reader of picture files: PNG, JPEG, WebP, BMP and GIF to uint8 pixels, decoded by Pillow.

The format is known by content; the name of a file may say anything. Size and mode are read from the
header and refused before a pixel is decoded, so that a small file cannot fill the memory.

`read_image` gives the pixels as they lie in the file, for images that are data; `read_photograph`
those that a viewer shows, for photographs. All may be called from several threads; a second one
pays for photographs, which Pillow decodes outside of Python's lock, and costs time for pictures of
32 x 32.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from research.data.formats import CONVERT, recognise
from research.data.provenance import DataError
from research.structs import one_line

PNG_OR_JPEG = ("PNG", "JPEG")
PHOTOGRAPHS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")  # usual for PHOTOGRAPHS

# The limits of every picture that is read.
MAX_PIXELS = 64_000_000  # a camera has 12 to 50 million; decoding takes 10 to 20 bytes for each
MAX_BYTES = 8 * MAX_PIXELS  # of a file: four channels of 16 bits, not compressed

_MODES = {
    "1": "grey", "L": "grey", "I": "grey", "I;16": "grey", "LA": "grey with transparency",
    "RGBA": "RGB with transparency", "P": "palette",
}  # fmt: skip
_EXPECTED = "expected a PNG, JPEG, WebP, BMP or GIF picture"
_CHANNELS = {1: "grey", 3: "RGB"}
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_STARTS = (JPEG_START, b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")
_ORIENTATION_IN = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # of Pillow's info

# What Pillow warns of (damaged EXIF, too many pixels) is either harmless or becomes a DataError
# here. Once for the process: warnings.catch_warnings is not safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(
    source: str | Path | bytes,
    *,
    formats: Sequence[str] = PNG_OR_JPEG,
    shape: tuple[int, int, int] | None = None,
    name: str = "",
    exact: bool = True,
) -> np.ndarray:
    """The pixels [H, W, C] uint8 of a picture of 8 bits, grey (C = 1) or RGB (C = 3).

    Nothing is scaled or turned, and no value changes.

    source: a file, on a disk or in an object store, or its content.
    formats: those that Pillow may try.  name: begins a message; that of the file by default.
    shape: (H, W, C) that the picture must have.
    exact: whether another mode is refused as well. If not, those are taken that hold the pixels of
        `shape` in another way: grey as RGB of equal channels and the reverse, an alpha of 255
        everywhere, a palette, 1 bit as 0 and 255.
    Raises DataError that begins with the name: for what is missing, no picture, damaged, truncated
    or larger than the limits, for another shape or mode, for other than 8 bits, and for an EXIF
    entry by which viewers turn the picture.
    """
    size = f"{shape[1]} x {shape[0]} pixels, {_CHANNELS[shape[2]]}" if shape else "grey or RGB"
    expected = f"expected a {' or '.join(formats)} picture, {size}, 8 bits a channel"
    with _opened(source, formats, name, expected) as (image, name):
        bits = _bits(image)
        same = None if exact or shape is None else _same_pixels(image, bits, shape)
        image, bits = (same, 8) if same else (image, bits)
        mode = _MODES.get(image.mode, image.mode)
        mode += " with transparency" if "transparency" in image.info else ""
        width, height = image.size
        fits = shape is None or (height, width, mode) == (*shape[:2], _CHANNELS[shape[2]])
        if not fits or mode not in _CHANNELS.values() or bits != 8:
            raise DataError(
                f"{name}: {width:,} x {height:,} pixels, {mode}, {bits} bits a channel; {expected}"
                ", without palette or transparency: convert it"
            )
        # A fifth faster than np.asarray, which counts for 60,000 pictures of 32 x 32.
        pixels = image.tobytes()
        orientation = 1
        if not _ORIENTATION_IN.isdisjoint(image.info):  # known to the end of a PNG only now
            orientation = _orientation(image)
        if orientation != 1:
            raise DataError(
                f"{name}: EXIF orientation {orientation}, by which viewers turn it; expected the "
                "pixels as they are seen: save it without EXIF"
            )
        return np.frombuffer(pixels, np.uint8).reshape(height, width, -1)


def read_photograph(
    source: str | Path | bytes, *, name: str = "", remarks: list[str] | None = None
) -> np.ndarray:
    """The pixels [H, W, 3] uint8, RGB, of a picture as it is displayed; not to be written to.

    A picture of any mode becomes RGB of 8 bits:

    * 16 bits a channel: the high byte, in colour and in grey (Pillow would clip the grey ones);
    * grey, palette, CMYK and 1 bit: as Pillow converts them; colour profiles are not applied;
    * transparency: a pixel of which anything is seen keeps its own colour; one of which nothing is
      seen is white, whatever a program has left there. White is not mixed in: of 247 pictures of
      the Kaggle set "andrewmvd", 177 have a row or column at the edge that is seen in part, left
      over from scaling; its colours are 5 levels from those beside it, on average, and 58 with
      white mixed in;
    * a colour that stands for transparent is not looked for in pictures of 16 bits, where the high
      byte does not tell it from those about it;
    * of several frames: the first.

    source, name: as for `read_image`.
    remarks: receives a line if a JPEG ends without its marker and is whole otherwise.
    Raises DataError that begins with the name: for what is missing, no picture, damaged, truncated
    or larger than the limits.
    """
    try:
        return _displayed(source, name)
    except DataError:
        whole = _ended(source)
        if whole is None:
            raise
        if remarks is not None:
            remarks.append("a JPEG without its end marker")
        return _displayed(whole, name or str(source))


def _displayed(source: str | Path | bytes, name: str) -> np.ndarray:
    with _opened(source, PHOTOGRAPHS, name, _EXPECTED) as (image, _):
        deep = _bits(image) == 16
        _ = image.load()
        # In place, the pixels are turned even if a damaged EXIF block cannot be written back.
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_rgb(image, deep))


class Header(NamedTuple):
    """width, height: in pixels, as displayed.  orientation: how it is turned for that, as in EXIF.

    1 is not at all.
    """

    width: int
    height: int
    orientation: int


def photograph_header(source: str | Path | bytes, *, name: str = "") -> Header:
    """Size of a picture as `read_photograph` gives it, and how that turns it.

    From its header alone, except for a PNG, where the EXIF block may come last. Raises what
    `read_photograph` raises; damage among the pixels is found by that only.
    """
    with _opened(source, PHOTOGRAPHS, name, _EXPECTED) as (image, _):
        width, height = image.size
        orientation = _orientation(image)
        if orientation in _ON_ITS_SIDE:
            width, height = height, width
        return Header(width, height, orientation)


def is_picture(path: str | Path) -> bool:
    """Whether a file is a picture by the end of its name or by its content, read here or not."""
    if str(path).lower().endswith(SUFFIXES):
        return True
    try:
        if not Path(path).is_file():
            return False
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError:
        return False
    what = recognise(start)
    return start.startswith(_STARTS) or bool(what and what[1] == CONVERT)


def pixel_count(source: str | Path | bytes, *, name: str = "") -> int:
    """How many pixels a picture has, from its header alone.  Raises as `read_photograph`."""
    with _opened(source, PHOTOGRAPHS, name, _EXPECTED) as (image, _):
        return image.width * image.height


def _ended(source: str | Path | bytes) -> bytes | None:
    """A JPEG with the end marker that it lacks; None if it is no JPEG or more than that is missing.

    Where pixels are missing they come from whatever is put in their place; where all are there,
    what follows has no influence.
    """
    content = source if isinstance(source, bytes) else b""
    with contextlib.suppress(OSError):
        if not isinstance(source, bytes) and Path(source).is_file():  # a pipe would be waited for
            content = Path(source).read_bytes()
    if not content.startswith(JPEG_START) or len(content) > MAX_BYTES:
        return None
    content = content.rstrip(b"\xff")
    ends = [filling * 64 + _JPEG_END for filling in (b"", b"\x55", b"\xaa")]
    try:
        first, *others = (_displayed(content + end, "picture") for end in ends)
    except DataError:
        return None
    return content + _JPEG_END if all((first == other).all() for other in others) else None


@contextlib.contextmanager
def _opened(
    source: str | Path | bytes, formats: Sequence[str], name: str, expected: str
) -> Iterator[tuple[ImageFile, str]]:
    """A picture of which only the header has been read, and its name for messages.

    Damage that surfaces in the body becomes a DataError as well.
    """
    path = Path(source) if isinstance(source, str) else source
    name = name or ("picture" if isinstance(path, bytes) else str(path))
    try:
        # A pipe would be waited for until somebody writes to it.
        if isinstance(path, Path) and path.exists() and not path.is_file():
            raise DataError(f"{name}: is no regular file; {expected}: leave it out")
        with io.BytesIO(path) if isinstance(path, bytes) else path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            if size > MAX_BYTES:
                raise DataError(
                    f"{name}: {size:,} bytes; expected at most {MAX_BYTES:,}: leave it out"
                )
            _ = file.seek(0)
            try:
                image = Image.open(file, formats=list(formats))
            except UnidentifiedImageError:
                _ = file.seek(0)
                start = file.read(32)
                found = f"starts with {start[:8]!r}" if start else "is empty"
                if what := recognise(start):
                    found += f", as {what[0]} does ({what[1]})"
                raise DataError(
                    f"{name}: {found}; {expected} with a whole header: replace it or leave it out"
                ) from None
            width, height = image.size
            if width < 1 or height < 1 or width * height > MAX_PIXELS:
                raise DataError(
                    f"{name}: {width:,} x {height:,} pixels; expected at least one and at most "
                    f"{MAX_PIXELS:,}: make it smaller or leave it out"
                )
            yield image, name
    except DataError:
        raise
    except Image.DecompressionBombError as error:  # of Pillow's own limit, which is higher
        raise DataError(
            f"{name}: {error}; expected at most {MAX_PIXELS:,} pixels: make it smaller or leave it "
            "out"
        ) from None
    except Exception as error:  # damage surfaces as any type
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{name}: cannot be read ({error.strerror}); {expected}") from None
        raise DataError(
            f"{name}: damaged or truncated ({one_line(error)}); copy it again"
        ) from None


def _bits(image: ImageFile) -> int:
    """Bits a channel, before the pixels are loaded: Pillow cuts 16 to 8 without a word."""
    if image.format != "PNG":
        return 8
    layout = str(image.tile[0].args)  # "L", "L;4", "1", "RGB;16B"
    return 1 if layout == "1" else int(layout.partition(";")[2].rstrip("B") or 8)


def _orientation(image: Image.Image) -> int:
    """How a viewer turns a picture, 1 to 8 as EXIF counts; 1, not at all, if nothing valid says."""
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in range(1, 9) else 1
    return 1


def _same_pixels(image: ImageFile, bits: int, shape: tuple[int, int, int]) -> Image.Image | None:
    """A picture in another mode whose values are equal, of `shape`; None if it holds others."""
    height, width, channels = shape
    modes = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
    if bits > 8 or image.mode not in modes or image.size != (width, height):
        return None
    if getattr(image, "n_frames", 1) > 1:
        return None
    pixels = np.asarray(image.convert("RGBA"))
    is_grey = bool((pixels[..., :3] == pixels[..., :1]).all())
    if (pixels[..., 3] < 255).any() or (channels == 1 and not is_grey):
        return None
    same = Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels[..., :3])
    )
    same.info.update({key: image.info[key] for key in _ORIENTATION_IN & image.info.keys()})
    return same


def _rgb(image: Image.Image, deep: bool) -> Image.Image:
    """8-bit RGB of a loaded picture; deep: whether the file has 16 bits a channel."""
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    has_colour_key = "transparency" in image.info and not (deep and image.mode == "RGB")
    if image.mode in ("RGBA", "LA", "PA") or has_colour_key:
        seen = image if image.mode == "RGBA" else image.convert("RGBA")  # which would be a copy
        white = Image.new("RGB", image.size, "white")
        white.paste(seen, mask=seen.getchannel("A").point([0] + [255] * 255))
        return white
    _ = image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")
