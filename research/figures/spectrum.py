"""Singular values of a Jacobian over depth, and sharpness in training against 2 / learning rate."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from research.figures.style import (
    ACTIVATIONS,
    STYLE,
    WIDTH_IN,
    Curve,
    activation_name,
    describe_curves,
    frame,
    limit_log,
    over_seeds,
    plot,
    split_label,
)

_DECADES = 6  # of singular values that are drawn below the root of the mean square
_SPIKE = 10.0  # times 2 / learning rate: a sharpness beyond would hide the edge on a linear scale
_GREY, _RED = "0.45", "#CC3311"
_ORDINALS = {1: "largest", 2: "2nd"}


def draw_jacobian(record: Mapping[str, np.ndarray], *, label: str, caption: str) -> Figure:
    """Singular values and their spread over depth, above; of each layer by itself, below.

    record: as `experiments.spectrum.measure_jacobian` gives it.  label: of the net, "tanh-40".
    """
    colour = ACTIVATIONS[split_label(label)[0]][1]
    x, units = record["depth"], record["singular_values"].shape[-1]
    draws, inputs = record["singular_values"].shape[:2]
    black: dict[str, Any] = {"color": "black", "linewidth": 1.0, "zorder": 3}
    dots: dict[str, Any] = {"linestyle": "none", "marker": ".", "zorder": 4}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.4))
        axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
        values, spreads = axes[0]
        shown = [rank for rank in (1, 2, 4, 8, 16, 32, 64) if rank <= units]
        rms, ranked = np.sqrt(record["predicted_mean"]), record["ranked"]
        drawn = [row[row > 0].min() for row in (ranked[rank - 1] for rank in shown) if row.any()]
        low = max(min(drawn, default=0.0), rms.min() * 10.0**-_DECADES) / 2
        high = 2 * max(ranked[0].max(), rms.max())
        values.set_yscale("log", nonpositive="mask")
        _ = values.set_ylim(low, high)
        labelled = np.inf
        for i, rank in enumerate(shown):
            last = ranked[rank - 1, -1]
            _ = values.plot(x, ranked[rank - 1], color=colour, alpha=1 - 0.75 * i / len(shown))
            if low < last < labelled * (low / high) ** 0.06:  # there is room for a word
                labelled = last
                _ = values.annotate(
                    _ORDINALS.get(rank, f"{rank}th"), (x[-1], last), (3, 0),
                    textcoords="offset points", va="center", color=colour, fontsize=7,
                )  # fmt: skip
        _ = values.plot(x, rms, **black)
        _ = values.plot(x, np.sqrt(record["mean"].mean(axis=0)), color="black", **dots)
        values.set_title("singular values s of the Jacobian")
        values.set_ylabel("s, of all layers up to here")

        curve = Curve(label, x, over_seeds(record["spread"], 0), {"color": colour, "marker": "."})
        plot(spreads, [curve], log=True)
        _ = spreads.plot(x, record["predicted_spread"], **{**black, "linestyle": (0, (4, 1.5))})
        _ = spreads.plot(x, record["predicted_finite_spread"], **black)
        _ = spreads.axhline(units - 1, color=_RED, linewidth=1.0)
        _ = spreads.annotate(
            f"ceiling {units} - 1", (x[0], units - 1), (0, 2),
            textcoords="offset points", va="bottom", color=_RED, fontsize=7, zorder=5,
            bbox={"color": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0},
        )  # fmt: skip
        high = max(units * 2.0, 1.3 * record["predicted_spread"].max())
        _ = spreads.set_ylim(np.clip(np.nanmin(curve.spread.low), 1e-3, 0.5) / 1.5, high)
        spreads.set_title(r"their spread, Var($s^2$) / mean($s^2$)$^2$")
        ranks = spreads.secondary_yaxis("right")
        ticks = [rank for rank in (1.1, 2, 4, 8, 16, 24, 28, 30) if rank < units]
        ticks = [t for t in ticks if spreads.get_ylim()[0] <= units / t - 1 <= high]
        _ = ranks.set_yticks([units / t - 1 for t in ticks], [f"{t:g}" for t in ticks])
        ranks.yaxis.set_minor_locator(NullLocator())
        ranks.spines["right"].set_visible(True)
        ranks.set_ylabel(f"effective rank, {units} / (1 + spread)")

        for axis, measured, predicted in (
            (axes[1, 0], np.sqrt(record["layer_mean"]), np.sqrt(record["predicted_layer_mean"])),
            (axes[1, 1], record["layer_spread"], record["predicted_layer_spread"]),
        ):
            alone = Curve(label, x, over_seeds(measured, 0), {"color": colour, "marker": "."})
            plot(axis, [alone], log=False)
            _ = axis.plot(x, predicted, **black)
            _ = axis.set_ylim(0, 1.15 * np.nanmax(measured))
            axis.set_xlabel("layers passed, from the first hidden one")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1, 0].set_ylabel("rms s, one\nlayer alone")
        axes[1, 1].set_ylabel("spread, one\nlayer alone")
        ours = [
            Line2D([], [], color=colour, label="measured"),
            Line2D([], [], color="black", label="measured rms", **dots),
        ]
        theory = [
            Line2D([], [], label=f"predicted at width {units}", **black),
            Line2D([], [], label="in wide nets", **{**black, "linestyle": (0, (4, 1.5))}),
        ]
        title = f"{activation_name(label)}, {len(x) + 1} hidden layers: before the first step"
        sentences = [
            f"{draws} nets, {inputs} images. Left: the median of the largest singular value of "
            "each matrix, of the second, and so on. Right: median and min-max band over the nets. "
            "Nothing is fitted."
        ]
        frame(figure, title, sentences, caption, ours, theory)
    return figure


def draw_sharpness(
    words: Mapping[str, str],
    record: Mapping[str, np.ndarray],
    *,
    edge: float,
    label: str,
    caption: str,
) -> Figure:
    """Sharpness over the steps of each training, with the edge of stability, above their losses.

    words: {training: what it is}.  record: {training}_steps [E], _sharpness and _train_loss [E, S].
    edge: 2 / learning rate.  Where a spike goes far beyond it, the sharpness has a log scale.
    """
    highest = max(float(np.max(record[f"{name}_sharpness"])) for name in words)
    spiky = highest > _SPIKE * edge
    colours = [ACTIVATIONS[split_label(label)[0]][1], _GREY, "#E69F00", "#56B4E9"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.0))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        _ = above.axhspan(0.8 * edge, 1.3 * edge, color=_RED, alpha=0.1, linewidth=0)
        _ = above.axhline(edge, color=_RED, linewidth=1.0)
        handles, drawn = list[Line2D](), list[Curve]()
        for i, (name, text) in enumerate(words.items()):
            style = {"color": colours[i % len(colours)], "zorder": 3 - i % 2}
            handles.append(Line2D([], [], label=text, color=style["color"]))
            for axis, key in ((above, "sharpness"), (below, "train_loss")):
                spread = over_seeds(record[f"{name}_{key}"], 1)
                curve = Curve(text, record[f"{name}_steps"], spread, style)
                plot(axis, [curve], log=spiky or key == "train_loss")
                drawn.append(curve)
        if spiky:
            limit_log(above, drawn[::2])
        else:
            _ = above.set_ylim(0, max(above.get_ylim()[1], 1.4 * edge))
        _ = above.set_xlim(0, None)
        limit_log(below, drawn[1::2], decades=False)
        above.set_ylabel(r"sharpness $\lambda$: largest eigenvalue" "\nof the Hessian of the loss")
        below.set_ylabel("training loss")
        below.set_xlabel("steps")
        edges = [
            Line2D([], [], color=_RED, label=f"2 / learning rate = {edge:g}"),
            Patch(color=_RED, alpha=0.15, linewidth=0, label="0.8 to 1.3 of it"),
        ]
        _, depth = split_label(label)
        title = f"{activation_name(label)}, {depth} hidden layers: the edge of stability"
        sentences = describe_curves(drawn, [])
        frame(figure, title, sentences, caption, handles, edges)
    return figure
