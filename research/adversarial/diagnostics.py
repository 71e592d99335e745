"""Diagnostics of an attack: its rows searched for the known ways to fail.

The pitfalls are those of the report's attack: a clip that swallows gradients, a loss that
saturates, initial noise that never shrinks, a budget that ends too early.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SATURATED = 1e-6  # a gradient of this L2 norm is below Adam's epsilon in most values
MANY_DEAD = 0.5  # share of an image's values

Row = Mapping[str, Any]


def examine(rows: Sequence[Row], restarted: Mapping[tuple[int, int], bool]) -> dict[str, Any]:
    """The state of health of an attack.

    rows: of cells.jsonl.  restarted: {(image, target): whether another random start succeeded}, of
    the failed cells that were tried again.
    Returns shares in 0..1 and counts, None where nothing was counted.
    """
    won = [row for row in rows if row["success"]]
    failed = [row for row in rows if not row["success"]]
    shares = [min(1.0, row["start_l2"] / row["l2"]) for row in won if row["l2"] > 0]
    return {
        "dead_share_first": _median(row["dead_first"] for row in rows),
        "dead_share_last": _median(row["dead_last"] for row in rows),
        "zero_gradient_cells": sum(row["gradient_first"] == 0 for row in rows),
        "initial_noise_share_of_norm": _median(shares),
        "failed_cells": len(failed),
        "restarted_cells": len(restarted),
        "restart_gain": sum(restarted.values()) / len(restarted) if restarted else None,
        "why_failed": dict(Counter(reason(row) for row in failed)),
        "failures": [
            {
                "image": row["image"],
                "target": row["target"],
                "why": reason(row),
                "margin": row["margin"],
                "another_start": restarted.get((row["image"], row["target"])),
            }
            for row in failed
        ],
    }


def reason(row: Row) -> str:
    """Why a failed cell failed, the first of the known reasons that its numbers show."""
    if row["margin"] > 0:
        return "not counted: it wins after the last check, or by less than is asked"
    if row["gradient_first"] is None or row["gradient_last"] is None:
        return "not finite: the gradient overflows here"
    if row["gradient_first"] == 0 or row["gradient_last"] == 0:
        return "no gradient: the classifier or the clip is flat here"
    if row["gradient_last"] < SATURATED:
        return "saturated loss: the gradient has vanished against the optimiser's epsilon"
    if row["dead_last"] > MANY_DEAD:
        return "dead pixels: most values are clipped and get no gradient"
    if row["success_lost"]:
        return "on the edge: another batch size judges it differently"
    return "budget: it was still moving when its steps were used up"


def _median(values: Any) -> float | None:
    found = list(values)
    return float(np.median(found)) if found else None
