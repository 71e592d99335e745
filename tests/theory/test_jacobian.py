import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.activations import ACTIVATIONS
from research.theory import jacobian
from research.theory.mean_field import Net


def linear(u):
    return u


def net_of(function, n, depth, variance, **settings):
    return Net(function, (n, *[n] * depth, 10), (variance,) * (depth + 1), **settings)


def drawn(rng, n, depth):
    kernels = [rng.normal(0, 0.4, (n, n)) for _ in range(depth)]
    return kernels, [rng.normal(0, 0.1, n) for _ in range(depth)]


@pytest.mark.parametrize("branch", [0.0, 0.7])
def test_the_product_is_the_jacobian_that_autodiff_gives(branch):
    """dh_4 / dh_1 at three images, one of which by `jax.jacobian`."""
    rng = np.random.default_rng(0)
    kernels, biases = drawn(rng, 6, 4)
    images = rng.normal(size=(3, 6))
    net = net_of(jnp.tanh, 6, 4, 0.16, branch=branch)
    layers, products = zip(*jacobian.jacobians(net, kernels, biases, images), strict=True)
    with jax.enable_x64(True):

        def hidden(h):
            for kernel, bias in zip(kernels[1:], biases[1:], strict=True):
                value = jnp.tanh(h @ kernel + bias)
                h = h + branch * value if branch else value
            return h

        dense = jax.jacobian(hidden)(jnp.tanh(images[2] @ kernels[0] + biases[0]))
    np.testing.assert_allclose(products[-1][2], dense, rtol=1e-12)
    np.testing.assert_allclose(layers[2][0] @ layers[1][0] @ layers[0][0], products[-1][0])


def test_a_linear_orthogonal_net_has_equal_singular_values():
    rng = np.random.default_rng(1)
    kernels = [0.9 * np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(5)]
    net = net_of(linear, 8, 5, 0.81 / 8, orthogonal=True)
    images = rng.normal(size=(2, 8))
    *_, (_, product) = jacobian.jacobians(net, kernels, [np.zeros(8)] * 5, images)
    values = np.linalg.svd(product, compute_uv=False)
    np.testing.assert_allclose(values, 0.9**4, rtol=1e-12)
    np.testing.assert_allclose(jacobian.spread(values), 0, atol=1e-12)
    predicted = jacobian.predict(net, images)
    np.testing.assert_allclose(predicted["mean"], 0.81 ** np.arange(1, 5), rtol=1e-9)
    for name in ("spread", "finite_spread", "layer_spread"):
        np.testing.assert_allclose(predicted[name], 0, atol=1e-9)


def test_the_spread_of_rank_one_is_the_ceiling_and_that_of_nothing_is_unknown():
    values = np.array([[3e-200, 0, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]])
    np.testing.assert_allclose(jacobian.spread(values), [3, 0, np.nan])


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("branch", [0.0, 0.6])
def test_the_spread_at_a_small_width_is_that_of_drawn_products(orthogonal, branch):
    """Five units, three factors, random slopes of a ReLU: two moments, within four errors."""
    n, count, variance = 5, 16_000, 1 / 5
    net = net_of(jax.nn.relu, n, 4, variance, orthogonal=orthogonal, branch=branch)
    predicted = jacobian.predict(net, np.ones((1, n)))
    rng = np.random.default_rng(2)
    product = np.broadcast_to(np.eye(n), (count, n, n))
    for _ in range(3):
        weights = rng.normal(0, variance**0.5, (count, n, n))
        if orthogonal:
            q, r = np.linalg.qr(weights)
            weights = q * np.sign(np.einsum("bii->bi", r))[:, None]
        factor = rng.integers(0, 2, (count, n, 1)) * weights
        product = (np.eye(n) + branch * factor if branch else factor) @ product
    squares = np.linalg.svd(product, compute_uv=False) ** 2
    first, second = squares.mean(axis=1), (squares**2).mean(axis=1)
    assert abs(first.mean() - predicted["mean"][-1]) < 4 * first.std() / count**0.5
    ratio = second.mean() / np.mean(first**2)
    error = np.std(second - ratio * first**2) / np.mean(first**2) / count**0.5
    assert error < 0.03 * ratio  # a factor of 1 + 1/n more or less would be seen
    assert abs(ratio - 1 - predicted["finite_spread"][-1]) < 4 * error


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("branch", [0.0, 0.5])
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_the_sum_of_pennington_is_the_limit_of_great_width(name, orthogonal, branch):
    n = 10**7
    net = net_of(
        ACTIVATIONS[name].function, n, 6, 1.3 / n, orthogonal=orthogonal, branch=branch
    )._replace(widths=(4, *[n] * 6, 10), variances=(0.3, *[1.3 / n] * 6))
    predicted = jacobian.predict(net, np.ones((2, 4)))
    np.testing.assert_allclose(predicted["finite_spread"], predicted["spread"], rtol=1e-4)


def test_deep_nets_of_independent_weights_end_at_rank_one():
    predicted = jacobian.predict(net_of(jax.nn.relu, 8, 200, 0.25), np.ones((1, 8)))
    assert predicted["finite_spread"][-1] == pytest.approx(7, rel=1e-6)
    assert predicted["spread"][-1] == pytest.approx(2 * 199)
    np.testing.assert_allclose(predicted["mean"], 1, rtol=1e-9)  # He's variance
