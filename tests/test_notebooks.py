"""The notebooks define nothing, hold no outputs, and run to their end on committed and own runs."""

import ast
import json
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest
import toy_attack as toy

from configs import masks as masks_config
from configs import mlp
from research.adversarial import generate
from research.experiments import depth, trainer
from research.experiments.masks import study
from research.experiments.noise import nets
from research.experiments.noise import study as attack
from research.ledger import documents
from research.page import viewer

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
RUNS = {
    "cifar": "results/noise-cifar10",
    "exercise_1": "results/depth",
    "exercise_2": "results/noise-mnist",
    "exercise_3": "results/masks-vgg",
}


def cells(path, kind):
    found = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def execute(path, monkeypatch, run=None):
    """What each code cell shows: the value of its last line, as Jupyter has it."""
    if run:
        monkeypatch.setenv("NOTEBOOK_RUN", str(run))
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(viewer, "_DPI", 40)
    space, shown = {}, []
    for source in cells(path, "code"):
        *body, last = ast.parse(source).body
        assert isinstance(last, ast.Expr), "a cell ends with what it shows"
        exec(compile(ast.Module(body, []), path.name, "exec"), space)
        shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), space))
    assert plt.get_fignums() == []
    return shown


def pictures(shown):
    return [one for one in shown if isinstance(one, viewer.Picture)]


def missing(shown):
    return [one.markdown for one in shown if isinstance(one, viewer.Missing)]


def test_there_are_four_as_the_original_had():
    assert NAMES == ["cifar", "exercise_1", "exercise_2", "exercise_3"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_defines_nothing(path):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    nodes = [node for source in cells(path, "code") for node in ast.walk(ast.parse(source))]
    assert not [node for node in nodes if isinstance(node, kinds)]
    froms = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert froms == {"research"} and names == {"os", "sys"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_has_no_outputs_and_its_numbers_are_those_of_the_committed_runs(path):
    # Refused by `render_notebook`: outputs and counts of executions.
    assert documents.render_notebook(path.read_text(), ROOT, path.name) == path.read_text()
    first = cells(path, "code")[0]
    assert f'RUN = os.environ.get("NOTEBOOK_RUN", "{RUNS[path.stem]}")' in first
    assert (
        cells(path, "markdown")[-1].startswith(("## Exercises", "\n"))
        or "## Exercises" in (cells(path, "markdown")[-1])
    )


# Pictures of the committed runs, and what only a run that is not trimmed can show.
ON_RESULTS = {"cifar": (8, 0), "exercise_1": (8, 0), "exercise_2": (9, 0), "exercise_3": (6, 2)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_on_the_committed_runs(path, monkeypatch):
    shown = execute(path, monkeypatch)
    assert all(isinstance(one, viewer.Text | viewer.Picture) for one in shown)
    assert (len(pictures(shown)), len(missing(shown))) == ON_RESULTS[path.stem]
    assert shown[0].markdown.startswith(f"The run in `{RUNS[path.stem]}`")
    assert all(one.png.startswith(b"\x89PNG") and one.words for one in pictures(shown))
    said = "\n".join(one.markdown for one in shown if isinstance(one, viewer.Text))
    assert "CONTRADICTED" in said or path.stem == "cifar"


def make_run(name, root, monkeypatch):
    """A small run for a notebook, on drawn data; attacks are of toy nets with known answers."""
    workdir = root / name
    if name == "exercise_1":
        config = mlp.get_config("all,smoke")
        config.nets, config.seeds = ("relu-5", "tanh-5", "lecun-5"), 2
        _ = depth.run(config, workdir)
    elif name == "exercise_3":
        config = masks_config.get_config("smoke")
        config.data.tfds_dir = str(root / "tfds")
        with jax.numpy_dtype_promotion("standard"):  # Optax promotes by itself
            _ = study.run(config, workdir)
    else:
        found = {"cnn:mnist": toy.net(), "cnn:mnist-best": toy.net("second")}
        monkeypatch.setattr(trainer, "load", lambda *_, **__: (toy.data(), toy.data(), toy.SOURCE))
        monkeypatch.setattr(nets, "locate", lambda spec, *_: found[spec].workdir)
        monkeypatch.setattr(nets, "find", lambda spec, *_: found[spec])
        monkeypatch.setattr(generate, "generate", toy.attack([]))
        _ = attack.run(toy.smoke(nets=("cnn:mnist",), baselines=("cnn:mnist-best",)), workdir)
        config = json.loads((workdir / "config.json").read_text())
        config["dataset"] = {"exercise_2": "mnist", "cifar": "cifar10"}[name]
        (workdir / "config.json").write_text(json.dumps(config))
    return workdir


# Pictures of a run, and what it lacks: nets.
ON_RUNS = {"cifar": (8, 0), "exercise_1": (4, 4), "exercise_2": (9, 0), "exercise_3": (8, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_on_a_run(path, tmp_path, monkeypatch):
    run = make_run(path.stem, tmp_path, monkeypatch)
    shown = execute(path, monkeypatch, run)
    assert shown[0].markdown.startswith(f"The run in `{run}`")
    assert "by the committed runs" in shown[0].markdown  # drawn data judge nothing
    assert (len(pictures(shown)), len(missing(shown))) == ON_RUNS[path.stem]
