"""Strict types for every test, and eight devices, for two axes of a mesh."""

import os
from collections.abc import Iterator

# More threads than cores: queued collectives of several virtual devices can wait for one another.
os.environ.setdefault("NPROC", "16")
# For the processes that tests start as well, which would share the memory of one accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A program that several tests build is compiled by the first of them.

    Every process of the tests has a folder of its own, made anew: files are not written at once, so
    that another process could read half of one, and nothing of an earlier run is ever met.
    """
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """Half the time, by leaving out what makes large programs fast."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
