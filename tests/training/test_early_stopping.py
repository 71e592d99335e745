"""Early stopping against the report's own log, and against the rule written as a loop."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.structs import Metrics
from research.training import early_stopping

# Report, Exercise 3, Fig. 16: val_loss of the 14 epochs that were trained.
LOG = (
    *(0.3433, 0.3581, 0.3174, 0.3172, 0.3270, 0.3299, 0.3151),
    *(0.3894, 0.3355, 0.3116, 0.4401, 0.5792, 0.4709, 0.6566),
)


def run(losses, patience, count=10):
    """Epochs trained, best epoch, its loss and its parameters, by the functions of the module."""
    best = early_stopping.start({"w": jnp.float32(0)}, with_params=True)
    trained = 0
    for epoch, loss in enumerate(losses, 1):
        if not early_stopping.is_active(best, epoch, patience):
            break
        sums = Metrics(jnp.float32(loss * count), jnp.int32(0), jnp.int32(count))
        best = early_stopping.update(best, {"w": jnp.float32(epoch)}, sums, epoch)
        trained = epoch
    return trained, int(best.epoch), float(best.loss), int(best.params["w"])


def test_the_reports_training_stops_after_14_epochs_and_its_best_is_the_10th():
    trained, epoch, loss, params = run((*LOG, *[0.1] * 16), 4)
    assert (trained, epoch, params) == (14, 10, 10)
    assert loss == pytest.approx(0.3116)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 4))
def test_it_is_the_rule_of_keras(losses, patience):
    """wait += 1; if the loss is lower: best, wait = 0; elif wait >= patience: stop."""
    best, wait, at, trained = np.inf, 0, 0, 0
    for epoch, loss in enumerate(losses, 1):
        trained, wait = epoch, wait + 1
        if loss < best:
            best, wait, at = loss, 0, epoch
        elif patience and wait >= patience:
            break
    assert run(losses, patience)[:2] == (trained, at)


def test_an_epoch_of_no_images_is_never_the_best():
    best = early_stopping.start({}, with_params=False)
    nothing = Metrics(jnp.float32(0), jnp.int32(0), jnp.int32(0))
    assert int(early_stopping.update(best, {}, nothing, 3).epoch) == 0


def test_parameters_are_kept_only_if_asked_for():
    best = early_stopping.start({"w": jnp.ones(3)}, with_params=False)
    sums = Metrics(jnp.float32(1), jnp.int32(0), jnp.int32(1))
    assert early_stopping.update(best, {"w": jnp.ones(3)}, sums, 1).params == {}
