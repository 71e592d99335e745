"""Annotation of photographs: faces are detected, classified, marked in copies and listed.

Report, Exercise 3, figures 19 and 20. Called by the command `research.predict`.

faces.jsonl     one line per face                        replaced every few seconds and at the end
config.json     that this is a run of "predict"          written at the end
versions.json   packages, device, git commit             written at the end
summary.json    counts, settings, what was not readable  written last
<photograph>    the copy with boxes, classes, chances    each in one move

Copies show the photograph upright and carry none of its metadata. A group of photographs is in
memory at a time: small ones together, large ones alone.
"""

import functools
import io
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from research.data import image_files
from research.data.provenance import DataError
from research.experiments import classifiers
from research.experiments.predict.photographs import (
    CONFIG,
    FACES,
    JPEG_ENDS,
    SUMMARY,
    VERSIONS,
    Photograph,
    find_photographs,
    open_out,
)
from research.faces import crops, detectors, ingest
from research.faces.annotations import Box, Problem
from research.figures import masks as figures
from research.runtime import files, preemption, progress, sharding
from research.storage import export, records, run_directory
from research.structs import Config, PyTree, UserError

BATCHES = (4, 32)  # faces in a call of the net: two programs, whatever is in the photographs
_AT_ONCE, _AT_ONCE_PX = 16, 2**22  # photographs that are in memory together; one may be larger
_SAVE_EVERY_S = 10.0
_QUALITY = 92  # of JPEG copies
_JPEG_SIDE = 65_500  # pixels of the longest side that a JPEG may have
_DPI = 160
_PANEL_PX = 800  # of the longer side of a panel
_MOST_LISTED = 3  # faces of a photograph that a progress line lists one by one


