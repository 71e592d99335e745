"""Charts of the page, as Vega-Lite specifications and as the SVG that they give.

A colour is the name of a variable of the page's style sheet, as "var(--tanh)", so that one drawing
serves the light and the dark page. A panel is small, and several stand beside each other as
wide as the screen allows; titles, legends and captions are text of the page around them.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import vl_convert

WIDTH, HEIGHT = 300, 200  # of a panel's axes, in pixels
NARROW = 240  # of one that stands beside two others
_MOST_TICKS = 6
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"  # a name; nothing is fetched
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
# Name in print, variable of the style sheet, marker: told apart without colour as well.
ACTIVATIONS: dict[str, tuple[str, str, str]] = {
    "relu": ("ReLU", "var(--relu)", "circle"),
    "tanh": ("tanh", "var(--tanh)", "square"),
    "sigmoid": ("sigmoid", "var(--sigmoid)", "triangle-up"),
    "lecun": ("LeCun", "var(--lecun)", "diamond"),
}
_CONFIG: dict[str, Any] = {
    "background": None,
    "aria": False,  # a panel has one text for all of it, in the page
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--rule)",
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 4,
        "tickSize": 4,
        "labelFlush": False,
    },
}


@dataclass(frozen=True)
class Line:
    """A line of a panel: x [X], y [X] and its band low, high [X] or None.

    colour: of CSS.  width, dash: in pixels.
    marker: the name of a shape of Vega's at every `every`-th point from `offset`, "" for none.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    width: float = 2.0
    opacity: float = 1.0
    dash: tuple[float, ...] = ()
    marker: str = ""
    every: int = 1
    offset: int = 0


def panel(
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    log: bool = False,
    zero: bool = False,
    width: int = WIDTH,
) -> str:
    """An SVG of the lines on common axes, x with integer ticks; x, y: what stands at the axes.

    log: values at zero or below are left out, and a band that reaches there ends at the axis.
    zero: whether the linear axis begins at zero.
    """
    values = np.array([v for line in lines for part in (line.y, line.low, line.high)
                       for v in (part or ()) if np.isfinite(v) and (v > 0 or not log)])  # fmt: skip
    least, most = (values.min(), values.max()) if values.size else (1.0, 10.0)
    if log and least == most:
        least, most = least / 3, most * 3
    floor = least if log or not zero else min(0.0, least)
    scale = {"type": "log" if log else "linear", "domain": [floor, most], "zero": False}
    last = max(max(line.x) for line in lines)
    across = {"domain": [min(min(line.x) for line in lines), last], "nice": False, "zero": False}
    layers = [layer for line in lines for layer in _layers(line, least if log else None)]
    base = {
        "x": {"field": "x", "type": "quantitative", "title": x, "scale": across,
              "axis": {"grid": False, "tickMinStep": 1, "format": "d", "tickCount": 6}},
    }  # fmt: skip
    for layer in layers:
        axis = _y_axis(log) | ({"values": decades(floor, most)} if log else {})
        layer["encoding"]["y"] |= {"title": y, "scale": scale, "axis": axis}
    return _svg({"width": width, "height": HEIGHT, "encoding": base, "layer": layers})


