import itertools

import jax
import numpy as np

from research import prng


def bits(*words):
    return tuple(np.asarray(jax.random.key_data(prng.stream(*words))).tolist())


def test_streams_epochs_and_seeds_all_have_keys_of_their_own():
    words = itertools.product((0, 1), ("init", "order", "dropout"), (1, 2))
    assert len({bits(*w) for w in words}) == 12


def test_a_stream_may_begin_at_any_key_and_a_runs_begins_at_its_seed():
    for words in (("noise",), ("noise", 3), ("noise", 3, 4)):
        found = prng.after(jax.random.key(5), *words)
        assert tuple(np.asarray(jax.random.key_data(found)).tolist()) == bits(5, *words)


def test_streams_that_begin_at_different_keys_or_count_otherwise_differ():
    begun = [prng.stream(0, "noise", 1, 2), prng.stream(0, "noise", 2, 1), jax.random.key(0)]
    words = itertools.product(begun, ("start", "dropout"), ((), (1,), (1, 2), (2, 1)))
    found = [jax.random.key_data(prng.after(key, name, *counts)) for key, name, counts in words]
    assert len({tuple(np.asarray(data).tolist()) for data in found}) == 24


def test_a_key_depends_on_its_own_words_only_and_not_on_being_traced():
    traced = jax.jit(lambda seed, epoch: jax.random.key_data(prng.stream(seed, "order", epoch)))
    assert tuple(traced(np.uint32(7), 3).tolist()) == bits(7, "order", 3)


def test_a_key_is_the_same_whatever_generator_is_the_default():
    expected = bits(7, "order", 3)
    with jax.default_prng_impl("rbg"):
        assert bits(7, "order", 3) == expected
