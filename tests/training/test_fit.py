"""Whole trainings: seeds, devices, resuming and early stopping."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.models.cnn import HE, Dense
from research.models.mlp import MLP
from research.training.fit import fit
from research.training.step import Loop, init_state, init_states
from training.small import (
    SMALL_TEST,
    SMALL_TRAIN,
    TEST,
    TRAIN,
    TX,
    fitted,
    fitted_randomly,
    net,
    one,
    slow,
)

pytestmark = pytest.mark.optimized


@pytest.mark.parametrize("net_name", ["relu-5", slow("sigmoid-20"), slow("tanh-40")])
def test_the_probe_changes_no_bit_of_the_parameters(net_name):
    activation, depth = net_name.split("-")
    model = MLP(int(depth), 32, activation)
    with_probe, seen = fitted(model, epochs=2)
    without, unseen = fitted(model, epochs=2, probe=False)
    chex.assert_trees_all_equal(with_probe, without)
    assert seen[1][1].probe and not unseen[1][1].probe


def test_a_net_that_one_program_draws_is_the_net_drawn_one_operation_at_a_time():
    """Normal numbers, whose last bits tell a compiler that makes less of an effort still."""
    model, image = Dense(2, kernel_init=HE), SMALL_TRAIN.images[:1].reshape(1, -1)
    drawn = init_states(model, TX, [2**32 - 1], image, Loop(1, 32, 32, convolutions=True))
    chex.assert_trees_all_equal(one(drawn), init_state(model, TX, 2**32 - 1, image))


def test_each_seed_of_several_is_bit_identical_to_its_run_alone():
    model = net()
    together, seen = fitted(model, seeds=[3, 4, 5, 6, 7, 8])  # more seeds than the four devices
    for row, seed in ((0, 3), (5, 8)):
        alone, seen_alone = fitted(model, seeds=[seed])
        chex.assert_trees_all_equal(one(together, row), one(alone))
        chex.assert_trees_all_equal(one(seen[2][1], row), one(seen_alone[2][1]))


@pytest.mark.usefixtures("quickly_compiled")
def test_seeds_differ_from_one_another():
    together, _ = fitted(net(), seeds=[0, 1], epochs=1)
    kernel = together.params["hidden_01"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


@pytest.mark.usefixtures("quickly_compiled")
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one():
    model = net()
    whole, seen = fitted(model, epochs=4, seeds=[0, 1])
    _, first_half = fitted(model, epochs=2, seeds=[0, 1])
    resumed, second_half = fitted(model, epochs=4, seeds=[0, 1], resume=(2, first_half[2][0]))
    chex.assert_trees_all_equal(resumed, whole)
    assert sorted(second_half) == [3, 4]
    for epoch in (3, 4):
        chex.assert_trees_all_equal(second_half[epoch][1], seen[epoch][1])


@pytest.mark.usefixtures("quickly_compiled")
def test_two_passes_an_epoch_are_two_epochs_and_a_measure_sees_the_net_after_them():
    def measure(params, data):
        largest = jax.tree.reduce(jnp.maximum, jax.tree.map(jnp.max, params))
        return {"largest": largest, "images": jnp.int32(len(data.images))}

    once, seen = fitted(net(), epochs=2, passes=2, probe=False, measure=measure)
    apart, each = fitted(net(), epochs=4, probe=False)
    chex.assert_trees_all_equal(once, apart)
    for epoch in (1, 2):
        states, result = seen[epoch]
        chex.assert_trees_all_equal(states, each[2 * epoch][0])
        assert int(result.train.count[0]) == 400
        assert result.measured["images"].tolist() == [200]
        expected = max(float(leaf.max()) for leaf in jax.tree.leaves(states.params))
        assert float(result.measured["largest"][0]) == expected


@pytest.mark.usefixtures("quickly_compiled")
def test_training_learns_the_drawn_digits():
    _, seen = fitted(MLP(2, 32, "relu"), epochs=40, lr=0.3)
    result = seen[40][1]
    assert int(result.train.correct[0]) / 200 > 0.97
    assert int(result.test.correct[0]) / 70 > 0.6


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.full(40, 10), "training labels 0..9, got 10"),
        (np.full(40, -1), "training labels 0..9, got -1"),
        (np.eye(10)[np.zeros(40, int)], "training labels to be integers, got float64"),
    ],
)
def test_labels_that_the_net_has_no_output_for_are_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        _ = fitted_randomly(data=(SMALL_TRAIN.replace(labels=labels), SMALL_TEST))


@pytest.mark.usefixtures("quickly_compiled")
def test_what_is_raised_within_an_epoch_ends_the_training_and_loses_the_epoch():
    finished, loop = [], Loop(3, 64, 64, steps_per_dispatch=1)

    def stop(number, done, steps):
        if (number, done) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _ = fit(
            *(net(depth=1), TX, TRAIN, TEST, loop),
            seeds=[0],
            resume=None,
            on_epoch=lambda number, *_: finished.append(number),
            on_steps=stop,
        )
    assert finished == [1]


def test_seeds_on_eight_devices_end_as_on_one_to_the_bit(monkeypatch):
    seeds, all_devices = range(8), jax.devices()
    spread = fitted(net(), seeds=seeds, epochs=1)
    monkeypatch.setattr(jax, "devices", lambda: all_devices[:1])
    chex.assert_trees_all_equal(fitted(net(), seeds=seeds, epochs=1), spread)


def stopping_fit(loop, *, seeds, resume=None):
    """Nets that learn by heart: {epoch: (states, result)}."""
    seen = {}
    states = fit(
        net("relu", 2), optax.sgd(0.2), SMALL_TRAIN, SMALL_TEST, loop, seeds=seeds, resume=resume,
        on_epoch=lambda number, states, result, _: seen.update({number: (states, result)}),
    )  # fmt: skip
    return states, seen


@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("steps_per_dispatch", [slow(0), 2])
def test_each_seed_stops_by_itself_and_stays_as_it_was_alone(steps_per_dispatch):
    """Patience 1: a seed ends with the first epoch whose test loss is not its lowest."""
    loop = Loop(9, 8, 32, patience=1, keep_best=True, steps_per_dispatch=steps_per_dispatch)
    states, seen = stopping_fit(loop, seeds=[0, 1, 2])
    ends = []
    for row in range(3):
        alone, rows = stopping_fit(loop, seeds=[row])
        chex.assert_trees_all_equal(one(states, row), one(alone))
        losses = [float(r.test.loss_sum[0]) for _, r in rows.values()]
        assert all(a > b for a, b in itertools.pairwise(losses[:-1]))
        assert losses[-1] >= losses[-2] and states.kept.epoch[row] == len(rows) - 1
        best = rows[len(rows) - 1][0].params
        chex.assert_trees_all_equal(one(states.kept.params, row), one(best))
        ends.append(len(rows))
    assert len(seen) == max(ends) and len(set(ends)) > 1
    for number, (_, result) in seen.items():
        np.testing.assert_array_equal(result.trained, [number <= end for end in ends])
        np.testing.assert_array_equal(result.train.count > 0, result.trained)


@pytest.mark.usefixtures("quickly_compiled")
def test_early_stopping_goes_on_from_a_saved_state():
    loop = Loop(9, 8, 32, patience=1)
    states, seen = stopping_fit(loop, seeds=[0, 1])
    again, rest = stopping_fit(loop, seeds=[0, 1], resume=(2, seen[2][0]))
    chex.assert_trees_all_equal(states, again)
    assert list(rest) == list(seen)[2:]
    assert stopping_fit(loop, seeds=[0, 1], resume=(max(seen), states))[1] == {}
