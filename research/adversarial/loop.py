"""Cells: one image toward one class each; all of them at once, until each is finished.

A method is written for a single cell. `run` takes it over all cells by `vmap`, and gathers the
cells that still run into groups of a few fixed sizes, so that finished ones stop costing and
nothing is compiled again.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from research.adversarial import criterion
from research.structs import Array, PyTree

Classify = Callable[[Array, Array | None], jax.Array]
"""(image [H, W, C] float32 in [0, 1], key of the net's own noise or None) -> logits [K]."""


@flax.struct.dataclass
class Cell:
    """What is to be done: an image [H, W, C] uint8, its class and the wanted one, [] int32.

    The target that equals the actual class means: leave it.  key: [] of the cell's own.
    """

    image: Array
    actual: Array
    target: Array
    key: jax.Array


@flax.struct.dataclass
class Progress:
    """What has come of a cell so far.

    best: [H, W, C] uint8, of the successful candidates that with the smallest L2; while there is
    none, that with the largest margin.  last: the latest candidate judged.  Margins as in
    `judge.margin`; best_l2: in units of [0, 1].
    success: of `best`.  running: whether the cell wants more steps.
    steps: [] int32, gradients taken.  first: [] int32, gradients before the first success, or -1.
    start_l2: distance of the first candidate.  dead_first, dead_last: share of the values of the
    image that the noise cannot move at its first and at its last step, because a clip swallows
    their gradient.  gradient_first, gradient_last: L2 norm of the gradient that the method used.
    """

    best: Array
    best_margin: Array
    best_l2: Array
    last: Array
    last_margin: Array
    success: Array
    running: Array
    steps: Array
    first: Array
    start_l2: Array
    dead_first: Array
    dead_last: Array
    gradient_first: Array
    gradient_last: Array


@flax.struct.dataclass
class State:
    """A cell's progress, and whatever else its method carries along."""

    progress: Progress
    inner: PyTree


class Method(Protocol):
    """One way to attack, for a single cell.

    A tree whose leaves are the settings that may change without a new program.

    advance(classify, cell, state, number): the state some steps later, in round `number` [] int32,
    which is the same for all cells.  `required` is the margin from which on a cell has succeeded.
    """

    @property
    def required(self) -> float: ...

    def start(self, classify: Classify, cell: Cell) -> State: ...

    def advance(self, classify: Classify, cell: Cell, state: State, number: Array) -> State: ...


def no_progress(cell: Cell) -> Progress:
    """Nothing was done: the image itself is the only candidate, and it is not judged."""
    zero, count = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    least = jnp.full((), -jnp.inf)
    image = jnp.asarray(cell.image)
    return Progress(
        best=image,
        best_margin=least,
        best_l2=jnp.full((), jnp.inf),
        last=image,
        last_margin=least,
        success=jnp.zeros((), bool),
        running=jnp.ones((), bool),
        steps=count,
        first=count - 1,
        start_l2=zero,
        dead_first=zero,
        dead_last=zero,
        gradient_first=zero,
        gradient_last=zero,
    )


def consider(
    progress: Progress, cell: Cell, candidate: Array, margin: Array, required: float
) -> Progress:
    """`progress` after the judge gave `candidate` [H, W, C] uint8 this margin."""
    success = margin >= required
    distance = criterion.l2(candidate, cell.image)
    nearer = success & (distance < progress.best_l2)
    better = nearer | (~progress.success & (margin > progress.best_margin))
    return dataclasses.replace(
        progress,
        best=jnp.where(better, candidate, progress.best),
        best_margin=jnp.where(better, margin, progress.best_margin),
        best_l2=jnp.where(nearer, distance, progress.best_l2),
        last=jnp.asarray(candidate),
        last_margin=margin,
        success=progress.success | success,
        first=jnp.where(success & (progress.first < 0), progress.steps, progress.first),
    )


def count_step(progress: Progress, gradient: Array, dead: Array | float) -> Progress:
    """`progress` after one more gradient [H, W, C]; dead: share of values it cannot move."""
    size, dead = jnp.sqrt(jnp.sum(jnp.square(gradient))), jnp.asarray(dead, jnp.float32)
    began = progress.steps == 0
    return dataclasses.replace(
        progress,
        steps=progress.steps + 1,
        gradient_first=jnp.where(began, size, progress.gradient_first),
        gradient_last=size,
        dead_first=jnp.where(began, dead, progress.dead_first),
        dead_last=dead,
    )


def run(
    method: Method, classify: Classify, cells: Cell, states: State, sizes: Sequence[int]
) -> State:
    """Advance every running cell [M] until none runs.

    sizes: of the groups in which the running cells are taken, descending: as many whole groups of
    the first as there are cells for, then of the next, and of the last until none is left.  The
    result is the same for all sizes where `classify` gives an image the same logits in every batch.
    """

    def advance(cell: Cell, state: State, number: Array) -> State:
        after = method.advance(classify, cell, state, number)
        running = state.progress.running
        return jax.tree.map(lambda new, old: jnp.where(running, new, old), after, state)

    def advance_group(states: State, rows: Array, number: Array) -> State:
        few, their = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), (cells, states))
        moved = jax.vmap(advance, in_axes=(0, 0, None))(few, their, number)
        return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new, mode="drop"), states, moved)

    def body(carry: tuple[Array, State]) -> tuple[Array, State]:
        number, states = carry
        running = states.progress.running
        order = jnp.argsort(~running, stable=True)
        order = jnp.pad(order, (0, sizes[0]), constant_values=len(running))  # filled up by none
        left, first = jnp.sum(running), jnp.zeros((), jnp.int32)
        for size in sizes:
            count = -(-left // size) if size == sizes[-1] else left // size

            def group(i: Array, states: State, first: Array = first, size: int = size) -> State:
                rows = jax.lax.dynamic_slice_in_dim(order, first + i * size, size)
                return advance_group(states, rows, number)

            states = jax.lax.fori_loop(0, count, group, states)
            left, first = left - count * size, first + count * size
        return number + 1, states

    def unfinished(carry: tuple[Array, State]) -> jax.Array:
        return jnp.any(carry[1].progress.running)

    start: tuple[Any, State] = (jnp.zeros((), jnp.int32), states)
    return jax.lax.while_loop(unfinished, body, start)[1]
