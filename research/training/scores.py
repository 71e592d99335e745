"""Scores of a trained classifier beyond its accuracy.

NumPy arrays in, numbers out, all of them computed in float64; probabilities are the softmax of the
logits, and what is predicted is the first of the largest logits.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from research.structs import check_classes


class Reliability(NamedTuple):
    """How often predictions of a given confidence are right; B bins of equal width.

    edges: [B+1] float64 from 0 to 1; bin b holds confidences in (edges[b], edges[b+1]].
    counts: [B] int64, examples in the bin.
    confidence, accuracy: [B] float64, means over the bin as fractions, NaN where it is empty.
    expected_calibration_error: |accuracy - confidence|, mean over examples.
    negative_log_likelihood: nats.  brier: 0 (best) to 2.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    expected_calibration_error: float
    negative_log_likelihood: float
    brier: float


def confusion(predicted: ArrayLike, labels: ArrayLike, classes: int) -> np.ndarray:
    """How often each class is taken for each: [K, K] int64, rows actual, columns predicted.

    predicted, labels: [N] integers, 0..classes-1.
    Raises ValueError for other shapes or types, no examples, or a class out of range.
    """
    actual = _classes_of(labels, "labels", classes)
    guessed = _classes_of(predicted, "predicted", classes)
    if actual.shape != guessed.shape:
        raise ValueError(
            f"expected as many labels as predictions, {guessed.size}, got {actual.size}"
        )
    counts = np.bincount(actual * classes + guessed, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class_accuracy(confusion: ArrayLike) -> np.ndarray:
    """Share of each class's examples that are predicted right: [K] float64, NaN without examples.

    confusion: [K, K] counts, rows actual, columns predicted.
    Raises ValueError if it is not square, is empty, or holds a negative count.
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"expected a confusion [K, K], got {list(counts.shape)}")
    if not np.all(counts >= 0):
        raise ValueError("expected counts of 0 or more in the confusion, got some that are not")
    return _ratio(np.diagonal(counts), counts.sum(axis=1))


def softmax(logits: ArrayLike) -> np.ndarray:
    """Probabilities [N, K] float64 of logits [N, K].

    Raises ValueError for another shape, no examples, or logits that are not finite.
    """
    return np.exp(_log_softmax(_logits_of(logits)))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Cross-entropy in nats, mean over examples.

    logits: [N, K] finite.  labels: [N] integers, 0..K-1.  Raises ValueError otherwise.
    """
    scores, actual = _pair(logits, labels)
    return float(-_log_softmax(scores)[np.arange(actual.size), actual].mean())


def brier(logits: ArrayLike, labels: ArrayLike) -> float:
    """Squared distance of the probabilities from the one-hot label, mean over examples; 0..2.

    The sum over all K classes, as in the source, twice that of the binary form for K = 2.
    Arguments and errors as in `negative_log_likelihood`.
    Source: Brier 1950, Monthly Weather Review 78.
    """
    scores, actual = _pair(logits, labels)
    distance = softmax(scores)
    distance[np.arange(actual.size), actual] -= 1.0
    return float(np.square(distance).sum(axis=1).mean())


def reliability(logits: ArrayLike, labels: ArrayLike, bins: int = 15) -> Reliability:
    """Accuracy against confidence, the largest probability, in bins of equal width.

    A confidence on an edge belongs to the bin below it; the edges are the doubles nearest to b / B.
    Arguments and errors as in `negative_log_likelihood`; bins: 1 or more, else ValueError.
    Source: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, section 2;
    15 bins as in their table 1.
    """
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}")
    scores, actual = _pair(logits, labels)
    confidences = softmax(scores).max(axis=1)
    hits = scores.argmax(axis=1) == actual
    edges = np.arange(bins + 1) / bins
    index = np.searchsorted(edges[1:-1], confidences, side="left")
    counts, right = (np.bincount(i, minlength=bins) for i in (index, index[hits]))
    confidence_sums = np.bincount(index, weights=confidences, minlength=bins)
    return Reliability(
        edges=edges,
        counts=counts.astype(np.int64),
        confidence=_ratio(confidence_sums, counts),
        accuracy=_ratio(right, counts),
        expected_calibration_error=float(np.abs(right - confidence_sums).sum() / actual.size),
        negative_log_likelihood=negative_log_likelihood(scores, actual),
        brier=brier(scores, actual),
    )


