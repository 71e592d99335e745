import itertools

import jax
import numpy as np

from research import keys


def bits(*words):
    return tuple(np.asarray(jax.random.key_data(keys.stream(*words))).tolist())


def test_streams_epochs_and_seeds_all_have_keys_of_their_own():
    words = itertools.product((0, 1), ("init", "order", "dropout"), (1, 2))
    assert len({bits(*w) for w in words}) == 12


def test_a_key_depends_on_its_own_words_only_and_not_on_being_traced():
    traced = jax.jit(lambda seed, epoch: jax.random.key_data(keys.stream(seed, "order", epoch)))
    assert tuple(traced(np.uint32(7), 3).tolist()) == bits(7, "order", 3)
