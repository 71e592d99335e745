"""Figures of the face-mask classifier: samples, class balance, ROC, scored faces and photographs.

A pure function for each figure, from arrays to a `matplotlib.figure.Figure`, or for photographs to
their annotated pixels. Nothing is encoded by colour alone: classes differ in the style of line and
in print, wrong predictions are crossed out and framed in dashes.
Source: report, Exercise 3, figures 10 to 14 (samples), 18 (scores), 19 and 20 (annotated
photographs).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from research.figures.style import STYLE, WIDTH_IN, frame, percent

MOST_SAMPLES = 10  # in a row
MOST_SCORED = 25

Roc = tuple[np.ndarray, np.ndarray, float]  # false and true positive rate [P], area

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito
# By place of a class or a net: colour and style of line.
_LOOKS: tuple[tuple[str, Any], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", (0, (5, 2))),
    ("#009E73", (0, (1.2, 1.2))),
    ("#B0569A", (0, (5, 1.5, 1.2, 1.5))),
    ("#000000", (0, (8, 2))),
)
_DASHES = ((), (3.0, 1.5), (1.0, 1.0))  # of boxes by class, in widths of the line: drawn, left out
_INCH_PER_LETTER = 0.058  # at the size of print of the titles of pictures
_MARKS = {True: "\u2713", False: "\u2717"}  # right, wrong
_SHOWN_PX = 1400  # the longer side of a photograph in a figure
_LEAST_LETTER_PX = 7
_MOST_HIDDEN = 0.25  # of a face, by the texts of others
_NOWHERE = (math.inf, math.inf)  # pixels of texts and of faces that a text covers
_GRID = 201  # false positive rates at which seeds are averaged
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
_KEPT: dict[str, Any] = {"facecolor": "0.8", "edgecolor": "0.2", "linewidth": 0.6}
_ADDED: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": _BLUE,
    "hatch": "/////",
    "linewidth": 0.6,
}
_LEFT_OUT: dict[str, Any] = {
    "facecolor": "none",
    "edgecolor": "0.3",
    "linestyle": (0, (3, 2)),
    "linewidth": 0.8,
}
_WRONG: dict[str, Any] = {"color": _ORANGE, "linewidth": 2.2, "linestyle": (0, (3, 1.2))}


def draw_samples(
    faces: Mapping[str, ArrayLike],
    *,
    title: str,
    caption: str,
    titles: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draws faces in rows, one for each source, as "voc" or "augmented copies".

    faces: {source: [N, S, S, 3] uint8}, N from 1; of more than 10 the first are drawn.
    titles: {source: a short line for each face}, for the rows that have any.
    Raises ValueError for no source, another shape or type, or titles that do not fit.
    Source: report, Exercise 3, figures 10, 12, 13 and 14.
    """
    rows = {name: _pictures(name, images) for name, images in faces.items()}
    lines = dict(titles or {})
    if not rows or any(name not in rows or len(rows[name]) != len(lines[name]) for name in lines):
        got = {name: len(texts) for name, texts in lines.items()}
        raise ValueError(f"expected a source at least, and titles for its faces, got {got}")
    columns = min(MOST_SAMPLES, max(map(len, rows.values())))
    side = min(1.1, (WIDTH_IN - 1.2) / columns - 0.06)
    heights = [side + (0.2 if name in lines else 0.06) for name in rows]
    width = max(4.2, 1.2 + columns * (side + 0.06))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(width, 0.72 + sum(heights)))
        axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        for line, (name, pictures) in zip(axes, rows.items(), strict=True):
            texts = [*lines.get(name, ()), *[""] * columns]
            for axis, picture, text in zip(line, pictures, texts, strict=False):
                _show(axis, picture)
                axis.set_title(text, fontsize=7, pad=2)
            wrapped = "\n".join(textwrap.wrap(name, 16)[:5])
            _ = line[0].set_ylabel(wrapped, rotation=0, ha="right", va="center", labelpad=6)
            for axis in line[len(pictures) :]:
                axis.remove()
        more = [
            f"{n} of {len(p):,} ({name})" for name, p in rows.items() if (n := columns) < len(p)
        ]
        frame(figure, title, [f"Drawn: the first {', '.join(more)}."] if more else [], caption)
    return figure


