"""Figures of the report, redrawn by `research.figures` as pictures of the page.

A figure of the page is {number, title, alt, caption, command, source, width, height}: `source` is
an SVG as an address of its own data, `alt` says what it shows, with its numbers, to who cannot see
it.  Source: report, figures 1-5 and 17.
"""

import base64
import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from research.figures.curves import draw_curves_with_stop, draw_learning_curves
from research.figures.depth import (
    draw_accuracies,
    draw_gradient_comparison,
    draw_gradient_maxima,
)
from research.figures.style import ACTIVATIONS, Spread
from research.ledger.published import command
from research.ledger.tables import depth as depth_tables
from research.storage.run_directory import Run

_DEPTHS = (5, 20, 40)
_EPOCHS = (0, 1, 2, 3)  # 0 is before the first step; the report trains Part C for three
_STATISTIC = "kernel_abs_max"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SVG: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "page",
}  # the same figure, the same bytes
_PX_PER_IN = 110  # on the page
# Loss and accuracy by epoch, in training and on the validation set: report, figure 16.
REPORTED_MASKS = {
    "train_loss": (.4187, .3525, .3395, .3273, .3073, .2980, .2794, .2494, .2145, .1780, .1471,
                   .1218, .0914, .0594),
    "train_accuracy": (.7969, .8331, .8426, .8484, .8584, .8652, .8763, .8902, .9087, .9258, .9423,
                       .9536, .9662, .9796),
    "val_loss": (.3433, .3581, .3174, .3172, .3270, .3299, .3151, .3894, .3355, .3116, .4401,
                  .5792, .4709, .6566),
    "val_accuracy": (.8405, .8210, .8550, .8545, .8460, .8475, .8710, .8345, .8800, .8605, .8500,
                      .8680, .8710, .8675),
}  # fmt: skip


def power(value: float) -> str:
    """A number to two digits as one reads it: "0.053", "8.2·10⁻⁷"."""
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def svg(figure: Figure) -> dict[str, Any]:
    """A figure as an SVG on a transparent ground: its address, and its size in pixels."""
    stream = io.BytesIO()
    with matplotlib.rc_context(_SVG):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    source = f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"
    width, height = (round(_PX_PER_IN * side) for side in figure.get_size_inches())
    return {"source": source, "width": width, "height": height}


def accuracies(run: Run) -> dict[str, Any]:
    """The seeds of the nets of a depth study beside what the report says."""
    values = {net: part.summary["test_accuracy"] for net, part in run.nets.items()}
    reported = depth_tables.REPORTED
    means = [f"{_net(n)} {100 * np.mean(v):.1f} ({reported[n]:g})" for n, v in values.items()]
    return {
        "number": "Parts B and D",
        "title": "Test accuracy of the twelve nets",
        "alt": "Mean test accuracy of our seeds in percent, in brackets the report's: "
        + "; ".join(means)
        + ".",
        "caption": f"After {run.config['epochs']} epochs; {_setting(run)}.",
        "command": command(run),
        **svg(draw_accuracies(values, reported, title="", caption=run.caption)),
    }


def gradient_maxima(run: Run, depth: int, number: int) -> dict[str, Any]:
    """Depth against the largest gradient of nets of one depth: report, figures 1 to 3."""
    nets = [f"{name}-{depth}" for name in ("relu", "tanh", "sigmoid")]
    records = {net: gradients(run.nets[net]) for net in nets}
    drawn = draw_gradient_maxima(records, epochs=_EPOCHS, title="", caption=run.caption)
    return {
        "number": f"Figure {number}",
        "title": f"Largest gradient by layer, {depth} hidden layers",
        "alt": f"{depth} hidden layers, largest weight gradient after epoch 3, median of the "
        f"seeds: {_ends(records)}.",
        "caption": _about_gradients(run),
        "command": command(run),
        **svg(drawn),
    }


def gradient_comparison(run: Run) -> dict[str, Any]:
    """LeCun's gradients beside those of tanh at every depth: report, figure 5."""
    nets = [f"{name}-{depth}" for depth in _DEPTHS for name in ("tanh", "lecun")]
    records = {net: gradients(run.nets[net]) for net in nets}
    drawn = draw_gradient_comparison(records, epochs=_EPOCHS, title="", caption=run.caption)
    return {
        "number": "Figure 5",
        "title": "Largest gradient by layer, LeCun and tanh",
        "alt": f"Largest weight gradient after epoch 3, median of the seeds: {_ends(records)}.",
        "caption": _about_gradients(run),
        "command": command(run),
        **svg(drawn),
    }


