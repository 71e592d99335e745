"""Tables of the depth study, and its curves and gradients over the seeds."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research.ledger.published import command
from research.storage.run_directory import Run
from research.theory import comparison, depth_scales

EPOCHS = (1, 2, 3)  # that the report shows the gradients of
# The four readings of the report's "max gradient"; the first is the one that is drawn.
READINGS = ("kernel_abs_max", "layer_abs_max", "kernel_signed_max", "kernel_abs_last")
# Other settings that are run beside the stated ones, by the names of their runs.
HYPOTHESES = ("batch-32", "epochs-20", "he")
_SIGNAL = "signal_abs_max"
_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")

# Test accuracy in percent, report Parts B and D.
REPORTED = {
    "relu-5": 96.2, "relu-20": 91.8, "relu-40": 19.6,
    "tanh-5": 96.1, "tanh-20": 96.2, "tanh-40": 95.4,
    "sigmoid-5": 11.3, "sigmoid-20": 11.3, "sigmoid-40": 11.3,
    "lecun-5": 96.1, "lecun-20": 96.2, "lecun-40": 96.3,
}  # fmt: skip


def table(run: Run) -> str:
    """Markdown table of test accuracies, a row a net."""
    lines = [
        "| net | mean | sd | min | max | the report |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, net in run.nets.items():
        values = 100 * np.atleast_1d(net.summary["test_accuracy"])
        sd = f"{values.std(ddof=1):.2f}" if len(values) > 1 else "-"
        cells = f"{values.mean():.2f} | {sd} | {values.min():.2f} | {values.max():.2f}"
        reported = f"{REPORTED[name]:.1f}" if name in REPORTED else "-"
        lines.append(f"| {name} | {cells} | {reported} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Test accuracy in percent after {run.config['epochs']} epochs, "
            f"{run.config['seeds']} seeds. Data: {run.caption}. Device: {run.versions['device']}, "
            f"jax {run.versions['packages']['jax']}. Command: `{command(run)}`.",
        ]
    )


def hypotheses_table(runs: Mapping[str, Run]) -> str:
    """Markdown table of other settings, a column each; nets that none of them has are left out."""
    lines = [
        f"| net | {' | '.join(runs)} | the report |",
        f"|---|{'---:|' * (len(runs) + 1)}",
    ]
    for net, reported in REPORTED.items():
        cells: list[str] = []
        for run in runs.values():
            if net not in run.nets:
                cells.append("-")
                continue
            values = 100 * np.atleast_1d(run.nets[net].summary["test_accuracy"])
            cells.append(f"{values.mean():.2f} ({values.min():.2f} - {values.max():.2f})")
        if set(cells) != {"-"}:
            lines.append(f"| {net} | {' | '.join(cells)} | {reported:.1f} |")
    notes = [
        f"- {name}: {run.config['seeds']} seeds; {run.caption}; `{command(run)}`."
        for name, run in runs.items()
    ]
    return "\n".join([*lines, "", "Test accuracy in percent: mean (min - max).", "", *notes])


def why_table(run: Run, theory: Mapping[str, Any]) -> str:
    """Markdown table of what the first signal says of each net, beside what became of the net.

    theory: as `benchmarks.theory` writes it, {"seeds": number, "nets": {net: {side: {statistic:
    [L + 1]}}}}, sides "predicted" and "measured".
    """
    lines = [
        "| net | signal a layer: predicted | measured | depth in scales | weight gradients: "
        "measured / predicted, farthest layer | test accuracy (%) | so |",
        f"|---|{'---:|' * 5}---|",
    ]
    for net, part in run.nets.items():
        if net not in theory["nets"]:
            continue
        sides = theory["nets"][net]
        signals = [np.array(sides[side]["signal_rms"]) for side in ("predicted", "measured")]
        steps = max(len(signals[0]) - 2, 1)
        rates = [f"{(signal[0] / signal[-2]) ** (1 / steps):.3f}" for signal in signals]
        scales = 2 * abs(np.log(signals[0][0] / signals[0][-2]))
        kernels = [np.array(sides[side]["kernel_rms"]) for side in ("predicted", "measured")]
        ratio = kernels[1] / kernels[0]
        worst = int(np.argmax(np.abs(np.log(ratio))))
        accuracy = np.mean(np.atleast_1d(part.summary["test_accuracy"]))
        arrives, trained = scales <= depth_scales.LIMIT, accuracy >= depth_scales.TRAINED
        if arrives:
            fate = f"the signal arrives, the net {'trains' if trained else 'fails all the same'}"
        else:
            fate = f"the signal is lost, {'many steps mend it' if trained else 'and so is the net'}"
        far = max(ratio[worst], 1 / ratio[worst]) > comparison.TOLERANCE
        lines.append(
            f"| {net} | {rates[0]} | {rates[1]} | {scales:.1f} | {ratio[worst]:.2f} in layer "
            f"{worst + 1} | {100 * accuracy:.1f} | {fate}"
            f"{'; theory is off where named' if far else ''} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Before the first step: medians of {theory['seeds']} seeds and of one batch of 64. "
            "Depth in scales: predicted, |ln| of the mean square of the signal in the first hidden "
            f"layer over the last; up to {depth_scales.LIMIT:g} it arrives. Accuracy: mean of "
            f"the {run.config['seeds']} seeds of results/depth. A net trains from "
            f"{depth_scales.TRAINED:.0%}; theory is off beyond a factor {comparison.TOLERANCE:g}.",
        ]
    )


def curves(net: Run) -> dict[str, dict[str, list[float]]]:
    """{"test_loss": {"mean", "low", "high"}, ...}: of the seeds of a net, lists [E] over epochs.

    net: of `Run.nets`; with the losses and accuracies of `_CURVES`, accuracies as fractions.
    """
    if "curves" in net.over_seeds:
        return net.over_seeds["curves"]
    return {key: _curve(net.metrics, key) for key in _CURVES} if net.metrics else {}


def gradients(net: Run) -> dict[str, Any]:
    """The gradients of the seeds of a net, to four digits; {} of a net that was not probed.

    {statistic: {"median", "low", "high": lists [E + 1, L] over the seeds, epoch 0 being the net
    before its first step; and of epochs 1 to 3, one number a seed [S]: "largest" and "smallest" of
    all layers, "middle": the median over the layers, "peak": the layer of the largest, from 1},
    "signal_decay": [S]}; the statistics are `READINGS` and "signal_abs_max". Other than that of the
    first reading, medians and extremes end with epoch 3.
    """
    if "gradients" in net.over_seeds:
        return net.over_seeds["gradients"]
    return _gradients(net.gradients) if net.gradients else {}


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
        early = values[1 : EPOCHS[-1] + 1]  # [epoch, seed, layer]; a short run has fewer epochs
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
