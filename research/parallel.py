"""The seed axis: independent nets in one program, spread over whatever devices there are.

On an accelerator the seeds of one device are a `vmap` axis. On the CPU they run one after the other
inside the same program (`lax.map`): equally fast there, and bit-identical to the run of one seed
alone, which a batched product is not (`python -m benchmarks.seeds`). Several cores are used by
presenting each as a device and giving every device its share of the seeds.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.types import Array, PyTree, UserError

SEED_AXIS = "seed"
PRECISIONS = ("default", "high", "highest")


def configure(
    *, cpu_devices: int, cpu_threads: int, seeds: int, matmul_precision: str = "highest"
) -> None:
    """Set up the devices; call before the first array is made.

    cpu_devices: number of virtual devices, 0 for one per core but no more than there are seeds.
    cpu_threads: size of XLA's pool of threads, 0 for one per core.  The nets of the depth study
    are so small that handing their operations to a second thread costs more than it saves.
    matmul_precision: of accelerators, whose default rounds the factors of a product of float32 to
    fewer bits; one of PRECISIONS.  The CPU always computes in float32.
    Raises UserError for a negative number or an unknown precision.
    """
    for key, value in (("cpu_devices", cpu_devices), ("cpu_threads", cpu_threads)):
        if value < 0:
            raise UserError(f"{key}: {value} is negative; 0 means one per core")
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if matmul_precision not in PRECISIONS:
        valid = ", ".join(PRECISIONS)
        raise UserError(f"matmul_precision: {matmul_precision!r} is not one of {valid}")
    jax.config.update("jax_num_cpu_devices", cpu_devices or max(1, min(cores, seeds)))
    if cpu_threads:
        os.environ["NPROC"] = str(cpu_threads)
    if jax.default_backend() != "cpu":
        jax.config.update("jax_default_matmul_precision", matmul_precision)


def seed_mesh(seeds: int) -> jax.sharding.Mesh:
    """One axis over as many devices as there are seeds to share out."""
    devices = jax.devices()[: max(1, min(seeds, len(jax.devices())))]
    return jax.make_mesh((len(devices),), (SEED_AXIS,), (AxisType.Auto,), devices=devices)


def over_seeds(
    function: Callable[..., PyTree],
    mesh: jax.sharding.Mesh,
    *,
    batched: bool | None = None,
    convolutions: bool = False,
) -> jax.stages.Wrapped:
    """Compile function(state, seed, *shared) for states and seeds stacked along axis 0.

    `shared` arguments are whole on every device.  The number of seeds must be a multiple of the
    mesh (`place_seeds` fills up).
    batched: whether the seeds of one device are a `vmap` axis; None for all devices but the CPU.
    One after the other, a seed's result is that of its run alone to the bit; batched, it agrees
    within 1e-4 of its size after a few steps, for a product of matrices adds up in another order.
    convolutions: whether the program holds any, see `compiler_options`.
    """
    if batched is None:
        batched = mesh.devices.flat[0].platform != "cpu"

    def local(states: PyTree, seeds: Array, *shared: Any) -> PyTree:
        if not batched:
            return jax.lax.map(lambda one: function(*one, *shared), (states, seeds))
        return jax.vmap(function, in_axes=(0, 0, *[None] * len(shared)))(states, seeds, *shared)

    def everywhere(states: PyTree, seeds: Array, *shared: Any) -> PyTree:
        axis, whole = PartitionSpec(SEED_AXIS), PartitionSpec()
        specs = (axis, axis, *[whole] * len(shared))
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=axis, check_vma=False)(
            states, seeds, *shared
        )

    return jax.jit(everywhere, compiler_options=compiler_options() if convolutions else None)


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Options of `jax.jit` for programs with convolutions, or None if the compiler knows none.

    On the CPU XLA gives both products and convolutions to a library which is faster than XLA's own
    code at products and much slower at convolutions (`python -m benchmarks.layers_cnn`); it is left
    the products. Of vector registers XLA takes half where a processor has 512 bits; whole ones make
    the sums of `models.conv` in lanes nearly twice as fast.
    """
    options = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
        "xla_cpu_prefer_vector_width": "512",
    }
    if jax.default_backend() != "cpu":
        return None
    try:
        _ = jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # the experiment is over in this version
        return None
    return options


def place_seeds(tree: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
    """Put arrays [S, ...] on the mesh, the last seed repeated until every device has as many."""
    sharding = NamedSharding(mesh, PartitionSpec(SEED_AXIS))

    def place(array: Array) -> jax.Array:
        array = np.asarray(array)
        missing = -len(array) % mesh.size
        return jax.device_put(np.concatenate([array, *[array[-1:]] * missing]), sharding)

    return jax.tree.map(place, tree)


def place_whole(tree: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
    """Put arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def fetch_seeds(tree: PyTree, seeds: int) -> PyTree:
    """The first `seeds` entries of every array, as NumPy arrays on the host."""
    return jax.tree.map(lambda array: np.asarray(array)[:seeds], tree)


def cache_programs(directory: str) -> None:
    """Keep every compiled program in `directory`, for the next start."""
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
