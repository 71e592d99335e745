"""Figures of the depth study: the drawn values, and the statement of what is left out."""

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from figures.reading import BAND, CAPTION, LONG_CAPTION, bands, check_layout, texts, x_of, y_of
from research.figures import depth
from research.figures.style import ACTIVATIONS, over_seeds

DECAY = {"relu": 0.0, "tanh": 0.03, "sigmoid": 1.6, "lecun": -0.02}
STATISTICS = ("kernel_abs_max", "signal_abs_max", "layer_signed_mean", "layer_abs_last")


def make_record(label: str, seeds: int = 5, epochs: int = 4) -> dict[str, np.ndarray]:
    """Epochs 0..epochs; each statistic falls towards the first layer at the activation's rate."""
    activation, depth = label.split("-")
    layers = [*(f"hidden_{i:02d}" for i in range(int(depth))), "output"]
    rng = np.random.default_rng([seeds, *label.encode()])
    fall = DECAY[activation] * (len(layers) - np.arange(1, len(layers) + 1))
    noise = rng.normal(0, 0.4, (len(STATISTICS), epochs + 1, seeds, len(layers)))
    values = 0.3 * np.exp(noise - fall).astype(np.float32)
    record = dict(zip(STATISTICS, values, strict=True))
    return {"epochs": np.arange(epochs + 1, dtype=np.int32), "layers": np.array(layers), **record}


RELU = make_record("relu-5")


def records_of(*labels: str, seeds: int = 5) -> dict[str, dict[str, np.ndarray]]:
    return {label: make_record(label, seeds) for label in labels}


def draw_maxima(records: Mapping[str, Any], **changes: Any) -> Figure:
    return depth.draw_gradient_maxima(records, **{"title": "t", "caption": CAPTION, **changes})


@cache
def draw_one(name: str, seeds: int) -> Figure:
    """The figure of one function, by name, over the same activations."""
    labels = ("tanh-5", "lecun-5", "tanh-20", "lecun-20")
    frame: dict[str, Any] = {"title": "t", "caption": CAPTION}
    match name:
        case "maxima":
            return depth.draw_gradient_maxima(records_of(*labels[:2], seeds=seeds), **frame)
        case "comparison":
            return depth.draw_gradient_comparison(records_of(*labels, seeds=seeds), **frame)
        case _:
            record = make_record("tanh-5", seeds)
            return depth.draw_net_gradients(record, label="tanh-5", caption=CAPTION)


def test_a_curve_for_each_activation_and_epoch_is_the_median_in_layer_order() -> None:
    records = records_of("relu-20", "tanh-20", "sigmoid-20")
    for axis in draw_maxima(records, epochs=(0, 1, 2, 3)).axes:
        assert len(axis.lines) == 12
        for line, (label, epoch) in zip(
            axis.lines, itertools.product(records, range(4)), strict=True
        ):
            assert line.get_label() == label
            assert x_of(line).tolist() == list(range(1, 22))
            wanted = np.median(records[label]["kernel_abs_max"][epoch], axis=0)
            np.testing.assert_allclose(y_of(line), wanted, rtol=1e-6)


