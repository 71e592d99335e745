"""Faces that people annotated: how many are found, by class and by size, with how many false boxes.

    python -m benchmarks.recall --data_dir=DIR --peer_python=.venv-peers/bin/python

DIR holds voc/ (photographs with a box for every face) and folders/ (one person a photograph, no
boxes), as configs/masks.py reads them. Boxes are matched to faces one to one, the best scores
first, where the two share 0.4 of their union; what takes no face is a false box, and so is every
further box of a photograph of one person. Every detector has its own settings; on the photographs
with boxes it is also judged at the higher threshold of its last net at which it has no more false
boxes than the one with the fewest.

Every contestant is a process of its own, and they take turns, a photograph each, decoded before.
"""

import contextlib
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import measure
from research.faces import annotations, matching
from research.runtime import commands
from research.structs import UserError

_FLAGS = measure.make_flags("recall", peers=True)
_FLAGS["data_dir"].help = "Directory of voc/ and folders/."

LABELS = {
    "centerface": "ours, CenterFace",
    "mtcnn": "ours, MTCNN",
    "deface": "deface (ONNX Runtime)",
    "facenet": "facenet-pytorch",
}
_PACKAGES = {
    "deface": ("deface", "cv2", "onnx", "onnxruntime"),
    "facenet": ("facenet_pytorch", "torch"),
}
_SIZES = {"below 20 px": (0, 20), "20 to 39 px": (20, 40), "from 40 px": (40, np.inf)}
_TURNS = 9  # of the drawn picture that count
_TIMES = flags.DEFINE_bool(
    *("times", True, "Show the times; they need a machine with nothing else to do."),
    flag_values=_FLAGS,
)


class Faces(NamedTuple):
    """All annotated faces: photograph [F], boxes [F, 4], class [F]."""

    photo: np.ndarray
    boxes: np.ndarray
    label: np.ndarray


def match(
    boxes: np.ndarray, scores: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """Of one photograph: the score of the box that takes each face [F], -inf for none, and those of
    the boxes that take none.

    boxes: [n, 4].  scores: [n].  faces: [F, 4].  A worse box changes nothing for a better one.
    """
    order = np.argsort(-scores, kind="stable")
    found_by = matching.match(boxes[order], faces)
    best_first = scores[order]
    taken = np.full(len(faces), -np.inf)
    taken[found_by >= 0] = best_first[found_by[found_by >= 0]]
    false = np.delete(best_first, found_by[found_by >= 0]).tolist()
    return taken, false


def count(
    faces: Faces, taken: np.ndarray, false: Sequence[float], most: int = -1
) -> dict[str, Any]:
    """Found faces, in all, by class and by size, and false boxes.

    taken, false: see `match`, of all photographs.  most: false boxes, of which the best are left by
    a higher threshold; -1 for all.
    """
    above = -np.inf if most < 0 or len(false) <= most else sorted(false, reverse=True)[most]
    found = taken > above
    side = (faces.boxes[:, 2:] - faces.boxes[:, :2]).min(axis=1)
    groups = {name: faces.label == name for name in np.unique(faces.label).tolist()}
    groups |= {name: (side >= low) & (side < high) for name, (low, high) in _SIZES.items()}
    return {
        "found": int(found.sum()),
        "false": sum(score > above for score in false),
        "groups": {name: int(found[members].sum()) for name, members in groups.items()},
    }


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    annotated, persons = results["annotated"], results["persons"]
    groups, times = annotated["groups"], results["detectors"]["centerface"]["seconds"]
    rows: list[list[str]] = []
    for name, each in results["detectors"].items():
        alone = each["persons"]
        for part in ("default", "equal"):
            counts = each[part]
            cells = [
                f"{n:,}" for n in (counts["found"], counts["false"], *counts["groups"].values())
            ]
            if part == "default":
                cells += [f"{alone[label]:,}" for label in persons] + [f"{alone['extra']:,}"]
                cells += [f"{1000 * statistics.median(s):.0f}" for s in each["seconds"].values()]
            else:
                cells += ["-"] * (len(persons) + 1 + len(times))
            rows.append([LABELS[name] if part == "default" else "- at equal false boxes", *cells])
    head = ["", f"found of {annotated['found']:,}", "false"]
    head += [f"{name} {n:,}" for name, n in groups.items()]
    head += [f"persons {name} {n:,}" for name, n in persons.items()]
    return measure.markdown(
        [*head, "extra", *(f"ms, {what}" for what in times)],
        rows,
        f"Faces of {results['photographs']:,} photographs, and {sum(persons.values()):,} of one "
        "person each; sizes are those of the shorter side. Equal: at the threshold of the last net "
        f"that gives at most {results['equal']} false boxes."
        + (" Times are medians, 512 x 512 those of a drawn picture." if times else ""),
        measure.caption(results, LABELS),
    )


def read(directory: Path) -> tuple[list[str], Faces, dict[str, str]]:
    """Photographs with boxes, their faces, and {photograph of one person: its class}.

    Exits with one line if they cannot be read.
    """
    try:
        crowds = annotations.read(directory / "voc", "voc").faces
        alone = annotations.read(directory / "folders", "folders").faces
    except UserError as error:
        commands.fail(f"--data_dir: {error}")
    photos = sorted({face.photograph.path for face in crowds})
    boxes = [face.box for face in crowds if face.box]
    faces = Faces(
        np.array([photos.index(face.photograph.path) for face in crowds]),
        np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], np.float64),
        np.array([face.label for face in crowds]),
    )
    return photos, faces, {face.photograph.path: face.label for face in alone}