class Classifier(NamedTuple):
    """A net that is ready for faces.

    program: (params, faces [B, S, S, 3] uint8) -> probabilities [B, K] float32, compiled.
    labels: K names.  margin, size, min_side: how the faces were cut that it was trained on, see
    `ingest.Cut`.
    """

    program: jax.stages.Wrapped
    params: PyTree
    labels: tuple[str, ...]
    margin: float
    size: int
    min_side: int

    def __call__(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities [n, K] float32 of faces [S, S, 3] uint8, in calls of BATCHES.

        They are the softmax of the logits. Where each output is a sigmoid p of its own the logits
        are log p, so that this is p / sum p: what Keras's categorical cross-entropy makes of such
        outputs, and what the net was trained by. The two sigmoids themselves need not sum to 1.
        """
        parts = [np.zeros((0, len(self.labels)), np.float32)]
        done = 0
        while done < len(faces):
            count = BATCHES[len(faces) - done > BATCHES[1] // 2]
            batch = np.zeros((count, self.size, self.size, 3), np.uint8)
            some = faces[done : done + count]
            batch[: len(some)] = some
            parts.append(np.asarray(self.program(self.params, batch))[: len(some)])
            done += len(some)
        return np.concatenate(parts)


class FacePredictions(NamedTuple):
    """The faces of one photograph, best first, in its pixels.

    boxes: n of them.  scores: [n] float32, of the detector.  probabilities: [n, K] float32.
    """

    boxes: list[Box]
    scores: np.ndarray
    probabilities: np.ndarray


def make_classifier(exported: export.Exported) -> Classifier:
    """The net of an export.  Raises UserError if its files do not fit one another."""
    if len(exported.labels) < 2:
        raise UserError(f"{export.LABELS}: {len(exported.labels)} classes; expected two or more")
    config: Config = ConfigDict(exported.config)
    try:
        cut = config.data
        margin, size, min_side = float(cut.margin), int(cut.size), int(cut.min_side)
        model = classifiers.make_model(config, len(exported.labels))
        faces = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        expected = jax.eval_shape(model.init, jax.random.key(0), faces)["params"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{export.CONFIG}: describes no net ({' '.join(reason)}); export the net again"
        ) from None
    shapes = jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), expected)
    if shapes != jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), exported.params):
        raise UserError(
            f"{export.WEIGHTS}: its arrays are not those of the net in {export.CONFIG}; export the "
            "net again"
        )
    program = jax.jit(
        lambda params, faces: jax.nn.softmax(export.apply(model, params, faces)),
        compiler_options=sharding.compiler_options(),
    )
    return Classifier(program, exported.params, exported.labels, margin, size, min_side)


def predict_faces(
    images: Sequence[np.ndarray], find_faces: detectors.FindFaces, classifier: Classifier
) -> list[FacePredictions]:
    """Detect and classify the faces of photographs [H, W, 3] uint8."""
    detections = find_faces(images)
    boxes = [
        [ingest.whole_box(corners, image.shape) for corners in each.boxes]
        for image, each in zip(images, detections, strict=True)
    ]
    places = [(i, box) for i, some in enumerate(boxes) for box in some]
    parts = [classifier([])]
    for start in range(
        0, len(places), BATCHES[1]
    ):  # batch by batch: all crops of a crowd are large
        parts.append(
            classifier(
                [
                    crops.crop(images[i], box, margin=classifier.margin, size=classifier.size)
                    for i, box in places[start : start + BATCHES[1]]
                ]
            )
        )
    ends = np.cumsum([len(some) for some in boxes])[:-1]
    each = np.split(np.concatenate(parts), ends)
    scores = [np.clip(one.scores, 0, 1) for one in detections]
    return [FacePredictions(*one) for one in zip(boxes, scores, each, strict=True)]


def run(
    exported: export.Exported,
    given: Sequence[str],
    out: Path,
    *,
    min_face_px: float,
    detector: str,
    panels: bool = False,
    find_faces: detectors.FindFaces | None = None,
) -> dict[str, Any]:
    """Mark the faces in the photographs that `given` names, and write everything into `out`.

    min_face_px: see `make_detector` of the detectors.  detector: one of `detectors.KINDS`.
    panels: draw the figure of three panels as well.  find_faces: a detector in place of that one.
    Returns the content of summary.json.
    Raises UserError for an export, a detector or a folder that cannot be used, preemption.Stopped
    after a signal to stop; the files are whole then, and faces.jsonl holds what was done.
    """
    began = time.monotonic()
    classifier = make_classifier(exported)
    photographs, problems = find_photographs(given, out)
    kind = detectors.kind(detector)
    about_detector = {} if find_faces else {"name": detector, "weights_sha256": kind.sha256}
    find_faces = find_faces or kind.make(min_face_px)
    open_out(out)
    progress.say(
        f"{len(photographs):,} photographs; faces of at least {min_face_px:g} pixels, "
        f"{' or '.join(classifier.labels)}"
    )
    log = _Log(out, len(photographs))
    for problem in problems:
        log.add_problem(problem)
    draw = _Draw(classifier.labels, min_face_px, panels, out)
    with (
        preemption.deferred(),
        ThreadPoolExecutor(ingest.cores()) as pool,
        progress.bar(None, "marking faces", total=len(photographs), unit="photographs") as bar,
    ):
        try:
            for group in ingest.fitting(
                photographs, _pixel_count, most=_AT_ONCE, most_px=_AT_ONCE_PX
            ):
                paths = [photograph.path for photograph in group]
                remarks: list[Problem] = []
                reader = functools.partial(ingest.read_photo, remarks=remarks)
                read = dict(zip(group, pool.map(reader, paths), strict=True))
                for remark in remarks:
                    progress.say(f"{remark.file}: {remark.what}; {remark.done}")
                images = {k: v for k, v in read.items() if isinstance(v, np.ndarray)}
                predicted: list[FacePredictions] = []
                if images:
                    predicted = predict_faces(list(images.values()), find_faces, classifier)
                faces = dict(zip(images, predicted, strict=True))
                for photograph, image in read.items():
                    _ = bar.update()
                    if isinstance(image, Problem):
                        log.add_problem(image, counted=True)
                        continue
                    draw(photograph, image, faces[photograph])
                    log.add(photograph, image, faces[photograph], classifier)
                    preemption.mark_unsaved()
                    preemption.raise_if_requested()
        finally:
            log.save()
    summary = {
        **log.counts(classifier.labels),
        "net": str(exported.config["name"]) if "name" in exported.config else "",
        "origin": exported.origin,
        "min_face_px": min_face_px,
        "detector": about_detector,
        "seconds": round(time.monotonic() - began, 3),
        "device": run_directory.describe_device(),
        "out": str(out),
    }
    summary["headline"] = _headline(summary)
    config = {"experiment": "predict", "name": "predict"}
    run_directory.write_json(out / CONFIG, config)
    run_directory.write_json(out / VERSIONS, run_directory.describe_versions({}))
    run_directory.write_json(out / SUMMARY, summary)
    return summary


def _pixel_count(photograph: Photograph) -> int:
    """Pixels of a photograph; 0 if its header is damaged, which reading it reports."""
    try:
        return image_files.pixel_count(photograph.path)
    except DataError:
        return 0


def face_warnings(box: Box, image: np.ndarray, min_side: int) -> list[str]:
    """Reasons to trust the prediction of a face less; sentences without a full stop.

    min_side: of the faces that the net was trained on, in pixels of the shorter side.
    """
    height, width = image.shape[:2]
    warned: list[str] = []
    if (side := min(box.width, box.height)) < min_side:
        warned.append(f"{side} pixels on the shorter side, below the {min_side} of the training")
    if box.left == 0 or box.top == 0 or box.right == width or box.bottom == height:
        warned.append("reaches the edge of the photograph, a part of the face may be missing")
    return warned


class _Draw(NamedTuple):
    """Writes the pictures of one photograph."""

    labels: tuple[str, ...]
    min_face_px: float
    panels: bool
    out: Path

    def __call__(self, photograph: Photograph, image: np.ndarray, faces: FacePredictions) -> None:
        boxes = np.array(
            [(box.left, box.top, box.right, box.bottom) for box in faces.boxes], np.int64
        ).reshape(-1, 4)
        classes, chances = faces.probabilities.argmax(axis=1), faces.probabilities.max(axis=1)
        marked = figures.draw_annotated(image, boxes, classes, chances, self.labels)
        _write_picture(self.out / photograph.copy, marked)
        if not self.panels:
            return
        image, boxes = _shrunk(image, boxes)  # so that the texts can be read in small panels
        detected = figures.draw_detected(image, boxes, faces.scores)
        marked = figures.draw_annotated(image, boxes, classes, chances, self.labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of letters that the font does not have
            stream = io.BytesIO()
            figures.draw_three_panels(
                image,
                detected,
                marked,
                title=Path(photograph.path).name.replace("$", r"\$"),
                caption=f"the photograph named above, faces found: {len(boxes)}, of at least "
                f"{self.min_face_px:g} pixels.",
            ).savefig(stream, format="png", dpi=_DPI)
        files.replace(self.out / photograph.panels, stream.getvalue())


class _Log:
    """The results so far, in memory and in faces.jsonl, with a progress line per photograph."""

    def __init__(self, out: Path, total: int) -> None:
        self._out, self._total, self._done = out, total, 0
        self._rows: list[dict[str, Any]] = []
        self._classes: Counter[str] = Counter()
        self._problems: list[Problem] = []
        self._read = self._faceless = self._warned = 0
        self.save()

    def add(
        self,
        photograph: Photograph,
        image: np.ndarray,
        faces: FacePredictions,
        classifier: Classifier,
    ) -> None:
        """Record the faces of a photograph whose copy is written."""
        names = [classifier.labels[k] for k in faces.probabilities.argmax(axis=1)]
        for i, (box, score) in enumerate(zip(faces.boxes, faces.scores, strict=True)):
            warned = face_warnings(box, image, classifier.min_side)
            each = [round(float(chance), 6) for chance in faces.probabilities[i]]
            row = {
                "photo": photograph.path,
                "annotated": photograph.copy,
                "box": [box.left, box.top, box.right, box.bottom],
                "score": round(float(score), 6),
                "class": names[i],
                "probabilities": dict(zip(classifier.labels, each, strict=True)),
                "warnings": warned,
            }
            self._rows.append(row)
            self._warned += bool(warned)
        self._classes.update(names)
        self._read += 1
        self._faceless += not names
        self._say(f"{photograph.path}: {_faces_in_words(names, faces.probabilities.max(axis=1))}")
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save()

    def add_problem(self, problem: Problem, *, counted: bool = False) -> None:
        """Record a file that cannot be read.  counted: whether it is one of the photographs."""
        self._problems.append(problem)
        line = f"{problem.file}: {problem.what}; {problem.done}"
        self._say(line) if counted else progress.say(line)

    def save(self) -> None:
        """Replace faces.jsonl by all rows so far."""
        files.replace(self._out / FACES, records.lines(self._rows)[0])
        self._saved = time.monotonic()

    def counts(self, labels: Sequence[str]) -> dict[str, Any]:
        """The counts in summary.json."""
        return {
            "photographs": self._read,
            "faces": len(self._rows),
            "classes": {label: self._classes[label] for label in labels},
            "without_faces": self._faceless,
            "with_warnings": self._warned,
            "unreadable": [{"file": p.file, "what": p.what} for p in self._problems],
        }

    def _say(self, line: str) -> None:
        self._done += 1
        progress.say(f"{self._done}/{self._total} {line}" if self._total > 1 else line)


def _write_picture(path: Path, image: np.ndarray) -> None:
    """A JPEG or a PNG, by its name, in one move."""
    stream = io.BytesIO()
    if path.suffix.lower() in JPEG_ENDS and max(image.shape) <= _JPEG_SIDE:
        Image.fromarray(image).save(stream, "JPEG", quality=_QUALITY)
    else:
        Image.fromarray(image).save(stream, "PNG", compress_level=1)
    files.make_folder(path.parent)
    files.replace(path, stream.getvalue())


def _shrunk(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A large photograph and its boxes [n, 4], made smaller."""
    height, width = image.shape[:2]
    factor = min(1.0, _PANEL_PX / max(height, width))
    if factor == 1.0:
        return image, boxes
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small), boxes * np.tile(np.array(size) / (width, height), 2)


def _faces_in_words(names: Sequence[str], chances: np.ndarray) -> str:
    if not names:
        return "no face found"
    count = f"{len(names):,} face{'s' if len(names) > 1 else ''}"
    if len(names) <= _MOST_LISTED:
        parts = [f"{name} {chance:.0%}" for name, chance in zip(names, chances, strict=True)]
    else:
        parts = [f"{n:,} {name}" for name, n in sorted(Counter(names).items())]
    return f"{count}: {', '.join(parts)}"


def _headline(summary: Mapping[str, Any]) -> str:
    classes = ", ".join(f"{n:,} {name}" for name, n in summary["classes"].items())
    ends = ["" if summary[key] == 1 else "s" for key in ("faces", "photographs")]
    headline = f"{summary['faces']:,} face{ends[0]} ({classes}) in "
    headline += f"{summary['photographs']:,} photograph{ends[1]}"
    if summary["unreadable"]:
        headline += f", {len(summary['unreadable']):,} could not be read"
    return headline
