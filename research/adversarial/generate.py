"""The call: attack every image toward every class, in one compiled program, on all devices.

From the command to the gradient:

    research.main -> experiments.noise.study.run
    -> attack_run.attack   one net: `config.batch` images a call, their pictures and rows written
    -> generate            shapes checked, arrays on the devices, cases dealt out to them
    -> loop.run            rounds over the cases of one device, in groups, until none runs
    -> Method.advance      one step of one case: a candidate, and the move away from it
    -> loop.evaluate       its margin, and `jax.value_and_grad` of that

The cases are dealt out to the devices like cards, so that each has some of every image and class,
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
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from research import prng
from research.adversarial import criterion, loop
from research.adversarial.augmented_lagrangian import AugmentedLagrangian
from research.adversarial.loop import Case, Classify, Method, Progress
from research.adversarial.polish import Polish
from research.data import batching
from research.models.conv import on_cpu
from research.runtime import sharding
from research.structs import Array, PyTree, check_classes

Apply = Callable[..., Any]

# Sizes of the groups of cases that are advanced at once. On the CPU there is one size, for the bits
# of an image's logits depend on the size of its batch; and it is 16, a multiple of the numbers in a
# vector register, for with 20 they depend on the place within the batch as well. So the bits of a
# case depend neither on how many cases run nor on its place among them, nor on the number of
# devices. An accelerator needs a thousand to be busy, and smaller groups for the stubborn rest.
SIZES = {"cpu": (16,), "accelerator": (1000, 100)}


def generate(
    apply_fn: Apply,
    params: PyTree,
    images: Array,
    labels: Array,
    *,
    targets: Array | None = None,
    methods: Sequence[Method] = (AugmentedLagrangian(), Polish()),
    seed: int = 0,
    numbers: Array | None = None,
    sizes: Sequence[int] | None = None,
) -> Progress:
    """Attack N images toward T classes each; arrays [N, T, ...], see `loop.Progress`.

    apply_fn(params, images [B, H, W, C] float32 in [0, 1]) -> logits [B, K], pure, without one
    image influencing another; a method with dropout also gives it `dropout=key`.  It is frozen: no
    gradient reaches params.  Programs are kept by apply_fn's identity: give the same function, not
    a new lambda, to have nothing compiled again.
    images: [N, H, W, C] uint8.  labels: [N] integers in 0..K-1, the actual classes.
    targets: [N, T] integers in 0..K-1, or None for all K classes of every image; the actual class
    as a target means untargeted.  Without a case, N or T of 0, nothing is computed.
    methods: run one after the other, each from the progress of the one before.
    seed, numbers: a case's randomness is a function of seed, 0..2^32-1, numbers[n], 0..2^31-1
    (default n) and target, so that it does not depend on what else is in the call.
    sizes: of the groups of cases that are advanced at once, descending; None for SIZES.
    Among several processes all of them make the same call and get the whole of its result.
    Raises ValueError naming the argument that cannot be used: another shape or type, a number that
    is no class's, a value that is traced (the attack is a program of its own, not part of another).
    """
    arrays = params, images, labels, targets, seed, numbers
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arrays)):
        raise ValueError(
            "generate: an argument is traced by jit, grad or vmap; call it outside, it compiles a "
            "program of its own"
        )
    with jax.ensure_compile_time_eval():  # also where somebody else's function is being traced
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            given = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"images: expected [N, H, W, C] uint8, got {given}")
        classes = count_classes(apply_fn, params, images)
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels: expected [{len(images)}], got {list(labels.shape)}")
        labels = check_classes(labels, "labels", classes)
        if targets is None:
            targets = np.tile(np.arange(classes), (len(labels), 1))
        targets = check_classes(targets, "targets", classes)
        if targets.ndim != 2 or len(targets) != len(labels):
            raise ValueError(f"targets: expected [{len(labels)}, T], got {list(targets.shape)}")
        numbers = np.arange(len(labels)) if numbers is None else np.asarray(numbers)
        if numbers.shape != labels.shape:
            raise ValueError(f"numbers: expected [{len(labels)}], got {list(numbers.shape)}")
        numbers = check_classes(numbers, "numbers", 2**31)
        _ = check_classes(seed, "seed", 2**32)
        if not methods:
            raise ValueError("methods: expected one or more")
        sizes = SIZES["cpu" if on_cpu() else "accelerator"] if sizes is None else tuple(sizes)
        if not sizes or list(sizes) != sorted(set(sizes), reverse=True) or sizes[-1] < 1:
            raise ValueError(f"sizes: {sizes} do not descend to 1 or more")
        if not targets.size:
            none = loop.no_progress(
                Case(np.zeros(images.shape[1:], np.uint8), *[jnp.zeros(())] * 3)
            )
            return jax.tree.map(
                lambda leaf: jnp.zeros((*targets.shape, *leaf.shape), leaf.dtype), none
            )
        mesh = sharding.make_mesh(targets.size)
        arrays = params, images, labels, targets, np.uint32(seed), numbers
        shared = sharding.place_whole(arrays, mesh)
        return _program(mesh)(*shared, tuple(methods), apply_fn=apply_fn, sizes=sizes)


@functools.cache
def _program(mesh: Mesh) -> Callable[..., Progress]:
    """The compiled attack for a mesh; `jit` keeps one program for each `apply_fn` and `sizes`."""

    def attack(
        params: PyTree,
        images: Array,
        labels: Array,
        targets: Array,
        seed: Array,
        numbers: Array,
        methods: Sequence[Method],
        *,
        apply_fn: Apply,
        sizes: Sequence[int],
    ) -> Progress:
        def attack_share(places: Array, arrays: PyTree) -> Progress:
            """One device's share: the cases at `places` [M] of the grid, or beyond its end."""
            params, images, labels, targets, seed, numbers, methods = arrays
            classify, exists = frozen(apply_fn, params), places < targets.size
            place = jnp.minimum(places, targets.size - 1)
            row, target = place // targets.shape[1], targets.reshape(-1)[place]
            key = jax.vmap(functools.partial(prng.stream, seed, "noise"))(numbers[row], target)
            cases = Case(images[row], labels[row], target, key)
            progress = jax.vmap(loop.no_progress)(cases)
            for method in methods:
                start = functools.partial(method.start, classify)
                # In groups as well, for a start may classify.
                states = jax.lax.map(
                    lambda one, start=start: start(*one), (cases, progress), batch_size=sizes[-1]
                )
                running = states.progress.running & exists
                states = states.replace(
                    progress=dataclasses.replace(states.progress, running=running)
                )
                progress = loop.run(method, classify, cases, states, sizes).progress
            return progress

        places, back = _deal(targets.size, mesh.size, sizes[-1])
        share = PartitionSpec(mesh.axis_names)
        spread = jax.shard_map(
            attack_share,
            mesh=mesh,
            in_specs=(share, PartitionSpec()),
            out_specs=share,
            check_vma=False,
        )
        progress = spread(places, (params, images, labels, targets, seed, numbers, methods))
        return jax.tree.map(
            lambda leaf: leaf[back].reshape(*targets.shape, *leaf.shape[1:]), progress
        )

    return jax.jit(
        attack,
        static_argnames=("apply_fn", "sizes"),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
        compiler_options=sharding.compiler_options(many_loops=True),
    )


