import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mlp import FUNCTIONS

from research.models.activations import ACTIVATIONS

GRID = np.linspace(-8, 8, 4001, dtype=np.float32)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_function_and_derivative_equal_the_formulas_written_by_hand(name):
    function, derivative = FUNCTIONS[name]
    ours = ACTIVATIONS[name].function
    np.testing.assert_allclose(ours(GRID), function(np.float64(GRID)), rtol=2e-6, atol=2e-6)
    slopes = jax.vmap(jax.grad(ours))(jnp.asarray(GRID[GRID != 0]))
    expected = derivative(np.float64(GRID[GRID != 0]))
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_stated_range_of_the_derivative_is_the_tightest(name):
    low, high = ACTIVATIONS[name].derivative_range
    slopes = FUNCTIONS[name][1](np.linspace(-30, 30, 60_001))
    assert slopes.min() == pytest.approx(low, abs=1e-6)
    assert slopes.max() == pytest.approx(high, abs=1e-6)


def test_lecun_is_plus_minus_one_at_plus_minus_one_but_for_its_linear_term():
    lecun = ACTIVATIONS["lecun"].function
    assert float(lecun(1.0)) == pytest.approx(1.0 + 0.01, abs=1e-4)
    assert float(lecun(0.0)) == 0.0
    assert float(lecun(-1.0)) == -float(lecun(1.0))
