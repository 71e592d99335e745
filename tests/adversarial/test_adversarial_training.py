"""Images of adversarial training: a second implementation, and that they stay within the budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.adversarial.adversarial_training import make_adversarial
from research.models.cnn import CNN
from research.structs import Batch, UserError

LINEAR = CNN(filters=(), pools=(), dropouts=(), dense=(), dense_dropouts=())
SHAPE = (8, 4, 4, 1)
RNG = np.random.default_rng(3)
KERNEL = RNG.normal(size=(16, 10)).astype(np.float32)
PARAMS = {"output": {"kernel": KERNEL, "bias": np.zeros(10, np.float32)}}
# A quarter of the values black and a quarter white, so that the box cuts.
IMAGES = np.clip(RNG.integers(-255, 511, SHAPE), 0, 255).astype(np.uint8)
LABELS = np.arange(8, dtype=np.int32)
BATCH = Batch(images=IMAGES, labels=LABELS, mask=np.ones(8, bool))


def by_hand(key, radius, steps):
    """The same for the linear net: the gradient is worked out, and every image is one row."""
    most = 255 * radius
    noise = np.asarray(jax.random.uniform(key, SHAPE, jnp.float32, -most, most)).reshape(8, 16)
    clean, size = np.float64(IMAGES.reshape(8, 16)), most * {1: 1.25, 3: 2.5 / 3}[steps]

    def picture(noise):
        return np.clip(clean + np.trunc(noise * (1 + 1e-6)), 0, 255)

    for _ in range(steps):
        logits = picture(noise) / 255 @ KERNEL
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        gradient = (chances - np.eye(10)[LABELS]) @ KERNEL.T
        noise = np.clip(noise + size * np.sign(gradient), -most, most)
        noise = np.clip(noise, -clean, 255 - clean)
    return picture(noise).reshape(SHAPE)


@pytest.mark.parametrize("steps", [1, 3])
def test_adversarial_images_equal_those_worked_out_by_hand(steps, key):
    adversarial = jax.jit(make_adversarial(LINEAR, radius=0.5, steps=steps))
    np.testing.assert_array_equal(adversarial(PARAMS, key, BATCH), by_hand(key, 0.5, steps))


@pytest.mark.parametrize(("radius", "levels"), [(0.3, 76), (1 / 255, 1)])
def test_no_value_moves_farther_than_the_radius_and_some_move_as_far(radius, levels, key):
    found = jax.jit(make_adversarial(LINEAR, radius=radius, steps=1))(PARAMS, key, BATCH)
    assert found.dtype == np.uint8
    assert np.abs(np.int32(found) - IMAGES).max() == levels


def test_a_radius_of_zero_leaves_nothing_to_do():
    assert make_adversarial(LINEAR, radius=0.0, steps=1) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"radius": -0.1}, r"adversarial_radius: -0.1 is not in \[0, 1\]"),
        ({"radius": 76.0}, r"adversarial_radius: 76.0 is not in \[0, 1\]"),
        ({"radius": float("nan")}, "adversarial_radius: nan"),
        ({"radius": 0.003}, "adversarial_radius: 0.003 is less than one of the 255 levels"),
        ({"steps": 0}, "adversarial_steps: 0 is not a positive number"),
        ({"radius": 0.0, "steps": -1}, "adversarial_steps: -1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_its_key(settings, said):
    with pytest.raises(UserError, match=said):
        _ = make_adversarial(LINEAR, **{"radius": 0.3, "steps": 1, **settings})
