import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import prng
from research.models import costs
from research.models.conv_cpu import correlate
from research.runtime import distributed, sharding
from research.structs import UserError


@pytest.fixture
def as_one_of_several(monkeypatch):
    """What is done across processes, in one that holds all devices."""
    monkeypatch.setattr(distributed, "is_single", lambda: False)


def shape(independent, **settings):
    return tuple(sharding.make_mesh(independent, **settings).shape.values())


def test_on_a_cpu_what_is_independent_takes_a_device_each_and_batches_are_not_shared():
    assert [shape(seeds) for seeds in (1, 3, 8, 9)] == [(1, 1), (3, 1), (8, 1), (8, 1)]


def test_devices_that_share_a_batch_are_taken_in_groups():
    assert [shape(n, data_devices=2) for n in (1, 3, 9)] == [(1, 2), (3, 2), (4, 2)]
    assert shape(5, data_devices=8) == (1, 8)


def test_several_processes_use_every_device(as_one_of_several):
    """The largest divisor of 8 that there are seeds for; what is left shares the batches."""
    found = [shape(n) for n in (1, 2, 3, 5, 8, 20)]
    assert found == [(1, 8), (2, 4), (2, 4), (4, 2), (8, 1), (8, 1)]
    assert [shape(n, data_devices=4) for n in (1, 20)] == [(2, 4), (2, 4)]


def test_devices_that_cannot_be_divided_are_refused_by_name():
    with pytest.raises(UserError, match="data_devices: 3 does not divide the 8 devices"):
        _ = sharding.make_mesh(2, data_devices=3)


@pytest.mark.parametrize("seeds", [1, 2, 5, 9])
def test_placing_fills_the_mesh_and_fetching_gives_back_what_was_placed(seeds):
    tree = {"a": np.arange(2 * seeds).reshape(seeds, 2), "b": np.arange(seeds)}
    mesh = sharding.make_mesh(seeds)
    placed = sharding.place_seeds(tree, mesh)
    assert len(placed["b"]) % mesh.size == 0
    assert len(placed["b"].addressable_shards) == mesh.size
    chex.assert_trees_all_equal(sharding.fetch_seeds(placed, seeds), tree)


def test_a_program_over_seeds_sees_one_seed_at_a_time_and_the_whole_of_what_is_shared():
    mesh = sharding.make_mesh(4)

    def program(state, seed, shared):
        chex.assert_rank([state, seed, shared], [1, 0, 1])
        return state * 2.0, jnp.sum(shared) + seed

    states = sharding.place_seeds(np.ones((4, 3), np.float32), mesh)
    seeds = sharding.place_seeds(np.arange(4, dtype=np.float32), mesh)
    shared = sharding.place_whole(np.ones(5, np.float32), mesh)
    doubled, sums = sharding.over_seeds(program, mesh)(states, seeds, shared)
    np.testing.assert_array_equal(doubled, np.full((4, 3), 2.0))
    assert sums.tolist() == [5, 6, 7, 8]


def test_the_program_has_no_collective_operation_between_devices():
    mesh = sharding.make_mesh(4)
    arguments = sharding.place_seeds((np.ones((4, 3), np.float32), np.arange(4)), mesh)
    program = sharding.over_seeds(lambda state, seed: state + 1.0, mesh)
    assert costs.collective_bytes(program.lower(*arguments).compile().as_text()) == {}


@pytest.mark.parametrize("batched", [False, True])
def test_devices_that_share_a_batch_hold_a_part_of_it_and_add_up(batched):
    """Rows 0 .. 9 of 10 on four devices: three each, the last two of them filled up."""
    mesh = sharding.make_mesh(2, data_devices=4)
    table = sharding.place_whole(np.arange(20, dtype=np.float32).reshape(10, 2), mesh)

    def program(state, seed, table):
        rows = sharding.split(jnp.arange(10, dtype=jnp.int32))
        chex.assert_shape(rows, (12,))
        valid = sharding.split(jnp.ones(10, jnp.float32))
        return state + (valid[:, None] * table[rows]).sum(axis=0)

    arguments = sharding.place_seeds((np.ones((2, 2), np.float32), np.arange(2)), mesh)
    compiled = sharding.over_seeds(program, mesh, batched=batched).lower(*arguments, table)
    compiled = compiled.compile()
    np.testing.assert_array_equal(compiled(*arguments, table), [[91, 101], [91, 101]])
    assert costs.collective_bytes(compiled.as_text()) == {"all-reduce": 2 * 4}


