"""Taking away what is not needed: exact in a linear model, and never at the price of the class."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial import linear_nets
from research.adversarial import criterion, loop
from research.adversarial.polish import Polish, shrink

PARAMS, IMAGES, _ = linear_nets.draw(4, count=5)
UNUSED = 6  # values that no class looks at
PARAMS[0][:UNUSED] = 0.0
LABELS = np.argmax(linear_nets.exact(PARAMS, IMAGES), axis=1).astype(np.int32)
EVERY = linear_nets.every_case(IMAGES, LABELS)
SHRINK = jax.jit(shrink)


@given(
    st.lists(
        st.tuples(st.integers(100, 104), st.integers(100, 104), st.integers(-8, 8)),
        min_size=6,
        max_size=6,
    ),
    st.integers(0, 24).map(lambda n: n + 0.5),
)
@settings(max_examples=150, deadline=None)
def test_the_levels_taken_back_cost_no_more_than_there_is_and_save_what_that_can_buy(values, spare):
    """Against all 64 choices; costs are whole numbers, and what there is to spend is none."""
    clean, best, price = np.array(values).T
    away = np.sign(best - clean)
    shape = (2, 3, 1)
    found = SHRINK(
        np.uint8(best).reshape(shape),
        np.uint8(clean).reshape(shape),
        np.float32(255 * price).reshape(shape),
        np.float32(spare),
    )
    taken = best - np.asarray(found, int).reshape(-1)
    movable = best != clean
    assert ((taken == 0) | ((taken == away) & movable)).all()
    cost, saved = np.maximum(away * price, 0), 2 * np.abs(best - clean) - 1
    chosen = taken != 0
    assert cost[chosen].sum() <= spare
    assert chosen[movable & (cost == 0)].all()

    choices = [np.array(c, bool) for c in itertools.product((0, 1), repeat=6)]
    allowed = [c for c in choices if (c <= movable).all() and cost[c].sum() <= spare]
    most = max(saved[c].sum() for c in allowed)
    left = saved[movable & ~chosen]
    assert most - saved[chosen].sum() <= left.max(initial=0)
    if left.size:  # in the order of what a level saves for its cost, up to one too many
        rate = cost / np.maximum(saved, 1)
        first = movable & ~chosen & (rate == rate[movable & ~chosen].min())
        assert rate[chosen].max(initial=0) <= rate[first].min()
        assert cost[chosen].sum() + cost[first].max() > spare


@jax.jit
def polish(rounds, cases, progress, extra, reference):
    """Progress of all cases afterwards; `extra` [K] is added to the logits of `reference` only."""
    method, plain = Polish(rounds), linear_nets.of_one(PARAMS)

    def classify(image, key):
        same = jnp.all(image == criterion.decode(reference))
        return plain(image, key) + jnp.where(same, extra, 0.0)

    start = jax.vmap(lambda case, progress: method.start(classify, case, progress))
    states = start(cases, progress)
    return loop.run(method, classify, cases, states, (len(EVERY.actual),)).progress


def after(rounds, progress, extra=(0, 0, 0, 0, 0), reference=IMAGES[0]):
    return polish(jnp.int32(rounds), EVERY, progress, np.float32(extra), reference)


def begun(images, margins=None):
    """Progress [M] of cases for which these images were found."""
    if margins is None:
        found = zip(images, EVERY.actual, EVERY.target, strict=True)
        margins = [linear_nets.exact_margin(PARAMS, *case) for case in found]

    def judged(case, image, margin):
        lead = jnp.where(case.target == case.actual, -margin, margin)
        logits = lead * jax.nn.one_hot(case.target, linear_nets.CLASSES, dtype=jnp.float32)
        return loop.judge(loop.no_progress(case), case, image, logits, 0.01)

    start = jax.vmap(judged)
    return jax.jit(start)(EVERY, images, np.float32(margins))


def far_away():
    """For every case an image far away that does what is wanted of it."""
    goal = np.where(EVERY.target == EVERY.actual, (EVERY.actual + 1) % 5, EVERY.target)
    slope = (PARAMS[0] - PARAMS[0].mean(axis=1, keepdims=True)).T[goal].reshape(EVERY.image.shape)
    grain = np.random.default_rng(0).integers(0, 20, EVERY.image.shape)
    return np.uint8(np.where(slope > 0, 230 + grain, 6 + grain))


@pytest.fixture(scope="module")
def far():
    found = far_away()
    return found, begun(found)


def test_more_rounds_come_nearer_a_level_at_a_time_and_never_lose_the_class(far):
    images, progress = far
    length = np.asarray(progress.best_l2)
    for rounds in (1, 2, 5, 8):
        polished = after(rounds, progress)
        grid = jax.tree.map(lambda leaf: leaf.reshape(5, 5, *leaf.shape[1:]), polished)
        linear_nets.check_claims(PARAMS, IMAGES, LABELS, grid, 0.01)
        assert polished.success.all() and (polished.steps <= rounds).all()
        moved = images.astype(int) - np.asarray(polished.best)
        direction = np.sign(images.astype(int) - EVERY.image)
        assert (moved * direction >= 0).all() and np.abs(moved).max() <= rounds - 1
        now = np.asarray(polished.best_l2)
        assert (now < length).all() if rounds > 1 else (now == length).all()
        length = now


def test_no_rounds_and_what_has_failed_change_nothing(far):
    failed = begun(far[0], np.full(len(far[0]), -1.0))
    for rounds, progress in ((0, far[1]), (8, failed)):
        polished = after(rounds, progress)
        assert not polished.running.any() and not polished.steps.any()
        np.testing.assert_array_equal(polished.best, progress.best)
        np.testing.assert_array_equal(polished.success, progress.success)


def test_levels_that_buy_nothing_go_back_all_the_way():
    """Of values that no class looks at, and seven levels in seven rounds."""
    unused = np.arange(IMAGES[0].size).reshape(linear_nets.SHAPE) < UNUSED
    near = EVERY.image.astype(int) + np.where(EVERY.image < 128, 7, -7)
    images = np.where(unused, near, far_away()).astype(np.uint8)
    polished = after(8, begun(images))
    np.testing.assert_array_equal(np.asarray(polished.best)[:, unused], EVERY.image[:, unused])
    assert polished.success.all()


def test_a_refusal_halves_what_is_spent_and_three_end_it(far):
    """A classifier that knows one image by heart: whatever is taken away, the class is lost."""
    row = 8
    reference = linear_nets.one_of(EVERY, row).image ^ np.uint8(64)
    images = far[0].copy()
    images[row] = reference
    margins = np.full(len(images), -1.0)
    extra = 100 * np.eye(linear_nets.CLASSES)[EVERY.target[row]]
    assert EVERY.target[row] != EVERY.actual[row]
    plain = linear_nets.exact_margin(PARAMS, reference, EVERY.actual[row], EVERY.target[row])
    assert plain < -1
    margins[row] = 100 + plain
    polished = linear_nets.one_of(after(8, begun(images, margins), extra, reference), row)
    assert int(polished.steps) == 4 and bool(polished.success)
    np.testing.assert_array_equal(polished.best, reference)
    assert float(polished.last_margin) < 0
