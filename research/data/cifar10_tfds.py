"""How does TensorFlow Datasets make CIFAR-10 without TensorFlow?

`Cifar10` keeps the name, version, features and place on disk of the stock builder, so that either
reads what the other wrote. Beside the records it leaves the checksum of the published arrays that
it made them from: whoever reads them back can tell that they are those. Importing this module
imports `tensorflow_datasets` (0.5 s), hence it stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from research.data import cifar10_batches
from research.data.provenance import PUBLISHED, DataError, finish
from research.data.tfds_store import DIGEST


class Cifar10(tfds.image_classification.Cifar10, skip_registration=True):
    """The stock data set `cifar10`, made from the published batches without TensorFlow."""

    name = "cifar10"
    URL = cifar10_batches.URL
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: {cifar10_batches.EXPECTED}."

    def _split_generators(self, dl_manager: Any) -> Any:
        try:
            found = cifar10_batches.find(dl_manager.manual_dir, *cifar10_batches.FORMS)
        except (AssertionError, DataError):  # nothing there: TFDS asserts, batches explains
            archive = Path(dl_manager.download(self.URL))
            found = cifar10_batches.Found("binary", (archive,), archived=True)
        arrays, published = cifar10_batches.read(found)
        if not published:
            raise DataError(
                f"{found.paths[0]}: not known to be CIFAR-10 as published, which is proved by the "
                "MD5 of the six python batches or of cifar-10-binary.tar.gz; put one of those there"
            )
        features: Any = self.info.features
        features["label"].names = list(PUBLISHED["cifar10"].classes)
        digest = finish("cifar10", arrays, str(found.paths[0]), "published")[2].sha256
        # TFDS writes into a temporary folder until everything is there; so does this.
        _ = (Path(self.data_dir) / DIGEST).write_text(digest)
        return {
            split: _keyed_examples(split, arrays[f"{split}_images"], arrays[f"{split}_labels"])
            for split in ("train", "test")
        }


def _keyed_examples(
    split: str, images: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[int, Any]]:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        # A PIL image, because TFDS encodes arrays with TensorFlow.
        example = {"id": f"{split}_{index:05d}", "image": Image.fromarray(image)}
        yield index, {**example, "label": int(label)}
