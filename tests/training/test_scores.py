"""Do the scores equal their definitions, written again or solved by hand, and refuse bad input?"""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.training import scores

NAMES = ("cat", "dog", "owl")
LOGITS = np.float32([[2, 0, 0], [1, 3, 0], [0, 4, 1], [5, 0, 0]])
LABELS = np.int32([0, 1, 0, 0])


def drawn(seed: int, count: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, K] float32 and labels [N] int32."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes)).astype(np.float32)
    return logits, rng.integers(0, classes, count).astype(np.int32)


def logits_of(*confidences: float) -> np.ndarray:
    """Logits of two classes whose softmax gives class 0 these probabilities."""
    shares = np.array(confidences)
    return np.stack([np.log(shares), np.log1p(-shares)], axis=1)


def loop_softmax(row: np.ndarray) -> list[float]:
    powers = [math.exp(float(x)) for x in row]
    return [power / math.fsum(powers) for power in powers]


def loop_ece(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The source's equation, example by example; no confidence may lie on an edge."""
    inside: dict[int, list[tuple[bool, float]]] = {}
    for row, label in zip(logits, labels, strict=True):
        shares = loop_softmax(row)
        guess = shares.index(max(shares))
        bin_of = math.ceil(shares[guess] * bins)
        inside.setdefault(bin_of, []).append((guess == label, shares[guess]))
    parts = []
    for members in inside.values():
        accuracy = sum(hit for hit, _ in members) / len(members)
        confidence = math.fsum(share for _, share in members) / len(members)
        parts.append(len(members) / len(labels) * abs(accuracy - confidence))
    return math.fsum(parts)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_confusion_equals_a_loop_and_adds_up_to_the_examples(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(0, classes, (2, 30)).astype(np.int32)
    wanted = [[0] * classes for _ in range(classes)]
    for guess, label in zip(predicted, labels, strict=True):
        wanted[label][guess] += 1
    found = scores.confusion(predicted, labels, classes)
    assert found.tolist() == wanted
    assert found.dtype == np.int64
    assert found.sum(axis=1).tolist() == np.bincount(labels, minlength=classes).tolist()


def test_confusion_of_small_integers_does_not_overflow() -> None:
    labels = np.full(3, 19, np.uint8)
    assert scores.confusion(labels, labels, 20)[19, 19] == 3


def test_per_class_accuracy_is_over_the_actual_and_nan_without_examples() -> None:
    counts = [[3, 1, 0], [2, 2, 4], [0, 0, 0]]
    np.testing.assert_array_equal(scores.per_class_accuracy(counts), [0.75, 0.25, np.nan])


def test_softmax_equals_a_loop_in_float64_and_survives_huge_logits() -> None:
    logits, _ = drawn(0)
    found = scores.softmax(logits)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [loop_softmax(row) for row in logits], rtol=1e-14)
    huge = np.float32([[3e38, -3e38], [3e38, 3e38], [-3e38, -3e38]])
    np.testing.assert_array_equal(scores.softmax(huge), [[1, 0], [0.5, 0.5], [0.5, 0.5]])


@given(st.integers(0, 10**6))
def test_likelihood_and_brier_equal_their_definitions(seed: int) -> None:
    logits, labels = drawn(seed, 12)
    shares = [loop_softmax(row) for row in logits]
    pairs = list(zip(shares, labels, strict=True))
    nll = math.fsum(-math.log(row[label]) for row, label in pairs) / 12
    distance = [(p - (k == label)) ** 2 for row, label in pairs for k, p in enumerate(row)]
    assert scores.negative_log_likelihood(logits, labels) == pytest.approx(nll, rel=1e-12)
    assert scores.brier(logits, labels) == pytest.approx(math.fsum(distance) / 12, rel=1e-12)


def test_closed_forms_of_likelihood_and_brier() -> None:
    same = np.zeros((5, 10), np.float32)
    labels = np.arange(5)
    assert scores.negative_log_likelihood(same, labels) == pytest.approx(math.log(10))
    assert scores.brier(same, labels) == pytest.approx(0.9)
    sure = np.float32([[1000, 0]])
    assert scores.brier(sure, [1]) == 2.0
    assert scores.negative_log_likelihood(sure, [1]) == 1000.0


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_calibration_error_equals_a_loop_over_examples(seed: int, bins: int) -> None:
    logits, labels = drawn(seed)
    found = scores.reliability(logits, labels, bins)
    wanted = loop_ece(logits, labels, bins)
    assert found.expected_calibration_error == pytest.approx(wanted, abs=1e-12)
    assert found.counts.sum() == len(labels)
    assert len(found.counts) == bins == len(found.edges) - 1
    assert (found.counts == 0).tolist() == np.isnan(found.accuracy).tolist()
    assert (found.counts == 0).tolist() == np.isnan(found.confidence).tolist()
    some = found.counts > 0
    assert np.all(found.confidence[some] >= found.edges[:-1][some])
    assert np.all(found.confidence[some] <= found.edges[1:][some])
    hits = np.sum(np.argmax(logits, axis=1) == labels)
    assert np.sum(found.counts[some] * found.accuracy[some]) == pytest.approx(hits)


def test_bins_hold_the_means_of_their_examples() -> None:
    found = scores.reliability(logits_of(0.95, 0.91, 0.72, 0.55), [0, 1, 0, 0], bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 2]
    np.testing.assert_allclose(found.confidence[[5, 7, 9]], [0.55, 0.72, 0.93])
    np.testing.assert_allclose(found.accuracy[[5, 7, 9]], [1.0, 1.0, 0.5])
    assert found.expected_calibration_error == pytest.approx((0.45 + 0.28 + 2 * 0.43) / 4)


@pytest.mark.parametrize(("classes", "bins"), [(2, 2), (4, 4), (5, 15), (10, 10), (1, 7)])
def test_confidence_on_an_edge_belongs_to_the_bin_below(classes: int, bins: int) -> None:
    found = scores.reliability(np.zeros((1, classes)), [0], bins)
    assert found.counts.tolist().index(1) == bins // classes - 1
    assert found.counts.sum() == 1


def test_edges_are_the_nearest_doubles() -> None:
    for bins in (10, 15):
        found = scores.reliability(LOGITS, LABELS, bins)
        assert found.edges.tolist() == [b / bins for b in range(bins + 1)]


def test_right_as_often_as_confident_is_calibrated_and_too_sure_by_the_known_gap() -> None:
    labels = np.repeat([0, 1], [80, 20])
    calibrated = scores.reliability(logits_of(*[0.8] * 100), labels)
    assert calibrated.expected_calibration_error == pytest.approx(0, abs=1e-12)
    sure = scores.reliability(logits_of(*[0.99] * 100), labels)
    assert sure.expected_calibration_error == pytest.approx(0.19)
    assert sure.negative_log_likelihood > calibrated.negative_log_likelihood
    assert sure.brier > calibrated.brier


def test_labels_drawn_from_the_softmax_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 5))
    shares = scores.softmax(logits).cumsum(axis=1)
    labels = (rng.random((40_000, 1)) > shares).sum(axis=1).clip(max=4)
    assert scores.reliability(logits, labels).expected_calibration_error < 0.01
    assert scores.reliability(3 * logits, labels).expected_calibration_error > 0.1