def test_prediction_and_measurement_lie_over_each_other_with_their_ratio_below() -> None:
    layers, rng = 6, np.random.default_rng(0)
    names = [f"{family}_{kind}" for family in ("kernel", "signal") for kind in ("rms", "abs")]
    median = {name: 0.1 * np.exp(rng.normal(0, 1, layers)) for name in names}
    theory = {f"{name}_median": values for name, values in median.items()}
    theory |= {f"{family}_rms_sd": np.full(layers, 0.2) for family in ("kernel", "signal")}
    theory |= {f"{family}_rms_mean": np.full(layers, 9.0) for family in ("kernel", "signal")}
    theory["signal_rms_median"] = np.full(layers, np.nan)  # its mean takes its place
    record = {"epochs": RELU["epochs"][:2], "layers": RELU["layers"]}
    record |= {
        f"{name}_batch": np.stack([np.stack([2 * values] * 3), np.full((3, layers), 7.0)])
        for name, values in median.items()
    }
    figure = depth.draw_theory(record, theory, label="relu-5", caption=CAPTION)
    above, signal, ratio, other = figure.axes
    drawn = [y_of(line) for line in above.lines]
    for values in (median["kernel_rms"], 2 * median["kernel_rms"], median["kernel_abs"]):
        assert any(np.allclose(line, values) for line in drawn)
    assert any(np.allclose(y_of(line), 9.0) for line in signal.lines)
    np.testing.assert_allclose(y_of(ratio.lines[0]), 2.0)
    np.testing.assert_allclose(y_of(other.lines[0]), 2 * median["signal_rms"] / 9)
    rings = [line for line in ratio.lines if line.get_fillstyle() == "none"]
    np.testing.assert_allclose(y_of(rings[0]), 2.0)  # a factor of two off, an sd of 0.2
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "theory fails" in labels
    check_layout(figure)
    with pytest.raises(ValueError, match="expected epoch 0"):
        late = {**record, "epochs": np.array([1, 2])}
        _ = depth.draw_theory(late, theory, label="relu-5", caption=CAPTION)


def test_band_runs_from_minimum_to_maximum_and_needs_two_seeds() -> None:
    records = records_of("tanh-5", seeds=5)
    values = records["tanh-5"]["kernel_abs_max"][2].astype(float)
    for axis in draw_maxima(records, epochs=(2,)).axes:
        (band,) = bands(axis)
        corners = np.asarray(band.get_paths()[0].vertices)
        heights = [corners[corners[:, 0] == x, 1] for x in range(1, 7)]
        np.testing.assert_allclose([h.min() for h in heights], values.min(0), rtol=1e-6)
        np.testing.assert_allclose([h.max() for h in heights], values.max(0), rtol=1e-6)

    for name, count in (("maxima", 2), ("comparison", 4), ("net", 2)):
        axes = [axis for axis in draw_one(name, 1).axes if axis.lines]
        assert [len(bands(axis)) for axis in axes] == [0] * count, name
        assert all(bands(axis) for axis in draw_one(name, 5).axes if axis.lines), name


def test_log_axis_holds_1e_minus_30_between_few_decade_ticks() -> None:
    records = records_of("relu-40", "sigmoid-40")
    records["sigmoid-40"]["kernel_abs_max"][..., 0] = 1e-30
    linear, log = draw_maxima(records).axes
    assert (linear.get_yscale(), log.get_yscale()) == ("linear", "log")
    low, high = log.get_ylim()
    assert 1e-31 < low < 1e-30
    assert records["relu-40"]["kernel_abs_max"][:4].max() < high < 100
    shown = [tick for tick in log.get_yticks() if low <= tick <= high]
    assert 4 <= len(shown) <= 12
    np.testing.assert_allclose(np.log10(shown) % 1, 0, atol=1e-9)
    assert linear.get_ylim()[0] == 0


@pytest.mark.parametrize(("hidden", "wanted"), [(5, [1, 2, 3, 4, 5, 6]), (40, [1, 10, 20, 30, 41])])
def test_depth_ticks_are_integers_that_end_at_the_output(hidden: int, wanted: list[int]) -> None:
    for axis in draw_maxima(records_of(f"relu-{hidden}")).axes:
        assert axis.get_xticks().tolist() == wanted
        assert axis.get_xlabel() == f"layer depth ({hidden + 1} = output)"


def test_epochs_that_the_record_lacks_are_dropped_and_init_alone_is_dotted() -> None:
    figure = draw_maxima(records_of("tanh-5"), epochs=(0, 2, 99))
    assert [line.is_dashed() for line in figure.axes[0].lines] == [True, False]
    shades = [to_hex(line.get_color()) for line in draw_maxima(records_of("tanh-5")).axes[0].lines]
    assert shades == ["#0072b2", "#80b8d8", "#4095c5", "#0072b2"]
    legends = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert legends == [["tanh"], ["init", "epoch 2"]]


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("name", ["maxima", "comparison", "net"])
def test_every_figure_says_its_data_and_its_seeds(name: str, seeds: int) -> None:
    said = texts(draw_one(name, seeds))
    assert said.endswith(f"Data: {CAPTION}")
    assert (BAND if seeds == 5 else " 1 seed. Data") in said
    assert ("band" in said) == (seeds == 5)


