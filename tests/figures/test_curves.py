"""Learning curves: the drawn values, bands, scales and marks of early stopping."""

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from figures.reading import BAND, CAPTION, bands, check_layout, texts, x_of, y_of
from research.figures import curves
from research.figures.style import ACTIVATIONS, Spread

FRAME: dict[str, Any] = {"title": "t", "caption": CAPTION}
EPOCHS = np.arange(1, 7)


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


def make_stopped(stops: tuple[int, ...]) -> list[dict[str, Any]]:
    """Validation losses that fall until two epochs before a seed's last, None after it."""
    rows = []
    for epoch in EPOCHS:
        row: dict[str, Any] = {"epoch": int(epoch)}
        for key, sign in (("train_loss", -1), ("val_loss", 0), ("train_accuracy", 0.1)):
            row[key] = [0.7 + 0.1 * sign * epoch + 0.01 * k for k in range(len(stops))]
        row["val_loss"] = [0.2 + 0.1 * abs(stop - 2 - epoch) for stop in stops]
        row["train_accuracy"] = row["val_accuracy"] = [0.6 + 0.05 * epoch for _ in stops]
        for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            row[key] = [v if epoch <= s else None for v, s in zip(row[key], stops, strict=True)]
        rows.append(row)
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


def test_middle_and_range_that_were_kept_are_drawn_as_they_are() -> None:
    def kept(middle: float) -> Spread:
        values = np.linspace(middle + 0.1, middle, 4)
        return Spread(values, values - 0.05, values + 0.05, 7, np.zeros(4, int), "mean")

    ends = {"train_loss": 0.4, "test_loss": 0.5, "train_accuracy": 0.9, "test_accuracy": 0.8}
    columns = {"epoch": np.arange(1, 5), **{key: kept(end) for key, end in ends.items()}}
    figure = curves.draw_learning_curves({"tanh-5": columns, "lecun-20": columns}, **FRAME)
    accuracy, loss = figure.axes[0], figure.axes[2]
    train, test = accuracy.get_lines()
    np.testing.assert_allclose(y_of(train)[-1], 90)
    np.testing.assert_allclose(y_of(test), [90, 86.6667, 83.3333, 80], atol=1e-3)
    _, band = bands(accuracy)
    np.testing.assert_allclose(band.get_datalim(accuracy.transData).intervaly, [75, 95])
    assert loss.get_yscale() == "log"
    assert "final test %: tanh 80.00" in accuracy.get_title()
    assert "7 seeds: mean and min-max band." in texts(figure)


def test_stops_and_best_epochs_are_marked_at_each_seeds_own() -> None:
    figure = curves.draw_curves_with_stop(make_stopped((6, 4)), **FRAME)
    _, loss = figure.axes
    lines = {line.get_marker(): line for line in loss.lines}
    assert x_of(lines["o"]).tolist() == [4, 2]
    np.testing.assert_allclose(y_of(lines["o"]), [0.2, 0.2])
    assert x_of(lines["x"]).tolist() == [6, 4]
    np.testing.assert_allclose(y_of(lines["x"]), [0.4, 0.4])
    mean = [
        line for line in loss.lines if line.get_linewidth() > 1.5 and line.get_linestyle() == "-"
    ]
    assert np.isfinite(y_of(mean[0])).tolist() == [True] * 4 + [False] * 2
    np.testing.assert_allclose(y_of(mean[0])[:4], [0.4, 0.3, 0.3, 0.3])
    assert "Best validation loss after epochs 4, 2, last epochs 6, 4, by seed." in texts(figure)


def test_one_seed_may_give_plain_numbers_and_accuracies_are_in_percent() -> None:
    rows = [{k: v[0] if k != "epoch" else v for k, v in r.items()} for r in make_stopped((6,))]
    figure = curves.draw_curves_with_stop(rows, **FRAME)
    accuracy, _ = figure.axes
    train, test = accuracy.lines[:2]
    for line in (train, test):
        np.testing.assert_allclose(y_of(line), 60 + 5 * EPOCHS)
    assert train.get_linestyle() != test.get_linestyle()
    assert "1 seed. Best validation loss after epoch 4, last epoch 6." in texts(figure)


def test_the_first_of_equal_losses_is_the_best() -> None:
    rows = make_stopped((6,))
    rows[1]["val_loss"] = rows[3]["val_loss"]
    assert "after epoch 2" in texts(curves.draw_curves_with_stop(rows, **FRAME))


def test_the_log_of_the_report_is_drawn_beside_in_grey() -> None:
    rows = make_stopped((6, 4))
    reported = [{**row, "train_accuracy": [0.5]} for row in make_stopped((6,))[:3]]
    figure = curves.draw_curves_with_stop(rows, reported=reported, **FRAME)
    grey = [line for line in figure.axes[0].lines if line.get_color() == "0.55"]
    for line, split in zip(grey, ("train", "val"), strict=True):
        wanted = [100 * row[f"{split}_accuracy"][0] for row in reported]
        np.testing.assert_allclose(y_of(line).ravel(), wanted)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["train", "val", "the report"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "at least one row of net"), ([{"epoch": 1}], "rows of net with epoch, train_acc")],
)
def test_rows_of_one_net_that_cannot_be_drawn_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = curves.draw_net_curves(rows, label="net", title="t", caption=CAPTION)


def test_no_text_leaves_the_page_or_touches_axes_or_other_text() -> None:
    check_layout(draw_two_by_two(5))
    check_layout(curves.draw_net_curves(make_rows(5), label="net", title="t", caption=CAPTION))
    check_layout(curves.draw_curves_with_stop(make_stopped((1,))[:1], **FRAME))
    rows, reported = make_stopped((6, 5, 4)), make_stopped((6,))
    check_layout(curves.draw_curves_with_stop(rows, reported=reported, **FRAME))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "at least one net"),
        ({"tanh-5": []}, "at least one row of tanh-5"),
        ({"tanh": make_rows()}, "-DEPTH, got 'tanh'"),
        ({"tanh-5": [{"epoch": 1, "train_accuracy": 0.5}]}, "rows of tanh-5 with epoch, train_acc"),
        ({"tanh-5": {"epoch": [1], "train_accuracy": [[0.5]]}}, "test_accuracy, test_loss, train_"),
        ({"tanh-5": make_rows(5) + make_rows(2)}, "the same seeds in every row"),
    ],
)
def test_bad_metrics_are_refused_with_what_was_expected(metrics: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = curves.draw_learning_curves(metrics, title="t", caption=CAPTION)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([make_stopped((6,))[0], make_stopped((6, 6))[1]], "over the same seeds"),
        (make_stopped((6, 0)), "a validation loss of every"),
    ],
)
def test_a_seed_without_a_validation_loss_or_unequal_seeds_are_refused(
    rows: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _ = curves.draw_curves_with_stop(rows, **FRAME)
