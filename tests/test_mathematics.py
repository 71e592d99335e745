"""The report's formulas and arithmetic, claim by claim, against autodiff and passes by hand.

What research/ledger/claims.toml says of the mathematics is shown here or in the tests it names.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_mlp
import pytest

from research.data import synthetic
from research.models.activations import ACTIVATIONS
from research.models.mlp import MLP
from research.training import losses

GRID = jnp.linspace(-6, 6, 2001, dtype=jnp.float32)
# Report, Exercise 3, Fig. 16: accuracy, validation accuracy and seconds of 14 epochs.
ACCURACY = (
    *(0.7969, 0.8331, 0.8426, 0.8484, 0.8584, 0.8652, 0.8763),
    *(0.8902, 0.9087, 0.9258, 0.9423, 0.9536, 0.9662, 0.9796),
)
VALIDATION = (
    *(0.8405, 0.8210, 0.8550, 0.8545, 0.8460, 0.8475, 0.8710),
    *(0.8345, 0.8800, 0.8605, 0.8500, 0.8680, 0.8710, 0.8675),
)
SECONDS = (13, 8, 8, 8, 7, 8, 7, 8, 7, 8, 8, 7, 7, 8)
LOSS = (
    *(0.4187, 0.3525, 0.3395, 0.3273, 0.3073, 0.2980, 0.2794),
    *(0.2494, 0.2145, 0.1780, 0.1471, 0.1218, 0.0914, 0.0594),
)


def reports_tanh(v):
    return (1 - jnp.exp(-v)) / (1 + jnp.exp(-v))


def slopes(function, at=GRID):
    return np.asarray(jax.vmap(jax.grad(function))(at))


def test_forward_passes_are_the_reports_formulas():
    np.testing.assert_array_equal(ACTIVATIONS["relu"].function(GRID), np.maximum(GRID, 0))
    sigmoid = 1 / (1 + np.exp(-np.float64(GRID)))
    np.testing.assert_allclose(ACTIVATIONS["sigmoid"].function(GRID), sigmoid, rtol=2e-6)


def test_the_reports_hyperbolic_tangent_is_that_of_half_the_argument():
    np.testing.assert_allclose(reports_tanh(GRID), np.tanh(GRID / 2), atol=1e-6)
    apart = np.abs(reports_tanh(GRID) - ACTIVATIONS["tanh"].function(GRID))
    assert apart.max() > 0.3


def test_backward_factors_are_the_derivatives_of_the_forward_formulas():
    y = reports_tanh(GRID)
    np.testing.assert_allclose(slopes(reports_tanh), 0.5 * (1 + y) * (1 - y), atol=1e-6)
    y = ACTIVATIONS["sigmoid"].function(GRID)
    np.testing.assert_allclose(slopes(ACTIVATIONS["sigmoid"].function), y * (1 - y), atol=1e-6)


def test_ranges_of_the_derivatives_end_where_the_report_says_and_are_attained():
    for function, most in ((reports_tanh, 0.5), (ACTIVATIONS["sigmoid"].function, 0.25)):
        found = slopes(function)
        assert 0 < found.min() < 0.01 * most
        assert found.max() == pytest.approx(most, abs=1e-6)
        assert float(jax.grad(function)(0.0)) == most
    assert float(jax.grad(ACTIVATIONS["tanh"].function)(0.0)) == 1.0


def test_the_derivative_of_relu_is_nothing_or_one():
    assert set(slopes(ACTIVATIONS["relu"].function, GRID[GRID != 0]).tolist()) == {0.0, 1.0}


def test_a_gradient_of_relu_may_be_larger_than_a_half():
    def cost(weight):
        return 0.5 * (3.0 - jax.nn.relu(weight * 2.0)) ** 2

    assert float(jax.grad(cost)(0.5)) == -4.0


def test_the_reports_backward_pass_of_relu_is_not_its_gradient():
    """delta = 1/2 (1 + y)(1 - y)(y - T) against the derivative of 1/2 (T - y)^2 by autodiff."""
    target = 0.25

    def cost(v):
        return 0.5 * (target - jax.nn.relu(v)) ** 2

    at = GRID[GRID != 0]
    y = np.maximum(at, 0)
    true = slopes(cost, at)
    np.testing.assert_allclose(true, np.where(at > 0, y - target, 0), atol=1e-6)
    assert np.abs(0.5 * (1 + y) * (1 - y) * (y - target) - true).max() > 1


def test_the_cost_of_part_a_is_not_the_loss_that_was_trained():
    """The error at the logits: (y - T) times the softmax's derivative, against p - T."""
    logits, label = jnp.float32([[1.0, -0.5, 2.0]]), jnp.int32([0])
    target = jax.nn.one_hot(label, 3, dtype=jnp.float32)

    def half_squares(z):
        return 0.5 * jnp.sum((target - jax.nn.softmax(z)) ** 2)

    p = jax.nn.softmax(logits)
    trained = jax.grad(lambda z: losses.cross_entropy(z, label)[0])(logits)
    np.testing.assert_allclose(trained, p - target, atol=1e-6)
    error = (p - target) * p
    by_hand = error - p * error.sum()
    np.testing.assert_allclose(jax.grad(half_squares)(logits), by_hand, atol=1e-6)
    assert np.abs(by_hand - trained).max() > 0.1


@pytest.fixture(scope="module")
def digits():
    return synthetic.digits(12, 1)[0]


def glorot(model):
    """Parameters as a net starts with, drawn by NumPy: nothing has to be compiled."""
    random, sizes = np.random.default_rng(0), [784, *[model.width] * model.depth, 10]
    limits = [np.sqrt(6 / (a + b)) for a, b in itertools.pairwise(sizes)]
    return {
        layer: {
            "kernel": np.float32(random.uniform(-limit, limit, (inputs, outputs))),
            "bias": np.zeros(outputs, np.float32),
        }
        for layer, limit, (inputs, outputs) in zip(
            model.layer_names, limits, itertools.pairwise(sizes), strict=True
        )
    }


