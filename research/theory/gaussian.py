"""Expectations of an activation f and its derivatives under a Gaussian pre-activation u ~ N(0, K).

Of one variable by the midpoint rule, which for smooth functions under a Gaussian converges faster
than any power of its step (24 Gauss-Hermite nodes are wrong as soon as sqrt(K) > 2).  Of a pair by
Hermite series, E f(u_a) f(u_b) = sum_k a_k b_k c^k with c the correlation and a_k the coefficients
of f(sqrt(K_aa) z); of ReLU, whose series converges slowly, in closed form (Cho & Saul 2009).
Everything is float64, whatever the precision of the training.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[[jax.Array], jax.Array]

_RANGE = 10.0  # standard deviations that are integrated; the density beyond is below 1e-22
_TERMS = 64  # of a Hermite series
_BLOCK = 16384  # values of a function that are asked for at once
_TINY = 1e-30


class Pairs(NamedTuple):
    """Expectations over pairs (u_a, u_b) ~ N(0, K), each [B, B] float64, first index a.

    value: E f(u_a) f(u_b).  cross: E f'(u_a) f'(u_b), which is d value_ab / d K_ab.
    bend: E f''(u_a) f(u_b), which is 2 d value_ab / d K_aa for a != b; d value_aa / d K_aa is
    cross_aa + bend_aa.  (Price's theorem.)
    """

    value: np.ndarray
    cross: np.ndarray
    bend: np.ndarray


def expectation(
    function: Function, integrand: Callable[..., np.ndarray], q: np.ndarray, order: int = 1
) -> np.ndarray:
    """E integrand(f(u), f'(u), ...) for u ~ N(0, q), with derivatives up to `order`.

    q: [...] variances.  integrand: elementwise, of order + 1 arrays.  Returns [...] float64.
    """
    q = np.asarray(q, np.float64)
    z, weights = _nodes(q)
    values = derivatives(function, np.sqrt(q)[..., None] * z, order)
    return integrand(*values) @ weights


def pairs(
    function: Function, kernel: np.ndarray, *, centre: float = 0.0
) -> tuple[Pairs, Pairs, np.ndarray]:
    """`Pairs` of f - centre and of f', and the mean [B] of f - centre, under u ~ N(0, kernel).

    kernel: [B, B] symmetric, positive semi-definite.
    """
    q = np.maximum(np.diag(kernel), _TINY)
    root = np.sqrt(np.outer(q, q))
    c = np.clip(kernel / root, -1.0, 1.0)
    if function is jax.nn.relu:
        if centre:
            raise ValueError("expected no centre for ReLU, whose kernels are in closed form")
        return _relu_pairs(q, root, c)
    z, weights = _nodes(q)
    values = derivatives(function, np.sqrt(q)[:, None] * z, 3)
    values[0] = values[0] - centre
    basis = (_hermite(z) * weights).T  # [nodes, terms]
    f0, f1, f2, f3 = (value @ basis for value in values)

    def series(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        total = np.zeros_like(c)
        for k in reversed(range(_TERMS)):  # Horner's scheme in c
            total = total * c + np.outer(left[:, k], right[:, k])
        return total

    d = series(f1, f1)
    ours, slopes = (series(f0, f0), d, series(f2, f0)), (d, series(f2, f2), series(f3, f1))
    return Pairs(*ours), Pairs(*slopes), f0[:, 0]


def derivatives(function: Function, x: np.ndarray, order: int) -> list[np.ndarray]:
    """f(x), f'(x), ... up to the derivative of that order, float64 of the shape of x."""
    # Blocks of one size are one program for each order, whatever is asked for: compiling one for
    # each shape would take longer than all that the theory computes with them.
    blocks = np.zeros((-(-x.size // _BLOCK), _BLOCK))
    blocks.reshape(-1)[: x.size] = x.reshape(-1)
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        values = [_compiled(function, order)(jnp.asarray(block)) for block in blocks]
    return [
        np.concatenate([np.asarray(each[k]) for each in values])[: x.size].reshape(x.shape)
        for k in range(order + 1)
    ]


@functools.cache
def _compiled(function: Function, order: int) -> Callable[[jax.Array], list[jax.Array]]:
    def slope(f: Function) -> Function:
        return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]

    functions = [function]
    for _ in range(order):
        functions.append(slope(functions[-1]))
    return jax.jit(lambda x: [each(x) for each in functions])


def _nodes(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints z and weights of the standard normal density, fine enough for variances q.

    Symmetric and without zero, so that the kink of ReLU does no harm.
    """
    widest = float(np.sqrt(np.max(q, initial=0.0)))
    count = 256 * min(64, max(1, int(np.ceil(widest / 4.0))))  # a step of at most 0.31 / sqrt(q)
    z = (np.arange(count) + 0.5) * (2 * _RANGE / count) - _RANGE
    weights = np.exp(-z * z / 2)
    return z, weights / weights.sum()


def _hermite(z: np.ndarray) -> np.ndarray:
    """The orthonormal Hermite polynomials of the standard normal density at z: [terms, nodes]."""
    rows = [np.ones_like(z), z]
    for k in range(1, _TERMS - 1):
        rows.append((z * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    return np.stack(rows)


def _relu_pairs(q: np.ndarray, root: np.ndarray, c: np.ndarray) -> tuple[Pairs, Pairs, np.ndarray]:
    """The kernels of ReLU (Cho & Saul 2009) and of its step, with their derivatives.

    The step's derivative is unbounded where c is 1; on the diagonal it is 0, as the value 1/2 does
    not depend on q.
    """
    theta = np.arccos(c)
    np.fill_diagonal(theta, 0.0)
    sine = np.sin(theta)
    step = (np.pi - theta) / (2 * np.pi)
    value = root * (sine + (np.pi - theta) * c) / (2 * np.pi)
    bend = root / q[:, None] * sine / (2 * np.pi)
    away = 2 * np.pi * np.where(sine > 0, sine, np.inf)
    return (
        Pairs(value, step, bend),
        Pairs(step, 1 / (root * away), -c / (q[:, None] * away)),
        np.sqrt(q / (2 * np.pi)),
    )
