"""Figures of a classifier: confusion, accuracy by class, calibration, and example images.

A pure function for each figure, from arrays to a `matplotlib.figure.Figure`. Nothing is encoded by
colour alone: counts stand in the cells, gaps are hatched, seeds and medians differ in shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from research.figures.style import STYLE, WIDTH_IN, frame
from research.training.scores import Reliability, per_class_accuracy, wilson_interval

MOST_CLASSES = 16  # counts of four digits fit in their cells
FEWEST = 10  # examples of a seed in a bin, for a line through it

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito
# From white; as light in grey as in colour, and never too dark for black print.
_ERRORS = LinearSegmentedColormap.from_list("errors", ["#FFFFFF", "#F9CBA4", "#E8833A"])
_INCH_PER_LETTER = 0.058  # at the size of print of the titles of pictures
_MARGIN_IN = 0.1
_MEDIAN: dict[str, Any] = {
    "color": _BLUE,
    "marker": "|",
    "markersize": 10,
    "markeredgewidth": 2.2,
    "linestyle": "",
}
_ALONE: dict[str, Any] = {"color": _BLUE, "marker": "o", "markersize": 5, "linestyle": ""}
_GAP: dict[str, Any] = {
    "facecolor": "none",
    "edgecolor": _ORANGE,
    "hatch": "/////",
    "linewidth": 0.6,
}
_WHISKERS: dict[str, Any] = {
    "fmt": "o",
    "color": "black",
    "elinewidth": 0.8,
    "capsize": 1.5,
    "clip_on": False,
}
_THIN: dict[str, Any] = {"color": _BLUE, "linewidth": 0.7}
_SEED: dict[str, Any] = {
    "color": "black",
    "marker": "o",
    "markersize": 3,
    "markerfacecolor": "white",
    "markeredgewidth": 0.6,
    "linestyle": "",
}


def draw_confusion(
    confusion: ArrayLike, classes: Sequence[str], *, title: str, caption: str
) -> Figure:
    """Draws which class is taken for which: counts in the cells, and each class's accuracy.

    confusion: [K, K] counts, rows actual, columns predicted, K from 2 to 16.  classes: K names.
    Only errors are coloured, by their share of the row, on a square-root scale that ends at the
    largest of them: on the scale of the right answers they would all look alike. Cells without
    examples are empty.
    Raises ValueError for another shape, a negative or no count, or names that do not fit.
    """
    accuracies = per_class_accuracy(confusion)
    counts = np.asarray(confusion)
    size, total = len(counts), int(counts.sum())
    if not 2 <= size <= MOST_CLASSES or len(classes) != size or not total:
        wanted = f"2 to {MOST_CLASSES} classes, a name each, and an example"
        raise ValueError(f"expected {wanted}, got {size}, {len(classes)} names, {total} examples")
    rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = np.ma.masked_array(100.0 * counts / rows, mask=np.eye(size, dtype=bool))
    worst = float(shares.max()) or 1.0
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(min(WIDTH_IN, 3.0 + 0.7 * size), 1.9 + 0.34 * max(size, 4)))
        axis = figure.subplots()
        norm = PowerNorm(0.5, 0.0, worst)
        _ = axis.imshow(shares, cmap=_ERRORS, norm=norm, aspect="auto")
        _fill_cells(axis, counts)
        _name_sides(axis, classes, accuracies)
        bar = figure.colorbar(
            ScalarMappable(norm, _ERRORS), ax=[axis], aspect=3 * max(size, 4), pad=0.02
        )
        bar.set_label("errors: share of the class's examples (%)")
        ticks = np.array([0.0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100])
        kept = ticks[(ticks <= worst) & ~((0 < ticks) & (ticks < worst / 30))]
        bar.set_ticks(kept.tolist(), labels=[f"{tick:g}" for tick in kept])
        bar.ax.minorticks_off()
        _ = bar.outline.set(color="0.5", linewidth=0.5)
        right = int(np.trace(counts))
        sentences = [
            f"{right:,} of {total:,} right ({100 * right / total:.2f} %): the framed cells, which"
            " are not coloured. Empty cell: none."
        ]
        missing = [name for name, share in zip(classes, accuracies, strict=True) if share != share]
        sentences += [f"No example of: {', '.join(missing)}."] if missing else []
        frame(figure, title, sentences, caption)
    return figure


def draw_per_class(accuracies: Mapping[str, ArrayLike], *, title: str, caption: str) -> Figure:
    """Draws the accuracy of every class: median, and over several seeds each seed and the range.

    accuracies: {class: fractions [S] or a fraction}, the same S for all; NaN is left out.
    Raises ValueError for no class, unequal S, or a fraction outside 0..1.
    """
    values = {name: np.atleast_1d(np.asarray(v, np.float64)) for name, v in accuracies.items()}
    shapes = sorted({v.shape for v in values.values()})
    if len(shapes) != 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise ValueError(f"expected at least one class, each with [S] fractions, got {shapes}")
    table = 100.0 * np.array(list(values.values()))
    if not np.all(np.isnan(table) | ((table >= 0) & (table <= 100))):
        raise ValueError("expected fractions 0..1 or NaN as accuracies, got others")
    seeds = shapes[0][0]
    some = [row[~np.isnan(row)] for row in table]
    medians = [float(np.median(row)) if row.size else np.nan for row in some]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.15 + 0.2 * len(table)))
        axis = figure.subplots()
        for i, row in enumerate(some):
            if row.size and seeds > 1:
                _ = axis.plot([row.min(), row.max()], [i, i], color="0.65", linewidth=3.5)
                _ = axis.plot(row, [i] * row.size, **_SEED)
            _ = axis.plot(medians[i], i, **(_MEDIAN if seeds > 1 else _ALONE))
        _scale_accuracy(axis, list(values), medians)
        lost = {name: int(np.isnan(row).sum()) for name, row in zip(values, table, strict=True)}
        sentences = ["1 seed." if seeds == 1 else f"{seeds} seeds: median, each seed and range."]
        sentences += [f"Not drawn: {n} without examples ({name})." for name, n in lost.items() if n]
        handles = [
            Line2D([], [], label="median, in print at the right", **_MEDIAN),
            Line2D([], [], label="a seed", **_SEED),
            Line2D([], [], label="range", color="0.65", linewidth=3.5),
        ]
        frame(figure, title, sentences, caption, handles if seeds > 1 else [])
    return figure


def draw_reliability(
    reliability: Reliability | Sequence[Reliability], *, title: str, caption: str
) -> Figure:
    """Draws accuracy against confidence, above the number of examples of each confidence.

    reliability: of one net, or one for each seed, over the same bins. The bars are of the examples
    of all seeds together; each seed is a thin line as well, where a bin holds 10 of its examples or
    more, and the scores above are means over seeds. For one net the whiskers are Wilson intervals
    of 95 %.
    The gap between a bin's accuracy and its mean confidence is hatched; empty bins are absent.
    Raises ValueError for no seed or seeds that differ in their bins.
    Source: Guo, Pleiss, Sun, Weinberger 2017, figure 1; Niculescu-Mizil, Caruana 2005.
    """
    nets = [reliability] if isinstance(reliability, Reliability) else list(reliability)
    if not nets or any(not np.array_equal(net.edges, nets[0].edges) for net in nets):
        raise ValueError(f"expected at least one net, all with the same bins, got {len(nets)}")
    counts, confidence, accuracy = _pooled(nets)
    several = len(nets) > 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 5.9))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_gaps(upper, nets, confidence, accuracy)
        _draw_histogram(lower, nets[0].edges, counts / len(nets), confidence, accuracy)
        lower.set(xlabel="confidence", ylabel="examples a seed" if several else "examples")
        figure.align_ylabels((upper, lower))
        ece, nll, brier = np.mean([net[-3:] for net in nets], axis=0)
        text = f"ECE {100 * ece:.2f} %    NLL {nll:.3f} nats    Brier {brier:.3f}"
        upper.set_title(f"means: {text}" if several else text, fontsize=8)
        handles = [
            Patch(facecolor="0.85", edgecolor="0.2", label="accuracy"),
            Patch(**_GAP, label="gap to confidence"),
            Line2D([], [], color="black", linestyle=":", label="perfect"),
        ]
        sentence = "1 seed; whiskers: 95 % interval (Wilson)."
        if several:
            handles.append(Line2D([], [], **_THIN, label="a seed"))
            sentence = (
                f"{len(nets)} seeds: bars of all together, lines of each where a bin holds"
                f" {FEWEST} examples or more."
            )
        frame(figure, title, [sentence], caption, handles)
    return figure


def draw_examples(images: ArrayLike, titles: Sequence[str], *, title: str, caption: str) -> Figure:
    """Draws pictures in rows, in the order given, each below its own title.

    images: [N, H, W, C] uint8 with C = 1 (grey) or 3 (colour), N from 1.  titles: N texts of two
    lines at most, "9: true cat\\nsaid dog 98 %"; the longest line decides how many fit in a row.
    Raises ValueError for another shape or type, or titles that do not fit.
    """
    pictures = np.asarray(images)
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or pictures.shape[3] not in (1, 3):
        got = f"{pictures.dtype} {list(pictures.shape)}"
        raise ValueError(f"expected images [N, H, W, 1 or 3] uint8, got {got}")
    lines = [line for text in titles for line in text.split("\n")]
    most = int(WIDTH_IN / _INCH_PER_LETTER) - 3
    if not len(pictures) or len(titles) != len(pictures):
        raise ValueError(f"expected a title for each picture, got {len(titles)}, {len(pictures)}")
    if any(text.count("\n") > 1 for text in titles) or max(map(len, lines)) > most:
        raise ValueError(f"expected titles of two lines of {most} letters at most, got {titles}")
    longest = max(map(len, lines))
    columns = min(8, int(WIDTH_IN / (_MARGIN_IN + _INCH_PER_LETTER * longest)), len(pictures))
    rows = -(-len(pictures) // columns)
    side = min(WIDTH_IN / columns - _MARGIN_IN, 1.35)
    height = side * pictures.shape[1] / pictures.shape[2] + 0.4
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH_IN, 0.6 + rows * height))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, picture, text in zip(axes, pictures, titles, strict=False):
            shown = picture if picture.shape[2] == 3 else picture[..., 0]
            _ = axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_title(text, fontsize=7, pad=3)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color="0.7", linewidth=0.5)
        for axis in axes[len(pictures) :]:
            axis.remove()
        frame(figure, title, [], caption)
    return figure


def _fill_cells(axis: Axes, counts: np.ndarray) -> None:
    """Counts, a frame round each right answer, and fine lines between the cells."""
    size = len(counts)
    for (i, j), count in np.ndenumerate(counts):
        if count:
            weight = "bold" if i == j else "normal"
            _ = axis.text(j, i, str(count), ha="center", va="center", fontsize=7, weight=weight)
    for edge in np.arange(0.5, size - 1):
        _ = axis.axhline(edge, color="0.85", linewidth=0.5, zorder=1)
        _ = axis.axvline(edge, color="0.85", linewidth=0.5, zorder=1)
    for i in range(size):
        box = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="0.2", zorder=3)
        axis.add_patch(box).set_clip_on(False)
    axis.spines[:].set(visible=True, color="0.5", linewidth=0.5)


def _name_sides(axis: Axes, classes: Sequence[str], accuracies: np.ndarray) -> None:
    """Class names at the left and below, accuracies in percent at the right."""
    places = range(len(classes))
    slant: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    short = max(map(len, classes)) * len(classes) <= 60
    _ = axis.set_xticks(places, list(classes), **({} if short else slant))
    _ = axis.set_yticks(places, list(classes))
    axis.tick_params(length=0)
    _ = axis.set(xlabel="predicted", ylabel="actual")
    margin = axis.secondary_yaxis("right")
    shown = ["-" if np.isnan(share) else f"{100 * share:.1f}" for share in accuracies]
    _ = margin.set_yticks(places, shown)
    margin.tick_params(length=0)
    margin.spines[:].set_visible(False)
    _ = margin.set_ylabel("accuracy (%)")


def _scale_accuracy(axis: Axes, names: Sequence[str], medians: Sequence[float]) -> None:
    """First class on top, at least ten points across, medians in print at the right."""
    _ = axis.set_yticks(range(len(names)), list(names))
    _ = axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(visible=True, axis="both")
    low, high = axis.get_xlim()
    spare = max(0.0, 10.0 - (high - low)) / 2
    low, high = low - spare, high + spare
    if high > 100:
        low, high = max(0.0, low - (high - 100)), 100.6
    _ = axis.set_xlim(max(low, -0.6), high)
    axis.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    _ = axis.set_xlabel("accuracy (%)")
    margin = axis.secondary_yaxis("right")
    _ = margin.set_yticks(range(len(names)), ["-" if m != m else f"{m:.1f}" for m in medians])
    margin.tick_params(length=0)
    margin.spines[:].set_visible(False)


def _pooled(nets: Sequence[Reliability]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, mean confidence and accuracy [B] of the examples of all nets together."""
    counts = np.array([net.counts for net in nets])
    total = counts.sum(axis=0)
    means: list[np.ndarray] = []
    for values in ([net.confidence for net in nets], [net.accuracy for net in nets]):
        sums = np.where(counts > 0, counts * np.array(values), 0.0).sum(axis=0)
        means.append(np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0))
    return total, means[0], means[1]


