import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.activations import ACTIVATIONS
from research.theory import depth_scales, mean_field


def test_he_relu_is_critical_and_glorot_relu_loses_half_a_layer():
    q, chi, xi = depth_scales.fixed_point(jax.nn.relu, np.array([1.0, np.sqrt(2), 2.0]))
    np.testing.assert_allclose(chi, [0.5, 1.0, 2.0], rtol=1e-9)
    np.testing.assert_allclose(xi[[0, 2]], 1 / np.log(2), rtol=1e-9)
    assert q[0] == 0 and xi[1] == np.inf and q[2] == np.inf


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "lecun"])
def test_the_fixed_point_is_where_the_map_itself_ends(name):
    """Iterated on draws, which is another method than bisection of a quadrature."""
    f = ACTIVATIONS[name].function
    q, chi, xi = depth_scales.fixed_point(f, np.array(1.5))
    z, u = np.random.default_rng(0).standard_normal(400_000).astype(np.float32), 1.0
    for _ in range(60):
        u = float(1.5**2 * np.mean(np.square(f(jnp.float32(np.sqrt(u)) * z))))
    slope = np.asarray(jax.vmap(jax.grad(f))(np.float32(np.sqrt(u)) * z))
    assert u == pytest.approx(float(q), rel=0.01)
    assert 1.5**2 * float(np.mean(slope**2)) == pytest.approx(float(chi), rel=0.01)
    assert xi == pytest.approx(1 / abs(np.log(chi)))


def test_values_of_the_literature_and_of_quadrature_at_high_precision():
    """tanh is critical at sigma_w = 1; sigmoid with Glorot's init loses a factor 18 a layer."""
    tanh = depth_scales.fixed_point(jnp.tanh, np.array([0.5, 1.0]))
    np.testing.assert_allclose(tanh.chi, [0.25, 1.0], rtol=1e-9)
    assert tanh.xi[1] == np.inf and tanh.q.tolist() == [0.0, 0.0]
    sigmoid = depth_scales.fixed_point(jax.nn.sigmoid, np.array(1.0))
    assert float(sigmoid.chi) == pytest.approx(0.0557, abs=5e-5)
    lecun = depth_scales.fixed_point(ACTIVATIONS["lecun"].function, np.array(1.0))
    assert float(lecun.xi) == pytest.approx(47, abs=1)


def test_the_decay_of_a_net_is_the_product_of_its_layers():
    relu = depth_scales.decay(jax.nn.relu, np.array([1.0, 2.0]), np.array(0.3), 5)
    np.testing.assert_allclose(relu, np.arange(5) * np.log(2) * np.ones((2, 1)), rtol=1e-9)
    # 784-32x40-10 on MNIST: sqrt of the product is 0.25 and 8.4e-26 (independent quadrature)
    tanh = depth_scales.decay(jnp.tanh, np.array(1.0), np.array(0.215), 40)
    assert np.exp(-tanh[-1] / 2) == pytest.approx(0.250, abs=4e-3)
    sigmoid = depth_scales.decay(jax.nn.sigmoid, np.array(1.0), np.array(0.215), 40)
    assert np.exp(-sigmoid[-1] / 2) == pytest.approx(8.4e-26, rel=0.02)


@pytest.mark.parametrize("branch", [0.0, 0.4])
def test_the_depth_of_a_net_is_that_of_the_signal_in_mean_field_theory(branch):
    widths = (30, *(20,) * 6, 10)
    variances = (1 / 30, *(0.7 / 20,) * 5, 1 / 20)
    net = mean_field.Net(jnp.tanh, widths, variances, branch=branch)
    images = np.full((1, 30), 0.8)
    kernels = mean_field.propagate(net, images, np.array([3]), 1)
    signal = kernels.arriving if branch else kernels.signal[:-1]
    lost = np.log(signal[-1][0, 0] / signal[0][0, 0])
    assert depth_scales.depth_in_scales(net, images) == pytest.approx(abs(lost), rel=1e-5)
    if not branch:
        slope = depth_scales.decay(jnp.tanh, np.sqrt(0.7), np.array(0.64), 6)[-1]
        assert depth_scales.depth_in_scales(net, images) == pytest.approx(slope, rel=1e-6)


def test_a_centred_sigmoid_of_fourfold_weights_has_the_scales_of_tanh():
    tanh = depth_scales.decay(jnp.tanh, np.array(1.1), np.array(0.2), 12)
    shifted = depth_scales.decay(jax.nn.sigmoid, np.array(4.4), np.array(0.8), 12, centre=0.5)
    np.testing.assert_allclose(shifted, tanh, rtol=1e-9)


def test_scores_of_a_predictor():
    rng = np.random.default_rng(0)
    outcomes = rng.random(60) < 0.5
    scores = np.round(rng.standard_normal(60) - outcomes, 1)  # with ties
    wins = [0.5 * (g == b) + (g < b) for g in scores[outcomes] for b in scores[~outcomes]]
    assert depth_scales.auc(scores, outcomes) == pytest.approx(np.mean(wins))
    assert np.isnan(depth_scales.auc(scores, np.ones(60, bool)))
    sorted_scores, good = np.arange(6.0), np.array([True, True, True, True, False, False])
    assert depth_scales.best_threshold(sorted_scores, good) == 3.5
    assert depth_scales.balanced_accuracy(sorted_scores, good, 3.5) == 1.0
    assert depth_scales.balanced_accuracy(sorted_scores, good, 4.5) == 0.75
