"""Strict types for every test, and four devices, as many as the seed axis needs to be tested."""

import os

# More threads than cores: queued collectives of several virtual devices can wait for one another.
os.environ.setdefault("NPROC", "16")
# For the processes that tests start as well, which would share the memory of one accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