def compete(directory: Path, missing: Sequence[str]) -> dict[str, Any]:
    """Every contestant's answers, and what they are worth."""
    photos, faces, alone = read(directory)
    names = [name for name in LABELS if name not in missing]
    requests = [*photos, *alone, *[""] * (_TURNS + 1)]
    answers: dict[str, list[Any]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(measure.Paced(LABELS[name], command(name))) for name in names
        }
        facts = {name: contestant.facts for name, contestant in contestants.items()}
        for number, request in enumerate(requests):
            for name, contestant in contestants.items():
                answers[name].append(contestant.turn(request))
            if number % 100 == 0:
                print(f"{number} of {len(requests)} done", file=sys.stderr, flush=True)
    n, end = len(photos), len(photos) + len(alone)
    crowds = {name: judge(faces, each[:n]) for name, each in answers.items()}
    equal = min(len(false) for _, false in crowds.values())
    classes = sorted(set(alone.values()))
    judged: dict[str, Any] = {}
    for name, each in answers.items():
        counts = np.array([len(answer["scores"]) for answer in each[n:end]])
        found = Counter(np.array(list(alone.values()))[counts > 0].tolist())
        seconds = [round(answer["seconds"], 5) for answer in each]
        judged[name] = {
            "default": count(faces, *crowds[name]),
            "equal": count(faces, *crowds[name], most=equal),
            "persons": {label: found[label] for label in classes}
            | {"extra": int(np.maximum(counts - 1, 0).sum())},
            "seconds": {"a photograph": seconds[:n], "512 x 512": seconds[end + 1 :]}
            if _TIMES.value
            else {},
        }
    everything = count(faces, np.zeros(len(faces.label)), [])
    return {
        **measure.describe(),
        "missing": list(missing),
        "versions": {k: v for fact in facts.values() for k, v in fact["versions"].items()},
        "threads": {name: fact["threads"] for name, fact in facts.items() if "threads" in fact},
        "data": "parts of two published sets",
        "photographs": n,
        "annotated": everything,
        "persons": {label: list(alone.values()).count(label) for label in classes},
        "equal": equal,
        "detectors": judged,
    }


def judge(faces: Faces, answers: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, list[float]]:
    """`match` of all photographs."""
    taken, false = np.full(len(faces.label), -np.inf), list[float]()
    for photo, answer in enumerate(answers):
        own = faces.photo == photo
        boxes = np.array(answer["boxes"], np.float64).reshape(-1, 4)
        taken[own], more = match(boxes, np.array(answer["scores"], np.float64), faces.boxes[own])
        false += more
    return taken, false


def command(name: str) -> list[str]:
    """The command line of a contestant."""
    if name in _PACKAGES:
        return [_FLAGS.peer_python, "-m", f"benchmarks.peer_{name}"]
    return [sys.executable, "-m", "benchmarks.ours_detect", name]


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    missing = measure.find_packages(_FLAGS.peer_python, _PACKAGES)[0]
    measure.finish(compete(Path(_FLAGS.data_dir), missing), output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
