"""The face data of a config: detected, cropped, split, and summarised in words."""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.data.cache import cache_folder
from research.faces import annotations, dataset, detection, drawing, ingest, mtcnn_weights, splits
from research.runtime import distributed, files, progress
from research.structs import Config, UserError

_DRAWN_SEED = 0
WHERE = (
    "name at least one directory: --config.data.voc=... (images/ and annotations/*.xml), "
    "--config.data.json=... (images/ and annotations/*.json) or --config.data.folders=... "
    "(folders with_mask/ and without_mask/). Data sets: kaggle.com/andrewmvd/face-mask-detection, "
    "humansintheloop.org (Medical Mask Dataset, on request), "
    "kaggle.com/prithwirajmitra/covid-face-mask-detection-dataset. configs/masks.py:smoke draws "
    "faces of its own"
)


def check(config: Config) -> None:
    """Raise UserError naming the first key under `data` whose value cannot be used."""
    data = config.data
    given = [layout for layout in annotations.LAYOUTS if data[layout]]
    if not given and not data.drawn:
        raise UserError(f"data: {WHERE}")
    if given and data.drawn:
        raise UserError(
            f"data.drawn: {data.drawn} drawn photographs, and data.{given[0]} as well; "
            "expected one of them: set data.drawn to 0, or leave the directory out"
        )
    if data.drawn and data.drawn < drawing.FEWEST:
        raise UserError(f"data.drawn: {data.drawn} is below {drawing.FEWEST}")
    for layout in given:
        if not os.path.isdir(files.locate(data[layout])):
            raise UserError(f"data.{layout}: {data[layout]} is no directory")


def load(config: Config, workdir: Path) -> dataset.Masks:
    """The faces of `config`, read from the cache or prepared now.

    Drawn photographs and the faces cut from them lie in `workdir`, or in the cache of this machine
    if that is in an object store.  The first process prepares them.
    Raises what `dataset.prepare` does, and UserError for problems in the files if config.strict, or
    if there is only one class.
    """
    data = config.data
    directories = {layout: data[layout] for layout in annotations.LAYOUTS if data[layout]}
    tfds_dir = data.tfds_dir
    here = cache_folder() / "drawn" if files.stored(workdir) else workdir
    if data.drawn:
        corpus = here / "corpus"
        directories = {layout: str(corpus / layout) for layout in annotations.LAYOUTS}
        tfds_dir = str(here)
    request = dataset.Request(
        directories=directories,
        keep_incorrect=data.keep_incorrect,
        cut=ingest.Cut(data.margin, data.size, data.min_side),
        val=data.val,
        test=data.test,
        balance=data.balance,
        seed=data.seed,
        detector={"min_face_px": data.min_face_px},
    )
    find = functools.partial(_finder, data.min_face_px)
    with distributed.first_process_first():
        if data.drawn:
            _draw(here / "corpus", data.drawn)
        masks = dataset.prepare(request, tfds_dir, find, progress.say)
    for line in summary_lines(masks):
        progress.say(line)
    names = list(masks.names)
    if len(names) < 2:
        raise UserError(f"{masks.folder}: all faces are {names[0]}; two classes are needed")
    problems = masks.about["problems"]
    if config.strict and problems:
        where = masks.folder / dataset.PROBLEMS
        raise UserError(f"strict: {_problems(problems)} in the files; {where} names each")
    return masks


def summary_lines(masks: dataset.Masks) -> list[str]:
    """Summary of the data set for the terminal: faces by split, source and class; problems."""
    about = masks.about
    summary: list[str] = []
    for split in splits.SPLITS:
        shown = "; ".join(
            f"{source} " + ", ".join(f"{n:,} {label}" for label, n in counts.items())
            for source, counts in about["splits"][split].items()
        )
        summary.append(f"{split}: {len(masks.splits[split].data.labels):,} faces ({shown})")
    copies = sum(sum(counts.values()) for counts in about["copies"].values())
    if copies:
        summary[0] += f", {copies:,} of them augmented copies of the smaller class"
    if about["too_small"]:
        summary.append(f"{about['too_small']:,} faces were smaller than min_side and left out")
    if about["problems"]:
        where = masks.folder / dataset.PROBLEMS
        summary.append(f"{_problems(about['problems'])} in the files of the data: see {where}")
    if about["near_duplicates"]:
        where = masks.folder / dataset.NEAR
        summary.append(
            f"{about['near_duplicates']:,} pairs of photographs look alike across splits: {where}"
        )
    return summary


def caption(masks: dataset.Masks) -> str:
    """One short line for a figure or a table: no path of a machine."""
    about = masks.about
    usable: Mapping[str, Mapping[str, int]] = about["usable"]
    counts = {split: len(faces.data.labels) for split, faces in masks.splits.items()}
    copies = int(masks.splits["train"].synthetic.sum())
    total = sum(sum(labels.values()) for labels in usable.values())
    kind = "DRAWN FACES, no photographs" if _is_drawn(about) else "Face masks"
    return (
        f"{kind}, {total:,} faces ({', '.join(usable)}): {counts['train'] - copies:,} train + "
        f"{copies:,} copies / {counts['val']:,} val / {counts['test']:,} test, "
        f"sha256 {about['sha256'][:8]}"
    )


def describe_data(masks: dataset.Masks) -> dict[str, Any]:
    """The entry "data" of versions.json and summary.json."""
    about = {key: value for key, value in masks.about.items() if key not in ("request", "sha256")}
    request = masks.about["request"]
    if "folders" in request["directories"]:  # whose faces the detector has found
        about["detector"] = {**request["detector"], "weights_sha256": mtcnn_weights.SHA256}
    return {"caption": caption(masks), "sha256": masks.about["sha256"], "about": about}


def _problems(count: int) -> str:
    return f"{count:,} problem{'' if count == 1 else 's'}"


def _is_drawn(about: Mapping[str, Any]) -> bool:
    directories = about["request"]["directories"].values()
    return all((Path(directory).parent / "drawn.json").exists() for directory in directories)


def _draw(corpus: Path, photos: int) -> None:
    """Draw the photographs unless drawn.json, which is written last, shows that they are there."""
    mark = corpus / "drawn.json"
    content = json.dumps({"photos": photos, "seed": _DRAWN_SEED}) + "\n"
    if mark.exists() and mark.read_bytes() == content.encode():
        return
    corpus.mkdir(parents=True, exist_ok=True)
    progress.say(f"drawing {photos:,} photographs in {corpus}")
    _ = drawing.write(corpus, photos=photos, seed=_DRAWN_SEED)
    _ = mark.write_text(content)


def _finder(min_face_px: float) -> ingest.FindFaces:
    """The face detector as a function of images that returns boxes, see `ingest.FindFaces`."""
    detector = detection.make_detector(min_face_px=min_face_px)

    def find(images: Any) -> list[np.ndarray]:
        return [detections.boxes for detections in detector(images)]

    return find
