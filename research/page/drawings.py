"""Figures of the report, redrawn: panels with their legend, caption and a text in their place.

A figure is {number, title, panels: [{title, svg}], legend: [{name, colour, marker}], alt,
caption, command}. `alt` says what the picture shows, with its numbers, to who cannot see it.
Source: report, figures 1-5 and 17.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.page.charts import ACTIVATIONS, NARROW, WIDTH, Line, panel, strips

_DEPTHS = (5, 20, 40)
_EPOCHS = (1, 2, 3)  # after which the report shows the gradients
_READING = "kernel_abs_max"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DASHED = (5.0, 3.0)
# Loss and accuracy by epoch, in training and on the test set: report, figure 16.
REPORTED_MASKS = {
    "train_loss": (.4187, .3525, .3395, .3273, .3073, .2980, .2794, .2494, .2145, .1780, .1471,
                   .1218, .0914, .0594),
    "train_accuracy": (.7969, .8331, .8426, .8484, .8584, .8652, .8763, .8902, .9087, .9258, .9423,
                       .9536, .9662, .9796),
    "test_loss": (.3433, .3581, .3174, .3172, .3270, .3299, .3151, .3894, .3355, .3116, .4401,
                  .5792, .4709, .6566),
    "test_accuracy": (.8405, .8210, .8550, .8545, .8460, .8475, .8710, .8345, .8800, .8605, .8500,
                      .8680, .8710, .8675),
}  # fmt: skip

Figure = dict[str, Any]


def power(value: float) -> str:
    """A number to two digits as one reads it: "0.053", "8.2·10⁻⁷"."""
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def accuracies(depth: Mapping[str, Any], reported: Mapping[str, float]) -> Figure:
    """The seeds of the twelve nets beside what the report says; depth: results/depth.json."""
    found = {net: 100 * np.asarray(depth["test_accuracy"][net]) for net in reported}
    rows = [
        (_net(net), ACTIVATIONS[net.partition("-")[0]][1], found[net].tolist(), reported[net])
        for net in reported
    ]
    said = [f"{_net(net)} {found[net].mean():.1f} ({reported[net]:g})" for net in reported]
    return {
        "number": "Parts B and D",
        "title": "Test accuracy of the twelve nets",
        "panels": [
            {"title": title, "svg": strips(rows, ends)}
            for title, ends in (("all", (0.0, 100.0)), ("those above 90 %", (90.0, 98.0)))
        ],
        "legend": [*_legend(ACTIVATIONS), _key("the report", "var(--ink)", "bar")],
        "alt": "Mean test accuracy of our seeds in percent, in brackets the report's: "
        + "; ".join(said)
        + ".",
        "caption": f"A dot for each of {_seeds(found)} seeds after {depth['epochs']} epochs, "
        f"batches of 64, SGD 0.01. Data: {depth['data']['caption']}.",
        "command": depth["command"],
    }


def gradient_maxima(gradients: Mapping[str, Any], seeds: int, depth: int, number: int) -> Figure:
    """Depth against the largest gradient of nets of one depth: report, figures 1 to 3."""
    nets = {name: f"{name}-{depth}" for name in ("relu", "tanh", "sigmoid")}
    return {
        "number": f"Figure {number}",
        "title": f"Largest gradient by layer, {depth} hidden layers",
        "panels": _beside(gradients, [nets], [""]),
        "legend": _legend(nets) + _epoch_keys(),
        "alt": f"{depth} hidden layers, largest weight gradient after epoch 3, median of the "
        f"seeds: {_ends(gradients, nets.values())}.",
        **_about(gradients, seeds),
    }


def gradient_comparison(gradients: Mapping[str, Any], seeds: int) -> Figure:
    """LeCun's gradients beside those of tanh at every depth: report, figure 5."""
    groups = [{name: f"{name}-{depth}" for name in ("tanh", "lecun")} for depth in _DEPTHS]
    titles = [f"{depth} hidden layers" for depth in _DEPTHS]
    nets = [net for group in groups for net in group.values()]
    return {
        "number": "Figure 5",
        "title": "Largest gradient by layer, LeCun and tanh",
        "panels": _beside(gradients, groups, titles),
        "legend": _legend(groups[0]) + _epoch_keys(),
        "alt": "Largest weight gradient after epoch 3, median of the seeds: "
        f"{_ends(gradients, nets)}.",
        **_about(gradients, seeds),
    }


