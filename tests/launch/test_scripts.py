"""The scripts of launch/, run with stand-ins for what they call."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch import commands
from launch.commands import LAUNCH
from launch.standins import StandIns

SCRIPTS = sorted(LAUNCH.glob("*.sh"))
NET = "--config=configs/mlp.py:tanh-5"
# Waits until it is asked to end, and then ends as a run does that has saved.
ASKED = 'echo asked >>"$CALLS/../asked"'
WAITING = f"trap '{ASKED}; kill $!; sleep 0.3; exit 143' TERM; sleep 300 & wait $!\n"
TPU = {
    "PROJECT": "p",
    "ZONE": "z",
    "NAME": "n",
    "ACCELERATOR_TYPE": "v5litepod-8",
    "RUNTIME_VERSION": "r",
    "WORKDIR": "gs://b/my run",
}


def test_the_scripts_pass_shellcheck():
    assert {path.name for path in SCRIPTS} >= {"local.sh", "slurm.sh", "tpu-vm.sh", "render.sh"}
    run = yaml.safe_load((LAUNCH / "sky.yaml").read_text())["run"]
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for each, text in (*((path, None) for path in SCRIPTS), ("-", f"#!/bin/bash\n{run}")):
        done = subprocess.run([shellcheck, each], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_a_script_and_it_can_be_started(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert path.stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("slurm.sh", "WORKDIR"),
        *(("tpu-vm.sh", name) for name in TPU),
        *(("jobset-gpu.yaml", name) for name in ("NAME", "IMAGE", "WORKDIR", "HOSTS")),
    ],
)
def test_a_variable_that_is_not_set_is_named_in_one_line_and_nothing_is_called(
    tmp_path, script, name
):
    programs = StandIns(tmp_path, srun="", gcloud="", git="")
    given = {each: "x" for each in ("CONFIG", "IMAGE", "HOSTS", "ACCELERATOR", "GPUS_PER_HOST")}
    given = {key: value for key, value in {**given, **TPU}.items() if key != name}
    words = [LAUNCH / script] if script.endswith(".sh") else [LAUNCH / "render.sh", LAUNCH / script]
    done = programs.run(*words, **given)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert re.search(rf"\b{name}\b.* is not set", line)
    assert done.stdout == "" and programs.calls() == []


def test_here_the_twelve_nets_run_in_one_process_that_takes_the_place_of_the_script(tmp_path):
    programs = StandIns(tmp_path, python="exit 143\n")
    assert programs.run(LAUNCH / "local.sh", "--config.epochs=2").returncode == 143
    ((*call,),) = programs.calls()
    assert call[3:] == ["--config=configs/mlp.py:all", "--config.seeds=5", "--config.epochs=2"]
    commands.check(call)


def test_here_several_processes_get_one_address_and_a_number_each(tmp_path):
    programs = StandIns(tmp_path, python="")
    done = programs.run(LAUNCH / "local.sh", NET, PROCESSES="3")
    assert (done.returncode, done.stderr) == (0, "")
    calls = programs.calls("python")
    assert [call[3] for call in calls] == [NET] * 3
    assert len({call[4] for call in calls}) == 1
    assert sorted(call[5:] for call in calls) == [
        ["--processes=3", f"--process={i}"] for i in range(3)
    ]
    for call in calls:
        commands.check(call)


def test_here_a_process_that_dies_is_named_and_the_others_are_ended(tmp_path):
    body = f'[[ "$*" != *--process=1 ]] || {{ sleep 0.3; exit 75; }}\n{WAITING}'
    done = StandIns(tmp_path, python=body).run(LAUNCH / "local.sh", NET, PROCESSES="3")
    assert done.returncode == 75
    (line,) = done.stderr.splitlines()
    assert line == "process 1 of 3 (from 0) has ended with code 75; ending the others"
    assert (tmp_path / "asked").read_text() == "asked\n" * 2


def test_here_a_process_that_does_not_end_when_it_is_asked_to_is_killed(tmp_path):
    body = '[[ "$*" != *--process=0 ]] || exit 1\ntrap "" TERM; exec sleep 300\n'
    programs = StandIns(tmp_path, python=body)
    done = programs.run(LAUNCH / "local.sh", NET, PROCESSES="2", PATIENCE="0")
    assert done.returncode == 1


def test_here_a_signal_is_handed_on_once(tmp_path):
    programs = StandIns(tmp_path, python=WAITING)
    script = subprocess.Popen(
        [LAUNCH / "local.sh", NET], env=programs.environment(PROCESSES="2"), stderr=subprocess.PIPE
    )
    while len(programs.calls("python")) < 2:
        time.sleep(0.05)
    time.sleep(0.2)  # until they wait
    script.send_signal(signal.SIGTERM)
    script.send_signal(signal.SIGTERM)
    _, said = script.communicate(timeout=20)
    assert (script.returncode, said) == (143, b"")
    assert (tmp_path / "asked").read_text() == "asked\n" * 2


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
        (75, 0, 1),
        (130, 3, 1),
        (134, 0, 1),
        (137, 0, 1),
        (143, 0, 1),
        (143, 50, 0),
    ],
)
def test_slurm_runs_a_job_again_that_has_saved_or_lost_a_process(
    tmp_path, code, restarts, requeued
):
    programs = StandIns(tmp_path, srun=f"exit {code}\n", scontrol="")
    variables = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts), "WORKDIR": "/s/a b"}
    done = programs.run(LAUNCH / "slurm.sh", NET, **variables)
    assert done.returncode == code
    (call,) = programs.calls("srun")
    assert call[-2:] == ["--workdir=/s/a b", NET]
    commands.check(call)
    assert programs.calls("scontrol") == [["scontrol", "requeue", "7"]] * requeued


def test_slurm_signals_the_tasks_and_waits_for_what_they_save(tmp_path):
    options = re.findall(r"^#SBATCH (\S+)$", (LAUNCH / "slurm.sh").read_text(), re.MULTILINE)
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(options)
    programs = StandIns(tmp_path, srun="sleep 0.5; exit 143\n", scontrol="")
    variables = programs.environment(SLURM_JOB_ID="7", WORKDIR="w")
    script = subprocess.Popen([LAUNCH / "slurm.sh", NET], env=variables, stderr=subprocess.DEVNULL)
    while not programs.calls("srun"):
        time.sleep(0.05)
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=20) == 143
    assert programs.calls("scontrol")


# A slice that is granted at the second look; `ssh` takes its codes from a file, one a line.
GCLOUD = """
state=$CALLS/../state codes=$CALLS/../codes
case $4 in
  describe) [[ -e $state ]] || exit 1
    cat "$state"; if [[ $(<"$state") == PROVISIONING ]]; then echo ACTIVE >"$state"; fi ;;
  create) echo PROVISIONING >"$state" ;;
  delete) rm "$state" ;;
  ssh) code=$(head -n 1 "$codes"); sed -i 1d "$codes"
    [[ $code != 255 ]] || echo SUSPENDED >"$state"
    exit "$code" ;;
