"""Records of single cells of the report's attack: which class came out, how sure, how late."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import noise
from research.storage import run_directory
from research.structs import UserError

HORSE = 87  # of CIFAR-10's test images, in the report
# Keys that must be as stated; those of the other method and of the figures do not matter.
_KEYS = ("dataset", "nets", "faithful", "per_class", "only_correct", "images", "input", "seed")


def collect(workdir: Path, *, any_data: bool = False) -> dict[str, dict[str, Any]]:
    """{"cells.VARIANT faithful": what is kept of the cells of an attack as the report does it}.

    Of CIFAR-10 only the cells of the horse are kept; `untargeted` has the untargeted ones, by
    class, `toward` the others, as "0-2"; `actual`, `won` and `steps` are of all, `won_share` by
    class of the cells toward others, and `*_first` are of the horse toward class 0.  published:
    whether the images are in the published order, so that numbers of images are the report's.
    any_data: take the run on whatever data it was; nothing must be published of it then.
    Raises UserError if the run is not finished, or not the report's attack on the stated images.
    """
    summary = run_directory.finished_summary(workdir)
    if summary is None or "method" not in summary:
        raise UserError(f"{workdir} holds no finished attack (no such summary.json)")
    config = json.loads((workdir / "config.json").read_text())
    versions = json.loads((workdir / "versions.json").read_text())
    if config["name"] not in ("mnist", "cifar10") or config["method"] != "faithful":
        raise UserError(f"{workdir} is no attack of the report's (method {config['method']})")
    stated = json.loads(noise.get_config(config["name"]).to_json())
    changed = [key for key in _KEYS if config[key] != stated[key]]
    if config["name"] == "mnist" and config["classes"] != stated["classes"]:
        changed.append("classes")
    if changed:
        wrong = ", ".join(changed)
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    if not versions["data"]["full"] and not any_data:
        raise UserError(f"{workdir} was not run on the full set: {versions['data']['caption']}")
    rows = [json.loads(line) for line in (workdir / "cells.jsonl").read_text().splitlines()]
    if config["name"] == "cifar10":
        rows = [row for row in rows if row["image"] == HORSE]
    (net,) = summary["nets"].values()
    only = " '--config.classes=()' --config.pgd.images=0" if not config["classes"] else ""
    return {
        f"cells.{config['name']} faithful": {
            "command": f"python -m research.main --config=configs/noise.py:{config['name']} "
            f"--config.method=faithful '--config.baselines=()'{only} --config.data.dir=DIR",
            "epochs": net["epochs"],
            "published": versions["data"]["name"] in ("MNIST", "CIFAR-10"),
            **_cells(rows),
            "data": {k: v for k, v in versions["data"].items() if k != "source"},
            "device": versions["device"],
            "packages": versions["packages"],
            "git_commit": versions["git_commit"],
        }
    }


def _cells(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["actual"] == row["target"]]
    others = [row for row in rows if row["actual"] != row["target"]]
    kept: dict[str, Any] = {
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
    first = [row for row in others if row["image"] == HORSE and row["target"] == 0]
    for key in ("psnr", "l2", "ssim", "probability", "predicted"):
        kept[f"{key}_first"] = [row[key] for row in first]
    return kept


def _grouped(rows: Sequence[Mapping[str, Any]], name: Any) -> dict[str, dict[str, list[Any]]]:
    """{group: {predicted, probability of that class}} of a row each."""
    found: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        group = found.setdefault(name(row), {"predicted": [], "probability": []})
        group["predicted"].append(row["predicted"])
        group["probability"].append(round(row["probability"], 6))
    return found