def test_unequal_seeds_are_said_net_by_net() -> None:
    records = {"tanh-5": make_record("tanh-5", 1), "relu-5": make_record("relu-5", 5)}
    assert "tanh-5: 1 seed. relu-5: 5 seeds: median" in texts(draw_maxima(records))


def test_activation_keeps_colour_and_marker_in_all_figures_and_none_share_one() -> None:
    for name, column in zip(("colour", "marker"), (1, 2), strict=True):
        assert len({style[column] for style in ACTIVATIONS.values()}) == 4, name
    wanted = {key: style[1:] for key, style in ACTIVATIONS.items()}
    for name in ("maxima", "comparison"):
        figure = draw_one(name, 5)
        for line in figure.axes[0].lines[-3:]:
            activation = str(line.get_label()).split("-")[0]
            assert line.get_marker() == wanted[activation][1], name
        last = figure.axes[0].lines[-1]
        assert to_hex(last.get_color()).upper() == wanted["lecun"][0], name
        legend = {h.get_label(): to_hex(h.get_color()) for h in figure.legends[0].get_lines()}
        assert legend == {"tanh": "#0072b2", "LeCun": "#b0569a"}, name


def test_nets_of_unequal_length_and_many_epochs_keep_their_curves_and_a_short_legend() -> None:
    long, short = make_record("tanh-5", epochs=10), make_record("relu-5", epochs=4)
    short = {name: v if name == "layers" else v[1:] for name, v in short.items()}
    figure = draw_maxima({"tanh-5": long, "relu-5": short}, epochs=range(20))
    assert [line.get_label() for line in figure.axes[0].lines] == ["tanh-5"] * 11 + ["relu-5"] * 4
    wanted = np.median(short["kernel_abs_max"], axis=1)
    drawn = [y_of(line) for line in figure.axes[0].lines[-4:]]
    np.testing.assert_allclose(drawn, wanted, rtol=1e-6)
    legend = [text.get_text() for text in figure.legends[1].get_texts()]
    assert legend == ["init", "epoch 1", "epoch 5", "epoch 10"]


def test_deep_nets_carry_few_markers_at_other_layers_for_each_activation() -> None:
    log = draw_maxima(records_of("relu-40", "tanh-40", "sigmoid-40", "lecun-40"), epochs=(1,)).axes[
        1
    ]
    starts = [line.get_markevery() for line in log.lines]
    assert starts == [(0, 6), (1, 6), (3, 6), (4, 6)]


def test_zeros_leave_a_gap_on_the_log_axis_only_and_are_said() -> None:
    records = records_of("relu-5", "tanh-5")
    records["relu-5"]["kernel_abs_max"][1, :, :2] = 0
    records["relu-5"]["kernel_abs_max"][2, 0, 4] = 0
    figure = draw_maxima(records, epochs=(1, 2))
    linear, log = (y_of(axis.lines[0]) for axis in figure.axes)
    assert linear[:2].tolist() == [0, 0]
    assert np.isnan(log).tolist() == [True, True, False, False, False, False]
    assert not np.isnan(y_of(figure.axes[1].lines[1])).any()
    assert "Not drawn: 2 medians at zero or below, on the log axis (relu-5)." in texts(figure)
    assert figure.axes[1].get_ylim()[0] > 1e-4


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    records = records_of("tanh-5", "relu-5")
    values = records["tanh-5"]["kernel_abs_max"]
    values[1, 0, 2], values[1, :, 3], values[4] = np.nan, np.inf, np.nan
    figure = draw_maxima(records, epochs=(1,))
    y = y_of(figure.axes[0].lines[0])
    assert y[2] == np.median(values[1, 1:, 2].astype(float))
    assert np.isnan(y).tolist() == [False, False, False, True, False, False]
    assert "Not drawn: 6 values that are not finite (tanh-5)." in texts(figure)