def _draw_gaps(
    axis: Axes, nets: Sequence[Reliability], confidence: np.ndarray, accuracy: np.ndarray
) -> None:
    """Bars of accuracy, their gap to the confidence, and whiskers or the seeds."""
    edges = nets[0].edges
    some = ~np.isnan(accuracy)
    left, width = edges[:-1][some], np.diff(edges)[some]
    x, y = confidence[some], accuracy[some]
    _ = axis.bar(left, y, width, align="edge", color="0.85", edgecolor="0.2", linewidth=0.6)
    _ = axis.bar(left, x - y, width, bottom=y, align="edge", **_GAP)
    _ = axis.plot([0, 1], [0, 1], color="black", linestyle=":", label="perfect")
    if len(nets) == 1:
        counts = nets[0].counts[some]
        ends = [wilson_interval(round(a * n), n) for a, n in zip(y, counts, strict=True)]
        low, high = np.array(ends).T
        whiskers = (np.maximum(0.0, y - low), np.maximum(0.0, high - y))
        _ = axis.errorbar(x, y, yerr=whiskers, **_WHISKERS)
    else:
        for net in nets:
            enough = net.counts >= FEWEST
            _ = axis.plot(net.confidence, np.where(enough, net.accuracy, np.nan), **_THIN)
    _ = axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")


def _draw_histogram(
    axis: Axes, edges: np.ndarray, counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray
) -> None:
    """Examples in each bin on a log axis, with the means of confidence and accuracy."""
    some = counts > 0
    widths = np.diff(edges)[some]
    bars = {"align": "edge", "color": "0.85", "edgecolor": "0.2", "linewidth": 0.6}
    _ = axis.bar(edges[:-1][some], counts[some], widths, **bars)
    axis.set_yscale("log")
    _ = axis.set_ylim(min(0.8, counts[some].min() / 2), counts.max() * 2)
    for values, style, name in ((accuracy, "-", "accuracy"), (confidence, "--", "confidence")):
        mean = float(np.average(values[some], weights=counts[some]))
        _ = axis.axvline(mean, color=_BLUE, linestyle=style, label=f"mean {name} {mean:.3f}")
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    _ = axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
