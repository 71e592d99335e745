import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.structs import UserError
from research.training import optim


@pytest.fixture
def promotion():
    """Adam and AdamW of optax mix whole numbers with others."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def updates(tx, gradients, params=None):
    """What `tx` adds for every one of the gradients in turn; the parameters stay as they are."""
    params = np.zeros_like(gradients[0]) if params is None else params
    state, found = tx.init(params), []
    for gradient in gradients:
        update, state = tx.update(gradient, state, params)
        found.append(np.asarray(update))
    return np.array(found)


def rates(steps, count):
    """The learning rate of `count` steps of one_cycle over `steps`, as plain descent shows it."""
    tx = optim.make_optimizer(0.4, schedule="one_cycle", steps=steps)
    return -updates(tx, np.ones((count, 1), np.float32))[:, 0]


def test_an_update_is_minus_the_learning_rate_times_the_gradient_without_momentum():
    found = updates(optim.make_optimizer(0.01), np.float32([[3.0], [3.0]]))
    np.testing.assert_allclose(found, [[-0.03], [-0.03]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_adam_is_that_of_keras_by_its_formula(scale):
    gradients = np.random.default_rng(0).normal(scale=scale, size=(6, 5))
    mean, square, expected = np.zeros(5), np.zeros(5), []
    for t, gradient in enumerate(gradients, start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        expected.append(-rate * mean / (np.sqrt(square) + 1e-7))
    found = updates(optim.make_optimizer(0.01, name="adam"), np.float32(gradients))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.usefixtures("promotion")
def test_keras_takes_smaller_first_steps_along_tiny_gradients_than_optax_does():
    """sqrt(1 - b2) g / (sqrt(1 - b2) g + epsilon) of the learning rate, not g / (g + epsilon)."""
    gradient = np.float32([[1e-7]])
    of_keras = updates(optim.make_optimizer(1.0, name="adam"), gradient)
    of_optax = updates(optax.adam(1.0, eps=1e-7), gradient)
    assert of_keras.item() == pytest.approx(-(0.001**0.5) / (0.001**0.5 + 1), rel=1e-4)
    assert of_optax.item() == pytest.approx(-0.5, rel=1e-4)


def test_one_cycle_rises_for_a_fifth_and_falls_to_nothing():
    found = rates(20, 21)
    np.testing.assert_allclose(found[[0, 2, 4, 12, 20]], [0.02, 0.21, 0.4, 0.2, 0.0], atol=1e-6)
    rising, falling = np.diff(found[:5]), np.diff(found[4:])
    np.testing.assert_allclose(rising, np.full(4, 0.38 / 4), rtol=1e-4)
    np.testing.assert_allclose(falling, np.full(16, -0.4 / 16), rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_one_cycle_of_very_few_steps_never_leaves_its_bounds(steps):
    found = rates(steps, steps)
    assert (found > 0).all() and (found <= np.float32(0.4)).all()


@pytest.mark.usefixtures("promotion")
def test_adamw_forgets_squares_after_a_hundred_steps():
    """After the gradients 1 and 0, both moments are those of the first, corrected for their age."""
    found = updates(optim.make_optimizer(1.0, name="adamw"), np.float32([[1.0], [0.0]]))
    expected = (0.9 * 0.1 / (1 - 0.9**2)) / np.sqrt(0.99 * 0.01 / (1 - 0.99**2))
    np.testing.assert_allclose(found[:, 0], [-1.0, -expected], rtol=1e-5)


@pytest.mark.usefixtures("promotion")
def test_weights_decay_in_kernels_only():
    params = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0)}
    tx = optim.make_optimizer(0.1, name="adamw", weight_decay=0.5)
    nothing = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    update, _ = tx.update(nothing, tx.init(params), params)
    np.testing.assert_allclose(update["kernel"], np.full((2, 3), -0.1 * 0.5 * 2.0), rtol=1e-6)
    assert not update["bias"].any()


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_learning_rate_that_cannot_descend_is_refused(rate):
    with pytest.raises(UserError, match="learning_rate"):
        _ = optim.make_optimizer(rate)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "lion"}, "optimizer: 'lion' is not one of sgd, adam, adamw"),
        ({"schedule": "cosine"}, "schedule: 'cosine' is not one of constant, one_cycle"),
        ({"name": "adamw", "weight_decay": -0.1}, "weight_decay: -0.1 is negative"),
        ({"name": "adamw", "weight_decay": float("nan")}, "weight_decay: nan"),
        ({"name": "adam", "weight_decay": 0.1}, "weight_decay: only adamw decays weights"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_key(changes, said):
    with pytest.raises(UserError, match=said):
        _ = optim.make_optimizer(0.1, **changes)
