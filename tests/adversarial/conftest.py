"""Programs of this directory run for milliseconds and are compiled for seconds."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quickly_compiled():
    """Half the time, by leaving out what makes large programs fast."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
