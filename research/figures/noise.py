"""Figures of an attack: grid of images, noise, success rates, norms, robust accuracy, transfer.

A pure function for each figure. Every image is attacked toward each class. Toward its own class the
attack is untargeted: it succeeds when the prediction leaves that class, which is easier and never
counted together with targeted attacks. Nothing is encoded by colour alone: borders differ in their
lines, failures are crossed, curves differ in line and marker, and counts stand in the cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.textpath import TextToPath
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike

from research.figures.style import STYLE, WIDTH_IN, frame, percent
from research.training.scores import wilson_interval

MOST_PICTURES = 10  # rows of a grid, examples of noise: what a page holds
MOST_CLASSES = 10  # targets beside each other at the width of a page
MOST_TRIED = 9999  # two counts fit in a cell
MOST_JUDGES = 12  # nets of a transfer matrix, as many as the depth study has
MOST_NETS = 7  # lines and markers that are told apart

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito
# An odd number of colours, so that no noise is white.
_NOISE = LinearSegmentedColormap.from_list("noise", [_BLUE, "#FFFFFF", _ORANGE], N=255)
# From white, and never too dark for black print.
_SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#BFE3F5", "#56B4E9"])
_BORDERS: dict[str, dict[str, Any]] = {
    "original": {"edgecolor": "#E3B505", "linestyle": "solid"},
    "target reached": {"edgecolor": "#009E73", "linestyle": "solid"},
    "untargeted: own class left": {"edgecolor": "#CC2222", "linestyle": "dotted"},
    "failed, crossed": {"edgecolor": "black", "linestyle": "dashed"},
}
_ORIGINAL, _REACHED, _LEFT, _FAILED = _BORDERS
_BORDER_IN = 0.028
_BAR_IN = 0.5  # a colour bar with its numbers and its label
_LINE_IN = 0.125  # a line of the smallest print
_UNTARGETED: dict[str, Any] = {"facecolor": "0.94", "edgecolor": "black", "linestyle": "dashed"}
_KINDS: dict[str, dict[str, Any]] = {
    "targeted": {"color": _BLUE, "linestyle": "solid"},
    "untargeted": {"color": _ORANGE, "linestyle": "dashed"},
}
_NETS = (
    (_BLUE, "o", "solid"),
    (_ORANGE, "s", "dashed"),
    ("#009E73", "^", "dashdot"),
    ("#B0569A", "D", "dotted"),
    ("black", "v", "solid"),
    ("#E69F00", "P", "dashed"),
    ("#56B4E9", "X", "dashdot"),
)


def draw_grid(
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
    clean_predicted: ArrayLike | None = None,
    clean_probability: ArrayLike | None = None,
) -> Figure:
    """Draws a row for each image: the original, then what the attack toward each class made of it.

    clean: [R, H, W, C] uint8, R from 1 to 10, C = 1 (grey) or 3 (colour).
    adversarial: [R, K, H, W, C] uint8, K from 2 to 10, one for each target.
    actual: [R] integers 0..K-1.  predicted: [R, K] integers 0..K-1, with their probability [R, K],
    0..1; above each picture.
    clean_predicted, clean_probability: [R], the same of the originals, where they are known.
    success: [R, K] bool.  classes: K names; what does not fit above a picture is shortened.
    Raises ValueError for other shapes, types or ranges, or a success that its prediction denies:
    toward another class it must be the target, toward the own class any other.
    """
    first, attacked = _pictures(clean, "clean", 4), _pictures(adversarial, "adversarial", 5)
    shape = (*first.shape[:1], len(classes), *first.shape[1:])
    if attacked.shape != shape or not 1 <= len(first) <= MOST_PICTURES:
        raise ValueError(
            f"expected 1 to {MOST_PICTURES} clean images and adversarial {list(shape)} for them,"
            f" got {len(first)} and {list(attacked.shape)}"
        )
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ValueError(f"expected 2 to {MOST_CLASSES} classes, got {len(classes)}")
    source = _classes_in(actual, "actual", shape[:1], len(classes))
    known = clean_predicted is not None and clean_probability is not None
    originals = (clean_predicted, clean_probability) if known else (source, np.ones(len(first)))
    answers = _all_columns(originals[0], predicted, shape[:2])
    answers = _classes_in(answers, "predictions", answers.shape, len(classes))
    chances = _all_columns(originals[1], probability, shape[:2])
    if not np.all((chances >= 0) & (chances <= 1)):
        raise ValueError("expected probabilities 0..1, got others")
    own = source[:, None] == np.arange(len(classes))
    won = _flags(success, "success", shape[:2])
    denied = won & ((answers[:, 1:] == np.arange(len(classes))) == own)
    if denied.any():
        raise ValueError(f"expected predictions that fit each success, {denied.sum()} do not")
    wrong = int((answers[:, 0] != source).sum())
    pictures = np.concatenate([first[:, None], attacked], axis=1)
    kinds = np.where(won, np.where(own, _LEFT, _REACHED), _FAILED)
    kinds = np.concatenate([np.full((len(first), 1), _ORIGINAL), kinds], axis=1)
    sentences = [
        "Above each picture: what is predicted, and its probability. At the left: the actual class."
        f" {_rates('Target reached', won[~own], 'Own class left', won[own])}"
    ]
    sentences += [f"Originals classified wrongly: {wrong}."] if wrong else []
    above = [
        [(classes[int(k)], percent(c).replace(" ", "")) for k, c in zip(*row, strict=True)]
        for row in zip(answers, chances, strict=True)
    ]
    if not known:
        above = [[("", ""), *row[1:]] for row in above]
    return _draw_rows(pictures, source, above, kinds, classes, title, sentences, caption)


def draw_noise(
    clean: ArrayLike, adversarial: ArrayLike, titles: Sequence[str], *, title: str, caption: str
) -> Figure:
    """Draws original, noise and adversarial image of each example beside each other.

    clean, adversarial: [M, H, W, C] uint8, M from 1 to 10, C = 1 (grey) or 3 (colour).
    titles: M texts of one line, above each three pictures; half a page wide, or a page for M = 1.
    The noise is the difference in levels of 8 bits. Grey: on a scale of two colours with a bar,
    as far down as up. Colour: around mid-grey, times a factor that the figure states. Both end
    at the largest difference of all examples, so that nothing is cut off and noise compares.
    Raises ValueError for other shapes or types, or titles that do not fit.
    """
    first, attacked = _pictures(clean, "clean", 4), _pictures(adversarial, "adversarial", 4)
    if first.shape != attacked.shape or not 1 <= len(first) <= MOST_PICTURES:
        wanted = f"1 to {MOST_PICTURES} images, clean and adversarial alike"
        raise ValueError(f"expected {wanted}, got {list(first.shape)} and {list(attacked.shape)}")
    across = min(2, len(first))
    width = (WIDTH_IN - 0.1) / across
    most = width - 0.15
    if len(titles) != len(first) or any("\n" in t or _width_in(t) > most for t in titles):
        wanted = f"{len(first)} titles of one line, {most:.1f} inches at most"
        raise ValueError(f"expected {wanted}, got {list(titles)}")
    noise = attacked.astype(np.int16) - first
    limit = max(1, int(np.abs(noise).max()))
    grey = first.shape[3] == 1
    side = most / 3 - 0.06
    block = side * first.shape[1] / first.shape[2] + 2 * _LINE_IN + 0.1
    content = 0.16 + -(-len(first) // across) * block
    sentences = [
        f"Noise on a scale from -{limit} to +{limit} for all." if grey else _amplified(limit),
        "Below each noise: its smallest and largest difference, in levels of 8 bits.",
    ]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axis = _page(content, _BAR_IN if grey else 0.0, title, sentences, caption)
        for i, text in enumerate(titles):
            x, y = 0.05 + (i % across) * (width + 0.05), 0.16 + (i // across) * block
            _put_text(axis, x, y + _LINE_IN - 0.02, text, ha="left")
            shown = noise[i] if grey else _around_grey(noise[i], limit)
            boxes = [
                _put_picture(axis, picture, x + j * (side + 0.06), y + _LINE_IN + 0.03, side, scale)
                for j, (picture, scale) in enumerate(
                    ((first[i], None), (shown, limit), (attacked[i], None))
                )
            ]
            for box, name in zip(boxes, ("original", "noise", "adversarial"), strict=True):
                _ = axis.add_patch(Rectangle(*box, fill=False, edgecolor="0.6", linewidth=0.5))
                if i < across:
                    _put_text(axis, box[0][0] + side / 2, 0.12, name, weight="bold")
            ends = f"{_signed(noise[i].min())} to {_signed(noise[i].max())}"
            _put_text(axis, x + 1.5 * side + 0.06, y + block - 0.06, ends)
        if grey:
            _put_bar(figure, axis, limit)
    return figure


def draw_success(
    won: ArrayLike,
    tried: ArrayLike,
    won_correct: ArrayLike,
    tried_correct: ArrayLike,
    classes: Sequence[str],
    *,
    title: str,
    caption: str,
) -> Figure:
    """Draws how many attacks won from each class toward each: counts in the cells.

    won, tried: [K, K] counts, rows the actual class, columns the target, K from 2 to 10.
    won_correct, tried_correct: [K, K], those among them whose original is classified rightly; a
    second line in the cell where they are not all.  classes: K names.
    The diagonal, "untargeted", is framed and not shaded, with a rate of its own; cells never
    tried are empty.
    Raises ValueError for other shapes, counts that contradict each other, none tried at all, or
    more than 9,999 in a cell.
    """
    counts = [np.asarray(values) for values in (won, tried, won_correct, tried_correct)]
    size = len(classes)
    if not 2 <= size <= MOST_CLASSES or any(c.shape != (size, size) for c in counts):
        wanted = f"2 to {MOST_CLASSES} classes and four [K, K]"
        raise ValueError(f"expected {wanted}, got {size} and {[list(c.shape) for c in counts]}")
    hits, total, right_hits, right = counts
    wrong_hits, wrong = hits - right_hits, total - right
    pairs = ((right_hits, right), (wrong_hits, wrong))
    whole = all(np.issubdtype(c.dtype, np.integer) for c in counts)
    if not whole or not all(np.all((h >= 0) & (h <= n)) for h, n in pairs):
        raise ValueError("expected whole won <= tried, of the correct and of the others, got more")
    if not 1 <= total.max() <= MOST_TRIED:
        raise ValueError(f"expected 1 to {MOST_TRIED} tried in a cell, got {total.max()}")
    own = np.eye(size, dtype=bool)
    shares = np.ma.masked_array(100.0 * hits / np.maximum(total, 1), mask=own | (total == 0))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(min(WIDTH_IN, 3.0 + 0.7 * size), 1.9 + 0.38 * max(size, 4)))
        axis = figure.subplots()
        _shade(figure, axis, shares, "won: share of the cell's attacks (%)")
        _fill_cells(axis, counts)
        _name_cells(axis, classes, classes)
        _ = axis.set(xlabel="target", ylabel="actual")
        handles = [Patch(**_UNTARGETED, label="untargeted: another question")]
        frame(figure, title, _two_rates(counts), caption, handles)
    return figure


def draw_distributions(
    steps: ArrayLike,
    l2: ArrayLike,
    linf: ArrayLike,
    l0: ArrayLike,
    success: ArrayLike,
    untargeted: ArrayLike,
    *,
    title: str,
    caption: str,
) -> Figure:
    """Draws the share of the successful attacks that took at most so many steps or so much noise.

    steps, l0: [M] counts, M from 1.  l2: [M], of images 0..1.  linf: [M], in levels of 8 bits.
    success, untargeted: [M] bool. Failures are left out, and stated; the two kinds are apart.
    An axis is logarithmic where its values are above zero and span a factor of 30 or more.
    Raises ValueError for unequal M, or a success whose value is negative or not finite.
    """
    won = _flags(success, "success", np.shape(success))
    own = _flags(untargeted, "untargeted", won.shape)
    panels = {
        "gradient steps": steps,
        "L2 norm (pixels 0..1)": l2,
        "Linf norm (levels of 8 bits)": linf,
        "L0 norm (values changed)": l0,
    }
    values = {name: np.asarray(v, np.float64) for name, v in panels.items()}
    shapes = [list(v.shape) for v in (won, *values.values())]
    if won.ndim != 1 or not won.size or any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"expected at least one attack, [M] of everything, got {shapes}")
    for name, v in values.items():
        if not np.all(np.isfinite(v[won]) & (v[won] >= 0)):
            raise ValueError(f"expected {name} of 0 or more for each success, got others")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.9))
        axes = figure.subplots(2, 2, sharey=True)
        for axis, (name, v) in zip(axes.ravel(), values.items(), strict=True):
            medians: list[str] = []
            for (kind, look), chosen in zip(_KINDS.items(), (won & ~own, won & own), strict=True):
                if chosen.any():
                    _ = axis.ecdf(v[chosen], label=kind, **look)
                    medians.append(f"{np.median(v[chosen]):.3g} {kind}")
            if won.any() and v[won].min() > 0 and v[won].max() >= 30 * v[won].min():
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
                axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_title(f"median {', '.join(medians)}" if medians else "no success", fontsize=8)
            _ = axis.set(xlabel=name, ylim=(0, 1.02))
        for axis in axes[:, 0]:
            axis.set_ylabel("share of the successes")
        handles = [Line2D([], [], label=kind, **look) for kind, look in _KINDS.items()]
        failed = ((~own).sum() - (won & ~own).sum(), own.sum() - (won & own).sum())
        sentences = [
            f"Successes only. {_rates('Targeted', won[~own], 'Untargeted', won[own])} Not drawn:"
            f" {failed[0]:,} targeted and {failed[1]:,} untargeted that failed."
        ]
        frame(figure, title, sentences, caption, handles)
    return figure


def draw_robust_accuracy(
    budgets: ArrayLike,
    hits: Mapping[str, Sequence[int]],
    count: int,
    *,
    unit: str,
    title: str,
    caption: str,
) -> Figure:
    """Draws the share of images still classified rightly against the noise that is allowed.

    budgets: [E] ascending, E from 1.  hits: {net: [E] counts}, 1 to 7 nets, each 0..count.
    count: images that each net was tried on.  unit: of the budgets, "Linf, levels of 8 bits".
    The bands are Wilson intervals of 95 %.
    Raises ValueError for other shapes or numbers of nets, or hits outside 0..count.
    """
    x = np.asarray(budgets, np.float64)
    if x.ndim != 1 or not x.size or not np.all(np.isfinite(x)) or not np.all(np.diff(x) > 0):
        raise ValueError(f"expected ascending budgets [E], got {x.tolist()}")
    if not 1 <= len(hits) <= MOST_NETS or any(len(row) != x.size for row in hits.values()):
        got = {name: len(row) for name, row in hits.items()}
        raise ValueError(f"expected 1 to {MOST_NETS} nets with {x.size} counts each, got {got}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.6))
        axis = figure.subplots()
        for (name, row), (colour, marker, dashes) in zip(hits.items(), _NETS, strict=False):
            low, high = 100 * np.array([wilson_interval(int(hit), count) for hit in row]).T
            look = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 4.5}
            shares = 100 * np.asarray(row) / count
            _ = axis.plot(x, shares, label=name, clip_on=False, zorder=3, **look)
            _ = axis.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        _ = axis.set(xlabel=f"budget ({unit})", ylabel="still classified rightly (%)")
        _ = axis.set(ylim=(0, 100))
        _ = axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        sentences = [f"{count:,} images for each net. Bands: 95 % intervals (Wilson)."]
        frame(figure, title, sentences, caption)
    return figure


def draw_transfer(
    rates: ArrayLike, names: Sequence[str], counts: ArrayLike, *, title: str, caption: str
) -> Figure:
    """Draws which nets are fooled by images made against another: percent in the cells.

    rates: [M, M] fractions 0..1, rows the net that the images were made against, columns the net
    that judges them, M from 1 to 12; NaN leaves a cell empty.  names: M nets.
    counts: [M], images made against each.  The diagonal, a net and its own images, is outlined.
    Raises ValueError for other shapes, or numbers outside their range.
    """
    shares, tried = 100.0 * np.asarray(rates, np.float64), np.asarray(counts)
    size = len(names)
    if not 1 <= size <= MOST_JUDGES or shares.shape != (size, size) or tried.shape != (size,):
        wanted = f"1 to {MOST_JUDGES} names, rates [M, M] and counts [M]"
        raise ValueError(
            f"expected {wanted}, got {size}, {list(shares.shape)}, {list(tried.shape)}"
        )
    if not np.all(np.isnan(shares) | ((shares >= 0) & (shares <= 100))) or not np.all(tried >= 0):
        raise ValueError("expected rates 0..1 or NaN and counts of 0 or more, got others")
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(min(WIDTH_IN, 3.4 + 0.75 * size), 2.1 + 0.36 * max(size, 3)))
        axis = figure.subplots()
        _shade(figure, axis, np.ma.masked_invalid(shares), "fooled: share of the images (%)")
        for (i, j), share in np.ndenumerate(shares):
            if not np.isnan(share):
                weight = "bold" if i == j else "normal"
                text = f"{share:.0f}" if share in (0, 100) else f"{share:.1f}"
                _ = axis.text(j, i, text, ha="center", va="center", weight=weight)
        for i in range(size):
            box = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", zorder=3)
            axis.add_patch(box).set_clip_on(False)
        rows = [f"{name} ({n:,})" for name, n in zip(names, tried, strict=True)]
        _name_cells(axis, names, rows)
        _ = axis.set(xlabel="judged by", ylabel="made against (images)")
        sentences = ["Framed: a net judges the images made against it. Empty cell: not judged."]
        frame(figure, title, sentences, caption)
    return figure


def _pictures(images: ArrayLike, name: str, axes: int) -> np.ndarray:
    """The images if they are uint8 of so many axes, the last of 1 or 3; else ValueError."""
    array = np.asarray(images)
    if array.ndim != axes or array.dtype != np.uint8 or array.shape[-1] not in (1, 3):
        wanted = "[R, K, H, W, 1 or 3]" if axes == 5 else "[N, H, W, 1 or 3]"
        raise ValueError(f"expected {name} {wanted} uint8, got {array.dtype} {list(array.shape)}")
    return array


def _classes_in(values: ArrayLike, name: str, shape: tuple[int, ...], classes: int) -> np.ndarray:
    """The integers 0..classes-1 of that shape; else ValueError."""
    array = np.asarray(values)
    fits = array.shape == shape and np.issubdtype(array.dtype, np.integer)
    if not fits or not np.all((array >= 0) & (array < classes)):
        wanted = f"{name} {list(shape)} of integers 0..{classes - 1}"
        raise ValueError(f"expected {wanted}, got {array.dtype} {list(array.shape)}")
    return array


def _flags(values: ArrayLike, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The booleans of that shape; else ValueError."""
    array = np.asarray(values)
    if array.shape != shape or array.dtype != np.bool_:
        wanted = f"{name} {list(shape)} bool"
        raise ValueError(f"expected {wanted}, got {array.dtype} {list(array.shape)}")
    return array


