"""Records and table of the depth study: accuracies, curves and gradients of the twelve nets."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from configs import mlp
from research.storage import run_directory
from research.structs import UserError

FIGURE = "figure_3"  # of a run, shown in README.md
EPOCHS = (1, 2, 3)  # that the report shows the gradients of
# The four readings of the report's "max gradient"; the first is the one that is drawn.
READINGS = ("kernel_abs_max", "layer_abs_max", "kernel_signed_max", "kernel_abs_last")
# Other settings that are run beside the stated ones, by the keys that differ.
HYPOTHESES: dict[str, dict[str, Any]] = {
    "batch-32": {"batch_size": 32},
    "epochs-20": {"epochs": 20},
    "he": {"init": "he"},
}
_SIGNAL = "signal_abs_max"
_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
# Keys that may differ from the stated configuration, for they do not change what is measured.
_FREE_KEYS = (
    *("seeds", "data", "cpu_devices", "cpu_threads", "data_devices"),
    *("eval_batch_size", "matmul_precision"),
)

# Test accuracy in percent, report Parts B and D.
REPORTED = {
    "relu-5": 96.2, "relu-20": 91.8, "relu-40": 19.6,
    "tanh-5": 96.1, "tanh-20": 96.2, "tanh-40": 95.4,
    "sigmoid-5": 11.3, "sigmoid-20": 11.3, "sigmoid-40": 11.3,
    "lecun-5": 96.1, "lecun-20": 96.2, "lecun-40": 96.3,
}  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """Markdown table of test accuracies, a row a net, from the content of results/depth.json."""
    lines = [
        "| net | mean | sd | min | max | the report |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for net, accuracies in result["test_accuracy"].items():
        values = 100 * np.asarray(accuracies)
        numbers = (values.mean(), values.std(ddof=1), values.min(), values.max())
        cells = " | ".join(f"{number:.2f}" for number in numbers)
        lines.append(f"| {net} | {cells} | {REPORTED[net]:.1f} |")
    seeds = len(next(iter(result["test_accuracy"].values())))
    return "\n".join(
        [
            *lines,
            "",
            f"Test accuracy in percent after {result['epochs']} epochs, {seeds} seeds. "
            f"Data: {result['data']['caption']}. Device: {result['device']}, "
            f"jax {result['packages']['jax']}. Command: `{result['command']}`.",
        ]
    )


def hypotheses_table(result: Mapping[str, Any]) -> str:
    """Markdown table of other settings, a column each, from the content of results/hypotheses.json.

    Hypotheses of other studies and nets that none of them has are left out.
    """
    shown = {name: result[name] for name in HYPOTHESES if name in result}
    lines = [
        f"| net | {' | '.join(shown)} | the report |",
        f"|---|{'---:|' * (len(shown) + 1)}",
    ]
    for net, reported in REPORTED.items():
        cells: list[str] = []
        for run in shown.values():
            values = 100 * np.asarray(run["test_accuracy"].get(net, [np.nan]))
            known = np.isfinite(values).all()
            cells.append(
                f"{values.mean():.2f} ({values.min():.2f} - {values.max():.2f})" if known else "-"
            )
        if set(cells) != {"-"}:
            lines.append(f"| {net} | {' | '.join(cells)} | {reported:.1f} |")
    notes = [
        f"- {name}: {len(next(iter(run['test_accuracy'].values())))} seeds; "
        f"{run['data']['caption']}; `{run['command']}`."
        for name, run in shown.items()
    ]
    return "\n".join([*lines, "", "Test accuracy in percent: mean (min - max).", "", *notes])


def collect(workdir: Path, *, any_data: bool = False) -> dict[str, dict[str, Any]]:
    """{record: what is kept of a run of several nets}, paths of the machine left out.

    The records are "depth" and "gradients" of a run of the stated configuration, "hypotheses.NAME"
    of one that differs in the keys of a hypothesis.
    any_data: take the run on whatever data it was; nothing must be published of it then.
    Raises UserError if the run is not finished, or of another configuration or other data.
    """
    summary = run_directory.finished_summary(workdir)
    if summary is None or "nets" not in summary:
        raise UserError(f"{workdir} holds no finished run of several nets (no such summary.json)")
    versions = json.loads((workdir / "versions.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    name = _configuration(workdir, config, list(summary["nets"]))
    if not versions["data"].get("full", versions["data"]["name"] == "MNIST") and not any_data:
        raise UserError(f"{workdir} was not run on the full MNIST: {versions['data']['caption']}")
    origin = {
        "command": _command(config),
        "epochs": config["epochs"],
        "data": {k: v for k, v in versions["data"].items() if k != "source"},
        "device": versions["device"],
        "packages": versions["packages"],
        "git_commit": versions["git_commit"],
    }
    rows = {net: run_directory.rows(workdir / net) for net in summary["nets"]}
    last = {key: {net: rows[net][-1][key] for net in rows} for key in _CURVES}
    if name:
        return {f"hypotheses.{name}": {**origin, **last}}
    figure = (workdir / "figures" / f"{FIGURE}.png").read_bytes()
    nets = {net: _gradients(run_directory.gradients(workdir / net)) for net in rows}
    return {
        "depth": {
            **origin,
            "figure_sha256": hashlib.sha256(figure).hexdigest(),
            **last,
            "curves": {net: {key: _curve(rows[net], key) for key in _CURVES} for net in rows},
        },
        "gradients": {**origin, "readings": list(READINGS), "nets": nets},
    }


def _configuration(workdir: Path, config: Mapping[str, Any], nets: list[str]) -> str:
    """The hypothesis that a run is of, "" for the stated configuration.

    Raises UserError naming the keys that differ if it is neither.
    """
    stated = json.loads(mlp.get_config("all").to_json())
    asked = {"cpu_devices": 0, "data_devices": 0, "matmul_precision": "highest"} | dict(config)
    changed = {key for key in stated if asked[key] != stated[key] and key not in _FREE_KEYS}
    for name, changes in HYPOTHESES.items():
        differ = changed - {"probe", "nets"}
        if differ == set(changes) and all(config[key] == changes[key] for key in changes):
            return name
    if set(nets) != set(REPORTED):
        raise UserError(f"{workdir} does not hold the twelve nets of the report")
    if changed or config["seeds"] < 2:
        wrong = ", ".join(key for key in stated if key in changed) or "seeds: fewer than two"
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    return ""


def _command(config: Mapping[str, Any]) -> str:
    stated = json.loads(mlp.get_config("all").to_json())
    words = ["python -m research.main --config=configs/mlp.py:all"]
    for key in ("nets", "init", "epochs", "batch_size", "seeds", "probe"):
        if config[key] != stated[key]:
            value = tuple(config[key]) if isinstance(config[key], list) else config[key]
            word = f"--config.{key}={value}"
            words.append(f'"{word}"' if key == "nets" else word)
    return " ".join([*words, "--config.data.dir=DIR"])


def _curve(rows: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
    """Mean, lowest and highest of the seeds after every epoch."""
    values = np.array([np.atleast_1d(row[key]) for row in rows], np.float64)
    return {
        "mean": _short(values.mean(axis=1)),
        "low": _short(values.min(axis=1)),
        "high": _short(values.max(axis=1)),
    }


def _gradients(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is kept of gradients.npz: {reading: its curves and extremes}, and the decay."""
    kept: dict[str, Any] = {}
    for reading in (*READINGS, _SIGNAL):
        whole = reading == READINGS[0]
        values = arrays[reading] if whole else arrays[reading][: EPOCHS[-1] + 1]
        kept[reading] = {
            name: [_short(layers) for layers in reduce(values, axis=1)]
            for name, reduce in _BANDS.items()
        }
        early = values[list(EPOCHS)]  # [epoch, seed, layer]
        kept[reading] |= {
            "largest": _short(early.max(axis=(0, 2))),
            "smallest": _short(early.min(axis=(0, 2))),
            "middle": _short(np.median(early.max(axis=0), axis=1)),
            "peak": [int(layer) + 1 for layer in early.max(axis=0).argmax(axis=1)],
        }
    kept["signal_decay"] = _short(_decay(arrays["signal_abs_mean"][0]))
    return kept


_BANDS: dict[str, Callable[..., np.ndarray]] = {"median": np.median, "low": np.min, "high": np.max}


def _decay(signal: np.ndarray) -> np.ndarray:
    """[S]: by what factor the signal [S, L] changes a hidden layer, from the last to the first.

    The output layer is left out: what leaves it is the error, not what an activation let through.
    """
    hidden = signal[:, :-1].astype(np.float64)
    steps = hidden.shape[1] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return (hidden[:, 0] / hidden[:, -1]) ** (1 / max(steps, 1))


def _short(values: np.ndarray) -> list[float]:
    """Four digits of each: more than any table or figure shows."""
    return [float(f"{value:.4g}") for value in np.asarray(values, np.float64)]
