"""Named streams of random keys: adding a stream never moves the numbers of another."""

import zlib

import jax

from research.structs import Array


def stream(seed: Array | int, name: str, *counters: Array | int) -> jax.Array:
    """Key of the stream `name` of a run, at the given counters (an epoch, a step).

    seed: [] uint32 or int.  The key depends on nothing else, so that a run which resumes at any
    epoch draws what the uninterrupted run would have drawn.  The generator is Threefry, whatever
    `JAX_DEFAULT_PRNG_IMPL` says.
    """
    return after(jax.random.key(seed, impl="threefry2x32"), name, *counters)


def after(key: jax.Array, name: str, *counters: Array | int) -> jax.Array:
    """Key of the stream `name` that begins at `key`, at the given counters."""
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for counter in counters:
        key = jax.random.fold_in(key, counter)
    return key
