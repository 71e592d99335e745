"""The convolutional nets against a second implementation, and what dropout must be."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_cnn
import pytest

from configs import cnn as configs
from research.experiments import classifiers
from research.models import cnn
from research.models.cnn import CNN, Dropout, ResNet
from research.structs import UserError

IMAGES = np.random.default_rng(0).random((4, 9, 8, 2), np.float32)


def small(**changes):
    settings = {
        "filters": (2, 3),
        "pools": (1, 2),
        "dropouts": (0.0, 0.25),
        "dense": (5,),
        "dense_dropouts": (0.5,),
    }
    return CNN(**(settings | changes))


def residual(**changes):
    settings = {
        "widths": (8, 16),
        "residual": (False, True),
        "mean": (0.2, 0.4),
        "std": (0.5, 0.25),
    }
    return ResNet(**(settings | changes))


def shapes_of(model, shape):
    """Shapes of the parameters for images of `shape` [H, W, C]; nothing is computed."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]


def some_params(model):
    """Numbers of about the right size, biases and offsets among them."""
    generator = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: generator.normal(
            scale=np.prod(leaf.shape[:-1]) ** -0.5, size=leaf.shape
        ).astype(np.float32),
        shapes_of(model, IMAGES.shape[1:]),
    )


PARAMS, RESIDUAL_PARAMS = some_params(small()), some_params(residual())


def size_of(model, shape):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(model, shape)))


def test_the_net_for_mnist_has_the_known_number_of_parameters():
    """By arithmetic: 3 x 3 x 1 x 32, 3 x 3 x 32 x 64, 12 x 12 x 64 x 128, 128 x 10, and biases."""
    assert (
        size_of(classifiers.make_model(configs.get_config("mnist"), 10), (28, 28, 1)) == 1_199_882
    )


@pytest.mark.parametrize(
    ("padding", "pools", "parameters"),
    [
        ("valid", (1, 2, 1, 1), 14_428_234),
        ("valid", (1, 2, 1, 2), 4_597_834),
        ("same", (1, 2, 1, 1), 34_875_466),
        ("same", (1, 2, 1, 2), 9_709_642),
    ],
)
def test_the_net_for_cifar10_has_the_known_number_of_parameters(padding, pools, parameters):
    config = configs.get_config("cifar10")
    config.padding, config.pools = padding, pools
    assert size_of(classifiers.make_model(config, 10), (32, 32, 3)) == parameters


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_layers_are_named_in_the_order_of_their_calls_and_start_as_their_net_does(variant):
    config = configs.get_config(variant)
    model, called = classifiers.make_model(config, 10), []

    def note(call, arguments, options, context):
        if isinstance(context.module, cnn.Conv | cnn.Dense):
            called.append(context.module.name)
            assert context.module.kernel_init is (cnn.GLOROT if config.net == "cnn" else cnn.HE)
        return call(*arguments, **options)

    with cnn.nn.intercept_methods(note):
        _ = shapes_of(model, (28, 28, 1) if config.dataset == "mnist" else (32, 32, 3))
    assert called == list(model.layer_names)


@pytest.mark.parametrize(
    ("initializer", "variance"), [(cnn.GLOROT, 2 / (9 * 8 + 9 * 16)), (cnn.HE, 2 / (9 * 8))]
)
def test_each_initializer_has_the_variance_of_its_paper(initializer, variance, key):
    kernel = np.asarray(initializer(key, (3, 3, 8, 16), jnp.float32))
    assert kernel.var() == pytest.approx(variance, rel=0.15)


def by_hand(params, images, drop):
    """Conv, ReLU, pool, dropout; then flat, dense, ReLU, dropout; then the output layer."""
    x = numpy_cnn.relu(numpy_cnn.conv(images.astype(np.float64), params["conv_0"]))
    x = numpy_cnn.relu(numpy_cnn.conv(x, params["conv_1"]))
    x = drop(numpy_cnn.pool(x, 2), 0.25)
    x = numpy_cnn.relu(numpy_cnn.dense(x.reshape(len(x), -1), params["dense_0"]))
    return numpy_cnn.dense(drop(x, 0.5), params["output"])


def test_logits_equal_those_worked_out_by_hand():
    found = small().apply({"params": PARAMS}, IMAGES)
    chex.assert_shape(found, (4, 10))
    np.testing.assert_allclose(found, by_hand(PARAMS, IMAGES, lambda x, _: x), rtol=1e-5, atol=1e-5)


