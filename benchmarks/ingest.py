"""How fast do photographs become faces on the disk, and how much memory does the way there take?

    python -m benchmarks.ingest

As many faces as the report had, 12,243 of 200 x 200: drawn people in varied photographs with boxes,
the smaller class filled up with copies as far as that number asks for. One process prepares them,
another trains an epoch of configs/masks.py:vgg and judges the validation faces; a third does both,
as a run does. Everything that is written lies in a temporary folder (about 7 GB) and is removed.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import measure

_FLAGS = measure.make_flags("ingest", data=False)
_FACES = flags.DEFINE_integer(
    "faces", 12_243, "Faces, copies included.", lower_bound=60, flag_values=_FLAGS
)
_SIZE = flags.DEFINE_integer(
    "size", 200, "Side of a face in pixels.", lower_bound=100, flag_values=_FLAGS
)
_FOLDER = flags.DEFINE_string(
    "folder", "", "Where the temporary folder is to be; as the system has it.", flag_values=_FLAGS
)

LIMIT_MIB = 2048


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    corpus, phases = results["corpus"], results["phases"]
    ingested, trained, whole = (phases[name] for name in ("ingest", "train", "whole"))
    size = results["size"]
    rows = [
        [
            "annotated photographs to faces on the disk",
            f"{ingested['seconds']:.0f}",
            f"{ingested['faces'] / ingested['seconds']:,.0f} faces",
            f"{ingested['peak_mib']:,.0f}",
        ],
        [
            "an epoch on them, and the validation faces",
            f"{trained['seconds']:.0f}",
            f"{trained['images_per_s']:,.0f} images",
            f"{trained['peak_mib']:,.0f}",
        ],
        ["both in one process", f"{whole['wall_s']:.0f}", "-", f"{whole['peak_mib']:,.0f}"],
    ]
    most = max(phase["peak_mib"] for phase in phases.values())
    verdict = "below" if most < LIMIT_MIB else "NOT below"
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return measure.markdown(
        ["phase", "seconds", "in a second", "peak memory (MiB)"],
        rows,
        f"{ingested['faces']:,} faces of {size} x {size}, {ingested['copies']:,} of them copies of "
        f"the smaller class, from {corpus['photographs']:,} drawn photographs, one in 64 of 12 "
        f"million pixels. The pixels of all are {results['pixels_mib']:,.0f} MiB; peak memory is "
        f"{verdict} {LIMIT_MIB:,} MiB. The ingestion keeps {ingested['cores']:.1f} of "
        f"{results['threads']} cores busy; a second start takes {trained['loading']:.1f} s to read "
        f"and check them. Training: {trained['trained']:,} faces in batches of 32, compilation in "
        f"the seconds and not in the images in a second; then {trained['tested']:,} "
        "validation faces. One run of each.",
        f"{results['device']}; {versions}; {results['date']}.",
    )


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    results: dict[str, Any] = {**measure.describe(), "size": _SIZE.value, "phases": {}}
    results["pixels_mib"] = _FACES.value * _SIZE.value**2 * 3 / 2**20
    with tempfile.TemporaryDirectory(dir=_FOLDER.value or None) as folder:
        for phase in ("draw", "ingest", "train", "whole"):
            print(f"{phase} ...", file=sys.stderr)
            words = [phase, folder, str(_FACES.value), str(_SIZE.value)]
            done = measure.run([sys.executable, "-m", "benchmarks.ours_ingest", *words])
            if done.returncode:
                sys.exit(f"error: {phase}: {measure.last_line(done.errors)}")
            said = json.loads(done.output)
            results["versions"], results["threads"] = said.pop("versions"), said.pop("threads")
            if phase == "draw":
                results["corpus"] = said
            else:
                taken = {"wall_s": done.seconds, "peak_mib": done.peak_mib}
                results["phases"][phase] = {**said, **taken}
    measure.finish(results, Path(output), table)
    return 0


if __name__ == "__main__":
    measure.start(main)
