"""From a finished run to results/: the numbers that tables and verdicts are made of."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.ledger import evidence
from research.ledger.tables import classifiers, depth
from research.ledger.tables import masks as mask_tables
from research.ledger.tables import noise as noise_tables
from research.storage import run_directory

NOISE = "noise_distributions.png"  # in results/: what an adversarial image takes


def keep(results: Path, workdir: Path) -> list[str]:
    """Write what is kept of a run, whatever its experiment; the names of its records.

    Raises UserError if the run is not finished, or not of a configuration and data that are
    published.
    """
    summary = run_directory.finished_summary(workdir) or {}
    if mask_tables.picture_of(workdir, summary) is not None:
        mask_tables.collect_picture(results, workdir, summary)
        return []
    found = evidence.of_run(workdir, any_data=False)
    for name, content in found.items():
        file, _, entry = name.partition(".")
        path = results / f"{file}.json"
        if entry:
            before = json.loads(path.read_text()) if path.exists() else {}
            content = before | {entry: content}
        run_directory.replace(path, compact(content))
        _keep_figure(results, workdir, name)
    return list(found)


def _keep_figure(results: Path, workdir: Path, name: str) -> None:
    """Copy the figure that README.md shows of a record, if it is the one shown."""
    figures = {
        "depth": (f"figures/{depth.FIGURE}.png", f"{depth.FIGURE}.png"),
        f"classifiers.{classifiers.CONFUSION}": (
            "figures/confusion.png",
            f"confusion_{classifiers.CONFUSION}.png",
        ),
        f"noise.{noise_tables.SHOWN}": (noise_tables.FIGURE, NOISE),
    }
    if name in figures:
        source, target = figures[name]
        _ = (results / target).write_bytes((workdir / source).read_bytes())


def compact(content: Mapping[str, Any]) -> str:
    """JSON text with a line for each list of numbers, so that a change shows as one line."""
    lines = json.dumps(content, indent=1)
    lists = r"\[(\n[^\[\]{}\"]*)\]"  # what looks like a list inside a text has no line break
    return re.sub(lists, lambda found: f"[{' '.join(found[1].split())}]", lines) + "\n"