def known(x, rate):
    """Every so many units are dropped."""
    kept = np.arange(np.prod(x.shape)).reshape(x.shape) % 8 >= 8 * rate
    return x * kept.astype(np.float32) / (1 - rate)


class Known(cnn.nn.Module):
    rate: float

    def __call__(self, x, *, train):
        return known(x, self.rate) if train and self.rate else x


def test_in_training_units_are_dropped_after_the_pool_and_after_the_dense_layer(monkeypatch):
    monkeypatch.setattr(cnn, "Dropout", Known)
    found = small().apply({"params": PARAMS}, IMAGES, train=True)
    np.testing.assert_allclose(found, by_hand(PARAMS, IMAGES, known), rtol=1e-5, atol=1e-5)


def test_logits_of_the_residual_net_equal_those_worked_out_by_hand():
    def layer(name, x, size=1):
        z = numpy_cnn.pool(numpy_cnn.conv(numpy_cnn.pad(x), RESIDUAL_PARAMS[name]), size)
        norm = RESIDUAL_PARAMS[f"{name}_norm"]["GroupNorm_0"]
        normal = numpy_cnn.normalise(z, z.shape[-1] // 8)
        return numpy_cnn.relu(normal * np.asarray(norm["scale"]) + np.asarray(norm["bias"]))

    x = layer("conv_0", (IMAGES.astype(np.float64) - (0.2, 0.4)) / (0.5, 0.25))
    x = layer("conv_1", x, 2)
    x = x + layer("block_1_b", layer("block_1_a", x))
    expected = 0.125 * numpy_cnn.dense(x.max((1, 2)), RESIDUAL_PARAMS["output"])
    found = jax.jit(residual().apply)({"params": RESIDUAL_PARAMS}, IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model", "params"), [(small(), PARAMS), (residual(), RESIDUAL_PARAMS)])
def test_images_of_a_batch_do_not_influence_one_another(model, params):
    apply = jax.jit(model.apply)
    others = IMAGES.copy()
    others[1:] = 1.0 - others[1:]
    found, beside_others = (apply({"params": params}, images) for images in (IMAGES, others))
    np.testing.assert_array_equal(found[0], beside_others[0])
    assert not np.allclose(found[1:], beside_others[1:])


def dropped(rate, x, seed=0):
    rngs = {"dropout": jax.random.key(seed)}
    return np.asarray(Dropout(rate).apply({}, x, train=True, rngs=rngs))


@pytest.mark.parametrize("rate", [0.25, 0.4, 0.9])  # bits enough in 8, and in 16
def test_dropout_keeps_its_share_and_the_mean_and_scales_what_it_keeps(rate):
    n = 40_000
    found = dropped(rate, np.ones((200, 200), np.float32))
    assert set(np.unique(found)) == {0.0, np.float32(1 / (1 - rate))}
    sigma = np.sqrt(n * rate * (1 - rate))
    assert abs(np.count_nonzero(found) - n * (1 - rate)) < 5 * sigma
    assert abs(found.mean() - 1) < 5 * sigma / n / (1 - rate)


@pytest.mark.parametrize("rate", [0.25, 0.4])
def test_units_near_one_another_are_dropped_independently(rate):
    """Several are decided by the bits of one word: no correlation at any distance up to 16."""
    n, share = 40_000, 1 - rate
    found = (dropped(rate, np.ones((1, n), np.float32))[0] > 0) - share
    products = [found[lag:] @ found[:-lag] for lag in range(1, 17)]
    assert np.abs(products).max() < 5 * np.sqrt(n) * share * rate


def test_dropout_is_a_function_of_its_key_and_two_layers_drop_different_units():
    x = np.ones((7, 11), np.float32)
    np.testing.assert_array_equal(dropped(0.5, x, 1), dropped(0.5, x, 1))
    assert (dropped(0.5, x, 1) != dropped(0.5, x, 2)).any()

    class Twice(cnn.nn.Module):
        @cnn.nn.compact
        def __call__(self, x):
            return Dropout(0.5)(x, train=True), Dropout(0.5)(x, train=True)

    first, second = Twice().apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert (first != second).any()


def test_dropout_leaves_everything_without_a_rate_and_outside_training():
    np.testing.assert_array_equal(dropped(0.0, IMAGES), IMAGES)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, IMAGES, train=False), IMAGES)