def decades(least: float, most: float) -> list[float]:
    """Ticks of a log axis from `least` to `most`, both above 0: seven at most.

    Over less than two decades they are at 1, 2 and 5 times the powers of ten, else at powers of ten
    whose exponents are multiples of one number.
    """
    low, high = math.log10(least), math.log10(most)
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if high - low < 2:
        near = range(math.floor(low), math.ceil(high) + 1)
        found = [float(f"{step}e{power}") for power in near for step in (1, 2, 5)]
        return [value for value in found if least <= value * (1 + 1e-9) <= most * (1 + 1e-8)]
    stride = -(-len(powers) // _MOST_TICKS)
    return [float(f"1e{power}") for power in powers if power % stride == 0]


def strips(
    rows: Sequence[tuple[str, str, Sequence[float], float]], ends: tuple[float, float]
) -> str:
    """An SVG with a row for each net: its seeds as dots, and what the report says as a tick.

    rows: (name, colour, values of the seeds in percent, the reported value).
    ends: of the axis; what lies beyond is left out.
    """
    low, high = ends
    dots = [{"net": n, "v": v, "c": c} for n, c, vs, _ in rows for v in vs if low <= v <= high]
    ticks = [{"net": n, "v": reported} for n, _, _, reported in rows if low <= reported <= high]
    names = [row[0] for row in rows]
    y = {"field": "net", "type": "nominal", "sort": names, "title": None,
         "scale": {"domain": names},
         "axis": {"domain": False, "ticks": False, "grid": True, "labelFontSize": 12}}  # fmt: skip
    x = {"field": "v", "type": "quantitative", "title": "test accuracy (%)",
         "scale": {"domain": list(ends)}, "axis": {"grid": False, "tickCount": 5}}  # fmt: skip
    layers = [
        {
            "data": {"values": dots},
            "mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.55},
            "encoding": {"color": {"field": "c", "type": "nominal", "scale": None}},
        },
        {
            "data": {"values": ticks},
            "mark": {"type": "tick", "color": "var(--ink)", "thickness": 2.5, "size": 18},
        },
    ]
    return _svg(
        {"width": WIDTH, "height": {"step": 24}, "layer": layers, "encoding": {"x": x, "y": y}}
    )


def explorer(log: bool) -> dict[str, Any]:
    """The Vega specification of the curves over depth whose data the page fills in.

    Its data set `curves` has rows {net, x, y, low, high}; its signals `least`, `most` and, on a
    log axis, `ticks` are of the vertical axis, `last` is the end of the horizontal one.
    """
    names = [name for name, _, _ in ACTIVATIONS.values()]
    across = {"domain": [1, {"expr": "last"}], "nice": False, "zero": False}
    up = {"type": "log" if log else "linear", "domain": [{"expr": "least"}, {"expr": "most"}],
          "nice": False, "zero": False, "clamp": True}  # fmt: skip
    encoding = {
        "x": {"field": "x", "type": "quantitative", "scale": across,
              "title": "layer, the last is the output",
              "axis": {"grid": False, "tickMinStep": 1, "format": "d"}},
        "color": {"field": "net", "type": "nominal", "legend": None,
                  "scale": {"domain": names,
                            "range": [colour for _, colour, _ in ACTIVATIONS.values()]}},
    }  # fmt: skip
    axis = _y_axis(log) | ({"values": {"expr": "ticks"}} if log else {})
    y = {"type": "quantitative", "scale": up, "title": None, "axis": axis}
    shape = {"field": "net", "type": "nominal", "legend": None,
             "scale": {"domain": names,
                       "range": [marker for _, _, marker in ACTIVATIONS.values()]}}  # fmt: skip
    spec = {
        "width": "container",
        "height": 320,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [
            {"name": "least", "value": 1e-6}, {"name": "most", "value": 1.0},
            {"name": "last", "value": 41}, {"name": "ticks", "value": [1e-6, 1.0]},
        ],
        "data": {"name": "curves"},
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "area", "opacity": 0.16, "clip": True},
             "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}}},
            {"mark": {"type": "line", "strokeWidth": 2, "clip": True},
             "encoding": {"y": {"field": "y", **y}}},
            {"mark": {"type": "point", "filled": True, "size": 42, "opacity": 1, "clip": True},
             "encoding": {"y": {"field": "y", **y}, "shape": shape}},
        ],
    }  # fmt: skip
    return vl_convert.vegalite_to_vega(_complete(spec))


@functools.cache
def runtime() -> str:
    """The JavaScript that draws what `explorer` gives, as `window.vegaEmbed`."""
    # A module's own names would else be those of the page's script as well.
    return f"(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}\n}})();"


def _layers(line: Line, floor: float | None) -> list[dict[str, Any]]:
    """Band, line and markers; floor: the lower end of a log axis."""

    def drawn(value: float) -> float | None:
        return float(value) if np.isfinite(value) and (floor is None or value > 0) else None

    points = [{"x": a, "y": drawn(b)} for a, b in zip(line.x, line.y, strict=True)]
    y = {"field": "y", "type": "quantitative"}
    look = {"color": line.colour, "opacity": line.opacity}
    stroke = {"strokeWidth": line.width, "strokeDash": list(line.dash), **look}
    layers = [
        {"data": {"values": points}, "mark": {"type": "line", **stroke}, "encoding": {"y": y}}
    ]
    if line.low is not None and line.high is not None:
        lowest = -np.inf if floor is None else floor
        band = [
            {"x": a, "low": max(low, lowest), "high": max(high, lowest)}
            for a, low, high in zip(line.x, line.low, line.high, strict=True)
            if np.isfinite(low) and np.isfinite(high)
        ]
        area = {"type": "area", "color": line.colour, "opacity": 0.15}
        ends = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
        layers.insert(0, {"data": {"values": band}, "mark": area, "encoding": ends})
    if line.marker:
        some = points[line.offset :: line.every]
        mark = {"type": "point", "shape": line.marker, "filled": True, "size": 44, **look}
        layers.append({"data": {"values": some}, "mark": mark, "encoding": {"y": dict(y)}})
    return layers


def _y_axis(log: bool) -> dict[str, Any]:
    if not log:
        return {"tickCount": 5, "labelExpr": "format(datum.value, '~r')"}
    power = "toString(round(log(datum.value) / LN10))"
    for digit, superscript in enumerate(_SUPERSCRIPTS):
        power = f"replace({power}, regexp('{digit}', 'g'), '{superscript}')"
    whole = "abs(log(datum.value) / LN10 - round(log(datum.value) / LN10)) < 1e-6"
    return {
        "labelExpr": f"{whole} && (datum.value < 0.01 || datum.value > 1000)"
        f" ? '10' + replace({power}, '-', '⁻') : format(datum.value, '~r')",
    }


def _complete(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"$schema": _SCHEMA, "config": _CONFIG, "padding": 4, **spec}


def _svg(spec: Mapping[str, Any]) -> str:
    return _drawn(json.dumps(_complete(spec)))


@functools.lru_cache(maxsize=256)
def _drawn(spec: str) -> str:
    # Its roles would have the marks read one by one; the page has a text for all of them.
    return vl_convert.vegalite_to_svg(spec).replace("<svg ", '<svg aria-hidden="true" ', 1)
