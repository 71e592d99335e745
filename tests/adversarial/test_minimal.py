"""The search for the smallest noise, step by step on classifiers whose every gradient is known."""

import itertools

import chex
import numpy as np
import pytest

from adversarial import linear_nets
from research.adversarial import criterion, generate
from research.adversarial.minimal import Minimal

METHOD = Minimal()
PARAMS, IMAGES, LABELS = linear_nets.draw(1, count=5)


def follow(case, bonus=lambda steps: 0.0, params=PARAMS):
    return linear_nets.follow(METHOD, params, case, bonus)


def case_of(image, away):
    """From the class of the image to the one so many places on; 0 is to leave it."""
    actual = np.argmax(linear_nets.exact(PARAMS, image)).astype(np.int32)
    every = linear_nets.every_case(image[None], actual[None])
    return linear_nets.one_of(every, int(actual + away) % linear_nets.CLASSES)


@pytest.fixture(scope="module")
def followed():
    """From a grey image to the next class."""
    case = case_of(linear_nets.GREY, 1)
    return case, follow(case)


def test_the_image_is_judged_first_and_then_twice_what_a_linear_model_asks_for(followed):
    """And a tenth more, for the image itself was a failure; but no more than a tenth of the box."""
    case, states = followed
    weights = np.asarray(PARAMS[0], np.float64)
    score = linear_nets.exact(PARAMS, case.image)
    runner_up = max(set(range(5)) - {int(case.target)}, key=lambda k: score[k])
    slope = weights[:, case.target] - weights[:, runner_up]
    np.testing.assert_array_equal(states[1].progress.last, case.image)
    margin = linear_nets.exact_margin(PARAMS, case.image, case.actual, case.target)
    size = 1.1 * min(2 * abs(margin) / np.linalg.norm(slope), 0.1 * 8)
    noise = (size * slope / np.linalg.norm(slope)).reshape(case.image.shape)
    expected = np.rint(255 * (case.image / 255.0 + noise))
    difference = np.abs(np.asarray(states[2].progress.last, np.float64) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05 and size != 0.88
    np.testing.assert_allclose(states[1].progress.gradient_first, np.linalg.norm(slope), rtol=1e-5)


def test_the_noise_shrinks_after_a_success_and_grows_after_a_failure_by_less_and_less(followed):
    """By 30 % at the first success and 1 % at the end, along half a cosine; growth at most 10 %."""
    case, states = followed
    rounding = np.sqrt(case.image.size) / 255 / 2
    outcomes = []
    for before, after, later in zip(states[1:-2], states[2:-1], states[3:], strict=True):
        done = int(before.inner.clock)
        change = 0.01 + 0.29 * (1 + np.cos(np.pi * done / METHOD.steps)) / 2
        outcomes.append(bool(after.progress.last_margin >= METHOD.required))
        if outcomes[-1]:
            base = min(float(before.inner.norm), float(after.progress.best_l2))
            expected = base * (1 - change)
        else:
            expected = float(before.inner.norm) * (1 + min(change, 0.1))
        assert float(after.inner.norm) == pytest.approx(expected, rel=1e-4)
        length = float(criterion.l2(later.progress.last, case.image))
        assert length == pytest.approx(expected, abs=rounding)
    assert 0.1 < np.mean(outcomes) < 0.9


def test_a_step_goes_along_the_gradient_less_and_less_far(followed):
    """From 1 to 0.02 along half a cosine; then the noise is brought to its new length."""
    case, states = followed
    weights = np.asarray(PARAMS[0], np.float64)
    for before, after in itertools.pairwise(states[1:]):
        image = np.asarray(after.progress.last)
        score = linear_nets.exact(PARAMS, image)
        score[int(case.target)] = -np.inf
        slope = weights[:, case.target] - weights[:, np.argmax(score)]
        share = (1 + np.cos(np.pi * int(after.inner.clock) / METHOD.steps)) / 2
        size = 0.02 + 0.98 * share
        moved = np.float64(before.inner.noise).reshape(-1) + size * slope / np.linalg.norm(slope)
        clean = case.image.reshape(-1) / 255
        moved = np.clip(moved, -clean, 1 - clean)
        wanted = moved * float(after.inner.norm) / np.linalg.norm(moved)
        noise = np.asarray(after.inner.noise).reshape(-1)
        np.testing.assert_allclose(noise, np.clip(wanted, -clean, 1 - clean), atol=1e-5)


def test_an_easy_case_stops_so_many_gradients_after_its_first_success(followed):
    progress = followed[1][-1].progress
    assert int(progress.first) < 5 and int(progress.steps) == int(progress.first) + METHOD.steps


def test_a_stubborn_case_gets_its_search_and_what_it_finds_late_is_as_small(followed):
    """The clock starts at the first success, so that nothing of its steps and changes is lost."""
    case, easy = followed
    progress = follow(case, lambda steps: -1e3 if steps < 150 else 0.0)[-1].progress
    assert 150 <= int(progress.first) < METHOD.search
    assert int(progress.steps) == int(progress.first) + METHOD.steps
    assert float(progress.best_l2) < 1.02 * float(easy[-1].progress.best_l2)


def test_without_success_the_search_ends(followed):
    progress = follow(followed[0], lambda steps: -1e3)[-1].progress
    assert int(progress.steps) == METHOD.search and int(progress.first) == -1
    assert not bool(progress.success) and float(progress.best_l2) == np.inf


def test_a_search_without_success_begins_anew_every_40_steps_elsewhere(followed):
    """At a distance of 1, from where a linear model of the classifier says again how far to go."""
    case, _ = followed
    states = follow(case, lambda steps: -1e3)
    starts = []
    for number in (40, 80, 120, 160):
        start, then = states[number + 1].progress.last, states[number + 1].inner.norm
        assert float(criterion.l2(start, case.image)) == pytest.approx(1, abs=0.02)
        assert float(then) == pytest.approx(1.1 * 0.1 * 8, rel=1e-5)  # the most that is asked for
        starts.append((np.asarray(start, float) - 128).reshape(-1) / 255)
    alike = np.corrcoef(starts) - np.eye(len(starts))
    assert np.abs(alike).max() < 0.6
    grown = [float(state.inner.norm) for state in states[2:40]]
    assert (np.diff(grown) >= 0).all() and grown[-1] == pytest.approx(8)


def test_a_success_ends_the_search_for_other_starts(followed):
    case, easy = followed
    far = [float(criterion.l2(state.progress.last, case.image)) for state in easy[3:]]
    assert max(far) < 1.5 * float(easy[-1].progress.best_l2) < 0.9


def test_a_success_that_does_not_come_back_is_kept(followed):
    case, easy = followed
    first = int(easy[-1].progress.first)
    progress = follow(case, lambda steps: 0.0 if steps <= first else -1e3)[-1].progress
    chex.assert_trees_all_equal(progress.best, easy[first + 1].progress.last)
    assert bool(progress.success) and float(progress.last_margin) < -900
    assert int(progress.steps) == first + METHOD.steps


def test_two_classes_that_tie_on_an_image_are_told_apart():
    """A net without biases says the same of every class of a black image."""
    params = (PARAMS[0], np.zeros_like(PARAMS[1]))
    case = case_of(np.zeros(linear_nets.SHAPE, np.uint8), 1)
    progress = follow(case, params=params)[-1].progress
    assert bool(progress.success) and 0 < float(progress.best_l2) < 0.05
    assert int(progress.first) < 40  # without the help of another start


def test_where_there_is_no_gradient_the_noise_goes_off_at_random():
    """No success, nothing that is not a number, and each case its own way."""
    params, lasts = (np.zeros_like(PARAMS[0]), PARAMS[1]), []
    for away in (2, 3):
        case = case_of(linear_nets.GREY, away)
        case = case.replace(actual=np.argmax(PARAMS[1]).astype(np.int32))
        states = follow(case, params=params)
        progress, early = states[-1].progress, np.asarray(states[2].progress.last)
        assert (early != case.image).mean() > 0.9  # at once, and not by another start
        assert int(progress.steps) == METHOD.search and not bool(progress.success)
        assert float(progress.gradient_first) == float(progress.gradient_last) == 0.0
        for leaf in (progress.best_margin, progress.last_margin):
            assert np.isfinite(leaf)
        lasts.append(np.asarray(progress.last, np.int32))
        assert (lasts[-1] != case.image).mean() > 0.9
    assert (lasts[0] != lasts[1]).mean() > 0.2


@pytest.fixture(scope="module")
def unpolished():
    return generate.generate(
        linear_nets.logits, PARAMS, IMAGES, LABELS, methods=(METHOD,), sizes=(10,)
    )


def test_all_cases_at_once_are_the_cases_one_by_one(unpolished):
    """But for rounding: a product of matrices adds up in another order than one of vectors."""
    every = linear_nets.every_case(IMAGES, LABELS)
    for row in (1, 7, 13):
        alone = follow(linear_nets.one_of(every, row))[-1].progress
        among = linear_nets.one_of(linear_nets.one_of(unpolished, row // 5), row % 5)
        assert int(alone.steps) == int(among.steps) and int(alone.first) == int(among.first)
        assert float(alone.best_l2) == pytest.approx(float(among.best_l2), rel=1e-3)


def test_no_value_is_ever_dead(unpolished):
    """Noise that would leave the box is cut, and comes back when the gradient turns."""
    assert not unpolished.dead_first.any() and not unpolished.dead_last.any()
    assert unpolished.success.all()
