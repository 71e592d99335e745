"""Synthetic photographs for tests of the face-mask pipeline.

Drawings of people with and without masks, written in the three layouts that
`annotations` reads: heads with shading, hair, glasses, beards, scarves and hats, somewhat tilted
and turned, before an unsharp ground, through a camera that blurs and adds noise. Nothing but the
mask depends on the class. They are drawings of nobody, made in some 40 ms each, good enough for a
face detector to find them, and never to be quoted as a result.

A head is drawn in its own units: the middle of the face is (0, 0), x to the right and y downwards,
the crown at y = -1.05 and the chin at y = 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from research.faces.annotations import Box, Face, Photograph

FEWEST = 12  # photographs, for every class in both splits of the folders

Colour = tuple[int, int, int]

_LAYOUTS = ("voc", "json", "folders")
_NAMES = {  # of the classes, as each layout writes them
    "voc": {
        "with_mask": "with_mask",
        "without_mask": "without_mask",
        "incorrect": "mask_weared_incorrect",
    },
    "json": {"with_mask": "face_with_mask", "without_mask": "face_no_mask"},
    "folders": {"with_mask": "with_mask", "without_mask": "without_mask"},
}
_VOC_FACES = (4, 1, 6, 3, 5, 2, 7)  # in one photograph after the other
_JSON_FACES = (2, 1, 3)
_SKINS = ("f6d3bd", "efc0a2", "e5ae8b", "d69b76", "bf8460", "a56c4b", "8a573b", "6e4330")
_HAIRS = ("1b1614", "2c201a", "4a3020", "6b4527", "94683a", "c49a5b", "8d8a88", "7c3320")
_CLOTHES = (
    "2f3e55",
    "6d2e38",
    "3f5a46",
    "c9c3b5",
    "222326",
    "8795a8",
    "a8763e",
    "54426b",
    "b9bdc4",
)
_GROUNDS = ("8fa3ad", "b7ab98", "6f7f6c", "a3a7b5", "59626e", "c6c2b8", "7b6a5c", "90a5c2")
_IRISES = ("3a2414", "5a3a1c", "47603f", "4c6b86", "30231c")
_SURGICAL = ("a9cfe3", "bfdcea", "e9eff2", "b4d8d0")
_CLOTH = ("3d4450", "47608a", "8a4450", "d9d2c6", "55705a", "b98d56")
_OVERSAMPLED = 1.6
_MOST_PX = 130.0  # a unit of a head; what is larger is drawn at this size and enlarged


@dataclasses.dataclass(frozen=True)
class _Sitter:
    """One person of the plan: what the counts depend on."""

    label: str
    hat: bool
    glasses: bool
    cloth: bool

    def things(self) -> list[str]:
        """Names of the JSON layout for what is worn beside a class of face."""
        mask = [] if self.label == "without_mask" else ["mask_surgical", "mask_colorful"]
        worn = [mask[self.cloth]] if mask else []
        return worn + ["hat"] * self.hat + ["eyeglasses"] * self.glasses


@dataclasses.dataclass(frozen=True)
class _Photo:
    layout: str
    number: int
    sitters: tuple[_Sitter, ...]

    @property
    def folder(self) -> str:
        """Of the class folders: "train/with_mask"."""
        split = "test" if self.number // 2 % 4 == 1 else "train"
        return f"{split}/{self.sitters[0].label}"


def write(folder: Path, *, photos: int, seed: int) -> list[Face]:
    """Draw `photos` photographs, a third of them in each layout, and what is known of their faces.

    Written are folder/voc/{images/*.png,annotations/*.xml}, folder/json/{images/*.jpg,
    annotations/*.jpg.json} and folder/folders/{train,test}/{with_mask,without_mask}/*.jpg. Returns
    every face with its box, also where the layout has none. How many there are of what depends on
    `photos` alone (`contents`), and a photograph on its place and the seed alone, not on how many
    follow it.
    Raises ValueError for fewer than 12 photographs.
    """
    faces: list[Face] = []
    for photo in _plan(photos):
        stream = np.random.SeedSequence((seed, _LAYOUTS.index(photo.layout), photo.number))
        generator = np.random.Generator(np.random.PCG64(stream))
        if photo.layout == "voc":
            faces += _write_voc(Path(folder), photo, generator)
        elif photo.layout == "json":
            faces += _write_json(Path(folder), photo, generator)
        else:
            faces += _write_in_folder(Path(folder), photo, generator)
    return faces


def contents(photos: int) -> dict[str, dict[str, int]]:
    """Numbers of annotations of each name that `write` puts into each layout, for every seed.

    {"voc": {"with_mask": 80, ...}, "json": {"face_with_mask": ..., "hat": ...}, "folders":
    {"train/with_mask": ...}}; names as the layout writes them, for folders the folder.
    Raises ValueError for fewer than 12 photographs.
    """
    counts: dict[str, Counter[str]] = {layout: Counter() for layout in _LAYOUTS}
    for photo in _plan(photos):
        for sitter in photo.sitters:
            if photo.layout == "folders":
                counts["folders"][photo.folder] += 1
                continue
            counts[photo.layout][_NAMES[photo.layout][sitter.label]] += 1
            if photo.layout == "json":
                counts["json"].update(sitter.things())
    return {layout: dict(sorted(names.items())) for layout, names in counts.items()}


def _plan(photos: int) -> list[_Photo]:
    if photos < FEWEST:
        raise ValueError(f"expected {FEWEST} photographs or more to draw, got {photos}")
    plan: list[_Photo] = []
    drawn = dict.fromkeys(_LAYOUTS, 0)
    for i in range(photos):
        layout, number = _LAYOUTS[i % 3], i // 3
        sizes = {"voc": _VOC_FACES, "json": _JSON_FACES, "folders": (1,)}[layout]
        count = sizes[number % len(sizes)]
        sitters = tuple(_sitter(layout, drawn[layout] + k) for k in range(count))
        drawn[layout] += count
        plan.append(_Photo(layout, number, sitters))
    return plan


def _sitter(layout: str, k: int) -> _Sitter:
    """The k-th face of a layout; in periods that share no factor: no trait tells a class."""
    if layout == "voc":  # 4.5 : 1, and 3 in 100 worn incorrectly, as in the data set
        label = "with_mask" if 2 * k % 11 > 1 else "without_mask"
        label = "incorrect" if k % 33 == 3 else label
    else:
        label = ("with_mask", "without_mask")[k % 2]
    return _Sitter(label, hat=k % 7 == 3, glasses=k % 5 == 2, cloth=k % 3 == 1)


def _write_voc(folder: Path, photo: _Photo, generator: np.random.Generator) -> list[Face]:
    image, boxes = _take_group(photo, generator, (400, int(generator.integers(225, 301))))
    name = f"drawn{photo.number:03d}.png"
    path = _made(folder / "voc" / "images") / name
    image.save(path, compress_level=1)
    objects = "".join(
        f"    <object>\n        <name>{_NAMES['voc'][sitter.label]}</name>\n"
        "        <pose>Unspecified</pose>\n        <truncated>0</truncated>\n"
        "        <occluded>0</occluded>\n        <difficult>0</difficult>\n        <bndbox>\n"
        f"            <xmin>{box.left + 1}</xmin>\n            <ymin>{box.top + 1}</ymin>\n"
        f"            <xmax>{box.right}</xmax>\n            <ymax>{box.bottom}</ymax>\n"
        "        </bndbox>\n    </object>\n"
        for sitter, box in zip(photo.sitters, boxes, strict=True)
    )
    text = (
        f"<annotation>\n    <folder>images</folder>\n    <filename>{name}</filename>\n"
        f"    <size>\n        <width>{image.width}</width>\n"
        f"        <height>{image.height}</height>\n"
        "        <depth>3</depth>\n    </size>\n    <segmented>0</segmented>\n"
        f"{objects}</annotation>\n"
    )
    file = _made(folder / "voc" / "annotations") / name.replace(".png", ".xml")
    _ = file.write_text(text, encoding="utf-8")
    return _faces(path, image, photo, boxes)


def _write_json(folder: Path, photo: _Photo, generator: np.random.Generator) -> list[Face]:
    size = (int(generator.integers(720, 841)), int(generator.integers(540, 631)))
    image, boxes = _take_group(photo, generator, size)
    name = f"{photo.number + 1:04d}.jpg"
    path = _made(folder / "json" / "images") / name
    image.save(path, quality=90)
    annotations = [
        {"BoundingBox": _corners(thing, box), "classname": thing}
        for sitter, box in zip(photo.sitters, boxes, strict=True)
        for thing in (_NAMES["json"][sitter.label], *sitter.things())
    ]
    document = {"FileName": name, "NumOfAnno": len(annotations), "Annotations": annotations}
    file = _made(folder / "json" / "annotations") / f"{name}.json"
    _ = file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return _faces(path, image, photo, boxes)


def _write_in_folder(folder: Path, photo: _Photo, generator: np.random.Generator) -> list[Face]:
    size = (int(generator.integers(260, 361)), int(generator.integers(300, 421)))
    image, boxes = _take_group(photo, generator, size)
    path = _made(folder / "folders" / photo.folder) / f"{photo.number:03d}.jpg"
    image.save(path, quality=90)
    return _faces(path, image, photo, boxes)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _faces(path: Path, image: Image.Image, photo: _Photo, boxes: Iterable[Box]) -> list[Face]:
    photograph = Photograph(str(path), image.width, image.height)
    return [
        Face(photograph, box, sitter.label, photo.layout)
        for sitter, box in zip(photo.sitters, boxes, strict=True)
    ]


def _corners(thing: str, box: Box) -> list[int]:
    """[x1, y1, x2, y2] of what somebody with this face wears, or of the face itself."""
    shares = {"hat": (-0.5, 0.1), "eyeglasses": (0.2, 0.45)}
    masks = ("mask_surgical", "mask_colorful")
    top, bottom = (0.45, 1.0) if thing in masks else shares.get(thing, (0.0, 1.0))
    rows = (max(0, box.top + round(share * box.height)) for share in (top, bottom))
    first, last = rows
    return [box.left, first, box.right, last]


def _take_group(
    photo: _Photo, generator: np.random.Generator, size: tuple[int, int]
) -> tuple[Image.Image, list[Box]]:
    """The photograph, and the box of each sitter's face, in their order."""
    width, height = size
    image = _draw_ground(generator, size)
    count = len(photo.sitters)
    slot = width / count
    places: list[tuple[float, float, float]] = []
    for i in range(count):
        far = count > 2 and i % 2 == 1  # a second row, smaller and higher, between the heads
        unit = min(0.30 * slot if count > 1 else 0.25 * width, 0.22 * height)
        unit *= generator.uniform(0.45, 0.7) if far else generator.uniform(0.85, 1.1)
        x = (i + 0.5) * slot + generator.uniform(-0.06, 0.06) * slot
        y = (0.3 if far else 0.52 if count > 2 else 0.46) * height
        places.append((x, y + generator.uniform(-0.03, 0.03) * height, unit))
    boxes = [Box(0, 0, 0, 0)] * count
    for i in sorted(range(count), key=lambda i: places[i][2]):
        boxes[i] = _add_sitter(image, photo.sitters[i], places[i], generator)
    return _through_camera(image, generator), boxes


def _draw_ground(generator: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A wall from light to dark and unsharp things before it, drawn small and enlarged."""
    columns, rows = 48, 36
    ends = np.array([_pick(_GROUNDS, generator) for _ in range(2)], np.float64)
    ends *= generator.uniform(0.6, 1.15, (2, 1))
    down = np.linspace(0.0, 1.0, rows)[:, None, None]
    across = np.linspace(-0.12, 0.12, columns)[None, :, None] * generator.uniform(-1.0, 1.0)
    wall = (ends[0] * (1.0 - down) + ends[1] * down) * (1.0 + across)
    image = Image.fromarray(np.clip(np.round(wall), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(2, 7))):
        x, y = generator.integers((-6, -6), (columns, rows))
        w, h = generator.integers(4, 22, 2)
        colour = _lit(_pick(_GROUNDS + _CLOTHES, generator), generator.uniform(0.5, 1.2))
        draw = pen.ellipse if generator.random() < 0.4 else pen.rectangle
        draw([int(x), int(y), int(x + w), int(y + h)], fill=colour)
    blurred = image.filter(ImageFilter.GaussianBlur(generator.uniform(0.6, 1.8)))
    return blurred.resize(size, Image.Resampling.BICUBIC)


def _through_camera(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Exposure, tint, a little blur and noise: the same for every class."""
    image = image.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 0.8)))
    gains = generator.uniform(0.86, 1.06) * generator.uniform(0.96, 1.04, 3)
    values = np.asarray(image, np.float32) * gains.astype(np.float32)
    noise = generator.standard_normal((image.height, image.width, 1), np.float32)
    values += noise * np.float32(generator.uniform(1.5, 4.5))
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _add_sitter(
    image: Image.Image,
    sitter: _Sitter,
    place: tuple[float, float, float],
    generator: np.random.Generator,
) -> Box:
    """Draw one person at place = (x, y, unit), down to the lower edge; the box of the face."""
    x, y, unit = place
    scale = min(_OVERSAMPLED * unit, _MOST_PX)
    brush = _Brush(scale, (image.height - y) / unit, generator.uniform(-0.13, 0.13))
    face = _draw_person(brush, sitter, generator)
    portrait = brush.image.resize(
        (round(brush.image.width * unit / scale), round(brush.image.height * unit / scale)),
        Image.Resampling.HAMMING if scale > unit else Image.Resampling.BICUBIC,
    )
    left, top = round(x - brush.middle[0] * unit / scale), round(y - brush.middle[1] * unit / scale)
    image.paste(portrait, (left, top), portrait)
    corners = brush.turned(face) * unit + (x, y)
    low, high = np.rint(corners.min(axis=0)), np.rint(corners.max(axis=0))
    return Box(
        max(0, int(low[0])),
        max(0, int(low[1])),
        min(image.width, int(high[0])),
        min(image.height, int(high[1])),
    )


class _Brush:
    """Draws polygons in units of a head, turned about its middle, onto a transparent ground."""

    def __init__(self, scale: float, below: float, tilt: float) -> None:
        self.scale = scale
        self.middle = (round(2.3 * scale), round(1.75 * scale))
        below = max(below, 1.3)
        size = (round(4.6 * scale), round((1.75 + below) * scale) + 2)
        self.image = Image.new("RGBA", size, (0, 0, 0, 0))
        self._pen = ImageDraw.Draw(self.image)
        self._turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])

    def turned(self, points: np.ndarray) -> np.ndarray:
        """[N, 2] in units, turned."""
        return points @ self._turn

    def pixels(self, points: np.ndarray, *, upright: bool = False) -> np.ndarray:
        """[N, 2] in pixels of this brush's image."""
        return (points if upright else self.turned(points)) * self.scale + self.middle

    def fill(self, points: np.ndarray, colour: Colour, *, upright: bool = False) -> None:
        """A hard-edged shape."""
        self._pen.polygon(_flat(self.pixels(points, upright=upright)), fill=(*colour, 255))

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """width in units."""
        pixels = max(1, round(width * self.scale))
        self._pen.line(_flat(self.pixels(points)), fill=(*colour, 255), width=pixels, joint="curve")

    def mask(self, points: np.ndarray) -> Image.Image:
        """The shape in white on black, as large as the image."""
        drawn = Image.new("L", self.image.size, 0)
        ImageDraw.Draw(drawn).polygon(_flat(self.pixels(points)), fill=255)
        return drawn

    def shade(
        self, points: np.ndarray, colour: Colour, strength: float, blur: float, inside: Image.Image
    ) -> None:
        """A soft shape of `strength` 0..1, with edges `blur` units wide, kept `inside` a mask."""
        placed, spread = self.pixels(points), blur * self.scale
        low = np.maximum(np.floor(placed.min(axis=0) - 2.5 * spread - 2), 0)
        high = np.minimum(np.ceil(placed.max(axis=0) + 2.5 * spread + 2), self.image.size)
        if np.any(high <= low):
            return
        width, height = (int(side) for side in high - low)
        # What is blurred by many pixels is drawn small: a fifth of the time, and looks the same.
        coarse = max(1.0, spread / 1.5)
        small = (max(1, round(width / coarse)), max(1, round(height / coarse)))
        soft = Image.new("L", small, 0)
        corners = (placed - low) * (np.array(small) / (width, height))
        ImageDraw.Draw(soft).polygon(_flat(corners), fill=round(255 * strength))
        soft = soft.filter(ImageFilter.GaussianBlur(spread / coarse))
        soft = soft.resize((width, height), Image.Resampling.BILINEAR)
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        self.image.paste((*colour, 255), box, ImageChops.multiply(soft, inside.crop(box)))


@dataclasses.dataclass(frozen=True)
class _Looks:
    """Parameters of one head. turn: -1..1, to the side.  long, beard: of the hair."""

    skin: Colour
    hair: Colour
    turn: float
    wide: float
    long: bool
    beard: float
    light: float


def _draw_person(brush: _Brush, sitter: _Sitter, generator: np.random.Generator) -> np.ndarray:
    """All of somebody, from back to front; the outline of the face [N, 2] in units."""
    long, skin = bool(generator.random() < 0.5), _pick(_SKINS, generator)
    looks = _Looks(
        skin=_lit(skin, generator.uniform(0.94, 1.03)),
        hair=_pick(_HAIRS[:4] if sum(skin) < 450 else _HAIRS, generator),
        turn=generator.uniform(-1.0, 1.0),
        wide=generator.uniform(0.70, 0.77),
        long=long,
        beard=0.0 if long or generator.random() < 0.5 else generator.uniform(0.2, 0.75),
        light=generator.choice((-1.0, 1.0)) * generator.uniform(0.3, 1.0),
    )
    outline = _face_outline(looks.wide)
    _draw_body(brush, looks, generator)
    _draw_head(brush, looks, outline)
    inside = brush.mask(outline)
    _draw_features(brush, looks, inside, generator)
    _draw_hair(brush, looks, generator)
    if sitter.glasses:
        _draw_glasses(brush, looks, generator)
    # A stream of its own, taken from all: nothing that is drawn later depends on the class.
    own = np.random.Generator(np.random.PCG64(int(generator.integers(2**62))))
    if sitter.label != "without_mask":
        _draw_mask(brush, looks, sitter, inside, own)
    if sitter.hat:
        _draw_hat(brush, looks, generator)
    return outline[outline[:, 1] > -0.62]


def _draw_body(brush: _Brush, looks: _Looks, generator: np.random.Generator) -> None:
    shirt = _pick(_CLOTHES, generator)
    if looks.long:
        back = _oval(0.0, 0.1, looks.wide + 0.24, 1.2)
        fall = generator.uniform(1.2, 1.75)
        brush.fill(back, _lit(looks.hair, 0.75))
        side = looks.wide + 0.2
        brush.fill(
            _points((-side, 0), (side, 0), (side, fall), (-side, fall)), _lit(looks.hair, 0.75)
        )
    neck = _points((-0.36, 0.5), (0.36, 0.5), (0.4, 1.35), (0.75, 1.6), (-0.75, 1.6), (-0.4, 1.35))
    brush.fill(neck, _lit(looks.skin, 0.82), upright=True)
    hollow = _points((-0.5, 0.7), (0.5, 0.7), (0.42, 1.12), (-0.42, 1.12))
    brush.shade(hollow, _lit(looks.skin, 0.45), 0.8, 0.08, brush.image.getchannel("A"))
    legs = _lit(_pick(_CLOTHES, generator), 0.6)
    for side in (-1.0, 1.0):
        leg = _points((0.05, 5.8), (1.2, 5.8), (0.95, 14.0), (0.15, 14.0)) * (side, 1.0)
        brush.fill(leg, legs, upright=True)
    shoulders = _points(
        *((-0.42, 1.32), (-0.95, 1.5), (-1.45, 1.72), (-1.66, 2.1), (-1.85, 4.2), (-1.75, 6.2)),
        *((1.75, 6.2), (1.85, 4.2), (1.66, 2.1), (1.45, 1.72), (0.95, 1.5), (0.42, 1.32)),
        (0.0, 1.62),
    )
    brush.fill(shoulders, shirt, upright=True)
    everything, away = brush.image.getchannel("A"), -float(np.sign(looks.light))
    shadowed = _points((0.6, 1.9), (2.2, 1.5), (2.2, 6.4), (0.8, 6.4)) * (away, 1.0)
    brush.shade(shadowed, _lit(shirt, 0.55), 0.6, 0.25, everything)
    for side in (-1.0, 1.0):
        sleeve = _points((1.1, 2.6), (1.2, 2.6), (1.3, 6.0), (1.18, 6.0)) * (side, 1.0)
        brush.shade(sleeve, _lit(shirt, 0.45), 0.6, 0.05, everything)
    for side in (-1.0, 1.0):
        lapel = _points((0.42, 1.3), (0.55, 1.42), (0.1, 1.85), (0.0, 1.62)) * (side, 1.0)
        brush.fill(lapel, _lit(shirt, 1.25), upright=True)
    if generator.random() < 0.2:  # a scarf below the chin, on people of either class
        scarf = _pick(_CLOTH + _SURGICAL, generator)
        brush.fill(_oval(0.0, 1.4, 0.68, 0.3), _lit(scarf, 0.85), upright=True)
        brush.fill(_oval(0.06, 1.22, 0.56, 0.24), scarf, upright=True)


def _draw_head(brush: _Brush, looks: _Looks, outline: np.ndarray) -> None:
    """Ears and the face, a rounded form in light from one side."""
    for side in (-1.0, 1.0):
        brush.fill(_oval(side * looks.wide * 0.99, 0.1, 0.12, 0.24), _lit(looks.skin, 0.86))
        ear = _oval(side * (looks.wide + 0.02), 0.1, 0.06, 0.15)
        brush.fill(ear, _lit(looks.skin, 0.7))
    down, across = np.mgrid[-1:1:24j, -1:1:24j]
    round_off = 1.06 - 0.26 * across**4 - 0.1 * (down - 0.1) ** 2
    shine = 0.12 * looks.light * across - 0.05 * down
    tones = np.array(looks.skin) * (round_off + shine)[..., None]
    small = Image.fromarray(np.clip(np.rint(tones), 0, 255).astype(np.uint8))
    placed = brush.pixels(outline)
    low, high = np.floor(placed.min(axis=0)).astype(int), np.ceil(placed.max(axis=0)).astype(int)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    shaded = small.resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    corner = (int(low[0]), int(low[1]))
    inside = brush.mask(outline).crop((*corner, corner[0] + size[0], corner[1] + size[1]))
    brush.image.paste(shaded, corner, inside)


def _draw_features(
    brush: _Brush, looks: _Looks, inside: Image.Image, generator: np.random.Generator
) -> None:
    skin, shift = looks.skin, 0.1 * looks.turn
    dark, flush = _lit(skin, 0.5), _mixed(skin, (190, 60, 50), 0.4)
    for side in (-1.0, 1.0):
        brush.shade(_oval(side * 0.42 + shift, 0.34, 0.17, 0.13), flush, 0.45, 0.1, inside)
        brush.shade(_oval(side * 0.31 + shift, -0.04, 0.2, 0.12), dark, 0.5, 0.06, inside)
    _draw_nose(brush, looks, inside)
    x, lips = 0.6 * shift, _mixed(_lit(skin, 0.78), (165, 55, 60), generator.uniform(0.3, 0.6))
    spread, opened = generator.uniform(0.24, 0.31), generator.uniform(0.0, 0.035)
    if looks.beard:
        jaw = _points(
            *((-0.72, 0.2), (-0.5, 0.55), (-0.3, 0.5), (0.3, 0.5), (0.5, 0.55), (0.72, 0.2)),
            *((0.66, 0.8), (0.3, 1.05), (-0.3, 1.05), (-0.66, 0.8)),
        )
        brush.shade(jaw, looks.hair, looks.beard, 0.05, inside)
    upper = _points(
        *((-spread, 0.62), (-0.1, 0.555), (0.0, 0.58), (0.1, 0.555), (spread, 0.62), (0.0, 0.645)),
    )
    lower = np.concatenate([_arc(-spread, spread, 0.62, 0.11), _arc(spread, -spread, 0.62, 0.03)])
    brush.shade(_moved(lower, x, 0.08), dark, 0.5, 0.05, inside)
    brush.fill(_moved(upper, x, 0.0), _lit(lips, 0.85))
    brush.fill(_moved(lower, x, opened), lips)
    brush.line(_moved(_arc(-spread, spread, 0.62, 0.03), x, 0.0), _lit(skin, 0.35), 0.02 + opened)
    iris, heavy = _pick(_IRISES, generator), generator.uniform(0.045, 0.08)
    for side in (-1.0, 1.0):
        eye = (side * (0.31 - 0.02 * side * looks.turn) + shift, -0.02)
        _draw_eye(brush, eye, iris, skin, 0.02 * looks.turn)
        brow = _moved(_arc(-0.19, 0.17, -0.21, -0.07) * (side, 1.0), eye[0], 0.0)
        brush.line(brow, _lit(looks.hair, 0.8), heavy)


def _draw_nose(brush: _Brush, looks: _Looks, inside: Image.Image) -> None:
    x, skin = 0.16 * looks.turn, looks.skin
    away = -1.0 if looks.light > 0 else 1.0
    flank = _points((0.03, -0.1), (0.17, 0.36), (0.04, 0.42), (0.01, 0.1)) * (away, 1.0)
    brush.shade(_moved(flank, x, 0.0), _lit(skin, 0.55), 0.75, 0.035, inside)
    ridge = _points((-0.035, -0.05), (0.035, -0.05), (0.06, 0.32), (-0.06, 0.32))
    brush.shade(_moved(ridge, x, 0.0), _lit(skin, 1.2), 0.6, 0.04, inside)
    brush.shade(_oval(x, 0.43, 0.17, 0.045), _lit(skin, 0.45), 0.75, 0.03, inside)
    for side in (-1.0, 1.0):
        brush.shade(_oval(x + side * 0.08, 0.4, 0.04, 0.025), _lit(skin, 0.2), 0.9, 0.012, inside)


def _draw_eye(
    brush: _Brush, at: tuple[float, float], iris: Colour, skin: Colour, look: float
) -> None:
    lids = np.concatenate([_arc(-0.15, 0.15, 0.0, -0.085), _arc(0.15, -0.15, 0.0, 0.06)])
    brush.fill(_moved(lids, *at), (236, 232, 228))
    centre = (at[0] + look, at[1] - 0.008)
    brush.fill(_oval(*centre, 0.07, 0.068), iris)
    brush.fill(_oval(*centre, 0.033, 0.033), (14, 12, 12))
    brush.fill(_oval(centre[0] - 0.025, centre[1] - 0.025, 0.015, 0.015), (250, 250, 250))
    brush.line(_moved(_arc(-0.165, 0.165, 0.0, -0.09), *at), _lit(skin, 0.22), 0.035)
    brush.line(_moved(_arc(-0.13, 0.13, 0.005, 0.06), *at), _lit(skin, 0.6), 0.015)


def _draw_hair(brush: _Brush, looks: _Looks, generator: np.random.Generator) -> None:
    """A cap of hair with a parting or a fringe, and for long hair locks beside the face."""
    wide, hair = looks.wide, looks.hair
    brow, bend = (
        generator.uniform(-0.72, -0.55),
        generator.uniform(-1.2, -1.12) + 0.1 * (not looks.long),
    )
    part = generator.uniform(-0.35, 0.35)
    outer = _arc(-wide - 0.09, wide + 0.09, 0.0 if looks.long else -0.12, bend, power=0.42)
    inner = _points(
        *((wide - 0.0, -0.05), (wide - 0.07, -0.3), (0.5, brow + 0.12), (part + 0.1, brow - 0.1)),
        *((part, brow - 0.06), (-0.48, brow + 0.12), (-wide + 0.07, -0.3), (-wide, -0.05)),
    )
    cap = np.concatenate([outer, inner])
    brush.fill(cap, hair)
    inside = brush.mask(cap)
    gloss = _oval(0.3 * looks.light, -0.92, 0.42, 0.1)
    brush.shade(gloss, _lit(_mixed(hair, (255, 240, 220), 0.25), 1.2), 0.6, 0.09, inside)
    if looks.long:
        for side in (-1.0, 1.0):
            lock = _points(
                *((wide - 0.1, -0.45), (wide + 0.1, -0.3), (wide + 0.22, 0.4), (wide + 0.2, 1.1)),
                *((wide + 0.0, 1.15), (wide + 0.03, 0.5), (wide - 0.02, 0.0)),
            )
            brush.fill(lock * (side, 1.0), _lit(hair, 1.0 if side * looks.light > 0 else 0.82))


def _draw_glasses(brush: _Brush, looks: _Looks, generator: np.random.Generator) -> None:
    frame, x = _pick(("1c1c20", "4a3527", "6a6d73"), generator), 0.1 * looks.turn
    for side in (-1.0, 1.0):
        rim = _oval(side * 0.32 + x, 0.0, 0.22, 0.17)
        brush.line(np.concatenate([rim, rim[:2]]), frame, 0.024)
        brush.line(_points((side * 0.54 + x, -0.04), (side * looks.wide, -0.06)), frame, 0.024)
    brush.line(_moved(_arc(-0.1, 0.1, -0.02, -0.05), x, 0.0), frame, 0.024)


def _draw_mask(
    brush: _Brush,
    looks: _Looks,
    sitter: _Sitter,
    face: Image.Image,
    generator: np.random.Generator,
) -> None:
    """Pleated or plain, over nose and mouth, or so low that the nose stays free."""
    colour = _lit(_pick(_CLOTH if sitter.cloth else _SURGICAL, generator), 1.0)
    x, wide = 0.12 * looks.turn, looks.wide
    low = generator.uniform(0.36, 0.5) if sitter.label == "incorrect" else 0.0
    top = generator.uniform(0.19, 0.29) + low
    edge = 0.98 * wide * float(np.sqrt(max(0.1, 1.0 - 0.8 * (low + 0.25) ** 2)))
    half = [
        *((0.1, top + 0.01), (0.24, top + 0.1), (edge, 0.33 + low)),
        *((edge - 0.09, 0.64 + 0.5 * low), (0.4, 0.95), (0.2, 1.06)),
    ]
    right = _moved(_points(*half), x, 0.0)
    right[2:4, 0] -= x
    left = _moved(_points(*half[::-1]) * (-1.0, 1.0), x, 0.0)
    left[2:4, 0] -= x
    shape = np.concatenate([right, left])
    strap = _lit(_mixed(colour, (240, 240, 240), 0.6), 0.95)
    for side in (-1.0, 1.0):
        for start, end in ((right[2, 1], 0.0), (right[3, 1], 0.22)):
            brush.line(_points((side * edge, start), (side * (wide + 0.07), end)), strap, 0.03)
    brush.shade(_moved(shape, 0.0, -0.03), _lit(looks.skin, 0.4), 0.7, 0.04, face)
    brush.fill(shape, colour)
    inside = brush.mask(shape)
    shadow = _points((0.25, 0.0), (1.0, 0.0), (1.0, 1.2), (0.1, 1.2)) * (-np.sign(looks.light), 1.0)
    brush.shade(shadow, _lit(colour, 0.6), 0.65, 0.16, inside)
    brush.shade(_oval(x, 1.08, 0.6, 0.13), _lit(colour, 0.5), 0.5, 0.08, inside)
    brush.shade(_oval(x, 0.36 + low, 0.1, 0.14), _lit(colour, 1.3), 0.8, 0.06, inside)
    brush.shade(_oval(x, 0.56 + low, 0.2, 0.05), _lit(colour, 0.55), 0.55, 0.05, inside)
    brush.shade(_oval(x, 0.72 + low, 0.3, 0.03), _lit(colour, 0.55), 0.4, 0.05, inside)
    if not sitter.cloth:
        for k in range(3):
            y = 0.42 + low + 0.17 * k * (1.0 - low)
            fold = _arc(-edge + 0.05, edge - 0.05, y, 0.09)
            band = np.concatenate([fold, _moved(fold[::-1], 0.0, 0.035)])
            brush.shade(band, _lit(colour, 0.62), 0.9, 0.012, inside)
            brush.shade(_moved(band, 0.0, -0.035), _lit(colour, 1.2), 0.6, 0.012, inside)
    else:
        brush.line(_points((x, top + 0.02), (0.8 * x, 1.05)), _lit(colour, 0.75), 0.02)


def _draw_hat(brush: _Brush, looks: _Looks, generator: np.random.Generator) -> None:
    colour, wide = _pick(_CLOTHES, generator), looks.wide + 0.12
    crown = _arc(-wide, wide, -0.66, -0.78, power=0.42)
    band = np.concatenate([_arc(-wide - 0.02, wide + 0.02, -0.8, -0.08), crown[::-1] * (1.0, 0.0)])
    band[len(band) // 2 :, 1] = -0.6
    brush.fill(crown, colour)
    brush.shade(_oval(0.3 * looks.light, -1.1, 0.3, 0.16), _lit(colour, 1.4), 0.5, 0.12, _of(brush))
    brush.fill(band, _lit(colour, 0.8))


def _of(brush: _Brush) -> Image.Image:
    return brush.image.getchannel("A")


def _face_outline(wide: float) -> np.ndarray:
    """Half a head wide at the temples, narrower at the chin, [N, 2] in units."""
    angles = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)
    x, y = np.cos(angles), np.sin(angles)
    jaw = 1.0 - 0.2 * np.maximum(0.0, y) ** 3 + 0.08 * np.maximum(0.0, np.sin(2.2 * y))
    return np.stack([wide * x * jaw, np.where(y < 0, 1.05 * y, y)], axis=1)


def _flat(points: np.ndarray) -> list[float]:
    """As ImageDraw takes them: x0, y0, x1, y1, ..."""
    return points.ravel().tolist()


def _points(*corners: tuple[float, float]) -> np.ndarray:
    return np.array(corners, np.float64)


def _moved(points: np.ndarray, x: float, y: float) -> np.ndarray:
    return points + np.array([x, y])


def _oval(x: float, y: float, width: float, height: float) -> np.ndarray:
    angles = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _arc(start: float, end: float, y: float, bend: float, *, power: float = 1.0) -> np.ndarray:
    """From (start, y) to (end, y), `bend` away from there in the middle; power 0.5 is round."""
    along = np.linspace(-1.0, 1.0, 25)
    x = (start + end) / 2 + (end - start) / 2 * along
    return np.stack([x, y + bend * (1.0 - along**2) ** power], axis=1)


def _pick(colours: Sequence[str], generator: np.random.Generator) -> Colour:
    code = colours[int(generator.integers(len(colours)))]
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


def _lit(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, max(0, round(part * factor))) for part in colour)
    return red, green, blue


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (
        round((1.0 - share) * a + share * b) for a, b in zip(one, other, strict=True)
    )
    return red, green, blue
