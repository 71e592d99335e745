"""A loss that is not finite is traced to its seed, step and layer."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.models.mlp import MLP
from research.training.divergence import Diverged
from research.training.fit import fit
from research.training.step import Loop, init_states
from training.small import TEST, TRAIN, TX, fitted, net, stored


def test_divergence_names_the_step_and_the_seed_and_the_first_layer():
    model = net("relu")
    states = init_states(model, TX, [4, 9], TRAIN.images[:1])
    states.params["hidden_02"]["kernel"][1, 0, 0] = np.nan
    with pytest.raises(Diverged) as caught:
        _ = fitted(model, seeds=[4, 9], epochs=2, resume=(1, states))
    error = caught.value
    assert (error.epoch, error.step, error.seed, error.layer) == (2, 0, 9, "hidden_02")


def test_a_net_that_is_not_finite_before_its_first_step_is_named_without_being_trained():
    class Broken(MLP):
        def preactivation(self, name, units, x):
            z = super().preactivation(name, units, x)
            return z + (jnp.float32(np.nan) if name == "hidden_01" else 0.0)

    with pytest.raises(Diverged, match=r"at step 0 \(epoch 0\).* hidden_02"):
        _ = fitted(Broken(3, 8, "tanh"))


def test_a_learning_rate_far_too_large_stops_the_run_before_the_epoch_is_recorded():
    seen, traced = {}, []

    def adversarial(params, key, batch):
        traced.append(1)
        return batch.images

    model = net("relu")
    loop = Loop(3, 32, 32, adversarial=adversarial)
    with pytest.raises(Diverged, match=r"seed 0 is not finite at step \d+ \(epoch 1\)"):
        _ = fit(
            model,
            optax.sgd(1e30),
            TRAIN,
            TEST,
            loop,
            seeds=[0],
            resume=None,
            on_epoch=lambda number, *_: seen.update({number: True}),
        )
    assert seen == {}
    assert len(traced) == 2  # in the program of the epoch, and in the step that the diagnosis takes


def test_a_step_that_diverges_on_images_from_the_disk_is_found(tmp_path):
    loop = Loop(2, 32, 32)
    with pytest.raises(Diverged) as caught:
        fit(
            net("relu"), optax.sgd(1e30), stored(TRAIN, tmp_path, "x"), TEST, loop, seeds=[0],
            resume=None, on_epoch=lambda *_: None,
        )  # fmt: skip
    assert (caught.value.epoch, caught.value.seed) == (1, 0)
