"""Figures of the depth study: gradients of every layer, and the accuracies of all nets.

A pure function for each figure, from arrays to a `matplotlib.figure.Figure`. Colour and marker name
the activation in every figure.
Source: report, Part C, figures 1-3 (depth against maximum gradient), and Part D, figure 5, LeCun
against tanh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from research.figures.style import (
    ACTIVATIONS,
    STYLE,
    WIDTH_IN,
    Curve,
    Spread,
    activation_handles,
    activation_name,
    describe_curves,
    frame,
    limit_log,
    over_seeds,
    plot,
    split_label,
)
from research.theory import comparison

Record = Mapping[str, Any]  # epochs [E+1], layers [L], statistics [E+1, S, L] or Spread [E+1, L]

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
    statistic: str = "kernel_abs_max",
) -> Figure:
    """Draws depth against maximum gradient for nets of one depth, linear axis beside log axis.

    records: {"relu-5": record}, one net for each activation; a record holds epochs [E+1], where 0
    is before the first step, layers [L] with the output last, and statistics, each as values of
    the seeds [E+1, S, L] or as their `Spread` [E+1, L].
    epochs: those to draw; an epoch that a record lacks is left out.
    Raises ValueError for an unknown activation or statistic, a wrong shape, two nets of one
    activation, nets of unequal depth, or no epoch to draw. Source: report, Part C, figures 1-3.
    """
    groups = _by_depth(records, statistic)
    if len(groups) > 1:
        raise ValueError(f"expected nets of one depth, got {list(groups)} hidden layers")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.4))
        axes = figure.subplots(1, 2)
        drawn, legends = _draw_maxima(axes.reshape(2, 1), groups, epochs, statistic)
        for axis, scale in zip(axes, ("linear", "log"), strict=True):
            axis.set_title(f"{scale} axis")
            axis.set_ylabel(_describe(statistic))
            axis.set_xlabel(f"layer depth ({len(drawn[0].x)} = output)")
        frame(figure, title, describe_curves(drawn, drawn), caption, *legends)
    return figure


def draw_gradient_comparison(
    records: Mapping[str, Record],
    *,
    title: str,
    caption: str,
    epochs: Sequence[int] = (0, 1, 2, 3),
    statistic: str = "kernel_abs_max",
) -> Figure:
    """Draws depth against maximum gradient, a column for each depth, linear above log axis.

    Arguments and errors as in `draw_gradient_maxima`, with one net for each activation and depth;
    the axes of a row share their scale. Source: report, Part D, figure 5.
    """
    groups = _by_depth(records, statistic)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.8))
        axes = figure.subplots(2, len(groups), sharey="row", squeeze=False)
        drawn, legends = _draw_maxima(axes, groups, epochs, statistic)
        _ = figure.supylabel(_describe(statistic).replace("\n", " "), fontsize=8)
        axes[0, 0].set_ylabel("linear axis")
        axes[1, 0].set_ylabel("log axis")
        figure.align_ylabels(axes[:, 0])
        for column, depth in zip(axes.T, groups, strict=True):
            column[0].set_title(f"{depth} hidden layers")
            column[1].set_xlabel(f"layer depth ({depth + 1} = output)")
        frame(figure, title, describe_curves(drawn, drawn), caption, *legends)
    return figure


def draw_accuracies(
    accuracies: Mapping[str, Sequence[float]],
    reported: Mapping[str, float],
    *,
    title: str,
    caption: str,
) -> Figure:
    """Draws the test accuracy of each net: every seed, their median, and the report's value.

    accuracies: {"tanh-40": [S] fractions}.  reported: {"tanh-40": percent}, of some of the nets.
    The left axis holds all nets, the right one those that learn, above 90 %.
    Raises ValueError for an unknown activation or no net. Source: report, Parts B and D.
    """
    nets = list(accuracies)
    if not nets:
        raise ValueError("expected at least one net, got none")
    values = {net: 100 * np.asarray(accuracies[net], np.float64) for net in nets}
    median: dict[str, Any] = {"marker": "|", "markersize": 9, "markeredgewidth": 2, "zorder": 3}
    report: dict[str, Any] = {"marker": "x", "color": "black", "markersize": 4.5, "linestyle": ""}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.25 + 0.19 * len(nets)))
        axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for axis in axes:
            for i, net in enumerate(nets):
                _, colour, marker = ACTIVATIONS[split_label(net)[0]]
                dots: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": ""}
                _ = axis.plot(values[net], [i] * len(values[net]), **dots, alpha=0.45)
                _ = axis.plot(np.median(values[net]), i, color=colour, **median)
                if net in reported:
                    _ = axis.plot(reported[net], i, **report, zorder=4)
            _ = axis.set_xlabel("test accuracy (%)")
        _ = axes[0].set(xlim=(0, 101), title="all")
        _ = axes[1].set(xlim=(90, 98), title="above 90 %")
        names = [f"{activation_name(net)}-{split_label(net)[1]}" for net in nets]
        _ = axes[0].set_yticks(range(len(nets)), names)
        _ = axes[0].set_ylim(len(nets) - 0.4, -0.6)
        margin = axes[1].secondary_yaxis("right")
        _ = margin.set_yticks(range(len(nets)), [f"{np.median(values[n]):.1f}" for n in nets])
        margin.tick_params(length=0)
        margin.spines[:].set_visible(False)
        counts = sorted({len(row) for row in values.values()})
        seeds = f"{'/'.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
        handles = [
            Line2D([], [], color="0.3", linestyle="", label="median", **median),
            Line2D([], [], label="the report", **report),
        ]
        sentence = f"{seeds}, a dot each; at the right the median."
        frame(figure, title, [sentence], caption, activation_handles(nets), handles)
    return figure


def draw_net_gradients(record: Record, *, label: str, caption: str) -> Figure:
    """Draws weight gradients beside back-propagated signal of one net over depth, every epoch.

    record: as in `draw_gradient_maxima`, with kernel_abs_max and signal_abs_max.
    label: "tanh-40", which names the net in the title.
    Raises ValueError for an unknown activation, a missing statistic or a wrong shape.
    Source: report, Part C, which shows the weight gradients only.
    """
    epochs, count = [int(epoch) for epoch in record["epochs"]], len(record["layers"])
    steps = [epoch for epoch in epochs if epoch > 0]
    ramp = matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1.0, max(len(steps), 1)))
    styles: dict[int, dict[str, Any]] = {0: {"color": "black", "linestyle": ":", "zorder": 3}}
    styles |= {epoch: {"color": tuple(ramp[i])} for i, epoch in enumerate(steps)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.3))
        axes = figure.subplots(1, 2, sharey=True)
        drawn: list[Curve] = []
        depth = np.arange(1, count + 1)
        for axis, statistic in zip(axes, ("kernel_abs_max", "signal_abs_max"), strict=True):
            values = _read(label, record, statistic)
            for i, epoch in enumerate(epochs):
                banded = epoch in (epochs[0], epochs[-1])
                drawn.append(Curve(label, depth, values[i], styles[epoch], banded))
            plot(axis, drawn[-len(epochs) :], log=True)
            _tick_depth(axis, count)
            axis.set(xlabel=f"layer depth ({count} = output)", ylabel=_describe(statistic))
            axis.yaxis.set_tick_params(labelleft=True)
        axes[0].set_title("weight gradients")
        axes[1].set_title("back-propagated signal")
        limit_log(axes[0], drawn)
        if steps:
            norm = BoundaryNorm(np.arange(len(steps) + 1) - 0.5, len(steps))
            bar = figure.colorbar(ScalarMappable(norm, ListedColormap(ramp)), ax=axes, aspect=30)
            bar.set_ticks(range(len(steps)), labels=[str(step) for step in steps])
            bar.set_label("epoch")
            bar.ax.tick_params(which="both", length=0)
        init = Line2D([], [], label="init (before the first step)", **styles[0])
        title = f"{activation_name(label)}, {count - 1} hidden layers: gradients of every epoch"
        sentences = describe_curves(drawn, drawn, " at the first and the last epoch shown")
        frame(figure, title, sentences, caption, [init] if 0 in epochs else [])
    return figure


def draw_theory(
    record: Record, theory: Mapping[str, np.ndarray], *, label: str, caption: str
) -> Figure:
    """Draws predicted over measured gradients of one net before its first step, layer by layer.

    record: as in `draw_gradient_maxima`, with the rms and the maximum of a batch; epoch 0 is drawn.
    theory: as `theory.mean_field.predict` gives it.  Columns: weight gradients, back-propagated
    signal; below each the measured over the predicted median of the rms.  Layers where the theory
    fails (`comparison.compare`) are ringed.
    Raises ValueError for an unknown activation, a missing statistic, a wrong shape or no epoch 0.
    """
    count = len(record["layers"])
    if 0 not in list(record["epochs"]):
        raise ValueError(f"expected epoch 0 of {label}, got epochs {list(record['epochs'])}")
    start = list(record["epochs"]).index(0)
    _, colour, _ = ACTIVATIONS[split_label(label)[0]]
    depth = np.arange(1, count + 1)
    styles: dict[str, dict[str, Any]] = {
        "rms": {"linestyle": "-"},
        "abs": {"linestyle": (0, (4, 1.5))},
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.1))
        axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
        drawn: list[Curve] = []
        named = (("kernel", "weight gradients"), ("signal", "back-propagated signal"))
        for column, (family, words) in zip(axes.T, named, strict=True):
            for kind, style in styles.items():
                values = _read(label, record, f"{family}_{kind}_batch")[start]
                drawn.append(Curve(label, depth, values, {"color": colour, **style}))
                median = theory[f"{family}_{kind}_median"]
                line = {"color": "black", "linewidth": 0.9, "zorder": 3, **style}
                if kind == "rms":
                    median = np.where(np.isnan(median), theory[f"{family}_rms_mean"], median)
                    spread = np.exp(theory[f"{family}_rms_sd"])
                    band: dict[str, Any] = {"color": "black", "alpha": 0.13, "linewidth": 0}
                    _ = column[0].fill_between(depth, median / spread, median * spread, **band)
                    _ = column[1].plot(depth, values.middle / median, color=colour, marker=".")
                    _ = column[1].fill_between(depth, 1 / spread, spread, **band)
                _ = column[0].plot(depth, median, **line)
            plot(column[0], drawn[-2:], log=True)
            column[0].set_title(f"{words}, {_QUANTITIES[family]}")
            _ = column[1].axhline(1.0, color="black", linewidth=0.6)
            column[1].set_yscale("log")
            _tick_depth(column[1], count)
            column[1].set_xlabel(f"layer depth ({count} = output)")
        batches = {name: record[name][start:] for name in ("kernel_rms_batch", "signal_rms_batch")}
        compared = comparison.compare(theory, batches)
        ring: dict[str, Any] = {"marker": "o", "markersize": 6, "fillstyle": "none"}
        ring |= {"color": "black", "linestyle": "", "markeredgewidth": 0.8}
        failed = np.where(compared.failed, compared.ratio, np.nan)
        _ = axes[1, 0].plot(depth, failed, **ring)
        limit_log(axes[0, 0], drawn)
        low, high = axes[1, 0].get_ylim()
        _ = axes[1, 0].set_ylim(min(low, 0.5), max(high, 2.0))
        axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes[1, 0].yaxis.set_major_formatter("{x:g}")
        for axis in axes.flat:
            axis.minorticks_off()  # each of them would be drawn and measured
        axes[0, 0].set_ylabel("size in one batch")
        axes[1, 0].set_ylabel("measured /\npredicted rms")
        handles = [
            Line2D([], [], color=colour, label="measured"),
            Line2D([], [], color="black", linewidth=0.9, label="predicted"),
        ]
        kinds = [
            Line2D([], [], color="0.3", label=name, **styles[kind])
            for kind, name in (("rms", "rms"), ("abs", "maximum"))
        ]
        title = f"{activation_name(label)}, {count - 1} hidden layers: before the first step"
        sentences = [
            *describe_curves(drawn, drawn),
            "Predicted: median and one standard deviation of the logarithm, from the init, the "
            "images and the width; nothing is fitted.",
        ]
        if compared.failed.any():
            kinds.append(Line2D([], [], label="theory fails", **ring))
        frame(figure, title, sentences, caption, handles, kinds)
    return figure


def _read(label: str, record: Record, statistic: str) -> Spread:
    """The statistic [E+1, L], checked against epochs and layers."""
    if statistic not in record:
        known = ", ".join(sorted(set(record) - {"epochs", "layers"}))
        raise ValueError(f"expected a statistic that {label} holds ({known}), got {statistic!r}")
    values, shape = record[statistic], (len(record["epochs"]), len(record["layers"]))
    given = values.middle.shape if isinstance(values, Spread) else np.shape(values)
    if len(given) != 3 - isinstance(values, Spread) or (given[0], given[-1]) != shape:
        wanted = f"[{shape[0]} epochs, seeds, {shape[1]} layers]"
        raise ValueError(f"expected {statistic} of {label} as {wanted}, got {list(given)}")
    if str(record["layers"][-1]) != "output":
        raise ValueError(f"expected the output as last layer, got {record['layers'][-1]!s}")
    return over_seeds(values, axis=1)


def _by_depth(records: Mapping[str, Record], statistic: str) -> dict[int, dict[str, Record]]:
    """The checked records by number of hidden layers, shallow first."""
    groups: dict[int, dict[str, Record]] = {}
    for label, record in records.items():
        group = groups.setdefault(_read(label, record, statistic).middle.shape[1] - 1, {})
        if split_label(label)[0] in [split_label(other)[0] for other in group]:
            raise ValueError(f"expected one net for each activation, got {[*group, label]}")
        group[label] = record
    if not groups:
        raise ValueError("expected at least one net in records, got none")
    return dict(sorted(groups.items()))


def _draw_maxima(
    axes: np.ndarray,
    groups: Mapping[int, Mapping[str, Record]],
    epochs: Sequence[int],
    statistic: str,
) -> tuple[list[Curve], tuple[list[Line2D], list[Line2D]]]:
    """Fills axes [2, depths], linear above log; returns the curves and the two legends."""
    nets = {label: record for group in groups.values() for label, record in group.items()}
    shown = [e for e in sorted(set(epochs)) if any(e in net["epochs"] for net in nets.values())]
    if not shown:
        raise ValueError(f"expected an epoch that the records hold, got epochs={list(epochs)}")
    drawn: list[Curve] = []
    for column, (depth, group) in zip(axes.T, groups.items(), strict=True):
        curves = [c for label in group for c in _over_depth(label, nets[label], shown, statistic)]
        for axis, log in zip(column, (False, True), strict=True):
            plot(axis, curves, log=log)
            _tick_depth(axis, depth + 1)
        drawn += curves
    if "_abs_" in statistic:
        axes[0, 0].set_ylim(bottom=0)
    limit_log(axes[1, 0], drawn)
    few = shown if len(shown) <= 6 else [*shown[:2], shown[len(shown) // 2], shown[-1]]
    handles = [
        Line2D([], [], label=f"epoch {e}" if e else "init", **_shade("0.1", e, shown)) for e in few
    ]
    return drawn, (activation_handles(nets), handles)


def _over_depth(label: str, record: Record, shown: Sequence[int], statistic: str) -> list[Curve]:
    """One curve an epoch; on a deep net a few markers, at other layers for each activation."""
    values = _read(label, record, statistic)
    activation, _ = split_label(label)
    _, colour, marker = ACTIVATIONS[activation]
    count = values.middle.shape[1]
    stride = max(1, count // 6)
    every = (list(ACTIVATIONS).index(activation) * stride // len(ACTIVATIONS), stride)
    held = {int(epoch): i for i, epoch in enumerate(record["epochs"])}
    x = np.arange(1, count + 1)
    style = {"marker": marker, "markevery": every}
    return [
        Curve(label, x, values[held[epoch]], {**style, **_shade(colour, epoch, shown)})
        for epoch in shown
        if epoch in held
    ]


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


def _describe(statistic: str) -> str:
    """What a statistic is, for the axis it is drawn on."""
    family, sign, over = statistic.split("_")
    quantity = f"|{_QUANTITIES[family]}|" if sign == "abs" else f"signed {_QUANTITIES[family]}"
    return f"max {quantity} in the layer,\n{_BATCHES[over]}"
