"""The house keeps its floors: imports go down only, functions fit on a screen."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "research").rglob("*.py"))

FLOORS = (
    ("types",),
    (
        *("keys", "models", "data", "augment", "losses", "metrics", "scores", "optim", "costs"),
        *("distances", "stopping", "links", "processes", "files"),
    ),
    ("train", "probes", "parallel", "adversarial", "detect"),
    ("checkpoint", "record", "figures", "preemption", "gallery", "export", "profiling"),
    ("experiments", "tables", "ledger", "page"),
    ("main", "report", "predict", "viewer"),
)
METHODS = ("minimal", "faithful", "polish", "pgd", "generate")
# Edges within a floor: where one piece is made of others.
SIDEWAYS = {
    ("models.mlp", "models.activations"),
    ("models.cnn", "models.conv"),
    ("models.mtcnn", "models.conv"),
    ("data.standard", "data.idx"),
    ("data.standard", "data.cifar10"),
    ("data.standard", "data.mnist_tfds"),
    ("data.standard", "data.prepared"),
    ("data.standard", "data.source"),
    ("data.standard", "data.synthetic"),
    ("data.cifar10", "data.batches"),
    ("data.cifar10", "data.cifar10_tfds"),
    ("data.cifar10", "data.pictures"),
    ("data.cifar10", "data.prepared"),
    ("data.cifar10", "data.source"),
    ("data.cifar10", "data.store"),
    ("data.cifar10", "data.synthetic"),
    ("data.mnist_tfds", "data.idx"),
    ("data.cifar10_tfds", "data.batches"),
    ("data.cifar10_tfds", "data.source"),
    ("data.cifar10_tfds", "data.tfds_store"),
    ("data.prepared", "data.source"),
    ("data.prepared", "data.store"),
    ("data.prepared", "data.tfds_store"),
    ("data.tfds_store", "data.source"),
    ("data.store", "data.source"),
    ("data.stored", "data.source"),
    ("data.idx", "data.source"),
    ("data.batches", "data.source"),
    ("data.batches", "data.tar"),
    ("data.pictures", "data.source"),
    ("data.pictures", "data.store"),
    ("data.pictures", "data.tar"),
    ("data.tar", "data.source"),
    ("data.photos", "data.source"),
    ("data.annotations", "data.photos"),
    ("data.annotations", "data.source"),
    *(("data.ingest", f"data.{name}") for name in ("crops", "photos", "source", "splits")),
    *(("data.masks", f"data.{name}") for name in ("annotations", "crops", "ingest", "source")),
    *(("data.masks", f"data.{name}") for name in ("splits", "store", "stored")),
    ("train", "probes"),
    ("train", "parallel"),
    ("detect", "parallel"),
    ("processes", "links"),
    *((f"adversarial.{name}", "adversarial.cells") for name in METHODS),
    *((f"adversarial.{name}", "adversarial.judge") for name in (*METHODS, "cells")),
    ("adversarial.generate", "adversarial.minimal"),
    ("adversarial.generate", "adversarial.polish"),
    ("adversarial.generate", "parallel"),
    ("adversarial.training", "adversarial.judge"),
    ("adversarial.training", "adversarial.pgd"),
    ("adversarial.training", "train"),
    ("files", "processes"),
    *((f"data.{name}", "files") for name in ("shared", "stored")),
    *(("data.shared", name) for name in ("processes", "data.source", "data.stored")),
    ("export", "checkpoint"),
    ("figures.depth", "figures.style"),
    ("figures.curves", "figures.style"),
    ("figures.classify", "figures.style"),
    ("figures.masks", "figures.style"),
    ("figures.kept", "figures.style"),
    ("figures.noise", "figures.style"),
    *(("experiments.nets", f"experiments.{name}") for name in ("classify", "depth", "training")),
    ("experiments.samples", "experiments.nets"),
    ("experiments.album", "experiments.samples"),
    *(("experiments.attacked", f"experiments.{name}") for name in ("album", "nets", "samples")),
    ("experiments.attacked", "experiments.training"),
    *(("experiments.noise", f"experiments.{name}") for name in ("album", "attacked", "nets")),
    *(("experiments.noise", f"experiments.{name}") for name in ("samples", "training")),
    ("experiments.depth", "experiments.training"),
    *(("experiments.masks", f"experiments.{name}") for name in ("card", "classify", "faces")),
    *(("experiments.masks", f"experiments.{name}") for name in ("training", "unmasked")),
    ("experiments.faces", "experiments.training"),
    ("experiments.unmasked", "experiments.training"),
    ("experiments.classify", "experiments.training"),
    *(("experiments.wearers", f"experiments.{name}") for name in ("classify", "photographs")),
    ("experiments.wearers", "experiments.training"),
    *(("ledger.evidence", f"tables.{name}") for name in ("cells", "classify", "depth", "masks")),
    ("ledger.evidence", "tables.noise"),
    *(("ledger.keep", f"tables.{name}") for name in ("classify", "depth", "masks", "noise")),
    ("ledger.keep", "ledger.evidence"),
    *(("ledger.book", f"ledger.{name}") for name in ("claims", "evidence", "judge")),
    ("ledger.book", "tables.depth"),
    *(("page.render", f"page.{name}") for name in ("charts", "collect", "content", "drawings")),
    ("page.drawings", "page.charts"),
    ("page.render", "ledger.book"),
    ("page.render", "tables.depth"),
    *(("ledger.text", f"ledger.{name}") for name in ("book", "claims")),
    *(("ledger.runs", f"ledger.{name}") for name in ("claims", "evidence", "keep", "text")),
}


def name_of(path):
    return ".".join(path.relative_to(ROOT / "research").with_suffix("").parts)


def floor(module):
    (found,) = [i for i, names in enumerate(FLOORS) if module.split(".")[0] in names]
    return found


def imports(path):
    """Modules of `research` that a file imports, as "data.idx"."""
    modules = {name_of(p) for p in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("research") for name in node.names), path.name
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path.name} has a relative import")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("research"):
            package = (node.module or "").removeprefix("research").lstrip(".")
            for alias in node.names:
                full = f"{package}.{alias.name}".lstrip(".")
                yield full if full in modules else package


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_only(path):
    module = name_of(path)
    if path.name == "__init__.py":
        assert list(imports(path)) == []
        return
    for imported in imports(path):
        down = floor(imported) < floor(module)
        assert down or (module, imported) in SIDEWAYS, f"{module} imports {imported}"


def test_every_sideways_edge_that_is_allowed_is_used():
    used = {(name_of(p), imported) for p in FILES for imported in imports(p)}
    assert used >= SIDEWAYS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_function_is_longer_than_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} in {path.name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_key_of_a_config_has_a_hidden_default(path):
    assert "config.get(" not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_has_its_tests(path):
    if path.name == "__init__.py" or path.stem == "types":
        return
    relative = path.relative_to(ROOT / "research")
    tests = ROOT / "tests" / relative.parent / f"test_{relative.name}"
    shared = {"data/mnist_tfds.py": "data/test_standard.py"}
    assert tests.exists() or (ROOT / "tests" / shared[str(relative)]).exists()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_public_name_is_explained(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} in {path.name}"