def learning_curves(depth: Mapping[str, Any]) -> Figure:
    """Accuracy and loss of tanh and LeCun over the epochs: report, figure 4."""
    panels: list[dict[str, str]] = []
    last: list[str] = []
    for quantity, factor, unit in (("accuracy", 100.0, "accuracy (%)"), ("loss", 1.0, "loss")):
        for layers in _DEPTHS:
            lines: list[Line] = []
            for name in ("tanh", "lecun"):
                curves = depth["curves"][f"{name}-{layers}"]
                for split, dash in (("train", _DASHED), ("test", ())):
                    lines.append(_learning(curves[f"{split}_{quantity}"], name, factor, dash))
                final = factor * curves[f"test_{quantity}"]["mean"][-1]
                last.append(f"{_net(f'{name}-{layers}')} {quantity} {final:.4g}")
            svg = panel(lines, x="epoch", y=unit, log=quantity == "loss", width=NARROW)
            panels.append({"title": f"{layers} hidden layers, {quantity}", "svg": svg})
    return {
        "number": "Figure 4",
        "title": "Learning curves, LeCun and tanh",
        "panels": panels,
        "legend": [
            *_legend(["tanh", "lecun"]),
            _key("train", "var(--ink)", "dashed"), _key("test", "var(--ink)", "line"),
        ],
        "alt": "On the test set after the last epoch, mean of the seeds: " + "; ".join(last) + ".",
        "caption": f"Mean of {_seeds(depth['test_accuracy'])} seeds, and from the lowest to the "
        f"highest on the test set. Data: {depth['data']['caption']}.",
        "command": depth["command"],
    }  # fmt: skip


def mask_curves(run: Mapping[str, Any]) -> Figure:
    """Accuracy and loss of the face-mask net, a line a seed, and the report's: figure 17."""
    panels: list[dict[str, str]] = []
    for quantity, factor, unit in (("accuracy", 100.0, "accuracy (%)"), ("loss", 1.0, "loss")):
        lines: list[Line] = []
        for split, dash, colour in (("train", _DASHED, "var(--relu)"), ("test", (), "var(--tanh)")):
            key = f"{split}_{quantity}"
            said = [factor * value for value in REPORTED_MASKS[key]]
            lines.append(Line(_count(said), said, "var(--muted)", width=1.5, dash=dash))
            for curve in _columns(run["curves"][key]):
                values = [factor * value for value in curve]
                lines.append(Line(_count(values), values, colour, width=1.8, dash=dash))
        svg = panel(lines, x="epoch", y=unit, log=quantity == "loss")
        panels.append({"title": quantity, "svg": svg})
    ends = [100 * curve[-1] for curve in _columns(run["curves"]["test_accuracy"])]
    stops = ", ".join(str(epoch) for epoch in run["epochs_trained"])
    return {
        "number": "Figure 17",
        "title": "The face-mask net in training",
        "panels": panels,
        "legend": [
            _key("train", "var(--relu)", "dashed"), _key("test", "var(--tanh)", "line"),
            _key("the report, train", "var(--muted)", "dashed"),
            _key("the report, test", "var(--muted)", "line"),
        ],
        "alt": f"Early stopping ended the seeds after {stops} epochs, with a test accuracy of "
        f"{', '.join(f'{end:.1f}' for end in ends)} percent; the report's after 14 epochs, with "
        f"{100 * REPORTED_MASKS['test_accuracy'][-1]:.1f} percent.",
        "caption": f"{len(run['seeds'])} seeds, each as long as it was trained. Data: "
        f"{run['data']['caption']}; the report had 12,243 faces, of which part cannot be had.",
        "command": run["command"],
    }  # fmt: skip


