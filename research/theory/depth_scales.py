"""How deep a signal reaches: the depth scales of an init, and whether a net of it will train.

The mean square of the signal changes by chi = sigma_w^2 E f'(u)^2 from one layer to the one before,
so that it is lost, or explodes, over xi = 1 / |ln chi| layers.  Nets deeper than about six times
that do not train (Schoenholz et al. 2017).
"""

from typing import NamedTuple

import numpy as np

from research.theory import gaussian
from research.theory.gaussian import Function
from research.theory.mean_field import Net

LIMIT = 6.0  # depth over depth scale, up to which nets train within some hundred steps
TRAINED = 0.5  # test accuracy from which a net of ten classes counts as trained
_LOWEST, _HIGHEST = 1e-30, 1e6


class FixedPoint(NamedTuple):
    """Where the variance of the pre-activations ends up, [...] float64 each, biases being zero.

    q: the variance; 0 or infinite where it does not stay.  chi: see above, there.
    xi: 1 / |ln chi|, the depth scale of gradients; infinite at criticality, chi = 1.
    """

    q: np.ndarray
    chi: np.ndarray
    xi: np.ndarray


def fixed_point(function: Function, sigma_w: np.ndarray, *, centre: float = 0.0) -> FixedPoint:
    """The fixed point of q -> sigma_w^2 E (f(sqrt(q) z) - centre)^2, by bisection in ln q.

    sigma_w: [...], the root of the width times the variance of the kernel's entries.
    """
    square = np.asarray(sigma_w, np.float64) ** 2
    low, high = np.full(square.shape, np.log(_LOWEST)), np.full(square.shape, np.log(_HIGHEST))
    for _ in range(60):
        middle = (low + high) / 2
        q = np.exp(middle)
        after = square * gaussian.expectation(function, lambda f: (f - centre) ** 2, q, order=0)
        grows = after > q
        low, high = np.where(grows, middle, low), np.where(grows, high, middle)
    q = np.exp((low + high) / 2)
    chi = square * gaussian.expectation(function, lambda _, slope: slope**2, q)
    with np.errstate(divide="ignore"):
        xi = 1 / np.abs(np.where(np.isclose(chi, 1.0, atol=1e-9), 0.0, np.log(chi)))
    q = np.where(q < 10 * _LOWEST, 0.0, np.where(q > _HIGHEST / 10, np.inf, q))
    return FixedPoint(q, chi, xi)


def decay(
    function: Function, sigma_w: np.ndarray, first: np.ndarray, depth: int, *, centre: float = 0.0
) -> np.ndarray:
    """Depth over depth scale, |sum of ln chi| from the last hidden layer to the first: [depth].

    The depth scale is that of the layers as they are, from the variance `first` of the first
    pre-activations on, and not that of the fixed point.  Entry d - 1 is of d hidden layers.
    sigma_w, first: [...], in front of [depth].
    """
    square, q = np.asarray(sigma_w, np.float64) ** 2, np.asarray(first, np.float64)
    total, totals = np.zeros(np.broadcast_shapes(square.shape, q.shape)), list[np.ndarray]()
    for _ in range(depth):
        moments = [
            gaussian.expectation(function, integrand, np.maximum(q, _LOWEST))
            for integrand in (lambda f, _: (f - centre) ** 2, lambda _, slope: slope**2)
        ]
        totals.append(np.abs(total))
        total = total + np.log(square * moments[1])
        q = np.minimum(square * moments[0], _HIGHEST)
    return np.stack(totals, axis=-1)


def depth_in_scales(net: Net, images: np.ndarray) -> float:
    """`decay` of a net as it is, with the kernels of each layer: |sum of ln chi|.

    images: [B, inputs] float.  With a branch b the signal beside it counts, in which a layer adds
    b^2 chi to 1.
    """
    moving = np.mean(np.asarray(images, np.float64) ** 2)
    total, depth = 0.0, len(net.widths) - 2
    for i in range(depth):
        q = np.clip(net.widths[i] * net.variances[i] * moving, _LOWEST, _HIGHEST)
        square, slope = (
            float(gaussian.expectation(net.function, integrand, q))
            for integrand in (lambda f, _: (f - net.centre) ** 2, lambda _, slope: slope**2)
        )
        if net.branch and i:
            total += np.log1p(net.branch**2 * net.widths[i + 1] * net.variances[i] * slope)
        elif not net.branch and i + 1 < depth:
            total += np.log(net.widths[i + 2] * net.variances[i + 1] * slope)
        moving = moving + net.branch**2 * square if net.branch and i else square
    return abs(float(total))


def auc(scores: np.ndarray, outcomes: np.ndarray) -> float:
    """The chance that a net that trained has a lower score than one that did not; ties half.

    scores: [N], smaller for nets that should train.  outcomes: [N] bool.  NaN if all are alike.
    """
    good, bad = scores[outcomes], scores[~outcomes]
    if not good.size or not bad.size:
        return float("nan")
    return float(np.mean((good[:, None] < bad) + 0.5 * (good[:, None] == bad)))


def balanced_accuracy(scores: np.ndarray, outcomes: np.ndarray, threshold: float) -> float:
    """The mean of the shares of nets that trained and that did not, which the threshold sorts."""
    predicted = scores < threshold
    return float((predicted[outcomes].mean() + (~predicted[~outcomes]).mean()) / 2)


def best_threshold(scores: np.ndarray, outcomes: np.ndarray) -> float:
    """The threshold with the highest `balanced_accuracy`, midway between two scores."""
    ordered = np.unique(scores[np.isfinite(scores)])
    candidates = (ordered[1:] + ordered[:-1]) / 2
    return float(max(candidates, key=lambda t: balanced_accuracy(scores, outcomes, t)))
