"""Singular values of the Jacobian of the hidden layers, of a net before its first step.

J = dh_L / dh_1 is the product of the Jacobians of layers 2 to L, diag(f'(u)) W^T each, and
1 + branch * diag(f'(u)) W^T where a layer adds to its input.  In wide nets the factors are free of
one another, so that the mean of s^2 is the product of theirs, chi = n v E f'(u)^2, and the spreads
Var(s^2) / mean(s^2)^2 add up: E f'^4 / (E f'^2)^2 - 1 - s_1 a layer, with s_1 = -1 for independent
weights and 0 for orthogonal ones (Pennington, Schoenholz & Ganguli 2017).  A matrix of n columns
has a spread of n - 1 at most, that of rank one.

Shapes: B images, L hidden layers of n units.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from research.theory import gaussian
from research.theory.mean_field import Net


def jacobians(
    net: Net, kernels: Sequence[np.ndarray], biases: Sequence[np.ndarray], images: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(of a layer, of all from the second to it), dh_out / dh_in [B, n, n] float64, of 2 to L.

    kernels, biases: of the hidden layers, [in, out] and [out].  images: [B, inputs] float.
    """
    h: np.ndarray = np.empty(0)
    product: np.ndarray = np.empty(0)
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        weights = np.asarray(kernel, np.float64)
        u = (h if i else np.asarray(images, np.float64)) @ weights + np.asarray(bias, np.float64)
        value, slope = gaussian.derivatives(net.function, u, 1)
        if not i:
            h, product = value, np.eye(len(bias))[None]
            continue
        layer = slope[:, :, None] * weights.T
        if net.branch:
            layer = np.eye(len(bias)) + net.branch * layer
        h = h + net.branch * value if net.branch else value
        product = layer @ product
        yield layer, product


def spread(singular_values: np.ndarray) -> np.ndarray:
    """Var(s^2) / mean(s^2)^2 over the last axis of [..., n]; NaN where all are zero.

    The effective rank (participation ratio) is n / (1 + spread): 1 of a matrix of rank one, n of
    one whose singular values are all equal.
    """
    largest = singular_values.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        square = (singular_values / largest) ** 2  # those of deep nets would underflow
    return np.mean(square**2, axis=-1) / np.mean(square, axis=-1) ** 2 - 1


def predict(net: Net, images: np.ndarray) -> dict[str, np.ndarray]:
    """What theory says of the factors and of their products, [L - 1] each, means over the images.

    layer_mean, mean: of s^2, of the layer by itself and of the product up to it.
    layer_spread, spread: of s^2, of a wide net.
    finite_spread: E mean(s^4) / E mean(s^2)^2 - 1 of a net of n units, exact where the slopes are
    independent of the weights and these normal or orthogonal: the spread of a matrix counts as its
    mean of s^2, squared.
    images: [B, inputs] float.  The net has two hidden layers or more.
    """
    n, depth = net.widths[1], len(net.widths) - 2
    moving = np.mean(np.asarray(images, np.float64) ** 2, axis=1)
    mean, ratio = np.zeros(len(moving)), np.full(len(moving), 1 / n)
    rows: dict[str, list[np.ndarray]] = {"layer_mean": [], "layer_spread": [], "ratio": []}
    skip, square = (1.0, net.branch**2) if net.branch else (0.0, 1.0)
    for i in range(depth):
        q = net.widths[i] * net.variances[i] * moving
        value, centred = (
            gaussian.expectation(net.function, lambda f, p=p: (f - net.centre) ** p, q, order=0)
            for p in (2, 1)
        )
        if skip and i:
            moving = moving + square * value + 2 * net.branch * mean * centred
            mean = mean + net.branch * centred
        else:
            moving, mean = value, centred
        if not i:
            continue
        second, fourth = (
            gaussian.expectation(net.function, lambda _, slope, p=p: slope**p, q) for p in (2, 4)
        )
        chi, m = square * n * net.variances[i] * second, fourth / second**2
        rows["layer_mean"].append(skip + chi)
        own = m - 1 if net.orthogonal else m
        rows["layer_spread"].append((2 * skip * chi + chi**2 * own) / (skip + chi) ** 2)
        rows["ratio"].append(ratio := _next_ratio(ratio, n, m, chi, skip, net.orthogonal))
    layer_mean, layer_spread, ratios = (np.stack(row) for row in rows.values())
    return {
        "layer_mean": layer_mean.mean(axis=1),
        "layer_spread": layer_spread.mean(axis=1),
        "mean": np.cumprod(layer_mean, axis=0).mean(axis=1),
        "spread": np.cumsum(layer_spread, axis=0).mean(axis=1),
        "finite_spread": (n * ratios - 1).mean(axis=1),
    }


def _next_ratio(
    ratio: np.ndarray, n: int, m: np.ndarray, chi: np.ndarray, skip: float, orthogonal: bool
) -> np.ndarray:
    """E tr(M^2) / E (tr M)^2 of M = J J^T after one more layer, [B].

    ratio: before it.  m: E f'^4 / (E f'^2)^2.  chi: n v E f'^2, times the square of a branch.
    From the second and fourth moments of normal and of orthogonal matrices: of N = W M W^T the
    diagonal squares, in which the slopes count m, and the rest.
    """
    if orthogonal:
        diagonal = (1 + 2 * ratio) / (n + 2)
        squares, traces = ratio - diagonal, 1 - diagonal
    else:
        diagonal = (1 + 2 * ratio) / n
        squares, traces = (1 - 1 / n) * ratio, 1 - 1 / n
    above = chi**2 * (squares + m * diagonal)
    below = chi**2 * (traces + m * diagonal)
    above = above + skip * (ratio + chi * (2 + 2 / n) * ratio + 2 * chi / n)
    below = below + skip * (1 + 2 * chi + 4 * chi / n * ratio)
    return above / below
