"""From a finished run to results/: the part of its directory that tables, ledger and page read."""

import io
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from research.ledger import published
from research.ledger.tables import depth
from research.runtime import files
from research.storage import records
from research.storage.run_directory import Run
from research.structs import UserError

_QUALITY = 85  # of WebP


def trim(run: Run, results: Path) -> str:
    """Write the trimmed run into a folder of `results`, in the place of what is there; its name.

    Paths of the machine are left out, and of the nets of the depth study over_seeds.json takes the
    place of metrics.jsonl and gradients.npz, which hold every seed.
    Raises UserError if the run is not of a configuration that is published, not made from the whole
    of known data, or not what was written; nothing is changed then.
    """
    name = published.name_of(run)
    published.check_origins(run)
    shows_drawn = run.experiment == "predict" or run.config["data"].get("drawn")  # judge nothing
    if not shows_drawn and (reason := published.shortfall(run)):
        raise UserError(f"{run.path} was not run on the full set: {reason}")
    config, versions, summary = published.without_places(run)
    content = {
        f"{part}.json": compact(kept).encode()
        for part, kept in (("config", config), ("versions", versions), ("summary", summary))
    }
    if name == "depth":
        for net, part in run.nets.items():
            kept = {"curves": depth.curves(part), "gradients": depth.gradients(part)}
            content[f"{net}/over_seeds.json"] = compact(kept).encode()
    for pattern in published.PUBLISHED[name].files:
        for path in _matching(run.path, pattern):
            target = path.relative_to(run.path)
            kept = records.read_listed(
                run.path, target.as_posix(), run.digests, bytes, remedy="make the run again"
            )
            if pattern.endswith(".webp") and path.suffix != ".webp":
                kept, target = _to_webp(kept), target.with_suffix(".webp")
            content[str(target)] = kept
    folder = results / name
    shutil.rmtree(folder, ignore_errors=True)
    for target, kept in content.items():
        files.make_folder((folder / target).parent)
        files.replace(folder / target, kept)
    records.write_digests(folder, records.digests(folder, content))
    return name


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a run that a pattern of `Published.files` names; raises UserError for none."""
    source = pattern.removesuffix(".webp") + ".png" if pattern.endswith(".webp") else pattern
    paths = sorted(folder.glob(source)) or sorted(folder.glob(pattern))
    if not paths:
        raise UserError(f"{folder / source} is missing, which results/ keeps of such a run")
    return paths


def _to_webp(picture: bytes) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(stream, "WEBP", quality=_QUALITY, method=6)
    return stream.getvalue()


def compact(content: Mapping[str, Any]) -> str:
    """JSON text with a line for each list of numbers, so that a change shows as one line."""
    lines = json.dumps(content, indent=1)
    lists = r"\[(\n[^\[\]{}\"]*)\]"  # what looks like a list inside a text has no line break
    return re.sub(lists, lambda match: f"[{' '.join(match[1].split())}]", lines) + "\n"
