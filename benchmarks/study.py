"""How long the whole study takes: twelve nets in one command, as a first start and as a second.

    python -m benchmarks.study --data_dir=DIR

Figures, records and checkpoints included; the second start has the compiled programs of the first.
"""

import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import measure

_FLAGS = measure.make_flags("study")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds of every net.", lower_bound=1, flag_values=_FLAGS)

STARTS = {"first": "first start, nothing compiled", "second": "second start"}


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows = [
        [STARTS[name], f"{taken['seconds']:.0f}", f"{taken['peak_mib']:,.0f}"]
        for name, taken in results["starts"].items()
    ]
    return measure.markdown(
        ["twelve nets, ten epochs", "seconds", "peak memory (MiB)"],
        rows,
        f"`--config=configs/mlp.py:all`, {results['seeds']} seed(s), one run of each.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    results: dict[str, Any] = {**measure.describe(), "seeds": _SEEDS.value, "starts": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in STARTS:
            command = [
                *(sys.executable, "-m", "research.main", "--config=configs/mlp.py:all"),
                *(f"--config.seeds={_SEEDS.value}", f"--config.data.dir={_FLAGS.data_dir}"),
                *(f"--workdir={folder}/{name}", f"--compilation_cache={folder}/compiled"),
            ]
            done = measure.run(command)
            if done.returncode:
                sys.exit(f"error: {measure.last_line(done.errors)}")
            results["starts"][name] = {"seconds": done.seconds, "peak_mib": done.peak_mib}
            results["data"] = done.errors.splitlines()[0].removeprefix("data: ")
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
