import pytest

from research.adversarial import diagnostics


def row(image=0, target=1, **changes):
    """A case that failed without any of the known reasons."""
    plain = {
        **{"image": image, "target": target, "success": False, "success_lost": False},
        **{"l2": 1.0, "start_l2": 0.0, "margin": -0.5},
        **{"dead_first": 0.1, "dead_last": 0.2, "gradient_first": 1.0, "gradient_last": 1.0},
    }
    return plain | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"margin": 0.1, "gradient_first": 0.0}, "not counted"),
        ({"margin": 0.0}, "budget"),
        ({"gradient_first": 0.0}, "no gradient"),
        ({"gradient_last": 0.0}, "no gradient"),
        ({"gradient_last": None}, "not finite"),
        ({"gradient_last": 9e-7}, "saturated loss"),
        ({"gradient_last": 9e-7, "dead_last": 0.9}, "saturated loss"),
        ({"dead_last": 0.51}, "dead pixels"),
        ({"dead_last": 0.51, "success_lost": True}, "dead pixels"),
        ({"dead_last": 0.5}, "budget"),
        ({"dead_first": 0.9}, "budget"),
        ({"success_lost": True}, "on the edge"),
        ({}, "budget"),
    ],
)
def test_a_failure_has_the_first_reason_that_its_numbers_show(changes, said):
    assert diagnostics.reason(row(**changes)).startswith(f"{said}: ")


def test_medians_are_over_all_cases_and_the_share_of_the_first_noise_over_the_successes():
    rows = [
        row(target=0, dead_first=0.0, dead_last=0.3, success=True, l2=4.0, start_l2=1.0),
        row(target=1, dead_first=0.5, dead_last=0.4, success=True, l2=2.0, start_l2=3.0),
        row(target=2, dead_first=0.1, dead_last=0.9, l2=2.0, start_l2=1.0),
        row(target=3, dead_first=0.2, dead_last=0.8, l2=1.0, start_l2=0.9),
        row(target=4, dead_first=0.3, dead_last=0.5, success=True, l2=0.0, start_l2=0.0),
    ]
    found = diagnostics.examine(rows, {})
    assert (found["dead_share_first"], found["dead_share_last"]) == (0.2, 0.5)
    assert found["initial_noise_share_of_norm"] == 0.625  # of 0.25 and 1, for more is no share


def test_failures_are_counted_and_listed_with_their_reason_and_what_another_start_did():
    rows = [
        row(3, 0, success=True),
        row(3, 1, gradient_first=0.0, margin=-2.0),
        row(3, 2, gradient_first=0.0, success=True),
        row(3, 4),
        row(5, 1),
    ]
    found = diagnostics.examine(rows, {(3, 1): True, (3, 4): False})
    assert (found["failed_cells"], found["restarted_cells"]) == (3, 2)
    assert found["restart_gain"] == 0.5
    assert found["zero_gradient_cells"] == 2
    assert {why.partition(":")[0]: n for why, n in found["why_failed"].items()} == {
        "no gradient": 1,
        "budget": 2,
    }
    assert found["failures"][0] == {
        **{"image": 3, "target": 1, "why": diagnostics.reason(rows[1])},
        **{"margin": -2.0, "another_start": True},
    }
    assert [(each["image"], each["target"]) for each in found["failures"]] == [
        *((3, 1), (3, 4), (5, 1))
    ]
    assert [each["another_start"] for each in found["failures"]] == [True, False, None]


def test_where_nothing_failed_nothing_is_said_of_restarts():
    found = diagnostics.examine([row(success=True, l2=0.0)], {})
    assert found["restart_gain"] is None and found["initial_noise_share_of_norm"] is None
    assert (found["failed_cells"], found["failures"], found["why_failed"]) == (0, [], {})
