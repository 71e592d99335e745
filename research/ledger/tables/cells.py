"""Single cells of the report's attack: which class came out, how sure, how late."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from research.storage.run_directory import Run


def horse_of(run: Run) -> int:
    """The number among CIFAR-10's test images of the report's horse, 87 in the published order.

    The copies in JPEG are read class by class in turns. By the published labels the image is the
    tenth horse, and within a class the copies seem to keep the published order.
    """
    return 97 if "JPEG" in run.versions["data"]["name"] else 87


def of_attack(run: Run) -> dict[str, Any]:
    """What the ledger asks of the cells of an attack of a single net.

    Of CIFAR-10 only the cells of the horse are taken; `untargeted` has the untargeted ones, by
    class, `toward` the others, as "0-2"; `actual`, `won` and `steps` are of all, `won_share` by
    class of the cells toward others, and `*_first` are of the horse toward class 0.
    """
    rows = run.cells
    if run.name == "cifar10":
        rows = [row for row in rows if row["image"] == horse_of(run)]
    own = [row for row in rows if row["actual"] == row["target"]]
    others = [row for row in rows if row["actual"] != row["target"]]
    content: dict[str, Any] = {
        "untargeted": _grouped(own, lambda row: f"{row['actual']}"),
        "toward": _grouped(others, lambda row: f"{row['actual']}-{row['target']}"),
        "actual": [row["actual"] for row in rows],
        "won": [int(row["success"]) for row in rows],
        "steps": [row["steps"] for row in rows],
        "won_share": [
            sum(row["success"] for row in group) / len(group)
            for digit in sorted({row["actual"] for row in others})
            if (group := [row for row in others if row["actual"] == digit])
        ],
    }
    if run.name == "cifar10":
        first = [row for row in others if row["target"] == 0]
        for key in ("psnr", "l2", "ssim", "probability", "predicted"):
            content[f"{key}_first"] = [row[key] for row in first]
    return content


def _grouped(
    rows: Sequence[Mapping[str, Any]], name: Callable[[Mapping[str, Any]], str]
) -> dict[str, dict[str, list[Any]]]:
    """{group: {predicted, probability of that class}} of a row each."""
    groups: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        group = groups.setdefault(name(row), {"predicted": [], "probability": []})
        group["predicted"].append(row["predicted"])
        group["probability"].append(round(row["probability"], 6))
    return groups
