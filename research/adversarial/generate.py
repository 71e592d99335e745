"""The call: every image toward every class, in one compiled program, on all devices.

The cells are dealt out to the devices like cards, so that each has some of every image and class,
and every device advances its own until they are finished: none waits for another.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from research import prng
from research.adversarial import criterion
from research.adversarial import loop as driver
from research.adversarial.loop import Cell, Classify, Method, Progress, State
from research.adversarial.minimal import Minimal
from research.adversarial.polish import Polish
from research.data import batching
from research.models.conv import on_cpu
from research.runtime import sharding
from research.structs import Array, PyTree

Apply = Callable[..., Any]

# On the CPU one size, a multiple of the numbers in a vector register: then the bits of a cell
# depend neither on how many cells run nor on its place among them, nor on the number of devices.
SIZES = {"cpu": (16,), "accelerator": (1000, 100)}


def generate(
    apply_fn: Apply,
    params: PyTree,
    images: Array,
    labels: Array,
    *,
    targets: Array | None = None,
    method: Method | None = None,
    polish: int = 8,
    seed: int = 0,
    numbers: Array | None = None,
    sizes: Sequence[int] | None = None,
) -> Progress:
    """Attack N images toward T classes each; arrays [N, T, ...], see `cells.Progress`.

    apply_fn(params, images [B, H, W, C] float32 in [0, 1]) -> logits [B, K], pure, without one
    image influencing another; a method with dropout also gives it `dropout=key`.  It is frozen: no
    gradient reaches params.  Programs are kept by apply_fn's identity: give the same function, not
    a new lambda, to have nothing compiled again.
    images: [N, H, W, C] uint8.  labels: [N] integers, the actual classes.
    targets: [N, T] integers, or None for all K classes of every image; the actual class as a
    target means to leave it.
    method: None for `Minimal()`.  polish: rounds of `Polish` afterwards for methods that look for
    small noise (Minimal); others are left as they are.
    seed, numbers: a cell's randomness is a function of seed, numbers[n] (default n) and target, so
    that it does not depend on what else is in the call.
    sizes: of the groups of cells that are advanced at once, descending; None for SIZES, which fit
    the caches of a CPU, or the units of an accelerator.
    Among several processes all of them make the same call and get the whole of its result.
    Raises AssertionError for shapes or dtypes that do not fit, ValueError for other sizes.
    """
    chex.assert_rank([images, labels], [4, 1])
    chex.assert_equal_shape_prefix([images, labels], 1)
    chex.assert_type(images, jnp.uint8)
    method = Minimal() if method is None else method
    labels = np.asarray(labels, np.int32)
    if targets is None:
        targets = np.tile(np.arange(classes_of(apply_fn, params, images)), (len(labels), 1))
    targets = np.asarray(targets, np.int32)
    chex.assert_shape(targets, (len(labels), None))
    numbers = np.arange(len(labels)) if numbers is None else np.asarray(numbers)
    chex.assert_equal_shape([labels, numbers])
    sizes = SIZES["cpu" if on_cpu() else "accelerator"] if sizes is None else tuple(sizes)
    if not sizes or list(sizes) != sorted(set(sizes), reverse=True) or sizes[-1] < 1:
        raise ValueError(f"sizes: {sizes} do not descend to 1 or more")
    finish = Polish(polish, method.required) if isinstance(method, Minimal) and polish else None
    mesh = sharding.make_mesh(targets.size)
    shared = sharding.place_whole(
        (params, images, labels, targets, np.uint32(seed), np.asarray(numbers, np.int32)), mesh
    )
    return _program(mesh)(*shared, apply_fn=apply_fn, method=method, finish=finish, sizes=sizes)


def logits_of(apply_fn: Apply, params: PyTree, images: Array, *, batch_size: int) -> np.ndarray:
    """Logits [N, K] float32 of images [N, H, W, C] uint8, all in batches of one size."""
    chex.assert_type(images, jnp.uint8)
    indices, _ = batching.pad_batches(len(images), batch_size)
    program = _classifier()
    found = [np.asarray(program(params, images[rows], apply_fn=apply_fn)) for rows in indices]
    return np.concatenate(found)[: len(images)]


def classes_of(apply_fn: Apply, params: PyTree, images: Array) -> int:
    """How many classes the classifier knows."""
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    return jax.eval_shape(apply_fn, params, one).shape[-1]


@functools.cache
def _classifier() -> Callable[..., jax.Array]:
    return jax.jit(
        lambda params, images, *, apply_fn: apply_fn(params, criterion.decode(images)),
        static_argnames="apply_fn",
        compiler_options=sharding.compiler_options(),
    )


@functools.cache
def _program(mesh: jax.sharding.Mesh) -> Callable[..., Progress]:
    return jax.jit(
        functools.partial(_generate, mesh),
        static_argnames=("apply_fn", "finish", "sizes"),
        out_shardings=jax.sharding.NamedSharding(mesh, PartitionSpec()),
        compiler_options=sharding.compiler_options(),
    )


def _generate(
    mesh: jax.sharding.Mesh,
    params: PyTree,
    images: Array,
    labels: Array,
    targets: Array,
    seed: Array,
    numbers: Array,
    *,
    apply_fn: Apply,
    method: Method,
    finish: Polish | None,
    sizes: Sequence[int],
) -> Progress:
    def attack(places: Array, given: PyTree) -> Progress:
        """The cells at `places` [M] of the grid, or beyond its end where there is none."""
        params, images, labels, targets, seed, numbers, method = given
        classify = frozen(apply_fn, params)
        inside = jnp.minimum(places, targets.size - 1)

        def begin(entry: tuple[Array, Array]) -> tuple[Cell, State]:
            place, exists = entry
            row, target = place // targets.shape[1], targets.reshape(-1)[place]
            key = prng.stream(seed, "noise", numbers[row], target)
            cell = Cell(images[row], labels[row], target, key)
            state = method.start(classify, cell)
            running = state.progress.running & exists
            return cell, State(dataclasses.replace(state.progress, running=running), state.inner)

        groups = jax.tree.map(
            lambda leaf: leaf.reshape(-1, sizes[-1]), (inside, places < targets.size)
        )
        begun = jax.lax.map(jax.vmap(begin), groups)
        cells, states = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), begun)
        states = driver.run(method, classify, cells, states, sizes)
        if finish is not None:
            states = jax.vmap(finish.resume)(states)
            states = driver.run(finish, classify, cells, states, sizes)
        return states.progress

    given = (params, images, labels, targets, seed, numbers, method)
    places, back = _deal(targets.size, mesh.size, sizes[-1])
    axes = PartitionSpec(mesh.axis_names)
    spread = jax.shard_map(
        attack, mesh=mesh, in_specs=(axes, PartitionSpec()), out_specs=axes, check_vma=False
    )
    progress = jax.tree.map(lambda leaf: leaf[back], spread(places, given))
    return jax.tree.map(lambda leaf: leaf.reshape(*targets.shape, *leaf.shape[1:]), progress)


def _deal(cells: int, devices: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells in the order of the devices that get them, like cards, and where each has gone.

    Filled up with numbers beyond the last cell until all devices have whole groups, as many each.
    """
    filled = np.arange(cells + -cells % (devices * group), dtype=np.int32)
    places = filled.reshape(-1, devices).T.reshape(-1)
    return places, np.argsort(places)[:cells].astype(np.int32)


def frozen(apply_fn: Apply, params: PyTree) -> Classify:
    """The classifier of one image, through which no gradient reaches the parameters."""
    params = jax.lax.stop_gradient(params)

    def classify(image: Array, key: Array | None) -> jax.Array:
        noise = {} if key is None else {"dropout": key}
        return apply_fn(params, jnp.asarray(image)[None], **noise)[0]

    return classify
