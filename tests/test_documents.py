"""README.md and docs/: their links lead somewhere, and their commands are commands."""

import re
import shlex
from pathlib import Path

import pytest

from launch import commands

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
PAGES = [
    *(ROOT / name for name in ("README.md", "WORKSPACE.md", "benchmarks/README.md")),
    *(ROOT / "launch").glob("*.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / "results").glob("*.md"),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_names_a_file_and_a_heading_that_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_relative_to(ROOT) and file.exists(), link
        assert not anchor or anchor in anchors(file), link


def test_every_page_of_docs_is_linked_from_the_readme():
    linked = re.findall(r"\]\(docs/([^)#]+)\)|\]\(([\w]+\.md)\)", README)
    assert {a or b for a, b in linked} >= {page.name for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_has_flags_a_config_and_keys_that_exist(page):
    joined = page.read_text().replace("\\\n", " ")
    for command in re.findall(r"-m research\.main (--[^`\n]+)", joined):
        commands.check_flags(shlex.split(command, comments=True))


def test_ci_runs_the_tests_as_the_readme_does():
    assert len(COMMANDS) == 2
    assert COMMANDS[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_lines_for_accelerators_pin_the_version_that_is_installed():
    (pinned,) = re.findall(r"^jax==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"jax\[\w+\]==([\d.]+)", README)) == {pinned}
