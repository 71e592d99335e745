"""Records and table of the classifiers (report, Exercise 2)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from configs import cnn
from research.storage import run_directory
from research.structs import UserError
from research.training import scores

CONFUSION = "cifar10-best"  # the classifier whose confusion matrix is shown in README.md
REPORTED = {"mnist": 97.0, "cifar10": 75.0}  # test accuracy in percent, report, Exercise 2
# Other settings that are run beside the stated ones: variant, and the keys that differ.
HYPOTHESES: dict[str, tuple[str, dict[str, Any]]] = {
    "adam-0-001": ("mnist", {"learning_rate": 0.001}),
}
# Keys that may differ from the stated configuration, for they do not change what is measured; the
# number of epochs is shown in the table.
_FREE_KEYS = (
    *("seeds", "data", "cpu_devices", "cpu_threads", "data_devices", "eval_batch_size"),
    *("matmul_precision", "epochs", "steps_per_dispatch"),
)


def table(result: Mapping[str, Any]) -> str:
    """Markdown table of the classifiers, from the content of results/classifiers.json."""
    lines = [
        "| net | parameters | epochs | seeds | test accuracy (%) | min | max | 95 % of the first | "
        "calibration error | the report |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    for name in (name for name in cnn.VARIANTS if name in result):
        row = result[name]
        values = 100 * np.asarray(row["test_accuracy"])
        low, high = scores.wilson_interval(row["correct"][0], row["count"])
        epochs = f"{row['epochs']}"
        if row["epochs"] != row["stated_epochs"]:
            epochs += f" of {row['stated_epochs']}"
        reported = REPORTED.get(name)
        lines.append(
            f"| {name} | {row['parameters']:,} | {epochs} | {len(values)} | {values.mean():.2f} | "
            f"{values.min():.2f} | {values.max():.2f} | {100 * low:.2f} - {100 * high:.2f} | "
            f"{np.mean(row['ece']):.4f} | {'-' if reported is None else f'{reported:.0f}'} |"
        )
        notes.append(
            f"{name}: {row['data']['caption']}; peak memory {row['peak_memory_mib']:,.0f} MiB; "
            f"`{row['command']}`."
        )
    first = next(iter(result.values()))
    notes.append(f"Device: {first['device']}, jax {first['packages']['jax']}.")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def collect(workdir: Path, *, any_data: bool = False) -> dict[str, dict[str, Any]]:
    """{record: what is kept of a run of a classifier}, paths of the machine left out.

    The record is "classifiers.VARIANT", or "hypotheses.NAME" of a run that differs in the keys of a
    hypothesis.
    any_data: take the run on whatever data it was; nothing must be published of it then.
    Raises UserError if the run is not finished, or not of the stated configuration; another number
    of epochs is allowed, and shown in the table.
    """
    summary = run_directory.finished_summary(workdir)
    if summary is None or "parameters" not in summary:
        raise UserError(f"{workdir} holds no finished run of a classifier (no such summary.json)")
    versions = json.loads((workdir / "versions.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    if config["name"] not in cnn.VARIANTS:
        raise UserError(f"{workdir} holds {config['name']!r}, not one of {', '.join(cnn.VARIANTS)}")
    stated = json.loads(cnn.get_config(config["name"]).to_json())
    config = run_directory.complete(config, stated)
    changed = [key for key in stated if config[key] != stated[key] and key not in _FREE_KEYS]
    name = _record(config, changed)
    if name is None:
        wrong = ", ".join(changed)
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    if not versions["data"]["full"] and not any_data:
        raise UserError(f"{workdir} was not run on the full set: {versions['data']['caption']}")
    words = [f"python -m research.main --config=configs/cnn.py:{config['name']}"]
    words += [
        f"--config.{key}={config[key]}"
        for key in (*changed, "seeds", "epochs")
        if config[key] != stated[key]
    ]
    kept = ("parameters", "peak_memory_mib")
    judged = summary["test"]
    accuracies = [each["accuracy"] for each in judged]
    hypothesis = name.startswith("hypotheses.")
    return {
        name: {
            "command": " ".join([*words, "--config.data.dir=DIR"]),
            "epochs": config["epochs"],
            "stated_epochs": stated["epochs"],
            "test_accuracy": {config["name"]: accuracies} if hypothesis else accuracies,
            "correct": [each["correct"] for each in judged],
            "count": judged[0]["count"],
            "ece": [each["ece"] for each in judged],
            "figure_sha256": _sha256(workdir / "figures" / "confusion.png"),
            **{key: summary[key] for key in kept},
            "data": {k: v for k, v in versions["data"].items() if k != "source"},
            "device": versions["device"],
            "packages": versions["packages"],
            "git_commit": versions["git_commit"],
        }
    }


def _record(config: Mapping[str, Any], changed: list[str]) -> str | None:
    """Name of the record of a run, None if it has none."""
    if not changed:
        return f"classifiers.{config['name']}"
    for name, (variant, changes) in HYPOTHESES.items():
        same = all(config[key] == value for key, value in changes.items())
        if config["name"] == variant and set(changed) == set(changes) and same:
            return f"hypotheses.{name}"
    return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
