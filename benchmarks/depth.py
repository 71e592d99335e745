"""The depth study against Keras and PyTorch: same nets, digits, batches, optimiser and init.

    python -m benchmarks.depth --data_dir=DIR --peer_python=.venv-peers/bin/python

1. A steady epoch of training, without evaluation, the first one dropped. Ours records the gradient
   statistics of every layer and step; the peers record nothing of the kind. Every contestant is a
   process of its own; they run one epoch each in turn.
2. The whole command: load the digits, train, judge on the test set. Ours also writes records,
   checkpoints and figures, once with an empty compilation cache and once more with that of the
   first start. Its first step begins where its first epoch ended less the time of a steady epoch:
   an upper bound, since writing the first checkpoint lies in between.
3. Peak memory of that command: the largest resident set of the process.
"""

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import contest, measure

_FLAGS = measure.make_flags("depth", peers=True)
_NETS = flags.DEFINE_list(
    "nets", ["relu-5", "tanh-40"], "Nets of the steady epochs.", flag_values=_FLAGS
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 5, "Steady epochs of every contestant.", lower_bound=1, flag_values=_FLAGS
)
_COMMANDS = flags.DEFINE_integer(
    "commands", 3, "Rounds of whole commands.", lower_bound=1, flag_values=_FLAGS
)
_COMMAND_NET = flags.DEFINE_string(
    "command_net", "tanh-40", "Net of the whole commands.", flag_values=_FLAGS
)
_COMMAND_EPOCHS = flags.DEFINE_integer(
    "command_epochs", 10, "Epochs of a whole command.", lower_bound=2, flag_values=_FLAGS
)

LABELS = {
    "ours": "ours",
    "keras": "Keras",
    "keras_jit": "Keras, jit_compile",
    "torch": "PyTorch",
    "torch_one_thread": "PyTorch, 1 thread",
}
_ARGUMENTS = {
    "ours": ("benchmarks.ours",),
    "keras": ("benchmarks.peer_keras",),
    "keras_jit": ("benchmarks.peer_keras", "--jit"),
    "torch": ("benchmarks.peer_torch",),
    "torch_one_thread": ("benchmarks.peer_torch", "--one_thread"),
}
_OF_COMMANDS = ("keras", "torch", "torch_one_thread")


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    steady, command = results["steady"], results["command"]
    names = [name for name in LABELS if any(name in samples for samples in steady.values())]

    def row(label: str, ours: Sequence[float], peers: Mapping[str, Any], digits: int) -> list[str]:
        theirs = [peers.get(name) for name in names[1:]]
        return measure.against(label, ours, theirs, digits=digits)

    net = f"{command['net']}, {command['epochs']} epochs"
    seconds, peak = command["seconds"], command["peak_mib"]
    accuracy = {name: [100 * x for x in v] for name, v in command["test_accuracy"].items()}
    rows = [row(f"{n}, steady epoch (s)", s["ours"], s, 2) for n, s in steady.items()]
    rows += [
        row(f"{net}, first start (s)", seconds["ours"], seconds, 1),
        row(f"{net}, second start (s)", seconds["ours_again"], seconds, 1),
        row("... until its first step (s)", command["first_step"]["ours_again"], {}, 1),
        row("peak memory, first start (MiB)", peak["ours"], peak, 0),
        row("peak memory, second start (MiB)", peak["ours_again"], peak, 0),
        row("test accuracy (%)", accuracy["ours"], {}, 2),
    ]
    for i, name in enumerate(names[1:], start=2):
        rows[-1][i] = f"{statistics.median(accuracy[name]):.2f}" if name in accuracy else "-"
    epochs = len(next(iter(steady.values()))["ours"])
    return measure.markdown(
        ["", *(LABELS[name] for name in names)],
        rows,
        f"Medians of {epochs} epochs and {len(seconds['ours'])} commands, taken in turns; in "
        "brackets ours / theirs, the median of the ratios of every turn.",
        "Ours records the gradients of every layer at every step, the others do not.",
        measure.caption(results, LABELS),
    )


def measure_epochs(
    net: str, names: Sequence[str], epochs: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every steady epoch of every contestant, and what each announced of itself."""
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(
                measure.Paced(LABELS[name], [*_command(name, net, epochs + 1), "--paced"])
            )
            for name in names
        }
        taken = measure.pace(contestants, epochs + 1)
        samples = {name: seconds[1:] for name, seconds in taken.items()}
        _say(net, {name: statistics.median(values) for name, values in samples.items()})
        return samples, {name: contestants[name].facts for name in names}


def measure_commands(net: str, epochs: int, peers: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds, peak memory and test accuracy of whole commands, and when ours took its first step.

    Returns {measure: {contestant: one value a round}}; "ours_again" is the second start.
    """
    found: dict[str, Any] = {
        key: {} for key in ("seconds", "peak_mib", "test_accuracy", "first_step")
    }
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("ours", "ours_again", *peers):
                ours = name.startswith("ours")
                workdir = Path(folder) / name
                argv = _our_command(net, epochs, workdir) if ours else _command(name, net, epochs)
                done = measure.run(argv, watch=f" epoch 1/{epochs}:")
                if done.returncode:
                    sys.exit(f"error: {argv[2]} failed: {measure.last_line(done.errors)}")
                said = json.loads(measure.last_line(done.output))
                taken = {"seconds": done.seconds, "peak_mib": done.peak_mib}
                taken["test_accuracy"] = said["test_accuracy"]
                if ours:
                    taken["first_step"] = _first_step(workdir, done)
                for key, value in taken.items():
                    found[key].setdefault(name, []).append(value)
                _say(name, taken)
    return {"net": net, "epochs": epochs, **found}


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    contest.check_digits(_FLAGS.data_dir)
    missing = measure.find_missing(_FLAGS.peer_python)
    names = [name for name in LABELS if name.partition("_")[0] not in missing]
    results: dict[str, Any] = {**measure.describe(), "missing": missing, "steady": {}}
    facts: dict[str, Any] = {}
    for net in _NETS.value:
        results["steady"][net], facts = measure_epochs(net, names, _EPOCHS.value)
    results |= measure.summarize(facts)
    peers = [name for name in names if name in _OF_COMMANDS]
    results["command"] = measure_commands(
        _COMMAND_NET.value, _COMMAND_EPOCHS.value, peers, _COMMANDS.value
    )
    measure.finish(results, output, table)
    return 0


def _command(name: str, net: str, epochs: int) -> list[str]:
    python = sys.executable if name == "ours" else _FLAGS.peer_python
    module, *switches = _ARGUMENTS[name]
    options = [f"--net={net}", f"--epochs={epochs}", f"--data_dir={_FLAGS.data_dir}"]
    return [python, "-m", module, *options, *switches]


def _our_command(net: str, epochs: int, workdir: Path) -> list[str]:
    return [
        sys.executable, "-m", "research.main", f"--config=configs/mlp.py:{net}",
        f"--config.data.dir={_FLAGS.data_dir}", f"--config.epochs={epochs}",
        f"--workdir={workdir}", f"--compilation_cache={workdir.parent / 'compiled'}",
    ]  # fmt: skip


def _first_step(workdir: Path, done: measure.Finished) -> float:
    assert done.seen_s is not None
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return done.seen_s - statistics.median(row["seconds"] for row in rows[1:])


def _say(name: str, numbers: Mapping[str, float]) -> None:
    text = ", ".join(f"{key} {value:.3f}" for key, value in numbers.items())
    print(f"{name}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    measure.start(main)
