"""Figures of what a record keeps: means and ranges for seeds, pictures for what a net said of them.

Arrays and numbers in, a `matplotlib.figure.Figure` out: no files, no global state.
Source: report, Part D, figure 4 (learning curves), and Exercise 2, figures 8 and 9 (grids).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from research.figures.style import (
    ACTIVATIONS,
    STYLE,
    WIDTH_IN,
    Curve,
    activation_handles,
    activation_name,
    frame,
    limit_log,
    plot,
    split_label,
)

MOST_ROWS = 10

_SPLITS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": (0, (3.5, 1.5)), "markerfacecolor": "white"},
    "test": {"linestyle": "-"},
}
_UNITS = {"accuracy": "accuracy (%)", "loss": "cross-entropy (nats)"}
# Colours as in the report, told apart by their lines as well.
_KINDS: dict[str, dict[str, Any]] = {
    "original": {"edgecolor": "#E3B505", "linestyle": "solid"},
    "target reached": {"edgecolor": "#009E73", "linestyle": "solid"},
    "self: own class left": {"edgecolor": "#CC2222", "linestyle": "dotted"},
    "failed, crossed": {"edgecolor": "black", "linestyle": "dashed"},
}
_ORIGINAL, _REACHED, _LEFT, _FAILED = _KINDS
_STEP_IN = 0.62  # from one picture to the next
_GAP = 0.12  # between pictures, as a share of their width
_LINE_IN = 0.12  # of the smallest print
_LETTERS = 7  # of a class above a picture


@dataclass(frozen=True)
class _Kept(Curve):
    """A curve whose values [3, X] are the mean of the seeds, the lowest and the highest."""

    def summary(self) -> np.ndarray:
        return self.values


def draw_mean_curves(
    curves: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    *,
    seeds: int,
    title: str,
    caption: str,
) -> Figure:
    """Draws accuracy and loss over the epochs, train dashed and test solid, a column a depth.

    curves: {"tanh-40": {"test_loss": {"mean", "low", "high"}, ...}}, each [E] over the epochs, with
    train_ and test_, _loss and _accuracy; accuracies are fractions, drawn in percent.
    seeds: how many they are the mean and the range of.
    Raises ValueError for no nets, a wrong label, or unequal numbers of epochs of one net.
    Source: report, Part D, figure 4.
    """
    depths = sorted({split_label(net)[1] for net in curves})
    if not depths:
        raise ValueError("expected at least one net, got none")
    drawn: dict[str, list[Curve]] = {"accuracy": [], "loss": []}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.6))
        axes = figure.subplots(2, len(depths), sharey="row", squeeze=False)
        for column, depth in zip(axes.T, depths, strict=True):
            nets = [net for net in curves if split_label(net)[1] == depth]
            for axis, quantity in zip(column, drawn, strict=True):
                chosen = [c for net in nets for c in _learning(net, curves[net], quantity)]
                plot(axis, chosen, log=quantity == "loss")
                axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
                drawn[quantity] += chosen
            ends = [100 * np.asarray(curves[net]["test_accuracy"]["mean"])[-1] for net in nets]
            pairs = zip(nets, ends, strict=True)
            said = ", ".join(f"{activation_name(net)} {end:.2f}" for net, end in pairs)
            column[0].set_title(f"{depth} hidden layers\nfinal test %: {said}", fontsize=7.5)
            column[1].set_xlabel("epoch")
        for axis, quantity in zip(axes[:, 0], drawn, strict=True):
            axis.set_ylabel(_UNITS[quantity])
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(6))
        limit_log(axes[1, 0], drawn["loss"], decades=False)
        several = ": mean, and band from the lowest to the highest" if seeds > 1 else ""
        sentence = f"{seeds} seed{'s' if seeds > 1 else ''}{several}."
        splits = [
            Line2D([], [], color="0.2", marker="o", label=split, **style)
            for split, style in _SPLITS.items()
        ]
        frame(figure, title, [sentence], caption, activation_handles(curves), splits)
    return figure


def draw_sheet(
    clean: ArrayLike,
    adversarial: ArrayLike,
    *,
    actual: ArrayLike,
    predicted: ArrayLike,
    probability: ArrayLike,
    success: ArrayLike,
    classes: Sequence[str],
    title: str,
    caption: str,
) -> Figure:
    """Draws a row for each image: the original, then what the attack toward each class made of it.

    As `noise.draw_grid`, for records that do not hold what the net says of the originals.
    clean: [R, H, W, C] uint8, R from 1 to 10, C = 1 (grey) or 3 (colour).
    adversarial: [R, K, H, W, C] uint8, one for each of K targets.  actual: [R] integers 0..K-1.
    predicted: [R, K] integers 0..K-1, with their probability [R, K], 0..1.  success: [R, K] bool.
    classes: K names.  Raises ValueError for other shapes.  Source: report, figures 8 and 9.
    """
    first, made = np.asarray(clean), np.asarray(adversarial)
    shape = (*first.shape[:1], len(classes))
    given = [np.asarray(each) for each in (predicted, probability, success)]
    if made.shape != (*shape, *first.shape[1:]) or not 1 <= len(first) <= MOST_ROWS:
        got = f"{list(first.shape)} and {list(made.shape)}"
        raise ValueError(f"expected 1 to {MOST_ROWS} images toward {shape[1]} classes, got {got}")
    if any(each.shape != shape for each in given):
        raise ValueError(f"expected numbers of {list(shape)}, got {[e.shape for e in given]}")
    source = np.asarray(actual)
    own = source[:, None] == np.arange(shape[1])
    won = given[2].astype(bool)
    kinds = np.where(won, np.where(own, _LEFT, _REACHED), _FAILED)
    between, lines = (" ", 1) if max(map(len, classes)) <= 2 else ("\n", 2)
    above = [
        [_words(classes[int(k)], float(chance), between) for k, chance in zip(*row, strict=True)]
        for row in zip(*given[:2], strict=True)
    ]
    sentences = [
        "Above each picture: what is predicted, and its probability. At the left: the actual class."
        f" Target reached: {won[~own].sum():,} of {(~own).sum():,}."
        f" Own class left: {won[own].sum():,} of {own.sum():,}."
    ]
    pictures = np.concatenate([first[:, None], made], axis=1)
    side = _STEP_IN * (1 - _GAP)
    row_in = side * first.shape[1] / first.shape[2] + lines * _LINE_IN + 0.07
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH_IN, 1.25 + len(first) * row_in))
        axis = figure.subplots()
        axis.set_axis_off()
        _ = axis.set(xlim=(-0.35, shape[1] + 1), ylim=(len(first) * row_in, -0.2))
        _name_columns(axis, [classes[int(k)] for k in source], classes, row_in)
        for (i, j), kind in np.ndenumerate(np.insert(kinds, 0, _ORIGINAL, axis=1)):
            text = above[i][j - 1] if j else ""
            _place(axis, pictures[i, j], str(kind), text, (i * row_in + lines * _LINE_IN, j))
        legend = [
            Patch(facecolor="none", linewidth=2, **look, label=k) for k, look in _KINDS.items()
        ]
        frame(figure, title, sentences, caption, legend)
    return figure


def _learning(net: str, curves: Mapping[str, Any], quantity: str) -> list[Curve]:
    """The train and the test curve of one net; accuracy in percent."""
    _, colour, marker = ACTIVATIONS[split_label(net)[0]]
    factor = 100.0 if quantity == "accuracy" else 1.0
    found: list[Curve] = []
    for split, style in _SPLITS.items():
        kept = curves[f"{split}_{quantity}"]
        values = factor * np.array([kept[name] for name in ("mean", "low", "high")], np.float64)
        x = np.arange(1, values.shape[1] + 1)
        look = {"color": colour, "marker": marker, **style}
        found.append(_Kept(net, x, values, look, banded=split == "test"))
    return found


def _words(name: str, probability: float, between: str) -> str:
    """Never 100 % for what is less than sure."""
    percent = f"{100 * probability:.0f}%"
    sure = ">99%" if percent == "100%" and probability < 1 else percent
    return f"{_shorten(name)}{between}{sure}"


def _shorten(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}."


def _name_columns(axis: Axes, rows: Sequence[str], classes: Sequence[str], row_in: float) -> None:
    """Targets above, actual classes at the left."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "weight": "bold"}
    for j, name in enumerate(["original", *(f"to {_shorten(name)}" for name in classes)]):
        _ = axis.text(j + 0.5, -0.08, name, **look)
    for i, name in enumerate(rows):
        turn = 0 if len(name) <= 2 else 90
        _ = axis.text(
            -0.15, (i + 0.55) * row_in, name, rotation=turn, **{**look, "weight": "normal"}
        )


def _place(axis: Axes, picture: np.ndarray, kind: str, text: str, place: tuple[float, int]) -> None:
    """A picture with its frame and its text; x in steps, y in inches from the top."""
    y, x = place[0], place[1] + _GAP / 2
    width, height = 1 - _GAP, _STEP_IN * (1 - _GAP) * picture.shape[0] / picture.shape[1]
    shown = picture if picture.shape[2] == 3 else picture[..., 0]
    extent = (x, x + width, y + height, y)
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest"}
    _ = axis.imshow(shown, extent=extent, aspect="auto", **look)
    _ = axis.add_patch(Rectangle((x, y), width, height, fill=False, linewidth=1.8, **_KINDS[kind]))
    if kind == _FAILED:
        for ends in ((y, y + height), (y + height, y)):
            halo = [Stroke(linewidth=2.4, foreground="white"), Normal()]
            _ = axis.plot((x, x + width), ends, color="black", lw=1.0, path_effects=halo)
    _ = axis.text(
        x + width / 2, y - 0.02, text, ha="center", va="bottom", fontsize=7, linespacing=0.9
    )
