"""The package `mtcnn` on TensorFlow, with its own settings.

A folder in one call is a list, whose pictures it fills up to the largest.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import mtcnn  # pyright: ignore[reportMissingImports] -- imports TensorFlow, of the peers
import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import scenes


def boxes_of(faces: Any) -> np.ndarray:
    """[n, 4], left, top, right, bottom, of a list of {"box": [left, top, width, height], ...}."""
    boxes = np.array([face["box"] for face in faces], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def main(argv: Sequence[str]) -> None:
    names = scenes.parse(argv)
    detector: Any = mtcnn.MTCNN()

    def find(images: Sequence[np.ndarray], together: bool) -> list[np.ndarray]:
        if together and len({image.shape for image in images}) == 1:
            return [boxes_of(faces) for faces in detector.detect_faces(list(images))]
        return [boxes_of(detector.detect_faces(image)) for image in images]

    scenes.take_turns(
        names,
        find,
        versions={"mtcnn": version("mtcnn"), "tensorflow": tf.__version__},
        threads=tf.config.threading.get_intra_op_parallelism_threads() or "as many as cores",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
