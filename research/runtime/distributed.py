"""Several processes that run one program, on one machine or many, through `jax.distributed`.

Every process runs the same Python program on the same config (SPMD) and holds a part of the arrays.
Files are written by the first process only; what depends on files is decided there and broadcast.
`broadcast_from_first`, `max_over_processes`, `barrier`, `first_process_first` and `close` are
collective: every process has to call them, in the same order.  With one process they are plain
calls, and so they are inside what `broadcast_from_first` and `first_process_first` run, where the
other processes are not.

When a process dies, or its machine does, every other one ends within `HEARTBEAT + GRACE` seconds,
with an exit code after which the same command goes on from the last checkpoint:

* 75 (EX_TEMPFAIL), as a rule at once, where it next exchanges data: `peer_lost`
* 134 (SIGABRT), from JAX's own watch, where it exchanges nothing or waits for ever, as NCCL does

A process that hangs while its machine answers is waited for.
"""

import contextlib
import ipaddress
import json
import os
import re
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from research.runtime import startup
from research.structs import UserError, one_line

T = TypeVar("T")

HEARTBEAT = 20  # seconds without a sign of life after which JAX takes a process for dead
GRACE = 3  # seconds the first process waits before it exits
NOTICE = 5  # seconds of waiting for them after which a line says so
START = 300  # seconds for all processes to appear: machines of a cluster boot at different times
LOST = 75  # EX_TEMPFAIL: another process is gone

# What XLA's collectives report when another process is gone: a ValueError of Gloo on the CPU, a
# JaxRuntimeError elsewhere.
_LOST = re.compile("gloo|nccl|unavailable:|connection (reset|closed)|socket closed", re.IGNORECASE)
_SIZES = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")  # how many processes a launcher has started

_state = {"apart": False}  # whether the other processes are elsewhere


def initialize(*, coordinator: str = "", processes: int = 0, process: int = -1) -> int:
    """Connect to the other processes of this run; call before the first array is made.

    coordinator: "host:port" of the first process, which listens there alone if that is an address
    of its machine.  processes: how many there are; 1 for this one alone; 0 to find out under SLURM,
    on Cloud TPU (virtual machines or GKE) and from Open MPI, and to run alone where JAX finds none
    of them.  process: number of this one, from 0.
    Returns the number of processes as far as it is known before JAX looks at its devices, which
    `sharding.configure` has to precede: 1 on Cloud TPU, where `process_count` tells.
    Raises UserError naming the flag that is missing or wrong, and for a port that is in use or a
    cluster that JAX cannot read.  Where not all appear within `START` seconds, JAX aborts (134).
    """
    if processes < 0:
        raise UserError(f"processes: {processes} is negative; 0 means to find out")
    if processes == 0 and (coordinator or process != -1):
        raise UserError("processes: not given; --coordinator and --process go with --processes")
    launched = next((name for name in _SIZES if os.environ.get(name, "").isdecimal()), "")
    listen = None  # at all addresses
    expected = processes or (int(os.environ[launched]) if launched else 0)
    if expected == 1:
        return 1
    if processes:
        if not 0 <= process < processes:
            raise UserError(f"process: {process} is not one of 0 .. {processes - 1}")
        if not re.fullmatch(r".+:\d{1,5}", coordinator):
            raise UserError(
                f"coordinator: {coordinator!r} is not host:port of the first process; "
                "--processes needs it"
            )
        host, _, port = coordinator.rpartition(":")
        if process == 0:
            own = _own_address(host)
            family = socket.AF_INET6 if ":" in own else socket.AF_INET
            if own:
                listen = f"[{own}]:{port}" if family == socket.AF_INET6 else f"{own}:{port}"
            try:  # JAX's service crashes where it cannot listen
                socket.create_server((own, int(port)), family=family).close()
            except (OSError, OverflowError) as error:
                raise UserError(
                    f"coordinator: cannot listen on port {port} ({one_line(error)}); give another"
                ) from error
        _bypass_proxy(host)
        print(
            f"process {process} of {processes}: connecting to {coordinator}, for at most {START} s",
            file=sys.stderr,
            flush=True,
        )
    # One process alone, as under `srun --pty` in an allocation for several, waits for the others.
    notice = threading.Timer(
        NOTICE,
        print,
        [
            f"waiting for the other processes ({launched or 'processes'}={expected or 'unknown'}), "
            f"for at most {START} s; --processes=1 runs this one alone"
        ],
        {"file": sys.stderr, "flush": True},
    )
    notice.daemon = True
    notice.start()
    # JAX's handler of SIGTERM would take the place of `preemption`'s.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Kubernetes without its package; see launch/
            jax.distributed.initialize(
                coordinator or None,
                processes or None,
                process if processes else None,
                cluster_detection_method="deactivate" if processes else None,
                initialization_timeout=START,
                heartbeat_timeout_seconds=HEARTBEAT,
                coordinator_bind_address=listen,
            )
    except (ValueError, RuntimeError) as error:
        if not processes and "coordinator_address" in str(error):  # none was found
            return 1
        raise UserError(
            f"cannot connect to the other processes ({one_line(error)}); give "
            "--coordinator=host:port, --processes and --process"
        ) from error
    finally:
        notice.cancel()
    if not processes and _has_devices_of_its_own():
        # JAX gives a task the one device with its number on the machine.
        jax.config.update("jax_cuda_visible_devices", "all")
    _keep_standard_output()
    return expected or 1


