"""Figures of the report redrawn: which lines they have, and what is said in their place."""

import pytest

from page import made
from research.ledger.tables.depth import REPORTED
from research.page import charts, drawings


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The lines of every panel, in the place of its drawing."""
    monkeypatch.setattr(drawings, "panel", lambda lines, **about: (lines, about))
    monkeypatch.setattr(drawings, "strips", lambda rows, ends: (rows, ends))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (0.05312, "0.053"), (-0.5, "-0.5"), (8.23e-7, "8.2·10⁻⁷"), (250.4, "250"),
     (3e5, "3.0·10⁵")],
)  # fmt: skip
def test_numbers_are_written_as_one_reads_them(value, expected):
    assert drawings.power(value) == expected


def test_gradients_are_drawn_before_the_first_step_and_after_three_epochs():
    figure = drawings.gradient_maxima(made.gradients(), 2, 40, 3)
    assert figure["number"] == "Figure 3"
    linear, log = (panel["svg"] for panel in figure["panels"])
    assert not linear[1]["log"] and log[1]["log"]
    lines = log[0][:4]  # of ReLU: epochs 0 to 3
    assert [line.y[0] for line in lines] == pytest.approx([0.1, 1.0, 10.0, 100.0])
    assert [line.low is not None for line in lines] == [False, False, False, True]
    assert len(lines[0].x) == 41 and len(log[0]) == 12


def test_what_stands_in_the_place_of_a_figure_has_its_numbers():
    figure = drawings.gradient_maxima(made.gradients(), 2, 5, 1)
    assert "ReLU-5 100 in the first layer, 0.001 in the output" in figure["alt"]
    assert "median of 2 seeds" in figure["caption"] and "MNIST, all of it" in figure["caption"]
    for other in (
        drawings.accuracies(made.depth(), REPORTED),
        drawings.learning_curves(made.depth()),
    ):
        assert all(other[key] for key in ("alt", "caption", "command", "legend", "number"))


def test_accuracies_stand_beside_those_of_the_report():
    figure = drawings.accuracies(made.depth(), REPORTED)
    rows, ends = figure["panels"][0]["svg"]
    assert ends == (0.0, 100.0) and len(rows) == 12
    assert rows[1] == ("ReLU-20", charts.ACTIVATIONS["relu"][1], [50.0, 90.0], 91.8)
    assert "ReLU-20 70.0 (91.8)" in figure["alt"]


def test_lecun_is_compared_with_tanh_at_each_depth():
    figure = drawings.gradient_comparison(made.gradients(), 2)
    assert [len(panel["svg"][0]) for panel in figure["panels"]] == [8] * 6
    assert {entry["name"] for entry in figure["legend"]} >= {"tanh", "LeCun"}


def test_learning_curves_are_of_tanh_and_lecun_in_percent_and_nats():
    figure = drawings.learning_curves(made.depth())
    accuracy, loss = figure["panels"][0]["svg"], figure["panels"][3]["svg"]
    assert len(figure["panels"]) == 6 and loss[1]["log"] and not accuracy[1]["log"]
    assert list(accuracy[0][0].y) == pytest.approx([40.0, 50.0, 60.0])
    assert [bool(line.dash) for line in accuracy[0]] == [True, False] * 2


def test_a_seed_of_the_masks_is_drawn_as_long_as_it_was_trained_beside_the_report():
    figure = drawings.mask_curves(made.masks()["vgg"])
    lines, _ = figure["panels"][0]["svg"]
    assert [len(line.x) for line in lines] == [14, 3, 2] * 2
    assert lines[0].y[0] == pytest.approx(79.69) and lines[3].y[-1] == pytest.approx(86.75)
    assert "after 3, 2 epochs, with a test accuracy of 30.0, 70.0 percent" in figure["alt"]
