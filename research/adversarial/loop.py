"""The loop of an attack: it runs a method, written for a single case, over all cases at once.

An attack case is one image with one target. `run` owns what all methods share: which cases still
run, freezing those that have finished, and gathering the others into groups of a few fixed sizes,
so that finished cases stop costing and nothing is compiled again.
"""

import dataclasses
import functools
import math
import numbers
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
class Case:
    """An attack case: an image [H, W, C] uint8, its class and the wanted one, [] int32.

    A target that equals the actual class means untargeted: any other class will do.
    key: [], a random key of the case's own.
    """

    image: Array
    actual: Array
    target: Array
    key: jax.Array


@flax.struct.dataclass
class Progress:
    """The outcome of a case so far.

    best: [H, W, C] uint8, of the successful candidates the one with the smallest noise; while there
    is none, the one with the largest margin.  last: the latest candidate judged.  Margins as in
    `criterion.margin`; best_l2, best_norm: L2, and the norm that the method makes small, of the
    noise of the smallest success, in units of [0, 1].
    success: of `best`.  running: whether the case wants more steps.
    steps: [] int32, gradients taken.  first: [] int32, gradients before the first success, or -1.
    start_l2: distance of the first candidate.  dead_first, dead_last: share of the values of the
    image that the noise cannot move at its first and at its last step, because a clip swallows
    their gradient.  gradient_first, gradient_last: L2 norm of the gradient that the method used.
    """

    best: Array
    best_margin: Array
    best_l2: Array
    best_norm: Array
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
    """A case's progress, and whatever else its method carries along."""

    progress: Progress
    inner: PyTree


class Method(Protocol):
    """One way to attack, written for a single case: two functions and two numbers.

    A method is a tree whose leaves are the settings that may change without a new program. Methods
    may follow each other: each goes on from the progress of the one before.
    """

    @property
    def required(self) -> float:
        """The margin from which on a candidate is a success, as in `criterion.succeeds`."""
        ...

    @property
    def steps_per_round(self) -> int:
        """How often `advance` is called between two gatherings of the running cases."""
        ...

    def start(self, classify: Classify, case: Case, progress: Progress) -> State:
        """The state in which to begin; it runs if its progress says so."""
        ...

    def advance(self, classify: Classify, case: Case, state: State, round_index: Array) -> State:
        """The next state.

        round_index: [] int32, rounds before this one. It is the same for all cases, so that the
        length of a loop inside may depend on it.
        """
        ...


