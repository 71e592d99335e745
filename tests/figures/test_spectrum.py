import numpy as np
import pytest
from matplotlib.patches import Rectangle

from figures.reading import CAPTION, check_layout, texts, y_of
from research.figures.spectrum import draw_jacobian, draw_sharpness


def record(depth, units=32, spread=3.0):
    x = np.arange(1, depth)
    values = 0.8 ** (x * np.arange(1, units + 1)[:, None])
    values[units // 2 :] = 0  # of a ReLU
    flat = np.ones((4, depth - 1))
    return {
        "depth": x,
        "singular_values": np.ones((4, 3, units)),
        "ranked": values,
        "mean": 0.9 * flat**2,
        "spread": spread * flat * x,
        "layer_mean": flat,
        "layer_spread": spread * flat,
        "predicted_mean": 0.5**x,
        "predicted_layer_mean": 0.5 * flat[0],
        "predicted_spread": spread * x,
        "predicted_finite_spread": np.minimum(spread * x, units - 1.0),
        "predicted_layer_spread": spread * flat[0],
    }


@pytest.mark.parametrize(("label", "units"), [("relu-40", 32), ("tanh-2", 32), ("lecun-5", 4)])
def test_singular_values_are_drawn_with_prediction_and_ceiling(label, units):
    given = record(int(label.split("-")[1]), units)
    figure = draw_jacobian(given, label=label, caption=CAPTION)
    check_layout(figure)
    values, spreads = figure.axes[:2]
    drawn = [y_of(line) for line in values.lines]
    np.testing.assert_allclose(drawn[0], given["ranked"][0])
    assert any(np.array_equal(y, np.sqrt(given["predicted_mean"])) for y in drawn)
    heights = [y_of(line) for line in spreads.lines]
    assert any(np.array_equal(y, [units - 1, units - 1]) for y in heights)
    for name in ("predicted_spread", "predicted_finite_spread"):
        assert any(np.array_equal(y, given[name]) for y in heights), name
    (ranks,) = spreads.child_axes
    assert len(ranks.get_yticks()) > 1
    for tick, text in zip(ranks.get_yticks(), ranks.get_yticklabels(), strict=True):
        assert units / (1 + tick) == pytest.approx(float(text.get_text()))
    assert "4 nets, 3 images" in texts(figure)


def test_sharpness_is_drawn_against_two_over_the_learning_rate():
    rng = np.random.default_rng(0)
    words = {"full_batch": "full batch", "batch_64": "SGD, batches of 64"}
    given = {}
    for name, count in (("full_batch", 120), ("batch_64", 38)):
        given[f"{name}_steps"] = np.linspace(10, 1200, count)
        given[f"{name}_sharpness"] = 40 * rng.random((count, 2))
        given[f"{name}_train_loss"] = rng.random((count, 2))
    figure = draw_sharpness(words, given, edge=40.0, label="relu-5", caption=CAPTION)
    check_layout(figure)
    above, below = figure.axes
    assert any(np.array_equal(y_of(line), [40, 40]) for line in above.lines)
    band = next(p for p in above.patches if isinstance(p, Rectangle))
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((32, 52))
    np.testing.assert_allclose(y_of(above.lines[1]), given["full_batch_sharpness"].mean(axis=1))
    assert above.get_ylim()[0] == 0 and below.get_yscale() == "log"
    assert "2 seeds: median" in texts(figure)
    given["batch_64_sharpness"][5, 0] = 500.0
    spiky = draw_sharpness(words, given, edge=40.0, label="relu-5", caption=CAPTION)
    check_layout(spiky)
    assert spiky.axes[0].get_yscale() == "log" and spiky.axes[0].get_ylim()[1] > 500
