"""Learning curves: accuracy and loss over the epochs.

Source: report, Part D, figure 4 (depth study), and Exercise 3, figures 16 and 17 (face masks).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from research.figures.style import (
    ACTIVATIONS,
    STYLE,
    WIDTH_IN,
    Curve,
    activation_handles,
    activation_name,
    describe_curves,
    frame,
    limit_log,
    over_seeds,
    plot,
    split_label,
)

# Rows as in metrics.jsonl, one for each epoch: epoch, train_loss, train_accuracy, test_loss and
# test_accuracy (val_ in the place of test_ where a training stops early), each a number or a list
# over seeds. Or the same as columns: epoch [E], and the others as values [E, S] or a `Spread` [E].
# Accuracies are fractions.
Metrics = Sequence[Mapping[str, Any]] | Mapping[str, Any]

_SPLITS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": (0, (3.5, 1.5)), "markerfacecolor": "white"},
    "test": {"linestyle": "-"},
}
_STOPPED_SPLITS = {"train": _SPLITS["train"], "val": _SPLITS["test"]}
_UNITS = {"accuracy": "accuracy (%)", "loss": "cross-entropy (nats)"}
_FACTORS = {"accuracy": 100.0, "loss": 1.0}
_ONE_NET = ("#0072B2", "o")  # colour and marker
_COLOURS = {"train": "#D55E00", "val": "#0072B2"}
_BEST: dict[str, Any] = {
    "color": "black",
    "marker": "o",
    "markersize": 6,
    "markerfacecolor": "none",
    "linestyle": "",
}
_STOP: dict[str, Any] = {
    "color": "black",
    "marker": "x",
    "markersize": 5,
    "markeredgewidth": 1.4,
    "linestyle": "",
}


def draw_learning_curves(metrics: Mapping[str, Metrics], *, title: str, caption: str) -> Figure:
    """Draws accuracy and loss over the epochs, train dashed and test solid, a column a depth.

    metrics: {"tanh-40": rows or columns, see `Metrics`}.
    The title of a column holds the test accuracy of the last epoch, the middle of the seeds. Nets
    of a single depth get accuracy beside loss.
    Raises ValueError for a wrong label, no rows, a missing key, or rows that differ in seeds.
    Source: report, Part D, figure 4.
    """
    tables = {label: _columns(label, rows) for label, rows in metrics.items()}
    depths = sorted({split_label(label)[1] for label in tables})
    if not depths:
        raise ValueError("expected at least one net, got none")
    shape, height = ((2, len(depths)), 4.6) if len(depths) > 1 else ((1, 2), 3.3)
    drawn: dict[str, list[Curve]] = {"accuracy": [], "loss": []}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height))
        sharey = "row" if len(depths) > 1 else "none"
        axes = figure.subplots(*shape, sharey=sharey, squeeze=False).reshape(2, len(depths))
        for column, depth in zip(axes.T, depths, strict=True):
            nets = [label for label in tables if split_label(label)[1] == depth]
            for axis, quantity in zip(column, drawn, strict=True):
                for net in nets:
                    _, colour, marker = ACTIVATIONS[split_label(net)[0]]
                    drawn[quantity] += _train_and_test(net, tables[net], quantity, colour, marker)
                curves = drawn[quantity][-2 * len(nets) :]
                plot(axis, curves, log=quantity == "loss")
                _tick_epochs(axis)
                axis.set_xlabel("epoch" if shape[0] == 1 or axis is column[1] else "")
            tests = drawn["accuracy"][1 - 2 * len(nets) :: 2]
            finals = [f"{activation_name(c.label)} {c.spread.middle[-1]:.2f}" for c in tests]
            text = textwrap.fill(f"final test %: {', '.join(finals)}", 40)
            column[0].set_title(f"{depth} hidden layers\n{text}", fontsize=7.5)
        axes[0, 0].set_ylabel(_UNITS["accuracy"])
        axes[1, 0].set_ylabel(_UNITS["loss"])
        for axis in axes[0]:
            low, high = axis.get_ylim()
            spare = max(0.0, 10.0 - (high - low)) / 2
            axis.set_ylim(max(0.0, low - spare), high + spare)
            axis.yaxis.set_major_locator(MaxNLocator(6))
        limit_log(axes[1, 0], drawn["loss"], decades=False)
        sentences = describe_curves(drawn["accuracy"] + drawn["loss"], drawn["loss"])
        frame(figure, title, sentences, caption, activation_handles(tables), _split_handles("0.2"))
    return figure


def draw_net_curves(metrics: Metrics, *, label: str, title: str, caption: str) -> Figure:
    """Draws accuracy beside loss of one net over the epochs, train dashed and test solid.

    label: the net's name in messages.
    Raises ValueError for no rows, a missing key, or rows that differ in seeds.
    """
    table = _columns(label, metrics)
    drawn = {quantity: _train_and_test(label, table, quantity, *_ONE_NET) for quantity in _UNITS}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.3))
        axes = figure.subplots(1, 2)
        for axis, (quantity, curves) in zip(axes, drawn.items(), strict=True):
            plot(axis, curves, log=quantity == "loss")
            _tick_epochs(axis)
            _ = axis.set(xlabel="epoch", ylabel=_UNITS[quantity])
            train, test = (curve.spread.middle[-1] for curve in curves)
            ends = f"train {train:.4g}, test {test:.4g}"
            axis.set_title(f"after the last epoch: {ends}", fontsize=7.5)
        limit_log(axes[1], drawn["loss"], decades=False)
        sentences = describe_curves(drawn["accuracy"] + drawn["loss"], drawn["loss"])
        frame(figure, title, sentences, caption, _split_handles(_ONE_NET[0]))
    return figure


def draw_curves_with_stop(
    metrics: Metrics, *, title: str, caption: str, reported: Metrics | None = None
) -> Figure:
    """Draws accuracy and loss over the epochs, where each seed was best and where it stopped.

    metrics: values of the seeds, None or NaN where a seed had stopped before. Seeds are thin lines,
    their mean a thick one as far as all of them go. The best epoch is the first of the smallest
    validation loss, which is what early stopping watches.
    reported: the same of the report's net, drawn in grey.
    Raises ValueError for no rows, a missing key, rows that differ in seeds, or a seed without a
    validation loss. Source: report, Exercise 3, figure 17.
    """
    table = _columns("the net", metrics, _STOPPED_SPLITS)
    epochs, watched = table["epoch"], np.asarray(table["val_loss"])
    going = np.isfinite(watched)
    if not going.any(axis=0).all():
        raise ValueError("expected a validation loss of every seed, got one without")
    best = np.nanargmin(np.where(going, watched, np.nan), axis=0)
    last = len(epochs) - 1 - going[::-1].argmax(axis=0)
    seeds = np.arange(len(best))
    report = None if reported is None else _columns("the report", reported, _STOPPED_SPLITS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.4))
        axes = figure.subplots(1, 2)
        for axis, (quantity, factor) in zip(axes, _FACTORS.items(), strict=True):
            for split, style in _STOPPED_SPLITS.items():
                key, line = f"{split}_{quantity}", {"linestyle": style["linestyle"]}
                if report is not None:
                    grey: dict[str, Any] = {"color": "0.55", "linewidth": 1.0, **line}
                    _ = axis.plot(report["epoch"], factor * report[key], **grey)
                values = factor * np.asarray(table[key])
                look: dict[str, Any] = {"color": _COLOURS[split], **line}
                if len(seeds) > 1:
                    _ = axis.plot(epochs, values, linewidth=0.6, alpha=0.7, **look)
                _ = axis.plot(epochs, values.mean(axis=1), linewidth=1.8, marker=".", **look)
                if split == "val":
                    _ = axis.plot(epochs[best], values[best, seeds], **_BEST)
                    _ = axis.plot(epochs[last], values[last, seeds], **_STOP)
            _tick_epochs(axis)
            _ = axis.set(xlabel="epoch", ylabel=_UNITS[quantity])
        handles = [
            Line2D([], [], color=_COLOURS[split], label=split, linestyle=style["linestyle"])
            for split, style in _STOPPED_SPLITS.items()
        ]
        if report is not None:
            handles.append(Line2D([], [], color="0.55", linewidth=1.0, label="the report"))
        marks = [Line2D([], [], label=n, **m) for n, m in (("best", _BEST), ("last", _STOP))]
        first, end = (
            ", ".join(f"{epoch:g}" for epoch in epochs[places]) for places in (best, last)
        )
        sentences = [f"1 seed. Best validation loss after epoch {first}, last epoch {end}."]
        if len(seeds) > 1:
            sentences = [
                f"{len(seeds)} seeds: thin lines each, thick their mean as far as all go.",
                f"Best validation loss after epochs {first}, last epochs {end}, by seed.",
            ]
        frame(figure, title, sentences, caption, handles, marks)
    return figure


def _columns(
    label: str, metrics: Metrics, splits: Mapping[str, Any] = _SPLITS
) -> Mapping[str, Any]:
    """Metrics as columns, None as NaN; ValueError if they cannot be."""
    names = [f"{split}_{quantity}" for quantity in _UNITS for split in splits]
    if isinstance(metrics, Mapping):
        if missing := {"epoch", *names} - set(metrics):
            raise ValueError(f"expected {', '.join(sorted(missing))} of {label}, got none")
        return metrics
    if not metrics:
        raise ValueError(f"expected at least one row of {label}")
    try:
        table = {
            key: np.array([np.atleast_1d(np.array(row[key], np.float64)) for row in metrics])
            for key in names
        }
        return {"epoch": np.array([row["epoch"] for row in metrics]), **table}
    except (KeyError, ValueError, TypeError) as error:
        wanted = f"epoch, {', '.join(names)}, over the same seeds in every row"
        raise ValueError(f"expected rows of {label} with {wanted}: {error!r}") from error


def _train_and_test(
    label: str, table: Mapping[str, Any], quantity: str, colour: str, marker: str
) -> list[Curve]:
    """The train and the test curve of one net; accuracy in percent."""
    curves: list[Curve] = []
    for split, style in _SPLITS.items():
        spread = over_seeds(table[f"{split}_{quantity}"], axis=1) * _FACTORS[quantity]
        look = {"color": colour, "marker": marker, **style}
        curves.append(Curve(label, np.asarray(table["epoch"]), spread, look))
    return curves


def _tick_epochs(axis: Axes) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _split_handles(colour: str) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker="o", label=split, **style)
        for split, style in _SPLITS.items()
    ]