def gradients_of(model, params, digits):
    def cost(params):
        logits = model.apply({"params": params}, np.float32(digits.images) / 255)
        return jnp.mean(losses.cross_entropy(logits, digits.labels))

    return jax.jit(jax.grad(cost))(params)


@pytest.mark.parametrize(
    "activation",
    ["relu", "lecun", *(pytest.param(a, marks=pytest.mark.slow) for a in ("tanh", "sigmoid"))],
)
def test_the_recursion_by_hand_is_autodiff(activation, digits):
    """delta^r = (delta^{r+1} W^T) F'(v^r), dE/dW = y^T delta, through three hidden layers."""
    model = MLP(3, 8, activation)
    params = glorot(model)
    found = gradients_of(model, params, digits)
    images, labels = digits.images, digits.labels
    _, by_hand, _ = numpy_mlp.gradients(params, model.layer_names, activation, images, labels)
    for layer in model.layer_names:
        for leaf in ("kernel", "bias"):
            np.testing.assert_allclose(found[layer][leaf], by_hand[layer][leaf], atol=1e-6)


def test_the_update_by_hand_is_the_one_by_autodiff(digits):
    """w - epsilon dE/dw of all layers, within 1e-6."""
    model, rate = MLP(3, 8, "tanh"), 0.01
    params = glorot(model)
    found = jax.tree.map(lambda w, g: w - rate * g, params, gradients_of(model, params, digits))
    _, by_hand, _ = numpy_mlp.gradients(
        params, model.layer_names, "tanh", digits.images, digits.labels
    )
    for layer in model.layer_names:
        expected = np.float64(params[layer]["kernel"]) - rate * by_hand[layer]["kernel"]
        assert np.abs(found[layer]["kernel"] - expected).max() <= 1e-6
        assert np.abs(found[layer]["kernel"] - np.asarray(params[layer]["kernel"])).max() > 1e-5


def test_with_kernels_scaled_up_the_signal_of_sigmoid_comes_through(digits):
    """The counter-test to the vanishing gradient: its cause is the factor in every layer."""
    model = MLP(20, 32, "sigmoid")
    params = glorot(model)
    hidden = model.layer_names[1:-1]
    larger = {
        layer: {
            "kernel": (4.2 if layer in hidden else 1.0) * leaves["kernel"],
            # So that every unit stays about its steepest point, whatever comes from below.
            "bias": -0.5 * (4.2 if layer in hidden else 0.0) * leaves["kernel"].sum(axis=0),
        }
        for layer, leaves in params.items()
    }
    names = model.layer_names
    decays = []
    for chosen in (params, larger):
        _, _, signals = numpy_mlp.gradients(chosen, names, "sigmoid", digits.images, digits.labels)
        first, last = (np.sqrt(np.mean(signals[names[i]] ** 2)) for i in (0, -2))
        decays.append((first / last) ** (1 / 19))
    assert 0.2 < decays[0] < 0.28
    assert decays[1] > 0.85


def test_the_reports_derivative_of_lecun_is_right_to_its_five_decimals():
    found = slopes(ACTIVATIONS["lecun"].function)
    stated = 1.14393 * (1 - np.tanh(2 * np.float64(GRID) / 3) ** 2) + 0.01
    assert np.abs(found - stated).max() <= 1e-5
    assert found.max() == pytest.approx(1.15393, abs=1e-5)
    far = slopes(ACTIVATIONS["lecun"].function, jnp.float32([5.0, 8.0]))
    assert np.all(far > 0.01) and far[1] == pytest.approx(0.01, abs=1e-3)


def test_the_square_of_tanh_is_nothing_at_nothing():
    assert float(jnp.tanh(0.0) ** 2) == 0.0


def test_noise_as_a_dense_layer_fed_with_one_is_noise_that_is_added():
    """Dense(784, use_bias=False) of [[1.0]], reshaped and added: the same picture and gradient."""
    noise, image = np.float32(np.random.default_rng(0).normal(size=(2, 28, 28, 1)))
    kernel = noise.reshape(1, 784)

    def as_layer(kernel):
        return jnp.clip((jnp.ones((1, 1)) @ kernel).reshape(28, 28, 1) + image, 0, 1)

    np.testing.assert_array_equal(as_layer(kernel), np.clip(noise + image, 0, 1))
    slope = jax.grad(lambda k: jnp.sum(as_layer(k)))(kernel)
    inside = (noise + image > 0) & (noise + image < 1)
    np.testing.assert_array_equal(slope.reshape(28, 28, 1), np.float32(inside))


def test_the_reports_numbers_of_faces_and_updates_fit_together():
    assert 3232 + 717 == 3949 and 10243 + 2000 == 12243
    assert 12243 - (3949 + 791 + 5000) == 2503
    assert (-(-10243 // 32), -(-2000 // 32), 5 * -(-2000 // 32)) == (321, 63, 315)


def test_the_reports_log_says_what_the_report_says_of_it():
    assert all(after < before for before, after in itertools.pairwise(LOSS))
    # 79 % to 97 % and 84 % to 86 %, cut off.
    assert [int(100 * value) for value in (ACCURACY[0], ACCURACY[-1])] == [79, 97]
    assert [int(100 * value) for value in (VALIDATION[0], VALIDATION[-1])] == [84, 86]
    best = max(VALIDATION)
    assert VALIDATION.index(best) + 1 == 9 and best - VALIDATION[-1] == pytest.approx(0.0125)
    assert sum(SECONDS) == 112
