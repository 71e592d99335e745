"""The rules against what they say, at their very ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.ledger import rules
from research.ledger.claims import NUMBERS, RULES


def found(rule, *of, order=None, **settings):
    samples = [np.array(values, np.float64) for values in of]
    for key in ("than", "among"):
        if key in settings:
            settings[key] = [np.array(values, np.float64) for values in settings[key]]
    order = rule not in NUMBERS if order is None else order
    return rules.check(rule, samples, settings, order=order)


def part(held, of, order):
    return rules.Outcome("", held, of, order)


def test_every_rule_of_the_file_has_its_function():
    assert set(rules._RULES) == set(RULES)


@pytest.mark.parametrize(
    ("values", "stated", "holds"),
    [
        ([90, 97], 96.2, True),  # between the lowest and the highest
        ([95.0, 95.1, 95.2], 95.3, True),  # two deviations of 0.1 above the mean: to 95.3
        ([95.0, 95.1, 95.2], 95.4, False),
        ([94.99, 95.09, 95.19], 94.8, True),  # all that print as 94.8 are below 94.9
        ([95.0, 95.1, 95.2], 94.7, False),
        ([11.35, 11.35], 11.3, True),  # cut off, not rounded
        ([11.35, 11.35], 11.4, True),  # rounded
        ([11.4, 11.4], 11.3, False),
        ([11.24, 11.24], 11.3, False),
    ],
)
def test_a_number_is_met_within_the_seeds_or_two_deviations_and_as_it_is_printed(
    values, stated, holds
):
    result = found("value", values, digit=0.1, **{"is": stated})
    assert result.holds == holds and not result.order


def test_one_seed_has_the_error_of_its_images():
    # Two standard errors of 72.5 % over 10,000 images are 0.89 points.
    assert not found("value", [72.5], digit=0.1, images=10_000, **{"is": 73.5}).holds
    assert found("value", [72.5], digit=0.1, images=10_000, **{"is": 73.3}).holds
    assert not found("value", [72.5], digit=0.1, **{"is": 73.3}).holds


def test_bounds_are_of_means_or_of_every_seed():
    assert found("at_most", [1, 3], bound=2).holds
    assert not found("at_most", [1, 3], bound=2, every=True).holds
    assert found("at_least", [1, 3], bound=2).holds
    assert not found("at_least", [1, 3], bound=2, every=True).holds
    assert not found("at_least", [1.9, 2], bound=2).holds
    several = found("at_most", [1], [3], bound=2)
    assert (several.held, several.of) == (1, 2)


def test_clearly_above_is_two_standard_errors_of_the_differences():
    # Differences 1, 2, 3: mean 2, standard error 0.577; then 0, 2, 4: 2 and 1.155.
    assert rules.clearly_above(np.array([2.0, 4, 6]), np.array([1.0, 2, 3]))
    assert not rules.clearly_above(np.array([1.0, 4, 7]), np.array([1.0, 2, 3]))
    assert rules.clearly_above(np.array([2.0]), np.array([1.0]))
    assert not rules.clearly_above(np.array([1.0, 1]), np.array([1.0, 1]))
    # Two groups: means 10 and 1, errors 1 and 0.
    assert rules.clearly_above(np.array([9.0, 11]), np.array([1.0, 1, 1]))
    assert not rules.clearly_above(np.array([2.0, 4]), np.array([1.5, 1.5, 1.5]))


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.floats(0.5, 3))
def test_not_both_of_two_are_above_the_other_and_a_shift_is(values, shift):
    a = np.array(values)
    assert rules.clearly_above(a + shift, a)
    assert not rules.clearly_above(a, a + shift)


def test_orders_count_their_comparisons():
    result = found("above", [5, 5], [1, 1], than=[[2, 2], [3, 3]])
    assert (result.held, result.of, result.order) == (2, 4, True)
    assert (found("rising", [1], [2], [2]).held, found("falling", [3], [2], [1]).held) == (1, 2)
    assert not found("rising", [3], [2], [1]).held


def test_the_best_are_those_whose_seeds_reach_the_best_mean():
    assert found("best", [94, 96], among=[[95, 97], [0, 99]]).holds
    assert not found("best", [94, 94.9], among=[[95, 97]]).holds
    assert not found("best", [94, 96], [1, 2], among=[[95, 97]]).holds
    assert found("best", [98, 99], [97, 98.5], among=[[1, 2]]).holds


def test_level_includes_and_usually_are_what_they_say():
    assert found("level", [95.0], [95.4], within=0.44).holds
    assert not found("level", [95.5], [95.0], within=0.44).holds
    assert found("includes", [1, 6, 2], **{"is": 6}).holds
    assert not found("includes", [1, 2], **{"is": 6}).holds
    assert found("usually", [2, 2, 1], **{"is": 2}).holds
    assert not found("usually", [2, 1], **{"is": 2}).holds


def test_tables_are_compared_in_the_rows_that_are_asked_for():
    low, high = [[9, 9], [1, 1], [1, 1]], [[0, 0], [2, 2], [0, 2]]
    assert found("mostly_above", high, than=[low], rows=[1, 2]).holds
    assert not found("mostly_above", high, than=[low]).holds
    assert found("mostly_falling", [[0, 0, 0], [3, 3, 3], [2, 2, 4]], rows=[1, 2]).holds
    assert not found("mostly_falling", [[3, 3], [2, 4]]).holds
    assert found("more_above", [[4.0, 6.0]], [[2.0, 2.0]], than=[[[2.0]], [[1.0]]]).holds
    assert not found("more_above", [[4.0, 4.0]], [[2.0, 2.0]], than=[[[2.0]], [[1.0]]]).holds


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([part(1, 1, False)], "REPRODUCED"),
        ([part(0, 1, False)], "CONTRADICTED"),
        ([part(1, 1, False), part(2, 2, True)], "REPRODUCED"),
        ([part(0, 1, False), part(2, 2, True)], "TREND-ONLY"),
        ([part(1, 1, False), part(2, 3, True)], "TREND-ONLY"),
        ([part(1, 1, False), part(1, 2, True)], "CONTRADICTED"),
        ([part(1, 1, False), part(0, 1, False)], "CONTRADICTED"),
        ([part(1, 1, True), part(0, 2, True)], "CONTRADICTED"),
    ],
)
def test_a_verdict_is_made_of_numbers_and_of_most_comparisons(parts, verdict):
    assert rules.verdict(parts) == verdict


def test_what_depends_on_the_reading_is_a_trend():
    assert rules.over_readings(["CONTRADICTED"] * 4) == "CONTRADICTED"
    assert rules.over_readings(["REPRODUCED"] * 4) == "REPRODUCED"
    assert rules.over_readings(["REPRODUCED", "CONTRADICTED"]) == "TREND-ONLY"


def test_other_data_than_the_reports_neither_reproduce_nor_contradict():
    found = [rules.with_stand_in(v) for v in ("REPRODUCED", "TREND-ONLY", "CONTRADICTED")]
    assert found == ["TREND-ONLY", "TREND-ONLY", "UNTESTABLE"]
