"""One HTML file out of runs, ledger, template, style sheet and scripts; nothing is fetched."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from research.ledger import documents, evidence, published, verdicts
from research.page import charts, content, drawings
from research.runtime import files
from research.storage.run_directory import Run
from research.structs import UserError

FOLDER = Path(__file__).parent
MOST_BYTES = 10_000_000
_RUNS = ("depth", "masks-vgg", "masks-drawn", "masks-smoke", "predict-portrait", "predict-drawn")


def write(path: Path, root: Path) -> None:
    """Write the page of the repository at `root` to `path`, in one move.

    Raises UserError for a run of results/ that is missing or cannot be read, and for a page that is
    too large to be sent to anybody.
    """
    theory = evidence.of_benchmark(root, "theory")
    tables = {
        name: content.table(documents.BLOCKS[block](root))
        for name, block in (("why", "depth-why"), ("saved", "benchmark-counterfactuals"))
    }
    runs, entries = published.read(root / "results"), verdicts.judged(root)
    document = page(gather(runs, entries, theory, tables)).encode()
    if len(document) > MOST_BYTES:
        size = f"the page has {len(document):,} bytes, {MOST_BYTES:,} at most"
        raise UserError(f"{size}: keep fewer or smaller pictures in results/")
    files.replace(path, document)


def gather(
    runs: Mapping[str, Run],
    entries: Sequence[Mapping[str, Any]],
    theory: Mapping[str, Any],
    tables: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the template names; runs: of results/; entries: of `verdicts.judged`.

    theory: as `benchmarks.theory` writes it.  tables: "why" and "saved", see `content.table`.
    Raises UserError naming a run that is missing.
    """
    if missing := [name for name in _RUNS if name not in runs]:
        raise UserError(
            f"results/{missing[0]} is missing; make its run and keep it: "
            "python -m research.report --collect=RUN"
        )
    study, masks = runs["depth"], runs["masks-vgg"]
    claims = content.ledger(entries)
    return {
        "verdicts": content.verdicts(entries),
        "kinds": content.KINDS,
        "sections": content.sections(entries),
        "entries": claims,
        "contradicted": [claim for claim in claims if claim["verdict"] == "CONTRADICTED"],
        "depth": study,
        "activations": charts.ACTIVATIONS,
        "accuracies": drawings.accuracies(study),
        "depth_figures": [
            drawings.gradient_maxima(study, 5, 1),
            drawings.gradient_maxima(study, 20, 2),
            drawings.gradient_maxima(study, 40, 3),
            drawings.learning_curves(study),
            drawings.gradient_comparison(study),
        ],
        "masks_caption": masks.caption,
        "mask_curves": drawings.mask_curves(masks),
        "explorer": {
            **content.explorer(study, theory),
            "log": charts.explorer(log=True),
            "linear": charts.explorer(log=False),
        },
        "tables": tables,
        "maps": {
            name: _figure(run, "map") for name, run in runs.items() if run.experiment == "map"
        },
        "grids": content.grids(runs),
        "pictures": {
            "scored": _figure(runs["masks-drawn"], "scored"),
            "samples": _figure(runs["masks-smoke"], "samples"),
            "portrait": _panels(runs["predict-portrait"]),
            "drawn": _panels(runs["predict-drawn"]),
        },
        "runtime": charts.runtime(),
    }


def _figure(run: Run, name: str) -> dict[str, Any]:
    return content.picture(run.figure(name), run.summary["headline"])


def _panels(run: Run) -> dict[str, Any]:
    """The annotated photograph of a run of `research.predict`."""
    panels = sorted(run.path.glob("**/*-panels.*"))
    if not panels:
        raise UserError(f"{run.path} holds no panels of an annotated photograph; collect it again")
    return content.picture(panels[0], run.summary["headline"])


def page(values: Mapping[str, Any]) -> str:
    """The HTML of what `gather` gives; text of the records is escaped, drawings are not."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = {name: (FOLDER / name).read_text() for name in ("style.css", "page.js")}
    template = environment.get_template("page.html.jinja")
    return template.render(**values, style=texts["style.css"], script=texts["page.js"])
