"""The face detectors, by the names that configs and commands have for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.faces import (
    centerface_detection,
    centerface_weights,
    detection,
    mtcnn_weights,
)
from research.structs import UserError

FindFaces = Callable[[Sequence[np.ndarray]], Sequence[detection.Detections]]


def as_annotated(find_faces: FindFaces, moved: Sequence[float]) -> FindFaces:
    """The same detector with boxes as people draw them: a net is trained on those.

    moved: of left, top, right and bottom, by which share of the box's width or height they move
    right or down; at the edge of the picture they stay.
    """

    def find(images: Sequence[np.ndarray]) -> list[detection.Detections]:
        faces: list[detection.Detections] = []
        for image, each in zip(images, find_faces(images), strict=True):
            sides = np.tile(each.boxes[:, 2:] - each.boxes[:, :2], 2)
            ends = np.tile(np.array(image.shape[1::-1], np.float32), 2)
            boxes = (each.boxes + sides * np.array(moved, np.float32)).clip(0, ends)
            faces.append(each._replace(boxes=boxes))
        return faces

    return find


class Kind(NamedTuple):
    """A detector.

    make: (min_face_px) -> the detector.  sha256: of its files of weights, by net.
    """

    make: Callable[[float], FindFaces]
    sha256: Mapping[str, str]


# Where people draw the sides of a face, from those of CenterFace's box on: shares of its width and
# height, medians over the faces found in the training photographs of docs/masks.md.
CENTERFACE_MOVED = (-0.058, 0.106, 0.056, 0.098)
FIRST = "mtcnn-1.0"  # of data sets and runs from before there was another
KINDS = {
    "mtcnn": Kind(
        lambda min_face_px: detection.make_detector(min_face_px=min_face_px), mtcnn_weights.SHA256
    ),
    FIRST: Kind(  # as that release of the package, whose patches are sampled at points
        lambda min_face_px: detection.make_detector(min_face_px=min_face_px, averaged=False),
        mtcnn_weights.SHA256,
    ),
    "centerface": Kind(
        lambda min_face_px: as_annotated(
            centerface_detection.make_detector(min_face_px=min_face_px), CENTERFACE_MOVED
        ),
        {"centerface": centerface_weights.SHA256},
    ),
}


def kind(name: str) -> Kind:
    """The detector of this name.  Raises UserError listing them for another."""
    if name not in KINDS:
        raise UserError(f"detector: {name!r} is not one of {', '.join(KINDS)}")
    return KINDS[name]