def test_a_batch_that_nobody_shares_is_left_as_it_is():
    rows = jnp.arange(10)
    assert sharding.split(rows) is rows


def test_rows_dealt_out_to_all_devices_come_together_again(as_one_of_several):
    """61 rows on 8 devices: the last has three to fill up, and of one row most have none."""
    mesh = sharding.make_mesh(2)
    for count in (61, 8, 1):
        rows = {"a": np.arange(3 * count).reshape(count, 3), "b": np.arange(count, dtype=np.uint8)}
        assert sharding.own_rows(count, mesh) == slice(0, count)
        whole = sharding.join_rows(rows, count, mesh)
        assert whole["a"].is_fully_replicated
        chex.assert_trees_all_equal(jax.tree.map(np.asarray, whole), rows)


def test_a_process_reads_the_rows_of_its_own_devices(as_one_of_several, monkeypatch):
    """The second of two, with half of the devices each."""
    mesh = sharding.make_mesh(2)
    theirs = mesh.devices.reshape(-1)[4:]

    def of_the_second(sharding, shape):
        every = sharding.devices_indices_map(shape)
        return {device: every[device] for device in theirs}

    monkeypatch.setattr(
        jax.sharding.NamedSharding, "addressable_devices_indices_map", of_the_second
    )
    assert [sharding.own_rows(n, mesh) for n in (16, 61, 2)] == [
        slice(8, 16), slice(32, 61), slice(2, 2),
    ]  # fmt: skip
    assert sharding.own_batches((2, 5, 8), mesh) == (slice(1, 2), slice(None), slice(0, 8))
    one = sharding.make_mesh(1)
    assert sharding.own_batches((3, 5, 8), one) == (slice(0, 3), slice(None), slice(4, 8))


def test_batches_are_placed_where_their_seed_and_their_rows_belong(as_one_of_several):
    mesh = sharding.make_mesh(4)
    given = sharding.fill_batches(np.arange(4 * 3 * 5).reshape(4, 3, 5), mesh)
    assert given.shape == (4, 3, 6)
    placed = sharding.place_batches({"x": given, "y": given[..., None] + 1}, given.shape, mesh)
    np.testing.assert_array_equal(placed["x"], given)
    np.testing.assert_array_equal(placed["y"], given[..., None] + 1)
    assert {shard.data.shape for shard in placed["x"].addressable_shards} == {(1, 3, 3)}


def test_what_is_spread_over_processes_is_fetched_whole(as_one_of_several):
    mesh = sharding.make_mesh(4)
    tree = {"a": np.arange(12).reshape(4, 3), "b": np.arange(4)}
    placed = {**sharding.place_seeds(tree, mesh), "c": sharding.place_whole(np.ones(2), mesh)}
    fetched = sharding.fetch(placed)
    chex.assert_trees_all_equal(fetched, {**tree, "c": np.ones(2)})


def test_an_unknown_precision_is_refused_with_the_valid_ones():
    with pytest.raises(UserError, match="'best' is not one of default, high, highest"):
        sharding.configure(cpu_devices=1, cpu_threads=1, seeds=1, matmul_precision="best")


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize\nTrace")])
def test_a_platform_without_a_device_is_named(error, monkeypatch):
    def backend():
        raise error

    monkeypatch.setenv("NPROC", os.environ["NPROC"])
    monkeypatch.setattr(jax, "default_backend", backend)
    with pytest.raises(UserError, match=r"JAX_PLATFORMS: .* of 'cpu' \((Asser|Unable)[\w ]+\);"):
        sharding.configure(cpu_devices=8, cpu_threads=16, seeds=1)


def test_no_setting_of_jax_changes_what_is_drawn_and_in_which_precision(monkeypatch):
    """As the variables JAX_THREEFRY_PARTITIONABLE, JAX_RANDOM_SEED_OFFSET and so on would."""

    def drawn():
        bits = jax.random.bits(prng.stream(3, "order"), (7,))
        return (
            *np.asarray(bits).tolist(),
            jnp.arange(3).dtype,
            jax.config.jax_default_matmul_precision,
        )

    def configured():
        sharding.configure(cpu_devices=8, cpu_threads=16, seeds=1)
        return drawn()

    monkeypatch.setenv("NPROC", os.environ["NPROC"])
    expected = drawn()
    for name, value in (
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 7),
        ("jax_enable_x64", True),
        ("jax_default_matmul_precision", "bfloat16"),
    ):
        jax.config.update(name, value)
        assert drawn() != expected and configured() == expected, name


