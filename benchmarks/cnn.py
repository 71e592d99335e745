"""The CNNs against Keras and PyTorch: a step of training, and the gradient of the images.

    python -m benchmarks.cnn --data_dir=DIR --peer_python=.venv-peers/bin/python

1. A step of training as `fit` runs it, against Keras' `fit` and eager PyTorch: same net,
   batch size and Adam, dropout on, the whole training set in memory. Of the CIFAR-10 net once more
   with padding "same".
2. The gradient of the summed cross-entropy of 500 digits with respect to their pixels, dropout off:
   the inner loop of an attack. Each gradient needs the images that the last one has moved.
3. The first turn of training less a steady one: compilation, and whatever else happens once. And
   the largest resident set of every contestant's process.

Every contestant is a process of its own; they take turns of some steps each. A turn of ours is one
call of its program, which shuffles the whole epoch first; `fit` calls it every 25 steps. Pixels of
MNIST are real, those of CIFAR-10 random bytes, because speed does not depend on them.
"""

import contextlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from benchmarks import contest, measure
from configs import cnn
from research.runtime import commands

_FLAGS = measure.make_flags("cnn", peers=True)
_STEPS = flags.DEFINE_list(
    "steps", ["25", "8", "4", "5"], "Steps of a turn, for each comparison.", flag_values=_FLAGS
)
_ROUNDS = flags.DEFINE_list(
    "rounds", ["7", "3", "3", "7"], "Turns that count, for each comparison.", flag_values=_FLAGS
)


class Work(NamedTuple):
    """One comparison: a net of configs/cnn.py, its padding, what is done with it, and its name."""

    label: str
    variant: str
    padding: str
    kind: str
    unit: str


WORKS = {
    "mnist": Work("MNIST", "mnist", "valid", "train", "step"),
    "cifar10": Work("CIFAR-10", "cifar10", "valid", "train", "step"),
    "cifar10-same": Work("CIFAR-10, same", "cifar10", "same", "train", "step"),
    "gradient": Work("MNIST, 500 images", "mnist", "valid", "gradient", "gradient of the images"),
}
LABELS = {
    "ours": "ours",
    "keras": "Keras",
    "torch": "PyTorch",
    "torch_channels_last": "PyTorch, channels last",
}
_ARGUMENTS = {
    "ours": ("benchmarks.ours_cnn",),
    "keras": ("benchmarks.peer_keras_cnn",),
    "torch": ("benchmarks.peer_torch_cnn",),
    "torch_channels_last": ("benchmarks.peer_torch_cnn", "--channels_last"),
}
_KEYS = (
    "dataset", "padding", "filters", "pools", "dropouts", "dense", "dense_dropouts",
    "learning_rate", "batch_size",
)  # fmt: skip


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    works = results["works"]
    names = [name for name in LABELS if any(name in work["seconds"] for work in works.values())]
    rows: list[list[str]] = []

    def add(label: str, found: Mapping[str, Sequence[float]], digits: int, scale: float) -> None:
        theirs = [found.get(name) for name in names[1:]]
        rows.append(measure.against(label, found["ours"], theirs, digits=digits, scale=scale))

    for key, work in works.items():
        label, unit, seconds = WORKS[key].label, WORKS[key].unit, work["seconds"]
        steady = {name: samples[1:] for name, samples in seconds.items()}
        add(f"{label}: {unit} (ms)", steady, 1, 1000 / work["count"])
        if WORKS[key].kind == "train":
            once = {n: max(0.0, seconds[n][0] - statistics.median(steady[n])) for n in steady}
            cells = [f"{once[name]:.1f}" if name in once else "-" for name in names]
            rows.append([f"{label}: once, before the first step (s)", *cells])
            add(f"{label}: peak memory (MiB)", {n: [m] for n, m in work["peak_mib"].items()}, 0, 1)
    turns = "; ".join(
        f"{WORKS[key].label}: {len(work['seconds']['ours']) - 1} of {work['count']}"
        for key, work in works.items()
    )
    parameters = "; ".join(
        f"{WORKS[key].label}: {work['parameters']:,}"
        for key, work in works.items()
        if WORKS[key].kind == "train"
    )
    return measure.markdown(
        ["", *(LABELS[name] for name in names)],
        rows,
        f"Medians of turns, taken one after the other, of so many steps or gradients: {turns}; in "
        "brackets ours / theirs, the median of the ratios of every turn. "
        f"Batches of {results['batch_size']}. Parameters: {parameters}.",
        "Pixels of CIFAR-10 are random bytes; ours keeps images as bytes, the others as float32.",
        measure.caption(results, LABELS),
    )


def net_of(work: Work) -> dict[str, Any]:
    """What shapes the net and its training: the values of configs/cnn.py."""
    config = cnn.get_config(work.variant)
    config.padding = work.padding
    return {key: config[key] for key in _KEYS}


def command(name: str, work: Work, count: int, *, data_dir: str, peer_python: str) -> list[str]:
    """The command line of a contestant."""
    python = sys.executable if name == "ours" else peer_python
    module, *switches = _ARGUMENTS[name]
    options = [f"--net={json.dumps(net_of(work))}", f"--work={work.kind}", f"--count={count}"]
    return [python, "-m", module, *options, f"--data_dir={data_dir}", *switches]


def measure_work(
    work: Work, commands: Mapping[str, Sequence[str]], rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Seconds of every turn, the first one included, and peak memory; and the announcements.

    Exits with one line if the contestants' nets differ in size.
    """
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(measure.Paced(LABELS[name], argv))
            for name, argv in commands.items()
        }
        facts = {name: contestant.facts for name, contestant in contestants.items()}
        sizes = {LABELS[name]: fact["parameters"] for name, fact in facts.items()}
        if len(set(sizes.values())) > 1:
            sys.exit(f"error: the nets of {work.label} differ in their parameters: {sizes}")
        seconds = measure.pace(contestants, rounds + 1)
    found = {
        "parameters": facts["ours"]["parameters"],
        "seconds": seconds,
        "peak_mib": {name: contestant.peak_mib for name, contestant in contestants.items()},
    }
    return found, facts


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    steps, rounds = parse_numbers("steps", _STEPS.value), parse_numbers("rounds", _ROUNDS.value)
    contest.check_digits(_FLAGS.data_dir)
    missing = measure.find_missing(_FLAGS.peer_python)
    names = [name for name in LABELS if name.partition("_")[0] not in missing]
    batch_size = cnn.get_config("mnist").batch_size
    results: dict[str, Any] = {**measure.describe(), "missing": missing, "batch_size": batch_size}
    results["works"] = {}
    for i, (key, work) in enumerate(WORKS.items()):
        where = {"data_dir": _FLAGS.data_dir, "peer_python": _FLAGS.peer_python}
        commands = {name: command(name, work, steps[i], **where) for name in names}
        found, facts = measure_work(work, commands, rounds[i])
        results["works"][key] = {"count": steps[i], **found}
        if key == "mnist":
            results |= measure.summarize(facts)
        print(f"{work.label}: done", file=sys.stderr, flush=True)
    measure.finish(results, output, table)
    return 0


def parse_numbers(flag: str, texts: Sequence[str]) -> list[int]:
    """The numbers of a flag.  Exits with one line if they are not one for every comparison."""
    numbers = [int(text) for text in texts if text.isdecimal() and int(text)]
    if len(numbers) != len(texts) or len(numbers) != len(WORKS):
        commands.fail(f"--{flag}: expected a positive number for each of {', '.join(WORKS)}")
    return numbers


if __name__ == "__main__":
    measure.start(main)
