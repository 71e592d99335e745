"""The rules of the code that no linter has: where tests lie, what has a docstring."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "research").rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT / "research").with_suffix("").parts)


def test_rooms_import_only_the_rooms_below_them():
    """The order is in pyproject.toml, `tool.importlinter`."""
    lint = shutil.which("lint-imports", path=Path(sys.executable).parent)
    assert lint is not None
    found = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_key_of_a_config_has_a_hidden_default(path):
    assert "config.get(" not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_has_its_tests(path):
    if path.name == "__init__.py" or path.stem == "structs":
        return
    relative = path.relative_to(ROOT / "research")
    tests = ROOT / "tests" / relative.parent / f"test_{relative.name}"
    assert tests.exists()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_public_name_is_explained(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} in {path.name}"
