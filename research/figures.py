"""How do the gradients change with depth, and how do the nets learn? One pure function a figure.

Arrays in, a `matplotlib.figure.Figure` out: no files, no global state; the caller chooses the
resolution when saving. Colour and marker name the activation in every figure, and every figure
says from which data and how many seeds it is drawn, and which values it could not draw.
Source: report, Part C, figures 1-3 (depth against maximum gradient), and Part D, figures 4
(learning curves) and 5 (gradients), LeCun against tanh.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

Record = Mapping[str, np.ndarray]
Rows = Sequence[Mapping[str, Any]]

# Name in print, colour (from the colour-blind safe palette of Okabe and Ito), marker.
ACTIVATIONS = {
    "relu": ("ReLU", "#D55E00", "o"),
    "tanh": ("tanh", "#0072B2", "s"),
    "sigmoid": ("sigmoid", "#009E73", "^"),
    "lecun": ("LeCun", "#B0569A", "D"),
}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "text.usetex": False,
}
_WIDTH_IN = 7.2
_SPLITS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": (0, (3.5, 1.5)), "markerfacecolor": "white"},
    "test": {"linestyle": "-"},
}
_QUANTITIES = {"kernel": "∂L/∂W", "layer": "∂L/∂(W, b)", "signal": "∂L/∂z"}
_BATCHES = {
    "max": "largest of the epoch's batches",
    "mean": "mean over the epoch's batches",
    "last": "last batch of the epoch",
}


def draw_gradient_maxima(
    records: Mapping[str, Record],
    *,
    title: str,
    caption: str,
    epochs: Sequence[int] = (0, 1, 2, 3),
    reading: str = "kernel_abs_max",
) -> Figure:
    """Draws depth against maximum gradient for nets of one depth, linear axis beside log axis.

    records: {"relu-5": record}, one net for each activation; a record holds epochs [E+1], where 0
    is before the first step, layers [L] with the output last, and readings [E+1, S, L].
    epochs: those to draw; an epoch that a record lacks is left out.
    Raises ValueError for an unknown activation or reading, a wrong shape, two nets of one
    activation, nets of unequal depth, or no epoch to draw. Source: report, Part C, figures 1-3.
    """
    groups = _by_depth(records, reading)
    if len(groups) > 1:
        raise ValueError(f"expected nets of one depth, got {list(groups)} hidden layers")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 3.4))
        axes = figure.subplots(1, 2)
        drawn, legends = _draw_maxima(axes.reshape(2, 1), groups, epochs, reading)
        for axis, scale in zip(axes, ("linear", "log"), strict=True):
            axis.set_title(f"{scale} axis")
            axis.set_ylabel(_describe(reading))
            axis.set_xlabel(f"layer depth ({len(drawn[0].x)} = output)")
        _frame(figure, title, _footer(caption, drawn, drawn), *legends)
    return figure


def draw_gradient_comparison(
    records: Mapping[str, Record],
    *,
    title: str,
    caption: str,
    epochs: Sequence[int] = (0, 1, 2, 3),
    reading: str = "kernel_abs_max",
) -> Figure:
    """Draws depth against maximum gradient, a column for each depth, linear above log axis.

    Arguments and errors as in `draw_gradient_maxima`, with one net for each activation and depth;
    the axes of a row share their scale. Source: report, Part D, figure 5.
    """
    groups = _by_depth(records, reading)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 4.8))
        axes = figure.subplots(2, len(groups), sharey="row", squeeze=False)
        drawn, legends = _draw_maxima(axes, groups, epochs, reading)
        _ = figure.supylabel(_describe(reading).replace("\n", " "), fontsize=8)
        axes[0, 0].set_ylabel("linear axis")
        axes[1, 0].set_ylabel("log axis")
        figure.align_ylabels(axes[:, 0])
        for column, depth in zip(axes.T, groups, strict=True):
            column[0].set_title(f"{depth} hidden layers")
            column[1].set_xlabel(f"layer depth ({depth + 1} = output)")
        _frame(figure, title, _footer(caption, drawn, drawn), *legends)
    return figure


def draw_net_gradients(record: Record, *, label: str, caption: str) -> Figure:
    """Draws weight gradients beside back-propagated signal of one net over depth, every epoch.

    record: as in `draw_gradient_maxima`, with kernel_abs_max and signal_abs_max.
    label: "tanh-40", which names the net in the title.
    Raises ValueError for an unknown activation, a missing reading or a wrong shape.
    Source: report, Part C, which shows the weight gradients only.
    """
    epochs, count = [int(epoch) for epoch in record["epochs"]], len(record["layers"])
    steps = [epoch for epoch in epochs if epoch > 0]
    ramp = matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1.0, max(len(steps), 1)))
    styles: dict[int, dict[str, Any]] = {0: {"color": "black", "linestyle": ":", "zorder": 3}}
    styles |= {epoch: {"color": tuple(ramp[i])} for i, epoch in enumerate(steps)}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 3.3))
        axes = figure.subplots(1, 2, sharey=True)
        drawn: list[_Curve] = []
        depth = np.arange(1, count + 1)
        for axis, reading in zip(axes, ("kernel_abs_max", "signal_abs_max"), strict=True):
            values = _read(label, record, reading)
            for epoch, over_seeds in zip(epochs, values, strict=True):
                banded = epoch in (epochs[0], epochs[-1])
                drawn.append(_Curve(label, depth, over_seeds, styles[epoch], banded))
            _plot(axis, drawn[-len(epochs) :], log=True)
            _tick_depth(axis, count)
            axis.set(xlabel=f"layer depth ({count} = output)", ylabel=_describe(reading))
            axis.yaxis.set_tick_params(labelleft=True)
        axes[0].set_title("weight gradients")
        axes[1].set_title("back-propagated signal")
        _limit_log(axes[0], drawn)
        if steps:
            norm = BoundaryNorm(np.arange(len(steps) + 1) - 0.5, len(steps))
            bar = figure.colorbar(ScalarMappable(norm, ListedColormap(ramp)), ax=axes, aspect=30)
            bar.set_ticks(range(len(steps)), labels=[str(step) for step in steps])
            bar.set_label("epoch")
            bar.ax.tick_params(which="both", length=0)
        init = Line2D([], [], label="init (before the first step)", **styles[0])
        title = f"{_name(label)}, {count - 1} hidden layers: gradients of every epoch"
        footer = _footer(caption, drawn, drawn, " at the first and the last epoch shown")
        _frame(figure, title, footer, [init] if 0 in epochs else [])
    return figure


def draw_learning_curves(metrics: Mapping[str, Rows], *, title: str, caption: str) -> Figure:
    """Draws accuracy and loss over the epochs, train dashed and test solid, a column a depth.

    metrics: {"tanh-40": rows}; a row has epoch, train_loss, train_accuracy, test_loss and
    test_accuracy, each a float or a list over seeds; accuracies are fractions, drawn in percent.
    The title of a column holds the test accuracy of the last epoch, median over seeds. Nets of a
    single depth get accuracy beside loss.
    Raises ValueError for a wrong label, no rows, a missing key, or rows that differ in seeds.
    Source: report, Part D, figure 4.
    """
    depths = sorted({_split(label)[1] for label in metrics})
    if not depths or not all(metrics.values()):
        raise ValueError(f"expected at least one net and one row each, got {list(metrics)}")
    shape, height = ((2, len(depths)), 4.6) if len(depths) > 1 else ((1, 2), 3.3)
    drawn: dict[str, list[_Curve]] = {"accuracy": [], "loss": []}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height))
        sharey = "row" if len(depths) > 1 else "none"
        axes = figure.subplots(*shape, sharey=sharey, squeeze=False).reshape(2, len(depths))
        for column, depth in zip(axes.T, depths, strict=True):
            nets = [label for label in metrics if _split(label)[1] == depth]
            for axis, quantity in zip(column, drawn, strict=True):
                curves = [c for net in nets for c in _learning(net, metrics[net], quantity)]
                _plot(axis, curves, log=quantity == "loss")
                drawn[quantity] += curves
                axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
                axis.set_xlabel("epoch" if shape[0] == 1 or axis is column[1] else "")
            tests = drawn["accuracy"][1 - 2 * len(nets) :: 2]
            finals = [f"{_name(test.label)} {test.summary()[0, -1]:.2f}" for test in tests]
            text = textwrap.fill(f"final test %: {', '.join(finals)}", 40)
            column[0].set_title(f"{depth} hidden layers\n{text}", fontsize=7.5)
        axes[0, 0].set_ylabel("accuracy (%)")
        axes[1, 0].set_ylabel("cross-entropy (nats)")
        for axis in axes[0]:
            low, high = axis.get_ylim()
            spare = max(0.0, 10.0 - (high - low)) / 2
            axis.set_ylim(max(0.0, low - spare), high + spare)
            axis.yaxis.set_major_locator(MaxNLocator(6))
        _limit_log(axes[1, 0], drawn["loss"], decades=False)
        splits = [
            Line2D([], [], color="0.2", marker="o", label=split, **style)
            for split, style in _SPLITS.items()
        ]
        footer = _footer(caption, drawn["accuracy"] + drawn["loss"], drawn["loss"])
        _frame(figure, title, footer, _activation_handles(metrics), splits)
    return figure


@dataclass(frozen=True)
class _Curve:
    """A line with its band: x [X], values [S, X] over seeds, matplotlib's line properties."""

    label: str
    x: np.ndarray
    values: np.ndarray
    style: Mapping[str, Any]
    banded: bool = True

    def summary(self) -> np.ndarray:
        """Median, minimum and maximum [3, X] of the finite values; NaN where there are none."""
        finite = np.isfinite(self.values)
        some = finite.any(axis=0)
        kept = np.where(finite, self.values, np.nan)[:, some]
        summary = np.full((3, self.x.size), np.nan)
        summary[:, some] = np.nanmedian(kept, 0), np.nanmin(kept, 0), np.nanmax(kept, 0)
        return summary


