"""The ledger of the report's claims, and the documents whose numbers are generated from records.

python -m research.report                         # results/ -> README.md, docs/; prints the ledger
python -m research.report --ledger                # prints the ledger and changes nothing
python -m research.report --run --budget=30m      # runs what the ledger lacks, cheapest first
python -m research.report --collect=runs/mlp/all  # run directories -> results/, then as the first
python -m research.report --check                 # fails if a document differs from its records
python -m research.report --html=report.html      # the ledger as one page to read
"""

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from research.ledger import claims, keep, runs, text, verdicts
from research.ledger.tables import classifiers as classifier_tables
from research.ledger.tables import depth as depth_tables
from research.ledger.tables import masks as mask_tables
from research.ledger.tables import noise as noise_tables
from research.ledger.tables import overview
from research.page import collect as page_records
from research.page import render as page
from research.runtime import files
from research.structs import UserError

_COLLECT = flags.DEFINE_multi_string(
    "collect", [], "Run directory whose summary goes into results/; may be given several times."
)
_CHECK = flags.DEFINE_bool("check", False, "Change nothing; fail if a document is out of date.")
_LEDGER = flags.DEFINE_bool("ledger", False, "Print the ledger and change nothing.")
_FROM = flags.DEFINE_multi_string(
    "from", [], "With --ledger: run directory that is judged in the place of its record."
)
_JSON = flags.DEFINE_bool("json", False, "With --ledger: print it as JSON.")
_RUN = flags.DEFINE_bool("run", False, "Run what the ledger lacks, and keep its records.")
_BUDGET = flags.DEFINE_string("budget", "", "With --run: time, as 30m or 2h; no run begins beyond.")
_DATA = flags.DEFINE_multi_string(
    "data", [], "With --run: NAME=DIR of a data set (mnist, cifar10, voc, folders)."
)
_HTML = flags.DEFINE_string("html", None, "Write the ledger as one self-contained page, and stop.")

ROOT = Path(__file__).parents[1]
# Besides the notebooks: where there are blocks that are generated.
DOCUMENTS = ("README.md", "docs/*.md", "launch/README.md", "results/README.md", "configs/*.py")
# Claims about accuracies and gradients that the section on the depth study shows.
_DEPTH_CLAIMS = ("B17", "B19", "B20", "B21", "D10", "D11", "D12", "D15", "D16")

Make = Callable[[Path], str]


