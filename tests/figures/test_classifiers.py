"""Figures of a classifier: the drawn numbers, in print and not in colour alone, and layout."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.reading import CAPTION, LONG_CAPTION, check_layout, texts, x_of, y_of
from research.figures import classifiers
from research.training import scores

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SMALL = np.array([[90, 9, 1], [0, 50, 0], [4, 0, 0]])
FRAME: dict[str, Any] = {"title": "t", "caption": CAPTION}


def make_logits(seed: int, margin: float = 3.5) -> tuple[np.ndarray, np.ndarray]:
    """10,000 logits of ten classes: about 80 % are right at the margin 3.5, and 98 % at 5.5."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 10_000).astype(np.int32)
    logits = rng.normal(0, 1.3, (10_000, 10)).astype(np.float32)
    logits[np.arange(10_000), labels] += np.float32(margin)
    return logits, labels


def make_confusion(margin: float = 3.5) -> np.ndarray:
    logits, labels = make_logits(0, margin)
    return scores.confusion(logits.argmax(axis=1), labels, 10)


def make_nets(seeds: int, margin: float = 3.5) -> list[scores.Reliability]:
    return [scores.reliability(*make_logits(seed, margin)) for seed in range(seeds)]


def make_images(count: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 8, 8, channels)).astype(np.uint8)


def bars_of(axis: Axes) -> list[tuple[float, float, float, float]]:
    """x0, y0, x1, y1 of every bar."""
    boxes = [bar.get_bbox() for bar in axis.patches if isinstance(bar, Rectangle)]
    return [(box.x0, box.y0, box.x1, box.y1) for box in boxes]


def labels_at_the_right(axis: Axes) -> list[str]:
    (margin,) = axis.child_axes
    return [label.get_text() for label in margin.get_yticklabels()]


def test_confusion_prints_counts_and_colours_errors_only_by_their_share_of_the_row() -> None:
    axis, bar = classifiers.draw_confusion(SMALL, ("a", "b", "c"), **FRAME).axes
    printed = {t.get_position(): t.get_text() for t in axis.texts}
    assert printed == {(0, 0): "90", (1, 0): "9", (2, 0): "1", (1, 1): "50", (0, 2): "4"}
    (image,) = axis.images
    shares = image.get_array()
    assert np.ma.getmaskarray(shares).tolist() == np.eye(3, dtype=bool).tolist()
    assert shares.filled(-1).tolist() == [[-1, 9, 1], [0, -1, 0], [100, 0, -1]]
    assert image.get_clim() == (0, 100)
    assert float(image.norm(25.0)) == pytest.approx(0.5)
    assert "share" in bar.get_ylabel()
    framed = [patch.get_xy() for patch in axis.patches if isinstance(patch, Rectangle)]
    assert framed == [(-0.5, -0.5), (0.5, 0.5), (1.5, 1.5)]
    assert not any(patch.get_clip_on() for patch in axis.patches)
    bold = [t.get_position() for t in axis.texts if t.get_weight() == "bold"]
    assert bold == [(0, 0), (1, 1)]
    assert bar.get_yticks().tolist() == [0, 5, 10, 20, 50, 100]


def test_confusion_has_rows_actual_from_the_top_and_accuracies_at_their_right() -> None:
    axis, _ = classifiers.draw_confusion(SMALL, ("a", "b", "c"), **FRAME).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "actual")
    assert axis.get_ylim() == (2.5, -0.5)
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "b", "c"]
    assert labels_at_the_right(axis) == ["90.0", "100.0", "0.0"]
    assert axis.child_axes[0].get_ylabel() == "accuracy (%)"
    assert {label.get_rotation() for label in axis.get_xticklabels()} == {0}
    axis, _ = classifiers.draw_confusion(make_confusion(), NAMES, **FRAME).axes
    assert {label.get_rotation() for label in axis.get_xticklabels()} == {35}


def test_confusion_says_its_total_and_the_classes_without_examples() -> None:
    counts = SMALL.copy()
    counts[2] = 0
    figure = classifiers.draw_confusion(counts, ("a", "b", "owl"), **FRAME)
    assert "140 of 150 right (93.33 %)" in texts(figure)
    assert f"No example of: owl. Data: {CAPTION}" in texts(figure)
    assert labels_at_the_right(figure.axes[0])[2] == "-"
    assert "No example" not in texts(classifiers.draw_confusion(SMALL, ("a", "b", "c"), **FRAME))


