"""Metrics and logits of trained nets over a whole data set."""

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.data import batching
from research.data.lazy_images import LazyImages, read_ahead
from research.runtime import sharding
from research.structs import Array, Dataset, Metrics, PyTree
from research.training import metrics
from research.training.step import Loop, as_input, batch_metrics

_READ_BYTES = 2**25  # of images that are read from the disk at once


def evaluate(
    model: nn.Module,
    params: PyTree,
    data: Dataset,
    *,
    batch_size: int,
    floor: float = 0.0,
    count: Array | None = None,
) -> Metrics:
    """Exact sums over the examples of `data`, each counted once.

    floor: as in `losses.cross_entropy`.  count: [] int32, how many of the first examples are
    counted; None for all.
    """

    def body(_: None, entry: tuple[Array, Array]) -> tuple[None, Metrics]:
        indices, mask = entry
        if count is not None:
            mask = mask & (indices < count)
        batch = batching.gather(data, *sharding.split((indices, mask)))
        return None, batch_metrics(model, {"params": params}, batch, floor=floor)

    _, stacked = jax.lax.scan(body, None, batching.pad_batches(len(data.images), batch_size))
    return metrics.total(stacked)


def predict(model: nn.Module, params: PyTree, images: Array, *, batch_size: int) -> jax.Array:
    """Logits [N, K] float32 of images [N, H, W, C] uint8, in their order, each computed once."""
    data = Dataset(images=images, labels=jnp.zeros(len(images), jnp.int32))

    def body(_: None, entry: tuple[Array, Array]) -> tuple[None, jax.Array]:
        batch = batching.gather(data, *sharding.split(entry))
        logits = model.apply({"params": params}, as_input(batch.images))
        assert isinstance(logits, jax.Array)
        return None, logits[:batch_size]  # without the rows that `split` has filled it up with

    _, stacked = jax.lax.scan(body, None, batching.pad_batches(len(images), batch_size))
    return stacked.reshape(-1, stacked.shape[-1])[: len(images)]


def predict_all(
    model: nn.Module, params: PyTree, images: Array | LazyImages, loop: Loop, *, seeds: int
) -> np.ndarray:
    """Logits [S, N, K] float32 of every seed's net, with params [S, ...]."""
    mesh = sharding.make_mesh(seeds, data_devices=loop.data_devices)
    program = sharding.over_seeds(
        lambda params, _, images: predict(model, params, images, batch_size=loop.eval_batch_size),
        mesh,
        convolutions=loop.convolutions,
    )
    placed = sharding.place_seeds(params, mesh)
    numbers = sharding.place_seeds(np.arange(seeds, dtype=np.uint32), mesh)
    if not is_streamed(images):
        logits = program(placed, numbers, place_images(images, mesh))
        return sharding.fetch_seeds(logits, seeds)
    unlabelled = Dataset(images, np.zeros(len(images), np.int32))  # pyright: ignore[reportArgumentType]
    parts = [
        sharding.fetch_seeds(program(placed, numbers, piece.images), seeds)
        for piece, _ in read_pieces(unlabelled, loop.eval_batch_size, mesh)
    ]
    return np.concatenate(parts, axis=1)[:, : len(images)]


def is_streamed(images: Array | LazyImages) -> bool:
    """Whether images are read from the disk as they are needed, not copied to the devices."""
    return isinstance(images, LazyImages) and not images.resident


def place_images(data: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
    """A data set [N, ...], or its images, on every device; each row is read by one process."""
    count = len(jax.tree.leaves(data)[0])
    own = sharding.own_rows(count, mesh)
    return sharding.join_rows(jax.tree.map(lambda rows: rows[own], data), count, mesh)


def images_in_memory(images: Array | LazyImages) -> int:
    """How many images are read from the disk at once, at least one."""
    return max(1, _READ_BYTES // (images.nbytes // len(images)))


def read_pieces(
    data: Dataset, batch_size: int, mesh: jax.sharding.Mesh
) -> Iterator[tuple[Dataset, np.int32]]:
    """A data set on the devices, in pieces of equal size: (piece, how many of its rows count).

    The last piece is filled up, by less than a batch if there is only one.  Each is read while the
    one before it is used.
    """
    stored = data.images
    batches = batching.steps_per_epoch(len(stored), batch_size)
    size = min(batches, max(1, images_in_memory(stored) // batch_size)) * batch_size
    places = np.arange(-(-len(stored) // size) * size).reshape(-1, size)
    places = np.minimum(places, len(stored) - 1)[:, sharding.own_rows(size, mesh)]
    for i, images in enumerate(read_ahead(stored, list(places))):
        piece = Dataset(images, np.asarray(data.labels)[places[i]])
        yield sharding.join_rows(piece, size, mesh), np.int32(min(size, len(stored) - i * size))
