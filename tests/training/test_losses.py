import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.training import losses


def test_cross_entropy_is_minus_the_log_probability_of_the_label_for_each_example():
    logits = np.log(np.float32([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    found = losses.cross_entropy(logits, np.array([0, 2]))
    np.testing.assert_allclose(found, -np.log([0.7, 0.5]), rtol=1e-6)


def test_the_gradient_of_cross_entropy_is_probability_minus_one_hot():
    logits = np.log(np.float32([[0.7, 0.2, 0.1]]))
    gradient = jax.grad(lambda z: losses.cross_entropy(z, np.array([1])).sum())(logits)
    np.testing.assert_allclose(gradient, [[0.7, -0.8, 0.1]], rtol=1e-5)


def test_smoothing_spreads_its_share_of_the_target_over_all_classes():
    logits, labels = np.random.default_rng(0).normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    target = 0.7 * np.eye(4)[labels] + 0.3 / 4
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    found = losses.cross_entropy(np.float32(logits), labels, smoothing=0.3)
    np.testing.assert_allclose(found, -(target * log_probability).sum(axis=1), rtol=1e-5)


def test_logits_of_the_wrong_rank_are_refused():
    with pytest.raises(AssertionError):
        _ = losses.cross_entropy(np.zeros(3, np.float32), np.zeros(3, np.int32))


def test_the_loss_never_underflows_to_infinity_for_confident_mistakes():
    chex.assert_tree_all_finite(losses.cross_entropy(np.float32([[1e4, -1e4]]), np.array([1])))


def keras_on_sigmoids(z, label):
    """Categorical cross-entropy of outputs that do not sum to 1, as in the source of Keras."""
    output = 1 / (1 + np.exp(-np.asarray(z, np.float64)))
    output = output / output.sum()
    output = np.clip(output, 1e-7, 1 - 1e-7)
    return -np.log(output[label])


@pytest.mark.parametrize("z", [(0.3, -1.2), (4.0, 4.5), (-30.0, 2.0), (25.0, -25.0)])
@pytest.mark.parametrize("label", [0, 1])
def test_sigmoid_outputs_have_the_loss_that_keras_gives_them(z, label):
    logits = jax.nn.log_sigmoid(jnp.array([z], jnp.float32))
    found = losses.cross_entropy(logits, jnp.array([label], jnp.int32), floor=1e-7)
    np.testing.assert_allclose(found[0], keras_on_sigmoids(z, label), rtol=2e-5, atol=2e-7)


def test_a_probability_below_the_floor_has_no_gradient():
    def loss(logits):
        return losses.cross_entropy(logits, jnp.array([0], jnp.int32), floor=1e-7)[0]

    assert np.all(jax.grad(loss)(jnp.array([[-20.0, 0.0]])) == 0.0)
    assert np.all(jax.grad(loss)(jnp.array([[-10.0, 0.0]])) != 0.0)
