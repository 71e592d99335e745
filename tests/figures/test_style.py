"""Layout strips of a figure, labels of nets, and the spread of values over seeds."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.reading import CAPTION, LONG_CAPTION, check_layout, texts
from research.figures import style


def draw_page(*legends: list[Line2D], title: str = "t", caption: str = CAPTION) -> Figure:
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(style.WIDTH_IN, 3.0))
        _ = figure.subplots().set_xlabel("x")
        style.frame(figure, title, ["One thing.", "Another."], caption, *legends)
    return figure


def test_footer_is_the_sentences_and_then_the_data() -> None:
    assert texts(draw_page()) == f"t One thing. Another. Data: {CAPTION}"
    with pytest.raises(ValueError, match="expected a caption that names the data"):
        _ = draw_page(caption=" \n")


def test_legends_and_long_texts_keep_strips_of_their_own() -> None:
    left, right = ([Line2D([], [], label=name)] for name in ("left", "right"))
    figure = draw_page(left, right, title="long title " * 12, caption=LONG_CAPTION)
    check_layout(figure)
    assert [g.get_texts()[0].get_text() for g in figure.legends] == ["left", "right"]
    a, b = (legend.get_window_extent() for legend in figure.legends)
    assert a.x0 < 0.02 * figure.bbox.width < 0.9 * figure.bbox.width < b.x1
    assert len(draw_page([], right).legends) == 1


def test_spread_is_median_minimum_and_maximum_of_what_is_finite() -> None:
    values = np.array([[1.0, np.nan, np.nan], [5.0, 2.0, np.inf], [2.0, 4.0, np.nan]])
    spread = style.over_seeds(values, axis=0)
    drawn = np.stack([spread.middle, spread.low, spread.high])
    wanted = [[2.0, 3.0, np.nan], [1.0, 2.0, np.nan], [5.0, 4.0, np.nan]]
    np.testing.assert_array_equal(drawn, wanted)
    assert (spread.seeds, spread.lost.tolist()) == (3, [0, 1, 3])
    assert style.over_seeds(spread, axis=0) is spread
    third = (spread * 100)[:1]
    assert (third.middle.tolist(), third.high.tolist(), third.seeds) == ([200], [500], 3)


def test_what_is_less_than_sure_is_never_written_as_sure() -> None:
    assert [style.percent(p) for p in (0.0, 0.994, 0.9951, 1.0)] == [
        "0 %",
        "99 %",
        ">99 %",
        "100 %",
    ]


def test_labels_are_taken_apart_and_wrong_ones_refused() -> None:
    assert style.split_label("lecun-40") == ("lecun", 40)
    assert style.activation_name("lecun-40") == "LeCun"
    for label in ("swish-5", "tanh", "tanh-", "tanh-five"):
        with pytest.raises(ValueError, match=f"-DEPTH, got '{label}'"):
            _ = style.split_label(label)