@given(st.integers(0, 10**6))
def test_the_order_of_the_examples_and_of_the_classes_does_not_matter(seed: int) -> None:
    logits, labels = drawn(seed)
    rng = np.random.default_rng(seed)
    rows, classes = rng.permutation(60), rng.permutation(4)
    names = np.array(["a", "b", "c", "d"])
    before = scores.summary(logits, labels, names.tolist())
    moved = np.argsort(classes)[labels[rows]]
    after = scores.summary(logits[rows][:, classes], moved, names[classes].tolist())
    for name in ("accuracy", "nll", "brier", "ece", "correct", "count", "accuracy_interval"):
        assert after[name] == pytest.approx(before[name], rel=1e-12), name
    assert after["per_class"] == before["per_class"]
    shuffled = np.array(before["confusion"])[classes][:, classes]
    assert after["confusion"] == shuffled.tolist()


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.01, 10))
def test_ends_of_the_wilson_interval_solve_its_quadratic(
    count: int, share: float, z: float
) -> None:
    hits = round(share * count)
    for end in scores.wilson_interval(hits, count, z):
        assert 0 <= end <= 1
        left, right = (hits / count - end) ** 2, z * z * end * (1 - end) / count
        assert left == pytest.approx(right, rel=1e-6, abs=1e-14)
    low, high = scores.wilson_interval(hits, count, z)
    assert low <= hits / count + 1e-15 and hits / count <= high + 1e-15
    assert (1 - high, 1 - low) == pytest.approx(scores.wilson_interval(count - hits, count, z))


