import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import parallel
from research.models.conv import _correlate
from research.types import UserError


def test_the_mesh_never_has_more_devices_than_seeds():
    assert [parallel.make_mesh(seeds).size for seeds in (1, 3, 4, 9)] == [1, 3, 4, 4]


@pytest.mark.parametrize("seeds", [1, 2, 5, 9])
def test_placing_fills_the_mesh_and_fetching_gives_back_what_was_placed(seeds):
    tree = {"a": np.arange(2 * seeds).reshape(seeds, 2), "b": np.arange(seeds)}
    mesh = parallel.make_mesh(seeds)
    placed = parallel.place_seeds(tree, mesh)
    assert len(placed["b"]) % mesh.size == 0
    assert len(placed["b"].addressable_shards) == mesh.size
    chex.assert_trees_all_equal(parallel.fetch_seeds(placed, seeds), tree)


def test_a_program_over_seeds_sees_one_seed_at_a_time_and_the_whole_of_what_is_shared():
    mesh = parallel.make_mesh(4)

    def program(state, seed, shared):
        chex.assert_rank([state, seed, shared], [1, 0, 1])
        return state * 2.0, jnp.sum(shared) + seed

    states = parallel.place_seeds(np.ones((4, 3), np.float32), mesh)
    seeds = parallel.place_seeds(np.arange(4, dtype=np.float32), mesh)
    shared = parallel.place_whole(np.ones(5, np.float32), mesh)
    doubled, sums = parallel.over_seeds(program, mesh)(states, seeds, shared)
    np.testing.assert_array_equal(doubled, np.full((4, 3), 2.0))
    assert sums.tolist() == [5, 6, 7, 8]


def test_the_program_has_no_collective_operation_between_devices():
    mesh = parallel.make_mesh(4)
    arguments = parallel.place_seeds((np.ones((4, 3), np.float32), np.arange(4)), mesh)
    compiled = (
        parallel.over_seeds(lambda state, seed: state + 1.0, mesh).lower(*arguments).compile()
    )
    for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all"):
        assert word not in compiled.as_text()


@pytest.mark.parametrize("key", ["cpu_devices", "cpu_threads"])
def test_a_negative_number_of_devices_or_threads_is_refused_by_name(key):
    numbers = {"cpu_devices": 1, "cpu_threads": 1, key: -2}
    with pytest.raises(UserError, match=f"{key}: -2"):
        parallel.configure(**numbers, seeds=1)


def test_an_unknown_precision_is_refused_with_the_valid_ones():
    with pytest.raises(UserError, match="'best' is not one of default, high, highest"):
        parallel.configure(cpu_devices=1, cpu_threads=1, seeds=1, matmul_precision="best")


def test_there_are_several_devices_to_test_with():
    assert len(jax.devices()) == 4


@pytest.fixture
def options():
    """`compiler_options` that has not been asked before."""
    parallel.compiler_options.cache_clear()
    yield parallel.compiler_options
    parallel.compiler_options.cache_clear()


def test_on_the_cpu_the_library_gets_products_but_no_convolutions(options):
    def compiled(function, *shapes):
        arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
        return jax.jit(function, compiler_options=options()).lower(*arguments).compile().as_text()

    image, kernel = (2, 8, 8, 3), (3, 3, 3, 4)
    assert "ynn" not in compiled(lambda x, k: _correlate(x, k, ((0, 0), (0, 0))), image, kernel)
    assert "ynn" in compiled(lambda x, y: x @ y.T, (256, 256), (256, 256))


def test_options_for_convolutions_are_for_the_cpu_only(options, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert options() is None


def test_options_that_the_compiler_does_not_know_are_left_out(options, monkeypatch):
    jit = jax.jit
    monkeypatch.setattr(jax, "jit", lambda f, **_: jit(f, compiler_options={"no_such": ""}))
    assert options() is None


def test_only_programs_with_convolutions_get_the_options(monkeypatch):
    monkeypatch.setattr(parallel, "compiler_options", lambda: {"no_such": ""})
    mesh = parallel.make_mesh(1)
    arguments = parallel.place_seeds((np.ones((1, 3), np.float32), np.arange(1)), mesh)
    plain, convolutional = (
        parallel.over_seeds(lambda state, seed: -state, mesh, convolutions=any_)
        for any_ in (False, True)
    )
    assert float(plain(*arguments).sum()) == -3.0
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such"):
        _ = convolutional(*arguments)
