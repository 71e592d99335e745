"""A step against a backward pass written out by hand, and what it draws and leaves alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_mlp
import pytest

from research import prng
from research.data import batching
from research.models.cnn import CNN
from research.training.step import Loop, as_input, init_states, make_step
from training.small import (
    ADAM,
    AUGMENT,
    SEED,
    SMALL_TRAIN,
    TX,
    YES,
    batch_of,
    net,
    one,
    slow,
    start,
)


def loop(**settings):
    return Loop(1, 32, 32, **settings)


@pytest.mark.parametrize("activation", ["relu", slow("tanh"), slow("sigmoid"), "lecun"])
def test_gradients_and_signals_equal_those_worked_out_by_hand(activation):
    model = net(activation)
    state = one(start(model))
    batch = batch_of(range(9))
    loss, by_hand, signals_by_hand = numpy_mlp.gradients(
        state.params, model.layer_names, activation, batch.images, batch.labels
    )

    def spy(gradients, signals):
        return {"gradients": gradients, "signals": signals}

    _, (counted, seen) = jax.jit(make_step(model, TX, loop(probe=spy)))(state, batch, SEED, YES)
    assert float(counted.loss_sum) / int(counted.count) == pytest.approx(loss, rel=1e-6)
    for layer in model.layer_names:
        for leaf in ("kernel", "bias"):
            expected = by_hand[layer][leaf]
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                seen["gradients"][layer][leaf], expected, rtol=1e-4, atol=1e-6 * scale
            )
        expected = signals_by_hand[layer]
        np.testing.assert_allclose(
            seen["signals"][f"{layer}_signal"],
            expected,
            rtol=1e-4,
            atol=1e-6 * np.abs(expected).max(),
        )


def test_a_step_is_plain_gradient_descent():
    model = net()
    state = one(start(model))
    batch = batch_of(range(16))
    _, by_hand, _ = numpy_mlp.gradients(
        state.params, model.layer_names, "tanh", batch.images, batch.labels
    )
    after, _ = jax.jit(make_step(model, TX, loop()))(state, batch, SEED, YES)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.params, by_hand)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-4, atol=1e-6)
    assert int(after.step) == 1


def test_masked_examples_change_neither_the_update_nor_the_sums():
    model = net()
    state = one(start(model))
    step = jax.jit(make_step(model, TX, loop()))
    plain, (counted, _) = step(state, batch_of([1, 2, 3]), SEED, YES)
    mask = np.array([True, True, True, False, False])
    padded, (counted_padded, _) = step(state, batch_of([1, 2, 3, 90, 91], mask), SEED, YES)
    chex.assert_trees_all_close(padded.params, plain.params, rtol=1e-5, atol=1e-7)
    assert int(counted_padded.count) == int(counted.count) == 3
    assert float(counted_padded.loss_sum) == pytest.approx(float(counted.loss_sum), rel=1e-6)


@pytest.fixture(scope="module")
def random_step():
    """A compiled step with dropout and changed images, the state before it and a batch."""
    model = CNN(filters=(), pools=(), dropouts=(), dense=(5,), dense_dropouts=(0.5,))
    state = one(init_states(model, ADAM, [0], SMALL_TRAIN.images))
    batch = batching.gather(SMALL_TRAIN, np.arange(16), np.ones(16, bool))
    return jax.jit(make_step(model, ADAM, loop(augment=AUGMENT))), state, batch


def test_what_is_random_in_a_step_is_a_function_of_seed_and_step(random_step):
    step, state, batch = random_step
    found = step(state, batch, SEED, YES)
    chex.assert_trees_all_equal(step(state, batch, SEED, YES), found)
    (_, (counted, _)), later = found, state.replace(step=state.step + 1)
    for other in (step(state, batch, SEED + 1, YES), step(later, batch, SEED, YES)):
        assert float(other[1][0].loss_sum) != float(counted.loss_sum)


def test_a_batch_that_is_masked_as_a_whole_changes_nothing(random_step):
    step, state, batch = random_step
    state, _ = step(state, batch, SEED, YES)  # with momentum that would go on
    empty = batch.replace(mask=jnp.zeros(16, bool))
    after, (counted, _) = step(state, empty, SEED, YES)
    chex.assert_trees_all_equal(after, state)
    assert (float(counted.loss_sum), int(counted.count), int(counted.correct)) == (0.0, 0, 0)


def test_adversarial_images_are_made_by_the_net_before_its_update_with_a_key_of_seed_and_step():
    model = net(depth=1)
    state = one(start(model)).replace(step=jnp.int32(7))
    batch = batch_of(range(4))

    @jax.jit
    def stepped(state, batch):
        given = []

        def adversarial(*arguments):
            given.extend(arguments)
            return jnp.zeros_like(batch.images)

        after, _ = make_step(model, TX, loop(adversarial=adversarial))(state, batch, SEED, YES)
        return after, given

    after, (params, key, seen) = stepped(state, batch)
    chex.assert_trees_all_equal((params, seen), (state.params, batch))
    assert key == prng.stream(0, "harden", 7)
    first = model.layer_names[0]  # it sees black, which moves its bias only
    moved = [after.params[first][leaf] != params[first][leaf] for leaf in ("kernel", "bias")]
    assert [bool(each.any()) for each in moved] == [False, True]


def test_only_uint8_images_are_accepted():
    with pytest.raises(AssertionError, match="uint8"):
        _ = as_input(np.zeros((1, 2, 2, 1), np.float32))
    assert float(as_input(np.full((1, 1, 1, 1), 255, np.uint8)).max()) == 1.0
