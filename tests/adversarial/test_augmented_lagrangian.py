"""The search along an augmented Lagrangian, on classifiers whose smallest noise is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adversarial import linear_nets
from research.adversarial import criterion, generate, loop
from research.adversarial.augmented_lagrangian import AugmentedLagrangian, _derivative

PARAMS, IMAGES, LABELS = linear_nets.draw(1, count=5)
METHOD = AugmentedLagrangian(steps=40)


@pytest.fixture(scope="module")
def attacked():
    return jax.tree.map(
        np.asarray,
        generate.generate(linear_nets.logits, PARAMS, IMAGES, LABELS, methods=(METHOD,)),
    )


def test_forty_gradients_come_close_to_the_smallest_noise_there_is(attacked):
    """Toward every class and away from the own one; black and white images as well.

    What rounding to bytes adds, at most half a level to every value, stands beside the 5 %.
    """
    rounding, ratios = np.sqrt(IMAGES[0].size / 12) / 255, []
    assert attacked.success.all() and attacked.first.max() <= 5
    np.testing.assert_array_equal(attacked.steps, attacked.first + METHOD.steps)
    for n, t in np.ndindex(5, 5):
        least = linear_nets.smallest(PARAMS, IMAGES[n], LABELS[n], t, METHOD.required)
        found = float(attacked.best_l2[n, t])
        assert 0.999 * least <= found <= np.hypot(1.05 * least, rounding) + 1 / 255
        ratios.append(found / least)
    assert np.median(ratios) < 1.03


@pytest.mark.parametrize(("norm", "ratio", "levels"), [("linf", 1.02, 1), ("l1", 1.06, 4)])
def test_sixty_gradients_come_close_to_the_smallest_noise_of_other_norms(norm, ratio, levels):
    """What rounding to bytes adds: to the largest value one level, of the sum a few."""
    method = AugmentedLagrangian(steps=60, norm=norm)
    outcome = generate.generate(linear_nets.logits, PARAMS, IMAGES, LABELS, methods=(method,))
    assert outcome.success.all() and outcome.steps.max() <= 70
    ratios = []
    for n, t in np.ndindex(5, 5):
        least = linear_nets.smallest(PARAMS, IMAGES[n], LABELS[n], t, method.required, norm)
        levelled = np.abs(np.asarray(outcome.best[n, t], int) - IMAGES[n]) / 255
        shortest = levelled.max() if norm == "linf" else levelled.sum()
        assert float(outcome.best_norm[n, t]) == pytest.approx(shortest, rel=1e-5)
        assert 0.999 * least <= shortest <= 1.2 * least + levels / 255
        ratios.append((shortest - levels / 255) / least)
    assert np.median(ratios) < ratio


@pytest.mark.slow
def test_a_thousandfold_of_the_logits_changes_no_more_than_their_rounding(attacked):
    """1000 is no power of two: now and then a level, no norm by more than 0.001."""

    def scaled(params, images):
        return 1000 * linear_nets.logits(params, images)

    method = AugmentedLagrangian(steps=40, required=1000 * METHOD.required)
    outcome = generate.generate(scaled, PARAMS, IMAGES, LABELS, methods=(method,))
    levels = np.abs(np.asarray(outcome.best, int) - attacked.best)
    assert levels.max() <= 1 and np.mean(levels > 0) < 0.03
    np.testing.assert_allclose(outcome.best_l2, attacked.best_l2, atol=1e-3)


def test_what_is_said_of_every_case_is_true_of_its_bytes(attacked):
    linear_nets.check_claims(PARAMS, IMAGES, LABELS, attacked, METHOD.required)
    assert not attacked.dead_first.any() and not attacked.dead_last.any()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_scale_of_the_logits_changes_no_byte_of_other_norms(norm):
    """As below, of 1024 times the logits."""
    outcomes = []
    for scale in (1, 1024):
        params = tuple(leaf * np.float32(scale) for leaf in PARAMS)
        method = AugmentedLagrangian(steps=20, required=0.01 * scale, norm=norm)
        outcome = generate.generate(
            linear_nets.logits, params, IMAGES[:2], LABELS[:2], methods=(method,)
        )
        outcomes.append((outcome.best, outcome.last, outcome.steps, outcome.best_norm))
    chex.assert_trees_all_equal(*outcomes)


@pytest.mark.parametrize("exponent", [10, -10])
def test_the_scale_of_the_logits_changes_no_byte(attacked, exponent):
    """With the margin that is asked for, the one number in their units; scaled without rounding."""
    scale = np.float32(2**exponent)
    scaled = jax.tree.map(lambda leaf: leaf * scale, PARAMS)
    method = AugmentedLagrangian(steps=40, required=METHOD.required * float(scale))
    found = generate.generate(linear_nets.logits, scaled, IMAGES, LABELS, methods=(method,))
    for name in ("best", "last", "steps", "first", "success", "best_l2"):
        np.testing.assert_array_equal(getattr(found, name), getattr(attacked, name))
    np.testing.assert_array_equal(found.best_margin, attacked.best_margin * scale)


def follow(case, bonus=lambda steps: 0.0, params=PARAMS):
    return linear_nets.follow(METHOD, params, case, bonus)


CASE = linear_nets.one_of(linear_nets.every_case(IMAGES, LABELS), 10 + (int(LABELS[2]) + 1) % 5)


@pytest.fixture(scope="module")
def followed():
    return follow(CASE)


def test_the_first_move_is_a_multiple_of_what_a_linear_model_asks_for(followed):
    """Every value by as much, along the sign of the gradient; the maximum is not soft yet."""
    first, second = followed[0], followed[1]
    np.testing.assert_array_equal(second.progress.last, CASE.image)
    weights, score = np.asarray(PARAMS[0], np.float64), linear_nets.exact(PARAMS, CASE.image)
    score[int(CASE.target)] = -np.inf
    slope = weights[:, int(CASE.target)] - weights[:, np.argmax(score)]
    margin = linear_nets.exact_margin(PARAMS, CASE.image, CASE.actual, CASE.target)
    each = 4 * min(abs(margin) / np.linalg.norm(slope) / np.sqrt(slope.size), 0.1)
    clean = CASE.image / 255.0
    wanted = clean + (each * np.sign(slope)).reshape(clean.shape)
    assert not first.inner.noise.any()
    noise = np.asarray(second.inner.noise)
    np.testing.assert_allclose(clean + noise, np.clip(wanted, 0, 1), atol=1e-5)


def test_where_the_noise_is_smallest_the_multiplier_is_one(followed):
    """The two forces on the noise, its own length and the constraint, are then as large."""
    later = [float(state.inner.multiplier) for state in followed[-10:]]
    assert np.mean(later) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("multiplier", [0.5, 2.0])
def test_the_force_is_the_multiplier_at_the_constraint_and_grows_with_what_is_missing(multiplier):
    missing = np.float32([-10, -1, -1e-4, 0, 1e-4, 1, 10])
    force = np.asarray(_derivative(missing, jnp.float32(2), jnp.float32(multiplier)))
    assert (np.diff(force) > 0).all() and force[3] == multiplier
    np.testing.assert_allclose(force[[2, 4]], multiplier, rtol=1e-3)
    assert force[5] == multiplier * (1 + 4) + 2 and force[1] == pytest.approx(multiplier / 9)


def test_a_success_gives_back_at_most_a_fifth_and_only_what_is_more_than_enough():
    """By the linear model, which is exact here, when nothing else moves the noise."""
    clean = criterion.decode(CASE.image)
    state = METHOD.start(None, CASE, loop.no_progress(CASE))
    slope = PARAMS[0][:, int(CASE.target)] - PARAMS[0][:, int(CASE.actual)]
    direction = (slope / np.linalg.norm(slope)).reshape(clean.shape)
    for size in (0.3, 3.0):
        noise = criterion.inside_box(clean, size * direction)
        inner = state.inner.replace(
            noise=noise, age=jnp.int32(1), slope=jnp.float32(10), unit=jnp.float32(1)
        )
        after = linear_nets.step(METHOD, PARAMS, jnp.float32(0), CASE, state.replace(inner=inner))
        kept = np.asarray(after.inner.noise) / np.where(noise == 0, 1, np.asarray(noise))
        margin = float(after.progress.last_margin)
        along = float(np.sum(np.asarray(noise) * slope.reshape(clean.shape)))
        back = np.clip((margin - 2 * METHOD.required) / along, 0, 0.2) if margin > 0.01 else 0
        np.testing.assert_allclose(np.median(kept), 1 - back, atol=0.02)


def one_step(norm, bonus=0.0, state=None):
    """The state of a search by this norm after its first step, or after one from `state`."""
    method = AugmentedLagrangian(steps=40, norm=norm)
    state = state or method.start(None, CASE, loop.no_progress(CASE))
    return linear_nets.step(method, PARAMS, jnp.float32(bonus), CASE, state)


def steepest():
    """Of the linear net at CASE: margin, and its gradient [H, W, C]."""
    score = linear_nets.exact(PARAMS, CASE.image)
    score[int(CASE.target)] = -np.inf
    weights = np.asarray(PARAMS[0], np.float64)
    slope = weights[:, int(CASE.target)] - weights[:, np.argmax(score)]
    margin = linear_nets.exact_margin(PARAMS, CASE.image, CASE.actual, CASE.target)
    assert CASE.image.min() > 0 and CASE.image.max() < 255  # no value is at the edge of the box
    return margin, slope.reshape(CASE.image.shape)


def test_the_first_radius_is_half_more_than_what_a_linear_model_asks_for():
    """Of the largest change, if every value goes as far: the margin by the sum of the slopes."""
    (margin, slope), inner = steepest(), one_step("linf").inner
    assert float(inner.radius) == pytest.approx(1.5 * abs(margin) / np.abs(slope).sum(), rel=1e-4)
    np.testing.assert_allclose(inner.noise, inner.radius * np.sign(slope), rtol=1e-5)


@pytest.mark.parametrize(("missing", "factor"), [(500.0, np.exp(0.3)), (0.01, np.exp(-0.3))])
def test_a_radius_changes_by_a_third_at_most_and_a_share_by_three_quarters(missing, factor):
    """Far from the constraint, and at it, where the force on the radius is next to nothing.

    A share of nothing moves by twice the first rate of a half, and the average over two steps in
    one direction is three quarters of it.
    """
    margin, slope = steepest()
    state = one_step("linf")
    inner = state.inner.replace(noise=jnp.zeros(slope.shape), multiplier=jnp.float32(1e-3))
    after = one_step("linf", -missing - margin, state.replace(inner=inner)).inner
    assert float(after.radius) == pytest.approx(float(inner.radius) * factor, rel=2e-3)
    share = np.asarray(after.noise) / after.radius
    np.testing.assert_allclose(share, 0.75 * np.sign(slope), rtol=1e-3)


@pytest.mark.parametrize("missing", [0.05, 1.0, 5e3])
def test_of_l1_the_first_rate_is_a_multiple_of_what_a_linear_model_asks_for(missing):
    """Of the one steepest value; between five levels and half of the box."""
    margin, slope = steepest()
    inner = one_step("l1", -missing - margin).inner
    asked = 40 * missing / np.abs(slope).max() / slope.size
    assert float(inner.rate) == pytest.approx(np.clip(asked, 0.02, 0.5), rel=1e-3)
    assert (asked < 0.02, asked > 0.5) == (missing == 0.05, missing == 5e3)


def test_without_success_a_search_begins_anew_farther_away_and_ends():
    states = follow(CASE, lambda steps: -1e3)
    last = states[-1].progress
    assert int(last.steps) == METHOD.search and not last.success
    ages = np.array([int(state.inner.age) for state in states])
    assert np.flatnonzero(ages == 0).tolist() == [0, 60, 120, 180]
    away = [np.linalg.norm(states[n].inner.noise) for n in (60, 120, 180)]
    assert (np.diff(away) > 0).all() and away[0] <= 1.0001 and away[2] <= 3.0001
    penalties = np.array([float(state.inner.penalty) for state in states])
    assert penalties[60] > penalties[10] >= penalties[1] == penalties[61] == 2


def test_a_stubborn_case_gets_its_search_and_all_its_steps_after_the_first_success(followed):
    late = follow(CASE, lambda steps: -60.0 if steps < 90 else 0.0)[-1].progress
    assert 90 <= int(late.first) and int(late.steps) == int(late.first) + METHOD.steps
    assert float(late.best_l2) < 1.3 * float(followed[-1].progress.best_l2)


def test_where_there_is_no_gradient_every_step_is_another_start():
    params = (np.zeros_like(PARAMS[0]), PARAMS[1])
    states = follow(CASE.replace(actual=np.int32(0), target=np.int32(1)), lambda s: -9.0, params)
    assert all(int(state.inner.age) == 0 for state in states)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[-1].inner))
    assert len({np.asarray(state.inner.noise).tobytes() for state in states[1:]}) == METHOD.search


@pytest.mark.slow  # as test_generate.py has it for a method without arithmetic
def test_neither_groups_nor_neighbours_change_a_bit():
    """Of a net without a sum, whose logits are the same in every batch."""

    def pixels(params, images):
        return images.reshape(len(images), -1)[:, : linear_nets.CLASSES] * params[None]

    scale = np.arange(1, 6, dtype=np.float32)
    whole, parts = (
        generate.generate(pixels, scale, IMAGES, LABELS, methods=(METHOD,), sizes=sizes)
        for sizes in ((16,), (8, 2))
    )
    chex.assert_trees_all_equal(whole, parts)
