"""Content of the page, as plain data: the judged ledger, attacked images and pictures of runs."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from research.data.datasets import CLASSES
from research.ledger.published import command
from research.ledger.tables import depth
from research.storage.run_directory import Run
from research.structs import UserError

Entry = Mapping[str, Any]

# Verdict: what stands for it besides its colour, and what it means.
VERDICTS: dict[str, tuple[str, str]] = {
    "REPRODUCED": ("✓", "holds as stated"),
    "TREND-ONLY": ("≈", "the order or shape holds, the number does not"),
    "CONTRADICTED": ("✕", "does not hold as stated"),
    "UNTESTABLE": ("?", "cannot be tested, and why"),
    "NOT RUN": ("○", "not run yet, with the command that would"),
}
KINDS = {
    "N": "number", "Q": "order or shape", "M": "mathematics", "C": "configuration",
    "X": "error in the text",
}  # fmt: skip
METHODS = {
    "faithful": "as the report does it",
    "minimal": "with far smaller noise",
}
# Statistics of the gradients, in the words of the page.
STATISTICS = {
    "kernel_abs_max": "largest |∂L/∂W| of all batches of the epoch",
    "kernel_abs_last": "largest |∂L/∂W| of the last batch",
    "layer_abs_max": "largest |∂L/∂W| with the biases",
    "kernel_signed_max": "largest signed ∂L/∂W",
    "signal_abs_max": "largest signal |∂L/∂z| that arrives at the layer",
}
# Of these theory has a prediction, by its names.
_PREDICTED = {
    "kernel_abs_max": "kernel_abs",
    "kernel_abs_last": "kernel_abs",
    "signal_abs_max": "signal_abs",
}
# Numbers of an attacked image that the page shows.
_NUMBERS = ("steps", "predicted", "probability", "l0", "l2", "linf", "psnr", "ssim", "success")
_MOST_ROWS = 10  # attacked images below each other
_PICTURE_PX, _QUALITY = 1200, 80  # of pictures in the page: the longer side, and WebP's quality


def verdicts(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Each verdict with its sign, meaning and count, in the order of `VERDICTS`."""
    counts = Counter(entry["verdict"] for entry in entries)
    return [
        {"name": name, "slug": slug(name), "sign": sign, "meaning": meaning, "count": counts[name]}
        for name, (sign, meaning) in VERDICTS.items()
    ]


def ledger(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every claim as the page shows it: the entry, with its numbers in words and what is searched.

    Raises UserError for a verdict that there is none of.
    """
    shown: list[dict[str, Any]] = []
    for entry in entries:
        if entry["verdict"] not in VERDICTS:
            raise UserError(f"{entry['id']}: there is no verdict {entry['verdict']!r}")
        kinds = [KINDS[kind] for kind in entry["kind"].split("/")]
        searched = (entry["id"], entry["text"], entry["claimed"], entry["reason"], entry["config"])
        shown.append(
            {
                **entry,
                "slug": slug(entry["verdict"]),
                "sign": VERDICTS[entry["verdict"]][0],
                "kinds": ", ".join(kinds),
                "found": numbers(entry["ours"]),
                "rank": rank(entry["ours"]),
                "searched": " ".join([*searched, entry["section"], *kinds]).lower(),
                "hypotheses": [
                    {**each, "found": numbers(each["ours"])} for each in entry["hypotheses"]
                ],
            }
        )
    return shown


def numbers(ours: Mapping[str, Any] | None) -> str:
    """ "94.60 % (sd 0.66, 93.51 to 95.27, 20 values)", or "" where nothing was measured."""
    if ours is None:
        return ""
    unit = f" {ours['unit']}" if ours["unit"] else ""
    form = (lambda value: f"{value:.2f}") if unit else (lambda value: f"{value:.4g}")
    if ours["seeds"] < 2 or ours["sd"] is None:
        return f"{form(ours['mean'])}{unit} (1 value)"
    spread = f"sd {form(ours['sd'])}, {form(ours['min'])} to {form(ours['max'])}"
    return f"{form(ours['mean'])}{unit} ({spread}, {ours['seeds']} values)"


def rank(ours: Mapping[str, Any] | None) -> str:
    """Position of the reported value among our values, in words; "" where that cannot be said."""
    if ours is None or ours["percentile"] is None or ours["seeds"] < 2:
        return ""
    share = ours["percentile"]
    if share in (0, 100):
        return f"{'above' if share else 'below'} all of our values"
    return f"{share:.0f} % of our values are at or below it"


def slug(verdict: str) -> str:
    """The verdict as the name of a CSS class."""
    return verdict.lower().replace(" ", "-")


def sections(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Sections in the order of the ledger, each with the counts of its verdicts."""
    names = list(dict.fromkeys(entry["section"] for entry in entries))
    return [
        {"name": name, "verdicts": verdicts([e for e in entries if e["section"] == name])}
        for name in names
    ]


def explorer(run: Run, theory: Mapping[str, Any]) -> dict[str, Any]:
    """Data of the curves over depth: {"statistics": {name: words}, "nets": {net: {name: bands}},
    "theory": {net: {name: [layer]}}}.

    bands: the median, the lowest and the highest of the seeds, each [epoch][layer], epoch 0 being
    the net before its first step.  theory: as `benchmarks.theory` writes it; of it the predicted
    median of the largest entry in one batch before the first step, for the absolute statistics.
    """
    gradients = {net: depth.gradients(part) for net, part in run.nets.items()}
    kept = [name for name in STATISTICS if name in next(iter(gradients.values()))]
    return {
        "statistics": {name: STATISTICS[name] for name in kept},
        "nets": {
            net: {name: [values[name][part] for part in ("median", "low", "high")] for name in kept}
            for net, values in gradients.items()
        },
        "theory": {
            net: {
                name: [float(f"{value:.4g}") for value in sides["predicted"][_PREDICTED[name]]]
                for name in kept
                if name in _PREDICTED
            }
            for net, sides in theory["nets"].items()
        },
    }


def table(markdown: str) -> dict[str, Any]:
    """A Markdown table and the paragraph below it: {"head": [cell], "rows": [[cell]], "note"}."""
    lines, _, note = markdown.replace("`", "").partition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]
    return {"head": rows[0], "rows": rows[2:], "note": note}


