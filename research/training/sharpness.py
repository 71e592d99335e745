"""Sharpness: the largest eigenvalue of the Hessian of the mean loss, by Lanczos' method.

Gradient descent at a learning rate eta is unstable along a direction of curvature above 2 / eta,
and full-batch training hovers about there (Cohen et al. 2021, the edge of stability).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from research import prng
from research.data import batching
from research.runtime import sharding
from research.structs import Array, Dataset, PyTree
from research.training.step import Measure, batch_metrics

BAND = (0.8, 1.3)  # of 2 / learning rate, that counts as the edge of stability


def largest_eigenvalue(
    product: Callable[[jax.Array], jax.Array], start: jax.Array, iterations: int
) -> jax.Array:
    """The largest eigenvalue [] of a symmetric matrix, from below, by Lanczos' method.

    product: the matrix times a vector [P].  start: [P], not zero.  iterations: products that are
    taken, of which more than P are no use.  Every vector is made orthogonal to all before it,
    twice, which float32 needs: without it large eigenvalues come again and hide others.
    """
    iterations = min(iterations, start.size)

    def step(basis: jax.Array, number: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        vector = product(basis[number])
        own = basis[number] @ vector
        rest = vector
        for _ in range(2):
            rest = rest - (basis @ rest) @ basis
        norm = jnp.linalg.norm(rest)
        # Where the vectors span all that the start can reach, what is left is rounding.
        ended = norm <= 1e-6 * jnp.linalg.norm(vector)
        norm = jnp.where(ended, 0.0, norm)
        basis = basis.at[number + 1].set(jnp.where(ended, 0.0, rest / norm), mode="drop")
        return basis, (own, norm)

    basis = jnp.zeros((iterations, start.size), start.dtype)
    basis = basis.at[0].set(start / jnp.linalg.norm(start))
    _, (diagonal, beside) = jax.lax.scan(step, basis, jnp.arange(iterations))
    # Zero vectors behind the end would count as an eigenvalue 0: they get one that is no largest.
    real = jnp.concatenate([jnp.ones(1, bool), jnp.cumprod(beside[:-1] > 0).astype(bool)])
    diagonal = jnp.where(real, diagonal, diagonal[0])
    matrix = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    return jnp.linalg.eigvalsh(matrix)[-1]


def make_sharpness(model: nn.Module, *, images: int, iterations: int) -> Measure:
    """sharpness(params, data): {"sharpness": []} of the mean cross-entropy of the first `images`.

    iterations: of Lanczos' method, from the same random vector each time.  A product with the
    Hessian is the derivative of the gradient along a vector, forward over reverse: the gradient is
    computed once, and its linear part once a product.  All images are taken at once.
    """

    def sharpness(params: PyTree, data: Dataset) -> dict[str, Array]:
        count = min(images, len(data.images))
        places = jnp.arange(count, dtype=jnp.int32), jnp.ones(count, bool)
        batch = batching.gather(data, *sharding.split(places))
        flat, unravel = ravel_pytree(params)

        def loss(flat: jax.Array) -> Array:
            counted = batch_metrics(model, {"params": unravel(flat)}, batch)
            return counted.loss_sum / counted.count.astype(jnp.float32)

        product = jax.linearize(jax.grad(loss), flat)[1]
        start = jax.random.normal(prng.stream(0, "sharpness"), flat.shape, flat.dtype)
        return {"sharpness": largest_eigenvalue(product, start, iterations)}

    return sharpness


def plateau(values: np.ndarray, edge: float) -> tuple[int, int]:
    """How many values [E] lie within BAND of the edge: at most in a row, and in all."""
    low, high = BAND
    within = (values >= low * edge) & (values <= high * edge)
    ends = np.flatnonzero(~np.concatenate([[False], within, [False]]))
    return int(np.diff(ends).max() - 1), int(within.sum())
