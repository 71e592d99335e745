"""What README.md tells a newcomer to type is what is tested."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for line in README.splitlines() if line.startswith("python3 -m venv")]


def test_there_are_two_commands_and_ci_runs_the_second_to_the_letter():
    assert len(COMMANDS) == 2
    assert COMMANDS[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_commands_install_files_that_exist():
    named = re.findall(r"-r (\S+)", " ".join(COMMANDS))
    assert set(named) == {"requirements.txt", "requirements-test.txt"}
    assert all((ROOT / name).exists() for name in named)


def test_the_lines_for_accelerators_pin_the_version_that_is_installed():
    (pinned,) = re.findall(r"^jax==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"jax\[\w+\]==([\d.]+)", README)) == {pinned}


def test_every_picture_and_page_that_is_linked_exists():
    linked = re.findall(r"\]\(([^)]+)\)", README)
    assert linked and all((ROOT / target).exists() for target in linked)
