"""The interactive chart of the page: gradients over depth, as a Vega specification.

A colour is the name of a variable of the page's style sheet, as "var(--tanh)", so that one drawing
serves the light and the dark page.
"""

import functools
from typing import Any

import vl_convert

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


def explorer(log: bool) -> dict[str, Any]:
    """The Vega specification of the curves over depth whose data the page fills in.

    Its data set `curves` has rows {net, x, y, low, high} and perhaps p, the prediction; its signals
    `least`, `most` and, on a log axis, `ticks` are of the vertical axis, `last` is the end of the
    horizontal one.
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
        "$schema": _SCHEMA,
        "config": _CONFIG,
        "padding": 4,
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
            {"mark": {"type": "line", "strokeWidth": 1.5, "strokeDash": [5, 3], "clip": True},
             "transform": [{"filter": "isValid(datum.p)"}],
             "encoding": {"y": {"field": "p", **y}}},
            {"mark": {"type": "point", "filled": True, "size": 42, "opacity": 1, "clip": True},
             "encoding": {"y": {"field": "y", **y}, "shape": shape}},
        ],
    }  # fmt: skip
    return vl_convert.vegalite_to_vega(spec)


@functools.cache
def runtime() -> str:
    """The JavaScript that draws what `explorer` gives, as `window.vegaEmbed`."""
    # A module's own names would else be those of the page's script as well.
    return f"(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}\n}})();"


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
