"""From photographs to classes: which annotated faces are found, and which of those called right.

Accuracy on faces that were cut out by their annotated boxes leaves two things open: which faces a
detector finds at all, and whether a net that was trained on annotated boxes does as well on the
boxes of a detector. Here the photographs of the test faces go the way of `research.predict`, by
every detector that is installed.

A face with a box is found if a detected box is matched with it (`faces.matching.match`). Where
there is one person in a photograph and no box, the person is found if any face is, and the largest
is taken, as when the faces were cut out.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.experiments import trainer
from research.experiments.masks.evaluation import group_metrics, share_of
from research.faces import annotations, crops, dataset, ingest, matching, splits
from research.faces.annotations import Face, Photograph
from research.runtime import progress
from research.structs import PyTree
from research.training.evaluate import predict_all

_AT_ONCE, _AT_ONCE_PX = 16, 2**22  # photographs that are in memory together; one may be larger


class Cuts(NamedTuple):
    """Annotated faces, and what is cut out of their photographs.

    faces: n of them.  annotated: {place in `faces`: crop [S, S, 3] uint8}, of those with a box.
    detected: {detector: the same of those that it has found, by its boxes}.
    """

    faces: list[Face]
    annotated: dict[int, np.ndarray]
    detected: dict[str, dict[int, np.ndarray]]


def measure(
    task: trainer.Task,
    params: PyTree,
    seeds: int,
    masks: dataset.Masks,
    finders: Mapping[str, ingest.FindFaces],
    split: str,
) -> dict[str, Any]:
    """{detector: {"sources", "both_ways"}} of the photographs of a split, with params [S, ...].

    sources: {"all" or a source: {"all" or a class: {"found", and see `evaluation.share_of`}}}, of
    all annotated faces of the classes that the net knows; right is found and called right.
    both_ways: {"annotated", "detected": see `evaluation.group_metrics`} of the faces that have a
    box and were found, cut by the one box and by the other; {} if there are none.
    finders: {detector: its function}.  Returns {} for a split without faces.
    """
    names = masks.names
    faces, annotated, detected = cut(annotated_faces(masks, split), finders, masks)
    if not faces:
        return {}

    def answers(images: Mapping[int, np.ndarray], places: Sequence[int]) -> np.ndarray:
        """Logits [S, len(places), K]."""
        stacked = np.stack([images[i] for i in places])
        return predict_all(task.model, params, stacked, task.loop, seeds=seeds)

    labels = np.array([names.index(face.label) for face in faces])
    sources = np.array([face.source for face in faces])
    groups = {"all": labels >= 0} | {source: sources == source for source in annotations.LAYOUTS}
    measured: dict[str, Any] = {}
    for detector, images in detected.items():
        found = np.isin(np.arange(len(faces)), list(images))
        right = np.zeros((seeds, len(faces)), bool)
        if images:
            right[:, found] = answers(images, sorted(images)).argmax(axis=-1) == labels[found]
        both = sorted(images.keys() & annotated.keys())
        measured[detector] = {
            "sources": {
                source: {
                    name: {"found": int(found[of].sum()), **share_of(right[:, of])}
                    for name, of in [
                        ("all", group),
                        *((name, group & (labels == k)) for k, name in enumerate(names)),
                    ]
                    if of.any()
                }
                for source, group in groups.items()
                if group.any()
            },
            "both_ways": {
                way: group_metrics(answers(cuts, both), labels[both], names)
                for way, cuts in (("annotated", annotated), ("detected", images))
                if both
            },
        }
    return measured


def annotated_faces(masks: dataset.Masks, split: str) -> list[Face]:
    """All annotated faces of the classes of `masks` in the photographs of a split.

    A photograph is in no split if none of its faces could be cut out: where the detector that the
    data set was made with has found nothing, for example. As large a part of those photographs is
    taken as the split has of the others, drawn by the seed of the splits: else the faces that are
    hard to find would be left out.
    """
    request = masks.about["request"]
    reading = annotations.Settings(**request["reading"])
    faces = [
        face
        for layout, directory in request["directories"].items()
        for face in annotations.read(directory, layout, reading).faces
        if face.label in masks.names
    ]
    photos = {name: {*masks.splits[name].photos.tolist()} for name in splits.SPLITS}
    shared_out = set[str]().union(*photos.values())
    copies = annotations.duplicates(dict.fromkeys(face.photograph for face in faces))
    others = sorted({face.photograph.path for face in faces} - shared_out - copies.keys())
    order = np.random.Generator(np.random.PCG64(request["seed"])).permutation(len(others))
    part = round(len(others) * len(photos[split]) / len(shared_out))
    taken = photos[split] | {others[i] for i in order[:part]}
    return [face for face in faces if face.photograph.path in taken]


def cut(
    faces: Sequence[Face], finders: Mapping[str, ingest.FindFaces], masks: dataset.Masks
) -> Cuts:
    """Look for faces with every detector and cut them out, as the faces of `masks` are cut.

    Those of a photograph that cannot be read are left out.
    """
    settings = ingest.Cut(**masks.about["request"]["cut"])
    cut_out = functools.partial(crops.crop, margin=settings.margin, size=settings.size)
    by_photo: dict[Photograph, list[Face]] = {}
    for face in faces:
        by_photo.setdefault(face.photograph, []).append(face)
    cuts = Cuts([], {}, {detector: {} for detector in finders})
    with progress.bar(None, "looking for faces", total=len(by_photo), unit="photographs") as bar:
        for group in ingest.fitting(
            by_photo, lambda photograph: photograph.pixels, most=_AT_ONCE, most_px=_AT_ONCE_PX
        ):
            read = {each: ingest.read_photo(each.path, []) for each in group}
            images = {each: image for each, image in read.items() if isinstance(image, np.ndarray)}
            boxes_of = {name: find([*images.values()]) for name, find in finders.items()}
            for number, (photograph, image) in enumerate(images.items()):
                first, some = len(cuts.faces), by_photo[photograph]
                cuts.faces.extend(some)
                for i, face in enumerate(some):
                    if face.box is not None:
                        cuts.annotated[first + i] = cut_out(image, face.box)
                for name, boxes in boxes_of.items():
                    for i, found_by in enumerate(_found_by(boxes[number], some)):
                        if found_by >= 0:
                            box = ingest.whole_box(boxes[number][found_by], image.shape)
                            cuts.detected[name][first + i] = cut_out(image, box)
            _ = bar.update(len(group))
    return cuts


def _found_by(boxes: np.ndarray, faces: Sequence[Face]) -> list[int]:
    """The detected box of each face of a photograph, -1 for none."""
    annotated = [dataclasses.astuple(face.box) for face in faces if face.box is not None]
    if len(annotated) == len(faces):
        return matching.match(boxes, np.array(annotated)).tolist()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return [int(areas.argmax()) if len(boxes) else -1] * len(faces)
