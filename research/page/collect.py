"""Records that only the page needs: a few attacked images with their noise, and drawn faces.

grids.json      {name: what was attacked, how, and the numbers of every cell}
grid_NAME.png   a row for each image: the original, then what the attack toward each class made
masks_*.webp    faces and photographs that are drawn; noted in masks_pictures.json

Only drawn faces are kept: no photograph of people enters the repository by way of this module.
"""

import hashlib
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs import noise
from research.storage import attack_files, run_directory
from research.structs import UserError

GRIDS = "grids.json"
PICTURES = "masks_pictures.json"
SCORED = "masks_scored.webp"  # drawn faces that the report's net had not seen: its Fig. 18
DRAWN = "masks_drawn.webp"  # a drawn photograph with its faces marked: its Fig. 20
MOST_IMAGES = 10  # rows of a grid
_QUALITY = 85  # of WebP
# Keys that may differ from the stated configuration, for they do not change what is measured.
_FREE_KEYS = (
    "run", "batch", "eval_batch_size", "cpu_devices", "cpu_threads", "matmul_precision",
    "baselines",
)  # fmt: skip
_SHOWN_KEYS = ("method", "classes", "per_class", "pgd")  # those that differ are in the command
_NUMBERS = ("steps", "predicted", "probability", "l0", "l2", "linf", "psnr", "ssim", "success")


def collect(results: Path, workdir: Path) -> bool:
    """Keep in `results` what the page shows of a finished run; whether the run is of that kind.

    Kinds: an attack on at most one image of a class (`per_class`); the report's face-mask net on
    drawn faces; panels of `research.predict` of a photograph whose name begins with "drawn".
    Raises UserError for a run of such a kind that differs from the stated configuration, or
    was not made on the full data set.
    """
    summary = run_directory.finished_summary(workdir)
    if summary is None:
        return False
    if "photographs" in summary:
        panels = sorted(workdir.rglob("drawn*-panels.png"))
        return bool(panels) and _keep_picture(results, DRAWN, panels[0], summary["headline"])
    config = json.loads((workdir / "config.json").read_text())
    if "method" in summary and config["per_class"] <= 1 and not config["images"]:
        _keep_grid(results, workdir, config, summary)
        return True
    if config["name"] == "vgg" and config["data"].get("drawn", 0):
        file = workdir / "figures" / "scored.png"
        return _keep_picture(results, SCORED, file, summary["headline"])
    return False


def sheets(results: Path) -> dict[str, str]:
    """{file in `results`: sha256 of what it should hold} of the sheets that grids.json is of."""
    path = results / GRIDS
    kept = json.loads(path.read_text()) if path.exists() else {}
    return {f"grid_{name}.png": run["sheet_sha256"] for name, run in kept.items()}


def _keep_picture(results: Path, name: str, file: Path, headline: str) -> bool:
    path = results / PICTURES
    kept = json.loads(path.read_text()) if path.exists() else {}
    stream = io.BytesIO()
    Image.open(file).convert("RGB").save(stream, "WEBP", quality=_QUALITY, method=6)
    content = stream.getvalue()
    run_directory.replace(results / name, content)
    about = {"sha256": hashlib.sha256(content).hexdigest(), "headline": headline}
    run_directory.write_json(path, kept | {name: about})
    return True


def _keep_grid(
    results: Path, workdir: Path, config: Mapping[str, Any], summary: Mapping[str, Any]
) -> None:
    versions = json.loads((workdir / "versions.json").read_text())
    stated = json.loads(noise.get_config(config["name"]).to_json())
    free = (*_FREE_KEYS, *_SHOWN_KEYS, "data")
    if changed := [key for key in stated if config[key] != stated[key] and key not in free]:
        wrong = ", ".join(changed)
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    if not versions["data"]["full"]:
        raise UserError(f"{workdir} was not run on the full set: {versions['data']['caption']}")
    (net,) = config["nets"]
    cells = [json.loads(line) for line in (workdir / "cells.jsonl").read_text().splitlines()]
    order = sorted({(cell["actual"], cell["image"]) for cell in cells})[:MOST_IMAGES]
    rows = [[cell for cell in cells if cell["image"] == image] for _, image in order]
    rows = [sorted(row, key=lambda cell: cell["target"]) for row in rows]
    content = _sheet(workdir, rows)
    name = f"{config['dataset']}-{config['method']}"
    run_directory.replace(results / f"grid_{name}.png", content)
    kept = {
        "command": _command(config, stated),
        "dataset": config["dataset"],
        "method": config["method"],
        "net": net.partition(":")[2],
        "epochs": next(iter(summary["nets"].values()))["epochs"],
        "words": summary["sample"],
        "sheet_sha256": hashlib.sha256(content).hexdigest(),
        "images": [{"image": image, "actual": actual} for actual, image in order],
        "cells": [[{key: _short(cell[key]) for key in _NUMBERS} for cell in row] for row in rows],
        "data": {k: v for k, v in versions["data"].items() if k != "source"},
        "device": versions["device"],
        "packages": versions["packages"],
        "git_commit": versions["git_commit"],
    }
    path = results / GRIDS
    run_directory.write_json(
        path, (json.loads(path.read_text()) if path.exists() else {}) | {name: kept}
    )


def _sheet(workdir: Path, rows: Sequence[Sequence[Mapping[str, Any]]]) -> bytes:
    """All pictures of the rows as one PNG, originals in the first column."""
    lines = [
        [attack_files.read_png(workdir / "clean" / f"{row[0]['image']:05d}.png")]
        + [attack_files.read_png(workdir / cell["file"]) for cell in row]
        for row in rows
    ]
    pixels = np.concatenate([np.concatenate(line, axis=1) for line in lines])
    stream = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _command(config: Mapping[str, Any], stated: Mapping[str, Any]) -> str:
    words = [f"python -m research.main --config=configs/noise.py:{config['name']}"]
    for key in ("method", "classes", "per_class", "baselines"):
        if config[key] != stated[key]:
            value = tuple(config[key]) if isinstance(config[key], list) else config[key]
            words.append(shlex.quote(f"--config.{key}={value}".replace(", ", ",")))
    return " ".join([*words, "--config.data.dir=DIR"])


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
