"""Several processes that run one program, on one machine or many.

Every process runs the same Python program on the same config (SPMD) and holds a part of the arrays.
Files are written by the first process only, and what depends on files is decided there and told to
the others.  `broadcast_from_first`, `max_over_processes`, `barrier`, `first_process_first` and
`close` are collective: every process has to call them, in the same order.  Alone they cost nothing;
inside what `broadcast_from_first` and `first_process_first` run, where the others are not, each
process is on its own.

When one process ends before the others, these end as well, with one line that says which it was:

* killed, or its machine lost: at once, or after `links.SILENCE` seconds; exit code 75 (EX_TEMPFAIL)
* by an error or a signal of its own: `links.GRACE` seconds later, with its exit code

One that hangs although its machine answers is left to JAX's own watch (`HEARTBEAT`), which ends the
others with a stack trace and SIGABRT.
"""

import contextlib
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from research.runtime import rendezvous
from research.structs import UserError

T = TypeVar("T")

HEARTBEAT = 2 * rendezvous.SILENCE  # seconds; what the connections notice they notice before
START = 300  # seconds for all processes to appear: machines of a cluster boot at different times
_SHUTDOWN = 60  # seconds
# What XLA's collectives say when another process has gone; a ValueError on the CPU.
_LOST = re.compile("gloo|nccl|unavailable:|connection (reset|closed)|socket closed", re.IGNORECASE)

_state: dict[str, Any] = {"links": None, "count": 1, "number": 0, "advice": "", "own": None}
_state["apart"] = False  # inside `broadcast_from_first` or `first_process_first`


def initialize(
    *, coordinator: str = "", processes: int = 0, process: int = -1, advice: str = ""
) -> None:
    """Find the other processes of this run; call before the first array is made.

    coordinator: "host:port" of the first process.  processes: how many there are; 1 for this one
    alone; 0 to find out under SLURM, on Cloud TPU (virtual machines or GKE) and from Open MPI, and
    to run alone where none of them is found.  process: number of this one, from 0.
    advice: what to do when another process has died, for the message.
    Raises UserError naming the flag that is missing or wrong, or the process that does not come.
    """
    devices = None
    if processes == 0:
        if coordinator or process != -1:
            raise UserError("processes: not given; --coordinator and --process go with --processes")
        coordinator, processes, process, devices = _detect()
    if processes < 0:
        raise UserError(f"processes: {processes} is negative; 0 means to find out")
    if processes == 1:
        return
    if not 0 <= process < processes:
        raise UserError(f"process: {process} is not one of 0 .. {processes - 1}")
    if not coordinator:
        raise UserError("coordinator: not given; host:port of the first process")
    connections = rendezvous.meet(coordinator, processes, process, limit=START)
    _keep_standard_output()
    _initialize(coordinator, processes, process, devices)
    _state.update(count=processes, number=process, advice=advice)
    _state["links"] = rendezvous.Links(connections, processes, process, _act)


def _initialize(coordinator: str, processes: int, process: int, devices: list[int] | None) -> None:
    """JAX's service, once all are there: where it cannot start it aborts."""
    # Its SIGTERM handler would take the place of `preemption`'s.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_check_proxy_envs", False)
    host = coordinator.rpartition(":")[0]
    for name in ("no_grpc_proxy", "no_proxy"):  # a proxy for the web is none for this
        if name == "no_grpc_proxy" or name in os.environ:
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), host]))
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        local_device_ids=devices,
        cluster_detection_method="deactivate",
        initialization_timeout=START,
        heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=_SHUTDOWN,
    )


def _keep_standard_output() -> None:
    """Let standard output be Python's alone: Gloo prints there as well, which goes to the error."""
    with contextlib.suppress(OSError, ValueError):
        own = os.fdopen(os.dup(1), "w")
        _ = os.dup2(2, 1)
        sys.stdout = own


def _detect() -> tuple[str, int, int, list[int] | None]:
    """(coordinator, processes, process, devices) as JAX finds them; processes is 1 if it does not.

    devices: those of this process among its machine's; None for all.
    """
    # Private: `jax.distributed.initialize` detects as well, but aborts where the address is wrong.
    from jax._src import clusters

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Kubernetes without its package; see launch/
        try:
            address, processes, process, devices = (
                clusters.ClusterEnv.auto_detect_unset_distributed_params(
                    None, None, None, None, None, START
                )
            )
        except Exception as error:  # half an environment
            print(f"running alone: {type(error).__name__}: {error}", file=sys.stderr)
            return "", 1, 0, None
    if address is None or processes is None or process is None:
        return "", 1, 0, None
    if devices is not None and _owns_machine():
        devices = None
    return address, processes, process, list(devices) if devices else None


