"""Several processes in earnest, on the loopback; each test starts them once."""

import json
import os
import signal
import subprocess
import sys

import pytest
from several import ENVIRONMENT, Several, flags, run

from research.runtime import distributed, rendezvous
from research.structs import UserError

START = """
import json, os, signal, sys, time
from research.runtime import rendezvous as links
from research.runtime import preemption
from research.runtime import distributed as processes
from research.structs import UserError

given = dict(word[2:].split("=") for word in sys.argv[1:])
processes.initialize(
    coordinator=given["coordinator"],
    processes=int(given["processes"]),
    process=int(given["process"]),
    advice="type it again",
)
me = processes.process_index()
"""
# XLA's collectives, as fast as they go.
SUMS = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P

sharding = NamedSharding(jax.make_mesh((processes.process_count(),), ("data",)), P("data"))
array = jax.make_array_from_process_local_data(sharding, np.zeros((1, 4), np.float32))
add = jax.jit(lambda array: array + array.sum(), out_shardings=sharding)
array = add(array).block_until_ready()
processes.barrier("compiled")
print("ready", file=sys.stderr, flush=True)
"""


def script(*parts):
    return ("-c", START + "\n".join(parts))


@pytest.fixture(autouse=True)
def untouched():
    before = dict(distributed._state)
    yield
    assert distributed._state == before


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
    distributed.end("a line", 2)
    distributed.close()
    assert ran == [1]


TOGETHER = """
said = {"first": processes.is_first()}
said["told"] = processes.broadcast_from_first(lambda: [me, "first"])
said["highest"] = [processes.max_over_processes(me - 5), processes.max_over_processes(-me)]

def refuse():
    raise UserError("there is no such file")

def full():
    raise OSError("the disk is full")

def nested():
    return processes.broadcast_from_first(lambda: processes.max_over_processes(7))

def attempt(function):
    try:
        return processes.broadcast_from_first(function)
    except (UserError, OSError) as error:
        return f"{type(error).__name__}: {error}"

said["refused"], said["full"], said["nested"] = map(attempt, (refuse, full, nested))
with processes.first_process_first():
    began = time.time()
    time.sleep(0.3 * processes.is_first())
    processes.barrier("with nobody else")
    ended = time.time()
said["body"] = [began, ended]
try:
    with processes.first_process_first():
        said["ran"] = True
        raise UserError("nothing to download")
except UserError as error:
    said["alone"] = str(error)
try:
    processes.barrier(f"place {max(me, 1)}")
    processes.barrier("another" if me == 1 else "place")
except RuntimeError as error:
    said["place"] = str(error)
if me == 0:  # the answer that the other one waits for
    processes._tell({"result": 0})
handler = signal.getsignal(signal.SIGTERM)
print("from the library", file=open("/dev/fd/1", "w"))
print(json.dumps(said | {"default": handler == signal.SIG_DFL}))
sys.stdout.flush()
processes.close()
assert processes.is_single()
"""


def test_what_the_first_decides_or_does_reaches_all():
    ended = run(2, script(TOGETHER))
    assert [each.code for each in ended] == [0, 0], [each.err for each in ended]
    one, two = (json.loads(each.out) for each in ended)  # what libraries print is not among it
    assert "from the library" in ended[1].err
    assert one["first"] and not two["first"]
    for said in (one, two):
        assert said["told"] == [0, "first"] and said["highest"] == [-4, 0]
        assert said["refused"] == "UserError: there is no such file"
        assert said["nested"] == 7
        assert said["alone"] == "nothing to download"
        assert said["default"]  # JAX has put no handler in the place of ours
    assert (one["full"], two["full"]) == (
        "OSError: the disk is full",
        "UserError: the disk is full",
    )
    assert one["ran"] and "ran" not in two
    assert two["body"][0] >= one["body"][1] >= one["body"][0] + 0.3
    assert one["place"] == "process 1 is at 'another', the first one at 'place'"


@pytest.mark.parametrize(
    ("count", "dead", "what"),
    [
        (2, 1, "while True: array = add(array).block_until_ready()"),
        (4, 0, "while True: array = add(array).block_until_ready()"),
        (4, 2, "processes.barrier('x') if me != 2 else time.sleep(99)"),
        (2, 0, "processes.barrier('x') if me != 0 else time.sleep(99)"),
        (2, 0, "time.sleep(99)"),
    ],
    ids=["in-a-sum", "coordinator-in-a-sum", "waited-for", "coordinator-waited-for", "asleep"],
)
@pytest.mark.slow
def test_when_one_is_killed_the_others_say_so_and_end_within_seconds(count, dead, what):
    with Several(count, script(SUMS, "time.sleep(0.5)", what)) as several:
        several.wait_until(lambda: all("ready" in several.said(n) for n in range(count)))
        several.send(dead)
        sent = several.seconds()
        ended = several.finish()
    assert ended.pop(dead).code == -signal.SIGKILL
    line = f"process {dead} of {count} (from 0) has died or cannot be reached; type it again"
    for each in ended:
        assert each.code == rendezvous.DIED == 75, each.err
        assert line in each.err
        assert each.seconds - sent < 10


FAIL = """
if me == {who}:
    processes.end("error: only here", 2)
    raise AssertionError("ended")
