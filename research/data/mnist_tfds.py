"""How does TensorFlow Datasets make MNIST without TensorFlow?

`Mnist` keeps the name, version, features and place on disk of the stock builder, so that either
reads what the other wrote, and does the same work with NumPy and PIL. Importing this module
imports `tensorflow_datasets` (0.5 s), hence it stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from research.data import idx


class Mnist(tfds.image_classification.MNIST, skip_registration=True):
    """The stock data set `mnist`, made from the four IDX files without TensorFlow."""

    name = "mnist"
    URL = idx.URL
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Optional: the four files " + ", ".join(idx.NAMES.values()) + ", gzipped or not."
    )

    def _split_generators(self, dl_manager: Any) -> Any:
        try:
            paths = idx.find_files(dl_manager.manual_dir)
        except (AssertionError, idx.DataError):  # nothing there: TFDS asserts, idx explains
            urls = {key: f"{self.URL}{name}.gz" for key, name in idx.NAMES.items()}
            paths = {key: Path(path) for key, path in dl_manager.download(urls).items()}
        arrays = idx.read_files(paths)
        idx.check_md5(arrays, paths)
        return {
            split: _keyed_examples(arrays[f"{split}_images"], arrays[f"{split}_labels"])
            for split in ("train", "test")
        }


def _keyed_examples(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, Any]]:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        # A PIL image, because TFDS encodes arrays with TensorFlow.
        yield index, {"image": Image.fromarray(image), "label": int(label)}