def test_there_are_several_devices_to_test_with():
    assert len(jax.devices()) == 8


def test_processes_with_different_numbers_of_devices_are_refused(monkeypatch):
    monkeypatch.setenv("NPROC", "")
    monkeypatch.setattr(jax.config, "update", lambda key, value: None)
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    with pytest.raises(UserError, match=r"cpu_devices: this process has 3 of \d+ devices"):
        sharding.configure(cpu_devices=0, cpu_threads=1, seeds=1)


def test_a_process_has_no_more_devices_than_its_share_of_the_seeds(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setenv("NPROC", "")
    asked = []

    def update(key, value):
        if key == "jax_num_cpu_devices":
            asked.append(value)

    monkeypatch.setattr(jax.config, "update", update)
    for seeds, count, cpu_devices in ((9, 1, 0), (3, 1, 0), (3, 2, 0), (1, 2, 0), (1, 2, 3)):
        sharding.configure(cpu_devices=cpu_devices, cpu_threads=1, seeds=seeds, processes=count)
    assert asked == [4, 3, 2, 1, 3]


def test_the_pool_has_threads_enough_where_devices_wait_for_each_other(monkeypatch):
    monkeypatch.setenv("NPROC", "")
    found = []
    for data_devices, processes, cpu_threads in ((1, 1, 1), (2, 1, 1), (1, 2, 40)):
        sharding.configure(
            cpu_devices=8,
            cpu_threads=cpu_threads,
            seeds=1,
            processes=processes,
            data_devices=data_devices,
        )
        found.append(int(os.environ["NPROC"]))
    assert found == [1, 16, 40]


@pytest.fixture
def options():
    """`compiler_options` that has not been asked before."""
    sharding.compiler_options.cache_clear()
    yield sharding.compiler_options
    sharding.compiler_options.cache_clear()


def test_on_the_cpu_the_library_gets_products_but_no_convolutions(options):
    def compiled(function, *shapes):
        arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
        return jax.jit(function, compiler_options=options()).lower(*arguments).compile().as_text()

    image, kernel = (2, 8, 8, 3), (3, 3, 3, 4)
    assert "ynn" not in compiled(lambda x, k: correlate(x, k, ((0, 0), (0, 0))), image, kernel)
    assert "ynn" in compiled(lambda x, y: x @ y.T, (256, 256), (256, 256))


def test_options_for_convolutions_are_for_the_cpu_only(options, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert options() is None


@pytest.mark.parametrize(
    ("unknown", "left"),
    [
        ("region_analysis", {"fusion_type", "vector_width", "fusion_emitters"}),
        ("vector_width", {"region_analysis", "fusion_emitters"}),
        ("fusion_emitters", {"region_analysis", "fusion_type", "vector_width"}),
        ("xla", set()),
    ],
)
def test_options_that_the_compiler_does_not_know_are_left_out(options, monkeypatch, unknown, left):
    jit = jax.jit

    def without(function, *, compiler_options):
        settings = {("no_such" if unknown in k else k): v for k, v in compiler_options.items()}
        return jit(function, compiler_options=settings)

    monkeypatch.setattr(jax, "jit", without)
    for many_loops, kinds in ((True, left), (False, left - {"fusion_emitters"})):
        known = options(many_loops=many_loops)
        assert {"_".join(name.split("_")[-2:]) for name in known or {}} == kinds
        assert known != {}


def test_only_programs_with_convolutions_get_the_options(monkeypatch):
    monkeypatch.setattr(sharding, "compiler_options", lambda: {"no_such": ""})
    mesh = sharding.make_mesh(1)
    arguments = sharding.place_seeds((np.ones((1, 3), np.float32), np.arange(1)), mesh)
    plain, convolutional = (
        sharding.over_seeds(lambda state, seed: -state, mesh, convolutions=any_)
        for any_ in (False, True)
    )
    assert float(plain(*arguments).sum()) == -3.0
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such"):
        _ = convolutional(*arguments)


def test_programs_are_not_kept_where_nothing_can_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()  # nobody can make a folder below it, root neither
    before = jax.config.jax_compilation_cache_dir
    sharding.cache_programs(str(tmp_path / "file" / "compiled"))
    assert jax.config.jax_compilation_cache_dir == before
    assert "compiled: cannot be written; compiled programs are not kept" in capsys.readouterr().err
