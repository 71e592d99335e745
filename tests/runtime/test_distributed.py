"""Several processes on the loopback; each test starts them once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from several import ENVIRONMENT, Several, flags, run

from research.runtime import distributed
from research.structs import UserError

# Within so many seconds every process has ended after another one was killed, with time for a
# machine that is busy.
BOUND = distributed.HEARTBEAT + distributed.GRACE + 10
# How another process's death ends a process: `distributed.LOST`, or JAX's SIGABRT.
AGAIN = {75, -signal.SIGABRT}

START = """
import json, os, signal, socket, sys, time
import jax
from research.runtime import distributed, preemption
from research.structs import UserError

given = dict(word[2:].split("=") for word in sys.argv[1:])
distributed.initialize(
    coordinator=given["coordinator"],
    processes=int(given["processes"]),
    process=int(given["process"]),
)
me = distributed.process_index()
"""
# Ends as `research.main` does.
MAIN = """
try:
    distributed.barrier("ready")
    print("ready", file=sys.stderr, flush=True)
    {what}
except Exception as error:
    assert distributed.peer_lost(error), error
    distributed.end(distributed.LOST)
"""


def script(*parts):
    return ("-c", START + "\n".join(parts))


def test_alone_everything_is_a_plain_call():
    assert distributed.is_single() and distributed.is_first()
    assert (
        distributed.process_count(),
        distributed.process_index(),
        distributed.max_over_processes(-3),
    ) == (1, 0, -3)
    assert distributed.broadcast_from_first(lambda: (1, 2)) == (1, 2)
    distributed.barrier("here")
    ran = []
    with distributed.first_process_first():
        ran.append(1)
    assert not distributed.peer_lost(ValueError("Gloo all-reduce failed: Connection closed"))
    distributed.end(2)
    distributed.close()
    assert ran == [1]


def test_the_first_process_listens_where_others_reach_it_and_nowhere_else(monkeypatch):
    addresses = {"self": "127.0.1.1", "forwarder": "192.0.2.1", "six": "::1", "lan": "127.0.0.1"}
    real = socket.getaddrinfo

    def resolve(name, *words, **options):
        return real(addresses.get(name, name), *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    own = distributed._own_address
    assert own("127.0.0.1") == "127.0.0.1" and own("localhost") in ("127.0.0.1", "::1")
    assert own("self") == own("forwarder") == own("no such name.") == ""
    monkeypatch.setattr(
        distributed.ipaddress, "ip_address", lambda _: SimpleNamespace(is_loopback=False)
    )
    assert own("lan") == "127.0.0.1"  # as an address of a network, of which there may be none here


TOGETHER = """
result = {"first": distributed.is_first()}

# Everything that this process listens at is sent what no protocol knows.
own = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2
       and os.path.exists(f"/proc/self/fd/{fd}")]
