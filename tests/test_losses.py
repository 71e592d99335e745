import chex
import jax
import numpy as np
import pytest

from research import losses


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
