"""The face-mask net of the report against Keras and PyTorch: images of training in a second.

    python -m benchmarks.masks_net --peer_python=.venv-peers/bin/python

A step as `fit` runs it, against Keras' `fit` and eager PyTorch: same net, batches of 32 and
Adam, the whole training set in memory. Every contestant is a process of its own; they take turns of
some steps each. The pixels are random bytes, because speed does not depend on them.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import cnn, measure
from configs import masks

_FLAGS = measure.make_flags("masks_net", data=False, peers=True)
_STEPS = flags.DEFINE_integer("steps", 8, "Steps of a turn.", lower_bound=1, flag_values=_FLAGS)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns that count.", lower_bound=1, flag_values=_FLAGS)

WORK = cnn.Work(
    *("Face masks", "vgg", "valid", "train", "step"),
    names=("ours", "ours_native", "ours_copying", *cnn.PEERS),
)
_ARGUMENTS = {
    "ours": ("benchmarks.ours_masks",),
    "ours_native": ("benchmarks.ours_masks", "--native"),
    "ours_copying": ("benchmarks.ours_masks", "--copying"),
    "keras": ("benchmarks.peer_keras_cnn",),
    "torch": ("benchmarks.peer_torch_cnn",),
    "torch_channels_last": ("benchmarks.peer_torch_cnn", "--channels_last"),
}
_KEYS = (
    "padding", "filters", "pools", "dropouts", "dense", "dense_dropouts", "learning_rate",
    "batch_size",
)  # fmt: skip


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    seconds, count, batch_size = results["seconds"], results["count"], results["batch_size"]
    names = [name for name in cnn.LABELS if name in seconds]
    steady = {name: seconds[name][1:] for name in names}
    rate = {name: count * batch_size / statistics.median(steady[name]) for name in names}
    theirs = [steady[name] for name in names[1:]]
    once = [max(0.0, seconds[name][0] - statistics.median(steady[name])) for name in names]
    peaks = [[results["peak_mib"][name]] for name in names]
    rows = [
        ["training: images per second", *(f"{rate[name]:,.0f}" for name in names)],
        measure.against("step (ms)", steady["ours"], theirs, digits=1, scale=1000 / count),
        ["once, before the first step (s)", *(f"{each:.1f}" for each in once)],
        measure.against("peak memory (MiB)", peaks[0], peaks[1:], digits=0),
    ]
    return measure.markdown(
        ["", *(cnn.LABELS[name] for name in names)],
        rows,
        f"Medians of {len(steady['ours'])} turns of {count} steps, taken one after the other; in "
        "brackets ours / theirs, the median of the ratios of every turn. "
        f"Batches of {batch_size}. Parameters: {results['parameters']:,}.",
        "Ours keeps images as bytes, the others as float32.",
        measure.caption(results, cnn.LABELS),
    )


def net() -> dict[str, Any]:
    """What shapes the net and its training: the values of configs/masks.py:vgg."""
    config = masks.get_config(WORK.variant)
    return {"dataset": "masks", **{key: config[key] for key in _KEYS}}


def command(name: str, count: int, peer_python: str) -> list[str]:
    """The command line of a contestant."""
    python = peer_python if name in cnn.PEERS else sys.executable
    module, *switches = _ARGUMENTS[name]
    options = [f"--net={json.dumps(net())}", f"--work={WORK.kind}", f"--count={count}"]
    return [python, "-m", module, *options, "--data_dir=", *switches]


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    missing = measure.find_missing(_FLAGS.peer_python)
    names = [name for name in WORK.names if name.partition("_")[0] not in missing]
    commands = {name: command(name, _STEPS.value, _FLAGS.peer_python) for name in names}
    found, facts = cnn.measure_work(WORK, commands, _ROUNDS.value)
    results: dict[str, Any] = {**measure.describe(), "missing": missing, "count": _STEPS.value}
    results |= {"batch_size": net()["batch_size"], **found, **measure.summarize(facts)}
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
