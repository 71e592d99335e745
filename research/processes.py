"""Several processes that run one program, on one machine or many.

Every process runs the same Python program on the same config (SPMD) and holds a part of the arrays.
Files are written by the first process only, and what depends on files is decided there and told to
the others.  All functions here but `count`, `number`, `first` and `alone` are collective: every
process has to call them, in the same order.  Alone they cost nothing.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from research.types import UserError

T = TypeVar("T")

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
_START = 300  # seconds for all processes to appear
_SLICE = 500  # ms of waiting, after which signals are looked at

_state: dict[str, Any] = {"client": None, "count": 1, "number": 0, "calls": 0, "forgotten": 0}


def start(*, coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Find the other processes; call before the first array is made."""
    if processes <= 1:
        return
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        cluster_detection_method="deactivate",
        initialization_timeout=_START,
        heartbeat_timeout_seconds=HEARTBEAT,
    )
    # Private, but the only way to its store of keys, which Orbax uses as well.
    from jax._src import distributed

    _state.update(client=distributed.global_state.client, count=processes, number=process)


def count() -> int:
    """Processes of this run."""
    return _state["count"]


def number() -> int:
    """Number of this process, 0 .. count - 1."""
    return _state["number"]


def first() -> bool:
    """Whether this process is the one that writes records and speaks; True when alone."""
    return _state["number"] == 0


def alone() -> bool:
    """Whether this process is the only one."""
    return _state["count"] == 1


def barrier(name: str) -> None:
    """Wait until every process is here.  name: of the place, the same in all processes."""
    del name
    _ = highest(0)


def told(function: Callable[[], T]) -> T:
    """Call `function` in the first process only; its result, or its UserError, reaches all.

    The result must be JSON-able (tuples become lists).
    """
    if alone():
        return function()
    key = f"{_next()}/told"
    if first():
        try:
            result = function()
        except UserError as error:
            _set(key, json.dumps({"error": str(error)}))
            raise
        _set(key, json.dumps({"result": result}))
    answer = json.loads(_get(key))
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["result"]


def highest(value: int) -> int:
    """The largest `value` over the processes."""
    if alone():
        return value
    call = _next()
    _set(f"{call}/value/{number()}", str(value))
    if _state["client"].key_value_increment(f"{call}/arrived", 1) == count():
        values = _state["client"].key_value_dir_get(f"{call}/value/")
        _set(f"{call}/highest", str(max(int(each) for _, each in values)))
    return int(_get(f"{call}/highest"))


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The first process runs the body, then all the others at once."""
    if not first():
        _ = told(lambda: None)
        yield
        return
    try:
        yield
    except UserError as error:
        text = str(error)

        def fail() -> None:
            raise UserError(text)

        with contextlib.suppress(UserError):
            told(fail)
        raise
    _ = told(lambda: None)


def _next() -> str:
    """Where the keys of the next call lie."""
    _state["calls"] += 1
    return f"research/{_state['calls']}"


def _set(key: str, value: str) -> None:
    _state["client"].key_value_set(key, value)


def _get(key: str) -> str:
    while True:
        try:
            return _state["client"].blocking_key_value_get(key, _SLICE)
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith("DEADLINE_EXCEEDED"):
                raise
