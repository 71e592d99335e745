"""Figures of an attack: the drawn pictures and numbers, failures included, and layout."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.reading import CAPTION, LONG_CAPTION, bands, check_layout, texts, x_of, y_of
from research.figures import noise
from research.training.scores import wilson_interval

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
FRAME: dict[str, Any] = {"title": "t", "caption": CAPTION}
YELLOW, GREEN, RED, BLACK = "#e3b505", "#009e73", "#cc2222", "#000000"


def make_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[0]).integers(0, 256, shape).astype(np.uint8)


def make_grid(rows: int = 2, channels: int = 1, classes: Any = "abc") -> dict[str, Any]:
    """All attacks won, by the nets' word for it: the target, or the class after the own one."""
    size = len(classes)
    actual = np.arange(rows) % size
    predicted = np.tile(np.arange(size), (rows, 1))
    predicted[np.arange(rows), actual] = (actual + 1) % size
    return {
        "clean": make_images(rows, 6, 8, channels),
        "adversarial": make_images(rows, size, 6, 8, channels),
        "actual": actual,
        "predicted": predicted,
        "probability": np.linspace(0.5, 1, rows * size).reshape(rows, size),
        "success": np.ones((rows, size), bool),
        "clean_predicted": actual.copy(),
        "clean_probability": np.full(rows, 0.99),
        "classes": classes,
        **FRAME,
    }


def spoil(grid: dict[str, Any], row: int, target: int) -> dict[str, Any]:
    """The same with a failure there, which leaves the image in its class."""
    grid["success"][row, target] = False
    grid["predicted"][row, target] = grid["actual"][row]
    return grid


def make_success(size: int = 3) -> tuple[np.ndarray, ...]:
    """10 of 10 everywhere, but 9 of 10 and 7 of 8 from class 1 toward class 0; class 2 untried."""
    won, tried, won_correct, tried_correct = (np.full((size, size), 10) for _ in range(4))
    won[1, 0], won_correct[1, 0], tried_correct[1, 0] = 9, 7, 8
    for counts in (won, tried, won_correct, tried_correct):
        counts[2] = 0
    return won, tried, won_correct, tried_correct


def make_attacks() -> dict[str, Any]:
    """Four targeted, of which the last failed, and two toward the own class."""
    return {
        "steps": np.array([1, 100, 10, 3000, 2, 4]),
        "l2": np.array([1.5, 1.0, 2.0, np.nan, 0.5, 0.7]),
        "linf": np.array([10.0, 20.0, 30.0, 99.0, 5.0, 6.0]),
        "l0": np.array([300, 200, 400, 784, 100, 150]),
        "success": np.array([True, True, True, False, True, True]),
        "untargeted": np.array([False] * 4 + [True] * 2),
        **FRAME,
    }


def make_hits(nets: int) -> dict[str, list[int]]:
    return {f"a net with a name {i}": [98, 60 - 5 * i, 0] for i in range(nets)}


def pictures(axis: Axes) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in axis.images]


def boxes(axis: Axes) -> np.ndarray:
    """x0, x1, y0, y1 of every picture, in inches from the top left."""
    extents = [image.get_extent() for image in axis.images]
    return np.array([(left, right, top, low) for left, right, low, top in extents])


def said_above(axis: Axes, box: np.ndarray) -> list[str]:
    """Texts between the picture and the one above it, from the top."""
    middle = (box[0] + box[1]) / 2
    found = [(t.get_position(), t.get_text()) for t in axis.texts]
    near = [(y, s) for (x, y), s in found if abs(x - middle) < 0.01 and 0 < box[2] - y < 0.19]
    return [text for _, text in sorted(near)]


def test_grid_shows_originals_first_then_targets_in_order_unsmoothed() -> None:
    grid = make_grid()
    (axis,) = noise.draw_grid(**grid).axes
    wanted = np.concatenate([grid["clean"][:, None], grid["adversarial"]], axis=1)
    np.testing.assert_array_equal(pictures(axis), wanted.reshape(8, 6, 8))
    assert {image.get_clim() for image in axis.images} == {(0, 255)}
    assert {image.get_interpolation() for image in axis.images} == {"nearest"}
    assert {image.get_cmap().name for image in axis.images} == {"gray"}
    places = boxes(axis).reshape(2, 4, 4)
    assert np.all(np.diff(places[:, :, 0], axis=1) > 0)
    np.testing.assert_allclose(places[0, :, :2], places[1, :, :2])
    assert np.all(places[1, :, 2] > places[0, :, 3])
    assert np.all(places[..., 2] < places[..., 3])
    assert axis.get_ylim()[0] > axis.get_ylim()[1] == 0
    ratio = (places[..., 3] - places[..., 2]) / (places[..., 1] - places[..., 0])
    np.testing.assert_allclose(ratio, 6 / 8)


