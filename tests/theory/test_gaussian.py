import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import hermite_e
from numpy_mlp import FUNCTIONS

from research.models.activations import ACTIVATIONS
from research.theory import gaussian

KERNEL = np.array([[0.9, 0.5, -0.2], [0.5, 0.4, 0.1], [-0.2, 0.1, 1.2]])
X, W = hermite_e.hermegauss(160)
W = W / W.sum()


def by_product_rule(f, kernel, orders):
    """E f^(i)(u_a) f^(j)(u_b) for all pairs and (i, j) of orders, by a product of Gauss rules."""
    result = np.zeros((len(orders), *kernel.shape))
    for a, b in np.ndindex(kernel.shape):
        ua = np.sqrt(kernel[a, a]) * X[:, None] + np.zeros_like(X)
        rest = np.sqrt(max(kernel[b, b] - kernel[a, b] ** 2 / kernel[a, a], 0))
        ub = kernel[a, b] / kernel[a, a] * ua + rest * X
        left, right = (gaussian.derivatives(f, u, 3) for u in (ua, ub))
        result[:, a, b] = [W @ (left[i] * right[j]) @ W for i, j in orders]
    return result


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_those_of_the_formulas_by_hand_in_float64(name):
    x = np.linspace(-6, 6, 101) + 1e-3
    value, slope, _, third = gaussian.derivatives(ACTIVATIONS[name].function, x, 3)
    np.testing.assert_allclose(value, FUNCTIONS[name][0](x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(slope, FUNCTIONS[name][1](x), rtol=1e-12, atol=1e-14)
    h = 1e-3
    if name != "relu":
        bend = (FUNCTIONS[name][1](x + h) - 2 * slope + FUNCTIONS[name][1](x - h)) / h**2
        np.testing.assert_allclose(third, bend, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("q", [1e-4, 0.3, 16.0])
def test_moments_of_one_variable_equal_monte_carlo(name, q):
    f, df = FUNCTIONS[name]
    u = np.sqrt(q) * np.random.default_rng(0).standard_normal(200_000)
    for power in (2, 4):
        for order, values in enumerate((f(u), df(u))):
            got = gaussian.expectation(
                ACTIVATIONS[name].function, lambda *v, o=order, p=power: v[o] ** p, np.array(q)
            )
            sample = values**power
            error = sample.std() / np.sqrt(len(u)) + 1e-9 * abs(sample.mean())
            assert abs(got - sample.mean()) < 4 * error


def test_a_wide_gaussian_needs_more_than_24_nodes_and_has_them():
    """The slope of tanh at sqrt(q) = 3.4: chi at sigma_w = 4 is 2.35, with 24 nodes 0.89."""
    q = np.array(3.77**2)
    got = gaussian.expectation(jnp.tanh, lambda f, d: d**2, q)
    x, w = hermite_e.hermegauss(24)
    u = np.linspace(-60, 60, 1_200_001)
    density = np.exp(-u * u / (2 * q)) / np.sqrt(2 * np.pi * q)
    fine = ((1 - np.tanh(u) ** 2) ** 2 * density).sum() * (u[1] - u[0])
    coarse = (w / w.sum()) @ (1 - np.tanh(np.sqrt(q) * x) ** 2) ** 2
    assert got == pytest.approx(fine, rel=1e-9)
    assert abs(coarse / fine - 1) > 0.05


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "lecun"])
def test_pairs_equal_a_product_of_gauss_rules(name):
    f = ACTIVATIONS[name].function
    ours, slopes, mean = gaussian.pairs(f, KERNEL)
    orders = [(0, 0), (1, 1), (2, 0), (1, 1), (2, 2), (3, 1)]
    expected = by_product_rule(f, KERNEL, orders)
    np.testing.assert_allclose([*ours, *slopes], expected, atol=2e-6)
    wide = np.sqrt(np.diag(KERNEL))[:, None] * X
    np.testing.assert_allclose(mean, FUNCTIONS[name][0](wide) @ W, atol=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_the_kernels_are_finite_differences_of_them(name):
    """Price's theorem as `Pairs` states it, for every activation."""
    f, h = ACTIVATIONS[name].function, 1e-5
    for which in (0, 1):
        base = gaussian.pairs(f, KERNEL)[which]

        def moved(a, b, which=which):
            step = np.zeros((3, 3))
            step[a, b] = step[b, a] = h
            up, down = (gaussian.pairs(f, KERNEL + s * step)[which].value for s in (1, -1))
            return (up - down) / (2 * h)

        np.testing.assert_allclose(moved(0, 1)[0, 1], base.cross[0, 1], rtol=1e-5)
        np.testing.assert_allclose(2 * moved(0, 0)[0, 1], base.bend[0, 1], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(2 * moved(1, 1)[0, 1], base.bend[1, 0], rtol=1e-5, atol=1e-7)
        total = base.cross[0, 0] + base.bend[0, 0]
        np.testing.assert_allclose(moved(0, 0)[0, 0], total, rtol=1e-5, atol=1e-7)


def test_relu_equals_monte_carlo_and_its_own_autodiff():
    rng = np.random.default_rng(1)
    u = rng.multivariate_normal(np.zeros(3), KERNEL, 100_000)
    (value, step, _), _, mean = gaussian.pairs(jax.nn.relu, KERNEL)
    r, s = np.maximum(u, 0), (u > 0).astype(float)
    np.testing.assert_allclose(value, r.T @ r / len(u), atol=1e-2)
    np.testing.assert_allclose(step, s.T @ s / len(u), atol=7e-3)
    np.testing.assert_allclose(mean, r.mean(0), atol=7e-3)

    def closed(k, qa, qb):
        t = jnp.arccos(k / jnp.sqrt(qa * qb))
        return jnp.sqrt(qa * qb) / (2 * jnp.pi) * (jnp.sin(t) + (jnp.pi - t) * jnp.cos(t))

    slope = jax.grad(closed)(KERNEL[0, 1], KERNEL[0, 0], KERNEL[1, 1])
    assert float(slope) == pytest.approx(step[0, 1], rel=1e-5)


def test_a_centre_is_taken_from_the_function_alone():
    (value, cross, _), (d, _, _), mean = gaussian.pairs(jax.nn.sigmoid, KERNEL, centre=0.5)
    (raw, raw_cross, _), (raw_d, _, _), _ = gaussian.pairs(jax.nn.sigmoid, KERNEL)
    np.testing.assert_allclose(value, raw - 0.25, atol=1e-12)
    np.testing.assert_array_equal(d, raw_d)
    np.testing.assert_array_equal(cross, raw_cross)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