def _deal(cases: int, devices: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Cases in the order of the devices that get them, like cards, and where each has gone.

    Filled up with numbers beyond the last case until all devices have whole groups, as many each.
    """
    filled = np.arange(cases + -cases % (devices * group), dtype=np.int32)
    places = filled.reshape(-1, devices).T.reshape(-1)
    return places, np.argsort(places)[:cases].astype(np.int32)


def frozen(apply_fn: Apply, params: PyTree) -> Classify:
    """The classifier of one image, through which no gradient reaches the parameters."""
    params = jax.lax.stop_gradient(params)

    def classify(image: Array, key: Array | None) -> jax.Array:
        noise = {} if key is None else {"dropout": key}
        return jnp.asarray(apply_fn(params, jnp.asarray(image)[None], **noise)[0], jnp.float32)

    return classify


def logits_of(apply_fn: Apply, params: PyTree, images: Array, *, batch_size: int) -> np.ndarray:
    """Logits [N, K] float32 of images [N, H, W, C] uint8, all in batches of one size."""
    chex.assert_type(images, jnp.uint8)
    if not len(images):
        return np.zeros((0, count_classes(apply_fn, params, images)), np.float32)
    indices, _ = batching.pad_batches(len(images), batch_size)
    program = _classifier()
    parts = [np.asarray(program(params, images[rows], apply_fn=apply_fn)) for rows in indices]
    return np.concatenate(parts)[: len(images)].astype(np.float32)


@functools.cache
def _classifier() -> Callable[..., jax.Array]:
    return jax.jit(
        lambda params, images, *, apply_fn: apply_fn(params, criterion.decode(images)),
        static_argnames="apply_fn",
        compiler_options=sharding.compiler_options(),
    )


def count_classes(apply_fn: Apply, params: PyTree, images: Array) -> int:
    """The number of classes K of a classifier, without computing anything.

    Raises ValueError if params hold something else than numbers, or if apply_fn does not give
    logits [1, K] of an image [1, H, W, C], one array of floats, for 2 classes or more.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if getattr(dtype, "kind", "") in "OSUMm" and not isinstance(leaf, jax.Array):
            where = f"params{jax.tree_util.keystr(path)}"
            raise ValueError(f"{where}: expected an array of numbers, got {leaf!r:.40}")
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    logits = jax.eval_shape(apply_fn, params, one)
    if not isinstance(logits, jax.ShapeDtypeStruct):
        raise ValueError(f"apply_fn: expected logits [B, K] alone, got a {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != 1 or not jnp.issubdtype(logits.dtype, jnp.floating):
        given = f"{logits.dtype} {list(logits.shape)}"
        raise ValueError(f"apply_fn: expected logits [1, K] of one image, got {given}")
    if logits.shape[1] < 2:
        raise ValueError("apply_fn: expected logits of two classes or more, got one")
    return logits.shape[1]
