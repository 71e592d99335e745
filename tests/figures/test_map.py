import numpy as np

from research.figures.map import draw_map


def arrays(axis="sigma_w"):
    """Accuracy 0.9 where depth < 6 xi; of one cell a seed is lost."""
    values, depths = np.geomspace(0.5, 2, 5), np.array([2, 4, 6, 8])
    chi = values**2 if axis == "sigma_w" else np.full(5, 0.5)
    with np.errstate(divide="ignore"):
        xi = 1 / np.abs(np.log(chi))
    accuracy = np.where(depths[:, None] < 6 * xi, 0.9, 0.1)[..., None] * np.ones(3)
    accuracy[3, 4, 0] = np.nan
    names = {"activation": np.array("tanh"), "axis": np.array(axis)}
    rates = {"sigma_w": values, "learning_rate": np.full(5, 0.05)}
    axes = {"depths": depths, "values": values, "xi": xi, "chi": chi, "test_accuracy": accuracy}
    return {**names, **rates, **axes}


def test_the_contour_of_theory_is_where_depth_is_six_depth_scales():
    figure = draw_map(arrays(), caption="digits", limit=6.0, trained=0.5)
    left, right, _ = figure.axes
    sigma, reach = left.lines[0].get_data()
    assert np.allclose(reach[[0, -1]], 6 / np.log(4))
    at = np.argmin(np.abs(sigma - np.sqrt(0.5)))
    assert np.isclose(reach[at], 6 / np.log(2), rtol=0.01)
    assert right.get_xscale() == "log" and right.lines[1].get_xdata()[0] == 6


def test_the_figure_says_the_rate_the_seeds_and_where_a_loss_is_lost():
    figure = draw_map(arrays(), caption="digits", limit=6.0, trained=0.5)
    words = " ".join(text.get_text() for text in figure.texts)
    assert "tanh: which depths train, at learning rate 0.05" in words
    assert "Mean of 3 seeds" in words and "Data: digits" in words
    crosses = figure.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(crosses, [[2.0, 8.0]])
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert labels == [
        "measured: accuracy 0.5", "theory: depth = 6 depth scales", "loss not finite",
    ]  # fmt: skip


def test_over_the_learning_rate_theory_is_a_level_and_a_map_of_one_colour_has_no_contour():
    of = arrays("learning_rate")
    figure = draw_map(
        of | {"test_accuracy": np.full((4, 5, 1), 0.1)}, caption="digits", limit=6.0, trained=0.5
    )
    assert np.allclose(figure.axes[0].lines[0].get_ydata(), 6 / np.log(2))
    assert len(figure.axes[0].collections) == 2  # the cells, and no cross
    assert len(figure.legends[0].texts) == 2
