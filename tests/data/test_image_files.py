"""Picture files: exact pixels of images that are data, pixels of photographs as seen, refusals."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from research.data import image_files
from research.data.image_files import photograph_header, read_image, read_photograph
from research.data.provenance import DataError
from research.structs import printable

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXACT = {"PNG": {}, "BMP": {}, "WEBP": {"lossless": True}}


def saved(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    array: np.ndarray, colour: int, *, early: bytes = b"", late: bytes = b"", bits: int = 0
) -> bytes:
    """A PNG of [H, W, C] uint8 or uint16, with any chunks before and after its pixels."""
    height, width = array.shape[:2]
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1)
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits or array.itemsize * 8, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(content))
    return SIGNATURE + chunk(b"IHDR", header) + early + pixels + late + chunk(b"IEND", b"")


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block with a camera's name before the orientation."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHII", 0x0110, 2, 3, int.from_bytes(b"cam\0", "little"))
    value = struct.pack(f"{order}HH", orientation, 0)
    entries += struct.pack(f"{order}HHI", 0x0112, kind, count) + value
    return start + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def blank(mode: str, kind: str = "PNG", **settings: object) -> bytes:
    return saved(Image.new(mode, (7, 5)), kind, **settings)


SMALL = {
    "PNG": saved(Image.fromarray(PIXELS)),
    "JPEG": saved(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0" + exif(6)),
    "BMP": saved(Image.fromarray(PIXELS), "BMP"),
    "WEBP": saved(Image.fromarray(PIXELS), "WEBP"),
    "GIF": saved(Image.fromarray(PIXELS), "GIF"),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures") / "the file.jpg"


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def refusal(file: Path | bytes, *words: str, call: Callable[..., object] = read_photograph) -> str:
    with pytest.raises(DataError) as error:
        call(file)
    message = str(error.value)
    name = f"{printable(str(file))}: " if isinstance(file, Path) else ("mine: ", "picture: ")
    assert message.startswith(name) and "\n" not in message, message
    for word in words:
        assert word in message, message
    return message


# Images that are data


def test_a_png_gives_its_pixels_from_a_file_and_from_bytes(file: Path) -> None:
    for pixels in (PIXELS, PIXELS[..., :1]):
        content = saved(Image.fromarray(pixels.squeeze()))
        np.testing.assert_array_equal(read_image(content), pixels)
        np.testing.assert_array_equal(read_image(str(written(file, content))), pixels)


def test_an_image_that_is_data_is_refused_if_viewers_turn_it(file: Path) -> None:
    block = chunk(b"eXIf", exif(6))
    for content in (png(PIXELS, 2, early=block), png(PIXELS, 2, late=block), SMALL["JPEG"]):
        written(file, content)
        with pytest.raises(DataError, match=r"the file.jpg: EXIF orientation 6, by which viewers"):
            read_image(file, shape=PIXELS.shape)
    for harmless in (1, 0, 9):
        written(file, png(PIXELS, 2, late=chunk(b"eXIf", exif(harmless))))
        np.testing.assert_array_equal(read_image(file, shape=PIXELS.shape), PIXELS)


@pytest.mark.parametrize(
    ("content", "shape", "found"),
    [
        (blank("RGB"), (5, 7, 1), "7 x 5 pixels, RGB, 8 bits"),
        (blank("L"), (5, 7, 3), "7 x 5 pixels, grey, 8 bits"),
        (blank("L", "JPEG"), (5, 7, 3), "grey, 8 bits"),
        (blank("CMYK", "JPEG"), (5, 7, 3), "CMYK"),
        (blank("L"), (7, 5, 1), "7 x 5 pixels"),
        (blank("1"), (5, 7, 1), "grey, 1 bits"),
        (blank("I;16"), (5, 7, 1), "grey, 16 bits"),
        (png(np.zeros((5, 7, 3), np.uint16), 2), (5, 7, 3), "RGB, 16 bits"),
        (png(np.zeros((5, 4, 1), np.uint8), 0, bits=4), (5, 4, 1), "grey, 4 bits"),
        (blank("P"), (5, 7, 3), "palette"),
        (blank("LA"), (5, 7, 1), "grey with transparency"),
        (blank("RGBA"), (5, 7, 3), "RGB with transparency"),
        (blank("L", transparency=0), (5, 7, 1), "grey with transparency"),
        (blank("RGB", transparency=(0, 0, 0)), (5, 7, 3), "RGB with transparency"),
    ],
)
def test_an_image_of_another_size_or_mode_is_refused(
    content: bytes, shape: tuple[int, int, int], found: str
) -> None:
    kind = {1: "grey", 3: "RGB"}[shape[2]]
    words = (
        found,
        f"expected a PNG or JPEG picture, {shape[1]} x {shape[0]} pixels, {kind}, 8 bits",
        "convert it",
    )
    refusal(content, *words, call=lambda content: read_image(content, shape=shape, name="mine"))


def test_a_format_that_is_not_asked_for_is_refused() -> None:
    refusal(SMALL["GIF"], "starts with b'GIF87a", "expected a PNG or JPEG", call=read_image)


@given(bit=st.integers(0, 8 * len(SMALL["PNG"]) - 1))
def test_a_flipped_bit_in_a_png_never_changes_a_pixel(bit: int) -> None:
    content = bytearray(SMALL["PNG"])
    content[bit // 8] ^= 1 << bit % 8
    try:
        pixels = read_image(bytes(content), shape=(5, 7, 3))
    except DataError:
        return
    np.testing.assert_array_equal(pixels, PIXELS)


# Photographs: kinds and modes


@pytest.mark.parametrize("kind", EXACT)
def test_a_lossless_file_gives_its_pixels_whatever_its_name(file: Path, kind: str) -> None:
    written(file, saved(Image.fromarray(PIXELS), kind, **EXACT[kind]))
    np.testing.assert_array_equal(read_photograph(file), PIXELS)
    assert photograph_header(file)[:2] == (7, 5)


def test_a_jpeg_and_the_first_frame_of_a_gif_are_read(file: Path) -> None:
    smooth = np.add.outer(np.arange(30) * 4, np.arange(40) * 3)[..., None].repeat(3, 2)
    written(file, saved(Image.fromarray(smooth.astype(np.uint8)), "JPEG", quality=95))
    assert np.abs(read_photograph(file).astype(int) - smooth).max() < 12
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    written(file, saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert read_photograph(file).tolist() == [[[255, 0, 0]] * 6] * 4


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_of_16_bits_the_high_byte_is_taken(file: Path, colour: int, channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 2**16, (6, 5, channels), np.uint16)
    if channels in (2, 4):
        deep[..., -1] = 65535
    written(file, png(deep, colour))
    expected = (deep >> 8).astype(np.uint8)[..., : 3 if channels > 2 else 1]
    np.testing.assert_array_equal(read_photograph(file), np.broadcast_to(expected, (6, 5, 3)))


def test_a_transparent_colour_of_16_bits_hides_nothing(file: Path) -> None:
    deep = np.full((2, 2, 3), 0x0102, np.uint16)
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 1, 1))
    written(file, png(deep, 2, early=key))
    assert read_photograph(file).tolist() == [[[1, 1, 1]] * 2] * 2
    written(file, png(deep[..., :1], 0, early=chunk(b"tRNS", struct.pack(">H", 1))))
    assert read_photograph(file).tolist() == [[[1, 1, 1]] * 2] * 2


def test_grey_and_one_bit_become_three_equal_channels(file: Path) -> None:
    grey = PIXELS[..., 0]
    written(file, saved(Image.fromarray(grey)))
    np.testing.assert_array_equal(read_photograph(file), np.stack([grey] * 3, -1))
    written(file, saved(Image.fromarray(grey > 99)))
    np.testing.assert_array_equal(read_photograph(file), np.stack([(grey > 99) * 255] * 3, -1))


def test_a_palette_gives_its_colours_and_white_where_it_is_transparent(file: Path) -> None:
    indexed = Image.new("P", (3, 1))
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indexed.putdata([0, 1, 2])
    written(file, saved(indexed))
    assert read_photograph(file).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    written(file, saved(indexed, transparency=1))
    assert read_photograph(file).tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    written(file, saved(indexed, transparency=bytes([0, 1, 255])))
    assert read_photograph(file).tolist() == [[[255, 255, 255], [40, 50, 60], [70, 80, 90]]]


def test_what_is_seen_in_part_keeps_its_colour_and_what_is_not_seen_is_white(file: Path) -> None:
    covered = np.array([0, 1, 254, 255, 0], np.uint8)[:, None, None].repeat(7, 1)
    expected = np.where(covered == 0, np.uint8(255), PIXELS)
    written(file, png(np.concatenate([PIXELS, covered], -1), 6))
    np.testing.assert_array_equal(read_photograph(file), expected)
    written(file, png(np.concatenate([PIXELS[..., :1], covered], -1), 4))
    np.testing.assert_array_equal(read_photograph(file)[1:4, :, 2], PIXELS[1:4, :, 0])
    assert (read_photograph(file)[[0, 4]] == 255).all()


def test_a_transparent_colour_of_8_bits_is_white(file: Path) -> None:
    written(file, png(PIXELS, 2, early=chunk(b"tRNS", struct.pack(">HHH", *PIXELS[2, 3]))))
    expected = PIXELS.copy()
    expected[2, 3] = 255
    np.testing.assert_array_equal(read_photograph(file), expected)


def test_cmyk_is_what_pil_makes_of_it(file: Path) -> None:
    ink = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 128, 255, 20)])
    written(file, saved(ink, "JPEG"))
    red, green, blue = read_photograph(file)[8, 8].astype(int)
    assert red > 225 and 100 < green < 135 and blue < 10


# The way up

# Where the first stored row and the first stored column are seen (EXIF 2.32, tag 274).
SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


def as_seen(stored: np.ndarray, orientation: int) -> np.ndarray:
    rows, columns = SIDES[orientation]
    height, width = stored.shape[:2]
    turned = rows in ("left", "right")
    seen = np.zeros((width, height, 3) if turned else stored.shape, np.uint8)
    for r in range(height):
        for c in range(width):
            row = r if rows in ("top", "left") else height - 1 - r
            column = c if columns in ("top", "left") else width - 1 - c
            seen[(column, row) if turned else (row, column)] = stored[r, c]
    return seen


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("order", "<>")
def test_a_turned_picture_is_seen_upright_once(file: Path, orientation: int, order: str) -> None:
    expected = as_seen(PIXELS, orientation)
    block = exif(orientation, order)
    raw = "\nexif\n" + f"{len(block) + 6:8d}\n" + (b"Exif\0\0" + block).hex()
    compressed = zlib.compress(raw.encode())
    for content in (
        png(PIXELS, 2, early=chunk(b"eXIf", block)),
        png(PIXELS, 2, late=chunk(b"eXIf", block)),
        png(PIXELS, 2, early=chunk(b"zTXt", b"Raw profile type exif\0\0" + compressed)),
        saved(Image.fromarray(PIXELS), "WEBP", lossless=True, exif=block),
    ):
        written(file, content)
        np.testing.assert_array_equal(read_photograph(file), expected)
        assert photograph_header(file)[:2] == expected.shape[1::-1]


@pytest.mark.parametrize("orientation", SIDES)
def test_a_turned_jpeg_is_what_pil_shows(file: Path, orientation: int) -> None:
    written(file, saved(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0" + exif(orientation)))
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_photograph(file), expected)
    assert photograph_header(file)[:2] == expected.shape[1::-1]


@pytest.mark.parametrize(
    "block",
    [exif(0), exif(9), exif(6, kind=1), b"", b"nonsense", exif(6)[:-8], exif(6)[:9]],
    ids=["0", "9", "type", "empty", "nonsense", "cut", "head"],
)
def test_an_orientation_that_makes_no_sense_turns_nothing(file: Path, block: bytes) -> None:
    written(file, png(PIXELS, 2, early=chunk(b"eXIf", block)))
    np.testing.assert_array_equal(read_photograph(file), PIXELS)


# Refusals


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"<html><body>404", "starts with b'<html><b'"),
        (b"II*\0" + bytes(99), "expected a PNG, JPEG, WebP, BMP or GIF picture"),
        (b"II*\0" + bytes(30), "as a TIFF picture does (save it as PNG or JPEG)"),
        (b"\0\0\0\x18ftypheic", "as a HEIC picture does"),
        (SIGNATURE, "starts with b'\\x89PNG"),
        (SMALL["JPEG"][:10], "damaged or truncated"),
    ],
)
def test_what_is_no_picture_is_refused(file: Path, content: bytes, found: str) -> None:
    written(file, content)
    refusal(file, found)
    refusal(file, found, call=photograph_header)


def test_a_picture_is_known_by_its_name_or_its_content(tmp_path: Path) -> None:
    contents = {**SMALL, "TIFF": saved(Image.fromarray(PIXELS), "TIFF"), "text": b"<html>", "": b""}
    for kind, content in contents.items():
        path = written(tmp_path / "file", content)
        assert image_files.is_picture(path) == (kind not in ("text", ""))
        assert image_files.is_picture(written(tmp_path / "file.JPG", content))
    os.mkfifo(tmp_path / "pipe")
    assert not image_files.is_picture(tmp_path / "pipe")
    assert not image_files.is_picture(tmp_path)


@pytest.mark.parametrize("call", [read_photograph, photograph_header])
def test_what_is_no_file_is_refused(tmp_path: Path, call: Callable[[Path], object]) -> None:
    refusal(tmp_path / "gone.png", "cannot be read (No such file", call=call)
    refusal(tmp_path, "is no regular file", call=call)
    os.mkfifo(tmp_path / "pipe.png")
    refusal(tmp_path / "pipe.png", "is no regular file", call=call)
    refusal(tmp_path / "nul\0.png", call=call)


def bombs(side: int) -> dict[str, bytes]:
    """Small files whose headers promise more than MAX_PIXELS."""
    square = np.zeros((1, 1, 3), np.uint8)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bitmap = bytearray(saved(Image.fromarray(square), "BMP"))
    bitmap[18:26] = struct.pack("<ii", side, side)
    jpeg = bytearray(saved(Image.fromarray(square), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    gif = bytearray(saved(Image.fromarray(square), "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    return {
        "PNG": SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
        "BMP": bytes(bitmap),
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
    }


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG", "GIF"])
@pytest.mark.parametrize("side", [9000, 20_000])
def test_a_decompression_bomb_is_refused_by_its_header(file: Path, kind: str, side: int) -> None:
    written(file, bombs(side)[kind])
    found = "9,000 x 9,000 pixels" if side == 9000 else "400000000 pixels"
    for call in (read_image, read_photograph, photograph_header):
        if call is not read_image or kind in image_files.PNG_OR_JPEG:
            refusal(file, found, "at most 64,000,000", call=call)


def test_the_limits_are_of_pixels_and_of_bytes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(file, SMALL["WEBP"])
    monkeypatch.setattr(image_files, "MAX_PIXELS", 35)
    assert photograph_header(file)[:2] == (7, 5)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 34)
    refusal(file, "7 x 5 pixels", "at most 34")
    monkeypatch.setattr(image_files, "MAX_BYTES", len(SMALL["WEBP"]) - 1)
    refusal(file, f"{len(SMALL['WEBP'])} bytes")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_read_with_a_line_and_no_shorter_one(
    file: Path, progressive: bool
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    content = saved(Image.fromarray(noise), "JPEG", progressive=progressive)
    whole, remarks = read_photograph(content), list[str]()
    for cut in (1, 2):
        written(file, content[:-cut])
        np.testing.assert_array_equal(read_photograph(file, remarks=remarks), whole)
    assert remarks == ["a JPEG without its end marker"] * 2
    for cut in (3, 10, 300, 1000):
        refusal(written(file, content[:-cut]), "damaged or truncated")


@given(data=st.data(), kind=st.sampled_from(list(SMALL)))
def test_a_truncated_picture_is_refused_unless_every_pixel_is_there(
    file: Path, data: st.DataObject, kind: str
) -> None:
    whole = read_photograph(written(file, SMALL[kind]))
    size = photograph_header(file)[:2]
    written(file, SMALL[kind][: data.draw(st.integers(0, len(SMALL[kind]) - 1))])
    try:
        assert photograph_header(file)[:2] == size or kind == "GIF"
        np.testing.assert_array_equal(read_photograph(file), whole)
    except DataError as error:
        assert str(error).startswith(f"{file}: ")


@given(
    kind=st.sampled_from([*SMALL, "none"]),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=5),
    inserted=st.binary(max_size=20),
    place=st.integers(0, 2**16),
)
def test_no_bytes_stop_the_reader_and_every_refusal_names_the_file(
    file: Path, kind: str, changes: list[tuple[int, int]], inserted: bytes, place: int
) -> None:
    content = bytearray(SMALL.get(kind, b""))
    for at, value in changes if content else ():
        content[at % len(content)] = value
    at = place % (len(content) + 1)
    written(file, bytes(content[:at]) + inserted + bytes(content[at:]))
    sizes = []
    for call in (
        lambda path: photograph_header(path)[:2],
        lambda path: read_photograph(path).shape[1::-1],
    ):
        try:
            sizes.append(call(file))
        except DataError as error:
            assert str(error).startswith(f"{file}: ")
    assert len(set(sizes)) <= 1


# Threads


def test_threads_read_the_same_as_one(tmp_path: Path) -> None:
    contents = [*SMALL.values()] * 6
    files = [written(tmp_path / str(i), content) for i, content in enumerate(contents)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(read_photograph, files))
    for path, pixels in zip(files, together, strict=True):
        np.testing.assert_array_equal(pixels, read_photograph(path))


def test_real_photographs_have_the_sizes_of_their_manifest(real_faces: Path) -> None:
    lines = (real_faces / "voc" / "manifest.csv").read_text().splitlines()[1::8]
    for name, width, height in (line.split(",")[:3] for line in lines):
        path = real_faces / "voc" / "images" / name
        assert photograph_header(path)[:2] == (int(width), int(height))
        assert read_photograph(path).shape == (int(height), int(width), 3)