def grids(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """The attacked images of each data set: one grid, with a sheet of pictures for each method.

    runs: of results/, of which those named grid-DATASET-METHOD are shown.
    Raises UserError for methods that were not tried on the same images.
    """
    shown: list[dict[str, Any]] = []
    for dataset, classes in CLASSES.items():
        methods = {m: runs[name] for m in METHODS if (name := f"grid-{dataset}-{m}") in runs}
        tries = [_attack(run, method) for method, run in methods.items()]
        if not tries:
            continue
        images = tries[0]["images"]
        if any(attack["images"] != images for attack in tries):
            raise UserError(f"results/: the methods on {dataset} have not the same images")
        which = "the first test image of each class that the net has right"
        if len(images) == 1:
            which = f"test image {images[0]['image']}"
        shown.append(
            {"dataset": dataset, "classes": classes, "images": images, "which": which,
             "tries": tries}
        )  # fmt: skip
    return shown


def _attack(run: Run, method: str) -> dict[str, Any]:
    """The images, cells and pictures of one attack, and where they come from."""
    rows = attack_rows(run)
    net, part = next(iter(run.nets.items()))
    return {
        "method": method,
        "label": METHODS[method],
        "net": net,
        "epochs": part.summary["epochs"],
        "caption": run.caption,
        "command": command(run),
        "images": [{"image": row[0]["image"], "actual": row[0]["actual"]} for row in rows],
        "cells": [[{name: cell[name] for name in _NUMBERS} for cell in row] for row in rows],
        "tally": tally(rows),
        "sheet": _sheet(run, rows),
    }


def attack_rows(run: Run) -> list[list[dict[str, Any]]]:
    """The cells of at most ten images, a row each: one of every class before a second one.

    Rows are in the order of their class and number, the cells of a row in that of their target.
    """
    by_image: dict[int, list[dict[str, Any]]] = {}
    for cell in run.cells:
        by_image.setdefault(cell["image"], []).append(cell)
    per_class: Counter[int] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for image in sorted(by_image):
        actual = by_image[image][0]["actual"]
        ranked.append((per_class[actual], actual, image))
        per_class[actual] += 1
    chosen = sorted(sorted(ranked)[:_MOST_ROWS], key=lambda each: each[1:])
    return [sorted(by_image[image], key=lambda cell: cell["target"]) for *_, image in chosen]


def tally(rows: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """Numbers of cells tried and successful, of targeted and of untargeted attacks."""
    names = ("targeted_tried", "targeted_won", "untargeted_tried", "untargeted_won")
    counts = {str(name): 0 for name in names}
    for cell in (cell for row in rows for cell in row):
        kind = "untargeted" if cell["target"] == cell["actual"] else "targeted"
        counts[f"{kind}_tried"] += 1
        counts[f"{kind}_won"] += bool(cell["success"])
    return counts


def picture(path: Path, headline: str) -> dict[str, Any]:
    """A picture file for the page: its address as data, its size in pixels, and its headline."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((_PICTURE_PX, _PICTURE_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY, method=6)
    source = _address("image/webp", stream.getvalue())
    return {"source": source, "width": image.width, "height": image.height, "headline": headline}


def _sheet(run: Run, rows: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """All pictures of the rows as one PNG, originals in the first column."""
    lines = [[run.clean(row[0]["image"])] + [run.adversarial(cell) for cell in row] for row in rows]
    pixels = np.concatenate([np.concatenate(line, axis=1) for line in lines])
    stream = io.BytesIO()
    sheet = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    sheet.save(stream, "PNG", optimize=True)
    return _address("image/png", stream.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
