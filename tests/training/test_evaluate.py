"""Evaluation and prediction over whole data sets: every image once, in order."""

import functools

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from research.runtime import sharding
from research.training.evaluate import evaluate, predict, read_pieces
from research.training.step import as_input
from training.small import TEST, net, one, start, stored


@functools.cache
def classified():
    """A net, its parameters, and what it takes each image of the test set for."""
    model = net(depth=1)
    params = one(start(model)).params
    logits = model.apply({"params": params}, as_input(TEST.images))
    return model, params, np.argmax(logits, axis=1)


@given(n=st.integers(1, 70), batch_size=st.integers(1, 80))
@settings(max_examples=5, deadline=None)
def test_evaluation_counts_every_example_exactly_once(n, batch_size):
    model, params, classes = classified()
    data = jax.tree.map(lambda array: array[:n], TEST)
    found = evaluate(model, params, data, batch_size=batch_size)
    assert int(found.count) == n
    assert int(found.correct) == int(np.sum(classes[:n] == data.labels))


@given(n=st.integers(1, 20), batch_size=st.integers(1, 25))
@settings(max_examples=4, deadline=None)
def test_predictions_are_those_of_every_image_alone_in_order(n, batch_size):
    model = net(depth=1)
    params = one(start(model)).params
    images = TEST.images[:n]
    found = predict(model, params, images, batch_size=batch_size)
    alone = [model.apply({"params": params}, as_input(image[None]))[0] for image in images]
    np.testing.assert_allclose(found, np.stack(alone), rtol=1e-5, atol=1e-5)


def test_a_stored_test_set_is_filled_up_by_less_than_a_batch(tmp_path):
    """Pieces are no larger than the set: what fills them up costs as much as what counts."""
    ((data, valid),) = read_pieces(stored(TEST, tmp_path, "x"), 32, sharding.make_mesh(1))
    assert (len(data.images), int(valid)) == (96, 70)
