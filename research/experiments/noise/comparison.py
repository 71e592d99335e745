"""Several nets side by side: robust accuracy under PGD, and how adversarial images transfer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.adversarial import generate
from research.adversarial.pgd import PGD
from research.data import datasets
from research.experiments.noise.nets import Net
from research.experiments.noise.samples import Sample
from research.runtime import preemption, progress
from research.storage import attack_files, run_directory
from research.structs import Config, Dataset

_LEVELS = 255


def robust_accuracy(config: Config, nets: Mapping[Path, Net], test_set: Dataset) -> dict[str, Any]:
    """How many of the first test images each net still has right within every radius.

    nets: {directory of the net's files: net}.  The numbers of the images that stand are kept there
    after every level, in robust_accuracy.json, and not sought again.
    Raises preemption.Stopped between two levels when told to stop.
    """
    pgd = config.pgd
    levels = [0, *sorted(set(pgd.levels) - {0})]
    count = min(pgd.images, len(test_set.images))
    images, labels = (np.asarray(a)[:count] for a in (test_set.images, test_set.labels))
    hits: dict[str, list[int]] = {}
    for into, net in nets.items():
        path = into / "robust_accuracy.json"
        begun = run_directory.read_json(path, "standing")
        standing: list[list[int]] = begun["standing"] if begun else []
        for level in levels[len(standing) :]:
            fallen = fooled(config, net, images, labels, level)
            # An image that falls within a radius has fallen within every larger one.
            before = standing[-1] if standing else range(count)
            standing.append([place for place in before if not fallen[place]])
            run_directory.write_json(path, {"levels": levels, "standing": standing})
            preemption.raise_if_requested()
        hits[net.name] = [len(each) for each in standing]
        shares = ", ".join(f"{hit / count:.0%}" for hit in hits[net.name])
        progress.say(f"{net.name}: right within {', '.join(map(str, levels))}: {shares}")
    return {
        "levels": levels,
        "norm": pgd.norm,
        "count": count,
        "hits": hits,
        "steps": pgd.steps,
        "restarts": pgd.restarts,
    }


def fooled(
    config: Config, net: Net, images: np.ndarray, labels: np.ndarray, level: float
) -> np.ndarray:
    """Whether each image is taken for another class, [N] bool: by itself, or with PGD's noise.

    images: [N, H, W, C] uint8.  labels: [N] integers.  level: the radius, of 255.
    """
    if level == 0:
        return net.logits(images, config.eval_batch_size).argmax(axis=1) != labels
    pgd = config.pgd
    method = PGD(np.asarray(level / _LEVELS, np.float32), pgd.norm, pgd.steps, pgd.restarts)
    # As many cases in a call as an attack has; the last call is filled up.
    size = min(len(images), config.batch * len(datasets.CLASSES[config.dataset]))
    parts: list[np.ndarray] = []
    for first in range(0, len(images), size):
        places = np.resize(np.arange(first, min(first + size, len(images))), size)
        outcome = generate.generate(
            net.apply_fn,
            net.params,
            images[places],
            labels[places],
            targets=labels[places][:, None],
            methods=(method,),
            seed=config.seed,
            numbers=places,
        )
        parts.append(np.asarray(outcome.success)[:, 0])
    return np.concatenate(parts)[: len(images)]


def transfer(config: Config, nets: Mapping[Path, Net], sample: Sample) -> dict[str, Any]:
    """Of the images made against each net, the share that each other net takes for another class.

    nets: {directory of the net's cells.jsonl and pictures: net}.
    Only images that the other net has right without noise are counted; a share of none is None.
    """
    classes = len(datasets.CLASSES[config.dataset])
    size = config.eval_batch_size
    right = [
        net.logits(sample.images, size).argmax(axis=1) == sample.labels for net in nets.values()
    ]
    where = {int(number): place for place, number in enumerate(sample.numbers)}
    rates: list[list[float | None]] = []
    counts: list[int] = []
    for into in nets:
        log = attack_files.CellLog(into, cells=classes)
        won = [row for row in log.rows() if row["success"] and row["image"] in where]
        images = [attack_files.read_png(into / row["file"]) for row in won]
        places = np.array([where[row["image"]] for row in won], np.int64)
        counts.append(len(won))
        rates.append([])
        for net, right_of_net in zip(nets.values(), right, strict=True):
            kept = right_of_net[places]
            if kept.any():
                predicted = net.logits(np.stack(images), size).argmax(axis=1)
                rate = float(np.mean(predicted[kept] != sample.labels[places][kept]))
            else:
                rate = None
            rates[-1].append(rate)
    return {"names": [net.name for net in nets.values()], "rates": rates, "counts": counts}
