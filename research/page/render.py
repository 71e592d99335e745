"""One HTML file out of records, ledger, templates, style sheet and scripts; nothing is fetched."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from research.ledger import verdicts
from research.ledger.tables.depth import REPORTED
from research.page import charts, collect, content, drawings
from research.storage import run_directory
from research.structs import UserError

FOLDER = Path(__file__).parent
MOST_BYTES = 10_000_000


def write(path: Path, root: Path) -> None:
    """Write the page of the repository at `root` to `path`, in one move.

    Raises UserError for a record that is missing, cannot be read, or is not of its pictures, and
    for a page that is too large to be sent to anybody.
    """
    made = page(gather(root, verdicts.judged(root))).encode()
    if len(made) > MOST_BYTES:
        said = f"the page has {len(made):,} bytes, {MOST_BYTES:,} at most"
        raise UserError(f"{said}: collect fewer or smaller pictures into results/")
    run_directory.replace(path, made)


def gather(root: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that the template names; entries: as `book.judged` gives them."""
    kept = content.records(root)
    depth, gradients, masks = kept["depth"], kept["gradients"], kept["masks"]
    seeds = len(next(iter(depth["test_accuracy"].values())))
    shown = content.ledger(entries)
    return {
        "verdicts": content.verdicts(entries),
        "kinds": content.KINDS,
        "sections": content.sections(entries),
        "entries": shown,
        "contradicted": [entry for entry in shown if entry["verdict"] == "CONTRADICTED"],
        "depth": depth,
        "seeds": seeds,
        "activations": charts.ACTIVATIONS,
        "accuracies": drawings.accuracies(depth, REPORTED),
        "depth_figures": [
            *(
                drawings.gradient_maxima(gradients, seeds, layers, number)
                for number, layers in ((1, 5), (2, 20), (3, 40))
            ),
            drawings.learning_curves(depth),
            drawings.gradient_comparison(gradients, seeds),
        ],
        "masks_caption": masks["vgg"]["data"]["caption"],
        "mask_curves": drawings.mask_curves(masks["vgg"]),
        "explorer": {
            **content.explorer(gradients),
            "log": charts.explorer(log=True),
            "linear": charts.explorer(log=False),
        },
        "grids": content.grids(root, kept["grids"]),
        "pictures": {
            name.partition(".")[0]: content.picture(root, kept["masks_pictures"], name)
            for name in (collect.SCORED, collect.DRAWN, *content.PORTRAITS)
        },
        "runtime": charts.runtime(),
    }


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
