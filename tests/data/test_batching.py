import chex
import jax
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from research.data import batching, synthetic

SIZES = given(n=st.integers(1, 200), batch_size=st.integers(1, 70))


@SIZES
@settings(max_examples=8, deadline=None)
def test_padded_batches_visit_every_example_once_in_order(n, batch_size):
    indices, mask = batching.pad_batches(n, batch_size)
    chex.assert_shape([indices, mask], (batching.steps_per_epoch(n, batch_size), batch_size))
    assert np.asarray(indices)[np.asarray(mask)].tolist() == list(range(n))
    assert 0 <= indices.min() <= indices.max() < n


@SIZES
@example(n=5, batch_size=70)
@example(n=64, batch_size=32)
@settings(max_examples=2, deadline=None)  # each is compiled
def test_an_epoch_is_a_permutation_and_only_the_last_batch_is_partial(n, batch_size):
    indices, mask = batching.epoch_order(jax.random.key(n), n, batch_size)
    assert sorted(np.asarray(indices)[np.asarray(mask)].tolist()) == list(range(n))
    assert mask[:-1].all()
    assert mask[-1].sum() == n - (len(mask) - 1) * batch_size


def test_mnist_in_batches_of_64_is_938_steps_and_the_last_has_32():
    _, mask = batching.pad_batches(60_000, 64)
    assert (len(mask), int(mask[-1].sum())) == (938, 32)


def test_two_keys_give_two_orders_and_one_key_one(key):
    first, second = (batching.epoch_order(k, 100, 10)[0] for k in jax.random.split(key))
    assert (first != second).any()
    assert (first == batching.epoch_order(jax.random.split(key)[0], 100, 10)[0]).all()


def test_gather_gives_the_rows_at_the_indices():
    data, _ = synthetic.digits(20, 10)
    batch = batching.gather(data, np.array([7, 3], np.int32), np.array([True, False]))
    np.testing.assert_array_equal(batch.images, data.images[[7, 3]])
    np.testing.assert_array_equal(batch.labels, data.labels[[7, 3]])


@given(st.integers(1, 500), st.integers(1, 200))
def test_pieces_of_an_epoch_are_as_even_as_any_of_about_the_size_asked_for(steps, most):
    size = batching.even_pieces(steps, most)
    assert 0 < size <= min(steps, most) and (2 * size > most or size == steps)
    over = [-steps % other for other in range(1, min(steps, most) + 1) if 2 * other > most]
    assert -steps % size == min(over, default=0)


def test_391_steps_are_17_pieces_of_23():
    assert batching.even_pieces(391, 25) == 23
