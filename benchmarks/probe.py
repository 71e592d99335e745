"""What recording the gradients of every layer costs: a steady epoch with the probe and without.

    python -m benchmarks.probe --data_dir=DIR

The epoch is that of `fit`, test evaluation included; both forms live in one process and run
in turn.
"""

import statistics
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import measure, ours

_FLAGS = measure.make_flags("probe")
_NETS = flags.DEFINE_list("nets", ["relu-5", "tanh-40"], "Nets to measure.", flag_values=_FLAGS)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 20, "Epochs of either form.", lower_bound=1, flag_values=_FLAGS
)


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    for net, seconds in results["seconds"].items():
        on, off = seconds["on"], seconds["off"]
        medians = statistics.median(on), statistics.median(off)
        numbers = (*medians, medians[0] / medians[1], measure.ratio(on, off))
        rows.append([net, *(f"{number:.3f}" for number in numbers)])
    rounds = len(next(iter(results["seconds"].values()))["on"])
    return measure.markdown(
        ["", "probe on (s)", "probe off (s)", "on / off, of medians", "on / off, median of ratios"],
        rows,
        f"A steady epoch with its test evaluation, {rounds} of either form in turn.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    results: dict[str, Any] = {**measure.describe(), "seconds": {}}
    for net in _NETS.value:
        study = ours.load(net, _FLAGS.data_dir)
        forms = {"on": ours.probe_of(study), "off": None}
        trainers = {name: ours.Trainer(study, probe=probe) for name, probe in forms.items()}
        calls = {name: trainer.epoch for name, trainer in trainers.items()}
        results["seconds"][net] = measure.alternate(calls, _ROUNDS.value)
        results["data"] = study.caption
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