def learning_curves(run: Run) -> dict[str, Any]:
    """Accuracy and loss of tanh and LeCun over the epochs: report, figure 4."""
    nets = [f"{name}-{depth}" for depth in _DEPTHS for name in ("tanh", "lecun")]
    tables = {net: curves(run.nets[net]) for net in nets}
    last = [
        f"{_net(net)} {quantity} {factor * tables[net][f'test_{quantity}'].middle[-1]:.4g}"
        for quantity, factor in (("accuracy", 100), ("loss", 1))
        for net in nets
    ]
    return {
        "number": "Figure 4",
        "title": "Learning curves, LeCun and tanh",
        "alt": "On the test set after the last epoch, mean of the seeds: " + "; ".join(last) + ".",
        "caption": "Training dashed, test solid.",
        "command": command(run),
        **svg(draw_learning_curves(tables, title="", caption=run.caption)),
    }


def mask_curves(run: Run) -> dict[str, Any]:
    """Accuracy and loss of the face-mask net, a line a seed, and the report's: figure 17."""
    by_seed = zip(*(np.atleast_1d(row["val_accuracy"]) for row in run.metrics), strict=True)
    ends = [100 * [v for v in seed if v is not None and np.isfinite(v)][-1] for seed in by_seed]
    stops = ", ".join(str(epoch) for epoch in run.summary["epochs_trained"])
    drawn = draw_curves_with_stop(
        run.metrics, reported=reported_masks(), title="", caption=run.caption
    )
    return {
        "number": "Figure 17",
        "title": "The face-mask net in training",
        "alt": f"Early stopping ended the seeds after {stops} epochs, with a validation accuracy "
        f"of {', '.join(f'{end:.1f}' for end in ends)} percent; the report's after 14 epochs, with "
        f"{100 * REPORTED_MASKS['val_accuracy'][-1]:.1f} percent.",
        "caption": f"{len(ends)} seeds, each as long as it was trained, beside the log of the "
        "report, which had 12,243 faces, of which part cannot be had.",
        "command": command(run),
        **svg(drawn),
    }


def gradients(net: Run, statistic: str = _STATISTIC) -> dict[str, Any]:
    """A statistic of a net's gradients for `figures.depth`: {epochs, layers, statistic: Spread}.

    {} of a net that was not probed.  Raises KeyError for another statistic than
    `ledger.tables.depth.gradients` gives.
    """
    kept = depth_tables.gradients(net)
    if not kept:
        return {}
    median, low, high = (
        np.array(kept[statistic][part], np.float64) for part in ("median", "low", "high")
    )
    hidden = [f"hidden_{i}" for i in range(median.shape[1] - 1)]
    return {
        "epochs": np.arange(len(median)),
        "layers": np.array([*hidden, "output"]),
        statistic: Spread(median, low, high, _seeds(net), np.zeros(median.shape, int)),
    }


def curves(net: Run) -> dict[str, Any]:
    """The metrics of a net for `figures.curves`: {epoch: [E], test_loss: Spread [E], ...}."""
    table: dict[str, Any] = {}
    for key, kept in depth_tables.curves(net).items():
        mean, low, high = (np.array(kept[part], np.float64) for part in ("mean", "low", "high"))
        table[key] = Spread(mean, low, high, _seeds(net), np.zeros(mean.shape, int), "mean")
        table["epoch"] = np.arange(1, len(mean) + 1)
    return table


def reported_masks() -> list[dict[str, float]]:
    """The log of the report's face-mask net, a row for each epoch: its figure 16."""
    return [
        {"epoch": epoch, **dict(zip(REPORTED_MASKS, values, strict=True))}
        for epoch, values in enumerate(zip(*REPORTED_MASKS.values(), strict=True), 1)
    ]


def _seeds(net: Run) -> int:
    return len(np.atleast_1d(net.summary["test_accuracy"]))


def _ends(records: Mapping[str, Mapping[str, Any]]) -> str:
    """ "ReLU-5 0.19 in the first layer, 0.85 in the output; ..." """
    medians = {net: record[_STATISTIC].middle[_EPOCHS[-1]] for net, record in records.items()}
    return "; ".join(
        f"{_net(net)} {power(median[0])} in the first layer, {power(median[-1])} in the output"
        for net, median in medians.items()
    )


def _about_gradients(run: Run) -> str:
    return (
        f"Before the first step and after epochs 1, 2 and 3; {_setting(run)}. On a log axis a band "
        "that holds zero ends at the axis."
    )


def _setting(run: Run) -> str:
    config = run.config
    return (
        f"{config['width']} units a layer, batches of {config['batch_size']}, "
        f"SGD {config['learning_rate']:g}"
    )


def _net(net: str) -> str:
    """ "ReLU-40" from "relu-40"."""
    name, _, depth = net.partition("-")
    return f"{ACTIVATIONS[name][0]}-{depth}"
