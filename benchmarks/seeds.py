"""How should several seeds share a CPU: one after the other or as one batch, on how many devices?

    python -m benchmarks.seeds --data_dir=DIR

`lax.map` (what `runtime.sharding` does on a CPU) against `vmap`, on one and two virtual devices,
and the seeds trained alone, each with a program of its own. Every setting is a process; they run
one epoch each in turn. In the end the parameters of every seed are compared bit for bit with
those of the seed trained alone.
"""

import contextlib
import functools
import hashlib
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import contest, measure, ours

_FLAGS = measure.make_flags("seeds")
_NET = flags.DEFINE_string("net", "tanh-5", "Net to measure.", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 4, "Number of seeds.", lower_bound=2, flag_values=_FLAGS)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 5, "Steady epochs of every setting.", lower_bound=1, flag_values=_FLAGS
)
_SETTING = flags.DEFINE_string(
    "setting", "", "Be this contestant, as started by the benchmark.", flag_values=_FLAGS
)

# Form and number of virtual devices of every setting.
SETTINGS = {
    "alone": ("alone", 1),
    "map_1": ("lax.map", 1),
    "map_2": ("lax.map", 2),
    "vmap_1": ("vmap", 1),
    "vmap_2": ("vmap", 2),
}


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    seeds, rows = results["seeds"], []
    alone, wanted = results["seconds"]["alone"], results["digests"]["alone"]
    for name, samples in results["seconds"].items():
        form, devices = SETTINGS[name]
        equal = sum(a == b for a, b in zip(results["digests"][name], wanted, strict=True))
        seconds = f"{statistics.median(samples) / seeds:.3f}"
        ratio = f"{measure.ratio(samples, alone):.2f}"
        rows.append([form, str(devices), seconds, ratio, f"{equal} of {seeds}"])
    return measure.markdown(
        ["form", "devices", "epoch / seed (s)", "/ alone", "seeds bit-identical to alone"],
        rows,
        f"{results['net']}, {seeds} seeds, probe on, test evaluation included; medians of "
        f"{len(alone)} epochs, taken in turns.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def contend(setting: str) -> None:
    """Be one setting: epochs on demand, then the digests of every seed's parameters."""
    form, devices = SETTINGS[setting]
    study = ours.load(_NET.value, _FLAGS.data_dir, cpu_devices=devices)
    trainer = functools.partial(ours.Trainer, study, probe=ours.probe_of(study))
    seeds = range(_SEEDS.value)
    if form == "alone":
        trainers = [trainer(seeds=(seed,)) for seed in seeds]
    else:
        trainers = [trainer(seeds=seeds, batched=form == "vmap")]
    contest.announce(data=study.caption)
    for _ in range(_EPOCHS.value + 1):
        contest.wait()
        began = time.perf_counter()
        for each in trainers:
            _ = each.epoch()
        contest.report(time.perf_counter() - began)
    digests: list[str] = []
    for each in trainers:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(each.states.params)]
        for row in range(len(leaves[0])):
            joined = b"".join(leaf[row].tobytes() for leaf in leaves)
            digests.append(hashlib.sha256(joined).hexdigest())
    contest.announce(digests=digests)


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    if _SETTING.value:
        contend(_SETTING.value)
        return 0
    same = [f"--{key}={_FLAGS[key].value}" for key in ("data_dir", "net", "seeds", "epochs")]
    command = [sys.executable, "-m", "benchmarks.seeds", *same]
    results: dict[str, Any] = {**measure.describe(), "net": _NET.value, "seeds": _SEEDS.value}
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(measure.Paced(name, [*command, f"--setting={name}"]))
            for name in SETTINGS
        }
        taken = measure.pace(contestants, _EPOCHS.value + 1)
        results["seconds"] = {name: seconds[1:] for name, seconds in taken.items()}
        results["digests"] = {name: each.answer()["digests"] for name, each in contestants.items()}
        results["data"] = contestants["alone"].facts["data"]
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