@pytest.mark.parametrize("make", [small, residual])
def test_bfloat16_is_for_activations_only(make):
    model = make(dtype=jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):  # flax's GroupNorm promotes by itself
        params = shapes_of(model, IMAGES.shape[1:])
        logits, seen = jax.eval_shape(
            lambda params: model.apply({"params": params}, IMAGES, capture_intermediates=True),
            params,
        )
    chex.assert_trees_all_equal_dtypes(*jax.tree.leaves(params), IMAGES)
    assert logits.dtype == jnp.float32
    assert seen["intermediates"].pop("__call__")[0].dtype == jnp.float32
    between = jax.tree.leaves(seen)
    assert between and all(each.dtype == jnp.bfloat16 for each in between)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"pools": (1,)}, r"pools: \(1,\) has 1 entries, expected one for each of the 2 filters"),
        ({"dropouts": ()}, "dropouts: .* 0 entries"),
        ({"dense": (5, 5)}, "dense_dropouts: .* one for each of the 2 dense"),
        ({"padding": "full"}, "padding: 'full' is not one of valid, same"),
        ({"head": "tanh"}, "head: 'tanh' is not one of softmax, sigmoid"),
        ({"filters": (2, 0)}, r"filters: \(2, 0\)"),
        ({"pools": (0, 2)}, r"pools: \(0, 2\)"),
        ({"dense": (-1,)}, r"dense: \(-1,\)"),
        ({"dropouts": (0.0, 1.0)}, r"dropouts: \(0.0, 1.0\)"),
        ({"dense_dropouts": (-0.1,)}, r"dense_dropouts: \(-0.1,\)"),
        ({"dense_dropouts": (float("nan"),)}, "dense_dropouts: .*nan"),
    ],
)
def test_a_net_that_cannot_be_says_which_value_and_what_would_do(changes, word):
    with pytest.raises(UserError, match=word):
        _ = small(**changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"residual": (True,)}, r"residual: \(True,\) has 1 entries, .* the 2 widths"),
        ({"widths": (8, 12)}, r"widths: \(8, 12\) has a number that is not a multiple of 8"),
        ({"widths": (0, 8)}, r"widths: \(0, 8\)"),
    ],
)
def test_a_residual_net_that_cannot_be_says_which_value(changes, word):
    with pytest.raises(UserError, match=word):
        _ = residual(**changes)


@pytest.mark.parametrize(
    ("filters", "pools", "layer"),
    [((2,) * 4, (1, 1, 1, 1), "conv_3"), ((2, 2), (2, 4), "conv_1"), ((2,), (7,), "conv_0")],
)
def test_more_layers_than_the_image_holds_are_refused_by_name(filters, pools, layer):
    """7 x 7, less 2 with every convolution."""
    model = small(filters=filters, pools=pools, dropouts=(0.0,) * len(filters))
    with pytest.raises(UserError, match=rf"nothing is left of the image .*{layer}"):
        _ = shapes_of(model, (7, 7, 1))


def test_more_widths_than_the_image_holds_are_refused_by_name():
    model = residual(widths=(8,) * 4, residual=(False,) * 4)
    with pytest.raises(UserError, match=r"widths: nothing is left of the image .*conv_3"):
        _ = shapes_of(model, (7, 7, 2))


def test_a_head_of_sigmoids_gives_the_logarithm_of_each():
    logits = small().apply({"params": PARAMS}, IMAGES)
    found = small(head="sigmoid").apply({"params": PARAMS}, IMAGES)
    np.testing.assert_allclose(np.exp(found), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_the_face_mask_net_of_the_report_has_the_known_number_of_parameters():
    model = CNN(
        *((10, 10, 10, 10, 16, 16, 32, 32), (1, 2) * 4, (0.0,) * 8, (1024, 256, 32), (0.0,) * 3),
        **{"head": "sigmoid", "classes": 2},
    )
    params = shapes_of(model, (200, 200, 3))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2_389_540
    assert params["dense_0"]["kernel"].shape == (8 * 8 * 32, 1024)


def test_shrinking_is_the_mean_of_squares_before_anything_else():
    images = np.random.default_rng(2).random((2, 16, 12, 2), np.float32)
    means = images.reshape(2, 8, 2, 6, 2, 2).mean((2, 4))
    found = residual(shrink=2).apply({"params": RESIDUAL_PARAMS}, images)
    expected = residual().apply({"params": RESIDUAL_PARAMS}, means)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
