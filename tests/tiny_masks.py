"""A mask classifier that can be foretold: bright faces are with_mask, dark ones without_mask.

Faces are squares, white or black, on grey; `find_squares` is the detector.
"""

import json

import numpy as np

from configs.masks import get_config
from research.experiments.classifiers import make_model
from research.faces.detection import Detections
from research.storage import export

LABELS = ("with_mask", "without_mask")
SIZE = 20
GREY = 128
ORIGIN = {"data": {"caption": "drawn squares", "sha256": "ab"}, "epochs": 3}


def make_config(**changes):
    config = get_config("smoke")
    config.filters, config.pools, config.dropouts = (2,), (2,), (0.0,)
    config.dense, config.dense_dropouts = (3,), (0.0,)
    config.data.size = SIZE
    with config.unlocked():
        config.update(changes)
    return json.loads(config.to_json_best_effort()), make_model(config, len(LABELS))


def make_params():
    """The mean brightness, less a half, is the difference of the logits in units of an eighth."""
    mean = np.zeros((3, 3, 3, 2), np.float32)
    mean[..., 0] = 1 / 27
    whole = np.zeros((9 * 9 * 2, 3), np.float32)
    whole[::2, 0] = 1 / 81
    output = np.zeros((3, 2), np.float32)
    output[0] = 4, -4

    def layer(kernel, bias):
        return {"kernel": kernel, "bias": np.array(bias, np.float32)}

    return {
        "conv_0": layer(mean, [0, 0]),
        "dense_0": layer(whole, [0, 0, 0]),
        "output": layer(output, [-2, 2]),
    }


def write(folder, **changes):
    config, model = make_config(**changes)
    params = make_params()
    export.write(
        folder,
        model=model,
        params=params,
        config=config,
        labels=LABELS,
        origin=ORIGIN,
        card="# A card",
    )
    return model, params, config


def draw(*faces, height=60):
    """A picture with squares of 24 pixels from (10, 20) on, 40 apart: True for white."""
    picture = np.full((height, 20 + 40 * len(faces), 3), GREY, np.uint8)
    for i, bright in enumerate(faces):
        picture[20:44, 10 + 40 * i : 34 + 40 * i] = 255 if bright else 0
    return picture


def find_squares(images):
    """What differs from grey, column by column; the one on the left is the best."""
    found = []
    for image in images:
        differs = (np.abs(image.astype(int) - GREY) > 60).all(axis=2)
        edges = np.flatnonzero(np.diff(np.pad(differs.any(axis=0), 1).astype(int)))
        boxes = []
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            rows = np.flatnonzero(differs[:, left:right].any(axis=1))
            boxes.append((left, rows[0], right, rows[-1] + 1))
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        scores = np.linspace(1.0000001, 0.9, len(boxes)).astype(np.float32)
        found.append(Detections(boxes, scores, np.zeros((len(boxes), 5, 2), np.float32)))
    return found