def test_a_dead_net_still_gives_a_figure_that_says_so() -> None:
    record = make_record("relu-5", 1, epochs=1)
    for statistic in ("kernel_abs_max", "signal_abs_max"):
        record[statistic] = np.zeros_like(record[statistic])
    figure = depth.draw_net_gradients(record, label="relu-5", caption=CAPTION)
    FigureCanvasAgg(figure).draw()
    assert "Not drawn: 24 medians at zero or below, on the log axis (relu-5)." in texts(figure)


@pytest.mark.parametrize(
    ("statistic", "label"),
    [
        ("kernel_abs_max", "max |∂L/∂W| in the layer,\nlargest of the epoch's batches"),
        ("signal_abs_max", "max |∂L/∂z| in the layer,\nlargest of the epoch's batches"),
        ("layer_signed_mean", "max signed ∂L/∂(W, b) in the layer,\nmean over the epoch's batches"),
        ("layer_abs_last", "max |∂L/∂(W, b)| in the layer,\nlast batch of the epoch"),
    ],
)
def test_axis_names_the_statistic_that_is_drawn(statistic: str, label: str) -> None:
    records = records_of("tanh-5")
    axis = draw_maxima(records, statistic=statistic, epochs=(3,)).axes[0]
    assert axis.get_ylabel() == label
    wanted = np.median(records["tanh-5"][statistic][3], axis=0)
    np.testing.assert_allclose(y_of(axis.lines[0]), wanted, rtol=1e-6)


def test_comparison_has_a_column_a_depth_and_one_scale_a_row() -> None:
    records = records_of("lecun-40", "tanh-40", "lecun-5", "tanh-5", "lecun-20", "tanh-20")
    figure = depth.draw_gradient_comparison(records, title="t", caption=CAPTION)
    axes = figure.axes
    assert [a.get_title() for a in axes[:3]] == [f"{d} hidden layers" for d in (5, 20, 40)]
    assert [a.get_yscale() for a in axes] == ["linear"] * 3 + ["log"] * 3
    assert len({a.get_ylim() for a in axes[:3]}) == len({a.get_ylim() for a in axes[3:]}) == 1
    top = max(r["kernel_abs_max"][:4].max() for r in records.values())
    assert axes[0].get_ylim()[1] > top
    assert [len(x_of(a.lines[0])) for a in axes] == [6, 21, 41] * 2
    wanted = np.median(records["tanh-20"]["kernel_abs_max"][3], axis=0)
    np.testing.assert_allclose(y_of(axes[4].lines[-1]), wanted, rtol=1e-6)


def test_a_spread_is_drawn_as_the_values_of_its_seeds() -> None:
    records = records_of("relu-5", "tanh-5")
    spreads = {
        net: {**record, "kernel_abs_max": over_seeds(record["kernel_abs_max"], axis=1)}
        for net, record in records.items()
    }
    for one, other in zip(draw_maxima(records).axes, draw_maxima(spreads).axes, strict=True):
        for first, second in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(y_of(first), y_of(second))
        assert one.get_ylim() == other.get_ylim() and len(bands(one)) == len(bands(other)) == 8


def test_accuracies_are_a_dot_a_seed_with_the_median_and_the_report_beside() -> None:
    values = {"tanh-5": [0.95, 0.91, 0.96], "relu-40": [0.11]}
    figure = depth.draw_accuracies(values, {"tanh-5": 96.1}, title="t", caption=CAPTION)
    check_layout(figure)
    for axis in figure.axes:
        seeds, median, report, other, alone = axis.lines
        np.testing.assert_allclose(x_of(seeds), [95, 91, 96])
        assert [x_of(line).tolist() for line in (report, other)] == [[96.1], [11]]
        np.testing.assert_allclose([x_of(median)[0], x_of(alone)[0]], [95, 11])
    whole, near = figure.axes
    assert [label.get_text() for label in whole.get_yticklabels()] == ["tanh-5", "ReLU-40"]
    assert near.get_xlim() == (90, 98) and whole.get_ylim()[0] > whole.get_ylim()[1]
    (margin,) = near.child_axes
    assert [label.get_text() for label in margin.get_yticklabels()] == ["95.0", "11.0"]
    with pytest.raises(ValueError, match="at least one net"):
        _ = depth.draw_accuracies({}, {}, title="t", caption=CAPTION)