def add_copies(
    faces: Mapping[str, Mapping[str, int]], copies: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Faces and their augmented copies: {source: {class: number}}, sources and classes of `faces`.

    copies: as `faces`; what is not named in it has none.
    """
    return {
        source: {label: n + copies.get(source, {}).get(label, 0) for label, n in counts.items()}
        for source, counts in faces.items()
    }


def draw_balance(
    before: Mapping[str, Mapping[str, int]],
    after: Mapping[str, Mapping[str, int]],
    *,
    title: str,
    caption: str,
) -> Figure:
    """Draws how many faces of each class a source has, and how many augmentation makes of them.

    before, after: {source: {class: faces}}, the same sources in both; a class that is named on one
    side only has none on the other, as one that was left out.
    Raises ValueError for no source, sources that differ, no class, or a negative count.
    Source: report, Exercise 3, "Data Ingestion".
    """
    bars: list[tuple[str, str, int, int]] = []
    for source in before if before.keys() == after.keys() else ():
        names = dict.fromkeys([*before[source], *after[source]])
        pairs = [(n, before[source].get(n, 0), after[source].get(n, 0)) for n in names]
        bars += [(source, *pair) for pair in pairs]
    if (
        not bars
        or len({bar[0] for bar in bars}) != len(before)
        or any(min(b[2:]) < 0 for b in bars)
    ):
        got = f"{dict(before)} and {dict(after)}"
        raise ValueError(f"expected counts of the same sources before and after, got {got}")
    gaps = np.cumsum(
        [0.5 * (bar[0] != last[0]) for bar, last in zip(bars, bars[:1] + bars, strict=False)]
    )
    places = np.arange(len(bars)) + gaps
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.25 + 0.22 * (places[-1] + 1)))
        axis = figure.subplots()
        most = max(1, *(max(bar[2:]) for bar in bars))
        for y, (_source, _name, first, last) in zip(places, bars, strict=True):
            kept = min(first, last)
            _ = axis.barh(y, kept, 0.75, **_KEPT)
            if first != last:
                look = _ADDED if last > first else _LEFT_OUT
                _ = axis.barh(y, abs(last - first), 0.75, left=kept, **look)
            text = f"{first:,}" if first == last else f"{first:,} \u2192 {last:,}"
            _ = axis.text(max(first, last) + 0.01 * most, y, text, va="center", fontsize=7)
        _name_bars(axis, bars, places, most)
        totals: dict[str, list[int]] = {}
        for _source, name, *pair in bars:
            totals[name] = [a + b for a, b in zip(totals.get(name, [0, 0]), pair, strict=True)]
        sums = ", ".join(f"{name} {a:,} \u2192 {b:,}" for name, (a, b) in totals.items())
        handles = [
            Patch(**_KEPT, label="as found"),
            Patch(**_ADDED, label="augmented copies"),
            Patch(**_LEFT_OUT, label="left out"),
        ]
        frame(figure, title, [f"All sources, before \u2192 after: {sums}."], caption, handles)
    return figure


def draw_scored(
    images: ArrayLike,
    labels: ArrayLike,
    predicted: ArrayLike,
    probabilities: ArrayLike,
    names: Sequence[str],
    *,
    title: str,
    caption: str,
) -> Figure:
    """Draws faces with the predicted class and its probability; wrong ones are crossed out.

    images: [N, S, S, 3] uint8, N from 1 to 25.  labels, predicted: [N] integers, 0..K-1.
    probabilities: [N] of the predicted class, 0..1.  names: K names of classes.
    Raises ValueError for other shapes, types or ranges. Source: report, Exercise 3, figure 18.
    """
    pictures = _pictures("score", images)
    actual, answers = np.asarray(labels), np.asarray(predicted)
    chances = np.asarray(probabilities, np.float64)
    shapes = {array.shape for array in (actual, answers, chances)}
    kinds = actual.dtype.kind + answers.dtype.kind
    if shapes != {(len(pictures),)} or len(pictures) > MOST_SCORED or set(kinds) - set("iu"):
        raise ValueError(
            f"expected 1 to {MOST_SCORED} faces, a class of each, got {shapes}, {kinds}"
        )
    _check_classes(np.concatenate([actual, answers]), chances, names)
    correct = actual == answers
    lines = [
        (f"{_MARKS[a == p]} {names[p]} {percent(chance)}", f"is {names[a]}")
        for a, p, chance in zip(actual, answers, chances, strict=True)
    ]
    longest = max(len(text) for pair in lines for text in pair)
    columns = max(1, min(5, int(WIDTH_IN / (0.1 + _INCH_PER_LETTER * longest)), len(pictures)))
    rows = -(-len(pictures) // columns)
    side = min(WIDTH_IN / columns - 0.1, 1.3)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH_IN, 0.8 + rows * (side + 0.38)))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, picture, pair, right in zip(
            axes, pictures, lines, actual == answers, strict=False
        ):
            _show(axis, picture)
            axis.set_title(pair[0] if right else "\n".join(pair), fontsize=7, pad=3)
            if not right:
                axis.spines[:].set(visible=True, **_WRONG)
                _ = axis.title.set_weight("bold")
        for axis in axes[len(pictures) :]:
            axis.remove()
        count = int(np.sum(correct))
        sentence = f"{count} of {len(pictures)} right (\u2713); wrong: \u2717 and a dashed frame."
        frame(figure, title, [sentence, "Percent: probability of the predicted class."], caption)
    return figure


def draw_roc(curves: Mapping[str, Roc | Sequence[Roc]], *, title: str, caption: str) -> Figure:
    """Draws ROC curves, whole and their upper left corner; of several seeds each and the mean.

    curves: {net: (false positive rate [P], true positive rate [P], area) or one for each seed}, at
    most 5 nets; rates rise from 0 to 1. Seeds are averaged over the true positive rates at equal
    false positive rates (Fawcett 2006, "vertical averaging").
    Raises ValueError for no net or more, or rates that are none.
    Source: Fawcett 2006, An introduction to ROC analysis.
    """
    if not 1 <= len(curves) <= len(_LOOKS) or not all(map(len, curves.values())):
        raise ValueError(f"expected 1 to {len(_LOOKS)} nets, a curve of each, got {len(curves)}")
    nets = {name: _seeds_of(name, given) for name, given in curves.items()}
    grid = np.linspace(0.0, 1.0, _GRID)
    handles: list[Line2D] = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.45))
        axes = figure.subplots(1, 2)
        for (name, seeds), (colour, style) in zip(nets.items(), _LOOKS, strict=False):
            look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 1.6}
            mean = np.mean([np.interp(grid, *seed[:2]) for seed in seeds], axis=0)
            for axis in axes:
                if len(seeds) == 1:
                    _ = axis.plot(*seeds[0][:2], **look)
                    continue
                for false_positive, true_positive, _area in seeds:
                    _ = axis.plot(
                        false_positive, true_positive, color=colour, linewidth=0.5, alpha=0.6
                    )
                _ = axis.plot(np.append(0.0, grid), np.append(0.0, mean), **look)
            areas = [seed[2] for seed in seeds]
            spread = f" ({min(areas):.4f} to {max(areas):.4f})" if len(areas) > 1 else ""
            label = "\n".join(textwrap.wrap(f"{name}: area {np.mean(areas):.4f}{spread}", 36))
            handles.append(Line2D([], [], label=label, **look))
        for axis, corner in zip(axes, (1.0, 0.2), strict=True):
            _ = axis.plot([0, 1], [0, 1], color="0.4", linewidth=0.8, linestyle=":")
            _ = axis.set(xlim=(-0.01 * corner, corner), ylim=(1 - corner, 1 + 0.01 * corner))
            axis.set_box_aspect(1)
            axis.set_anchor("N")
            _ = axis.set_xlabel("false positive rate")
        _ = axes[0].set(ylabel="true positive rate", title="whole (dotted: chance)")
        _ = axes[1].set_title("upper left corner")
        _ = axes[0].legend(handles=handles, loc="lower right", frameon=True, edgecolor="none")
        counts = sorted({len(seeds) for seeds in nets.values()})
        several = "s: thin each, thick their mean at equal false positive rates."
        sentence = f"{'/'.join(map(str, counts))} seed{several if counts[-1] > 1 else '.'}"
        frame(figure, title, [sentence], caption)
    return figure


def draw_annotated(
    image: ArrayLike,
    boxes: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    names: Sequence[str],
) -> np.ndarray:
    """The photograph [H, W, 3] uint8 with a box, the class and its probability for each face.

    image: [H, W, 3] uint8, not changed.  boxes: [n, 4] left, top, right, bottom in pixels, from 0.
    labels: [n] integers, 0..K-1.  probabilities: [n], 0..1.  names: K names of classes.
    The first class has unbroken boxes, the second dashed, the third dotted. A text stands above its
    box, or where it fits and covers no other text; it is shortened to the percentage, and then left
    out, where there is no room for it: no more than a quarter of a face is hidden by the texts of
    others.
    Raises ValueError for other shapes, types or ranges. Source: report, Exercise 3, figures 19, 20.
    """
    actual, chances = np.asarray(labels), np.asarray(probabilities, np.float64)
    if actual.dtype.kind not in "iu" and actual.size:
        raise ValueError(f"expected integers as labels, got {actual.dtype}")
    classes = actual.astype(np.int64)
    _check_classes(classes, chances, names)
    texts = [
        (f"{names[k]} {percent(chance)}", percent(chance))
        for k, chance in zip(classes, chances, strict=True)
    ]
    return _annotate(image, boxes, texts, classes)


def draw_detected(image: ArrayLike, boxes: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """The photograph [H, W, 3] uint8 with a box and the detector's score for each face.

    image, boxes: as for `draw_annotated`.  scores: [n], 0..1.
    Raises ValueError for other shapes, types or ranges.
    """
    chances = np.asarray(scores, np.float64)
    _check_classes(np.zeros(chances.shape, np.int64), chances, ("face",))
    texts = [(percent(chance),) for chance in chances]
    return _annotate(image, boxes, texts, np.zeros(len(texts), np.int64))


def draw_three_panels(
    original: ArrayLike,
    detected: ArrayLike,
    predicted: ArrayLike,
    *,
    title: str,
    caption: str,
    titles: Sequence[str] = ("original", "faces detected", "class and probability"),
) -> Figure:
    """Draws a photograph as it is, above it with its boxes, and large beside them with the answers.

    original, detected, predicted: [H, W, 3] uint8 of one size, drawn smaller if large.
    Raises ValueError for other shapes or types. Source: report, Exercise 3, figures 19 and 20.
    """
    panels = [np.asarray(image) for image in (original, detected, predicted)]
    shapes = {(image.shape, image.dtype.name) for image in panels}
    ((height, width, *_), _name), *others = sorted(shapes)
    if others or panels[0].ndim != 3 or panels[0].shape[2] != 3 or panels[0].dtype != np.uint8:
        raise ValueError(f"expected three images [H, W, 3] uint8 of one size, got {shapes}")
    if len(titles) != len(panels):
        raise ValueError(f"expected a title for each of the three, got {len(titles)}")
    part = min(2.3, 3.6 * width / height)  # the width of a small one in inches
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        page = (max(3 * part + 0.3, 4.2), 2 * part * height / width + 1.05)
        figure = Figure(figsize=page)
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 2.1))
        places = (grid[0, 0], grid[1, 0], grid[:, 1])
        for place, image, text in zip(places, panels, titles, strict=True):
            axis = figure.add_subplot(place)
            _show(axis, _shrunk(image), smooth=True)
            _ = axis.set_title(text, fontsize=8, pad=3)
        frame(figure, title, [], caption)
    return figure


def _pictures(name: str, images: ArrayLike) -> np.ndarray:
    pictures = np.asarray(images)
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or pictures.shape[3:] != (3,):
        got = f"{pictures.dtype} {list(pictures.shape)}"
        raise ValueError(f"expected images [N, H, W, 3] uint8 of {name}, got {got}")
    if not len(pictures):
        raise ValueError(f"expected at least one image of {name}")
    return pictures


def _show(axis: Axes, picture: np.ndarray, *, smooth: bool = False) -> None:
    _ = axis.imshow(picture, interpolation="antialiased" if smooth else "auto")
    _ = axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color="0.7", linewidth=0.5)


def _shrunk(image: np.ndarray) -> np.ndarray:
    """At most so large that a figure of it is no larger than it can show."""
    if max(image.shape) <= _SHOWN_PX:
        return image
    shrunk = Image.fromarray(image)
    shrunk.thumbnail((_SHOWN_PX, _SHOWN_PX), Image.Resampling.BICUBIC)
    return np.asarray(shrunk)


def _check_classes(classes: np.ndarray, chances: np.ndarray, names: Sequence[str]) -> None:
    if classes.size and not 0 <= classes.min() <= classes.max() < len(names):
        got = f"{classes.min()} to {classes.max()}"
        raise ValueError(f"expected classes 0 to {len(names) - 1}, got {got}")
    if not np.all((chances >= 0) & (chances <= 1)):
        raise ValueError("expected probabilities from 0 to 1, got others")


def _name_bars(
    axis: Axes, bars: Sequence[tuple[str, str, int, int]], places: np.ndarray, most: int
) -> None:
    """Classes at the bars, sources over them at the left, first source on top."""
    lines = [f"{source}:  {name}" for source, name, *_ in bars]
    for i, bar in enumerate(bars):
        if i and bars[i - 1][0] == bar[0]:
            lines[i] = bar[1]
    _ = axis.set_yticks(places, lines)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    _ = axis.set_ylim(places[-1] + 0.6, -0.6)
    _ = axis.set_xlim(0, 1.2 * most)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    _ = axis.set_xlabel("faces")


def _seeds_of(name: str, given: Any) -> list[Roc]:
    seeds = [given] if np.isscalar(given[-1]) else given
    checked: list[Roc] = []
    for false_positive, true_positive, area in seeds:
        x, y = np.asarray(false_positive, np.float64), np.asarray(true_positive, np.float64)
        if x.ndim != 1 or x.shape != y.shape or x.size < 2:
            raise ValueError(f"expected two rates [P] of {name}, got {x.shape} and {y.shape}")
        if not np.all((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)):
            raise ValueError(f"expected rates from 0 to 1 of {name}, got others")
        if np.any(np.diff(x) < 0) or np.any(np.diff(y) < 0):
            raise ValueError(f"expected rates of {name} that rise, got some that fall")
        checked.append((x, y, float(area)))
    return checked


def _annotate(
    image: ArrayLike,
    boxes: ArrayLike,
    texts: Sequence[Sequence[str]],
    classes: np.ndarray,
) -> np.ndarray:
    """texts: for each face its text and shorter forms of it, the longest first."""
    pixels, corners = np.asarray(image), np.asarray(boxes, np.float64)
    corners = corners.reshape(0, 4) if corners.size == 0 else corners
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"expected an image [H, W, 3] uint8, got {pixels.dtype} {pixels.shape}")
    if corners.shape != (len(texts), 4) or not np.all(np.isfinite(corners)):
        raise ValueError(f"expected {len(texts)} finite boxes [n, 4], got {corners.shape}")
    drawn = Image.fromarray(pixels)
    pen = ImageDraw.Draw(drawn)
    sides = np.array([drawn.width, drawn.height])
    corners = np.rint(np.clip(corners, 0, np.tile(sides, 2))).astype(int)
    width = max(1, round(float(sides.min()) / 250))
    for box, k in zip(corners, classes, strict=True):
        _draw_box(pen, box, max(1, min(width, round((box[2] - box[0]) / 12))), int(k))
    taken: dict[int, tuple[int, int, int, int]] = {}
    for i in map(int, np.argsort(corners[:, 0] - corners[:, 2], kind="stable")):  # widest first
        letters = float(np.clip(0.17 * (corners[i, 2] - corners[i, 0]), 11, sides.min() / 14))
        _draw_text(pen, i, texts[i], letters, (taken, corners), int(classes[i]))
    return np.asarray(drawn)


def _draw_box(pen: ImageDraw.ImageDraw, box: np.ndarray, width: int, k: int) -> None:
    """A frame in the colour and the dashes of a class on a dark one that shows on any ground."""
    left, top, right, bottom = (int(value) for value in box - (0, 0, 1, 1))
    if right < left or bottom < top:
        return
    halo = max(1, width // 2)
    pen.rectangle((left, top, right, bottom), outline=(255, 255, 255), width=width + 2 * halo)
    if right - left > 4 * halo and bottom - top > 4 * halo:
        inner = (left + halo, top + halo, right - halo, bottom - halo)
        pen.rectangle(inner, outline=(0, 0, 0), width=width)
        left, top, right, bottom = inner
    colour = _LOOKS[k % len(_LOOKS)][0]
    dash = [max(2, round(part * 2 * width)) for part in _DASHES[k % len(_DASHES)]]
    if not dash:
        pen.rectangle((left, top, right, bottom), outline=colour, width=width)
        return
    for start in range(left, right + 1, sum(dash)):
        end = min(right, start + dash[0] - 1)
        pen.rectangle((start, top, end, min(bottom, top + width - 1)), fill=colour)
        pen.rectangle((start, max(top, bottom - width + 1), end, bottom), fill=colour)
    for start in range(top, bottom + 1, sum(dash)):
        end = min(bottom, start + dash[0] - 1)
        pen.rectangle((left, start, min(right, left + width - 1), end), fill=colour)
        pen.rectangle((max(left, right - width + 1), start, right, end), fill=colour)


def _draw_text(
    pen: ImageDraw.ImageDraw,
    i: int,
    texts: Sequence[str],
    letters: float,
    others: tuple[dict[int, tuple[int, int, int, int]], np.ndarray],
    k: int,
) -> None:
    """White on a dark plate by face i, smaller or shorter where it would cover another text.

    others: places of the texts that are drawn, by face, to which this one is added, and all faces.
    """
    page = pen.im.size
    best, least = None, _NOWHERE
    for text in texts:
        if not least[0]:  # a longer one covers no other text
            break
        for share in (1.0, 0.8, 0.65, 0.5):
            font = ImageFont.truetype(str(_FONT), max(letters * share, _LEAST_LETTER_PX))
            pad = max(1, round(font.size / 5))
            left, top, right, bottom = (round(v) for v in pen.textbbox((0, 0), text, font=font))
            plate = (right - left + 2 * pad, bottom - top + 2 * pad)
            if plate[0] > page[0] or plate[1] > page[1]:
                continue
            (x, y), covered = _place(i, plate, page, others)
            if covered < least:
                start = (x + pad - left, y + pad - top)
                best, least = (text, font, (x, y, x + plate[0], y + plate[1]), start), covered
    if not best:
        return
    text, font, (x, y, right, bottom), start = best
    colour = _LOOKS[k % len(_LOOKS)][0]
    pen.rectangle((x, y, right - 1, bottom - 1), fill=(24, 24, 24), outline=colour)
    pen.text(start, text, font=font, fill=(255, 255, 255))
    others[0][i] = (x, y, right, bottom)


def _place(
    i: int,
    plate: tuple[int, int],
    page: tuple[int, int],
    others: tuple[dict[int, tuple[int, int, int, int]], np.ndarray],
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Where a plate by face i covers fewest pixels of other texts, then of faces; how many.

    _NOWHERE if everywhere too much of another face would be hidden.
    """
    texts, faces = others
    left, top, right, bottom = faces[i].tolist()
    areas = (faces[:, 2:] - faces[:, :2]).prod(axis=1)
    hidden = np.zeros(len(faces))  # pixels of each face under texts of others
    for j, text in texts.items():
        hidden += np.where(np.arange(len(faces)) == j, 0, _overlaps(text, faces))
    taken = np.array(list(texts.values())).reshape(-1, 4)
    best, least = (0, 0), _NOWHERE
    for y in (top - plate[1], bottom, top, bottom - plate[1]):
        for x in (left, right - plate[0], (left + right - plate[0]) // 2):
            x0, y0 = (
                min(max(at, 0), most - side)
                for at, most, side in zip((x, y), page, plate, strict=True)
            )
            place = (x0, y0, x0 + plate[0], y0 + plate[1])
            shared = _overlaps(place, faces)
            covered = float(_overlaps(place, taken).sum()), float(shared.sum())
            allowed = hidden + shared <= _MOST_HIDDEN * areas
            allowed[i] = True
            if covered < least and allowed.all():
                best, least = (x0, y0), covered
    return best, least


def _overlaps(one: Sequence[int], boxes: np.ndarray) -> np.ndarray:
    """Pixels that a box shares with each of the boxes [n, 4]."""
    low, high = np.maximum(one[:2], boxes[:, :2]), np.minimum(one[2:], boxes[:, 2:])
    return np.maximum(high - low, 0).prod(axis=1)