rows = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}")]
held = [row[1].split(":") for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
result["listens"] = [address for address, _ in held]
for _, port in held:
    for content in (b"", b"GET / HTTP/1.1\\r\\n\\r\\n", b"\\xff" * 4096):
        with socket.create_connection(("127.0.0.1", int(port, 16))) as stranger:
            stranger.sendall(content)
result["broadcast"] = distributed.broadcast_from_first(lambda: [me, "first", "x" * 5000])
result["largest"] = [
    distributed.max_over_processes(me - 5), distributed.max_over_processes(-me)
]

def refuse():
    raise UserError("there is no such file")

def full():
    raise OSError("the disk is full")

def nested():
    return distributed.broadcast_from_first(lambda: distributed.max_over_processes(7))

def attempt(function):
    try:
        return distributed.broadcast_from_first(function)
    except (UserError, OSError) as error:
        return f"{type(error).__name__}: {error}"

result["refused"], result["full"], result["nested"] = map(attempt, (refuse, full, nested))
with distributed.first_process_first():
    began = time.time()
    time.sleep(0.3 * distributed.is_first())
    distributed.barrier("with nobody else")
    ended = time.time()
result["body"] = [began, ended]
try:
    with distributed.first_process_first():
        result["ran"] = True
        raise UserError("nothing to download")
except UserError as error:
    result["alone"] = str(error)
try:
    distributed.barrier(f"place {me}")
except AssertionError as error:
    result["place"] = str(error)
handler = signal.getsignal(signal.SIGTERM)
print("from a library", file=open("/dev/fd/1", "w"))
print(json.dumps(result | {"default": handler == signal.SIG_DFL}))
sys.stdout.flush()
distributed.close()
assert distributed.is_single()
"""


def test_what_the_first_process_decides_or_does_reaches_all():
    ended = run(2, script(TOGETHER))
    assert [each.code for each in ended] == [0, 0], [each.err for each in ended]
    one, two = (json.loads(each.out) for each in ended)  # what libraries print is not among it
    assert "from a library" in ended[1].err
    assert one["first"] and not two["first"]
    for result in (one, two):
        assert result["broadcast"] == [0, "first", "x" * 5000] and result["largest"] == [-4, 0]
        assert result["refused"] == "UserError: there is no such file"
        assert result["nested"] == 7
        assert result["alone"] == "nothing to download"
        assert "mismatch ('place" in result["place"]
        assert result["default"]  # JAX has put no handler in the place of ours
    assert (one["full"], two["full"]) == (
        "OSError: the disk is full",
        "UserError: the disk is full",
    )
    # JAX's service and Gloo's, neither at all addresses.
    assert len(one["listens"]) == 2
    assert all(each.endswith("0100007F") for each in one["listens"] + two["listens"])
    assert one["ran"] and "ran" not in two
    assert two["body"][0] >= one["body"][1] >= one["body"][0] + 0.3


@pytest.mark.parametrize(
    ("count", "dead", "what"),
    [
        (4, 2, "distributed.barrier('x') if me != 2 else time.sleep(99)"),
        (2, 0, "distributed.barrier('x') if me != 0 else time.sleep(99)"),
        (2, 0, "time.sleep(99)"),
        (2, 1, "time.sleep(99)"),
    ],
    ids=["waited-for", "first-waited-for", "first-while-busy", "other-while-busy"],
)
@pytest.mark.slow
def test_when_one_is_killed_the_others_end_within_the_stated_time(count, dead, what):
    with Several(count, script(MAIN.format(what=what))) as several:
        several.wait_until(lambda: all("ready" in several.said(n) for n in range(count)))
        several.send(dead)
        sent = several.seconds()
        ended = several.finish()
    assert ended.pop(dead).code == -signal.SIGKILL
    for each in ended:
        assert each.code in AGAIN, each.err
        assert each.seconds - sent < BOUND


@pytest.mark.slow
def test_one_that_is_stopped_without_a_word_is_noticed_by_its_silence():
    with Several(
        2, script(MAIN.format(what="distributed.barrier('x') if me else time.sleep(99)"))
    ) as several:
        several.wait_until(lambda: all("ready" in several.said(n) for n in range(2)))
        several.send(0, signal.SIGSTOP)
        sent = several.seconds()
        several.wait_until(lambda: several.processes[1].poll() is not None)
        assert several.seconds() - sent < BOUND
        assert several.processes[1].poll() == -signal.SIGABRT


@pytest.mark.slow
def test_those_that_end_by_the_same_error_do_so_with_its_exit_code():
    """Although JAX's service goes with the first process, and one is later than it."""
    ended = run(2, script("distributed.barrier('x')", "time.sleep(me)", "distributed.end(2)"))
    assert [each.code for each in ended] == [2, 2], [each.err for each in ended]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 2, "process": 2}, "process: 2 is not one of 0 .. 1"),
        ({"processes": 2}, "process: -1 is not one of 0 .. 1"),
        ({"processes": 2, "process": 1}, "coordinator: '' is not host:port"),
        ({"process": 1}, "processes: not given"),
        ({"processes": -1}, "processes: -1 is negative"),
        ({"processes": 2, "process": 1, "coordinator": "here"}, "'here' is not host:port"),
        ({"processes": 2, "process": 1, "coordinator": "here:x"}, "'here:x' is not host:port"),
    ],
)
def test_a_flag_that_is_missing_or_wrong_is_named(given, message):
    with pytest.raises(UserError, match=message):
        _ = distributed.initialize(**given)


