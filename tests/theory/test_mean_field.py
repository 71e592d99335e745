"""Predictions against nets that are drawn and differentiated, at sizes where theory is accurate."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mlp import FUNCTIONS

from research.models.activations import ACTIVATIONS
from research.theory import mean_field
from research.theory.mean_field import Net

RNG = np.random.default_rng(3)
IMAGES = np.clip(RNG.normal(0.4, 0.4, (6, 40)), 0, 1)
LABELS = np.array([0, 1, 1, 2, 3, 3])
WIDTHS = (40, 80, 80, 80, 4)


def make_net(function, variances, widths=WIDTHS, **settings):
    return Net(function, widths, tuple(variances), **settings)


def glorot(widths=WIDTHS, gain=1.0):
    return [2 * gain / (a + b) for a, b in itertools.pairwise(widths)]


def rotation(rng, shape):
    q, r = np.linalg.qr(rng.standard_normal(shape))
    return q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


def simulate(net, activation, seeds=600, rows=slice(None)):
    """rms and max of dL/dW and dL/du [seeds, L + 1, 4], by hand, of `seeds` nets at once."""
    rng, (f, df) = np.random.default_rng(11), activation
    x, y = IMAGES[rows], np.eye(net.widths[-1])[LABELS[rows]]
    kernels = []
    for i, variance in enumerate(net.variances):
        shape = (seeds, *net.widths[i : i + 2])
        square = net.orthogonal and shape[1] == shape[2]
        draw = rotation(rng, shape) * np.sqrt(shape[1]) if square else rng.standard_normal(shape)
        kernels.append(np.sqrt(variance) * draw)
    h, inputs, pre = np.broadcast_to(x, (seeds, *x.shape)), [], []
    for i, kernel in enumerate(kernels):
        inputs.append(h)
        pre.append((h - (net.centre * (1 + net.branch * (i - 1)) if i else 0.0)) @ kernel)
        if i < len(kernels) - 1:
            h = h + net.branch * f(pre[-1]) if net.branch and i else f(pre[-1])
    p = np.exp(pre[-1] - pre[-1].max(-1, keepdims=True))
    d = (p / p.sum(-1, keepdims=True) - y) / len(x)
    back, seen = np.empty(0), []
    for i in reversed(range(len(kernels))):
        if i < len(kernels) - 1:
            d = back * df(pre[i]) * (net.branch if net.branch and i else 1.0)
        gradient = np.swapaxes(inputs[i], 1, 2) @ d
        back = d @ np.swapaxes(kernels[i], 1, 2) + (back if net.branch and 0 < i < 3 else 0.0)
        sizes = [(np.sqrt((v**2).mean((1, 2))), np.abs(v).max((1, 2))) for v in (gradient, d)]
        seen.append(np.stack([s for pair in sizes for s in pair], axis=-1))
    return np.stack(seen[::-1], axis=1)


CASES = {
    **{k: (make_net(ACTIVATIONS[k].function, glorot()), FUNCTIONS[k]) for k in FUNCTIONS},
    "he-relu": (make_net(jax.nn.relu, [2 / n for n in WIDTHS[:-1]]), FUNCTIONS["relu"]),
    "orthogonal-tanh": (
        make_net(jnp.tanh, [1 / 40, 1 / 80, 1 / 80, 1 / 80], orthogonal=True),
        FUNCTIONS["tanh"],
    ),
    "shifted-sigmoid": (
        make_net(jax.nn.sigmoid, np.array([4, 16, 16, 4]) * glorot(), centre=0.5),
        FUNCTIONS["sigmoid"],
    ),
}  # fmt: skip


@functools.cache
def prediction(case):
    net, activation = CASES[case]
    return mean_field.predict(net, IMAGES, LABELS, len(IMAGES)), simulate(net, activation)


@pytest.mark.parametrize("case", CASES)
def test_the_mean_square_is_that_of_drawn_nets_within_its_standard_error(case):
    predicted, sizes = prediction(case)
    for name, column in (("kernel", 0), ("signal", 2)):
        squares = sizes[..., column] ** 2
        error = squares.std(0) / np.sqrt(len(squares)) / squares.mean(0)
        ratio = predicted[f"{name}_rms_mean"] ** 2 / squares.mean(0)
        assert (np.abs(ratio - 1) < 4 * error + 0.03).all(), (name, ratio, error)


@pytest.mark.parametrize("case", CASES)
def test_medians_and_spreads_are_those_of_drawn_nets(case):
    predicted, sizes = prediction(case)
    for name, column in (("kernel", 0), ("signal", 2)):
        logs = np.log(sizes[..., column])
        spread = predicted[f"{name}_rms_sd"] / logs.std(0)
        assert (np.abs(spread - 1) < 0.2).all(), (name, spread)
        off = np.log(predicted[f"{name}_rms_median"]) - np.median(logs, 0)
        assert (np.abs(off) < 5 * logs.std(0) / np.sqrt(len(logs)) + 0.03).all(), (name, off)
        largest = predicted[f"{name}_abs_median"] / np.median(sizes[..., column + 1], 0)
        assert (np.abs(largest - 1) < 0.15).all(), (name, largest)


@pytest.mark.parametrize(
    ("name", "centre"), [*((name, 0.0) for name in FUNCTIONS), ("sigmoid", 0.5)]
)
def test_the_mean_of_a_residual_net_is_that_of_drawn_nets(name, centre):
    net = make_net(ACTIVATIONS[name].function, glorot(), branch=0.7, centre=centre)
    predicted = mean_field.predict(net, IMAGES, LABELS, len(IMAGES))
    assert np.isnan(predicted["kernel_rms_median"]).all()
    sizes = simulate(net, FUNCTIONS[name])
    for quantity, column in (("kernel", 0), ("signal", 2)):
        squares = sizes[..., column] ** 2
        ratio = predicted[f"{quantity}_rms_mean"] ** 2 / squares.mean(0)
        error = squares.std(0) / np.sqrt(len(squares)) / squares.mean(0)
        assert (np.abs(ratio - 1) < 4 * error + 0.05).all(), (quantity, ratio)


def test_he_relu_keeps_the_signal():
    he = prediction("he-relu")[0]
    np.testing.assert_allclose(he["chi"], 1.0)
    hidden = he["signal_rms_mean"][:-1]
    np.testing.assert_allclose(hidden, hidden[0], rtol=1e-6)


def test_rotations_of_a_linear_net_add_no_scatter_however_many_they_are():
    totals = []
    for depth in (1, 3):
        net = Net(lambda v: v, (40,) * (depth + 2), (1 / 40,) * (depth + 1), orthogonal=True)
        kernels = mean_field.propagate(net, IMAGES, LABELS, len(IMAGES))
        totals.append(mean_field.variances(net, kernels, np.random.default_rng(0)))
    np.testing.assert_allclose(totals[1][0], totals[0][0], rtol=0.25)


def test_a_linear_net_has_the_closed_form_of_products():
    """Variance of ln T: 2 / n for each independent layer that the signal of one image passes."""
    depth, n = 6, 50
    widths = (40, *(n,) * depth, 4)
    net = Net(lambda v: v, widths, (1 / 40, *(1 / n,) * depth))
    kernels = mean_field.propagate(net, IMAGES[:1], LABELS[:1], 1)
    for kernel in kernels.preactivation:
        np.testing.assert_allclose(kernel, np.sum(IMAGES[0] ** 2) / 40)
    total = mean_field.variances(net, kernels, np.random.default_rng(0))
    signal = total[depth + 1 : -1]
    steps = -np.diff(signal)
    np.testing.assert_allclose(steps, 2 / n, rtol=0.3)
    np.testing.assert_allclose(steps.mean(), 2 / n, rtol=0.12)


def test_one_image_of_a_relu_net_scatters_as_hanin_and_nica_say():
    """5 / n forward and 5 / n back for every layer that is passed."""
    depth, n = 8, 100
    widths = (40, *(n,) * depth, 4)
    net = Net(jax.nn.relu, widths, (2 / 40, *(2 / n,) * depth))
    kernels = mean_field.propagate(net, IMAGES[:1], LABELS[:1], 1)
    total = mean_field.variances(net, kernels, np.random.default_rng(0))
    steps = -np.diff(total[depth + 1 : -1])
    np.testing.assert_allclose(steps.mean(), 5 / n, rtol=0.12)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("layer", range(4))
def test_sensitivities_are_the_derivatives_of_the_targets(name, layer):
    """To ln v of one layer, by the chain rule and by finite differences of `propagate`."""
    base = make_net(ACTIVATIONS[name].function, glorot())

    def targets(factor):
        changed = [v * (factor if i == layer else 1.0) for i, v in enumerate(base.variances)]
        kernels = mean_field.propagate(base._replace(variances=tuple(changed)), IMAGES, LABELS, 6)
        gradient = [np.sum(q * g) for q, g in zip(kernels.inputs, kernels.signal, strict=True)]
        return np.log([*gradient, *map(np.trace, kernels.signal)])

    expected = (targets(1.02) - targets(1 / 1.02)) / (2 * np.log(1.02))
    kernels = mean_field.propagate(base, IMAGES, LABELS, 6)
    bars = mean_field.sensitivities(base, kernels, range(8))
    got = np.sum(bars.preactivation[layer] * kernels.preactivation[layer], axis=(1, 2))
    if layer:
        got += np.sum(bars.arriving[layer - 1] * kernels.arriving[layer - 1], axis=(1, 2))
    np.testing.assert_allclose(got, expected, atol=0.06)


def test_targets_are_independent_of_those_that_are_asked_for_beside_them():
    net = CASES["shifted-sigmoid"][0]
    kernels = mean_field.propagate(net, IMAGES, LABELS, 6)
    few, every = (mean_field.sensitivities(net, kernels, rows) for rows in ((6, 1), range(8)))
    for name in ("inputs", "preactivation", "signal", "arriving", "plain"):
        for ours, theirs in zip(getattr(few, name), getattr(every, name), strict=True):
            np.testing.assert_allclose(ours, theirs[[6, 1]], rtol=1e-12)
    np.testing.assert_allclose(few.output, every.output[[6, 1]], rtol=1e-12)


def test_a_shifted_sigmoid_is_predicted_as_the_tanh_net_that_it_is():
    tanh, shifted = prediction("tanh")[0], prediction("shifted-sigmoid")[0]
    for statistic in ("mean", "median", "sd"):
        factor = 1.0 if statistic == "sd" else np.array([2, 2, 2, 1])  # u is doubled but at the end
        np.testing.assert_allclose(
            factor * shifted[f"signal_rms_{statistic}"],
            tanh[f"signal_rms_{statistic}"],
            rtol=0.02,
        )
    np.testing.assert_allclose(shifted["q"], tanh["q"] * [4, 4, 4, 1], rtol=1e-6)
    assert (shifted["kernel_rms_mean"][1:] > tanh["kernel_rms_mean"][1:] / 2).all()


def test_a_batch_is_the_mean_over_batches_drawn_from_the_images():
    kernels = mean_field.propagate(CASES["tanh"][0], IMAGES, LABELS, 2)
    products = RNG.standard_normal((6, 6))
    batches = [list(pair) for pair in itertools.combinations(range(6), 2)]
    mean = np.mean([products[np.ix_(pair, pair)].sum() / 2**2 for pair in batches])
    assert np.sum(kernels.weights * products) == pytest.approx(mean)


def test_a_narrow_net_of_sigmoids_remembers_at_the_output_what_made_its_errors():
    """Without Stein's second term the gradients of the hidden layers come out a tenth too small."""
    widths = (40, 24, 24, 10)
    net = make_net(jax.nn.sigmoid, glorot(widths), widths)
    predicted = mean_field.predict(net, IMAGES, LABELS, len(IMAGES))["kernel_rms_mean"]
    squares = simulate(net, FUNCTIONS["sigmoid"], seeds=2000)[..., 0] ** 2
    np.testing.assert_allclose(predicted**2 / squares.mean(0), 1, atol=0.06)