def test_net_gradients_show_every_epoch_of_weights_beside_signal() -> None:
    record = make_record("sigmoid-20", epochs=10)
    record["signal_abs_max"] *= 1e-6
    figure = depth.draw_net_gradients(record, label="sigmoid-20", caption=CAPTION)
    weights, signal, bar = figure.axes
    for axis, statistic in ((weights, "kernel_abs_max"), (signal, "signal_abs_max")):
        assert axis.get_yscale() == "log"
        drawn = np.array([y_of(line) for line in axis.lines])
        np.testing.assert_allclose(drawn, np.median(record[statistic], axis=1), rtol=1e-6)
        assert [line.get_linestyle() for line in axis.lines] == [":", *["-"] * 10]
        assert x_of(axis.lines[3]).tolist() == list(range(1, 22))
        assert axis.get_ylim()[0] < drawn.min() < drawn.max() < axis.get_ylim()[1]
        assert len({line.get_color() for line in axis.lines}) == 11
        assert len(bands(axis)) == 2
    assert weights.get_ylim() == signal.get_ylim()
    assert [tick.get_text() for tick in bar.get_yticklabels()] == [str(e) for e in range(1, 11)]
    assert texts(figure).startswith("sigmoid, 20 hidden layers")


@pytest.mark.parametrize("case", ["maxima", "comparison", "net", "long"])
def test_no_text_leaves_the_page_or_touches_axes_or_other_text(case: str) -> None:
    if case == "long":
        records = records_of("relu-40", "tanh-40", "sigmoid-40", "lecun-40")
        records["relu-40"]["kernel_abs_max"][2] = 0
        figure = draw_maxima(records, title="long title " * 12, caption=LONG_CAPTION)
    else:
        figure = draw_one(case, 5)
    check_layout(figure)


def test_drawing_changes_no_setting_and_no_input() -> None:
    records = records_of("relu-5")
    records["relu-5"]["kernel_abs_max"][0, 0, 0] = np.nan
    copy = {name: values.copy() for name, values in records["relu-5"].items()}
    with matplotlib.rc_context({"font.size": 11.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        _ = draw_maxima(records)
        assert dict(matplotlib.rcParams) == before
    for name, values in copy.items():
        np.testing.assert_array_equal(records["relu-5"][name], values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"records": {}}, "expected at least one net"),
        ({"records": records_of("relu-5", "relu-20")}, r"one depth, got \[5, 20\]"),
        ({"records": {"relu-5": RELU, "relu-6": RELU}}, "one net for each activation"),
        ({"records": {"swish-5": RELU}}, "relu,tanh,sigmoid,lecun}-DEPTH, got 'swish-5'"),
        ({"statistic": "kernel_max"}, "that relu-5 holds .*kernel_abs_max.* got 'kernel_max'"),
        ({"epochs": (77,)}, r"got epochs=\[77\]"),
        ({"caption": " "}, "expected a caption"),
        (
            {"records": {"relu-5": {**RELU, "kernel_abs_max": np.ones((5, 6))}}},
            r"\[5 epochs, seeds, 6 layers\], got \[5, 6\]",
        ),
        (
            {"records": {"relu-5": {**RELU, "layers": RELU["layers"][::-1]}}},
            "output as last layer, got hidden_00",
        ),
    ],
)
def test_bad_gradients_are_refused_with_what_was_expected(
    changes: dict[str, Any], message: str
) -> None:
    arguments = {"records": records_of("relu-5"), **changes}
    with pytest.raises(ValueError, match=message):
        _ = draw_maxima(arguments.pop("records"), **arguments)
