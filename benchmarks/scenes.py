"""The pictures of `benchmarks.detect`, drawn, and what its contestants and those of
`benchmarks.recall` share.

Only NumPy and Pillow, which every environment has. Nobody's photograph is needed: MTCNN takes the
drawn faces for faces, and the background is noise of many lengths, with about as many false
candidates for the first net as a photograph of the same size has.
"""

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

FOLDER = 16  # pictures of a folder
FACES = 3  # in every picture


class Scene(NamedTuple):
    """A drawn picture [H, W, 3] uint8, and the boxes of its faces [n, 4], left, top, right, bottom.

    The boxes hold eyes, nose and mouth.
    """

    image: np.ndarray
    faces: np.ndarray


class Work(NamedTuple):
    """What one turn does: pictures of these (width, height).

    together: whether a contestant may take them in one call; otherwise peers take one by one.
    """

    label: str
    sizes: tuple[tuple[int, int], ...]
    together: bool


def _mixed() -> tuple[tuple[int, int], ...]:
    sizes = np.random.default_rng(0).integers(300, 801, (FOLDER, 2))
    return tuple((int(width), int(height)) for width, height in sizes)


WORKS = {
    "512": Work("one picture of 512 x 512", ((512, 512),), False),
    "1024": Work("one picture of 1024 x 1024", ((1024, 1024),), False),
    "12mp": Work("one picture of 4000 x 3000", ((4000, 3000),), False),
    "equal": Work(f"{FOLDER} pictures of 512 x 512, in one call", ((512, 512),) * FOLDER, True),
    "single": Work(f"{FOLDER} pictures of 512 x 512, one by one", ((512, 512),) * FOLDER, False),
    "mixed": Work(f"{FOLDER} pictures of 300 to 800 pixels a side, one by one", _mixed(), False),
}
CALLS = ("equal", "mixed")  # where ours takes all in one call

Detect = Callable[[Sequence[np.ndarray], bool], Sequence[np.ndarray]]
Score = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def draw(width: int, height: int, seed: int) -> Scene:
    """A picture with FACES faces, side by side, on noise."""
    generator = np.random.default_rng((seed, width, height))
    canvas = Image.fromarray(_noise(generator, width, height))
    boxes: list[list[float]] = []
    third = width // FACES
    for i in range(FACES):
        size = int(generator.uniform(0.35, 0.75) * min(third, height / 1.4))
        left = i * third + int(generator.integers(0, third - size))
        top = int(generator.integers(0, max(1, height - int(1.3 * size))))
        skin = tuple(int(c) for c in np.array([224, 172, 138]) * generator.uniform(0.6, 1.05))
        canvas.paste(_face(size, skin), (left, top), _outline(size))
        unit = size / 100
        boxes.append([left + 28 * unit, top + 50 * unit, left + 72 * unit, top + 98 * unit])
    return Scene(np.asarray(canvas), np.array(boxes))


def _noise(generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    total = np.full((height, width, 3), 120.0, np.float32)
    step = 4
    while step < min(width, height):
        shape = (height // step + 2, width // step + 2, 3)
        coarse = generator.normal(0, 3.0 * np.log2(step), shape).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel])
            total[..., channel] += np.asarray(
                layer.resize((width, height), Image.Resampling.BICUBIC)
            )
        step *= 2
    return np.clip(total, 0, 255).astype(np.uint8)


def _oval(pen: ImageDraw.ImageDraw, unit: float, shape: Sequence[float], colour: Any) -> None:
    x, y, across, down = shape
    pen.ellipse([unit * end for end in (x - across, y - down, x + across, y + down)], fill=colour)


def _face(size: int, skin: tuple[int, ...]) -> Image.Image:
    unit = size / 100
    image = Image.new("RGB", (size, round(1.3 * size)), (60, 40, 30))
    pen = ImageDraw.Draw(image)
    _oval(pen, unit, (50, 68, 34, 46), skin)
    for x in (36, 64):
        pen.rectangle([unit * end for end in (x - 10, 48, x + 10, 51)], fill=(60, 40, 30))
        _oval(pen, unit, (x, 59, 8, 4), (245, 245, 245))
        _oval(pen, unit, (x, 59, 4, 4), (40, 30, 30))
    darker = tuple(int(0.85 * c) for c in skin)
    pen.polygon([unit * end for end in (50, 60, 44, 80, 56, 80)], fill=darker)
    _oval(pen, unit, (50, 94, 14, 4), (170, 70, 70))
    return image.filter(ImageFilter.GaussianBlur(size / 60))


def _outline(size: int) -> Image.Image:
    mask = Image.new("L", (size, round(1.3 * size)))
    _oval(ImageDraw.Draw(mask), size / 100, (50, 60, 40, 54), 255)
    return mask


def hits(scenes: Sequence[Scene], boxes: Sequence[np.ndarray]) -> int:
    """How many drawn faces have their centre in a box [n, 4] of their picture."""
    count = 0
    for scene, found in zip(scenes, boxes, strict=True):
        centres = (scene.faces[:, :2] + scene.faces[:, 2:]) / 2
        for x, y in centres:
            within = (found[:, 0] < x) & (x < found[:, 2]) & (found[:, 1] < y) & (y < found[:, 3])
            count += bool(within.any())
    return count


def parse(argv: Sequence[str]) -> list[str]:
    """Names of the works of a contestant's turns, over and over."""
    parser = argparse.ArgumentParser()
    _ = parser.add_argument("--works", required=True, type=json.loads)
    return parser.parse_args(argv).works


def take_turns(names: Sequence[str], detect: Detect, **facts: object) -> None:
    """Announce the facts and do the next work whenever it is this contestant's turn.

    detect: (pictures, in one call) -> boxes [n, 4] of each. Every turn is answered with its
    seconds, the number of drawn faces that were found, that of all boxes, and a digest of the
    pictures.
    """
    scenes = {
        name: [draw(*size, seed) for seed, size in enumerate(WORKS[name].sizes)] for name in names
    }
    print(json.dumps(facts), flush=True)
    for name in itertools.cycle(names):
        if not sys.stdin.readline():
            return
        images = [scene.image for scene in scenes[name]]
        began = time.perf_counter()
        boxes = detect(images, name in CALLS)
        seconds = time.perf_counter() - began
        digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
        found = {"seconds": seconds, "faces": hits(scenes[name], boxes), "pictures": digest}
        print(json.dumps({**found, "boxes": sum(map(len, boxes))}), flush=True)


def answer(find: Score, **facts: object) -> None:
    """Announce the facts and find the faces in every photograph that is asked for.

    find: (picture) -> boxes [n, 4] and scores [n].  A request is a line with the name of a file, or
    an empty one for a drawn picture of 512 x 512.
    """
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        if name := line.rstrip("\n"):
            with Image.open(name) as photo:
                image = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
        else:
            image = draw(512, 512, 0).image
        began = time.perf_counter()
        boxes, scores = find(image)
        seconds = time.perf_counter() - began
        boxes, scores = (np.asarray(array, np.float64).tolist() for array in (boxes, scores))
        print(json.dumps({"seconds": seconds, "boxes": boxes, "scores": scores}), flush=True)