def _owns_machine() -> bool:
    """Whether SLURM has given this process a machine, or its devices, for itself alone.

    JAX takes one device per process for granted there, the one with the process's local number.
    """
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    one_task = re.fullmatch(r"1(\(x\d+\))?", tasks) is not None
    return one_task or (bool(visible) and "," not in visible)


def process_count() -> int:
    """Processes of this run."""
    return _state["count"]


def process_index() -> int:
    """Number of this process, 0 .. count - 1."""
    return _state["number"]


def is_first() -> bool:
    """Whether this process is the one that writes records and speaks; True when alone."""
    return _state["number"] == 0


def is_single() -> bool:
    """Whether this process is the only one."""
    return _state["count"] == 1


def barrier(name: str) -> None:
    """Wait until every process is here.

    name: of the place.  Raises RuntimeError where another process is at another place.
    """
    _ = _meet(name, 0)


def max_over_processes(value: int) -> int:
    """The largest `value` over the processes."""
    return _meet("highest", value)


def broadcast_from_first(function: Callable[[], T]) -> T:
    """Call `function` in the first process only; its result, or its UserError, reaches all.

    The result must be JSON-able; the others get lists for tuples, and a UserError for an OSError.
    """
    if is_single() or _state["apart"]:
        return function()
    if not is_first():
        return _heard()
    try:
        with _apart():
            result = function()
    except (UserError, OSError) as error:
        _tell({"error": str(error)})
        raise
    _tell({"result": result})
    return result


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """The first process runs the body, then all the others at once.

    A UserError of the first process is raised in all of them, and the others do not run the body.
    """
    if is_single() or _state["apart"]:
        yield
        return
    if not is_first():
        _ = _heard()
        with _apart():
            yield
        return
    try:
        with _apart():
            yield
    except (UserError, OSError) as error:
        _tell({"error": str(error)})
        raise
    _tell({"result": None})


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    _state["apart"] = True
    try:
        yield
    finally:
        _state["apart"] = False


def close() -> None:
    """Wait until every process is here, and part; the last of all collective calls."""
    if is_single():
        return
    _state["links"].close()
    jax.distributed.shutdown()
    _state.update(links=None, count=1, number=0)


def end(text: str, code: int, error: Exception | None = None) -> None:
    """End this process, which cannot go on, and so the others; returns when alone.

    text: the last line, for standard error; only the first process prints it if all processes come
    here with the same text.  code: the exit code.  error: where it comes from.
    """
    if is_single():
        return
    if error is not None and _LOST.search(str(error)):
        # Because another process has died: `_act` will come first and say which.
        time.sleep(rendezvous.SILENCE + 2)
    _state["own"] = (text, code)
    _state["links"].end(text, code)
    time.sleep(2 * rendezvous.GRACE)  # `_act` comes in another thread
    _leave(text, code)


def _act(cause: rendezvous.End, same: bool) -> None:
    """The run is over: the last line and the exit, from whatever thread, whatever the others do."""
    if _state["own"]:
        text, code = _state["own"]
        _leave("" if same and not is_first() else text, code)
    said = f"process {cause.number} of {process_count()} (from 0) "
    if cause.text:
        _leave(f"{said}has ended: {cause.text}", cause.code)
    said += "has died or cannot be reached"
    _leave("; ".join(filter(None, [said, _state["advice"]])), cause.code)


def _leave(text: str, code: int) -> None:
    """Exit without the clearing up that would wait for the others."""
    if text:
        _ = os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{text}\n".encode())
    if is_first():  # JAX's service is here: the others would abort if it went before them
        _state["links"].wait_until_left(rendezvous.GRACE / 2)
    os._exit(code)


def _tell(message: dict[str, Any]) -> None:
    for peer in range(1, process_count()):
        _state["links"].send(peer, message)


def _heard() -> Any:
    message = _state["links"].receive(0)
    if "error" in message:
        raise UserError(message["error"])
    return message["result"]


def _meet(name: str, value: int) -> int:
    """The largest `value` of the processes, all of which are at `name`."""
    if is_single() or _state["apart"]:
        return value
    if not is_first():
        _state["links"].send(0, [name, value])
        largest: int = _heard()
        return largest
    largest = value
    for peer in range(1, process_count()):
        place, theirs = _state["links"].receive(peer)
        if place != name:
            raise RuntimeError(f"process {peer} is at {place!r}, the first one at {name!r}")
        largest = max(largest, theirs)
    _tell({"result": largest})
    return largest
