"""What would have saved a net that does not train: other starts and other steps, with seeds.

    python -m benchmarks.counterfactuals --data_dir=DIR

Each row is a command of the depth study with the keys that the table names, and runs in a directory
of its own: the same command again goes on where it stopped, and takes what is finished as it is.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import measure
from configs import mlp
from research.data import datasets
from research.experiments import depth
from research.storage import run_directory
from research.theory import depth_scales, mean_field

_FLAGS = measure.make_flags("counterfactuals")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Of each net.", lower_bound=1, flag_values=_FLAGS)
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Of each net.", lower_bound=1, flag_values=_FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/counterfactuals", "Where the runs lie.", flag_values=_FLAGS
)

GOAL = 0.95  # accuracy that would have saved a net

_TWICE_MENDED = {"shift": True, "residual": True}
# {net: {what is changed, in words: keys of configs/mlp.py}}
TRIALS: dict[str, dict[str, dict[str, Any]]] = {
    "relu-40": {
        "as the report has it": {},
        "He": {"init": "he"},
        "orthogonal, gain sqrt 2": {"init": "orthogonal", "gain": 1.4142},
        "LSUV": {"init": "lsuv"},
        "residual": {"residual": True},
        "residual, learning rate x 3": {"residual": True, "learning_rate": 0.03},
        "residual, learning rate x 5": {"residual": True, "learning_rate": 0.05},
        "residual, orthogonal, learning rate x 3": {
            **{"residual": True, "init": "orthogonal"},
            "learning_rate": 0.03,
        },
        "residual, He, learning rate x 3": {"residual": True, "init": "he", "learning_rate": 0.03},
        "learning rate x 10": {"learning_rate": 0.1},
        "He, learning rate x 10": {"init": "he", "learning_rate": 0.1},
        "Adam": {"optimizer": "adam", "learning_rate": 0.001},
    },
    "sigmoid-20": {
        "as the report has it": {},
        "gain 4": {"gain": 4.0},
        "learning rate x 16": {"learning_rate": 0.16},
        "Adam": {"optimizer": "adam", "learning_rate": 0.001},
        "residual": {"residual": True},
        "shifted": {"shift": True},
        "shifted, learning rate x 16": {"shift": True, "learning_rate": 0.16},
        "shifted, residual, learning rate x 8": {**_TWICE_MENDED, "learning_rate": 0.08},
        "shifted, residual, learning rate x 16": {**_TWICE_MENDED, "learning_rate": 0.16},
    },
    "sigmoid-40": {
        "as the report has it": {},
        "shifted, learning rate x 16": {"shift": True, "learning_rate": 0.16},
        "shifted, residual, learning rate x 8": {**_TWICE_MENDED, "learning_rate": 0.08},
        "shifted, residual, learning rate x 16": {**_TWICE_MENDED, "learning_rate": 0.16},
    },
}

_NETS = flags.DEFINE_multi_enum(
    "net", list(TRIALS), list(TRIALS), "Nets to try.", flag_values=_FLAGS
)


def verdict(scales: float, accuracy: list[float]) -> str:
    """Theory's answer at the start against the outcome: accuracy [S] at the end, [] of no number.

    scales: depth over depth scale.
    """
    arrives = scales <= depth_scales.LIMIT
    trained = sum(value >= depth_scales.TRAINED for value in accuracy)
    if not accuracy:
        fate = "its loss was no number"
    elif 0 < trained < len(accuracy):
        fate = f"{trained} of {len(accuracy)} train"
    else:
        fate = "trains" if trained else "does not train"
    if arrives:
        agrees = bool(accuracy) and trained == len(accuracy)
        return f"the signal arrives: {fate}{'' if agrees else '; the start is not what stops it'}"
    return f"the signal is lost: {fate}{'; the steps mend the start' if trained else ''}"


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    for trial in results["trials"]:
        accuracy = [f"{100 * value:.1f}" for value in trial["accuracy"]]
        keys = " ".join(f"{key}={value}" for key, value in trial["keys"].items())
        rows.append(
            [
                trial["net"],
                f"{trial['change']}{f': `{keys}`' if keys else ''}",
                f"{trial['scales']:.1f}",
                ", ".join(accuracy) or trial["error"],
                f"{trial['reached']}" if trial["reached"] else "-",
                verdict(trial["scales"], trial["accuracy"]),
            ]
        )
    return measure.markdown(
        [
            *("net", "what is changed", "depth in scales", "test accuracy (%), every seed"),
            *("95 % from epoch", "at the start, and after the last epoch"),
        ],
        rows,
        f"{results['epochs']} epochs, {results['seeds']} seeds. Depth in scales: hidden layers "
        "over those in which the mean square of the signal falls or grows by a factor e, before "
        f"the first step; up to "
        f"{depth_scales.LIMIT:g} it arrives. 95 % from epoch: the first after which every seed has "
        "it on the test images. A row is a run of its own, as "
        "`python -m research.main --config=configs/mlp.py:relu-40 --config.init=he`.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    results: dict[str, Any] = {
        **measure.describe(),
        **{"seeds": _SEEDS.value, "epochs": _EPOCHS.value, "trials": []},
    }
    trials = [
        (net, change, keys)
        for net, changes in TRIALS.items()
        for change, keys in changes.items()
        if net in _NETS.value
    ]
    for number, (net, change, keys) in enumerate(trials, 1):
        print(f"{number} of {len(trials)}: {net}, {change}", file=sys.stderr, flush=True)
        name = ",".join([net, *(f"{key}={value}" for key, value in keys.items())])
        workdir = Path(_WORKDIR.value).absolute() / name
        done = measure.run(
            [
                *(sys.executable, "-m", "research.main", f"--config=configs/mlp.py:{net}"),
                *(f"--config.{key}={value}" for key, value in keys.items()),
                *(f"--config.seeds={_SEEDS.value}", f"--config.epochs={_EPOCHS.value}"),
                *("--config.probe=False", f"--config.data.dir={_FLAGS.data_dir}"),
                f"--workdir={workdir}",
            ]
        )
        error = measure.last_line(done.errors)
        diverged = re.search(r"the loss of seed .*? is not finite at step .*?\)", error)
        if done.returncode and not diverged:
            print(error, file=sys.stderr)
            return done.returncode
        settings, records = mlp.get_config(net), run_directory.rows(workdir)
        settings.update(keys)
        images, _, source = datasets.load("mnist", directory=_FLAGS.data_dir, source="idx")
        accuracy = np.reshape([row["test_accuracy"] for row in records], (-1, _SEEDS.value))
        above = np.flatnonzero((accuracy >= GOAL).all(axis=1)) + 1
        results["data"] = source.caption()
        results["trials"].append(
            {
                **{"net": net, "change": change, "keys": keys},
                "scales": depth.depth_in_scales(
                    depth.make_model(settings, net), images.images[: mean_field.IMAGES]
                ),
                "accuracy": [] if done.returncode else accuracy[-1].tolist(),
                "reached": next(iter(above.tolist()), None),
                "error": diverged[0] if diverged else "",
            }
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        _ = output.write_text(json.dumps(results, indent=1) + "\n")
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
