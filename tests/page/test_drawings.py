"""Figures of the report redrawn: their data, their SVG and their alternative texts."""

import base64
import re

import pytest

from page import made
from research.page import drawings


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (0.05312, "0.053"), (-0.5, "-0.5"), (8.23e-7, "8.2·10⁻⁷"), (250.4, "250"),
     (3e5, "3.0·10⁵")],
)  # fmt: skip
def test_numbers_are_written_as_one_reads_them(value, expected):
    assert drawings.power(value) == expected


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return made.depth(tmp_path_factory.mktemp("depth"))


def test_a_figure_is_an_svg_without_addresses_and_the_same_each_time(study):
    figures = [drawings.learning_curves(study) for _ in range(2)]
    first, second = (base64.b64decode(f["source"].partition(",")[2]).decode() for f in figures)
    assert first == second and figures[0]["source"].startswith("data:image/svg+xml;base64,")
    outside = re.findall(r"(?:href|src)=\"(?!#)(?!data:)([^\"]*)", first)
    assert outside == [] and "NaN" not in first
    assert figures[0]["width"] == pytest.approx(110 * 7.2, abs=1)


def test_the_words_beside_a_figure_have_its_numbers(study, tmp_path):
    figure = drawings.gradient_maxima(study, 5, 1)
    assert figure["number"] == "Figure 1" and "batches of 64, SGD 0.01" in figure["caption"]
    assert "ReLU-5 100 in the first layer, 0.001 in the output" in figure["alt"]
    assert "ReLU-20 70.0 (91.8)" in drawings.accuracies(study)["alt"]
    assert "LeCun-40 100 in the first layer" in drawings.gradient_comparison(study)["alt"]
    figure = drawings.learning_curves(study)
    assert "tanh-5 accuracy 60; LeCun-5 accuracy 60" in figure["alt"]
    assert figure["command"].startswith("python -m research.main --config=configs/mlp.py:all")
    figure = drawings.mask_curves(made.masks(tmp_path))
    assert "after 3, 2 epochs, with a validation accuracy of 30.0, 70.0 percent" in figure["alt"]


def test_what_was_kept_of_the_seeds_is_drawn(study, tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, "svg", lambda figure: {"figure": figure})
    figure = drawings.gradient_maxima(study, 40, 3)["figure"]
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "log"]
    relu = figure.axes[1].get_lines()[:4]  # epochs 0 to 3
    assert [line.get_ydata()[0] for line in relu] == pytest.approx([0.1, 1.0, 10.0, 100.0])
    figure = drawings.mask_curves(made.masks(tmp_path))["figure"]
    grey = [line for line in figure.axes[0].get_lines() if line.get_color() == "0.55"]
    assert [len(line.get_xdata()) for line in grey] == [14, 14]


def test_a_net_that_was_not_probed_has_no_gradients(tmp_path):
    config = {"experiment": "depth", "name": "tanh-5", "seeds": 1}
    net = made.write(tmp_path, config, {"net": "tanh-5", "test_accuracy": [0.9]}, {})
    assert drawings.gradients(net) == {}