def no_progress(case: Case) -> Progress:
    """The progress before any step: the image itself is the only candidate, and not judged."""
    zero, count = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    least = jnp.full((), -jnp.inf)
    image = jnp.asarray(case.image)
    return Progress(
        best=image,
        best_margin=least,
        best_l2=jnp.full((), jnp.inf),
        best_norm=jnp.full((), jnp.inf),
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


def check_counts(least: int = 1, **counts: Any) -> None:
    """Raise ValueError naming the first setting of a method that is no integer of `least` on."""
    for name, count in counts.items():
        traced = isinstance(count, jax.Array)  # known only where the program runs
        if not traced and (not isinstance(count, numbers.Integral) or count < least):
            raise ValueError(f"{name}: {count!r} is not an integer of {least} or more")


def check_required(required: float) -> None:
    """Raise ValueError unless the margin asked for is above 0, where a tie is no success."""
    if not 0 < required < float("inf"):
        raise ValueError(f"required: {required!r} is not a positive number")


def judge(
    progress: Progress,
    case: Case,
    candidate: Array,
    logits: Array,
    required: float,
    norm: str = "l2",
) -> Progress:
    """`progress` after `candidate` [H, W, C] uint8, which the classifier gives `logits` [K].

    norm: the one by which a success is the smaller, as in `criterion.length`.
    """
    margin = criterion.margin(logits, case.actual, case.target)
    success = criterion.succeeds(logits, case.actual, case.target, required)
    distance = criterion.distance(candidate, case.image, norm)
    nearer = success & (distance < progress.best_norm)
    better = nearer | (~progress.success & (margin > progress.best_margin))
    return dataclasses.replace(
        progress,
        best=jnp.where(better, candidate, progress.best),
        best_margin=jnp.where(better, margin, progress.best_margin),
        best_l2=jnp.where(nearer, criterion.l2(candidate, case.image), progress.best_l2),
        best_norm=jnp.where(nearer, distance, progress.best_norm),
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


def evaluate(
    classify: Classify,
    case: Case,
    progress: Progress,
    candidate: Array,
    required: float,
    *,
    temperature: Array | None = None,
    norm: str = "l2",
) -> tuple[Progress, jax.Array, jax.Array]:
    """Judge a candidate [H, W, C] uint8 and take the gradient of its margin.

    temperature: None for the gradient of the margin itself, else of `criterion.smooth_margin`.
    norm: as in `judge`.
    Returns the progress with both counted, the margin [], and the gradient [H, W, C] by the image
    in [0, 1].
    """

    def objective(image: Array) -> tuple[jax.Array, jax.Array]:
        logits = classify(image, None)
        if temperature is None:
            return criterion.margin(logits, case.actual, case.target), logits
        return criterion.smooth_margin(logits, case.actual, case.target, temperature), logits

    (_, logits), gradient = jax.value_and_grad(objective, has_aux=True)(criterion.decode(candidate))
    progress = judge(progress, case, candidate, logits, required, norm)
    return count_step(progress, gradient, 0.0), jnp.asarray(progress.last_margin), gradient


Packed = list[jax.Array]
"""States [M] as an array [M, D] for each dtype among their leaves."""


def packing(states: State) -> tuple[Callable[[State], Packed], Callable[[Packed], State]]:
    """How states [M] of these shapes are put into few arrays, and taken out again.

    A program has some loops for every array that it gathers, scatters or chooses by a mask: with
    thirty leaves they take as long to compile as the classifier.
    """
    leaves, tree = jax.tree.flatten(states)
    shapes, dtypes = [leaf.shape[1:] for leaf in leaves], [leaf.dtype for leaf in leaves]
    kinds = list(dict.fromkeys(dtypes))

    def pack(states: State) -> Packed:
        flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(states)]
        return [
            jnp.concatenate([leaf for leaf in flat if leaf.dtype == kind], axis=1) for kind in kinds
        ]

    def unpack(packed: Packed) -> State:
        leaves, ends = [], dict.fromkeys(kinds, 0)
        for shape, dtype in zip(shapes, dtypes, strict=True):
            begin = ends[dtype]
            ends[dtype] = begin + math.prod(shape)
            part = packed[kinds.index(dtype)][:, begin : ends[dtype]]
            leaves.append(part.reshape(len(part), *shape))
        return jax.tree.unflatten(tree, leaves)

    return pack, unpack


def run(
    method: Method, classify: Classify, cases: Case, states: State, sizes: Sequence[int]
) -> State:
    """Advance every running case [M] until none runs.

    sizes: of the groups in which the running cases are taken, descending: as many whole groups of
    the first as there are cases for, then of the next, and of the last until none is left.  The
    result is the same for all sizes where `classify` gives an image the same logits in every batch.
    """

    pack, unpack = packing(states)

    def advance_group(packed: Packed, rows: Array, round_index: Array) -> Packed:
        few = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), cases)
        advance = jax.vmap(functools.partial(method.advance, classify), in_axes=(0, 0, None))

        def step(_: Array, before: Packed) -> Packed:
            states = unpack(before)
            after = pack(advance(few, states, round_index))
            # A case may finish in the middle of a round, and the last group of a round is filled up
            # with cases that have finished: both are computed with the others and thrown away.
            running = states.progress.running[:, None]
            return [jnp.where(running, new, old) for new, old in zip(after, before, strict=True)]

        begun = [each.at[rows].get(mode="clip") for each in packed]
        moved = jax.lax.fori_loop(0, method.steps_per_round, step, begun)
        return [
            each.at[rows].set(new, mode="drop") for each, new in zip(packed, moved, strict=True)
        ]

    def one_round(carry: tuple[Array, Packed]) -> tuple[Array, Packed]:
        round_index, packed = carry
        # Shapes are fixed inside a program, the number of running cases is not. They are sorted to
        # the front and cut into groups of known sizes; how many groups is a number in the program.
        running = unpack(packed).progress.running
        order = jnp.argsort(~running, stable=True)
        order = jnp.pad(order, (0, sizes[0]), constant_values=len(running))  # rows of no case
        left, first = jnp.sum(running), jnp.zeros((), jnp.int32)
        for size in sizes:
            count = -(-left // size) if size == sizes[-1] else left // size

            def group(i: Array, packed: Packed, first: Array = first, size: int = size) -> Packed:
                rows = jax.lax.dynamic_slice_in_dim(order, first + i * size, size)
                return advance_group(packed, rows, round_index)

            packed = jax.lax.fori_loop(0, count, group, packed)
            left, first = left - count * size, first + count * size
        return round_index + 1, packed

    def unfinished(carry: tuple[Array, Packed]) -> jax.Array:
        return jnp.any(unpack(carry[1]).progress.running)

    start: tuple[Any, Packed] = (jnp.zeros((), jnp.int32), pack(states))
    return unpack(jax.lax.while_loop(unfinished, one_round, start)[1])
