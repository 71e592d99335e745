"""The face data of a config: detected, cropped, split, and summarised in words."""

import functools
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.data.cache import cache_folder
from research.faces import annotations, dataset, detectors, drawing, ingest, splits
from research.runtime import distributed, files, progress
from research.structs import Config, UserError

_DRAWN_SEED = 0
_LABELS = 10  # that are listed, the commonest
_MAP = (
    "say what they mean with --config.data.labels=LABEL=CLASS,... where CLASS is "
    f"{', '.join(dataset.LABELS)} or nothing, to leave the label out"
)
_KINDS = 5  # of problems that are shown
WHERE = (
    "name a directory with --config.data.dir=..., which says what it finds, or at least one of "
    "--config.data.voc=... (images/ and annotations/*.xml), --config.data.json=... (images/ and "
    "annotations/*.json) and --config.data.folders=... (folders with_mask/ and without_mask/). "
    "Data sets: kaggle.com/andrewmvd/face-mask-detection, humansintheloop.org (Medical Mask "
    "Dataset, on request), kaggle.com/prithwirajmitra/covid-face-mask-detection-dataset. "
    "configs/masks.py:smoke draws faces of its own"
)


def check(config: Config) -> None:
    """Raise UserError naming the first key under `data` whose value cannot be used."""
    data = config.data
    given = [key for key in ("dir", *annotations.LAYOUTS) if data[key]]
    if data.dir and len(given) > 1:
        raise UserError(f"data.dir: {data.dir}, and data.{given[1]} as well; expected one of them")
    if not given and not data.drawn:
        raise UserError(f"data: {WHERE}")
    if given and data.drawn:
        raise UserError(
            f"data.drawn: {data.drawn} drawn photographs, and data.{given[0]} as well; "
            "expected one of them: set data.drawn to 0, or leave the directory out"
        )
    if data.drawn and data.drawn < drawing.FEWEST:
        raise UserError(f"data.drawn: {data.drawn} is below {drawing.FEWEST}")
    for key in given:
        if not os.path.isdir(files.locate(data[key])):
            raise UserError(f"data.{key}: {data[key]} is no directory")
    if data.exif not in ("displayed", "stored"):
        raise UserError(f"data.exif: {data.exif!r} is not one of displayed, stored")
    _ = _labels(data.labels)
    _ = detectors.kind(config.detector)


def load(config: Config, workdir: Path) -> dataset.Masks:
    """The faces of `config`, read from the cache or prepared now.

    Drawn photographs and the faces cut from them lie in `workdir`, or in the cache of this machine
    if that is in an object store.  The first process prepares them.
    Raises what `dataset.prepare` does, and UserError for problems in the files if config.strict, or
    if there is only one class.
    """
    data = config.data
    directories = {layout: data[layout] for layout in annotations.LAYOUTS if data[layout]}
    if data.dir:
        directories = annotations.detect(files.locate(data.dir))
        for layout, directory in directories.items():
            progress.say(f"data.dir: found data.{layout} in {directory}")
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
        detector=_detector_settings(config),
        reading=annotations.Settings(_labels(data.labels), data.exif == "stored", data.whole),
    )
    find = functools.partial(_finder, config.detector, data.min_face_px)
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
        kinds = about["kinds"]
        summary += [f"  {k['count']:,} of: {k['what']}; first {k['first']}" for k in kinds[:_KINDS]]
        summary += [f"  and {len(kinds) - _KINDS:,} kinds more"] if len(kinds) > _KINDS else []
    for word, remedy in (("left_out", ""), ("unknown", f"; {_MAP}")):
        labels = sum((Counter(counts) for counts in about[word].values()), Counter[str]())
        listed = ", ".join(f"{count:,} {label!r}" for label, count in labels.most_common(_LABELS))
        if listed:
            more = f" and {len(labels) - _LABELS:,} labels more" if len(labels) > _LABELS else ""
            summary.append(f"labels {word.replace('_', ' ')}: {listed}{more}{remedy}")
    if 2 * about["filling"] > sum(about["usable"].get("folders", {}).values()):
        summary.append(
            "most faces of data.folders fill more than half of their pictures: if these are faces "
            "that were cut out, --config.data.whole=True takes them as they are, all of them"
        )
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
    """The entry "data" of versions.json and summary.json: no path of a machine."""
    hidden = ("request", "sha256", "kinds")
    about = {key: value for key, value in masks.about.items() if key not in hidden}
    request = masks.about["request"]
    if "folders" in request["directories"]:  # whose faces the detector has found
        settings = {"name": detectors.FIRST, **request["detector"]}
        sha256 = detectors.kind(settings["name"]).sha256
        about["detector"] = {**settings, "weights_sha256": sha256}
    return {"caption": caption(masks), "sha256": masks.about["sha256"], "about": about}


def finders(config: Config) -> dict[str, ingest.FindFaces]:
    """{name: face detector} of all detectors whose weights are there; the others are told."""
    named: dict[str, ingest.FindFaces] = {}
    for name in detectors.KINDS:
        try:
            named[name] = _finder(name, config.data.min_face_px)
        except UserError as error:
            progress.say(f"end to end without {name}: {error}")
    return named


def _labels(given: str) -> dict[str, str]:
    """{label: its class, or ""} of "face_nask=with_mask,hat=".  Raises UserError naming the key."""
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in given.split(","))):
        label, is_mapped, meaning = (text.strip() for text in part.rpartition("="))
        if not label or not is_mapped or meaning not in ("", *dataset.LABELS):
            raise UserError(
                f"data.labels: {part!r} is not LABEL=CLASS with one of {', '.join(dataset.LABELS)} "
                "or nothing, which leaves the label out"
            )
        labels[label] = meaning
    return labels


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


def _detector_settings(config: Config) -> dict[str, float | str]:
    """What a data set is told apart by; the first detector has no name, as when it was alone."""
    settings: dict[str, float | str] = {"min_face_px": config.data.min_face_px}
    return settings if config.detector == detectors.FIRST else settings | {"name": config.detector}


def _finder(name: str, min_face_px: float) -> ingest.FindFaces:
    """A face detector as a function of images that returns boxes, see `ingest.FindFaces`."""
    detector = detectors.kind(name).make(min_face_px)

    def find(images: Any) -> list[np.ndarray]:
        return [detections.boxes for detections in detector(images)]

    return find
