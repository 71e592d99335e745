"""The board: how small the noise of each attack is at a number of gradients, on bytes.

    python -m research.main --config=configs/cnn.py:mnist --workdir=RUN
    python -m benchmarks.board --data_dir=DIR --run=RUN --peer_python=.venv-peers/bin/python

The net is that of `benchmarks.attacks`, and so is the judge; the images are the first correctly
classified ones from --first on, which no setting was chosen on: every image towards each of the
nine other classes, and away from its own. Contestants take their turns one after the other, one
setting a turn.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import attacks, cnn, contest, judge, measure
from research.runtime import commands

_FLAGS = measure.make_flags("board", peers=True)
_RUN = flags.DEFINE_string(
    "run", "", "Work directory of a run of configs/cnn.py:mnist.", flag_values=_FLAGS
)
_FIRST = flags.DEFINE_integer("first", 5000, "First test image.", flag_values=_FLAGS)
_IMAGES = flags.DEFINE_integer("images", 50, "Attacked images.", lower_bound=1, flag_values=_FLAGS)
_STEPS = flags.DEFINE_integer(
    "steps", 200, "Most steps of a setting; those with more are left out.", flag_values=_FLAGS
)

# By contestant: its module, and the settings of its turns; ours after the first success.
CONTESTANTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "lagrangian": (
        "ours_attack",
        [
            {"method": "lagrangian", "steps": steps, "polish": polish}
            for steps, polish in ((15, 0), (25, 0), (90, 8), (190, 8))
        ],
    ),
    "adv-lib": (
        "peer_advlib",
        [
            *({"attack": "ddn", "steps": steps} for steps in (30, 100, 200)),
            *({"attack": "alma", "num_steps": steps} for steps in (100, 200)),
        ],
    ),
    "minimal": (
        "ours_attack",
        [
            {"method": "minimal", "steps": steps, "polish": polish}
            for steps, polish in ((25, 0), (90, 8), (190, 8))
        ],
    ),
}


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    for one in results["rows"]:
        words = ", ".join(str(value) for value in one["setting"].values())
        norms = [
            "-" if not one[kind] else " / ".join(f"{value:.3f}" for value in one[kind])
            for kind in ("targeted", "own")
        ]
        reached = [f"{one['reached']:.1%}", f"{one['left']:.1%}"]
        cost = [f"{one['gradients']:.1f}", f"{one['seconds']:.0f}"]
        rows.append([f"{one['name']}: {words}", *cost, reached[0], norms[0], reached[1], norms[1]])
    head = [
        *("attack, setting", "gradients a cell", "seconds", "targets reached"),
        *("L2: median / mean / 90 %", "own class left", "L2 of these"),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    note = (
        f"{results['images']} correctly classified test images from number {results['first']} on, "
        "each toward nine classes and away from its own; judged on the PNG by a forward pass in "
        "NumPy; quantiles over all cells, a cell that is not reached counting as infinitely far "
        "away (the mean is over those reached). Seconds are of one call, with compiling. "
        "Of adv-lib the best image on bytes of all that it gave the net counts. "
        f"{results['device']}; {versions}; {results['data']}; "
        f"{results['date']}."
    )
    return measure.markdown(head, rows, note)


def prepare(directory: Path) -> dict[str, Any]:
    """Write weights and sample into `directory`; returns what our side says of the run."""
    options = {"run": _RUN.value, "data_dir": _FLAGS.data_dir, "directory": directory}
    argv = [sys.executable, "-m", "benchmarks.ours_attack", "--export"]
    exported = measure.run([*argv, *(f"--{key}={value}" for key, value in options.items())])
    if exported.returncode:
        commands.fail(measure.last_line(exported.errors).removeprefix("error: "))
    with np.load(directory / "weights.npz") as weights, np.load(directory / "digits.npz") as digits:
        images, labels = digits["images"][_FIRST.value :], digits["labels"][_FIRST.value :]
        probes = images[: 2 * _IMAGES.value]
        reference = judge.logits(dict(weights), probes / 255)
    labels = labels[: len(probes)].astype(np.int64)
    right = np.flatnonzero(reference.argmax(axis=1) == labels)[: _IMAGES.value]
    if len(right) < _IMAGES.value:
        commands.fail(f"--images: only {len(right)} from {_FIRST.value} on are right")
    sample = contest.Sample(probes[right], labels[right], probes, reference)
    np.savez(directory / "sample.npz", **sample._asdict())
    return json.loads(exported.output)


def row_of(directory: Path, name: str, turn: int) -> dict[str, Any]:
    """Norms, shares and gradients of what a contestant made at a turn."""
    sample, weights = contest.read_attacked(directory)
    with np.load(contest.found_path(directory, name, turn)) as file:
        found = dict(file)
    verdict = judge.judge(weights, sample.images, sample.labels, found["images"])
    own = judge.own_cells(sample.labels, 10)
    row: dict[str, Any] = {"name": name, "gradients": int(found["gradients"]) / own.size}
    for kind, share, cells in (("targeted", "reached", ~own), ("own", "left", own)):
        won = verdict.success[cells]
        norms = np.sort(np.where(won, verdict.l2[cells], np.inf))
        quantiles = [float(norms[int(q * (len(norms) - 1))]) for q in (0.5, 0.9)]
        row[share] = float(won.mean())
        finite = norms[np.isfinite(norms)]
        row[kind] = [quantiles[0], float(finite.mean()), quantiles[1]] if won.any() else None
    return row


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    if not _RUN.value:
        commands.fail("--run: name the work directory of a run of configs/cnn.py:mnist")
    contest.check_digits(_FLAGS.data_dir)
    net, rows, versions = json.dumps(cnn.net_of(cnn.WORKS["gradient"])), [], {}
    with tempfile.TemporaryDirectory() as place:
        facts = prepare(Path(place))
        for name, (module, tried) in CONTESTANTS.items():
            settings = [
                one for one in tried if one.get("steps", one.get("num_steps", 0)) <= _STEPS.value
            ]
            python = sys.executable if module == "ours_attack" else _FLAGS.peer_python
            command = [python, "-m", f"benchmarks.{module}", f"--name={name}", f"--net={net}"]
            command += [f"--settings={json.dumps(settings)}", f"--directory={place}"]
            with measure.Paced(name, command) as contestant:
                if not contestant.facts["difference"] <= attacks.CLOSE:
                    commands.fail(f"{name}: logits differ by {contestant.facts['difference']:.1e}")
                versions |= contestant.facts["versions"]
                for turn, setting in enumerate(settings):
                    seconds = contestant.turn()
                    row = row_of(Path(place), name, turn)
                    rows.append({"setting": setting, "seconds": seconds, **row})
                    print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
    sizes = {"images": _IMAGES.value, "first": _FIRST.value}
    about = {**measure.describe(), **sizes, "versions": versions, "data": facts["data"]}
    measure.finish({**about, "rows": rows}, output, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