def test_an_inch_of_the_grid_is_an_inch_of_the_page_whatever_the_caption() -> None:
    for caption in (CAPTION, LONG_CAPTION):
        figure = noise.draw_grid(**make_grid() | {"caption": caption})
        (axis,) = figure.axes
        scale = axis.get_window_extent().height / figure.dpi
        assert scale == pytest.approx(axis.get_ylim()[0])
        assert axis.get_window_extent().width / figure.dpi == pytest.approx(axis.get_xlim()[1])


def test_colour_grids_show_their_three_channels() -> None:
    grid = make_grid(channels=3)
    (axis,) = noise.draw_grid(**grid).axes
    np.testing.assert_array_equal(pictures(axis)[0], grid["clean"][0])


def test_borders_tell_originals_targets_self_and_failures_by_colour_and_line() -> None:
    grid = spoil(spoil(make_grid(), 0, 2), 1, 1)
    figure = noise.draw_grid(**grid)
    (axis,) = figure.axes
    borders = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    drawn = [(to_hex(patch.get_edgecolor()), patch.get_linestyle()) for patch in borders]
    yellow, green, red, black = (
        *((YELLOW, "solid"), (GREEN, "solid")),
        *((RED, "dotted"), (BLACK, "dashed")),
    )
    assert drawn == [yellow, red, green, black, yellow, green, black, green]
    for border, (x0, x1, y0, y1) in zip(borders, boxes(axis), strict=True):
        box = border.get_bbox()
        half = border.get_linewidth() / 72 / 2
        np.testing.assert_allclose([box.x0, box.x1], [x0 - half, x1 + half])
        np.testing.assert_allclose([box.y0, box.y1], [y0 - half, y1 + half])
        assert not border.get_fill()
    legend = figure.legends[0]
    assert [to_hex(p.get_edgecolor()) for p in legend.get_patches()] == [YELLOW, GREEN, RED, BLACK]
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["original", "target reached", "untargeted: own class left", "failed, crossed"]


def test_failures_and_nothing_else_are_crossed_from_corner_to_corner() -> None:
    (axis,) = noise.draw_grid(**spoil(spoil(make_grid(), 0, 2), 1, 1)).axes
    crosses = [(x_of(line).tolist(), y_of(line).tolist()) for line in axis.lines]
    wanted = []
    for x0, x1, y0, y1 in boxes(axis)[[3, 6]].tolist():
        wanted += [([x0, x1], [y0, y1]), ([x0, x1], [y1, y0])]
    assert crosses == wanted
    assert all(line.get_path_effects() for line in axis.lines)
    assert not noise.draw_grid(**make_grid()).axes[0].lines


def test_grid_prints_each_prediction_with_its_percent_and_the_names_around() -> None:
    grid = spoil(make_grid(), 0, 2)
    grid["clean_predicted"][1] = 2
    grid["probability"][0, 1] = 0.987
    figure = noise.draw_grid(**grid)
    (axis,) = figure.axes
    printed = [said_above(axis, box)[-1] for box in boxes(axis)]
    assert printed[:4] == ["a 99%", "b 50%", "b 99%", "a 70%"]
    assert printed[4:] == ["c 99%", "a 80%", "c 90%", "c 100%"]
    middles = boxes(axis)[:4, :2].mean(axis=1)
    bold = [t for t in axis.texts if t.get_weight() == "bold"]
    assert [t.get_text() for t in bold] == ["original", "a", "b", "c"]
    np.testing.assert_allclose([t.get_position()[0] for t in bold], middles)
    left = [t for t in axis.texts if t.get_position()[0] < boxes(axis)[0, 0]]
    assert [(t.get_text(), t.get_rotation()) for t in left] == [("a", 0), ("b", 0)]
    assert "Target reached: 3 of 4. Own class left: 2 of 2." in texts(figure)
    assert "Originals classified wrongly: 1. Data" in texts(figure)
    assert "wrongly" not in texts(noise.draw_grid(**make_grid()))


