"""Do the learning curves draw the numbers they were given, at an honest scale?"""

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from figures.reading import BAND, CAPTION, bands, check_layout, texts, x_of, y_of
from research.figures import curves
from research.figures.style import ACTIVATIONS


def make_rows(seeds: int | None = 5, epochs: int = 3) -> list[dict[str, Any]]:
    """Rows with lists over seeds, or with floats when seeds is None."""
    rng = np.random.default_rng(epochs)
    rows = []
    for epoch in range(1, epochs + 1):
        values = rng.uniform(0.5, 0.9, (4, seeds or 1)).tolist()
        keys = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        numbers = dict(zip(keys, values if seeds else [v[0] for v in values], strict=True))
        rows.append({"epoch": epoch, "seconds": 1.0, **numbers})
    return rows


def draw_two_by_two(seeds: int) -> Figure:
    """Learning curves of two activations at two depths."""
    nets = ("tanh-5", "lecun-5", "tanh-20", "lecun-20")
    return curves.draw_learning_curves(
        {net: make_rows(seeds) for net in nets}, title="t", caption=CAPTION
    )


def test_learning_curves_draw_percent_and_nats_train_dashed_test_solid() -> None:
    metrics = {"lecun-5": make_rows(), "tanh-20": make_rows(epochs=6)}
    figure = curves.draw_learning_curves(metrics, title="t", caption=CAPTION)
    assert [a.get_ylabel() for a in figure.axes[::2]] == ["accuracy (%)", "cross-entropy (nats)"]
    assert [a.get_yscale() for a in figure.axes] == ["linear", "linear", "log", "log"]
    for axis, (label, quantity, factor) in zip(
        figure.axes,
        [(n, q, f) for q, f in (("accuracy", 100), ("loss", 1)) for n in ("lecun-5", "tanh-20")],
        strict=True,
    ):
        train, test = axis.lines
        assert (train.is_dashed(), test.is_dashed()) == (True, False)
        for line, split in ((train, "train"), (test, "test")):
            values = [row[f"{split}_{quantity}"] for row in metrics[label]]
            np.testing.assert_allclose(y_of(line), factor * np.median(values, axis=1))
            assert x_of(line).tolist() == [row["epoch"] for row in metrics[label]]
    final = 100 * np.median(metrics["tanh-20"][-1]["test_accuracy"])
    assert figure.axes[1].get_title() == f"20 hidden layers\nfinal test %: tanh {final:.2f}"


def test_a_run_of_one_epoch_has_one_tick() -> None:
    figure = curves.draw_learning_curves({"tanh-5": make_rows(1, 1)}, title="t", caption=CAPTION)
    for axis in figure.axes:
        low, high = axis.get_xlim()
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1]


def test_one_net_with_one_seed_gets_accuracy_beside_loss_at_an_honest_scale() -> None:
    rows = [{**row, "test_accuracy": 0.1135, "train_accuracy": 0.1124} for row in make_rows(None)]
    figure = curves.draw_learning_curves({"sigmoid-40": rows}, title="t", caption=CAPTION)
    accuracy, loss = figure.axes
    assert accuracy.get_position().y0 == loss.get_position().y0
    low, high = accuracy.get_ylim()
    assert low >= 0
    assert 10 <= high - low < 11
    assert y_of(accuracy.lines[1]).tolist() == pytest.approx([11.35] * 3)
    assert accuracy.get_title().endswith("final test %: sigmoid 11.35")
    rows = [{**row, "test_accuracy": 0.0, "train_accuracy": 0.01} for row in rows]
    figure = curves.draw_learning_curves({"sigmoid-40": rows}, title="t", caption=CAPTION)
    assert figure.axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_figure_says_its_data_and_its_seeds_and_has_a_band_for_several(seeds: int) -> None:
    figure = draw_two_by_two(seeds)
    said = texts(figure)
    assert said.endswith(f"Data: {CAPTION}")
    assert (BAND if seeds == 5 else " 1 seed. Data") in said
    assert ("band" in said) == (seeds == 5)
    assert [len(bands(axis)) for axis in figure.axes] == [4 if seeds == 5 else 0] * 4


def test_activation_keeps_the_colour_and_marker_it_has_in_all_figures() -> None:
    figure = draw_two_by_two(5)
    for line in figure.axes[0].lines:
        _, colour, marker = ACTIVATIONS[str(line.get_label()).split("-")[0]]
        assert (to_hex(line.get_color()).upper(), line.get_marker()) == (colour, marker)
    legend = {h.get_label(): to_hex(h.get_color()) for h in figure.legends[0].get_lines()}
    assert legend == {"tanh": "#0072b2", "LeCun": "#b0569a"}


@pytest.mark.parametrize("seeds", [None, 5])
def test_the_curves_of_one_net_are_accuracy_beside_loss(seeds: int | None) -> None:
    rows = make_rows(seeds)
    figure = curves.draw_net_curves(rows, label="net", title="t", caption=CAPTION)
    for axis, quantity, factor in zip(figure.axes, ("accuracy", "loss"), (100, 1), strict=True):
        finals = []
        for line, split in zip(axis.lines, ("train", "test"), strict=True):
            values = [np.median(row[f"{split}_{quantity}"]) for row in rows]
            np.testing.assert_allclose(y_of(line), factor * np.array(values))
            assert (x_of(line).tolist(), line.is_dashed()) == ([1, 2, 3], split == "train")
            finals.append(f"{split} {factor * values[-1]:.4g}")
        assert axis.get_title() == f"after the last epoch: {', '.join(finals)}"
        assert len(bands(axis)) == (2 if seeds else 0)
    assert [axis.get_ylabel() for axis in figure.axes] == ["accuracy (%)", "cross-entropy (nats)"]
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "log"]
    assert [line.get_label() for line in figure.legends[0].get_lines()] == ["train", "test"]
    assert texts(figure).endswith(f"Data: {CAPTION}")


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "at least one row of net"), ([{"epoch": 1}], "rows of net with epoch and train_acc")],
)
def test_rows_of_one_net_that_cannot_be_drawn_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = curves.draw_net_curves(rows, label="net", title="t", caption=CAPTION)


def test_no_text_leaves_the_page_or_touches_axes_or_other_text() -> None:
    check_layout(draw_two_by_two(5))
    check_layout(curves.draw_net_curves(make_rows(5), label="net", title="t", caption=CAPTION))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "at least one net and one row"),
        ({"tanh-5": []}, "at least one net and one row"),
        ({"tanh": make_rows()}, "-DEPTH, got 'tanh'"),
        ({"tanh-5": [{"epoch": 1, "train_accuracy": 0.5}]}, "tanh-5 with epoch and test_accuracy"),
        ({"tanh-5": make_rows(5) + make_rows(2)}, "the same seeds in every row"),
    ],
)
def test_bad_metrics_are_refused_with_what_was_expected(metrics: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = curves.draw_learning_curves(metrics, title="t", caption=CAPTION)
