"""Charts of the page: what is drawn stands in the SVG."""

import math
import re

import pytest

from research.page import charts
from research.page.charts import Line


def test_a_panel_is_drawn_in_colours_of_the_style_sheet_and_loads_nothing():
    line = Line([1, 2, 3], [0.1, 1e-9, 10.0], "var(--tanh)", low=[0.05, 0.0, 5.0], high=[1, 1, 20],
                marker="square")  # fmt: skip
    svg = charts.panel([line], x="layer", y="gradient", log=True)
    assert svg.startswith('<svg aria-hidden="true" ') and 'stroke="var(--tanh)"' in svg
    assert ">layer<" in svg and ">gradient<" in svg and "10⁻⁸" in svg
    addresses = re.findall(r"(?:href|src)=\"([^#\"][^\"]*)", svg)
    assert not addresses and "NaN" not in svg


def test_a_value_that_a_log_axis_cannot_show_is_left_out():
    points = [charts._layers(Line([1, 2], [y, 1.0], "red"), 0.5)[0] for y in (0.0, -1.0, math.nan)]
    assert [point["data"]["values"][0]["y"] for point in points] == [None] * 3


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (1e-25, 5.0, [1e-25, 1e-20, 1e-15, 1e-10, 1e-5, 1.0]),
        (1e-3, 10.0, [1e-3, 1e-2, 0.1, 1.0, 10.0]),
        (0.15, 1.2, [0.2, 0.5, 1.0]),
        (0.1, 9.0, [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]),
    ],
)
def test_the_ticks_of_a_log_axis_are_few_and_round(least, most, expected):
    assert charts.decades(least, most) == expected


def test_dots_and_ticks_beyond_the_ends_of_the_axis_are_left_out(monkeypatch):
    monkeypatch.setattr(charts, "_svg", lambda spec: spec)
    spec = charts.strips([("tanh-5", "red", [89.0, 95.0], 96.1), ("x", "red", [], 99.0)], (90, 98))
    dots, ticks = (layer["data"]["values"] for layer in spec["layer"])
    assert [dot["v"] for dot in dots] == [95.0] and [tick["v"] for tick in ticks] == [96.1]


def test_the_page_can_set_the_data_and_the_ends_of_the_curves_over_depth():
    spec = charts.explorer(log=True)
    names = {signal["name"] for signal in spec["signals"]}
    assert names >= {"least", "most", "last", "ticks"}
    assert "curves" in [data["name"] for data in spec["data"]]
    kinds = {scale["name"]: scale["type"] for scale in spec["scales"]}
    assert kinds["y"] == "log"
