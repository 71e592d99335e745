"""The figures of an attack, from its rows and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from research.experiments.noise.samples import Sample
from research.figures import noise as pictures
from research.storage import attack_files

PAGES = 5  # of the grid, at most
EXAMPLES = 4  # of noise beside its image
_LEVELS = 255

Rows = Sequence[Mapping[str, Any]]


def draw(
    name: str,
    into: Path,
    rows: Rows,
    matrix: Mapping[str, Any],
    shares: np.ndarray,
    sample: Sample,
    classes: Sequence[str],
    caption: str,
) -> dict[str, Figure]:
    """All figures of one net under attack.

    rows: of cells.jsonl, whose pictures lie beneath `into`.  matrix: of `success_matrix`.
    shares: [N, K] probabilities of the sample without noise.
    """
    drawn = _grids(name, into, rows, shares, sample, classes, caption)
    chosen = attack_files.targeted_examples(rows, EXAMPLES)
    if chosen:
        place = {int(number): i for i, number in enumerate(sample.numbers)}
        drawn["noise"] = pictures.draw_noise(
            np.stack([sample.images[place[row["image"]]] for row in chosen]),
            np.stack([attack_files.read_png(into / row["file"]) for row in chosen]),
            [_title(row, classes) for row in chosen],
            title=f"{name}: the noise, from small to large",
            caption=caption,
        )
    drawn["success"] = pictures.draw_success(
        matrix["won"],
        matrix["tried"],
        matrix["won_correct"],
        matrix["tried_correct"],
        classes,
        title=f"{name}: attacks that succeed",
        caption=caption,
    )

    def column(key: str) -> np.ndarray:
        return np.array([row[key] for row in rows])

    drawn["distributions"] = pictures.draw_distributions(
        column("steps"),
        column("l2"),
        _LEVELS * column("linf"),
        column("l0"),
        column("success"),
        column("target") == column("actual"),
        title=f"{name}: what a success takes",
        caption=caption,
    )
    return drawn


def draw_compared(compared: Mapping[str, Any], caption: str) -> dict[str, Figure]:
    """The figures of several nets together, of `robust_accuracy` and `transfer` of summary.json."""
    drawn: dict[str, Figure] = {}
    if "robust_accuracy" in compared:
        drawn |= draw_budgets(compared["robust_accuracy"], caption)
    if "transfer" in compared:
        drawn["transfer"] = draw_transfers(compared["transfer"], caption)
    return drawn


def draw_budgets(robust: Mapping[str, Any], caption: str) -> dict[str, Figure]:
    """Robust accuracy of some nets a figure: as many as can be told apart."""
    names = list(robust["hits"])
    most = pictures.MOST_NETS
    parts = -(-len(names) // most)
    size = -(-len(names) // parts)
    unit = "Linf, levels of 8 bits" if robust["norm"] == "linf" else "L2, times 255"
    drawn: dict[str, Figure] = {}
    for part in range(parts):
        chosen = names[part * size : (part + 1) * size]
        suffix = "" if parts == 1 else f"_{part + 1}"
        drawn[f"robust_accuracy{suffix}"] = pictures.draw_robust_accuracy(
            robust["levels"],
            {name: robust["hits"][name] for name in chosen},
            robust["count"],
            unit=unit,
            title="Accuracy under PGD within a budget",
            caption=f"{caption}. {robust['steps']} steps, {robust['restarts']} starts",
        )
    return drawn


def draw_transfers(transfer: Mapping[str, Any], caption: str) -> Figure:
    """How images made against one net fool the others."""
    rates = np.array(transfer["rates"], np.float64)  # None is NaN
    return pictures.draw_transfer(
        rates,
        transfer["names"],
        transfer["counts"],
        title="Images made against one net, judged by another",
        caption=caption,
    )


def _grids(
    name: str,
    into: Path,
    rows: Rows,
    shares: np.ndarray,
    sample: Sample,
    classes: Sequence[str],
    caption: str,
) -> dict[str, Figure]:
    """The report's figures 8 and 9, ten images a page, the first of the sample by classes."""
    size = pictures.MOST_PICTURES
    order = np.argsort(sample.labels[: PAGES * size], kind="stable")
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_image.setdefault(row["image"], []).append(row)
    drawn: dict[str, Figure] = {}
    for page in range(-(-len(order) // size)):
        places = order[page * size : (page + 1) * size]
        cells = [by_image[int(sample.numbers[place])] for place in places]
        made = [[attack_files.read_png(into / row["file"]) for row in each] for each in cells]
        drawn[f"grid_{page + 1}"] = pictures.draw_grid(
            sample.images[places],
            np.array(made),
            actual=sample.labels[places],
            predicted=[[row["predicted"] for row in each] for each in cells],
            probability=[[row["probability"] for row in each] for each in cells],
            success=[[row["success"] for row in each] for each in cells],
            clean_predicted=shares[places].argmax(axis=1),
            clean_probability=shares[places].max(axis=1),
            classes=classes,
            title=f"{name}: every image toward every class",
            caption=caption,
        )
    return drawn


def _title(row: Mapping[str, Any], classes: Sequence[str]) -> str:
    return (
        f"{row['image']}: {classes[row['actual']]} to {classes[row['target']]}, L2 {row['l2']:.2f}"
    )