def _split(label: str) -> tuple[str, int]:
    """("tanh", 40) from "tanh-40"."""
    activation, _, depth = label.partition("-")
    if activation not in ACTIVATIONS or not depth.isdecimal():
        raise ValueError(f"expected a label {{{','.join(ACTIVATIONS)}}}-DEPTH, got {label!r}")
    return activation, int(depth)


def _name(label: str) -> str:
    return ACTIVATIONS[_split(label)[0]][0]


def _read(label: str, record: Record, reading: str) -> np.ndarray:
    """The reading [E+1, S, L] in float64, checked against epochs and layers."""
    if reading not in record:
        known = ", ".join(sorted(set(record) - {"epochs", "layers"}))
        raise ValueError(f"expected a reading that {label} holds ({known}), got {reading!r}")
    values = np.asarray(record[reading], np.float64)
    epochs, layers = len(record["epochs"]), len(record["layers"])
    if values.ndim != 3 or values.shape[::2] != (epochs, layers):
        wanted = f"[{epochs} epochs, seeds, {layers} layers]"
        raise ValueError(f"expected {reading} of {label} as {wanted}, got {list(values.shape)}")
    if str(record["layers"][-1]) != "output":
        raise ValueError(f"expected the output as last layer, got {record['layers'][-1]!s}")
    return values


