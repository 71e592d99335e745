"""Strict types and eight devices for every test, and where the real data lie.

Tests on real MNIST, CIFAR-10 and photographs read `$LAB_DATA/{mnist,cifar10,facemask}`; the default
is the folder `shared/data` beside the checkout. They are skipped, and counted at the end, where
there is none.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# More threads than cores: queued collectives of several virtual devices can wait for one another.
os.environ.setdefault("NPROC", "16")
# For the processes that tests start as well, which would share the memory of one accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# As research.runtime.startup has it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

LAB_DATA = Path(
    os.environ.get("LAB_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
).absolute()
NO_DATA = "no real data in "


def _real_data(name: str) -> Path:
    folder = LAB_DATA / name
    if not folder.is_dir():
        pytest.skip(f"{NO_DATA}{folder}")
    return folder


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """Directory of the four IDX files of MNIST."""
    return _real_data("mnist")


@pytest.fixture(scope="session")
def real_cifar10() -> Path:
    """Directory of CIFAR-10 as train.tar and test.tar of JPEG files."""
    return _real_data("cifar10")


@pytest.fixture(scope="session")
def real_faces() -> Path:
    """Directory with the annotated photographs voc/ and folders/."""
    return _real_data("facemask")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped for lack of real data."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(NO_DATA in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(
            f"{count} tests skipped for lack of real data in {LAB_DATA}; set LAB_DATA"
        )


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A program that several tests build is compiled by the first of them, in whatever process.

    The folder is made anew for every run of the tests.  A limit of its size, which is never met,
    has JAX write and read files under a lock, so that nobody reads half of one.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_compilation_cache_max_size", 2**40)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@contextlib.contextmanager
def _compiled(quickly: bool) -> Iterator[None]:
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quickly)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def compiled_as_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Half the time, by leaving out what makes large programs fast; unless marked `optimized`.

    That is a module whose tests ask two programs for equal bits: those that users run.
    """
    with _compiled(quickly=request.node.get_closest_marker("optimized") is None):
        yield


@pytest.fixture
def quickly_compiled() -> Iterator[None]:
    """For one test of a module marked `optimized` that asks for no equal bits."""
    with _compiled(quickly=True):
        yield


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