esac
"""


def on_a_slice(tmp_path, *codes):
    """Run tpu-vm.sh with a run that ends with `codes`, one after the other; (result, calls)."""
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    programs = StandIns(tmp_path, gcloud=GCLOUD, git="")
    done = programs.run(LAUNCH / "tpu-vm.sh", NET, PAUSE="0", **TPU)
    return done, programs.calls("gcloud")


def verbs(calls):
    return [call[4] for call in calls if call[4] != "describe"]


def test_a_slice_is_asked_for_used_and_deleted(tmp_path):
    done, calls = on_a_slice(tmp_path, 0)
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["create", "scp", "ssh", "delete"]
    assert all({"--project=p", "--zone=z"} <= set(call) for call in calls)
    create, ssh = (next(call for call in calls if call[4] == verb) for verb in ("create", "ssh"))
    assert {"--spot", "--node-id=n", "--accelerator-type=v5litepod-8"} <= set(create)
    assert "--worker=all" in ssh
    (remote,) = (each.partition("=")[2] for each in ssh if each.startswith("--command="))
    assert subprocess.run(["bash", "-n"], input=remote, text=True).returncode == 0
    *_, last = remote.splitlines()
    words = shlex.split(last)
    commands.check(words)
    assert words[-2:] == ["--workdir=gs://b/my run", NET]


def test_a_slice_that_is_taken_away_is_asked_for_again(tmp_path):
    done, calls = on_a_slice(tmp_path, 255, 0)
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["create", "scp", "ssh", "delete"] * 2


@pytest.mark.parametrize("code", [75, 134, 143])
def test_a_run_that_has_saved_or_lost_a_process_goes_on_on_the_same_slice(tmp_path, code):
    done, calls = on_a_slice(tmp_path, code, 0)
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["create", "scp", "ssh", "scp", "ssh", "delete"]


def test_a_mistake_is_not_tried_again_and_the_slice_is_deleted(tmp_path):
    done, calls = on_a_slice(tmp_path, 2, 0)
    assert done.returncode == 2
    assert verbs(calls) == ["create", "scp", "ssh", "delete"]
