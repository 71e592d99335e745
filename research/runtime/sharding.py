"""One mesh over all devices of all hosts, and programs that are sharded over it.

The mesh has two axes. Independent work, seeds and attack cases, is sharded over the first: no
device waits for another, and every result is that of one device to the bit. Devices that are left
over form the second axis and share each batch (data parallelism): they add up their gradients, so
that the results agree within rounding (`over_seeds`). The programs are the same; `jit` and the
placement of their arguments do the rest.

On an accelerator the seeds of one device are a `vmap` axis. On the CPU they run one after the other
inside the same program (`lax.map`): equally fast there, and bit-identical to the run of one seed
alone, which a batched product is not, because it adds up in another order
(`python -m benchmarks.seeds`). Several cores are used by presenting each as a device with its share
of the seeds.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.runtime import distributed, files, progress
from research.structs import Array, PyTree, UserError, one_line

INDEPENDENT, DATA = "independent", "data"  # the axes of the mesh
PRECISIONS = ("default", "high", "highest")
# Settings of JAX that decide what is computed; they are JAX's own, whatever the environment says.
_PINNED = {
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
}
# Variables of the environment under which the same program may add up in another order.
_COMPILING = (
    *("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "JAX_DISABLE_JIT"),
    *("JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_OPTIMIZATION_LEVEL", "JAX_COMPILER_ENABLE_REMAT_PASS"),
    *("JAX_EXEC_TIME_OPTIMIZATION_EFFORT", "JAX_MEMORY_FITTING_EFFORT", "JAX_MEMORY_FITTING_LEVEL"),
    *("JAX_USE_DIRECT_LINEARIZE", "JAX_SOFTMAX_CUSTOM_JVP", "JAX_ALLOW_F16_REDUCTIONS"),
)
# Each device that waits in a collective holds a thread of XLA's pool, for every step under way: a
# pool that is too small can hang.
_THREADS_TO_WAIT = 16


def configure(
    *,
    cpu_devices: int,
    cpu_threads: int,
    seeds: int,
    processes: int = 1,
    data_devices: int = 0,
    matmul_precision: str = "highest",
) -> None:
    """Set up the devices, and JAX's settings that decide bits; call before the first array is made.

    cpu_devices: number of virtual devices of this process, 0 for one per core but no more than
    its share of the seeds.
    processes: of this run, as `distributed.initialize` returns it.
    cpu_threads: size of XLA's pool of threads, 0 for one per core.  The nets of the depth study
    are so small that handing their operations to a second thread costs more than it saves.  Where
    devices wait for each other it is at least large enough for that.
    data_devices: as in `make_mesh`.
    matmul_precision: of accelerators, whose default rounds the factors of a product of float32 to
    fewer bits; one of PRECISIONS.  The CPU always computes in float32.
    Raises UserError for an unknown precision, if there is no device of the
    platform that JAX_PLATFORMS names, and if processes have different numbers of devices.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if matmul_precision not in PRECISIONS:
        valid = ", ".join(PRECISIONS)
        raise UserError(f"matmul_precision: {matmul_precision!r} is not one of {valid}")
    devices = cpu_devices or max(1, min(cores, -(-seeds // processes)))
    jax.config.update("jax_num_cpu_devices", devices)
    if data_devices > 1 or processes > 1:
        os.environ["NPROC"] = str(max(_THREADS_TO_WAIT, 2 * devices, cpu_threads))
    elif cpu_threads:
        os.environ["NPROC"] = str(cpu_threads)
    for name, value in _PINNED.items():
        jax.config.update(name, value)
    try:
        on_cpu = jax.default_backend() == "cpu"
    except (RuntimeError, AssertionError) as error:  # the latter for a platform without its package
        raise UserError(
            f"JAX_PLATFORMS: JAX can use no device of {os.environ.get('JAX_PLATFORMS', '')!r} "
            f"({one_line(error)}); leave it empty to take what is there"
        ) from error
    jax.config.update("jax_default_matmul_precision", None if on_cpu else matmul_precision)
    if jax.device_count() != distributed.process_count() * jax.local_device_count():
        raise UserError(
            f"cpu_devices: this process has {jax.local_device_count()} of {jax.device_count()} "
            f"devices, but all {distributed.process_count()} processes need the same number; set it"
        )


def environment() -> dict[str, str]:
    """Those variables of the environment that are set and may change the bits of a program."""
    return {name: os.environ[name] for name in _COMPILING if name in os.environ}


def make_mesh(independent: int, *, data_devices: int = 0) -> Mesh:
    """The mesh of all devices for `independent` seeds or cases: axes INDEPENDENT and DATA.

    data_devices: how many devices share each batch.  0: the independent work takes as many devices
    as it can be divided among, and those left over share the batches; on the virtual devices of one
    CPU none does, since sharing costs more than it saves there.
    A single process leaves out devices that have nothing to do; with several processes all devices
    take part, and some may repeat the work of others.
    Raises UserError if the devices cannot be divided by data_devices.
    """
    devices = jax.devices()
    wanted = max(1, min(independent, len(devices)))
    if data_devices and len(devices) % data_devices:
        raise UserError(
            f"data_devices: {data_devices} does not divide the {len(devices)} devices; give one "
            "of their divisors, or 0"
        )
    if distributed.is_single() and (data_devices or devices[0].platform == "cpu"):
        share = data_devices or 1
        shape = (min(wanted, len(devices) // share), share)
    elif data_devices:
        shape = (len(devices) // data_devices, data_devices)
    else:
        along = max(size for size in range(1, wanted + 1) if len(devices) % size == 0)
        shape = (along, len(devices) // along)
    axes, kinds = (INDEPENDENT, DATA), (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(shape, axes, kinds, devices=devices[: shape[0] * shape[1]])


def over_seeds(
    function: Callable[..., PyTree],
    mesh: Mesh,
    *,
    batched: bool | None = None,
    convolutions: bool = False,
) -> jax.stages.Wrapped:
    """Compile function(state, seed, *shared) for states and seeds stacked along axis 0.

    `shared` arguments are whole on every device.  The number of seeds must be a multiple of the
    mesh's independent axis (`place_seeds` fills up).
    batched: whether the seeds of one device are a `vmap` axis; None for all devices but the CPU.
    One after the other, a seed's result is that of its run alone to the bit; batched, it agrees
    within 1e-4 of its size after a few steps, for a product of matrices adds up in another order.
    So it does where devices share a batch.
    convolutions: whether the program holds any, see `compiler_options`.
    """
    if batched is None:
        batched = mesh.devices.flat[0].platform != "cpu"
    axis, whole = PartitionSpec(INDEPENDENT), PartitionSpec()
    # A shared batch is left to the compiler, which is told in `split` where it is divided.
    own = {INDEPENDENT} if mesh.shape[DATA] > 1 else {INDEPENDENT, DATA}

    def local(states: PyTree, seeds: Array, *shared: Any) -> PyTree:
        if not batched:
            return jax.lax.map(lambda one: function(*one, *shared), (states, seeds))
        return jax.vmap(function, in_axes=(0, 0, *[None] * len(shared)))(states, seeds, *shared)

    def everywhere(states: PyTree, seeds: Array, *shared: Any) -> PyTree:
        specs = (axis, axis, *[whole] * len(shared))
        spread = jax.shard_map(
            local, mesh=mesh, in_specs=specs, out_specs=axis, axis_names=own, check_vma=False
        )
        return spread(states, seeds, *shared)

    return jax.jit(
        everywhere,
        out_shardings=NamedSharding(mesh, axis),
        compiler_options=compiler_options() if convolutions else None,
    )


def sharing() -> int:
    """How many devices share each batch of the program that is being traced."""
    return jax.sharding.get_abstract_mesh().shape.get(DATA, 1)


def split(rows: PyTree) -> PyTree:
    """Rows [B, ...] of a batch, sharded over the devices that share it.

    Padded with zeros to a multiple of their number; unchanged where no batch is shared.
    """
    mesh, devices = jax.sharding.get_abstract_mesh(), sharing()
    if devices == 1:
        return rows

    def divide(array: Array) -> jax.Array:
        filled = [(0, -len(array) % devices), *[(0, 0)] * (array.ndim - 1)]
        sharding = NamedSharding(mesh, PartitionSpec(DATA))
        return jax.lax.with_sharding_constraint(jnp.pad(array, filled), sharding)

    return jax.tree.map(divide, rows)


@functools.cache
def compiler_options(*, many_loops: bool = False) -> dict[str, str | bool] | None:
    """Options of `jax.jit` for programs with convolutions, or None if the compiler knows none.

    On the CPU XLA gives both products and convolutions to a library which is faster than XLA's own
    code at products and much slower at convolutions (`python -m benchmarks.layers_cnn`); it is left
    the products. Of vector registers XLA takes half where a processor has 512 bits; whole ones make
    the sums of `models.conv` in lanes nearly twice as fast. And where XLA analyses in which region
    of a loop an array is alive, it copies fewer of them, which changes no bit of a result.
    many_loops: of a program that has hundreds of small loops; without the newer way to write them
    it is compiled in three quarters of the time and runs as fast.  Last bits may differ.
    """
    if jax.default_backend() != "cpu":
        return None
    options: dict[str, str | bool] = {}
    for some in (  # what belongs together, so that the end of one experiment costs no other
        {
            "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
            "xla_cpu_prefer_vector_width": "512",
        },
        {"xla_cpu_copy_insertion_use_region_analysis": True},
        {"xla_cpu_use_fusion_emitters": False} if many_loops else {},
    ):
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # not in this version
            _ = jax.jit(lambda: 0, compiler_options=some).lower().compile()
            options |= some
    return options or None


def options_of_one_call() -> dict[str, int] | None:
    """Options of `jax.jit` for a program that is called once: compiled sooner, to the same bits.

    As the draws of a net's parameters are: on the CPU XLA takes a second for each layer to make the
    20 rounds of Threefry fast.
    """
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def place_seeds(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put arrays [S, ...] on the mesh, the last seed repeated until every device has as many."""
    sharding = NamedSharding(mesh, PartitionSpec(INDEPENDENT))

    def place(array: Array) -> jax.Array:
        array = fill(np.asarray(array), mesh.shape[INDEPENDENT])
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(place, tree)


def fill(array: np.ndarray, multiple: int) -> np.ndarray:
    """[S, ...] with the last entry repeated until their number is a multiple."""
    return np.concatenate([array, *[array[-1:]] * (-len(array) % multiple)])


def fill_batches(array: np.ndarray, mesh: Mesh) -> np.ndarray:
    """[S, T, B] with zeros behind each batch until the devices can share it."""
    return np.pad(array, ((0, 0), (0, 0), (0, -array.shape[2] % mesh.shape[DATA])))


def place_whole(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put arrays on every device of the mesh; every process has all of them."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if distributed.is_single():
        return jax.device_put(tree, sharding)

    def place(array: Array) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(place, tree)


def own_rows(count: int, mesh: Mesh) -> slice:
    """The slice of `count` rows that this process reads when they are sharded over all devices."""
    filled = count + -count % mesh.size
    dealt: Any = _dealt(mesh).addressable_devices_indices_map((filled,))
    return _hull([index[0] for index in dealt.values()], filled, count)


def join_rows(tree: PyTree, count: int, mesh: Mesh) -> PyTree:
    """Arrays [count, ...], whole on every device; each process passes its `own_rows` of them."""
    if distributed.is_single():
        return place_whole(tree, mesh)
    filled, own = count + -count % mesh.size, own_rows(count, mesh)

    def place(rows: np.ndarray) -> jax.Array:
        def rows_of(index: Any) -> np.ndarray:
            first, end, _ = index[0].indices(filled)
            part = rows[first - own.start : end - own.start]
            return np.pad(part, [(0, end - first - len(part)), *[(0, 0)] * (rows.ndim - 1)])

        return jax.make_array_from_callback((filled, *rows.shape[1:]), _dealt(mesh), rows_of)

    return _replicated(mesh, count)(jax.tree.map(place, tree))


def own_batches(shape: tuple[int, int, int], mesh: Mesh) -> tuple[slice, slice, slice]:
    """The slices of [S, T, B] examples, T batches for each of S seeds, that this process reads.

    S and B are multiples of the mesh's axes (`fill`, `fill_batches`).
    """
    seeds, _, rows = zip(
        *_batches(mesh).addressable_devices_indices_map(shape).values(), strict=True
    )
    return _hull(seeds, shape[0], shape[0]), slice(None), _hull(rows, shape[2], shape[2])


def place_batches(tree: PyTree, shape: tuple[int, int, int], mesh: Mesh) -> PyTree:
    """Put arrays [S, T, B, ...] on the mesh; each process passes its `own_batches` of them."""
    seeds, _, rows = own_batches(shape, mesh)

    def place(array: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            first, end, _ = index[0].indices(shape[0])
            left, right, _ = index[2].indices(shape[2])
            return array[
                first - seeds.start : end - seeds.start, :, left - rows.start : right - rows.start
            ]

        return jax.make_array_from_callback((*shape, *array.shape[3:]), _batches(mesh), part)

    return jax.tree.map(place, tree)


def fetch_seeds(tree: PyTree, seeds: int) -> PyTree:
    """The first `seeds` entries of every array, as NumPy arrays on every host."""
    return jax.tree.map(lambda array: array[:seeds], fetch(tree))


def fetch(tree: PyTree) -> PyTree:
    """Arrays of any sharding as NumPy arrays on every host.  Collective."""
    if not distributed.is_single():
        leaves, structure = jax.tree.flatten(tree)
        spread = [leaf for leaf in leaves if not leaf.is_fully_replicated]
        if spread:
            gathered = iter(_replicated(spread[0].sharding.mesh, None)(spread))
            leaves = [leaf if leaf.is_fully_replicated else next(gathered) for leaf in leaves]
        tree = jax.tree.unflatten(structure, leaves)
    return jax.tree.map(np.asarray, tree)


def cache_programs(directory: str) -> None:
    """Keep every compiled program in `directory`, as a user names it, for the next start.

    A line says so if nothing can be written there; then none is kept.
    """
    path = files.locate(directory)
    if not files.can_write(path):
        progress.say(f"{path}: cannot be written; compiled programs are not kept")
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _dealt(mesh: Mesh) -> NamedSharding:
    """Sharding of rows over all devices, in equal parts."""
    return NamedSharding(mesh, PartitionSpec((INDEPENDENT, DATA)))


def _batches(mesh: Mesh) -> NamedSharding:
    """Sharding of [S, T, B]: the seeds over one axis, the rows of a batch over the other."""
    return NamedSharding(mesh, PartitionSpec(INDEPENDENT, None, DATA))


def _hull(parts: Iterable[slice], size: int, end: int) -> slice:
    """From the first of the parts of an axis to the last, but not beyond `end`."""
    bounds = [part.indices(size) for part in parts]
    return slice(min(min(a for a, _, _ in bounds), end), min(max(b for _, b, _ in bounds), end))


@functools.cache
def _replicated(mesh: Mesh, count: int | None) -> Callable[[PyTree], PyTree]:
    """A program that copies arrays to every device, or the first `count` rows of each."""

    def copy(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda array: array[:count], tree)

    return jax.jit(copy, out_shardings=NamedSharding(mesh, PartitionSpec()))