def test_wilson_interval_of_none_and_of_all_and_of_the_textbook() -> None:
    low, high = scores.wilson_interval(0, 10)
    assert (low, high) == (0.0, pytest.approx(1.96**2 / (10 + 1.96**2)))
    assert scores.wilson_interval(3, 756_573, 290428458.4961059)[0] == 0.0  # rounds to below
    assert scores.wilson_interval(10, 10) == (pytest.approx(1 - high), 1.0)
    assert scores.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_summary_holds_every_score_and_survives_json() -> None:
    found = scores.summary(LOGITS, LABELS, NAMES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["correct"], found["count"], found["accuracy"]) == (3, 4, 0.75)
    assert found["accuracy_interval"] == list(scores.wilson_interval(3, 4))
    assert found["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert found["per_class"] == {"cat": pytest.approx(2 / 3), "dog": 1.0, "owl": None}
    logits, labels = drawn(0)
    judged, found = scores.reliability(logits, labels, 15), scores.summary(logits, labels, "abcd")
    assert (found["ece"], found["nll"], found["brier"]) == judged[-3:]
    assert judged.negative_log_likelihood == scores.negative_log_likelihood(logits, labels)
    assert judged.brier == scores.brier(logits, labels)


def test_first_of_equal_logits_is_what_is_predicted() -> None:
    assert scores.summary(np.zeros((2, 3)), [0, 1], NAMES)["confusion"][:2] == [[1, 0, 0]] * 2
    assert scores.reliability(np.zeros((2, 3)), [0, 1]).accuracy[4] == 0.5


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), [], r"logits \[N, K\] of at least one, got \[0, 3\]"),
        (np.zeros((2, 0)), [0, 0], r"got \[2, 0\]"),
        (np.zeros(3), [0], r"got \[3\]"),
        ([[0, np.nan, 0], [0, 0, 0]], [0, 1], "finite logits, got others in 1 of 2 rows"),
        ([[0, np.inf, 0]], [0], "finite logits"),
        (LOGITS, LABELS[:3], "as many labels as logits, 4, got 3"),
        (LOGITS, LABELS + 2, r"labels 0\.\.2, got 2\.\.3"),
        (LOGITS, LABELS - 1, r"labels 0\.\.2, got -1\.\.0"),
        (LOGITS, LABELS.astype(float), r"labels \[N\] of integers, got float64 \[4\]"),
        (LOGITS, LABELS[:, None], r"got int32 \[4, 1\]"),
    ],
)
def test_bad_logits_and_labels_are_refused(logits: Any, labels: Any, message: str) -> None:
    for score in (scores.negative_log_likelihood, scores.brier, scores.reliability):
        with pytest.raises(ValueError, match=message):
            _ = score(logits, labels)
    with pytest.raises(ValueError, match=message):
        _ = scores.summary(logits, labels, NAMES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.confusion([0, 1], [0], 2), "as many labels as predictions, 2, got 1"),
        (lambda: scores.confusion([2], [0], 2), r"predicted 0\.\.1, got 2\.\.2"),
        (lambda: scores.confusion([], [], 2), r"labels \[N\] of integers"),
        (lambda: scores.softmax([[np.nan]]), "finite logits"),
        (lambda: scores.per_class_accuracy(np.zeros((2, 3))), r"\[K, K\], got \[2, 3\]"),
        (lambda: scores.per_class_accuracy(np.zeros((0, 0))), r"got \[0, 0\]"),
        (lambda: scores.per_class_accuracy([[1, -1], [0, 1]]), "counts of 0 or more"),
        (lambda: scores.reliability(LOGITS, LABELS, 0), "at least one bin, got 0"),
        (lambda: scores.wilson_interval(0, 0), "got 0 of 0"),
        (lambda: scores.wilson_interval(4, 3), "got 4 of 3"),
        (lambda: scores.wilson_interval(-1, 3), "got -1 of 3"),
        (lambda: scores.wilson_interval(1, 3, 0.0), "z = 0.0"),
        (lambda: scores.summary(LOGITS, LABELS, ("a", "b")), "3 classes, each named once"),
        (lambda: scores.summary(LOGITS, LABELS, ("a", "b", "a")), "3 classes, each named once"),
    ],
)
def test_other_bad_input_is_refused_with_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = call()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_under_the_roc_is_the_share_of_pairs_in_the_right_order(pairs):
    given_, labels = map(np.array, zip(*pairs, strict=True))
    if labels.all() or not labels.any():
        with pytest.raises(ValueError, match="only one kind"):
            scores.roc(given_, labels)
        return
    false_rate, true_rate, area = scores.roc(given_ / 5, labels)
    difference = given_[labels][:, None] - given_[~labels][None]
    np.testing.assert_allclose(area, ((difference > 0) + 0.5 * (difference == 0)).mean())
    for k, threshold in enumerate([np.inf, *np.unique(given_)[::-1]]):
        assert true_rate[k] == (given_[labels] >= threshold).mean()
        assert false_rate[k] == (given_[~labels] >= threshold).mean()
    assert len(true_rate) == len(np.unique(given_)) + 1


def test_roc_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="got"):
        scores.roc([0.1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="got"):
        scores.roc([[0.1, 0.2]], [[0, 1]])