def test_the_darkest_error_keeps_its_count_readable_and_grey_keeps_the_order() -> None:
    image = classifiers.draw_confusion(SMALL, ("a", "b", "c"), **FRAME).axes[0].images[0]
    ramp = np.array(image.cmap(np.linspace(0, 1, 50)))[:, :3]
    linear = np.where(ramp <= 0.04045, ramp / 12.92, ((ramp + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) < 0)
    assert (luminance.min() + 0.05) / 0.05 > 4.5  # contrast of black print, WCAG 2 level AA


def test_a_net_without_errors_is_drawn_white() -> None:
    axis, bar = classifiers.draw_confusion(np.diag([3, 4]), ("a", "b"), **FRAME).axes
    assert axis.images[0].get_clim() == (0, 1)
    assert bar.get_yticks().tolist() == [0, 0.1, 0.5, 1]


def test_classes_have_a_median_each_seed_and_the_range_in_the_order_given() -> None:
    shares = {"dog": [0.5, 0.9, 0.6], "cat": [0.7, 0.7, np.nan]}
    figure = classifiers.draw_per_class(shares, **FRAME)
    (axis,) = figure.axes
    drawn = [(x_of(line).tolist(), set(y_of(line).tolist())) for line in axis.lines]
    assert drawn == [
        ([50, 90], {0}),
        ([50, 90, 60], {0}),
        ([60], {0}),
        ([70, 70], {1}),
        ([70, 70], {1}),
        ([70], {1}),
    ]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["dog", "cat"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert labels_at_the_right(axis) == ["60.0", "70.0"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["median, in print at the right", "a seed", "range"]
    said = "3 seeds: median, each seed and range. Not drawn: 1 without examples (cat). Data"
    assert said in texts(figure)


def test_one_seed_is_a_dot_a_class_and_a_class_without_examples_is_said() -> None:
    shares = {"dog": 0.98, "cat": [0.99], "owl": np.float64(np.nan)}
    figure = classifiers.draw_per_class(shares, **FRAME)
    (axis,) = figure.axes
    assert [x_of(line).tolist() for line in axis.lines[:2]] == [[98], [99]]
    assert {line.get_marker() for line in axis.lines} == {"o"}
    assert labels_at_the_right(axis) == ["98.0", "99.0", "-"]
    assert not figure.legends
    assert "1 seed. Not drawn: 1 without examples (owl). Data" in texts(figure)


@pytest.mark.parametrize("shares", [(0.98, 0.99), (0.0, 0.01), (0.5, 0.5), (1.0, 1.0)])
def test_accuracies_are_drawn_at_an_honest_scale(shares: tuple[float, float]) -> None:
    figure = classifiers.draw_per_class(dict(zip("ab", shares, strict=True)), **FRAME)
    low, high = figure.axes[0].get_xlim()
    assert -1 < low < 100 * min(shares) <= 100 * max(shares) < high < 101
    assert high - low >= 9.9 if min(shares) else high > 5


def test_reliability_bars_are_accuracies_and_gaps_end_at_the_mean_confidence() -> None:
    (net,) = make_nets(1)
    upper, lower = classifiers.draw_reliability(net, **FRAME).axes
    some = np.flatnonzero(net.counts)
    assert 0 < len(some) < 15
    bars, gaps = np.split(np.array(bars_of(upper)), 2)
    for drawn in (bars, gaps):
        np.testing.assert_allclose(drawn[:, 0], net.edges[some])
        np.testing.assert_allclose(drawn[:, 2], net.edges[some + 1])
    np.testing.assert_allclose(bars[:, 3], net.accuracy[some])
    ends = np.sort(np.stack([net.accuracy[some], net.confidence[some]]), axis=0)
    np.testing.assert_allclose(np.sort(gaps[:, [1, 3]], axis=1).T, ends)
    assert all(patch.get_hatch() for patch in upper.patches[len(some) :])
    np.testing.assert_allclose(np.array(bars_of(lower))[:, 3], net.counts[some])
    assert lower.get_yscale() == "log"
    assert 0 < lower.get_ylim()[0] < net.counts[some].min()
    (diagonal,) = [line for line in upper.lines if line.get_label() == "perfect"]
    assert x_of(diagonal).tolist() == y_of(diagonal).tolist() == [0, 1]


def test_whiskers_of_one_net_are_wilson_intervals() -> None:
    (net,) = make_nets(1)
    figure = classifiers.draw_reliability(net, **FRAME)
    (whiskers,) = [c for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    segments = np.array(whiskers[2][0].get_segments())
    some = np.flatnonzero(net.counts)
    for segment, i in zip(segments, some, strict=True):
        hits = round(net.accuracy[i] * net.counts[i])
        wanted = scores.wilson_interval(hits, int(net.counts[i]))
        np.testing.assert_allclose(segment[:, 1], wanted, atol=1e-12)
        np.testing.assert_allclose(segment[:, 0], net.confidence[i])
    assert "1 seed; whiskers: 95 % interval" in texts(figure)


def test_several_seeds_are_pooled_in_bars_and_thin_lines_each() -> None:
    nets = make_nets(3, 5.5)
    figure = classifiers.draw_reliability(nets, **FRAME)
    upper, lower = figure.axes
    logits, labels = zip(*(make_logits(seed, 5.5) for seed in range(3)), strict=True)
    pooled = scores.reliability(np.concatenate(logits), np.concatenate(labels))
    some = pooled.counts > 0
    bars, gaps = np.split(np.array(bars_of(upper)), 2)
    np.testing.assert_allclose(bars[:, 3], pooled.accuracy[some])
    both = np.sort(np.stack([pooled.accuracy, pooled.confidence])[:, some], axis=0)
    np.testing.assert_allclose(np.sort(gaps[:, [1, 3]], axis=1).T, both)
    np.testing.assert_allclose(np.array(bars_of(lower))[:, 3], pooled.counts[some] / 3)
    thin = [line for line in upper.lines if line.get_linewidth() < 1]
    assert any(0 < count < 10 for net in nets for count in net.counts)
    for line, net in zip(thin, nets, strict=True):
        np.testing.assert_array_equal(x_of(line), net.confidence)
        wanted = np.where(net.counts >= 10, net.accuracy, np.nan)
        np.testing.assert_array_equal(y_of(line), wanted)
    assert "3 seeds: bars of all together" in texts(figure)
    assert figure.legends[0].get_texts()[-1].get_text() == "a seed"
    assert not any(isinstance(c, ErrorbarContainer) for c in upper.containers)


def test_reliability_prints_the_means_of_the_scores_and_of_accuracy_and_confidence() -> None:
    nets = make_nets(2)
    upper, lower = classifiers.draw_reliability(nets, **FRAME).axes
    ece, nll, brier = np.mean([net[-3:] for net in nets], axis=0)
    wanted = f"means: ECE {100 * ece:.2f} %    NLL {nll:.3f} nats    Brier {brier:.3f}"
    assert upper.get_title() == wanted
    assert classifiers.draw_reliability(nets[0], **FRAME).axes[0].get_title().startswith("ECE ")
    pairs = [make_logits(seed) for seed in range(2)]
    accuracy = np.mean([x.argmax(axis=1) == labels for x, labels in pairs])
    confidence = np.mean([scores.softmax(x).max(axis=1) for x, _ in pairs])
    printed = [text.get_text() for text in lower.get_legend().get_texts()]
    assert printed == [f"mean accuracy {accuracy:.3f}", f"mean confidence {confidence:.3f}"]
    np.testing.assert_allclose([x_of(line)[0] for line in lower.lines], [accuracy, confidence])


def test_a_list_of_one_net_is_drawn_as_that_net() -> None:
    (net,) = make_nets(1)
    one, other = (classifiers.draw_reliability(nets, **FRAME) for nets in (net, [net]))
    assert texts(one) == texts(other)
    assert bars_of(one.axes[0]) == bars_of(other.axes[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_show_their_pixels_below_their_titles_in_order(channels: int) -> None:
    images = make_images(11, channels)
    titles = [f"{i}: true cat\nsaid dog 98 %" for i in range(11)]
    figure = classifiers.draw_examples(images, titles, **FRAME)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes
    assert [axis.get_title() for axis in axes] == titles
    for axis, picture in zip(axes, images, strict=True):
        (shown,) = axis.images
        wanted = picture if channels == 3 else picture[..., 0]
        np.testing.assert_array_equal(shown.get_array(), wanted)
        assert shown.get_clim() == (0, 255)
        assert shown.get_interpolation() == "nearest"
    places = [axis.get_position() for axis in axes]
    assert places[0].x0 < places[1].x0
    assert places[0].y0 == pytest.approx(places[1].y0)
    assert places[0].y0 > places[-1].y1
    assert places[1].x0 - places[0].x1 < 0.25 * places[0].width


def test_longer_titles_leave_room_for_fewer_pictures_in_a_row() -> None:
    counts = []
    for length in (4, 20, 50):
        axes = classifiers.draw_examples(make_images(9, 1), ["m" * length] * 9, **FRAME).axes
        counts.append(len({axis.get_position().x0 for axis in axes}))
    assert counts == [8, 5, 2]


DRAWN: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: classifiers.draw_confusion(make_confusion(), NAMES, **FRAME),
    "few errors": lambda: classifiers.draw_confusion(make_confusion(5.5), NAMES, **FRAME),
    "two": lambda: classifiers.draw_confusion([[449, 14], [17, 520]], ("mask", "no mask"), **FRAME),
    "sixteen": lambda: classifiers.draw_confusion(
        np.full((16, 16), 1234), [f"a long class {i}" for i in range(16)], **FRAME
    ),
    "per class": lambda: classifiers.draw_per_class(
        {name: [0.8, 0.81, 0.79] for name in NAMES}, **FRAME
    ),
    "one of each": lambda: classifiers.draw_per_class(dict.fromkeys(NAMES, 1.0), **FRAME),
    "reliability": lambda: classifiers.draw_reliability(make_nets(1), **FRAME),
    "several": lambda: classifiers.draw_reliability(make_nets(3, 5.5), **FRAME),
    "colour": lambda: classifiers.draw_examples(
        make_images(12, 3), ["9999: true automobile\nsaid automobile 98 %"] * 12, **FRAME
    ),
    "grey": lambda: classifiers.draw_examples(make_images(20, 1), ["9\n3: 98 %"] * 20, **FRAME),
    "long": lambda: classifiers.draw_reliability(
        make_nets(2), title="long title " * 12, caption=LONG_CAPTION
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_no_text_leaves_the_page_or_touches_axes_or_other_text(case: str) -> None:
    figure = DRAWN[case]()
    check_layout(figure)
    assert texts(figure).split("Data: ")[1].startswith(CAPTION)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axis in figure.axes:
        for labels in (axis.texts, axis.get_yticklabels()):
            boxes = [t.get_window_extent(renderer) for t in labels if t.get_text()]
            overlaps = [
                min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
                for i, a in enumerate(boxes)
                for b in boxes[:i]
            ]
            assert not any(overlaps)


def test_drawing_changes_no_setting_and_no_input() -> None:
    counts, (net,), images = make_confusion(), make_nets(1), make_images(2, 1)
    shares = {"a": np.array([0.5, np.nan])}
    inputs = (counts, *net[:4], images, shares["a"])
    copies = [array.copy() for array in inputs]
    with matplotlib.rc_context({"font.size": 11.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        _ = classifiers.draw_confusion(counts, NAMES, **FRAME)
        _ = classifiers.draw_reliability([net, net], **FRAME)
        _ = classifiers.draw_per_class(shares, **FRAME)
        _ = classifiers.draw_examples(images, ["a", "b"], **FRAME)
        assert dict(matplotlib.rcParams) == before
    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: classifiers.draw_confusion(SMALL, NAMES, **FRAME),
            "got 3, 10 names, 154 examples",
        ),
        (lambda: classifiers.draw_confusion([[1]], ("a",), **FRAME), "2 to 16 classes"),
        (lambda: classifiers.draw_confusion(np.eye(17), ["a"] * 17, **FRAME), "2 to 16 classes"),
        (lambda: classifiers.draw_confusion(np.zeros((2, 2)), "ab", **FRAME), "0 examples"),
        (lambda: classifiers.draw_confusion(SMALL[:2], "ab", **FRAME), r"\[K, K\], got \[2, 3\]"),
        (lambda: classifiers.draw_per_class({}, **FRAME), "at least one class"),
        (lambda: classifiers.draw_per_class({"a": []}, **FRAME), "at least one class"),
        (lambda: classifiers.draw_per_class({"a": [1], "b": [1, 0]}, **FRAME), r"\(1,\), \(2,\)"),
        (lambda: classifiers.draw_per_class({"a": [[1.0]]}, **FRAME), r"\(1, 1\)"),
        (lambda: classifiers.draw_per_class({"a": 80.0}, **FRAME), r"fractions 0\.\.1"),
        (lambda: classifiers.draw_per_class({"a": -0.1}, **FRAME), r"fractions 0\.\.1"),
        (lambda: classifiers.draw_reliability([], **FRAME), "at least one net"),
        (
            lambda: classifiers.draw_reliability(
                [scores.reliability([[0.0]], [0], bins) for bins in (5, 6)], **FRAME
            ),
            "all with the same bins, got 2",
        ),
        (lambda: classifiers.draw_examples(make_images(1, 2), ["a"], **FRAME), r"\[1, 8, 8, 2\]"),
        (lambda: classifiers.draw_examples(make_images(1, 1) / 255, ["a"], **FRAME), "got float64"),
        (lambda: classifiers.draw_examples(make_images(0, 1), [], **FRAME), "got 0, 0"),
        (lambda: classifiers.draw_examples(make_images(2, 1), ["a"], **FRAME), "got 1, 2"),
        (lambda: classifiers.draw_examples(make_images(1, 1), ["a\nb\nc"], **FRAME), "two lines"),
        (lambda: classifiers.draw_examples(make_images(1, 1), ["a" * 200], **FRAME), "letters"),
        (lambda: classifiers.draw_per_class({"a": 1.0}, title="t", caption=""), "a caption"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = call()