def test_a_port_that_is_in_use_is_an_error_with_a_remedy():
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=r"cannot listen on port \d+ .*; give another"):
            _ = distributed.initialize(coordinator=address, processes=2, process=0)


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", f"from research.runtime import distributed\n{code}"],
        env=os.environ | ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[003-004,9]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def test_without_a_cluster_a_process_runs_alone():
    environments = [
        {},
        SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        # Inside an allocation, before srun.
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},
        # The address is given by flags, see launch/: asking the API server needs another package.
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"},
    ]
    done = python(
        f"import os\nbefore = dict(os.environ)\nfor variables in {environments}:\n"
        "    os.environ.update(variables)\n"
        "    print(distributed.initialize(), distributed.process_count())\n"
        "    for name in variables.keys() - before.keys():\n"
        "        del os.environ[name]\n"
    )
    assert (done.stdout, done.stderr) == ("1 1\n" * 4, "")


def test_half_a_cluster_is_an_error_that_names_the_flags():
    done = python("distributed.initialize()", **SLURM | {"SLURM_NTASKS": "many"})
    assert "UserError: cannot connect to the other processes (invalid literal" in done.stderr
    assert "give --coordinator=host:port, --processes and --process" in done.stderr


@pytest.mark.parametrize(
    ("environment", "own"),
    [
        ({}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, False),
    ],
)
def test_a_task_with_a_machine_or_a_gpu_of_its_own_uses_all_it_sees(environment, own, monkeypatch):
    for name in ("SLURM_STEP_TASKS_PER_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed._has_devices_of_its_own() == own


@pytest.mark.parametrize(("tasks", "devices"), [("2", "0"), ("1(x2)", "all")])
@pytest.mark.slow
def test_tasks_of_slurm_find_one_another(tasks, devices):
    code = (
        "import jax; from research.runtime import distributed; "
        "expected = distributed.initialize(); "
        "print(expected, distributed.process_count(), "
        "distributed.max_over_processes(distributed.process_index()), "
        "jax.config.read('jax_cuda_visible_devices')); distributed.close()"
    )
    variables = {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ
            | ENVIRONMENT
            | SLURM
            | variables
            | {"SLURM_PROCID": str(i), "SLURM_STEP_TASKS_PER_NODE": tasks},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    expected = f"2 2 1 {devices}\n"
    assert [each.communicate(timeout=60)[0] for each in begun] == [expected] * 2
    assert [each.returncode for each in begun] == [0, 0]


def test_the_page_of_launch_states_the_time_within_which_all_processes_end():
    page = " ".join((Path(__file__).parents[2] / "launch/README.md").read_text().split())
    assert f"within {distributed.HEARTBEAT + distributed.GRACE} seconds" in page
    assert f"after {distributed.HEARTBEAT} seconds without a sign of life" in page


def test_flags_of_the_helper_are_those_of_the_door():
    from research import main

    words = [word.partition("=")[0].removeprefix("--") for word in flags("host:1", 2, 0)]
    assert all(word in main.flags.FLAGS for word in words)


def test_one_process_that_waits_for_others_says_so(monkeypatch, capsys):
    """As in an allocation for two, under `srun --pty`."""

    def wait(*_, **__):
        time.sleep(0.1)
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setattr(distributed, "NOTICE", 0)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", wait)
    assert distributed.initialize() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "(SLURM_NTASKS=2), for at most 300 s; --processes=1 runs this one alone" in line
