"""Numbers of a judged mask classifier, worked out by hand."""

import numpy as np
import pytest

from research.experiments.masks import evaluation
from research.training import scores


def logits_of(*answers):
    """Logits [S, N, 2] of nets that give class 0 these probabilities."""
    chances = np.array(answers)
    return np.log(np.stack([chances, 1 - chances], axis=-1))


def test_the_numbers_of_a_group_are_means_over_the_seeds():
    labels = np.array([0, 0, 0, 1])
    metrics = evaluation.group_metrics(
        logits_of((0.9, 0.8, 0.2, 0.1), (0.9, 0.8, 0.7, 0.75)), labels, ("with", "without")
    )
    assert metrics["accuracies"] == [0.75, 0.75] and metrics["accuracy"] == 0.75
    assert (metrics["count"], metrics["majority"], metrics["sd"]) == (4, 0.75, 0.0)
    assert metrics["interval"] == list(scores.wilson_interval(3, 4))
    assert metrics["auc"] == pytest.approx((1 + 2 / 3) / 2)


def test_one_seed_has_no_standard_deviation_and_one_class_no_auc():
    metrics = evaluation.group_metrics(logits_of((0.9, 0.2)), np.array([0, 0]), ("one", "other"))
    assert (metrics["sd"], metrics["auc"], metrics["majority"]) == (None, None, 1.0)


def test_every_class_has_its_recall_and_what_its_faces_are_called():
    """Three classes, five faces, two nets: the second calls everything the third class."""
    labels = np.array([0, 0, 1, 2, 2])
    said = np.array([[0, 1, 1, 2, 0], [2, 2, 2, 2, 2]])
    names = ("with", "without", "incorrect", "never")
    metrics = evaluation.group_metrics(np.eye(4)[said], labels, names)
    assert metrics["classes"] == {
        "with": {
            "count": 2,
            "share": 0.25,
            "interval": [*scores.wilson_interval(0, 2)],
            "rights": [1, 0],
        },
        "without": {
            "count": 1,
            "share": 0.5,
            "interval": [*scores.wilson_interval(0, 1)],
            "rights": [1, 0],
        },
        "incorrect": {
            "count": 2,
            "share": 0.75,
            "interval": [*scores.wilson_interval(2, 2)],
            "rights": [1, 2],
        },
    }
    assert metrics["confusion"] == [[1, 1, 2, 0], [0, 1, 1, 0], [1, 0, 3, 0], [0, 0, 0, 0]]