processes.barrier("never")
"""


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.slow
def test_an_error_of_one_ends_the_others_with_its_words_and_exit_code(who):
    ended = run(2, script("links.GRACE = 1.0", FAIL.format(who=who)))
    assert [each.code for each in ended] == [2, 2]
    assert ended[who].err.splitlines()[-1] == "error: only here"
    assert ended[1 - who].err.splitlines()[-1] == (
        f"process {who} of 2 (from 0) has ended: error: only here"
    )


@pytest.mark.slow
def test_an_error_of_all_is_printed_once():
    ended = run(2, script("time.sleep(me)", "processes.end('error: the same', 2)"))
    assert [each.code for each in ended] == [2, 2]
    assert ended[0].err == "error: the same\n" and ended[1].err == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"processes": 2, "process": 2}, "process: 2 is not one of 0 .. 1"),
        ({"processes": 2}, "process: -1 is not one of 0 .. 1"),
        ({"processes": 2, "process": 1}, "coordinator: not given"),
        ({"process": 1}, "processes: not given"),
        ({"processes": -1}, "processes: -1 is negative"),
        ({"processes": 2, "process": 1, "coordinator": "here"}, "'here' is not host:port"),
    ],
)
def test_a_flag_that_is_missing_or_wrong_is_named(given, said):
    with pytest.raises(UserError, match=said):
        distributed.initialize(**given)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[003-004,9]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.0.0.7,10.1.0.7:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
ALONE = ("", 1, 0, None)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ALONE),
        (SLURM, ("node003:61447", 4, 3, [1])),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, ("node003:61447", 4, 3, None)),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, ("node003:61447", 4, 3, [1])),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0"}, ("node003:61447", 4, 3, None)),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1"}, ("node003:61447", 4, 3, [1])),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ALONE),
        # Inside an allocation, before srun.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, ALONE),
        (SLURM | {"SLURM_NTASKS": "many"}, ALONE),
        (OPEN_MPI, ("10.0.0.7:61442", 2, 1, [0])),
        # Its address is given by flags, see launch/: asking its server needs another package.
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, ALONE),
    ],
)
def test_a_cluster_is_found_by_its_environment(environment, found, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "CUDA_VISIBLE", "KUBERNETES_", "JAX_COORD")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed._detect()[1:3] == found[1:3]
    if found[1] > 1:
        assert distributed._detect() == found


@pytest.mark.slow
def test_tasks_of_slurm_find_one_another():
    code = (
        "from research.runtime import distributed; distributed.initialize(); "
        "print(distributed.process_count(), "
        "distributed.max_over_processes(distributed.process_index())); distributed.close()"
    )
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ
            | ENVIRONMENT
            | SLURM
            | {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "SLURM_PROCID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    assert [each.communicate(timeout=60)[0] for each in begun] == ["2 1\n", "2 1\n"]
    assert [each.returncode for each in begun] == [0, 0]


def test_flags_of_the_helper_are_those_of_the_door():
    from research import main

    words = [word.partition("=")[0].removeprefix("--") for word in flags("host:1", 2, 0)]
    assert all(word in main.flags.FLAGS for word in words)