def _beside(
    gradients: Mapping[str, Any], groups: Sequence[Mapping[str, str]], titles: Sequence[str]
) -> list[dict[str, str]]:
    """Panels with a linear axis, then the same with a log axis."""
    panels: list[dict[str, str]] = []
    width = WIDTH if len(groups) == 1 else NARROW
    for log in (False, True):
        scale = "log axis" if log else "linear axis"
        for group, title in zip(groups, titles, strict=True):
            lines = [
                line for name, net in group.items() for line in _over_depth(gradients, name, net)
            ]
            svg = panel(lines, x="layer, the last is the output", y="max |∂L/∂W|", log=log,
                        zero=True, width=width)  # fmt: skip
            panels.append({"title": f"{title}, {scale}" if title else scale, "svg": svg})
    return panels


def _over_depth(gradients: Mapping[str, Any], name: str, net: str) -> list[Line]:
    """A line an epoch, from faint to full, the band and the markers with the last."""
    _, colour, marker = ACTIVATIONS[name]
    kept = gradients["nets"][net][_READING]
    layers = range(1, len(kept["median"][0]) + 1)
    stride = max(1, len(layers) // 6)
    offset = list(ACTIVATIONS).index(name) * stride // len(ACTIVATIONS)
    start = Line(layers, kept["median"][0], colour, width=1.2, dash=(1.5, 3.0))
    lines = [start]
    for epoch in _EPOCHS:
        last = epoch == _EPOCHS[-1]
        lines.append(
            Line(
                layers,
                kept["median"][epoch],
                colour,
                low=kept["low"][epoch] if last else None,
                high=kept["high"][epoch] if last else None,
                width=0.6 + 0.55 * epoch,
                opacity=(0.4, 0.65, 1.0)[epoch - 1],
                marker=marker if last else "",
                every=stride,
                offset=offset,
            )
        )
    return lines


def _learning(
    curve: Mapping[str, Sequence[float]], name: str, factor: float, dash: tuple[float, ...]
) -> Line:
    _, colour, marker = ACTIVATIONS[name]
    mean, low, high = ([factor * v for v in curve[key]] for key in ("mean", "low", "high"))
    ends = {} if dash else {"low": low, "high": high, "marker": marker, "every": 3}
    return Line(_count(mean), mean, colour, dash=dash, **ends)


def _ends(gradients: Mapping[str, Any], nets: Iterable[str]) -> str:
    """ "ReLU-5 0.19 in the first layer, 0.85 in the output; ..." """
    said: list[str] = []
    for net in nets:
        median = gradients["nets"][net][_READING]["median"][_EPOCHS[-1]]
        said.append(
            f"{_net(net)} {power(median[0])} in the first layer, {power(median[-1])} in the output"
        )
    return "; ".join(said)


def _about(gradients: Mapping[str, Any], seeds: int) -> dict[str, str]:
    return {
        "caption": f"Largest |∂L/∂W| of all batches of an epoch, before the first step and after "
        f"epochs 1, 2 and 3: median of {seeds} seeds, and from the lowest to the highest after "
        "epoch 3; on a log axis a band that holds zero ends at the axis. "
        "32 units a layer, batches of 64, SGD 0.01. "
        f"Data: {gradients['data']['caption']}.",
        "command": gradients["command"],
    }


def _legend(names: Iterable[str]) -> list[dict[str, str]]:
    return [_key(*ACTIVATIONS[name]) for name in names]


def _epoch_keys() -> list[dict[str, str]]:
    return [_key("before the first step", "var(--ink)", "dotted"),
            _key("epochs 1, 2, 3: from faint to full", "var(--ink)", "fading")]  # fmt: skip


def _key(name: str, colour: str, marker: str) -> dict[str, str]:
    return {"name": name, "colour": colour, "marker": marker}


def _net(net: str) -> str:
    """ "ReLU-40" from "relu-40"."""
    name, _, depth = net.partition("-")
    return f"{ACTIVATIONS[name][0]}-{depth}"


def _seeds(by_net: Mapping[str, Any]) -> int:
    return len(next(iter(by_net.values())))


def _count(values: Sequence[float]) -> range:
    return range(1, len(values) + 1)


def _columns(rows: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """One curve a seed, as long as it was trained."""
    return [
        [v for v in column if v is not None and np.isfinite(v)]
        for column in zip(*rows, strict=True)
    ]
