"""How long the whole study takes: twelve nets in one command, as a first start and as a second.

    python -m benchmarks.study --data_dir=DIR

Figures, records and checkpoints included; the second start has the compiled programs of the first.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import measure

_FLAGS = flags.FlagValues()
_DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Directory of MNIST's four IDX files.", flag_values=_FLAGS
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds of every net.", lower_bound=1, flag_values=_FLAGS)
_OUTPUT = flags.DEFINE_string(
    "output", str(measure.RESULTS / "study.json"), "File of the results.", flag_values=_FLAGS
)
_TABLE = flags.DEFINE_bool(
    "table", False, "Print the table of --output, and stop.", flag_values=_FLAGS
)

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
    measure.parse(_FLAGS, argv, __doc__ or "")
    if _TABLE.value:
        print(table(measure.read(Path(_OUTPUT.value))))
        return 0
    results: dict[str, Any] = {**measure.describe(), "seeds": _SEEDS.value, "starts": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in STARTS:
            command = [
                *(sys.executable, "-m", "research.main", "--config=configs/mlp.py:all"),
                *(f"--config.seeds={_SEEDS.value}", f"--config.data.dir={_DATA_DIR.value}"),
                *(f"--workdir={folder}/{name}", f"--compilation_cache={folder}/compiled"),
            ]
            done = measure.run(command)
            if done.returncode:
                sys.exit(f"error: {measure.last_line(done.errors)}")
            results["starts"][name] = {"seconds": done.seconds, "peak_mib": done.peak_mib}
            results["data"] = done.errors.splitlines()[0].removeprefix("data: ")
    measure.finish(results, Path(_OUTPUT.value), table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
