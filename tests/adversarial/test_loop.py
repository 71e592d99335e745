"""The driver, with methods so simple that every number of theirs is known."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.adversarial import criterion, loop


class Countdown:
    """Runs for as many rounds as the first byte of the image says, and spoils what it is given.

    rows: how many cases each round was made for, as the machine saw it.
    """

    required = 0.0

    def __init__(self, steps_per_round):
        self.steps_per_round = steps_per_round
        self.rows = []

    def start(self, classify, case, progress):
        return loop.State(progress, jnp.uint32(1))

    def advance(self, classify, case, state, round_index):
        def seen(given):
            self.rows.append(np.shape(given)[0])
            return given

        left = jnp.asarray(case.image[0, 0, 0], jnp.int32) - state.progress.steps - 1
        left = jax.pure_callback(
            seen, jax.ShapeDtypeStruct((), jnp.int32), left, vmap_method="broadcast_all"
        )
        inner = state.inner * jnp.uint32(31) + jnp.asarray(case.target, jnp.uint32)
        progress = dataclasses.replace(
            state.progress, steps=state.progress.steps + 1, first=round_index, running=left > 0
        )
        return loop.State(progress, inner)


def countdown(rounds, sizes, *, running=True, steps_per_round=1):
    """States after `rounds` rounds of every case, and the rows of each round."""
    method, count = Countdown(steps_per_round), len(rounds)
    images = np.zeros((count, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = rounds
    everything = loop.Case(
        image=images,
        actual=np.zeros(count, np.int32),
        target=np.arange(count, dtype=np.int32),
        key=jax.random.split(jax.random.key(0), count),
    )

    def start(case):
        state = method.start(None, case, loop.no_progress(case))
        return state.replace(progress=state.progress.replace(running=jnp.bool_(running)))

    @jax.jit
    def run(everything):
        return loop.run(method, None, everything, jax.vmap(start)(everything), sizes)

    states = jax.block_until_ready(run(everything))
    jax.effects_barrier()
    return states, method.rows


ROUNDS = [3, 1, 9, 2, 1, 5, 1, 1, 2, 9, 1, 4]
SIZES = (5, 2)


@pytest.fixture(scope="module")
def counted():
    return countdown(ROUNDS, SIZES)


def groups(count):
    """Sizes of the groups that take `count` cases: none is left, and few places are."""
    whole, left = divmod(count, SIZES[0])
    return [SIZES[0]] * whole + [SIZES[1]] * -(-left // SIZES[1])


def test_states_are_packed_into_an_array_for_each_dtype_and_taken_out_as_they_were():
    cases = loop.Case(np.zeros((3, 2, 2, 1), np.uint8), *[jnp.zeros(3, jnp.int32)] * 3)
    inner = {
        "keys": jax.random.split(jax.random.key(0), 3),
        "noise": jax.random.normal(jax.random.key(1), (3, 2, 2, 1)),
        "nothing": jnp.zeros((3, 0)),
    }
    states = loop.State(jax.vmap(loop.no_progress)(cases), inner)
    pack, unpack = loop.packing(states)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(states)}
    assert len(pack(states)) == len(dtypes) == 5
    chex.assert_trees_all_equal(unpack(pack(states)), states)
    turned = unpack([packed[::-1] for packed in pack(states)])
    chex.assert_trees_all_equal(turned, jax.tree.map(lambda leaf: leaf[::-1], states))


def test_finished_cases_cost_no_more_once_they_fill_a_group(counted):
    running = [sum(r > number for r in ROUNDS) for number in range(max(ROUNDS))]
    assert counted[1] == [size for count in running for size in groups(count)]
    assert [groups(n) for n in (12, 7, 5, 3)] == [[5, 5, 2], [5, 2], [5], [2, 2]]
    assert {12, 7, 5, 3} <= set(running)


def test_every_case_has_its_own_number_of_rounds_and_is_then_left_alone(counted):
    """That the rounds are the same for all: the last one a case sees is its number less one."""
    states, _ = counted
    expected = []
    for target, rounds in enumerate(ROUNDS):
        value = 1
        for _ in range(rounds):
            value = (value * 31 + target) % 2**32
        expected.append(value)
    np.testing.assert_array_equal(states.inner, np.uint32(expected))
    np.testing.assert_array_equal(states.progress.steps, ROUNDS)
    np.testing.assert_array_equal(states.progress.first, np.array(ROUNDS) - 1)
    assert not states.progress.running.any()


def test_gathering_changes_no_bit(counted):
    """Nor does a last group that is longer than what is left of all cases."""
    for sizes in ((12,), (7,)):
        chex.assert_trees_all_equal(countdown(ROUNDS, sizes)[0], counted[0])


def test_a_case_that_finishes_within_a_round_is_left_alone_for_the_rest_of_it(counted):
    states, rows = countdown(ROUNDS, SIZES, steps_per_round=4)
    np.testing.assert_array_equal(states.inner, counted[0].inner)
    np.testing.assert_array_equal(states.progress.steps, ROUNDS)
    np.testing.assert_array_equal(states.progress.first, (np.array(ROUNDS) - 1) // 4)
    assert rows == [size for count in (12, 4, 2) for size in groups(count) for _ in range(4)]


def test_a_case_that_does_not_want_to_run_is_not_touched():
    states, rows = countdown([4, 4], (2,), running=False)
    np.testing.assert_array_equal(states.inner, [1, 1])
    assert not states.progress.steps.any() and rows == []


def clean_case():
    return loop.Case(np.full((1, 2, 1), 100, np.uint8), np.int32(0), np.int32(1), None)


def test_of_failures_the_one_with_the_largest_margin_is_kept_and_of_successes_the_nearest():
    """(bytes, margin) -> what is kept afterwards; from 0.5 on it is a success."""
    story = [
        ((90, 100), -3.0, (90, -3.0, False, -1)),
        ((60, 100), -1.0, (60, -1.0, False, -1)),
        ((99, 100), -2.0, (60, -1.0, False, -1)),
        ((80, 100), np.nan, (60, -1.0, False, -1)),
        ((70, 100), 0.5, (70, 0.5, True, 4)),
        ((60, 100), 9.0, (70, 0.5, True, 4)),  # a larger margin is not asked for
        ((90, 100), 0.4, (70, 0.5, True, 4)),  # nearer, but no success
        ((70, 100), 2.0, (70, 0.5, True, 4)),  # as near
        ((110, 100), 0.6, (110, 0.6, True, 4)),
    ]
    case = clean_case()
    progress, judge = loop.no_progress(case), jax.jit(loop.judge, static_argnums=4)
    for number, (values, margin, kept) in enumerate(story):
        candidate = np.uint8(values).reshape(1, 2, 1)
        progress = dataclasses.replace(progress, steps=jnp.int32(number))
        progress = judge(progress, case, candidate, np.float32([0, margin]), 0.5)
        found = (progress.best[0, 0, 0], progress.best_margin, progress.success, progress.first)
        assert tuple(np.asarray(value).item() for value in found) == pytest.approx(kept)
        np.testing.assert_array_equal(progress.last, candidate)
        np.testing.assert_array_equal(progress.last_margin, np.float32(margin))
        away = abs(kept[0] - 100) / 255 if kept[2] else np.inf
        assert float(progress.best_l2) == pytest.approx(away, rel=1e-5)


def test_before_anything_is_judged_the_image_itself_is_what_there_is():
    case = clean_case()
    progress = loop.no_progress(case)
    np.testing.assert_array_equal(progress.best, case.image)
    assert (int(progress.steps), int(progress.first)) == (0, -1)
    assert bool(progress.running) and not bool(progress.success)
    assert float(progress.best_margin) == -np.inf and float(progress.best_l2) == np.inf


def test_the_first_gradient_is_remembered_and_the_last_one_is_the_last():
    progress, count = loop.no_progress(clean_case()), jax.jit(loop.count_step)
    for gradient, dead in (([3.0, 4.0], 0.5), ([0.0, 1.0], 0.25), ([6.0, 8.0], 0.125)):
        progress = count(progress, np.float32(gradient).reshape(1, 2, 1), dead)
    assert (float(progress.gradient_first), float(progress.gradient_last)) == (5.0, 10.0)
    assert (float(progress.dead_first), float(progress.dead_last)) == (0.5, 0.125)
    assert int(progress.steps) == 3


def test_distances_of_progress_are_the_judges():
    case = clean_case()
    other = np.uint8([[[10], [255]]])
    found = loop.judge(loop.no_progress(case), case, other, np.float32([0, 1]), 0.5)
    assert float(found.best_l2) == float(criterion.l2(other, case.image))