def wilson_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The shares p, as (low, high) in [0, 1], with |hits / count - p| <= z sqrt(p (1-p) / count).

    z: half width in standard deviations; 1.96 makes it an interval of 95 %.
    Raises ValueError unless 0 <= hits <= count, 1 <= count and 0 < z.
    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    if not (0 <= hits <= count and count >= 1 and z > 0):
        raise ValueError(f"expected 0 <= hits <= count and z > 0, got {hits} of {count}, z = {z}")
    low, spared = (_wilson_low(k, count, z) for k in (hits, count - hits))
    return low, 1.0 - spared


def roc(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, float]:
    """The false and the true positive rate [T] at every threshold, falling, and the area between.

    probabilities: [N], of being positive.  labels: [N], true where positive.  Both curves go from 0
    to 1.  The area is the share of pairs of a positive and a negative in which the positive has the
    larger probability, ties counting half (Hanley & McNeil 1982).
    Raises ValueError for other shapes, for NaN, or if one of the two kinds is missing.
    """
    given, positive = np.asarray(probabilities, np.float64), np.asarray(labels, bool)
    if given.ndim != 1 or given.shape != positive.shape or not np.isfinite(given).all():
        raise ValueError(f"expected numbers and labels [N], got {given.shape}, {positive.shape}")
    if positive.all() or not positive.any():
        raise ValueError("expected positives and negatives, got only one kind")
    order = np.argsort(-given, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(given[order])), given.size - 1)  # of equal numbers
    hits = np.cumsum(positive[order])[ends]
    true_rate = np.append(0.0, hits / positive.sum())
    false_rate = np.append(0.0, (ends + 1 - hits) / (~positive).sum())
    return false_rate, true_rate, float(np.trapezoid(true_rate, false_rate))


def summary(logits: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """All scores of one net, ready for JSON; fractions and nats, None where there is no value.

    classes: K names, each once.  Other arguments and errors as in `negative_log_likelihood`.
    Returns accuracy, accuracy_interval [low, high] (Wilson, 95 %), correct, count, nll, brier, ece
    (15 bins), per_class {name: accuracy} and confusion, rows actual, as lists of counts.
    """
    scores, actual = _pair(logits, labels)
    names = [str(name) for name in classes]
    if len(names) != scores.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"expected {scores.shape[1]} classes, each named once, got {names}")
    counts = confusion(scores.argmax(axis=1), actual, len(names))
    correct = int(np.trace(counts))
    judged = reliability(scores, actual)
    shares = [None if np.isnan(share) else float(share) for share in per_class_accuracy(counts)]
    return {
        "accuracy": correct / actual.size,
        "accuracy_interval": list(wilson_interval(correct, actual.size)),
        "correct": correct,
        "count": actual.size,
        "nll": judged.negative_log_likelihood,
        "brier": judged.brier,
        "ece": judged.expected_calibration_error,
        "per_class": dict(zip(names, shares, strict=True)),
        "confusion": counts.tolist(),
    }


def _logits_of(logits: ArrayLike) -> np.ndarray:
    """Checked logits [N, K] in float64."""
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"expected logits [N, K] of at least one, got {list(scores.shape)}")
    broken = int((~np.isfinite(scores)).any(axis=1).sum())
    if broken:
        raise ValueError(f"expected finite logits, got others in {broken} of {len(scores)} rows")
    return scores


def _classes_of(values: ArrayLike, name: str, classes: int) -> np.ndarray:
    """Checked classes [N] in int64."""
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        shape = list(array.shape)
        raise ValueError(f"expected {name} [N] of integers, got {array.dtype} {shape}")
    return check_classes(array, name, classes).astype(np.int64)


def _pair(logits: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores = _logits_of(logits)
    actual = _classes_of(labels, "labels", scores.shape[1])
    if len(scores) != actual.size:
        raise ValueError(f"expected as many labels as logits, {len(scores)}, got {actual.size}")
    return scores, actual


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Quotients in float64, NaN where the divisor is zero."""
    nothing = np.full(wholes.shape, np.nan)
    return np.divide(parts, wholes, out=nothing, where=wholes > 0)


def _wilson_low(hits: int, count: int, z: float) -> float:
    """The smaller root of (hits / count - p)^2 = z^2 p (1-p) / count, exactly 0 without a hit."""
    root = np.sqrt(z * z + 4.0 * hits * (1.0 - hits / count))
    return float(max(0.0, (2.0 * hits + z * z - z * root) / (2.0 * (count + z * z))))
