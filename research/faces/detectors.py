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


class Kind(NamedTuple):
    """A detector.

    make: (min_face_px) -> the detector.  sha256: of its files of weights, by net.
    """

    make: Callable[[float], FindFaces]
    sha256: Mapping[str, str]


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
        lambda min_face_px: centerface_detection.make_detector(min_face_px=min_face_px),
        {"centerface": centerface_weights.SHA256},
    ),
}


def kind(name: str) -> Kind:
    """The detector of this name.  Raises UserError listing them for another."""
    if name not in KINDS:
        raise UserError(f"detector: {name!r} is not one of {', '.join(KINDS)}")
    return KINDS[name]
