"""Crops of faces for the classifier, and augmented copies of them.

`crop` is the report's: the box is cut out and scaled to a square whatever its sides are. `augment`
is the augmentation in Figure 12 of the report: mirrored, turned, brighter or darker copies of a
face, for the class that has too few.

Both use PIL's bilinear filter. On the way down it averages over all pixels that fall into one. On
the way up - half of the real faces are 20 pixels wide and become 200 - its weights are never
negative, so that no value appears that the face does not have, nor a ring along the edge of a mask.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from research.faces.annotations import Box

MAX_TURN_DEG = 15.0
BRIGHTNESS = (0.8, 1.2)

_TURN_RAD = math.radians(MAX_TURN_DEG)
# Share of a side by which the corners of a face leave its square at the largest turn.
_BEYOND = (math.cos(_TURN_RAD) + math.sin(_TURN_RAD) - 1) / 2


def crop(image: np.ndarray, box: Box, *, margin: float, size: int) -> np.ndarray:
    """The part of `image` [H, W, 3] uint8 in the box, as [size, size, 3] uint8.

    margin: share of the box's sides that is added on each side, rounded to whole pixels and cut at
    the picture. The part is scaled to a square without regard to its sides, as in the report; no
    pixel outside of it has an influence (as those have with the `box` of PIL's `resize`).
    Raises ValueError if nothing of the box lies in the picture, or for a negative margin.
    """
    if margin < 0:
        raise ValueError(f"margin is {margin}; expected 0 or more")
    height, width = image.shape[:2]
    beside, above = round(margin * box.width), round(margin * box.height)
    left, right = max(box.left - beside, 0), min(box.right + beside, width)
    top, bottom = max(box.top - above, 0), min(box.bottom + above, height)
    if box.width < 1 or box.height < 1 or left >= right or top >= bottom:
        raise ValueError(f"{box} has no pixel in a picture of {width} x {height}")
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    return np.asarray(part.resize((size, size), Resampling.BILINEAR))


def augment(face: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A synthetic copy of `face`: [S, S, 3] uint8 both.

    Mirrored half of the time, turned by at most MAX_TURN_DEG either way, its values multiplied by a
    factor from BRIGHTNESS; three numbers are drawn for each copy. What a turn brings in at the
    corners is the face continued by its mirror image. Source: the report, Exercise 3, Figure 12,
    which shows such copies and states no figures.
    """
    mirrored = generator.random() < 0.5
    angle = generator.uniform(-MAX_TURN_DEG, MAX_TURN_DEG)
    factor = generator.uniform(*BRIGHTNESS)
    side = len(face)
    edge = math.ceil(_BEYOND * side) + 1  # and one for the neighbours that bilinear asks for
    wide = np.pad(face, ((edge, edge), (edge, edge), (0, 0)), "symmetric")
    turned = np.asarray(Image.fromarray(wide).rotate(angle, Resampling.BILINEAR))
    copy = turned[edge : edge + side, edge : edge + side]
    copy = copy[:, ::-1] if mirrored else copy
    return np.clip(np.rint(copy * np.float32(factor)), 0, 255).astype(np.uint8)
