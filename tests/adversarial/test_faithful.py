"""The report's attack against a second implementation in NumPy, and its weaknesses, measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adversarial import linear_nets
from research.adversarial import criterion, loop
from research.adversarial.faithful import Faithful, clip, squared_error

PARAMS, IMAGES, LABELS = linear_nets.draw(2, count=5)
EVERY = linear_nets.every_case(IMAGES, LABELS)
METHOD = Faithful()


@jax.jit
def step(params, cases, states):
    classify = linear_nets.of_one(params)
    return jax.vmap(lambda case, state: METHOD.step(classify, case, state))(cases, states)


@jax.jit
def start(cases):
    return jax.vmap(lambda case: METHOD.start(None, case, loop.no_progress(case)))(cases)


@pytest.fixture(scope="module")
def begun():
    return start(EVERY)


@pytest.fixture(scope="module")
def attacked():
    return linear_nets.attack(METHOD, PARAMS, EVERY)


class Reference:
    """All cases at once in float64, by the formulas of the report and of Keras."""

    def __init__(self, params, noise):
        self.weights, self.bias = (np.asarray(leaf, np.float64) for leaf in params)
        self.clean = EVERY.image.reshape(len(EVERY.image), -1) / 255
        self.noise = np.asarray(noise, np.float64).reshape(self.clean.shape)
        self.mean, self.square, self.steps = 0.0, 0.0, 0

    def loss_and_gradient(self):
        total = self.clean + self.noise
        scores = np.clip(total, 0, 1) @ self.weights + self.bias
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        error = chances - np.eye(linear_nets.CLASSES)[EVERY.target]
        sign = np.where(EVERY.target == EVERY.actual, -1, 1)
        by_chance = 2 * error / linear_nets.CLASSES * sign[:, None]
        by_score = chances * (by_chance - (by_chance * chances).sum(axis=1, keepdims=True))
        inside = (total >= 0) & (total <= 1)
        return sign * (error**2).mean(axis=1), by_score @ self.weights.T * inside

    def step(self):
        gradient = self.loss_and_gradient()[1]
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        rate = 0.01 * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        self.noise = self.noise - rate * self.mean / (np.sqrt(self.square) + 1e-7)

    def margins(self):
        """The margins with the noise in whole levels."""
        seen = np.clip(self.clean + np.rint(self.noise * 255) / 255, 0, 1)
        scores = seen @ self.weights + self.bias
        wanted = np.eye(linear_nets.CLASSES, dtype=bool)[EVERY.target]
        above = scores[wanted] - np.where(wanted, -np.inf, scores).max(axis=1)
        return np.where(EVERY.target == EVERY.actual, -above, above)


def test_three_steps_are_those_worked_out_by_hand(begun):
    reference, states = Reference(PARAMS, begun.inner.noise), begun
    for number in range(3):
        _, gradient = reference.loss_and_gradient()
        total = reference.clean + reference.noise
        reference.step()
        states = step(PARAMS, EVERY, states)
        found = np.asarray(states.inner.noise).reshape(reference.noise.shape)
        off = np.abs(found - reference.noise)  # the few whose gradient is the rounding of nothing
        assert off.max() < 5e-4 and (off > 2e-6).mean() < 0.01
        np.testing.assert_allclose(
            states.progress.gradient_last, np.linalg.norm(gradient, axis=1), rtol=1e-3, atol=1e-12
        )
        dead = np.mean((total < 0) | (total > 1), axis=1)
        np.testing.assert_allclose(states.progress.dead_last, dead, atol=1e-6)
        np.testing.assert_array_equal(states.progress.steps, number + 1)
    moved = np.abs(np.asarray(states.inner.noise) - np.asarray(begun.inner.noise))
    assert 0.025 < moved.max() < 0.031  # steps of about the learning rate


def test_the_loss_is_the_mean_over_the_classes_and_negative_if_untargeted(begun):
    reference = Reference(PARAMS, begun.inner.noise)
    seen = np.clip(reference.clean + reference.noise, 0, 1)
    scores = np.float32(seen @ reference.weights + reference.bias)
    found = jax.jit(jax.vmap(squared_error))(scores, EVERY.actual, EVERY.target)
    np.testing.assert_allclose(found, reference.loss_and_gradient()[0], rtol=1e-4, atol=1e-7)
    assert (np.asarray(found) <= 0).tolist() == (EVERY.actual == EVERY.target).tolist()


def test_the_first_noise_has_its_deviation_and_is_another_in_every_case(begun):
    noise = np.asarray(begun.inner.noise)
    assert np.std(noise) == pytest.approx(0.05, rel=0.05)
    assert abs(np.mean(noise)) < 0.005
    assert len({one.tobytes() for one in noise}) == len(noise)
    seen = np.clip(EVERY.image / 255 + np.rint(noise * 255) / 255, 0, 1)
    length = np.sqrt(np.square(seen - EVERY.image / 255).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(begun.progress.start_l2, length, rtol=1e-4)


def test_all_of_a_run_is_that_of_the_second_implementation(attacked, begun):
    """Which cases succeed and at which of the checks, after 1, 101, 201, ... 2901 steps."""
    reference = Reference(PARAMS, begun.inner.noise)
    first, close = np.full(len(EVERY.actual), -1), np.zeros(len(EVERY.actual), bool)
    while reference.steps < 3000:
        reference.step()
        if reference.steps % 100 == 1:
            margins = reference.margins()
            close |= (first < 0) & (np.abs(margins) < 0.02)
            first = np.where((first < 0) & (margins >= 0), reference.steps, first)
    assert (~close).sum() > 20 and len(set(first[~close])) > 3
    found = attacked.progress
    np.testing.assert_array_equal(np.asarray(found.first)[~close], first[~close])
    np.testing.assert_array_equal(found.steps, np.where(found.success, found.first, 3000))
    np.testing.assert_array_equal(found.success, np.asarray(found.first) > 0)


def test_what_is_said_of_a_case_is_true_of_its_bytes(attacked):
    found = jax.tree.map(lambda leaf: leaf.reshape(5, -1, *leaf.shape[1:]), attacked.progress)
    linear_nets.check_claims(PARAMS, IMAGES, LABELS, found, 0.0)


def test_a_black_value_with_noise_below_it_is_dead_and_never_moves(begun, attacked):
    """The clip swallows its gradient, so that all moments of Adam stay zero."""
    black = EVERY.image == 0
    before, after = (np.asarray(states.inner.noise) for states in (begun, attacked))
    stuck = black & (before < 0)
    np.testing.assert_array_equal(after[stuck], before[stuck])
    share = np.asarray(attacked.progress.dead_first)[EVERY.image.reshape(25, -1).max(axis=1) == 0]
    assert ((0.3 < share) & (share < 0.7)).all()
    white = EVERY.image == 255
    assert (after[white & (before > 0)] == before[white & (before > 0)]).all()
    free = ~black & ~white & np.asarray(attacked.progress.success)[:, None, None, None]
    moved = np.asarray(attacked.progress.steps)[:, None, None, None] > 1
    assert (after[free & moved] != before[free & moved]).mean() > 0.95


def test_the_clip_passes_gradients_at_its_very_ends_as_tensorflow_does():
    x = np.float32([-0.1, -1e-30, 0.0, 0.5, 1.0, 1.0000001, 2.0])
    np.testing.assert_array_equal(clip(x), np.clip(x, 0, 1))
    slopes = jax.vmap(jax.grad(clip))(x)
    np.testing.assert_array_equal(slopes, np.float32([0, 0, 1, 1, 1, 0, 0]))


def test_no_noise_on_a_black_image_has_all_of_its_gradient(begun):
    states = begun.replace(inner=begun.inner.__class__(
        jnp.zeros_like(begun.inner.noise), begun.inner.opt_state
    ))  # fmt: skip
    after = step(PARAMS, EVERY, states)
    reference = Reference(PARAMS, states.inner.noise)
    expected = np.linalg.norm(reference.loss_and_gradient()[1], axis=1)
    np.testing.assert_allclose(after.progress.gradient_last, expected, rtol=1e-3, atol=1e-12)
    assert not after.progress.dead_last.any()


def test_an_overconfident_net_has_no_gradient_left_though_its_margin_has(begun):
    """Squared errors of a softmax saturate; ten times the logits are ten times the margin."""
    away, case = EVERY.actual != EVERY.target, linear_nets.one_of(EVERY, 1)
    shares, slopes = [], []

    def margin(image, params):
        return criterion.margin(linear_nets.of_one(params)(image, None), case.actual, case.target)

    for scale in (1, 10):
        params = jax.tree.map(lambda leaf, by=scale: leaf * np.float32(by), PARAMS)
        gradient = np.asarray(step(params, EVERY, begun).progress.gradient_first)
        shares.append(np.mean(gradient[away] < 1e-6))
        slope = jax.jit(jax.grad(margin))(criterion.decode(case.image), params)
        slopes.append(np.linalg.norm(np.asarray(slope).reshape(-1)))
    assert shares[0] == 0 and shares[1] > 0.5
    assert slopes[1] == pytest.approx(10 * slopes[0], rel=1e-4)


def advance(method, classify):
    case = linear_nets.one_of(EVERY, 7)
    return jax.jit(lambda state, round_index, won: method.advance(
        lambda image, key: classify(image, key, won), case, state, round_index
    ))  # fmt: skip


def flag(image, key, won):
    """Checks, which give no key, find what `won` says; steps have a gradient all the same."""
    wanted = jnp.arange(5) == 2
    value = jnp.where(won, 1.0, -1.0) if key is None else jnp.sum(image)
    return jnp.where(wanted, value, 0.0)


@pytest.fixture(scope="module")
def flagged():
    """(advance, {round: state before it}, keys of the steps): dropout is on, nothing is won."""
    seen = []

    def classify(image, key, won):
        if key is not None:
            jax.debug.callback(lambda data: seen.append(tuple(data.tolist())),
                               jax.random.key_data(key))  # fmt: skip
        return flag(image, key, won)

    run = advance(Faithful(dropout=True), classify)
    state = linear_nets.one_of(start(EVERY), 7)
    states = [state]
    while states[-1].progress.running:
        states.append(run(states[-1], jnp.int32(len(states) - 1), jnp.bool_(False)))
    jax.effects_barrier()
    return run, states, seen


def test_checks_come_after_1_101_and_so_on_to_2901_steps_and_the_run_ends_at_3000(flagged):
    steps = [int(state.progress.steps) for state in flagged[1]]
    assert steps == [0, *range(1, 2902, 100), 3000]


def test_each_step_has_a_key_of_its_own_and_the_checks_have_none(flagged):
    _, states, seen = flagged
    assert len(seen) == len(set(seen)) == 3000
    assert float(states[-1].progress.best_margin) == -1.0  # by the branch without a key


@pytest.mark.parametrize(("number", "steps"), [(0, 1), (7, 701), (29, 2901)])
def test_a_success_at_a_check_ends_the_case(flagged, number, steps):
    run, states, _ = flagged
    progress = run(states[number], jnp.int32(number), jnp.bool_(True)).progress
    assert bool(progress.success) and not bool(progress.running)
    assert int(progress.first) == int(progress.steps) == steps


def test_what_the_last_99_steps_lead_to_is_shown_but_is_no_success(flagged):
    run, states, _ = flagged
    progress = run(states[30], jnp.int32(30), jnp.bool_(True)).progress
    assert int(progress.steps) == 3000 and not bool(progress.running)
    assert not bool(progress.success) and int(progress.first) == -1
    assert float(progress.last_margin) == 1.0 and float(progress.best_margin) == -1.0
    noise = run(states[30], jnp.int32(30), jnp.bool_(True)).inner.noise
    image = linear_nets.one_of(EVERY, 7).image
    shown = np.clip(image / 255 + np.rint(np.asarray(noise) * 255) / 255, 0, 1)
    np.testing.assert_array_equal(progress.last, np.uint8(np.rint(255 * shown)))
