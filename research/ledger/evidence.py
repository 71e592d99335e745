"""Evidence: the samples behind a key such as "depth:test_accuracy.tanh-40".

Before the colon stands the name of a published run.  After it comes the way through what `facts`
gives of the run, and perhaps what is done at its end:
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

from research.ledger import published
from research.ledger.tables import cells, depth, masks
from research.storage.run_directory import Run
from research.structs import UserError

Facts = Mapping[str, Mapping[str, Any]]  # by the name of the run
_LAST = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def read(results: Path) -> dict[str, dict[str, Any]]:
    """{name: facts} of the runs in a directory such as results/.

    Runs that are missing are left out.  Raises UserError for a file that is damaged.
    """
    runs = published.read(results)
    return {name: facts(run) for name, run in runs.items() if run.experiment in _FACTS}


def of_run(run: Run) -> dict[str, dict[str, Any]]:
    """{name: facts} of one run of whatever experiment; {} if it judges nothing.

    Raises UserError if it is not of a configuration that is published, or does not say what its
    nets were made from.
    """
    name = published.name_of(run)
    published.check_origins(run)
    return {name: facts(run)} if run.experiment in _FACTS else {}


def of_benchmark(root: Path, name: str) -> dict[str, Any]:
    """What benchmarks/<name>.py has measured: benchmarks/results/<name>.json under the root.

    Raises UserError naming a file that cannot be read.
    """
    path = root / "benchmarks" / "results" / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def facts(run: Run) -> dict[str, Any]:
    """What a run says of its experiment, as plain data; {"shortfall", "data", "epochs"} of any.

    shortfall: why it may judge no claim, see `published.shortfall`.
    """
    common = {"shortfall": published.shortfall(run), "data": run.versions["data"]}
    return {**common, "epochs": run.config.get("epochs"), **_FACTS[run.experiment](run)}


def _of_depth(run: Run) -> dict[str, Any]:
    last = {key: {name: net.summary[key] for name, net in run.nets.items()} for key in _LAST}
    return {**last, "gradients": {name: depth.gradients(net) for name, net in run.nets.items()}}


def _of_classifier(run: Run) -> dict[str, Any]:
    return {"test_accuracy": [seed["accuracy"] for seed in run.summary["test"]]}


def _of_attack(run: Run) -> dict[str, Any]:
    """horse: whether the report's is attacked."""
    first = next(iter(run.nets.values()))
    return {
        "epochs": first.summary["epochs"],
        "horse": cells.horse_of(run) in run.config["extra_indices"],
        **cells.of_attack(run),
    }


def _of_masks(run: Run) -> dict[str, Any]:
    """Of a run that only prepares photographs the faces `annotated` {label: n} and `usable`."""
    if run.config["mode"] == "ingest":
        about = run.versions["data"]["about"]
        (annotated,), (usable,) = about["annotated"].values(), about["usable"].values()
        return {"annotated": annotated, "usable": sum(usable.values())}
    return {**run.summary, "data": run.versions["data"], "curves": masks.curves(run)}


_FACTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "depth": _of_depth,
    "classifiers": _of_classifier,
    "noise": _of_attack,
    "masks": _of_masks,
}


def samples(by_run: Facts, key: str) -> np.ndarray:
    """The numbers behind a key as float64, one a seed [S] or a table [epoch, layer].

    Raises KeyError if there is no such run or entry in it.
    """
    name, _, way = key.partition(":")
    way, _, operation = way.partition("|")
    entries: list[Any] = [by_run[name]]
    for step in way.split("."):
        entries = [entry[word] for entry in entries for word in step.split(",")]
    arrays = [np.array(entry, np.float64) for entry in entries]  # null becomes NaN
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
