"""Our side of `benchmarks.detect`, with MTCNN, and of `benchmarks.recall`, with any detector."""

import os
import sys
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import scenes
from research.faces import detection, detectors


def main(argv: Sequence[str]) -> None:
    facts = {"versions": {"jax": jax.__version__}, "threads": len(os.sched_getaffinity(0))}
    if argv[0] in detectors.KINDS:
        find_faces = detectors.kind(argv[0]).make(20.0)

        def find_scored(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            (faces,) = find_faces([image])
            return faces.boxes, faces.scores

        scenes.answer(find_scored, **facts)
        return
    names = scenes.parse(argv)
    detector = detection.make_detector()

    def find(images: Sequence[np.ndarray], together: bool) -> list[np.ndarray]:
        if together:
            return [found.boxes for found in detector(images)]
        return [detector([image])[0].boxes for image in images]

    scenes.take_turns(names, find, **facts)


if __name__ == "__main__":
    main(sys.argv[1:])
