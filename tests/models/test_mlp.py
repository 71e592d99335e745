import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mlp as configs
from research.experiments import depth
from research.models.mlp import INITIALIZERS, MLP
from research.structs import UserError

PARAMETERS = {5: 29_674, 20: 45_514, 40: 66_634}  # 784-32xL-10 with biases, by arithmetic
IMAGES = jnp.zeros((1, 28, 28, 1))


def init(model):
    return jax.eval_shape(model.init, jax.random.key(0), IMAGES)["params"]


@pytest.mark.parametrize("net", configs.NETS)
def test_every_net_of_the_study_has_the_known_number_of_parameters(net):
    model = depth.make_model(configs.get_config(net), net)
    counts = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(init(model))]
    assert sum(counts) == PARAMETERS[int(net.split("-")[1])]
    assert set(init(model)) == set(model.layer_names)


def test_layers_are_named_in_depth_order():
    model = MLP(12, 4, "tanh")
    assert model.layer_names == tuple(sorted(model.layer_names))
    assert model.layer_names[-2:] == ("hidden_11", "output")


def test_glorot_uniform_fills_its_interval_and_biases_start_at_zero(key):
    params = MLP(2, 32, "relu").init(key, IMAGES)["params"]
    for name, fan in (("hidden_00", 784 + 32), ("hidden_01", 32 + 32), ("output", 32 + 10)):
        limit = np.sqrt(6 / fan)
        kernel = np.asarray(params[name]["kernel"])
        assert 0.98 * limit < np.abs(kernel).max() <= limit
        assert kernel.var() == pytest.approx(limit**2 / 3, rel=0.15)
        assert not np.any(params[name]["bias"])


@pytest.mark.parametrize(
    ("name", "variance"), [("glorot_uniform", 1 / 32), ("he", 2 / 32), ("lecun_normal", 1 / 32)]
)
def test_each_initializer_has_the_variance_of_its_paper(name, variance, key):
    kernel = MLP(2, 32, "relu", name).init(key, IMAGES)["params"]["hidden_01"]["kernel"]
    assert float(kernel.var()) == pytest.approx(variance, rel=0.15)


def test_orthogonal_kernels_are_orthogonal(key):
    kernel = MLP(2, 32, "relu", "orthogonal").init(key, IMAGES)["params"]["hidden_01"]["kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(32), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name != "lsuv"])
@pytest.mark.parametrize("shape", [(300, 80), (80, 80), (80, 300)])
def test_the_stated_variance_is_that_of_the_draws(name, shape, key):
    kernel = INITIALIZERS[name].function(key, shape)
    assert float(kernel.var()) == pytest.approx(INITIALIZERS[name].variance(*shape), rel=0.05)


@pytest.mark.parametrize("residual", [False, True])
def test_a_shifted_sigmoid_net_is_the_tanh_net_before_its_first_step(residual, key):
    """sigmoid(2 u) = 1/2 + 1/2 tanh(u): the same function, and half its gradient at each z."""
    images = jax.random.uniform(jax.random.key(1), (5, 28, 28, 1))
    tanh = MLP(6, 32, "tanh", residual=residual)
    shifted = MLP(6, 32, "sigmoid", shift=True, residual=residual)
    ours, theirs = (net.init(key, images)["params"] for net in (shifted, tanh))
    for name, factor in zip(tanh.layer_names, (2, 4, 4, 4, 4, 4, 2), strict=True):
        np.testing.assert_allclose(ours[name]["kernel"], factor * theirs[name]["kernel"], rtol=1e-6)
    logits = shifted.apply({"params": ours}, images), tanh.apply({"params": theirs}, images)
    np.testing.assert_allclose(*logits, atol=2e-5)
    assert np.std(logits[0]) > 0.05


def test_lsuv_gives_every_layer_a_unit_mean_square_on_the_images_it_sees(key):
    images = jax.random.uniform(jax.random.key(1), (50, 28, 28, 1))
    net = MLP(5, 32, "relu", "lsuv", gain=1.5)
    params = net.init(key, images)["params"]
    _, seen = net.apply({"params": params}, images, capture_intermediates=True)
    for name in net.layer_names:
        (u,) = seen["intermediates"][name]["__call__"]
        assert float(np.mean(np.square(u))) == pytest.approx(1.5**2, rel=1e-4)


def test_a_residual_net_adds_each_layer_by_the_root_of_the_depth(key):
    images = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    net = MLP(4, 8, "tanh", residual=True)
    params = net.init(key, images)["params"]
    h = np.tanh(np.reshape(images, (3, -1)) @ params["hidden_00"]["kernel"])
    for i in (1, 2, 3):
        h = h + np.tanh(h @ params[f"hidden_{i:02d}"]["kernel"]) / 2
    expected = h @ params["output"]["kernel"]
    np.testing.assert_allclose(net.apply({"params": params}, images), expected, atol=1e-5)


def test_a_masked_net_is_to_the_bit_the_net_of_the_layers_that_act(key):
    """Logits and gradients of 3 of 6 hidden layers; the others get none."""
    images = jax.random.uniform(key, (5, 4, 4, 1))
    plain, masked = MLP(3, 8, "relu"), MLP(6, 8, "relu", active=jnp.int32(3))
    params = masked.init(jax.random.key(1), images)["params"]
    own = {name: params[name] for name in plain.layer_names}
    chex.assert_trees_all_equal(own, plain.init(jax.random.key(1), images)["params"])

    def loss(params, model):
        return jnp.sum(jnp.sin(model.apply({"params": params}, images)))

    ours, theirs = jax.grad(loss)(params, masked), jax.grad(loss)(own, plain)
    for name in masked.layer_names:
        expected = theirs.get(name, jax.tree.map(jnp.zeros_like, params[name]))
        chex.assert_trees_all_equal(ours[name], expected)
    assert loss(params, masked) == loss(own, plain) != loss(params, MLP(6, 8, "relu"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"gain": 0.0}, "gain: 0.0"),
        ({"shift": True}, "shift: tanh"),
        ({"activation": "elu"}, "relu, tanh, sigmoid, lecun"),
        ({"init_name": "xavier"}, ", ".join(INITIALIZERS)),
        ({"depth": 0}, "depth: 0"),
        ({"width": -1}, "width: -1"),
    ],
)
def test_a_net_that_cannot_be_says_which_value_and_what_would_do(changes, word):
    with pytest.raises(UserError, match=word):
        _ = MLP(**({"depth": 3, "width": 4, "activation": "tanh"} | changes))
