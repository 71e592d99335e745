"""Palette, curves over seeds, and layout of all figures.

Every figure states its data, the number of seeds and the values that it could not draw; the caller
chooses the resolution when saving.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

# Name in print, colour (from the colour-blind safe palette of Okabe and Ito), marker.
ACTIVATIONS = {
    "relu": ("ReLU", "#D55E00", "o"),
    "tanh": ("tanh", "#0072B2", "s"),
    "sigmoid": ("sigmoid", "#009E73", "^"),
    "lecun": ("LeCun", "#B0569A", "D"),
}
STYLE: dict[Any, Any] = {
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
WIDTH_IN = 7.2


@dataclass(frozen=True)
class Spread:
    """What a figure draws of the values of several seeds.

    middle, low, high: float64 arrays of one shape, NaN where no seed has a finite value.
    lost: how many values of each place were not finite, an integer array of that shape.
    statistic: what the middle is, "median" or "mean".
    """

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int
    lost: np.ndarray
    statistic: str = "median"

    def __getitem__(self, index: Any) -> Spread:
        middle, low, high, lost = (
            array[index] for array in (self.middle, self.low, self.high, self.lost)
        )
        return Spread(middle, low, high, self.seeds, lost, self.statistic)

    def __mul__(self, factor: float) -> Spread:
        middle, low, high = (factor * array for array in (self.middle, self.low, self.high))
        return Spread(middle, low, high, self.seeds, self.lost, self.statistic)


def over_seeds(values: ArrayLike | Spread, axis: int) -> Spread:
    """Median, minimum and maximum of the finite values along an axis; a `Spread` as it is."""
    if isinstance(values, Spread):
        return values
    finite = np.ma.masked_invalid(np.asarray(values, np.float64))
    middle, low, high = (
        np.ma.filled(reduce(finite, axis=axis), np.nan)
        for reduce in (np.ma.median, np.ma.min, np.ma.max)
    )
    return Spread(middle, low, high, finite.shape[axis], np.ma.count_masked(finite, axis))


@dataclass(frozen=True)
class Curve:
    """A line with its band over x [X], in matplotlib's line properties."""

    label: str
    x: np.ndarray
    spread: Spread
    style: Mapping[str, Any]
    banded: bool = True


def split_label(label: str) -> tuple[str, int]:
    """("tanh", 40) from "tanh-40"."""
    activation, _, depth = label.partition("-")
    if activation not in ACTIVATIONS or not depth.isdecimal():
        raise ValueError(f"expected a label {{{','.join(ACTIVATIONS)}}}-DEPTH, got {label!r}")
    return activation, int(depth)


def activation_name(label: str) -> str:
    """'LeCun' from 'lecun-40'."""
    return ACTIVATIONS[split_label(label)[0]][0]


def activation_handles(labels: Iterable[str]) -> list[Line2D]:
    """Legend entries of the activations that the labels name."""
    used = {split_label(label)[0] for label in labels}
    return [
        Line2D([], [], label=name, color=colour, marker=marker)
        for key, (name, colour, marker) in ACTIVATIONS.items()
        if key in used
    ]


def plot(axis: Axes, curves: Iterable[Curve], *, log: bool) -> None:
    """Draws the middle of each curve and, over several seeds, its band.

    On a log axis a middle at zero or below leaves a gap, and a band that holds zeros reaches the
    lower end of the axis.
    """
    if log:
        axis.set_yscale("log", nonpositive="clip")
    for curve in curves:
        spread = curve.spread
        middle = np.where(spread.middle > 0, spread.middle, np.nan) if log else spread.middle
        (line,) = axis.plot(curve.x, middle, label=curve.label, **curve.style)
        if curve.banded and spread.seeds > 1:
            look: dict[str, Any] = {"color": line.get_color(), "alpha": 0.13, "linewidth": 0}
            _ = axis.fill_between(curve.x, spread.low, spread.high, **look)


def limit_log(axis: Axes, curves: Iterable[Curve], *, decades: bool = True) -> None:
    """Limits around all positive values drawn; ticks at decades, two at least, or at 1, 2, 5."""
    spreads = [curve.spread for curve in curves]
    values = np.concatenate([part for s in spreads for part in (s.middle, s.low, s.high)])
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


def describe_curves(drawn: Sequence[Curve], logged: Sequence[Curve], where: str = "") -> list[str]:
    """Sentences on the seeds and the band, and on what is not drawn and why."""
    kinds: dict[tuple[int, str], dict[str, None]] = {}
    lost: Counter[tuple[str, str]] = Counter()
    for curve in drawn:
        kinds.setdefault((curve.spread.seeds, curve.spread.statistic), {})[curve.label] = None
        lost[curve.label, "values that are not finite"] += int(curve.spread.lost.sum())
    for curve in logged:
        why = f"{curve.spread.statistic}s at zero or below, on the log axis"
        lost[curve.label, why] += int((curve.spread.middle <= 0).sum())
    parts: list[str] = []
    for (seeds, statistic), labels in kinds.items():
        nets = "" if len(kinds) == 1 else f"{', '.join(labels)}: "
        band = f": {statistic} and min-max band{where}" if seeds > 1 else ""
        parts.append(f"{nets}{seeds} seed{'s' if seeds > 1 else ''}{band}.")
    return parts + [f"Not drawn: {n} {why} ({label})." for (label, why), n in lost.items() if n]


def percent(chance: float) -> str:
    """A probability as "98 %", and never as 100 % for what is less than sure."""
    rounded = f"{100 * chance:.0f} %"
    return ">99 %" if rounded == "100 %" and chance < 1 else rounded


def frame(
    figure: Figure,
    title: str,
    sentences: Sequence[str],
    caption: str,
    *legends: Sequence[Artist],
) -> None:
    """Keeps strips of their own for title and legends above the axes and the footer below.

    The footer is the sentences on what is drawn, and the data, which the caption names. An empty
    title takes no room.
    legends: of at most two, the first goes to the left and the second to the right.
    Raises ValueError for an empty caption.
    """
    if not caption.strip():
        raise ValueError("expected a caption that names the data, got an empty one")
    footer = " ".join([*sentences, f"Data: {caption}"])
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