def test_originals_whose_prediction_is_not_known_have_no_text_above() -> None:
    grid = make_grid()
    del grid["clean_predicted"], grid["clean_probability"]
    figure = noise.draw_grid(**grid)
    (axis,) = figure.axes
    printed = [" ".join(said_above(axis, box)).split() for box in boxes(axis)]
    assert printed[0][-2:] != ["a", "99%"] and printed[4] == [] and printed[5] == ["a", "80%"]
    assert "wrongly" not in texts(figure)


def test_names_that_do_not_fit_beside_their_percent_take_a_line_and_longer_ones_are_cut() -> None:
    names = (*NAMES[:9], "articulated lorry")
    (axis,) = noise.draw_grid(**make_grid(3, classes=names)).axes
    assert said_above(axis, boxes(axis)[0]) == ["airplane", "99%"]
    bold = [t.get_text() for t in axis.texts if t.get_weight() == "bold"]
    assert bold[2] == "automobile"
    assert "bird" in [t.get_text() for t in axis.texts if t.get_rotation() == 90]
    assert bold[-1] == "articulate."
    gaps = []
    for classes in (names, "0123456789"):
        places = boxes(noise.draw_grid(**make_grid(classes=classes)).axes[0])
        gaps.append(places[11, 2] - places[0, 3])
    assert gaps[0] - gaps[1] == pytest.approx(0.125)


def test_a_success_that_its_prediction_denies_is_refused() -> None:
    for row, target, said in ((0, 1, 2), (0, 0, 0)):
        grid = make_grid()
        grid["predicted"][row, target] = said
        with pytest.raises(ValueError, match="fit each success, 1 do not"):
            _ = noise.draw_grid(**grid)
        grid["success"][row, target] = False
        _ = noise.draw_grid(**grid)


