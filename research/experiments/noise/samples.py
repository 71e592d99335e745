"""The sample: which test images are attacked, or the picture of the user."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data.image_files import PHOTOGRAPHS, read_image
from research.experiments.noise.nets import Net
from research.runtime import files
from research.structs import Config, Dataset, UserError


class Sample(NamedTuple):
    """The images that are attacked.

    images: [N, H, W, C] uint8.  labels: [N] int32, their classes; of a picture of the
    user's the class that the net gives it.  numbers: [N] int64, their places in the test set.
    words: how they were chosen.
    """

    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    words: str


def check(config: Config, test_set: Dataset) -> None:
    """Raise UserError for a picture that cannot be used, and for a number of no test image."""
    if config.input:
        _ = read_picture(config, test_set)
    count = len(test_set.images)
    for number in config.extra_indices:
        if not 0 <= number < count:
            raise UserError(f"extra_indices: there is no test image {number}, only {count:,}")


def take(config: Config, net: Net, test_set: Dataset) -> Sample:
    """The sample of a config; `net` decides which images are classified correctly.

    Raises what `check` raises, and UserError for a sample without an image.
    """
    check(config, test_set)
    images, labels = np.asarray(test_set.images), np.asarray(test_set.labels)
    if config.input:
        path = Path(config.input)
        picture = read_picture(config, test_set)[None]
        label = net.logits(picture, 1).argmax(axis=1).astype(np.int32)
        return Sample(picture, label, np.zeros(1, np.int64), f"the picture {path.name}")
    if config.images:
        numbers = np.arange(min(config.images, len(images)))
        return Sample(images[numbers], labels[numbers], numbers, "the first of the test set")
    wanted = config.per_class * len(config.classes)
    right = np.ones(len(images), bool)
    if config.only_correct and wanted:
        right = net.logits(images, config.eval_batch_size).argmax(axis=1) == labels
    chosen = choose(labels, right, config.classes, config.per_class)
    numbers = np.array(list(dict.fromkeys([*config.extra_indices, *chosen.tolist()])), np.int64)
    if not len(numbers):
        raise UserError("classes, per_class, extra_indices: they choose no image")
    which = "correctly classified test images" if config.only_correct else "test images"
    words: list[str] = []
    if wanted:
        words += [f"the first {config.per_class} {which} of each of {len(config.classes)} classes"]
    if config.extra_indices:
        words += [f"test image {', '.join(map(str, config.extra_indices))}"]
    return Sample(images[numbers], labels[numbers], numbers, ", and ".join(words))


def read_picture(config: Config, test_set: Dataset) -> np.ndarray:
    """The user's picture, [H, W, C] uint8, as large as a test image.

    No value of a pixel changes: what is attacked is what is in the file.
    """
    height, width, channels = test_set.images.shape[1:]
    shape = (height, width, channels)
    return read_image(files.locate(config.input), formats=PHOTOGRAPHS, shape=shape, exact=False)


def choose(
    labels: np.ndarray, allowed: np.ndarray, classes: Sequence[int], per_class: int
) -> np.ndarray:
    """Numbers of the first `per_class` images of each class that are allowed, class by class.

    labels, allowed: [N], integers and bool.
    """
    each = [np.flatnonzero((labels == label) & allowed)[:per_class] for label in classes]
    return np.concatenate([np.empty(0, np.int64), *each])
