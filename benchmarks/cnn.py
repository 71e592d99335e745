"""The CNNs against Keras and PyTorch: a step of training, and the gradient of the images.

    python -m benchmarks.cnn --data_dir=DIR --peer_python=.venv-peers/bin/python

1. A step of training as `fit` runs it, against Keras' `fit` and eager PyTorch: same net,
   batch size and Adam, dropout on, the whole training set in memory. Of the CIFAR-10 net once more
   with padding "same". Ours also with `--native_convolutions`; without one of its options of the
   compiler, which tells what that gains; and in bfloat16. Of the nets that one trains today only
   ours.
2. The gradient of the summed cross-entropy of 500 digits with respect to their pixels, dropout off:
   the inner loop of an attack. Each gradient needs the images that the last one has moved.
3. The first turn of training less a steady one: compilation, and whatever else happens once. And
   the largest resident set of every contestant's process.

Every contestant is a process of its own; they take turns of some steps each. A turn of ours is one
call of its program, which shuffles the whole epoch first; `fit` calls it every 25 steps. Pixels of
MNIST are real, those of CIFAR-10 random bytes, because speed does not depend on them. Some of the
comparisons at a time, --works=mnist,cifar10, give the same table.
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
    "steps",
    ["15", "5", "4", "5", "10", "5"],
    "Steps of a turn, for each comparison.",
    flag_values=_FLAGS,
)
_ROUNDS = flags.DEFINE_list(
    "rounds",
    ["7", "5", "3", "7", "5", "4"],
    "Turns that count, for each comparison.",
    flag_values=_FLAGS,
)
_CHOSEN = flags.DEFINE_list(
    "works",
    [],
    "Comparisons to measure, if not all. What --output has of others is kept, if it is of the same "
    "day and machine.",
    flag_values=_FLAGS,
)


class Work(NamedTuple):
    """One comparison: its name, a net of configs/cnn.py, its padding, and what is done with it.

    names: the contestants, of LABELS.
    """

    label: str
    variant: str
    padding: str
    kind: str
    unit: str
    names: tuple[str, ...]


LABELS = {
    "ours": "ours",
    "ours_native": "ours, own convolutions",
    "ours_copying": "ours, more copies",
    "ours_bfloat16": "ours, bfloat16",
    "keras": "Keras",
    "torch": "PyTorch",
    "torch_channels_last": "PyTorch, channels last",
}
PEERS = ("keras", "torch", "torch_channels_last")
_OURS = ("ours", "ours_native", "ours_copying")
_ALL = (*_OURS, "ours_bfloat16", *PEERS)
WORKS = {
    "mnist": Work("MNIST", "mnist", "valid", "train", "step", _ALL),
    "cifar10": Work("CIFAR-10", "cifar10", "valid", "train", "step", _ALL),
    "cifar10-same": Work("CIFAR-10, same", "cifar10", "same", "train", "step", (*_OURS, *PEERS)),
    "gradient": Work(
        *("MNIST, 500 images", "mnist", "valid", "gradient", "gradient of the images"),
        names=("ours", "ours_native", *PEERS),
    ),
    "mnist-best": Work("mnist-best", "mnist-best", "", "train", "step", _OURS),
    "cifar10-best": Work("cifar10-best", "cifar10-best", "", "train", "step", _OURS),
}
_ARGUMENTS = {
    "ours": ("benchmarks.ours_cnn",),
    "ours_native": ("benchmarks.ours_cnn", "--native"),
    "ours_copying": ("benchmarks.ours_cnn", "--copying"),
    "ours_bfloat16": ("benchmarks.ours_cnn", "--bfloat16"),
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
        f"{LABELS['ours_native']}: with --native_convolutions." if "ours_native" in names else "",
        f"{LABELS['ours_copying']}: without xla_cpu_copy_insertion_use_region_analysis."
        if "ours_copying" in names
        else "",
        "Pixels of CIFAR-10 are random bytes; ours keeps images as bytes, the others as float32.",
        measure.caption(results, LABELS),
    )


def standing(results: Mapping[str, Any], layers: Mapping[str, Any]) -> str:
    """Where a step stands beside Keras' and why, as a Markdown list; pure.

    results: of this benchmark.  layers: of `benchmarks.layers_cnn`.
    """
    works = results["works"]
    steady = {
        key: {name: samples[1:] for name, samples in work["seconds"].items()}
        for key, work in works.items()
    }

    def ratios(name: str, of: str = "ours") -> str:
        return ", ".join(
            f"{measure.ratio(each[of], each[name]):.2f} ({WORKS[key].label})"
            for key, each in steady.items()
            if name in each and of in each
        )

    def once(name: str) -> str:
        firsts = [
            works[key]["seconds"][name][0] - statistics.median(steady[key][name])
            for key in ("mnist", "cifar10")
        ]
        return " and ".join(f"{first:.1f}" for first in firsts)

    def layer(direction: str) -> str:
        rows = [
            row["seconds"]
            for row in layers["rows"]
            if (row["net"], row["kind"], row["direction"]) == ("cifar10", "conv", direction)
        ]

        def total(name: str) -> str:
            return f"{1000 * sum(statistics.median(row[name]) for row in rows):.0f}"

        others = {"native": "{} with our own", "torch": "PyTorch {}"}  # where they were there
        beside = [words.format(total(name)) for name, words in others.items() if name in rows[0]]
        return f"{total('ours')} ms ({', '.join(beside)})" if beside else f"{total('ours')} ms"

    parts = [
        f"{words} {layer(direction)}"
        for words, direction in (
            *(("forward", "forward"), ("gradients of the kernels", "kernel")),
            ("gradients of the images", "images"),
        )
    ]
    spared = ", ".join(
        f"{work['peak_mib']['ours_copying'] - work['peak_mib']['ours']:,.0f}"
        for work in works.values()
        if "ours_copying" in work["seconds"]
    )
    lines = [f"A step takes so much of Keras' time: {ratios('keras')}."]
    if native := ratios("keras", "ours_native"):
        lines.append(
            "With `--native_convolutions`, which the C++ compiler of the machine compiles "
            f"(`research/models/native.cc`): {native}; of our own time without it "
            f"{ratios('ours', 'ours_native')}."
        )
    if copying := ratios("ours_copying"):
        lines.append(
            "Arrays that a loop carries are copied less by an option of the compiler that keeps "
            f"every bit (`sharding.compiler_options`): {copying} of the time without it, and "
            f"{spared} MiB less at the peak."
        )
    lines.append(
        "What is left without them is the rate of XLA's convolution. Those of the CIFAR-10 net, "
        f"each layer alone: {'; '.join(parts)}."
    )
    if bfloat16 := ratios("ours_bfloat16"):
        lines.append(
            f"So much of the time of bfloat16, whose convolutions are of float32: {bfloat16}."
        )
    lines.append(
        f"Before the first step {once('ours')} s go into compilation (MNIST and CIFAR-10; Keras "
        f"{once('keras')} s), and none where a program has been kept (`--compilation_cache`)."
    )
    return "\n".join(f"- {line}" for line in lines)


def net_of(work: Work) -> dict[str, Any]:
    """What shapes the net and its training: `variant`, and the values that it has of _KEYS."""
    config = cnn.get_config(work.variant)
    if work.padding:
        config.padding = work.padding
    return {"variant": work.variant, **{key: config[key] for key in _KEYS if key in config}}


def command(name: str, work: Work, count: int, *, data_dir: str, peer_python: str) -> list[str]:
    """The command line of a contestant."""
    python = peer_python if name in PEERS else sys.executable
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
    chosen = _CHOSEN.value or list(WORKS)
    if unknown := set(chosen) - set(WORKS):
        commands.fail(f"--works: {min(unknown)!r} is not one of {', '.join(WORKS)}")
    contest.check_digits(_FLAGS.data_dir)
    missing = measure.find_missing(_FLAGS.peer_python)
    batch_size = cnn.get_config("mnist").batch_size
    results: dict[str, Any] = {**measure.describe(), "missing": missing, "batch_size": batch_size}
    results["works"] = {}
    if len(chosen) < len(WORKS) and output.exists():
        earlier = measure.read(output)
        if all(earlier[key] == value for key, value in results.items() if key != "works"):
            results = earlier
    for i, (key, work) in enumerate(WORKS.items()):
        if key not in chosen:
            continue
        names = [name for name in work.names if name.partition("_")[0] not in missing]
        where = {"data_dir": _FLAGS.data_dir, "peer_python": _FLAGS.peer_python}
        commands_of = {name: command(name, work, steps[i], **where) for name in names}
        found, facts = measure_work(work, commands_of, rounds[i])
        results["works"][key] = {"count": steps[i], **found}
        if key == "mnist" or "data" not in results:
            results |= measure.summarize(facts)
        print(f"{work.label}: done", file=sys.stderr, flush=True)
    results["works"] = {key: results["works"][key] for key in WORKS if key in results["works"]}
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
