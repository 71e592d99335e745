"""Every command line of launch/ is one that the program understands."""

import re
import shlex

import pytest
import yaml

from launch import commands, standins
from launch.commands import LAUNCH

PAGE = commands.of_page(LAUNCH / "README.md")
CONFIG, WORKDIR = "configs/mlp.py:all", "gs://BUCKET/all"
# Whatever comes after these goes to research.main.
RUNNERS = r"launch/(local|slurm|tpu-vm)\.sh|docker run.* small-net-laboratory"


def named(name):
    """The words of the page's command that names a file of launch/."""
    found = [words for words in PAGE if f"launch/{name}" in words]
    assert found, f"README.md does not name launch/{name}"
    return found


def test_a_flag_a_key_and_a_variant_that_are_not_there_are_noticed():
    commands.check_flags(["--config=configs/mlp.py:all", "--config.data.dir=DIR", "--dry_run"])
    for wrong in (
        ["--config=configs/mlp.py:all", "--wrokdir=x"],
        ["--config=configs/mlp.py:all", "--config.sedes=5"],
        ["--config=configs/mlp.py:al"],
        ["--config=configs/mpl.py:all"],
        ["--config=configs/mlp.py:all", "--workdir"],
        ["--config=configs/mlp.py:all", "--processes=two"],
        ["--workdir=x"],
    ):
        with pytest.raises((AssertionError, KeyError, ValueError, OSError)):
            commands.check_flags(wrong)


@pytest.mark.parametrize("words", PAGE, ids=" ".join)
def test_what_the_page_says_to_type_is_understood(words):
    text = " ".join(words)
    if "-m" in words:
        commands.check(words)
    elif found := re.search(RUNNERS, text):
        last = shlex.split(text[: found.end()])[-1]
        rest = words[words.index(last) + 1 :]
        if rest or "local" not in last:
            commands.check_flags(rest)
    elif "CONFIG" in commands.variables(words):
        commands.check_flags([f"--config={commands.variables(words)['CONFIG']}"])
    else:
        assert words[:2] == ["docker", "build"]


def test_the_page_names_every_launcher():
    for path in LAUNCH.glob("*.[sy]*"):
        named(path.name)


def test_the_examples_inside_the_scripts_are_those_of_the_page():
    comment = re.findall(r"^#   (.*)$", (LAUNCH / "slurm.sh").read_text(), re.MULTILINE)
    words = shlex.split("\n".join(comment))
    assert [word for word in words if word.startswith(("--", "launch"))] == [
        word for word in named("slurm.sh")[0] if word.startswith(("--", "launch"))
    ]
    (comment,) = re.findall(r"^#   (.*)$", (LAUNCH / "sky.yaml").read_text(), re.MULTILINE)
    assert shlex.split(comment) == named("sky.yaml")[0]


@pytest.mark.parametrize(("name", "flags"), [("jobset-tpu.yaml", 2), ("jobset-gpu.yaml", 5)])
def test_a_container_of_a_job_set_is_told_what_the_program_understands(tmp_path, name, flags):
    (words,) = named(name)
    done = standins.StandIns(tmp_path).run(
        LAUNCH / "render.sh", LAUNCH / name, **commands.variables(words)
    )
    assert done.returncode == 0, done.stderr
    (workers,) = yaml.safe_load(done.stdout)["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert len(container["args"]) == flags
    assert "command" not in container  # the image's, which receives the signals itself
    # Kubernetes replaces $(NAME) in arguments itself.
    arguments = [each.replace("$(JOB_COMPLETION_INDEX)", "1") for each in container["args"]]
    commands.check_flags(arguments)
    if name == "jobset-gpu.yaml":
        assert arguments[2:] == [
            f"--coordinator=all-{workers['name']}-0-0.all:8476",
            f"--processes={job['completions']}",
            "--process=1",
        ]


def test_the_image_runs_the_program():
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)
    commands.check([*yaml.safe_load(entry), f"--config={CONFIG}"])


def test_sky_runs_the_program_with_the_first_node_as_coordinator(tmp_path):
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    python = tmp_path / ".venv" / "bin"
    python.mkdir(parents=True)
    programs = standins.StandIns(tmp_path, python="exit 75\n")
    (python / "python").symlink_to(programs.folder / "python")
    given = {name: commands.variables(named("sky.yaml")[0])[name] for name in task["envs"]}
    nodes = {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
    }
    done = programs.run("bash", "-c", task["run"], cwd=tmp_path, **given, **nodes)
    assert done.returncode == 75, done.stderr
    ((*call,),) = programs.calls()
    commands.check(call)
    assert call[-3:] == ["--coordinator=10.0.0.1:8476", "--processes=2", "--process=1"]
    assert call[3:5] == [f"--config={CONFIG}", f"--workdir={WORKDIR}"]