def _own_address(host: str) -> str:
    """The address of this machine that `host` names, where the coordinator listens; "" for all.

    All where the name is of something that forwards to this machine, and where it is this machine's
    name for itself alone: many have their own name at 127.0.1.1, which others do not reach.
    """
    name = host.strip("[]")
    try:
        family, _, _, _, (address, *_) = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)[0]
        socket.create_server((str(address), 0), family=family).close()
    except OSError:
        return ""
    alone = ipaddress.ip_address(str(address)).is_loopback and name not in ("localhost", address)
    return "" if alone else str(address)


def _bypass_proxy(host: str) -> None:
    """Keep gRPC's connections to `host` off a proxy that is meant for the web."""
    jax.config.update("jax_check_proxy_envs", False)
    for name in ("no_grpc_proxy", "no_proxy"):
        if name == "no_grpc_proxy" or name in os.environ:
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), host]))


def _has_devices_of_its_own() -> bool:
    """Whether SLURM has given this task a machine, or one GPU, for itself alone."""
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    one_task = re.fullmatch(r"1(\(x\d+\))?", tasks) is not None
    return one_task or (bool(visible) and "," not in visible)


def _keep_standard_output() -> None:
    """Send what libraries print to standard error: Gloo reports its connections among the JSON."""
    with contextlib.suppress(OSError, ValueError):
        own = os.dup(1)
        _ = os.dup2(2, 1)
        sys.stdout = startup.tolerant(own)


def process_count() -> int:
    """Number of processes of this run."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Number of this process, 0 .. process_count() - 1."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes records and prints; True for the only one."""
    return process_index() == 0


def is_single() -> bool:
    """Whether this process is the only one."""
    return process_count() == 1


def barrier(name: str) -> None:
    """Wait until every process is here.

    name: of the place.  Raises AssertionError where another process is at another place.
    """
    if not (is_single() or _state["apart"]):
        multihost_utils.sync_global_devices(name)


def max_over_processes(value: int) -> int:
    """The largest `value` (int32) over the processes."""
    if is_single() or _state["apart"]:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def broadcast_from_first(function: Callable[[], T]) -> T:
    """Call `function` in the first process only; its result, or its UserError, reaches all.

    The result must be JSON-able; the others get lists for tuples, and a UserError for an OSError.
    """
    if is_single() or _state["apart"]:
        return function()
    if not is_first():
        message = _broadcast(None)
        if "error" in message:
            raise UserError(message["error"])
        return message["result"]
    try:
        with _apart():
            result = function()
    except (UserError, OSError) as error:
        _ = _broadcast({"error": str(error)})
        raise
    _ = _broadcast({"result": result})
    return result


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """The first process runs the body, then all the others at once.

    A UserError of the first process is raised in all of them, and the others do not run the body.
    """
    if is_single() or _state["apart"]:
        yield
        return
    if is_first():
        try:
            with _apart():
                yield
        except (UserError, OSError) as error:
            _ = _broadcast({"error": str(error)})
            raise
    broadcast_from_first(lambda: None)
    if not is_first():
        with _apart():
            yield


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    _state["apart"] = True
    try:
        yield
    finally:
        _state["apart"] = False


def _broadcast(message: Any) -> Any:
    """The JSON-able `message` of the first process, in every process."""
    content = np.frombuffer(json.dumps(message).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    # Each size is a program of its own to compile: powers of two keep them few.
    padded = np.zeros(max(256, 1 << (size - 1).bit_length()), np.uint8)
    if is_first():
        padded[:size] = content
    return json.loads(multihost_utils.broadcast_one_to_all(padded)[:size].tobytes())


def peer_lost(error: BaseException) -> bool:
    """Whether an error of a collective comes from another process that is gone."""
    return not is_single() and _LOST.search(str(error)) is not None


def close() -> None:
    """Wait until every process is here, and disconnect; the last of all collective calls."""
    if not is_single():
        barrier("close")  # without a limit, which the one of `shutdown` has
        jax.distributed.shutdown()


def end(code: int) -> None:
    """End this process of several, which cannot go on, with an exit code; returns when alone.

    JAX's own clearing up would wait for the others and abort.  The first process, where JAX's
    service is, goes last, for the others that are ending as well to do so with their own codes.
    """
    if is_single():
        return
    for stream in (sys.stdout, sys.stderr):
        _ = stream.flush()
    if is_first():
        time.sleep(GRACE)
    os._exit(code)
