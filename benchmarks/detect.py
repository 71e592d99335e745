"""Faces in pictures: seconds per picture against `mtcnn` on TensorFlow and facenet-pytorch.

    python -m benchmarks.detect --peer_python=.venv-peers/bin/python

All have the same weights and their own settings otherwise, and look for faces from 20 pixels on.
Every contestant is a process of its own; they take turns, a picture or a folder each, and each
first does everything once, which does not count (compilation). Pictures are drawn
(`benchmarks.scenes`) and in memory: nothing is read or decoded.
"""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import measure, scenes
from research.runtime import commands

_FLAGS = measure.make_flags("detect", data=False, peers=True)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 7, "Turns of everything that count.", lower_bound=1, flag_values=_FLAGS
)
_WORKS = flags.DEFINE_list("works", list(scenes.WORKS), "What is measured.", flag_values=_FLAGS)

LABELS = {"ours": "ours", "mtcnn": "mtcnn (TensorFlow)", "facenet": "facenet-pytorch"}
_MODULES = {
    "ours": "benchmarks.ours_detect",
    "mtcnn": "benchmarks.peer_mtcnn",
    "facenet": "benchmarks.peer_facenet",
}
_PACKAGES = {
    "mtcnn": ("mtcnn", "tensorflow", "lz4", "joblib"),
    "facenet": ("facenet_pytorch", "torch"),
}


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    names = [name for name in LABELS if name not in results["missing"]]
    rows: list[list[str]] = []
    for key, work in results["works"].items():
        seconds = work["seconds"]
        theirs = [seconds.get(name) for name in names[1:]]
        scale = 1000 / work["pictures"]
        rows.append(
            measure.against(scenes.WORKS[key].label, seconds["ours"], theirs, digits=1, scale=scale)
        )
    last = results["works"].values()
    drawn = sum(work["drawn"] for work in last)
    found = [
        f"{LABELS[name]} {sum(work['faces'][name] for work in last):,} of them in "
        f"{sum(work['boxes'][name] for work in last):,} boxes"
        for name in names
    ]
    first = [f"{LABELS[name]} {results['first'][name]:.1f}" for name in names]
    return measure.markdown(
        ["ms per picture", *(LABELS[name] for name in names)],
        rows,
        f"Medians of {results['rounds']} turns, taken one after the other; in brackets ours / "
        "theirs, the median of the ratios of every turn. Where pictures come one by one they do so "
        "for everybody, but for ours in the last row, which takes pictures of all sizes in one "
        "call, as the others do not (facenet-pytorch) or only by filling them up (mtcnn).",
        f"Of {drawn:,} drawn faces, found: {'; '.join(found)}.",
        f"Seconds until everything was done once, compilation included: {'; '.join(first)}.",
        f"facenet-pytorch's boxes were suppressed by {results['suppression']}."
        if "facenet" in names
        else "",
        measure.caption(results, LABELS),
    )


def compete(works: Sequence[str], missing: Sequence[str], rounds: int) -> dict[str, Any]:
    """Every contestant's turns.  Exits with one line if they see different pictures."""
    names = [name for name in LABELS if name not in missing]
    found: dict[str, Any] = {
        key: {
            "pictures": len(scenes.WORKS[key].sizes),
            "drawn": scenes.FACES * len(scenes.WORKS[key].sizes),
            "seconds": {name: [] for name in names},
            "faces": {},
            "boxes": {},
        }
        for key in works
    }
    first = dict.fromkeys(names, 0.0)
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(measure.Paced(LABELS[name], command(name, works)))
            for name in names
        }
        facts = {name: contestant.facts for name, contestant in contestants.items()}
        for turn in range(rounds + 1):
            for key in works:
                answers: dict[str, Any] = {n: c.turn() for n, c in contestants.items()}
                if len({answer["pictures"] for answer in answers.values()}) > 1:
                    sys.exit(f"error: {key}: contestants have drawn different pictures")
                for name, answer in answers.items():
                    found[key]["faces"][name] = answer["faces"]
                    found[key]["boxes"][name] = answer["boxes"]
                    if turn:
                        found[key]["seconds"][name].append(answer["seconds"])
                    else:
                        first[name] += answer["seconds"]
            print(f"round {turn} of {rounds}: done", file=sys.stderr, flush=True)
    facts["ours"]["data"] = "drawn pictures"
    suppression = facts["facenet"]["suppression"] if "facenet" in names else ""
    return {
        **measure.describe(),
        "missing": list(missing),
        "rounds": rounds,
        **measure.summarize(facts),
        "suppression": suppression,
        "first": first,
        "works": found,
    }


def command(name: str, works: Sequence[str]) -> list[str]:
    """The command line of a contestant."""
    python = sys.executable if name == "ours" else _FLAGS.peer_python
    return [python, "-m", _MODULES[name], f"--works={json.dumps(list(works))}"]


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    unknown = [name for name in _WORKS.value if name not in scenes.WORKS]
    if unknown or not _WORKS.value:
        commands.fail(f"--works: expected some of {', '.join(scenes.WORKS)}")
    missing, lacking = measure.find_packages(_FLAGS.peer_python, _PACKAGES)
    if len(missing) == len(_PACKAGES):
        commands.fail(
            f"--peer_python: {_FLAGS.peer_python} lacks {', '.join(lacking)}; "
            "see benchmarks/README.md"
        )
    measure.finish(compete(_WORKS.value, missing, _ROUNDS.value), output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