def make_pair(count: int, channels: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and the same with noise; the first loses so many levels at a pixel."""
    clean = np.full((count, 6, 8, channels), 255, np.uint8)
    clean[:, 3:] = 0
    made = clean.copy()
    made[0, 0, 0, 0] -= np.uint8(levels)
    made[:, 5, 7, 0] += np.uint8(min(3, levels))
    return clean, made


def test_noise_of_grey_images_is_signed_on_one_symmetric_scale_with_a_bar() -> None:
    clean, made = make_pair(3, 1, 40)
    figure = noise.draw_noise(clean, made, ["one", "two", "three"], **FRAME)
    axis, bar = figure.axes
    shown = pictures(axis)
    for i in range(3):
        difference = made[i].astype(int) - clean[i]
        np.testing.assert_array_equal(
            shown[3 * i : 3 * i + 3], np.stack([clean[i], difference, made[i]])[..., 0]
        )
    assert [image.get_clim() for image in axis.images] == [(0, 255), (-40, 40), (0, 255)] * 3
    low, middle, high = (axis.images[1].to_rgba(np.array([[v]]))[0, 0, :3] for v in (-40, 0, 40))
    assert middle.tolist() == [1, 1, 1]
    assert low[2] > low[0] and high[0] > high[2]
    FigureCanvasAgg(figure).draw()
    assert bar.get_xlim() == (-40, 40)
    assert [t.get_text() for t in bar.get_xticklabels()] == ["-40", "-20", "0", "+20", "+40"]
    assert bar.get_xlabel() == "adversarial - original (levels of 8 bits)"
    assert "Noise on a scale from -40 to +40 for all." in texts(figure)
    printed = [t.get_text() for t in axis.texts]
    assert printed.count("-40 to +3") == 1 and printed.count("0 to +3") == 2


@pytest.mark.parametrize(
    ("levels", "factor"), [(0, "127"), (10, "12"), (127, "1"), (128, "0.5"), (255, "0.5")]
)
def test_noise_of_colour_images_is_amplified_around_grey_as_stated_and_never_cut(
    levels: int, factor: str
) -> None:
    clean, made = make_pair(1, 3, levels)
    figure = noise.draw_noise(clean, made, ["one"], **FRAME)
    (axis,) = figure.axes
    shown = pictures(axis)
    difference = made[0].astype(float) - clean[0]
    np.testing.assert_allclose(shown[1], 0.5 + float(factor) * difference / 255)
    assert shown[1].min() >= 0 and shown[1].max() <= 1
    np.testing.assert_array_equal(shown[0], clean[0])
    np.testing.assert_array_equal(shown[2], made[0])
    wanted = f"mid-grey plus {factor} times the difference, which is +-{max(levels, 1)} at most"
    assert wanted in texts(figure)


def test_examples_of_noise_go_two_by_two_each_with_its_title_and_its_ends() -> None:
    figure = noise.draw_noise(*make_pair(3, 3, 9), ["one", "two", "three"], **FRAME)
    (axis,) = figure.axes
    places = boxes(axis).reshape(3, 3, 4)
    np.testing.assert_allclose(places[0, :, 2], places[1, :, 2])
    np.testing.assert_allclose(places[0, :, 0], places[2, :, 0])
    assert np.all(places[2, :, 2] > places[0, :, 3])
    assert places[1, 0, 0] > places[0, 2, 1]
    at = {t.get_text(): t.get_position() for t in axis.texts}
    for name, place in zip(("one", "two", "three"), places[:, 0], strict=True):
        assert at[name][0] == pytest.approx(place[0])
        assert 0 < place[2] - at[name][1] < 0.1
    assert at["-9 to +3"][0] == pytest.approx(places[0, 1, :2].mean())
    assert 0 < at["-9 to +3"][1] - places[0, 1, 3] < 0.2
    bold = [t.get_text() for t in axis.texts if t.get_weight() == "bold"]
    assert bold == ["original", "noise", "adversarial"] * 2


def test_success_prints_counts_and_a_second_line_where_originals_were_wrong() -> None:
    axis = noise.draw_success(*make_success(), "abc", **FRAME).axes[0]
    printed = {t.get_position(): t.get_text() for t in axis.texts}
    whole = {(0, 0): "10/10", (1, 0): "10/10", (2, 0): "10/10", (1, 1): "10/10", (2, 1): "10/10"}
    assert printed == {**whole, (0, 0.8): "9/10", (0, 1.22): "7/8"}
    small = [(t.get_text(), t.get_fontsize()) for t in axis.texts if t.get_style() == "italic"]
    assert small == [("7/8", 7)]
    assert {t.get_fontsize() for t in axis.texts if t.get_style() != "italic"} == {8}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("target", "actual")
    assert axis.get_ylim() == (2.5, -0.5)
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "b", "c"]


def test_success_shades_the_targeted_cells_and_frames_self() -> None:
    figure = noise.draw_success(*make_success(), "abc", **FRAME)
    axis, bar = figure.axes
    shares = axis.images[0].get_array()
    np.testing.assert_array_equal(shares.filled(-1), [[-1, 100, 100], [90, -1, 100], [-1] * 3])
    assert axis.images[0].get_clim() == (0, 100)
    assert "share" in bar.get_ylabel()
    framed = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert [(round(p.get_x()), round(p.get_y())) for p in framed] == [(0, 0), (1, 1)]
    assert {p.get_linestyle() for p in framed} == {"dashed"}
    (named,) = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == "untargeted: another question"


def test_success_says_both_rates_apart_and_both_denominators() -> None:
    figure = noise.draw_success(*make_success(), "abc", **FRAME)
    both = "Toward another class: 39 of 40 won (97.5 %); originals classified rightly: 37 of 38"
    assert f"{both} (97.4 %). Untargeted: 20 of 20 won (100.0 %)" in texts(figure)
    assert "Second line of a cell" in texts(figure)
    won, tried, *_ = make_success()
    assert "Second line" not in texts(noise.draw_success(won, tried, won, tried, "abc", **FRAME))
    untried = [np.where(np.eye(3, dtype=bool), 0, counts) for counts in make_success()]
    assert "Untargeted: none tried. " in texts(noise.draw_success(*untried, "abc", **FRAME))
    wrong = [*make_success()[:2], *np.zeros((2, 3, 3), int)]
    assert "classified rightly: 0 of 0. Untargeted" in texts(
        noise.draw_success(*wrong, "abc", **FRAME)
    )


def test_distributions_are_of_successes_targeted_and_self_apart() -> None:
    attacks = make_attacks()
    figure = noise.draw_distributions(**attacks)
    for axis, name in zip(figure.axes, ("steps", "l2", "linf", "l0"), strict=True):
        targeted, own = axis.lines
        np.testing.assert_array_equal(np.unique(x_of(targeted)), np.sort(attacks[name][:3]))
        np.testing.assert_array_equal(np.unique(x_of(own)), attacks[name][4:])
        assert (y_of(targeted)[-1], y_of(own)[-1]) == (1, 1)
        assert y_of(targeted)[1] == pytest.approx(1 / 3)
        assert (targeted.get_linestyle(), own.get_linestyle()) == ("-", "--")
        assert to_hex(targeted.get_color()) != to_hex(own.get_color())
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["median 10 targeted, 3 untargeted", "median 1.5 targeted, 0.6 untargeted"]
    labels = [axis.get_xlabel().split(" (")[0] for axis in figure.axes]
    assert labels == ["gradient steps", "L2 norm", "Linf norm", "L0 norm"]
    assert "Targeted: 3 of 4. Untargeted: 2 of 2. Not drawn: 1 targeted and 0 untargeted" in texts(
        figure
    )
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["targeted", "untargeted"]


def test_an_axis_is_logarithmic_only_for_wide_positive_values() -> None:
    attacks = make_attacks()
    scales = [axis.get_xscale() for axis in noise.draw_distributions(**attacks).axes]
    assert scales == ["log", "linear", "linear", "linear"]
    attacks["steps"][0] = 0
    assert noise.draw_distributions(**attacks).axes[0].get_xscale() == "linear"


def test_attacks_that_all_failed_leave_empty_panels_that_say_so() -> None:
    figure = noise.draw_distributions(**make_attacks() | {"success": np.zeros(6, bool)})
    assert [axis.get_title() for axis in figure.axes] == ["no success"] * 4
    assert not any(axis.lines for axis in figure.axes)
    assert "Not drawn: 4 targeted and 2 untargeted that failed" in texts(figure)


def test_robust_accuracy_has_a_line_a_net_with_wilson_bands() -> None:
    hits = make_hits(7)
    budgets = [0, 2, 8]
    figure = noise.draw_robust_accuracy(budgets, hits, 120, unit="Linf", **FRAME)
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == list(hits)
    for line, band, row in zip(axis.lines, bands(axis), hits.values(), strict=True):
        assert x_of(line).tolist() == budgets
        np.testing.assert_allclose(y_of(line), 100 * np.array(row) / 120)
        (path,) = band.get_paths()
        ends = {tuple(np.round(point, 6)) for point in path.vertices}
        for x, hit in zip(budgets, row, strict=True):
            low, high = wilson_interval(hit, 120)
            assert {(x, round(100 * low, 6)), (x, round(100 * high, 6))} <= ends
    assert len({line.get_marker() for line in axis.lines}) == 7
    assert len({to_hex(line.get_color()) for line in axis.lines}) == 7
    assert axis.get_ylim() == (0, 100)
    assert axis.get_xlabel() == "budget (Linf)"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(hits)
    assert "120 images for each net. Bands: 95 %" in texts(figure)


def test_transfer_has_rows_made_against_and_columns_judged_by() -> None:
    rates = [[1.0, 0.256], [np.nan, 0.975]]
    figure = noise.draw_transfer(rates, ("one", "two"), [1450, 9], **FRAME)
    axis, bar = figure.axes
    printed = {t.get_position(): t.get_text() for t in axis.texts}
    assert printed == {(0, 0): "100", (1, 0): "25.6", (1, 1): "97.5"}
    np.testing.assert_allclose(axis.images[0].get_array().filled(-1), [[100, 25.6], [-1, 97.5]])
    assert axis.images[0].get_clim() == (0, 100)
    assert "fooled" in bar.get_ylabel()
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("judged by", "made against (images)")
    assert axis.get_ylim() == (1.5, -0.5)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["one", "two"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["one (1,450)", "two (9)"]
    framed = [patch.get_xy() for patch in axis.patches if isinstance(patch, Rectangle)]
    assert framed == [(-0.5, -0.5), (0.5, 0.5)]


@pytest.mark.parametrize("draw", ["success", "transfer"])
def test_the_darkest_cell_keeps_its_print_readable(draw: str) -> None:
    figures = {
        "success": lambda: noise.draw_success(*make_success(), "abc", **FRAME),
        "transfer": lambda: noise.draw_transfer([[1.0]], "a", [1], **FRAME),
    }
    axis = figures[draw]().axes[0]
    ramp = np.array(axis.images[0].cmap(np.linspace(0, 1, 50)))[:, :3]
    linear = np.where(ramp <= 0.04045, ramp / 12.92, ((ramp + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) < 0)
    assert (luminance.min() + 0.05) / 0.05 > 4.5  # contrast of black print, WCAG 2 level AA


def big_success(count: int) -> tuple[np.ndarray, ...]:
    won = np.full((10, 10), count)
    return won, won, won - 2, won - 2


DRAWN: dict[str, Callable[[], Figure]] = {
    "grid": lambda: noise.draw_grid(**spoil(make_grid(2, classes="0123456789"), 1, 2)),
    "colour grid": lambda: noise.draw_grid(**spoil(make_grid(2, 3, NAMES), 0, 1)),
    "wide names": lambda: noise.draw_grid(**make_grid(1, 3, ["articulated lorry"] * 10)),
    "one row": lambda: noise.draw_grid(**make_grid(1, 3, NAMES) | {"caption": LONG_CAPTION}),
    "noise": lambda: noise.draw_noise(*make_pair(3, 1, 40), ["7 99 %, L2 1.23"] * 3, **FRAME),
    "colour noise": lambda: noise.draw_noise(*make_pair(3, 3, 255), ["e" * 36] * 3, **FRAME),
    "one noise": lambda: noise.draw_noise(
        *make_pair(1, 1, 0), ["g" * 90], title="long " * 30, caption=LONG_CAPTION
    ),
    "success": lambda: noise.draw_success(*big_success(9999), NAMES, **FRAME),
    "two": lambda: noise.draw_success(*np.full((4, 2, 2), 5), ("mask", "no mask"), **FRAME),
    "distributions": lambda: noise.draw_distributions(**make_attacks()),
    "robust": lambda: noise.draw_robust_accuracy(
        [0, 2, 8], make_hits(7), 120, unit="Linf", **FRAME
    ),
    "transfer": lambda: noise.draw_transfer(
        np.full((10, 10), 0.123), [f"MLP LeCun-{i}" for i in range(10)], [450] * 10, **FRAME
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_no_text_leaves_the_page_or_touches_pictures_or_other_text(case: str) -> None:
    figure = DRAWN[case]()
    check_layout(figure)
    assert texts(figure).split("Data: ")[1].startswith(CAPTION)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axis in figure.axes:
        images = [] if axis.axison else [i.get_window_extent(renderer) for i in axis.images]
        for labels in (axis.texts, axis.get_xticklabels(), axis.get_yticklabels()):
            level = [t for t in labels if t.get_text() and t.get_rotation() in (0, 90)]
            if not level:
                continue
            around = [t.get_window_extent(renderer) for t in level]
            low, high = (
                np.array([getattr(b, end) for b in around + images]) for end in ("p0", "p1")
            )
            overlap = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
            touching = np.argwhere(np.triu(overlap.min(axis=2) > 0.5, k=1)[: len(level)])
            assert not touching.size, [level[i].get_text() for i in touching[:, 0]]


def test_drawing_changes_no_setting_and_no_input() -> None:
    grid, attacks, counts = make_grid(), make_attacks(), make_success()
    pair, rates = make_pair(1, 1, 5), np.array([[1.0, np.nan], [0.5, 1.0]])
    inputs = [v for v in (*grid.values(), *attacks.values()) if isinstance(v, np.ndarray)]
    inputs += [*counts, *pair, rates]
    copies = [array.copy() for array in inputs]
    with matplotlib.rc_context({"font.size": 11.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        _ = noise.draw_grid(**grid)
        _ = noise.draw_noise(*pair, ["a"], **FRAME)
        _ = noise.draw_success(*counts, "abc", **FRAME)
        _ = noise.draw_distributions(**attacks)
        _ = noise.draw_robust_accuracy([1], {"a": [1]}, 2, unit="u", **FRAME)
        _ = noise.draw_transfer(rates, "ab", [1, 2], **FRAME)
        assert dict(matplotlib.rcParams) == before
    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def grid_with(**changes: Any) -> Callable[[], Figure]:
    return lambda: noise.draw_grid(**make_grid() | changes)


def attacks_with(**changes: Any) -> Callable[[], Figure]:
    return lambda: noise.draw_distributions(**make_attacks() | changes)


def success_with(index: int, value: int) -> Callable[[], Figure]:
    counts = make_success()
    counts[index][0, 1] = value
    return lambda: noise.draw_success(*counts, "abc", **FRAME)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (grid_with(clean=make_images(2, 6, 8, 2)), r"clean \[N, H, W, 1 or 3\]"),
        (grid_with(clean=make_images(1, 6, 8, 1)), r"adversarial \[1, 3, 6, 8, 1\]"),
        (grid_with(adversarial=make_images(2, 6, 8, 1)), r"adversarial \[R, K, H, W, 1 or 3\]"),
        (grid_with(adversarial=make_images(2, 4, 6, 8, 1)), r"got 2 and \[2, 4, 6, 8, 1\]"),
        (lambda: noise.draw_grid(**make_grid(11)), "1 to 10 clean images"),
        (lambda: noise.draw_grid(**make_grid(classes="a" * 11)), "2 to 10 classes, got 11"),
        (grid_with(actual=[0]), r"actual \[2\] of integers 0\.\.2"),
        (grid_with(actual=[0, 3]), r"actual \[2\] of integers 0\.\.2"),
        (grid_with(actual=[0.0, 1.0]), "got float64"),
        (grid_with(clean_predicted=[0, -1]), r"predictions \[2, 4\] of integers"),
        (grid_with(predicted=[[1, 1, 2]]), r"got \[2\] and \[1, 3\]"),
        (grid_with(clean_probability=[0.5, 1.01]), r"probabilities 0\.\.1"),
        (grid_with(success=np.ones((2, 3))), "got float64"),
        (grid_with(success=np.ones(3, bool)), r"success \[2, 3\] bool"),
        (lambda: noise.draw_noise(*make_pair(2, 1, 5), ["a"], **FRAME), "2 titles of one line"),
        (lambda: noise.draw_noise(*make_pair(1, 1, 5), ["a\nb"], **FRAME), "of one line"),
        (lambda: noise.draw_noise(*make_pair(2, 1, 5), ["g" * 90] * 2, **FRAME), "3.4 inches"),
        (lambda: noise.draw_noise(*make_pair(11, 1, 5), ["a"] * 11, **FRAME), "1 to 10 images"),
        (
            lambda: noise.draw_noise(*(make_images(n, 6, 8, 1) for n in (1, 2)), ["a"], **FRAME),
            "clean and adversarial alike",
        ),
        (success_with(0, 11), "whole won <= tried"),
        (success_with(2, 11), "whole won <= tried"),
        (success_with(2, 9), "whole won <= tried"),
        (success_with(0, -1), "whole won <= tried"),
        (lambda: noise.draw_success(*np.ones((4, 2, 2)), "ab", **FRAME), "whole won"),
        (lambda: noise.draw_success(*np.zeros((4, 2, 2), int), "ab", **FRAME), "got 0"),
        (lambda: noise.draw_success(*np.full((4, 2, 2), 10_000), "ab", **FRAME), "got 10000"),
        (lambda: noise.draw_success(*make_success(), "ab", **FRAME), r"four \[K, K\]"),
        (attacks_with(l0=[1]), r"\[M\] of everything"),
        (attacks_with(untargeted=[True]), "untargeted"),
        (attacks_with(l2=np.full(6, np.nan)), "L2 norm .* for each success"),
        (attacks_with(linf=np.full(6, -1.0)), "Linf norm .* for each success"),
        (
            lambda: noise.draw_robust_accuracy([2, 1], {"a": [1, 1]}, 2, unit="u", **FRAME),
            "ascending budgets",
        ),
        (
            lambda: noise.draw_robust_accuracy([1], {"a": [1, 1]}, 2, unit="u", **FRAME),
            "1 counts each, got {'a': 2}",
        ),
        (
            lambda: noise.draw_robust_accuracy([0, 1, 2], make_hits(8), 98, unit="u", **FRAME),
            "1 to 7 nets",
        ),
        (
            lambda: noise.draw_robust_accuracy([1], {"a": [3]}, 2, unit="u", **FRAME),
            "hits <= count",
        ),
        (lambda: noise.draw_transfer([[1.1]], "a", [1], **FRAME), r"rates 0\.\.1"),
        (lambda: noise.draw_transfer([[1.0]], "a", [-1], **FRAME), "counts of 0 or more"),
        (lambda: noise.draw_transfer([[1.0]], "a", [1, 2], **FRAME), r"counts \[M\]"),
        (lambda: noise.draw_transfer([[1.0]], "ab", [1, 2], **FRAME), r"rates \[M, M\]"),
        (lambda: noise.draw_transfer([[1.0]], "a", [1], title="t", caption=""), "a caption"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = call()
