"""PGD on two linear classes, where the best point of a ball is known."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial import linear_nets
from research.adversarial.pgd import PGD, toward

PARAMS, IMAGES, LABELS = linear_nets.draw(3, count=8, classes=2)
EVERY = linear_nets.every_case(IMAGES, LABELS, 2)
NORMS = ("linf", "l2")
RADII = {"linf": (1 / 255, 3 / 255, 8 / 255, 0.1), "l2": (0.05, 0.2, 0.5)}


@pytest.fixture(scope="module")
def attacked():
    """Progress of all cases by norm and radius, and how often the classifier was traced."""
    found, traced = {}, {}
    for norm in NORMS:
        for radius in RADII[norm]:
            before = len(linear_nets.TRACES)
            method = PGD(radius, norm, steps=40, restarts=2)
            states = linear_nets.attack(method, PARAMS, EVERY)
            found[norm, radius] = jax.tree.map(np.asarray, states.progress)
            traced[norm, radius] = len(linear_nets.TRACES) - before
    return found, traced


def margins_now():
    return np.array([
        linear_nets.exact_margin(PARAMS, *case)
        for case in zip(EVERY.image, EVERY.actual, EVERY.target, strict=True)
    ])  # fmt: skip


def slopes():
    """Of the margin of every case by its image: of two classes, leaving is reaching the other."""
    difference = np.float64(PARAMS[0][:, 1] - PARAMS[0][:, 0])
    away = np.where(EVERY.actual == 0, 1, -1) * np.ones(len(EVERY.actual))
    toward_1 = np.where(EVERY.target == EVERY.actual, away, np.where(EVERY.target == 1, 1, -1))
    return (toward_1[:, None] * difference).reshape(EVERY.image.shape)


def test_another_radius_needs_no_new_program(attacked):
    for norm in NORMS:
        first, *others = (attacked[1][norm, radius] for radius in RADII[norm])
        assert first > 0 and others == [0] * len(others)


def test_no_byte_of_any_candidate_is_outside_the_ball(attacked):
    for (norm, radius), progress in attacked[0].items():
        for images in (progress.best, progress.last):
            moved = np.abs(images.astype(int) - EVERY.image) / 255
            length = moved.max() if norm == "linf" else np.sqrt((moved**2).sum((1, 2, 3))).max()
            assert length <= radius * (1 + 2e-6)
            assert length > 0.9 * radius or radius < 0.06


def test_in_the_largest_norm_a_failure_has_been_at_the_best_corner(attacked):
    """So that no case fails which could have succeeded; up to a level at the white end of the box.

    1 - x / 255 is not always the distance to white when it has been rounded.
    """
    failures = 0
    for radius in RADII["linf"]:
        progress, levels = attacked[0]["linf", radius], int(radius * 255 + 1e-3)
        up = np.minimum(levels, 255 - EVERY.image.astype(int))
        down = np.minimum(levels, EVERY.image.astype(int))
        gain = np.where(slopes() > 0, up, down) * np.abs(slopes()) / 255
        near_white = (255 - EVERY.image.astype(int) <= 16) & (slopes() > 0) & (up > 0)
        slack = (near_white * np.abs(slopes()) / 255).sum((1, 2, 3))
        most = margins_now() + gain.sum((1, 2, 3))
        assert (progress.success <= (most > -1e-4)).all()
        assert (progress.success >= (most - slack > 1e-4)).all()
        failed = ~progress.success
        assert (progress.best_margin[failed] <= most[failed] + 1e-4).all()
        assert (progress.best_margin[failed] >= (most - slack)[failed] - 1e-4).all()
        failures += failed.sum()
    assert 0 < failures < sum(len(attacked[0]["linf", r].success) for r in RADII["linf"])


def test_in_the_euclidean_norm_it_succeeds_where_a_tenth_less_would_do(attacked):
    outcomes = []
    for radius in RADII["l2"]:
        progress = attacked[0]["l2", radius]
        for row, success in enumerate(progress.success):
            case = linear_nets.one_of(EVERY, row)
            least = linear_nets.smallest(PARAMS, case.image, case.actual, case.target, 0.0)
            if least > radius:
                assert not success
            elif least + np.sqrt(case.image.size) / 255 < 0.9 * radius:  # rounded toward the image
                assert success
            outcomes.append(success)
    assert 0.1 < np.mean(outcomes) < 0.9


def test_starts_are_used_up_by_failures_only(attacked):
    for progress in attacked[0].values():
        done = progress.success
        np.testing.assert_array_equal(progress.steps[~done], 80)
        assert (progress.first[~done] == -1).all() and not progress.running.any()
        np.testing.assert_array_equal(progress.steps[done], np.where(
            progress.first[done] == 0, progress.steps[done], progress.first[done] + 1
        ))  # fmt: skip


def test_an_image_that_is_taken_for_the_target_already_needs_no_noise_and_no_step():
    wrong = EVERY.replace(actual=1 - EVERY.actual)
    progress = linear_nets.attack(PGD(0.1, "linf"), PARAMS, wrong).progress
    assert progress.success.all() and not progress.steps.any() and not progress.first.any()
    np.testing.assert_array_equal(progress.best, EVERY.image)


def test_the_second_start_is_another_one_and_in_the_ball():
    """Where there is no gradient the noise stays where it starts."""
    flat = (np.zeros_like(PARAMS[0]), np.float32([0, 1]))
    every = EVERY.replace(actual=np.ones_like(EVERY.actual), target=np.zeros_like(EVERY.target))
    progress = linear_nets.attack(PGD(0.1, "linf"), flat, every).progress
    assert (progress.steps == 80).all() and not progress.success.any()
    moved = np.asarray(progress.last, int) - every.image
    assert np.abs(moved).max() == 25 and (np.abs(moved) < 20).any()
    second = np.sqrt((moved**2).sum((1, 2, 3))) / 255
    assert (np.abs(second / progress.start_l2 - 1) > 1e-4).all()
    assert (moved[0] != moved[1]).any()  # cases of one image have keys of their own


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_rounding_is_toward_the_image_and_whole_levels_are_kept(data):
    image = data.draw(st.integers(0, 255))
    levels = data.draw(st.integers(-255, 255))
    part = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.999]))
    noise = np.float32((levels + np.copysign(part, levels)) / 255)
    expected = np.clip(image + levels, 0, 255)
    found = TOWARD(np.full((1, 1, 1), image, np.uint8), np.full((1, 1, 1), noise))
    assert int(found[0, 0, 0]) == expected


TOWARD = jax.jit(toward)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm: 'l1' is not one of linf, l2"):
        _ = PGD(0.1, "l1")
