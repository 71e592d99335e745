"""A trace is of the second piece, once, and lies where the viewers look for it."""

import jax
import jax.numpy as jnp
import pytest

from research.runtime import distributed, profiling


@pytest.fixture(autouse=True)
def none_asked_for():
    profiling.install(0)
    yield
    profiling.install(0)


@pytest.fixture
def traced(monkeypatch):
    """What would be traced: "begin" and "end"."""
    seen = []

    class Recorded:
        def __init__(self, folder, **settings):
            self.settings = settings

        def __enter__(self):
            seen.append("begin")

        def __exit__(self, *error):
            seen.append("end")

    monkeypatch.setattr(jax.profiler, "trace", Recorded)
    return seen


def test_nothing_is_traced_unless_asked_for(tmp_path, traced):
    trace = profiling.Trace(tmp_path)
    assert [trace.between() for _ in range(3)] == ["", "", ""]
    with profiling.one_call(tmp_path):
        pass
    assert traced == []


def test_the_second_piece_of_a_training_is_traced_and_no_other(tmp_path, traced):
    profiling.install(4)
    assert profiling.steps() == 4
    trace, seen = profiling.Trace(tmp_path), []
    for _ in range(4):
        seen.append((trace.between(), list(traced)))
    said = f"profile: {tmp_path / 'profile'}"
    assert seen == [
        ("", ["begin"]), (said, ["begin", "end"]), ("", ["begin", "end"]), ("", ["begin", "end"]),
    ]  # fmt: skip
    assert profiling.steps() == 0


def test_one_call_of_several_is_traced(tmp_path, traced):
    profiling.install(1)
    for _ in range(2):
        with profiling.one_call(tmp_path):
            traced.append("call")
    assert traced == ["begin", "call", "end", "call"]


def test_other_processes_than_the_first_trace_nothing(tmp_path, traced, monkeypatch):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    profiling.install(1)
    with profiling.one_call(tmp_path):
        pass
    assert traced == []


@pytest.mark.slow
def test_the_files_are_those_of_the_viewers(tmp_path):
    profiling.install(1)
    with profiling.one_call(tmp_path):
        _ = jax.block_until_ready(jax.jit(lambda x: x @ x)(jnp.ones((50, 50))))
    (run,) = (tmp_path / "profile" / "plugins" / "profile").iterdir()
    kinds = sorted("".join(path.suffixes[-2:]) for path in run.iterdir())
    assert any(kind.endswith(".pb") for kind in kinds)
    assert (run / "perfetto_trace.json.gz").exists()
