"""Our side of `benchmarks.detect`: the detector as `research.predict` uses it."""

import os
import sys
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import scenes
from research.faces import detection


def main(argv: Sequence[str]) -> None:
    names = scenes.parse(argv)
    detector = detection.make_detector()

    def find(images: Sequence[np.ndarray], together: bool) -> list[np.ndarray]:
        if together:
            return [found.boxes for found in detector(images)]
        return [detector([image])[0].boxes for image in images]

    scenes.take_turns(
        names,
        find,
        versions={"jax": jax.__version__},
        threads=len(os.sched_getaffinity(0)),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
