"""The rules of the code that no linter has: where tests lie, what has a docstring."""

import ast
import contextlib
import functools
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import cnn, masks, mlp, noise, spectrum
from configs import map as maps

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "WORKSPACE.md").read_text()
FILES = sorted((ROOT / "research").rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT / "research").with_suffix("").parts)


# The studies and the modules of research/ whose functions may read the keys of their configs.
STUDIES = {
    "depth": "experiments.depth",
    "classifiers": "experiments.classifiers",
    "map": "experiments.map",
    "noise": "experiments.noise.study",
    "masks": "experiments.masks.study",
    "spectrum": "experiments.spectrum",
}
CONFIGS = [
    (file, variant)
    for file, variants in (
        (mlp, ("all",)),
        (spectrum, ("all",)),
        (cnn, cnn.VARIANTS),
        (maps, maps.VARIANTS),
        (noise, noise.VARIANTS),
        (masks, masks.VARIANTS),
    )
    for variant in variants
]


def path_of(node, names):
    """("data", "dir") of config.data.dir or config["data"]["dir"]; None of what is no config.

    names: {name: path} of the parts of configs that have a name of their own.
    """
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        key = node.attr
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        key = node.slice.value
    else:
        return None
    above = path_of(node.value, names)
    return None if above is None else (*above, key)


@functools.cache
def keys_read(path):
    """The paths of all keys of a config that a module reads."""
    tree, read = ast.parse(path.read_text()), set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        names = {"config": ()}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                part = path_of(node.value, names)
                if part is not None:
                    names[node.targets[0].id] = part
        loops = [n for n in ast.walk(function) if isinstance(n, ast.For | ast.comprehension)]
        for node in ast.walk(function):
            part = path_of(node, names)
            if part:
                read.add(part)
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name):
                above = path_of(node.value, names)
                if above is not None:
                    read |= {(*above, key) for key in values(node.slice.id, loops, path)}
    return read


def values(name, loops, path):
    """The constants that a loop variable takes: `for key in ("steps", "search")`, `in LAYOUTS`."""
    taken = set()
    for loop in loops:
        module = vars(importlib.import_module(f"research.{name_of(path)}"))
        with contextlib.suppress(NameError, AttributeError, TypeError):
            for value in eval(compile(ast.Expression(loop.iter), str(path), "eval"), dict(module)):
                targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
                words = value if isinstance(loop.target, ast.Tuple) else [value]
                taken |= {w for t, w in zip(targets, words, strict=True) if t.id == name}
    return taken


@functools.cache
def imported_by(name):
    """A module of research/ and all modules of research/ that it imports, directly or not."""
    reached, todo = set(), [name]
    while todo:
        path = ROOT / "research" / f"{todo.pop().replace('.', '/')}.py"
        if path in reached or not path.exists():
            continue
        reached.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("research"):
                room = node.module.removeprefix("research").removeprefix(".")
                todo += [room, *(f"{room}.{each.name}".lstrip(".") for each in node.names)]
    return reached


def leaves(config):
    """The paths of the keys of a config."""
    for key, value in config.items():
        parts = leaves(value) if isinstance(value, ConfigDict) else [()]
        yield from ((key, *rest) for rest in parts)


def test_rooms_import_only_the_rooms_below_them():
    """The order is in pyproject.toml, `tool.importlinter`."""
    lint = shutil.which("lint-imports", path=Path(sys.executable).parent)
    assert lint is not None
    found = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_map_has_the_rooms_in_the_order_of_the_rule():
    rule = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [each["layers"] for each in rule["contracts"] if each["type"] == "layers"]
    rows = re.findall(r"^\| (`.*?) \|", MAP, re.MULTILINE)
    assert [re.findall(r"`(\w+)`", row) for row in rows] == [each.split(" | ") for each in layers]


def test_every_file_that_the_map_names_exists():
    names = set(re.findall(r"`([\w./]+\.(?:py|toml|md))`", MAP))
    code = [str(path.relative_to(ROOT)) for path in (ROOT / "research").rglob("*.*")]
    there = [name for name in names if any(f"/{path}".endswith(f"/{name}") for path in code)]
    missing = [name for name in names - set(there) if not (ROOT / name).exists()]
    assert len(names) > 40 and not missing
    assert len(MAP.splitlines()) <= 120


def test_every_function_that_the_map_names_exists():
    places = re.findall(r"`([\w/]+\.py):(\w+)`", MAP)
    for name, function in places:
        defined = f"\ndef {function}("
        assert any(defined in path.read_text() for path in FILES if path.match(name)), function
    assert len(places) > 10


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_key_of_a_config_has_a_hidden_default(path):
    """No `config.get(key, default)`, `getattr(config, key, default)`, `"key" in config`."""
    for node in ast.walk(ast.parse(path.read_text())):
        of = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value if node.func.attr == "get" and len(node.args) > 1 else None
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            of = node.args[0] if node.func.id == "getattr" and len(node.args) > 2 else None
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
            of = node.comparators[0] if isinstance(node.ops[0], ast.In | ast.NotIn) else None
        assert path_of(of, {"config": ()}) is None, f"{path}:{node.lineno}"


@pytest.mark.parametrize(("file", "variant"), CONFIGS)
def test_every_key_of_a_config_is_read_by_its_study(file, variant):
    config = file.get_config(variant)
    modules = imported_by(STUDIES[config.experiment]) | imported_by("main")
    read = set().union(*(keys_read(path) for path in modules))
    named = {("name",)}  # the default work directory is, by main.default_workdir
    assert set(leaves(config)) - read - named == set()


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


def test_no_message_advises_to_delete_anything():
    """What a user would lose may be what can still be used."""
    advice, words = [], re.compile(r"\b(delete|remove|rm)\b")
    for path in (path for path in FILES if words.search(path.read_text())):
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        advice += [
            f"{name_of(path)}, line {node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if id(node) not in docstrings and words.search(node.value)
        ]
    assert advice == []
