"""Documents whose tables and numbers are generated: from results/ and benchmarks/results/."""

import importlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from configs import cnn
from configs import map as map_config
from research.ledger import claims, evidence, published, text, verdicts
from research.ledger.tables import classifiers, depth, masks, noise, overview, spectrum
from research.ledger.tables import map as map_tables
from research.storage.run_directory import Run, load_run
from research.structs import UserError

# Besides the notebooks: where there are blocks that are generated.
DOCUMENTS = ("README.md", "docs/*.md", "launch/README.md", "results/README.md", "configs/*.py")
# Claims about accuracies and gradients that the section on the depth study shows.
_DEPTH_CLAIMS = ("B17", "B19", "B20", "B21", "D10", "D11", "D12", "D15", "D16")
_CLASSIFIERS = tuple(f"cnn-{variant}" for variant in cnn.VARIANTS)
_MAPS = tuple(f"map-{variant}" for variant in map_config.VARIANTS)
_SPECTRA = ("spectrum-relu-5", "spectrum-tanh-5", "spectrum-tanh-40")
_ATTACKS = (
    *("noise-mnist-lagrangian", "noise-mnist", "noise-mnist-faithful"),
    *("noise-cifar10", "noise-mlp"),
)

Make = Callable[[Path], str]


def _of_run(name: str, table: Callable[[Run], str]) -> Make:
    """A block that is made from one run of results/."""
    return lambda root: table(load_run(root / "results" / name))


def _of_runs(names: Sequence[str], table: Callable[[list[Run]], str]) -> Make:
    """A block that is made from several runs of results/."""
    return lambda root: table([load_run(root / "results" / name) for name in names])


def _benchmark(name: str, module: str = "") -> Make:
    """A block that is made from the results of benchmarks/, by one of its modules."""

    def make(root: Path) -> str:
        result = evidence.of_benchmark(root, name)
        return importlib.import_module(f"benchmarks.{module or name}").table(result)

    return make


def _standing(root: Path) -> str:
    results = [evidence.of_benchmark(root, name) for name in ("cnn", "layers_cnn")]
    return importlib.import_module("benchmarks.cnn").standing(*results)


def _why(root: Path) -> str:
    run = load_run(root / "results" / "depth")
    return depth.why_table(run, evidence.of_benchmark(root, "theory"))


def _note(study: str) -> Make:
    """The numbers of a study, in the docstring of its config."""
    return lambda root: overview.note(verdicts.judged(root), claims.read(), study)


def _section(part: str) -> Make:
    return lambda root: text.section(verdicts.judged(root), part)


def _hypotheses(root: Path) -> str:
    runs = published.read(root / "results")
    return depth.hypotheses_table({name: runs[name] for name in depth.HYPOTHESES if name in runs})


# Name of a block: how it is made from the files under the root.
BLOCKS: dict[str, Make] = {
    "overview": lambda root: overview.table(verdicts.judged(root), claims.read()),
    **{f"note-{study}": _note(study) for study in ("depth", "classifiers", "noise", "masks")},
    "verdicts": lambda root: text.headline(verdicts.judged(root)) + ".",
    "depth": _of_run("depth", depth.table),
    "depth-why": _why,
    "depth-claims": lambda root: text.rows(verdicts.judged(root), _DEPTH_CLAIMS),
    "depth-hypotheses": _hypotheses,
    "map": _of_runs(_MAPS, map_tables.table),
    "note-map": _of_runs(_MAPS, map_tables.note),
    "spectrum": _of_runs(_SPECTRA, spectrum.table),
    "classifiers": _of_runs(_CLASSIFIERS, classifiers.table),
    "noise": _of_runs(_ATTACKS, noise.table),
    "noise-robust": _of_runs(("noise-mnist", "noise-cifar10", "noise-mlp"), noise.robust_table),
    "noise-failures": _of_runs(_ATTACKS, noise.failures_table),
    "masks-counts": _of_run("masks-vgg", masks.counts_table),
    "masks": _of_runs(("masks-vgg", "masks-best", "masks-best3"), masks.table),
    "masks-counts-best3": _of_run("masks-best3", masks.counts_table),
    "masks-end-to-end": _of_runs(("masks-best3",), masks.end_to_end_table),
    "masks-both-ways": _of_runs(("masks-best3",), masks.both_ways_table),
    "masks-classes": _of_runs(("masks-best3",), masks.classes_table),
    "masks-trends": _of_run("masks-vgg", masks.trends_table),
    "ledger": lambda root: text.short(verdicts.judged(root)),
    **{f"ledger-{part}": _section(part) for part in verdicts.PARTS},
    **{
        f"benchmark-{name}": _benchmark(name)
        for name in (
            *("depth", "study", "probe", "layers", "seeds", "cnn", "layers_cnn", "attacks"),
            *("board", "detect", "ingest", "masks_net", "crashes", "theory", "spectrum"),
            *("counterfactuals", "recall"),
        )
    },
    "cnn-standing": _standing,
    "benchmark-layers_masks": _benchmark("layers_masks", "layers_cnn"),
    "launch-processes": _benchmark("processes"),
    "launch-scaling": _benchmark("scaling"),
    "launch-plan": _benchmark("plan"),
}


def render(document: str, root: Path) -> str:
    """`document` with every block between its two comments made anew from the files under `root`.

    Raises UserError for a block that is not in `BLOCKS`, has no end, or whose file is missing.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name not in BLOCKS:
            raise UserError(f"generated block {name!r} is unknown; valid: {', '.join(BLOCKS)}")
        return f"<!-- generated: {name} -->\n{BLOCKS[name](root)}\n<!-- end -->"

    rendered, count = re.subn(
        r"<!-- generated: ([\w-]+) -->\n.*?<!-- end -->", replaced, document, flags=re.DOTALL
    )
    if count != document.count("<!-- generated:"):
        raise UserError("a generated block has no `<!-- end -->`")
    return rendered


def render_notebook(document: str, root: Path, name: str) -> str:
    """A notebook with the blocks of its markdown cells made anew; nothing else is touched.

    Raises UserError as `render` does, and where a cell holds outputs: nothing could say whether
    they are those of results/.
    """
    notebook = json.loads(document)
    for cell in notebook["cells"]:
        if cell.get("outputs") or cell.get("execution_count") is not None:
            raise UserError(f"{name} holds outputs, which nothing checks; store it without them")
        before = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (after := render(before, root)) != before:
            cell["source"] = after.splitlines(keepends=True)
    if notebook == json.loads(document):
        return document
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def stale_documents(root: Path) -> dict[Path, str]:
    """{document: what it should be} of those that differ from results/."""
    stale: dict[Path, str] = {}
    for path in sorted(path for pattern in DOCUMENTS for path in root.glob(pattern)):
        if (rendered := render(path.read_text(), root)) != path.read_text():
            stale[path] = rendered
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        name = str(path.relative_to(root))
        if (rendered := render_notebook(path.read_text(), root, name)) != path.read_text():
            stale[path] = rendered
    return stale
