"""How do the nets learn? Accuracy and loss over the epochs.

Source: report, Part D, figure 4 (learning curves).
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
    plot,
    split_label,
)

Rows = Sequence[Mapping[str, Any]]

_SPLITS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": (0, (3.5, 1.5)), "markerfacecolor": "white"},
    "test": {"linestyle": "-"},
}
_UNITS = {"accuracy": "accuracy (%)", "loss": "cross-entropy (nats)"}
_ONE_NET = ("#0072B2", "o")  # colour and marker


def draw_learning_curves(metrics: Mapping[str, Rows], *, title: str, caption: str) -> Figure:
    """Draws accuracy and loss over the epochs, train dashed and test solid, a column a depth.

    metrics: {"tanh-40": rows}; a row has epoch, train_loss, train_accuracy, test_loss and
    test_accuracy, each a float or a list over seeds; accuracies are fractions, drawn in percent.
    The title of a column holds the test accuracy of the last epoch, median over seeds. Nets of a
    single depth get accuracy beside loss.
    Raises ValueError for a wrong label, no rows, a missing key, or rows that differ in seeds.
    Source: report, Part D, figure 4.
    """
    depths = sorted({split_label(label)[1] for label in metrics})
    if not depths or not all(metrics.values()):
        raise ValueError(f"expected at least one net and one row each, got {list(metrics)}")
    shape, height = ((2, len(depths)), 4.6) if len(depths) > 1 else ((1, 2), 3.3)
    drawn: dict[str, list[Curve]] = {"accuracy": [], "loss": []}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height))
        sharey = "row" if len(depths) > 1 else "none"
        axes = figure.subplots(*shape, sharey=sharey, squeeze=False).reshape(2, len(depths))
        for column, depth in zip(axes.T, depths, strict=True):
            nets = [label for label in metrics if split_label(label)[1] == depth]
            for axis, quantity in zip(column, drawn, strict=True):
                for net in nets:
                    look = ACTIVATIONS[split_label(net)[0]][1:]
                    drawn[quantity] += _learning(net, metrics[net], quantity, *look)
                curves = drawn[quantity][-2 * len(nets) :]
                _plot_over_epochs(axis, curves, quantity)
                axis.set_xlabel("epoch" if shape[0] == 1 or axis is column[1] else "")
            tests = drawn["accuracy"][1 - 2 * len(nets) :: 2]
            finals = [
                f"{activation_name(test.label)} {test.summary()[0, -1]:.2f}" for test in tests
            ]
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
        frame(figure, title, sentences, caption, activation_handles(metrics), _split_handles("0.2"))
    return figure


def draw_net_curves(rows: Rows, *, label: str, title: str, caption: str) -> Figure:
    """Draws accuracy beside loss of one net over the epochs, train dashed and test solid.

    rows: as for `draw_learning_curves`.  label: the net's name in messages.
    Raises ValueError for no rows, a missing key, or rows that differ in seeds.
    """
    if not rows:
        raise ValueError(f"expected at least one row of {label}")
    drawn = {quantity: _learning(label, rows, quantity, *_ONE_NET) for quantity in _UNITS}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.3))
        axes = figure.subplots(1, 2)
        for axis, (quantity, curves) in zip(axes, drawn.items(), strict=True):
            _plot_over_epochs(axis, curves, quantity)
            axis.set_xlabel("epoch")
            axis.set_ylabel(_UNITS[quantity])
            train, test = (curve.summary()[0, -1] for curve in curves)
            axis.set_title(
                f"after the last epoch: train {train:.4g}, test {test:.4g}", fontsize=7.5
            )
        limit_log(axes[1], drawn["loss"], decades=False)
        sentences = describe_curves(drawn["accuracy"] + drawn["loss"], drawn["loss"])
        frame(figure, title, sentences, caption, _split_handles(_ONE_NET[0]))
    return figure


def _plot_over_epochs(axis: Axes, curves: Sequence[Curve], quantity: str) -> None:
    plot(axis, curves, log=quantity == "loss")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _split_handles(colour: str) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker="o", label=split, **style)
        for split, style in _SPLITS.items()
    ]


def _learning(label: str, rows: Rows, quantity: str, colour: str, marker: str) -> list[Curve]:
    """The train and the test curve of one net; accuracy in percent."""
    factor = 100.0 if quantity == "accuracy" else 1.0
    curves: list[Curve] = []
    for split, style in _SPLITS.items():
        try:
            x = np.array([row["epoch"] for row in rows])
            values = np.array([np.atleast_1d(row[f"{split}_{quantity}"]) for row in rows], float)
        except (KeyError, ValueError) as error:
            wanted = f"epoch and {split}_{quantity}, over the same seeds in every row"
            raise ValueError(f"expected rows of {label} with {wanted}: {error!r}") from error
        style = {"color": colour, "marker": marker, **style}
        curves.append(Curve(label, x, factor * values.T, style))
    return curves