def _all_columns(first: Any, others: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """[R, 1+K] of [R] for the originals and [R, K] for the attacks; else ValueError."""
    left, right = np.asarray(first), np.asarray(others)
    if left.shape != shape[:1] or right.shape != shape:
        wanted = f"predictions and probabilities {list(shape[:1])} and {list(shape)}"
        raise ValueError(f"expected {wanted}, got {list(left.shape)} and {list(right.shape)}")
    return np.concatenate([left[:, None], right], axis=1)


def _page(
    content: float,
    spare: float,
    title: str,
    sentences: Sequence[str],
    caption: str,
    *legends: Sequence[Artist],
) -> tuple[Figure, Axes]:
    """A page whose strips leave so many inches for content and, below it, to spare.

    Returns it with axes over the content, in inches from the top left.
    """
    tall = 20.0
    probe = Figure(figsize=(WIDTH_IN, tall))
    frame(probe, title, sentences, caption, *legends)
    engine = probe.get_layout_engine()
    assert engine is not None
    _, bottom, _, share = engine.get()["rect"]
    height = content + spare + (1 - share) * tall
    figure = Figure(figsize=(WIDTH_IN, height))
    frame(figure, title, sentences, caption, *legends)
    figure.set_layout_engine("none")
    axis = figure.add_axes((0.0, (bottom * tall + spare) / height, 1.0, content / height))
    axis.set_axis_off()
    _ = axis.set(xlim=(0, WIDTH_IN), ylim=(content, 0), autoscale_on=False)
    return figure, axis


def _put_text(axis: Axes, x: float, y: float, text: str, **look: Any) -> None:
    """Text of the smallest print on the page, centred unless told otherwise."""
    _ = axis.text(x, y, text, **{"fontsize": 7, "ha": "center", **look})


def _put_picture(
    axis: Axes, picture: np.ndarray, x: float, y: float, side: float, limit: int | None = None
) -> tuple[tuple[float, float], float, float]:
    """A picture [H, W, C] so many inches wide, or noise up to a limit; returns where it lies."""
    height = side * picture.shape[0] / picture.shape[1]
    shown = picture if picture.shape[2] == 3 else picture[..., 0]
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255}
    if limit is not None:
        look = {"cmap": _NOISE, "vmin": -limit, "vmax": limit}
    extent = (x, x + side, y + height, y)
    _ = axis.imshow(shown, extent=extent, aspect="auto", interpolation="nearest", **look)
    return (x, y), side, height


