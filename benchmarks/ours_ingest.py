"""The phases that `benchmarks.ingest` measures, each in a process of its own.

python -m benchmarks.ours_ingest PHASE FOLDER FACES SIZE

draw: FOLDER/voc, photographs of drawn people with boxes, and FOLDER/request.json.  ingest: from
there to FOLDER/alone, a prepared data set.  train: an epoch on that, and the validation faces.
whole: both of them, the one after the other in one process, in FOLDER/together.  A line of JSON
says what was done; progress is on standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks import ours
from configs import masks as configs
from research.data import image_files
from research.experiments import classifiers
from research.faces import annotations, crops, dataset, drawing, ingest, splits
from research.faces.annotations import Box, Face
from research.runtime import sharding
from research.structs import Config
from research.training import augment, optim
from research.training.fit import fit
from research.training.step import Loop

REPORTED = 12_243  # faces, of which 2,000 were for validation and 1,000 for the test
VAL, TEST, REAL = 2_000 / REPORTED, 1_000 / REPORTED, 9_000 / REPORTED  # the rest are copies
_BASES = 60  # photographs that are drawn, a third with boxes; all others are varied from them
_LARGE_EVERY, _LARGE_PX = 64, 12_000_000  # one in so many is as large as a camera's
_PLAIN = {"with_mask": "with_mask", "without_mask": "without_mask"}


def draw(folder: Path, faces: int, size: int) -> dict[str, Any]:
    """Write as many photographs as have the faces, without copies, and what is to be made of them.

    faces: in the data set, the copies of the smaller class counted, see `masks`.
    """
    drawn = folder / "drawn"
    _ = drawing.write(drawn, photos=_BASES, seed=0)
    bases = _by_photo(annotations.read(drawn / "voc", "voc").faces)
    generator = np.random.Generator(np.random.PCG64(0))
    left, number = round(REAL * faces), 0
    for name in ("images", "annotations"):
        (folder / "voc" / name).mkdir(parents=True, exist_ok=True)
    while left:
        same = bases[number % len(bases)][:left]
        _write_varied(folder / "voc", number, same, generator)
        left, number = left - len(same), number + 1
    shutil.rmtree(drawn)
    settings: dict[str, float] = {
        "val": round(VAL * faces),
        "test": round(TEST * faces),
        "size": size,
    }
    annotated = annotations.read(folder / "voc", "voc").faces
    split_of = splits.split_by_image(annotated, val=settings["val"], test=settings["test"], seed=0)
    trained = Counter(face.label for face in annotated if split_of[face.photograph.path] == "train")
    copies = faces - round(REAL * faces)
    settings["balance"] = (min(trained.values()) + copies) / max(trained.values())
    _ = (folder / "request.json").write_text(json.dumps(settings))
    return {"photographs": number, "annotated": len(annotated)}


def prepare(folder: Path, home: Path) -> tuple[dataset.Masks, dict[str, Any]]:
    """The faces of `draw` as a data set below `home`, and what it took."""
    settings = json.loads((folder / "request.json").read_text())
    request = dataset.Request(
        directories={"voc": str(folder / "voc")},
        keep_incorrect=False,
        cut=ingest.Cut(0.0, settings["size"], 1),
        val=settings["val"],
        test=settings["test"],
        balance=settings["balance"],
        seed=0,
        detector={},
    )
    began, used = time.monotonic(), time.process_time()
    masks = dataset.prepare(request, str(home), _no_detector, _say)
    seconds = time.monotonic() - began
    return masks, {
        "faces": sum(len(each.data.labels) for each in masks.splits.values()),
        "copies": int(masks.splits["train"].synthetic.sum()),
        "seconds": seconds,
        "cores": (time.process_time() - used) / seconds,
    }


def run_epoch(masks: dataset.Masks) -> dict[str, Any]:
    """An epoch of configs/masks.py:vgg with the validation faces after it, and the images it took.

    images_per_s: of the steps after the first piece, which is compiled.
    """
    config: Config = configs.get_config("vgg")
    sharding.configure(cpu_devices=1, cpu_threads=config.cpu_threads, seeds=1)
    loop = Loop(
        epochs=1,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        augment=augment.make_augment(shift_pixels=config.shift, mirrored=config.mirror),
        floor=config.probability_floor,
        steps_per_dispatch=config.steps_per_dispatch,
        convolutions=True,
    )
    looks: list[tuple[float, int]] = []
    ends: list[tuple[int, int]] = []

    def on_steps(number: int, done: int, steps: int) -> None:
        looks.append((time.monotonic(), done))
        _say(f"epoch {number}: {done:,} of {steps:,} steps")

    began = time.monotonic()
    _ = fit(
        classifiers.make_model(config, 2),
        optim.make_optimizer(config.learning_rate, name=config.optimizer),
        masks.splits["train"].data,
        masks.splits["val"].data,
        loop,
        seeds=[0],
        resume=None,
        on_epoch=lambda _, __, result, ___: ends.append(
            (int(result.train.count[0]), int(result.test.count[0]))
        ),
        on_steps=on_steps,
    )
    (first_s, first), (last_s, last) = looks[0], looks[-1]
    rate = (last - first) * config.batch_size / (last_s - first_s) if last > first else 0.0
    trained, tested = ends[0]
    return {
        "trained": trained,
        "tested": tested,
        "seconds": time.monotonic() - began,
        "images_per_s": rate,
    }


def _by_photo(faces: Sequence[Face]) -> list[list[Face]]:
    """Those with a label of the two classes, by photograph."""
    groups: dict[str, list[Face]] = {}
    for face in faces:
        if face.label in _PLAIN:
            groups.setdefault(face.photograph.path, []).append(face)
    return list(groups.values())


def _write_varied(
    root: Path, number: int, faces: Sequence[Face], generator: np.random.Generator
) -> None:
    """A photograph like that of `faces` in another size and light, mirrored or not."""
    image = Image.fromarray(image_files.read_photograph(faces[0].photograph.path))
    scale = float(generator.uniform(0.75, 1.5))
    large = number % _LARGE_EVERY == _LARGE_EVERY - 1
    if large:
        scale = (_LARGE_PX / (image.width * image.height)) ** 0.5
    mirrored = bool(generator.random() < 0.5)
    wide, high = round(scale * image.width), round(scale * image.height)
    varied = image.resize((wide, high), Image.Resampling.BILINEAR)
    varied = varied.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else varied
    varied = ImageEnhance.Brightness(varied).enhance(generator.uniform(*crops.BRIGHTNESS))
    name = f"{number:05d}.{'jpg' if large else 'png'}"
    varied.save(root / "images" / name, quality=90, compress_level=1)  # of JPEG and of PNG
    objects = ""
    for face in faces:
        assert face.box is not None
        corners = scale * np.array(dataclasses.astuple(face.box))
        if mirrored:
            corners[[0, 2]] = wide - corners[[2, 0]]
        box = ingest.whole_box(corners, (high, wide, 3))
        objects += _object(face.label, box)
    text = f"<annotation><filename>{name}</filename>{objects}</annotation>"
    _ = (root / "annotations" / f"{number:05d}.xml").write_text(text)


def _object(label: str, box: Box) -> str:
    """As Pascal VOC has it: counted from 1, the last pixel inside."""
    corners = {"xmin": box.left + 1, "ymin": box.top + 1, "xmax": box.right, "ymax": box.bottom}
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
    return f"<object><name>{_PLAIN[label]}</name><bndbox>{inside}</bndbox></object>"


def _no_detector() -> ingest.FindFaces:
    raise AssertionError("every face has a box")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _ingest(folder: Path) -> dict[str, Any]:
    return prepare(folder, folder / "alone")[1]


def _train(folder: Path) -> dict[str, Any]:
    masks, loaded = prepare(folder, folder / "alone")
    return {**run_epoch(masks), "loading": loaded["seconds"]}


def _whole(folder: Path) -> dict[str, Any]:
    masks, prepared = prepare(folder, folder / "together")
    return {**prepared, "trained": run_epoch(masks)["trained"]}


PHASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ingest": _ingest,
    "train": _train,
    "whole": _whole,
}


def main(argv: Sequence[str]) -> None:
    phase, folder, faces, size = argv
    if phase == "draw":
        done = draw(Path(folder), int(faces), int(size))
    else:
        done = PHASES[phase](Path(folder))
    print(json.dumps({**done, "versions": ours.versions(), "threads": os.cpu_count()}))


if __name__ == "__main__":
    main(sys.argv[1:])
