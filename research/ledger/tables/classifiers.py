"""Table of the classifiers (report, Exercise 2)."""

from collections.abc import Sequence

import numpy as np

from research.ledger.published import command, stated_config
from research.storage.run_directory import Run
from research.training import scores

REPORTED = {"mnist": 97.0, "cifar10": 75.0}  # test accuracy in percent, report, Exercise 2


def table(runs: Sequence[Run]) -> str:
    """Markdown table of classifiers, a row for each run."""
    lines = [
        "| net | parameters | epochs | seeds | test accuracy (%) | min | max | 95 % of the first | "
        "calibration error | the report |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    for run in runs:
        test, name = run.summary["test"], run.name
        values = np.array([100 * seed["accuracy"] for seed in test])
        low, high = scores.wilson_interval(test[0]["correct"], test[0]["count"])
        stated = stated_config(run)["epochs"]
        epochs = f"{run.config['epochs']}"
        if run.config["epochs"] != stated:
            epochs += f" of {stated}"
        ece = np.mean([seed["ece"] for seed in test])
        reported = f"{REPORTED[name]:.0f}" if name in REPORTED else "-"
        lines.append(
            f"| {name} | {run.summary['parameters']:,} | {epochs} | {len(values)} | "
            f"{values.mean():.2f} | {values.min():.2f} | {values.max():.2f} | "
            f"{100 * low:.2f} - {100 * high:.2f} | {ece:.4f} | {reported} |"
        )
        notes.append(
            f"{name}: {run.caption}; peak memory {run.summary['peak_memory_mib']:,.0f} MiB; "
            f"`{command(run)}`."
        )
    versions = runs[0].versions
    notes.append(f"Device: {versions['device']}, jax {versions['packages']['jax']}.")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])
