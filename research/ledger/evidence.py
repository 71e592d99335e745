"""What the records say: samples behind a key such as "depth:test_accuracy.tanh-40".

A record is what is kept of one run: a file of results/, or an entry of one.  After the colon comes
the way through its tables, and perhaps what is done at its end:
  a,b,c    of several entries, one row each
  |first, |last     of a curve [epoch][seed]: what each seed has in its first, its last epoch
  |rises, |turns    in how many epochs a seed's curve rises; how often it changes direction
  |highest, |lowest of several rows: of every seed the highest, the lowest
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.ledger.tables import cells, classifiers, depth
from research.ledger.tables import masks as mask_tables
from research.ledger.tables import noise as noise_tables
from research.storage import run_directory
from research.structs import UserError

Records = Mapping[str, Mapping[str, Any]]
WHOLE = ("depth", "gradients")  # files that are one record; others hold one an entry
ENTRIES = ("classifiers", "hypotheses", "noise", "cells", "masks")


def read(results: Path) -> dict[str, dict[str, Any]]:
    """{name: record} of a directory such as results/.  Raises UserError for a file that is broken.

    Files that are missing are records that are missing.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in (*WHOLE, *ENTRIES):
        path = results / f"{name}.json"
        if not path.exists():
            continue
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error})") from error
        entries = {name: content} if name in WHOLE else {f"{name}.{k}": content[k] for k in content}
        found |= entries
    return found


def of_run(workdir: Path, *, any_data: bool = True) -> dict[str, dict[str, Any]]:
    """{name: record} of a run directory, whatever its experiment.

    any_data: whether a run on the sample or on drawn images is taken; nothing is judged by it.
    Raises UserError if there is no finished run, or it is of no configuration that has records.
    """
    summary = run_directory.finished_summary(workdir) or {}
    if "method" in summary:
        found: dict[str, dict[str, Any]] = {}
        if summary["method"] == "faithful" and "mlp" not in summary.get("name", ""):
            found |= cells.collect(workdir, any_data=any_data)
        if any(key.startswith("cells.cifar10") for key in found):
            return found  # of one image alone: no row of the table of attacks
        kept = noise_tables.collect(workdir)
        return found | {f"noise.{name}": content for name, content in kept.items()}
    if "epochs_trained" in summary:
        kept = mask_tables.collect(workdir)
        return {f"masks.{name}": content for name, content in kept.items()}
    if "nets" in summary:
        return depth.collect(workdir, any_data=any_data)
    return classifiers.collect(workdir, any_data=any_data)


def counts(content: Mapping[str, Any]) -> bool:
    """Whether a record may judge a claim: it is of the whole data set, or of real faces."""
    data = content["data"]
    # Faces have no whole set; runs on drawn ones are not collected.
    return bool(data["full"]) if "full" in data else "about" in data


def samples(records: Records, key: str) -> np.ndarray:
    """The numbers behind a key as float64, one a seed [S] or a table [epoch, layer].

    Raises KeyError if there is no such record or entry in it.
    """
    name, _, way = key.partition(":")
    way, _, operation = way.partition("|")
    found: list[Any] = [records[name]]
    for step in way.split("."):
        found = [entry[word] for entry in found for word in step.split(",")]
    arrays = [np.array(entry, np.float64) for entry in found]  # null becomes NaN
    values = arrays[0] if len(arrays) == 1 else np.stack(arrays)
    return _OPERATIONS[operation](values) if operation else np.atleast_1d(values)


def _columns(curve: np.ndarray) -> Iterable[np.ndarray]:
    table = curve if curve.ndim == 2 else curve[:, None]
    return (column[np.isfinite(column)] for column in table.T)


def _each(measure: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda curve: np.array([measure(column) for column in _columns(curve)], np.float64)


def _turns(values: np.ndarray) -> float:
    signs = np.sign(np.diff(values))
    return float((signs[1:] != signs[:-1]).sum())


_OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": _each(lambda column: float(column[0])),
    "last": _each(lambda column: float(column[-1])),
    "rises": _each(lambda column: float((np.diff(column) > 0).sum())),
    "turns": _each(_turns),
    "highest": lambda rows: rows.max(axis=0),
    "lowest": lambda rows: rows.min(axis=0),
}
