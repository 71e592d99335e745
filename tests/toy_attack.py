"""A classifier that reads ten pixels, images that spell their class in them, and a false attack.

A logit is ten times a pixel of the first row, so that everything about a success is known without a
compiler; class 9 lies out of reach.
"""

from pathlib import Path

import numpy as np

from configs import noise as configs
from research.adversarial.loop import Progress
from research.data import datasets
from research.experiments.noise.nets import Net
from research.experiments.noise.samples import Sample
from research.structs import Dataset

SHAPE, CLASSES, COUNT = (12, 12, 1), 10, 30
WRONG = (0, 12, 21)  # images that the net takes for the next class
LABELS = np.arange(COUNT, dtype=np.int32) % CLASSES
GAPS = 21 + 4 * np.arange(COUNT)  # levels between the brightest of the ten pixels and the others
SOURCE = datasets.Source("toy", "toy", COUNT, COUNT, "0" * 64, full=False, dataset="mnist")
ORIGIN = {"epochs": 4, "data": {"sha256": SOURCE.sha256, "caption": SOURCE.caption()}}

BIAS = np.array([0.0] * 9 + [-100.0], np.float32)


def apply_fn(params, images, dropout=None):
    del dropout
    return 10 * images[:, 0, :CLASSES, 0] + params[None]


def exact(image, bias=BIAS):
    """Logits [K] in float64 of an image of bytes."""
    return 10 * (image[0, :CLASSES, 0] / 255) + bias.astype(np.float64)


def data():
    images = np.random.default_rng(5).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
    images[:, 0, :CLASSES] = 0
    said = np.where(np.isin(np.arange(COUNT), WRONG), (LABELS + 1) % 9, LABELS)
    images[np.arange(COUNT), 0, said, 0] = GAPS
    return Dataset(images=images, labels=LABELS)


def net(name="first", bias=BIAS):
    return Net(name, apply_fn, bias, Path("runs") / name, 4, ORIGIN)


def sample(numbers):
    numbers = np.asarray(numbers, np.int64)
    return Sample(data().images[numbers], LABELS[numbers], numbers, "some")


def smoke(**changes):
    """A config whose attack takes a few steps; "lagrangian__steps" is lagrangian.steps."""
    config = configs.get_config("mnist,smoke")
    config.update({"batch": 2, "eval_batch_size": 16, "only_correct": True, "extra_indices": (7,)})
    for method in (config.lagrangian, config.minimal):
        method.update({"steps": 3, "search": 8, "polish": 1})
    config.pgd.update({"images": 25, "levels": (13, 40), "steps": 10, "restarts": 1})
    for key, value in changes.items():
        place, _, last = key.rpartition("__")
        (config[place] if place else config)[last] = value
    return config


def toward(image, actual, target):
    """The image, so that the net says the target, or no longer the actual class."""
    made = image.copy()
    made[0, :CLASSES] = 0
    made[0, (actual + 1) % 9 if target == actual else target] = 250
    return made


def attack(calls, claims=lambda number, target: target != 9):
    """A stand-in for `generate.generate` that notes its calls; `claims`: which cells succeed."""

    def generate(apply_fn, params, images, labels, *, targets=None, numbers=None, **options):
        del apply_fn, params
        if targets is None:
            targets = np.tile(np.arange(CLASSES), (len(labels), 1))
        numbers = np.arange(len(labels)) if numbers is None else numbers
        calls.append({"numbers": list(numbers), "targets": targets, **options})
        shape = targets.shape
        best = np.array(
            [
                [toward(image, label, t) for t in row]
                for image, label, row in zip(images, labels, targets, strict=True)
            ]
        )
        success = np.array(
            [[claims(n, t) for t in row] for n, row in zip(numbers, targets, strict=True)]
        )
        whole = np.float32(np.add.outer(numbers, np.zeros(shape[1])))
        return Progress(
            best=best,
            best_margin=whole,
            best_l2=whole,
            best_norm=whole,
            last=np.repeat(images[:, None], shape[1], axis=1),
            last_margin=whole,
            success=success,
            running=np.zeros(shape, bool),
            steps=np.full(shape, 7, np.int32),
            first=np.where(success, 3, -1),
            start_l2=whole / 4,
            dead_first=np.zeros(shape, np.float32),
            dead_last=np.ones(shape, np.float32),
            gradient_first=whole + 1,
            gradient_last=whole + 2,
        )

    return generate