def _put_bar(figure: Figure, axis: Axes, limit: int) -> None:
    """The scale of the noise of grey images, in the inches to spare below the axes."""
    low, inch = axis.get_position().y0, 1 / figure.get_figheight()
    bar = figure.colorbar(
        ScalarMappable(Normalize(-limit, limit), _NOISE),
        cax=figure.add_axes((0.25, low - 0.14 * inch, 0.5, 0.1 * inch)),
        orientation="horizontal",
        ticks=sorted({-limit, -(limit // 2), 0, limit // 2, limit}),
    )
    bar.ax.xaxis.set_major_formatter(lambda level, _: _signed(level))
    bar.set_label("adversarial - original (levels of 8 bits)", labelpad=1)
    bar.ax.tick_params(pad=1)
    _ = bar.outline.set(color="0.5", linewidth=0.5)


def _signed(level: float) -> str:
    """'-3', '0' or '+3'."""
    return f"{level:+.0f}" if level else "0"


def _width_in(text: str, weight: str = "normal") -> float:
    """Inches of a line in the smallest print."""
    font = FontProperties(family="DejaVu Sans", size=7, weight=weight)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _shorten(text: str, most: float) -> str:
    """The text, or as much of it as leaves room for a full stop in so many inches of bold print."""
    if _width_in(text, "bold") <= most:
        return text
    kept = text
    while kept and _width_in(f"{kept}.", "bold") > most:
        kept = kept[:-1]
    return f"{kept}."


def _draw_rows(
    pictures: np.ndarray,
    source: np.ndarray,
    above: Sequence[Sequence[tuple[str, str]]],
    kinds: np.ndarray,
    classes: Sequence[str],
    title: str,
    sentences: Sequence[str],
    caption: str,
) -> Figure:
    """The pictures [R, 1+K, H, W, C] in their borders, with predictions above and names around.

    above: [R][1+K] pairs of a class and its probability.
    """
    rows, columns = kinds.shape
    step = min((WIDTH_IN - 0.26) / columns, 0.9)
    side, left = step - 0.1, 0.24
    height = side * pictures.shape[2] / pictures.shape[3]
    short = {name: _shorten(name, step - 0.01) for name in ("", *classes)}
    both = max(_width_in(f"{name} >99%") for name in short.values()) <= step - 0.05
    lines = 1 if both else 2
    row = height + lines * _LINE_IN + 0.13
    legend = [Patch(facecolor="none", linewidth=2, **_BORDERS[k], label=k) for k in _BORDERS]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axis = _page(0.4 + rows * row, 0.0, title, sentences, caption, legend)
        _put_text(axis, left + (columns + 1) * step / 2, 0.12, "target:")
        for j, name in enumerate(["original", *(short[name] for name in classes)]):
            _put_text(axis, left + (j + 0.5) * step, 0.26, name, weight="bold")
        for (i, j), kind in np.ndenumerate(kinds):
            x, y = left + j * step + 0.05, 0.4 + i * row + lines * _LINE_IN
            name, chance = above[i][j]
            lines_above = [f"{short[name]} {chance}"] if both else [chance, short[name]]
            for k, text in enumerate(lines_above):
                _put_text(axis, x + side / 2, y - 0.05 - 0.11 * k, text)
            _put_border(axis, _put_picture(axis, pictures[i, j], x, y, side), str(kind))
            if not j:
                text = _shorten(classes[int(source[i])], height + 0.2)
                turn = 0 if max(map(_width_in, classes)) < 0.2 else 90
                _put_text(axis, 0.12, y + height / 2, text, va="center", rotation=turn)
    return figure


def _put_border(axis: Axes, place: tuple[tuple[float, float], float, float], kind: str) -> None:
    """A border just outside a picture, and a cross through it where the attack failed."""
    (x, y), width, height = place
    spare = _BORDER_IN / 2
    corner = (x - spare, y - spare)
    look = {"fill": False, "linewidth": 72 * _BORDER_IN, **_BORDERS[kind]}
    _ = axis.add_patch(Rectangle(corner, width + 2 * spare, height + 2 * spare, **look))
    if kind == _FAILED:
        halo = [Stroke(linewidth=2.4, foreground="white"), Normal()]
        for ends in ((y, y + height), (y + height, y)):
            _ = axis.plot((x, x + width), ends, color="black", lw=1.0, path_effects=halo)


def _around_grey(noise: np.ndarray, limit: int) -> np.ndarray:
    """Noise [H, W, 3] as colours 0..1 around mid-grey, by the factor for that limit."""
    return 0.5 + noise * _factor(limit) / 255


def _factor(limit: int) -> float:
    """The largest whole factor, or whole part, by which +-limit stays within 8 bits."""
    return float(127 // limit) if limit <= 127 else 0.5


def _amplified(limit: int) -> str:
    """A sentence on how the noise of colour images is drawn."""
    return (
        f"Noise: mid-grey plus {_factor(limit):g} times the difference, which is +-{limit} at most."
    )


def _rates(one: str, first: np.ndarray, two: str, second: np.ndarray) -> str:
    """'One: 8 of 9. Two: 1 of 1.' of two arrays of booleans."""
    return f"{one}: {first.sum():,} of {first.size:,}. {two}: {second.sum():,} of {second.size:,}."


def _fill_cells(axis: Axes, counts: Sequence[np.ndarray]) -> None:
    """Counts of each cell, below them those of originals classified rightly; a framed diagonal."""
    won, tried, won_right, right = counts
    size = 8 if tried.max() < 100 else 7
    for (i, j), n in np.ndenumerate(tried):
        if n:
            two = n != right[i, j]
            look: dict[str, Any] = {"ha": "center", "va": "center"}
            _ = axis.text(j, i - 0.2 * two, f"{won[i, j]}/{n}", fontsize=size, **look)
            if two:
                text = f"{won_right[i, j]}/{right[i, j]}"
                _ = axis.text(j, i + 0.22, text, fontsize=7, style="italic", **look)
            if i == j:
                box = Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, zorder=0.5, **_UNTARGETED)
                _ = axis.add_patch(box)


def _two_rates(counts: Sequence[np.ndarray]) -> list[str]:
    """Sentences on targeted and untargeted attacks: all of them, and those on originals right."""
    own = np.eye(len(counts[0]), dtype=bool)
    sentences: list[str] = []
    for name, cells in (("Toward another class", ~own), ("Untargeted", own)):
        won, tried, won_right, right = [int(np.sum(c, where=cells)) for c in counts]
        if not tried:
            sentences.append(f"{name}: none tried.")
            continue
        text = f"{name}: {won:,} of {tried:,} won ({100 * won / tried:.1f} %)"
        share = f" ({100 * won_right / right:.1f} %)" if right else ""
        sentences.append(
            f"{text}; originals classified rightly: {won_right:,} of {right:,}{share}."
        )
    if np.any(counts[1] != counts[3]):
        sentences.append("Second line of a cell, in italics: originals classified rightly only.")
    return [*sentences, "Empty cell: none tried."]


def _shade(figure: Figure, axis: Axes, shares: np.ma.MaskedArray, label: str) -> None:
    """Cells [M, M] in percent by a scale from 0 to 100, with its bar and lines between them."""
    size, norm = len(shares), Normalize(0, 100)
    _ = axis.imshow(shares, cmap=_SHARES, norm=norm, aspect="auto", zorder=0)
    for edge in np.arange(0.5, size - 1):
        _ = axis.axhline(edge, color="0.85", linewidth=0.5, zorder=1)
        _ = axis.axvline(edge, color="0.85", linewidth=0.5, zorder=1)
    bar = figure.colorbar(
        ScalarMappable(norm, _SHARES), ax=[axis], aspect=4 * max(size, 4), pad=0.02
    )
    bar.set_label(label)
    _ = bar.outline.set(color="0.5", linewidth=0.5)


def _name_cells(axis: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Names below and at the left, slanted below where they are long."""
    slant: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    short = max(map(len, columns)) * len(columns) <= 60
    _ = axis.set_xticks(range(len(columns)), list(columns), **({} if short else slant))
    _ = axis.set_yticks(range(len(rows)), list(rows))
    axis.tick_params(length=0)
    axis.spines[:].set(visible=True, color="0.5", linewidth=0.5)