def _of(file: str, table: Callable[[Mapping[str, Any]], str]) -> Make:
    """A block that is made from one file under the root."""

    def make(root: Path) -> str:
        try:
            result = json.loads((root / file).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{root / file} cannot be read ({error})") from error
        return table(result)

    return make


def _benchmark(name: str, module: str = "") -> Make:
    """A block that is made from the results of benchmarks/, by one of its modules."""

    def table(result: Mapping[str, Any]) -> str:
        return importlib.import_module(f"benchmarks.{module or name}").table(result)

    return _of(f"benchmarks/results/{name}.json", table)


def _note(study: str) -> Make:
    """The numbers of a study, in the docstring of its config."""
    return lambda root: overview.note(verdicts.judged(root), claims.read(), study)


def _section(part: str) -> Make:
    return lambda root: text.section(verdicts.judged(root), part)


# Name of a block: how it is made from the files under the root.
BLOCKS: dict[str, Make] = {
    "overview": lambda root: overview.table(verdicts.judged(root), claims.read()),
    **{f"note-{study}": _note(study) for study in ("depth", "classifiers", "noise", "masks")},
    "verdicts": lambda root: text.headline(verdicts.judged(root)) + ".",
    "depth": _of("results/depth.json", depth_tables.table),
    "depth-claims": lambda root: text.rows(verdicts.judged(root), _DEPTH_CLAIMS),
    "depth-hypotheses": _of("results/hypotheses.json", depth_tables.hypotheses_table),
    "classifiers": _of("results/classifiers.json", classifier_tables.table),
    "noise": _of("results/noise.json", noise_tables.table),
    "noise-robust": _of("results/noise.json", noise_tables.robust_table),
    "masks-counts": _of("results/masks.json", mask_tables.counts_table),
    "masks": _of("results/masks.json", mask_tables.table),
    "masks-trends": _of("results/masks.json", mask_tables.trends_table),
    "ledger": lambda root: text.short(verdicts.judged(root)),
    **{f"ledger-{part}": _section(part) for part in verdicts.PARTS},
    **{
        f"benchmark-{name}": _benchmark(name)
        for name in (
            *("depth", "study", "probe", "layers", "seeds", "cnn", "layers_cnn", "attacks"),
            *("detect", "ingest", "masks_net"),
        )
    },
    "benchmark-layers_masks": _benchmark("layers_masks", "layers_cnn"),
    "launch-processes": _benchmark("processes"),
    "launch-scaling": _benchmark("scaling"),
    "launch-plan": _benchmark("plan"),
}


def stale_figures(root: Path) -> list[str]:
    """Names of the figures in results/ that are not of the runs that the tables are made from."""
    results = root / "results"
    depth = json.loads((results / "depth.json").read_text())
    classifiers = json.loads((results / "classifiers.json").read_text())
    noise = json.loads((results / "noise.json").read_text())
    confusion = classifier_tables.CONFUSION
    recorded = {
        f"{depth_tables.FIGURE}.png": depth["figure_sha256"],
        f"confusion_{confusion}.png": classifiers[confusion]["figure_sha256"],
        keep.NOISE: noise[noise_tables.SHOWN]["figure_sha256"],
    }
    pictures = results / mask_tables.PICTURES
    if pictures.exists():
        about = json.loads(pictures.read_text())
        recorded |= {name: picture["sha256"] for name, picture in about.items()}
    recorded |= page_records.sheets(results)
    return [name for name, sha256 in recorded.items() if _sha256(results / name) != sha256]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def render(document: str, root: Path) -> str:
    """`document` with every block between its two comments made anew from the files under `root`.

    Raises UserError for a block that is not in `BLOCKS`, has no end, or whose file is missing.
    """

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name not in BLOCKS:
            raise UserError(f"generated block {name!r} is unknown; valid: {', '.join(BLOCKS)}")
        return f"<!-- generated: {name} -->\n{BLOCKS[name](root)}\n<!-- end -->"

    made, count = re.subn(
        r"<!-- generated: ([\w-]+) -->\n.*?<!-- end -->", replaced, document, flags=re.DOTALL
    )
    if count != document.count("<!-- generated:"):
        raise UserError("a generated block has no `<!-- end -->`")
    return made


def render_notebook(document: str, root: Path, name: str) -> str:
    """A notebook with the blocks of its markdown cells made anew; nothing else is touched.

    Raises UserError as `render` does, and where a cell holds outputs: nothing could say whether
    they are those of the records.
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
    """{document: what it should be} of those that differ from their records."""
    found: dict[Path, str] = {}
    for path in sorted(path for pattern in DOCUMENTS for path in root.glob(pattern)):
        if (made := render(path.read_text(), root)) != path.read_text():
            found[path] = made
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        name = str(path.relative_to(root))
        if (made := render_notebook(path.read_text(), root, name)) != path.read_text():
            found[path] = made
    return found


def main(argv: Sequence[str]) -> int:
    """The door: flags to exit code."""
    del argv
    try:
        return _act()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _act() -> int:
    if _RUN.value:
        return runs.execute(
            claims.read(),
            ROOT / "results",
            Path("runs/ledger"),
            budget=runs.budget_seconds(_BUDGET.value),
            data=runs.data_directories(_DATA.value),
        )
    if _LEDGER.value:
        entries = verdicts.judged(ROOT, [files.locate(directory) for directory in _FROM.value])
        print(verdicts.to_json(entries) if _JSON.value else text.terminal(entries))
        return 0
    if _HTML.value is not None:
        page.write(Path(_HTML.value), ROOT)
        print(f"the page is in {_HTML.value}; open it in a browser", file=sys.stderr)
        return 0
    for directory in _COLLECT.value:
        workdir = files.locate(directory)
        if not page_records.collect(ROOT / "results", workdir):
            _ = keep.keep(ROOT / "results", workdir)
    stale = stale_documents(ROOT)
    if figures := stale_figures(ROOT):
        said = f"results/{figures[0]} is not of the run that its table is made from; use --collect"
        print(f"error: {said} again", file=sys.stderr)
        return 1
    names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
    if _CHECK.value:
        if stale:
            said = f"error: {names} differs from its records; run python -m research.report"
            print(said, file=sys.stderr)
            return 1
        print("every document agrees with its records", file=sys.stderr)
        return 0
    for path, made in stale.items():
        _ = path.write_text(made)
    print(text.terminal(verdicts.judged(ROOT)))
    print(f"made anew: {names or 'nothing, all agrees with its records'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    app.run(main)
