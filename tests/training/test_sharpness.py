import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from research.training import losses, sharpness
from research.training.step import as_input
from training.small import SMALL_TRAIN, TX, init_states, net


def largest(matrix, iterations, start=None):
    start = jnp.ones(len(matrix)) if start is None else start
    return float(of_matrix(jnp.float32(matrix), start, iterations))


@functools.partial(jax.jit, static_argnums=2)
def of_matrix(matrix, start, iterations):
    return sharpness.largest_eigenvalue(lambda v: matrix @ v, start, iterations)


@pytest.mark.parametrize("iterations", [6, 20])
def test_a_quadratic_loss_has_the_sharpness_of_its_matrix(iterations):
    """Of six parameters, all eigenvalues, also with more products than that; and all negative."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    for eigenvalues in ([7, 3, 3, 1, 0, -9], [-1, -2, -3, -4, -5, -6], [1e-3] * 6, [0] * 6):
        found = largest(rotation @ np.diag(eigenvalues) @ rotation.T, iterations)
        assert found == pytest.approx(max(eigenvalues), rel=1e-5, abs=1e-6)


def test_a_start_that_reaches_few_directions_gives_the_largest_of_those():
    start = jnp.float32([1, 1, 0, 0])
    assert largest(np.diag([-2.0, -1, 5, 6]), 4, start) == pytest.approx(-1, rel=1e-5)


def test_large_eigenvalues_do_not_hide_in_rounding():
    """400 parameters, 60 products: without orthogonalisation copies of the extremes come."""
    eigenvalues = np.concatenate([np.linspace(-1, 1, 398), [50, 50.001]])
    start = jax.random.normal(jax.random.key(0), (400,))
    assert largest(np.diag(eigenvalues), 60, start) == pytest.approx(50.001, rel=1e-5)


def test_lanczos_equals_the_largest_eigenvalue_of_the_dense_hessian():
    """Of a net at its start: within 1e-5; images beyond the first do not count."""
    model = net(depth=2)
    params = init_states(model, TX, [3], SMALL_TRAIN.images[:1]).params
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), params)
    flat, unravel = ravel_pytree(params)

    def loss(flat):
        logits = model.apply({"params": unravel(flat)}, as_input(SMALL_TRAIN.images[:30]))
        return jnp.mean(losses.cross_entropy(logits, SMALL_TRAIN.labels[:30]))

    dense = float(np.linalg.eigvalsh(np.float64(jax.jit(jax.hessian(loss))(flat)))[-1])
    measure = jax.jit(sharpness.make_sharpness(model, images=30, iterations=20))
    assert float(measure(params, SMALL_TRAIN)["sharpness"]) == pytest.approx(dense, rel=1e-5)
    every = jax.jit(sharpness.make_sharpness(model, images=1000, iterations=20))
    assert abs(float(every(params, SMALL_TRAIN)["sharpness"]) / dense - 1) > 1e-3


def test_a_plateau_is_the_longest_stretch_within_the_band():
    values = np.array([0, 8, 13, 10, 14, 9, 7.9, 12, 12, 12, 12, 0.0])
    assert sharpness.plateau(values, 10.0) == (4, 8)
    assert sharpness.plateau(values[4:5], 10.0) == (0, 0)
    assert sharpness.plateau(np.array([10.0]), 10.0) == (1, 1)
