"""The container file: it names what exists, installs what is pinned, and hands signals on."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch.commands import LAUNCH, ROOT
from launch.standins import StandIns

# Lines that are continued count as one.
LINES = (LAUNCH / "Dockerfile").read_text().replace("\\\n", "").splitlines()


def of(instruction):
    return [line.split(None, 1)[1] for line in LINES if line.startswith(f"{instruction} ")]


def pins(path):
    return dict(re.findall(r"^([\w-]+)==(\S+)", path.read_text(), re.MULTILINE))


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, LAUNCH / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_exists_and_is_enough_to_run():
    sources = [source for line in of("COPY") for source in line.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert {"configs", "research", "requirements.txt"} <= set(sources)


@pytest.mark.parametrize(
    ("accelerator", "jax"),
    [("cpu", "jax"), *((each, f"jax[{each}]") for each in ("cuda12", "cuda13", "tpu"))],
)
def test_a_variant_is_jax_with_one_of_its_extras_at_the_pinned_version(tmp_path, accelerator, jax):
    (install,) = (line for line in of("RUN") if "pip" in line)
    programs = StandIns(tmp_path, pip="")
    done = programs.run("sh", "-c", install, ACCELERATOR=accelerator)
    assert done.returncode == 0, done.stderr
    pinned, extra = programs.calls("pip")
    assert pinned[3:] == ["--no-deps", "-r", "requirements.txt", "-r", "requirements-stores.txt"]
    assert extra[3:] == ["-c", "requirements.txt", jax]
    assert "==" not in install and "jax" in pins(ROOT / "requirements.txt")


def test_a_variant_that_is_not_there_ends_the_build(tmp_path):
    (install,) = (line for line in of("RUN") if "pip" in line)
    programs = StandIns(tmp_path, pip="")
    for wrong in ("", "gpu"):
        assert programs.run("sh", "-c", install, ACCELERATOR=wrong).returncode == 2
    assert programs.calls() == []


def test_every_extra_of_jax_that_is_named_in_launch_exists():
    texts = [(LAUNCH / name).read_text() for name in ("sky.yaml", "tpu-vm.sh")]
    named = set(re.findall(r"jax\[(\w+)\]", "".join(texts))) | {"cuda12", "cuda13", "tpu"}
    assert named <= set(importlib.metadata.metadata("jax").get_all("Provides-Extra"))


def test_the_packages_for_object_stores_are_pinned_once_and_beside_the_others():
    stores, others = pins(LAUNCH / "requirements-stores.txt"), pins(ROOT / "requirements.txt")
    assert {"gcsfs", "s3fs"} <= set(stores)
    assert not set(stores) & set(others)


def test_python_is_started_without_a_shell_and_without_root():
    (entry,) = of("ENTRYPOINT")
    assert yaml.safe_load(entry)[0] == "python"
    (user,) = of("USER")
    assert int(user) != 0
