import jax
import jax.numpy as jnp
import numpy as np

from research.training import metrics

LOGITS = np.float32([[2, 1], [0, 3], [5, 1], [1, 2]])
LOSSES = np.float32([0.5, 0.25, np.nan, 4.0])
LABELS = np.array([0, 1, 0, 0])
MASK = np.array([True, True, False, True])


def test_only_unmasked_examples_are_counted_even_if_a_masked_one_is_nan():
    found = metrics.count_batch(LOGITS, LOSSES, LABELS, MASK)
    assert (float(found.loss_sum), int(found.correct), int(found.count)) == (4.75, 2, 3)


def test_the_total_is_the_sum_over_batches():
    one = metrics.count_batch(LOGITS, LOSSES, LABELS, MASK)
    found = metrics.total(jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), one))
    assert (float(found.loss_sum), int(found.correct), int(found.count)) == (23.75, 10, 15)