def _by_depth(records: Mapping[str, Record], reading: str) -> dict[int, dict[str, Record]]:
    """The checked records by number of hidden layers, shallow first."""
    groups: dict[int, dict[str, Record]] = {}
    for label, record in records.items():
        group = groups.setdefault(_read(label, record, reading).shape[2] - 1, {})
        if _split(label)[0] in [_split(other)[0] for other in group]:
            raise ValueError(f"expected one net for each activation, got {[*group, label]}")
        group[label] = record
    if not groups:
        raise ValueError("expected at least one net in records, got none")
    return dict(sorted(groups.items()))


def _draw_maxima(
    axes: np.ndarray,
    groups: Mapping[int, Mapping[str, Record]],
    epochs: Sequence[int],
    reading: str,
) -> tuple[list[_Curve], tuple[list[Line2D], list[Line2D]]]:
    """Fills axes [2, depths], linear above log; returns the curves and the two legends."""
    nets = {label: record for group in groups.values() for label, record in group.items()}
    shown = [e for e in sorted(set(epochs)) if any(e in net["epochs"] for net in nets.values())]
    if not shown:
        raise ValueError(f"expected an epoch that the records hold, got epochs={list(epochs)}")
    drawn: list[_Curve] = []
    for column, (depth, group) in zip(axes.T, groups.items(), strict=True):
        curves = [c for label in group for c in _over_depth(label, nets[label], shown, reading)]
        for axis, log in zip(column, (False, True), strict=True):
            _plot(axis, curves, log=log)
            _tick_depth(axis, depth + 1)
        drawn += curves
    if "_abs_" in reading:
        axes[0, 0].set_ylim(bottom=0)
    _limit_log(axes[1, 0], drawn)
    few = shown if len(shown) <= 6 else [*shown[:2], shown[len(shown) // 2], shown[-1]]
    handles = [
        Line2D([], [], label=f"epoch {e}" if e else "init", **_shade("0.1", e, shown)) for e in few
    ]
    return drawn, (_activation_handles(nets), handles)


def _over_depth(label: str, record: Record, shown: Sequence[int], reading: str) -> list[_Curve]:
    """One curve an epoch; on a deep net a few markers, at other layers for each activation."""
    values = _read(label, record, reading)
    activation, _ = _split(label)
    _, colour, marker = ACTIVATIONS[activation]
    stride = max(1, values.shape[2] // 6)
    every = (list(ACTIVATIONS).index(activation) * stride // len(ACTIVATIONS), stride)
    held = {int(epoch): i for i, epoch in enumerate(record["epochs"])}
    x = np.arange(1, values.shape[2] + 1)
    style = {"marker": marker, "markevery": every}
    return [
        _Curve(label, x, values[held[epoch]], {**style, **_shade(colour, epoch, shown)})
        for epoch in shown
        if epoch in held
    ]


def _learning(label: str, rows: Rows, quantity: str) -> list[_Curve]:
    """The train and the test curve of one net; accuracy in percent."""
    _, colour, marker = ACTIVATIONS[_split(label)[0]]
    factor = 100.0 if quantity == "accuracy" else 1.0
    curves: list[_Curve] = []
    for split, style in _SPLITS.items():
        try:
            x = np.array([row["epoch"] for row in rows])
            values = np.array([np.atleast_1d(row[f"{split}_{quantity}"]) for row in rows], float)
        except (KeyError, ValueError) as error:
            wanted = f"epoch and {split}_{quantity}, over the same seeds in every row"
            raise ValueError(f"expected rows of {label} with {wanted}: {error!r}") from error
        style = {"color": colour, "marker": marker, **style}
        curves.append(_Curve(label, x, factor * values.T, style))
    return curves


def _plot(axis: Axes, curves: Iterable[_Curve], *, log: bool) -> None:
    """Draws medians and, over several seeds, bands.

    On a log axis a median at zero or below leaves a gap, and a band that holds zeros reaches the
    lower end of the axis.
    """
    if log:
        axis.set_yscale("log", nonpositive="clip")
    for curve in curves:
        median, low, high = curve.summary()
        if log:
            median = np.where(median > 0, median, np.nan)
        (line,) = axis.plot(curve.x, median, label=curve.label, **curve.style)
        if curve.banded and len(curve.values) > 1:
            colour = line.get_color()
            _ = axis.fill_between(curve.x, low, high, color=colour, alpha=0.13, linewidth=0)


def _limit_log(axis: Axes, curves: Iterable[_Curve], *, decades: bool = True) -> None:
    """Limits around all positive values drawn; ticks at decades, two at least, or at 1, 2, 5."""
    values = np.concatenate([curve.summary().ravel() for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        values = np.ones(1)
    low, high = np.log10(values.min()) - 0.08, np.log10(values.max()) + 0.08
    if decades and np.floor(high) - np.ceil(low) < 1:
        low, high = np.floor(low), np.ceil(high)
    elif high - low < 0.8:
        low, high = (low + high) / 2 - 0.4, (low + high) / 2 + 0.4
    _ = axis.set_ylim(10.0**low, 10.0**high)
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(LogLocator(numticks=9))
    if not decades:
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")


def _tick_depth(axis: Axes, count: int) -> None:
    """Integer ticks from the first layer to the output, all of them on a shallow net."""
    step = 1 if count <= 8 else 5 if count <= 25 else 10
    inner = range(step, count - step // 2, step)
    _ = axis.set_xticks(sorted({1, *inner, count}))
    _ = axis.set_xlim(1 - 0.05 * (count - 1), count + 0.05 * (count - 1))


def _shade(colour: str, epoch: int, shown: Sequence[int]) -> dict[str, Any]:
    """Dotted at initialisation, then from light and thin to full and thick."""
    steps = [step for step in shown if step > 0]
    if epoch not in steps:
        return {"color": colour, "linestyle": (0, (1.0, 1.3))}
    share = (steps.index(epoch) + 1) / len(steps)
    blend = 1.0 - (1.0 - np.array(to_rgb(colour))) * (0.25 + 0.75 * share)
    return {"color": tuple(blend), "linewidth": 0.8 + 0.7 * share}


def _describe(reading: str) -> str:
    """What a reading is, for the axis it is drawn on."""
    family, sign, over = reading.split("_")
    quantity = f"|{_QUANTITIES[family]}|" if sign == "abs" else f"signed {_QUANTITIES[family]}"
    return f"max {quantity} in the layer,\n{_BATCHES[over]}"


def _activation_handles(labels: Iterable[str]) -> list[Line2D]:
    used = {_split(label)[0] for label in labels}
    return [
        Line2D([], [], label=name, color=colour, marker=marker)
        for key, (name, colour, marker) in ACTIVATIONS.items()
        if key in used
    ]


def _footer(
    caption: str, drawn: Sequence[_Curve], logged: Sequence[_Curve], where: str = ""
) -> str:
    """Seeds and band, what is not drawn and why, and the data."""
    if not caption.strip():
        raise ValueError("expected a caption that names the data, got an empty one")
    seeds: dict[int, dict[str, None]] = {}
    lost: dict[tuple[str, str], int] = {}
    for curve in drawn:
        seeds.setdefault(len(curve.values), {})[curve.label] = None
        key = (curve.label, "values that are not finite")
        lost[key] = lost.get(key, 0) + int((~np.isfinite(curve.values)).sum())
    for curve in logged:
        key = (curve.label, "medians at zero or below, on the log axis")
        lost[key] = lost.get(key, 0) + int((curve.summary()[0] <= 0).sum())
    parts: list[str] = []
    for count, labels in seeds.items():
        nets = "" if len(seeds) == 1 else f"{', '.join(labels)}: "
        band = f": median and min-max band{where}" if count > 1 else ""
        parts.append(f"{nets}{count} seed{'s' if count > 1 else ''}{band}.")
    parts += [f"Not drawn: {n} {why} ({label})." for (label, why), n in lost.items() if n]
    return f"{' '.join(parts)} Data: {caption}"


def _frame(figure: Figure, title: str, footer: str, *legends: list[Line2D]) -> None:
    """Keeps strips of their own for title and legends above the axes and the footer below."""
    width, height = figure.get_size_inches()
    titles = textwrap.wrap(title, int(width * 11.5))
    lines = textwrap.wrap(footer, int(width * 17), break_on_hyphens=False)
    top = 0.05 + 0.16 * len(titles)
    _ = figure.text(0.01, 1 - 0.05 / height, "\n".join(titles), va="top", fontsize=9, weight="bold")
    _ = figure.text(0.01, 0.05 / height, "\n".join(lines), va="bottom", fontsize=7, color="0.25")
    for handles, right in zip(legends, (False, True), strict=False):
        if handles:
            _ = figure.legend(
                handles=handles,
                loc="upper right" if right else "upper left",
                bbox_to_anchor=(float(right), 1 - top / height),
                ncols=len(handles),
                columnspacing=1.2,
                borderaxespad=0.2,
            )
    bottom = 0.1 + 0.125 * len(lines)
    top += 0.26 if any(legends) else 0.05
    figure.set_layout_engine(
        "constrained", rect=(0.0, bottom / height, 1.0, 1 - (top + bottom) / height)
    )
