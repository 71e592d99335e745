"""Nets and data that are small enough for a test to train, and `fit` over them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.adversarial.adversarial_training import make_adversarial
from research.data import batching, synthetic
from research.data.lazy_images import LazyImages
from research.experiments.depth import make_probe
from research.models.cnn import CNN
from research.models.mlp import MLP
from research.training import augment, optim
from research.training.fit import fit
from research.training.step import Loop, init_states

TRAIN, TEST = synthetic.digits(200, 70)
TX = optax.sgd(0.05)
SMALL_TRAIN, SMALL_TEST = (
    type(data)(images=data.images[:n, 10:18, 10:18], labels=data.labels[:n])
    for data, n in ((TRAIN, 40), (TEST, 20))
)


def slow(value):
    """A case that differs from another in little, left to the long runs."""
    return pytest.param(value, marks=pytest.mark.slow)


SEED = jnp.uint32(0)
YES = jnp.bool_(True)


def net(activation="tanh", depth=3):
    return MLP(depth, 8, activation)


@functools.cache
def start(model, seed=0):
    return init_states(model, TX, [seed], TRAIN.images[:1])


def one(states, row=0):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[row]), states)


def batch_of(rows, mask=None):
    mask = np.ones(len(rows), bool) if mask is None else mask
    return batching.gather(TRAIN, np.asarray(rows, np.int32), mask)


def fitted(
    model, *, seeds=(0,), epochs=3, resume=None, probe=True, batch_size=32, lr=0.05, **settings
):
    """Final states and everything that on_epoch saw: {epoch: (states, result)}."""
    seen = {}
    loop = Loop(epochs, batch_size, 32, make_probe(model) if probe else None, **settings)
    states = fit(
        model,
        optax.sgd(lr),
        TRAIN,
        TEST,
        loop,
        seeds=list(seeds),
        resume=resume,
        on_epoch=lambda number, states, result, seconds: seen.update({number: (states, result)}),
    )
    return states, seen


AUGMENT = augment.make_augment(shift_pixels=1, mirrored=True)
ADAM = optim.make_optimizer(0.01, name="adam")


def convolutional():
    return CNN(filters=(2, 3), pools=(1, 2), dropouts=(0, 0.25), dense=(5,), dense_dropouts=(0.5,))


ADVERSARIAL = make_adversarial(convolutional(), radius=0.1, steps=1)


RANDOM = Loop(
    *(2, 16, 20),
    augment=AUGMENT,
    adversarial=ADVERSARIAL,
    label_smoothing=0.1,
    steps_per_dispatch=2,
    convolutions=True,
)


def fitted_randomly(
    resume=None, on_steps=lambda *_: None, data=(SMALL_TRAIN, SMALL_TEST), **changes
):
    """As `fitted`: two seeds of the convolutional net, for two epochs."""
    seen = {}
    states = fit(
        convolutional(),
        ADAM,
        *data,
        RANDOM._replace(**changes),
        seeds=[0, 1],
        resume=resume,
        on_epoch=lambda number, states, result, seconds: seen.update({number: (states, result)}),
        on_steps=on_steps,
    )
    return states, seen


def stored(data, folder, name):
    """The same data set with its images in a file."""
    path = folder / name
    path.write_bytes(np.asarray(data.images).tobytes())
    return data.replace(images=LazyImages(path, data.images.shape))
