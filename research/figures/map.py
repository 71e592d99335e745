"""The figure of a map of trainability: accuracy over depth and one more, and the theory."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.figures.style import ACTIVATIONS, STYLE, WIDTH_IN, frame

# Of what may be the axis; the others are the same in all cells.
_NAMES = {"sigma_w": r"$\sigma_w$", "learning_rate": "learning rate"}
_MEASURED, _THEORY = "#000000", "#E8112D"
_LOWEST, _HIGHEST = 0.1, 300.0  # depth scales that are drawn; what lies beyond is at the edge


def draw_map(
    arrays: Mapping[str, np.ndarray],
    *,
    caption: str,
    limit: float,
    trained: float,
) -> Figure:
    """Draws the accuracy of each cell, and beside it that over the depth in depth scales.

    arrays: of map.npz, see `experiments.map`.  limit: depth scales up to which theory expects nets
    to train.  trained: the accuracy from which on they do.
    """
    net, colour, _ = ACTIVATIONS[str(arrays["activation"])]
    axis, values, depths = str(arrays["axis"]), arrays["values"], arrays["depths"]
    measured = np.asarray(arrays["test_accuracy"], np.float64)
    accuracy, lost = np.nan_to_num(measured).mean(axis=2), np.isnan(measured).any(axis=2)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH_IN, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1.0))

        image = left.pcolormesh(values, depths, accuracy, vmin=0, vmax=1, rasterized=True)
        left.set_xscale("log")
        limits = left.get_xlim(), left.get_ylim()
        if accuracy.min() < trained <= accuracy.max():
            line = {"colors": _MEASURED, "linewidths": 1.3}
            _ = left.contour(values, depths, accuracy, levels=[trained], **line)
        rows, columns = np.nonzero(lost)
        cross = {"marker": "x", "s": 9, "linewidths": 0.7}
        _ = left.scatter(values[columns], depths[rows], color="0.8", **cross)
        inner = np.geomspace(values[0], values[-1], 1001)
        rate = np.interp(np.log(inner), np.log(values), np.log(arrays["chi"]))  # 0 at criticality
        with np.errstate(divide="ignore"):
            _ = left.plot(inner, limit / np.abs(rate), color=_THEORY, linewidth=1.8)
        label = _NAMES.get(axis, axis.replace("_", " "))
        left.set(xlim=limits[0], ylim=limits[1], xlabel=label, ylabel="hidden layers")
        _ = left.set_xticks(np.geomspace(values[0], values[-1], 7))
        _ = left.set_xticks([], minor=True)
        left.xaxis.set_major_formatter("{x:.2g}")
        left.grid(visible=False)
        _ = figure.colorbar(image, ax=left, pad=0.02, aspect=30, ticks=np.arange(0, 1.1, 0.2))

        scales = np.clip(depths[:, None] / arrays["xi"], _LOWEST, _HIGHEST)
        dots = {"s": 7, "alpha": 0.6, "linewidths": 0}
        _ = right.scatter(scales, accuracy, color=colour, **dots)
        _ = right.axhline(trained, color=_MEASURED, linewidth=1.3)
        _ = right.axvline(limit, color=_THEORY, linewidth=1.8)
        right.set_xscale("log")
        right.set(xlabel="depth / depth scale", ylabel="test accuracy", ylim=(0, 1))
        right.set_xlim(_LOWEST / 1.4, 1.4 * max(scales.max(), 10))  # two decades have labels
        right.xaxis.set_major_formatter("{x:g}")
        right.xaxis.set_minor_formatter("")

        handles = [
            Line2D([], [], color=_MEASURED, label=f"measured: accuracy {trained:g}"),
            Line2D([], [], color=_THEORY, label=f"theory: depth = {limit:g} depth scales"),
        ]
        if lost.any():
            handles.append(
                Line2D([], [], color="0.5", marker="x", linestyle="", label="loss not finite")
            )
        fixed = [f"{name} {arrays[key][0]:.3g}" for key, name in _NAMES.items() if key != axis]
        title = f"{net}: which depths train, at {', '.join(fixed)}"
        seeds = measured.shape[2]
        sentences = [
            f"Mean of {seeds} seed{'s' if seeds > 1 else ''} in each cell; a net whose loss is not "
            "finite counts 0. The depth scale of the gradients is that of infinitely wide nets; "
            "nothing is fitted."
        ]
        frame(figure, title, sentences, caption, handles)
    return figure
