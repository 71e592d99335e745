"""Tables of the face masks: what the data hold, how well nets tell them, what the report saw."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.faces.matching import OVERLAP
from research.ledger.published import command
from research.storage.run_directory import Run

SOURCES = ("voc", "json", "folders")
_PARTS = ("train", "val")
_CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def counts_table(run: Run) -> str:
    """Markdown table of the data by source and class."""
    data = run.versions["data"]
    about = data["about"]
    lines = [
        "| source | class | annotated | usable | train | copies | val | test |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for source in (source for source in SOURCES if source in about["annotated"]):
        for label, annotated in sorted(about["annotated"][source].items()):
            parts = [about["usable"], about["splits"]["train"], about["copies"]]
            parts += [about["splits"]["val"], about["splits"]["test"]]
            numbers = [part.get(source, {}).get(label, 0) for part in parts]
            shown = " | ".join(f"{number:,}" for number in numbers)
            lines.append(f"| {source} | {label} | {annotated:,} | {shown} |")
    lines += [
        "",
        f"- {data['caption']}; {about['problems']:,} problems in the files, each named in "
        f"problems.csv; {about['near_duplicates']:,} pairs of photographs that look alike across "
        "splits.",
    ]
    return "\n".join(lines)


def table(runs: Sequence[Run]) -> str:
    """Markdown table of the nets, a row for each source of each run."""
    lines = [
        "| net | faces of | val: faces | accuracy (%) | sd | 95 % | majority (%) | AUC | "
        "test: faces | accuracy (%) | 95 % | majority (%) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    for run in runs:
        summary, name = run.summary, run.name
        for source, group in summary["val"].items():
            test = summary["test"].get(source)
            sd = "-" if group["sd"] is None else f"{100 * group['sd']:.1f}"
            auc = "-" if group["auc"] is None else f"{group['auc']:.4f}"
            right = f"{test['count']:,} | {_accuracy(test)}" if test else "- | - | - | -"
            lines.append(
                f"| {name} | {source} | {group['count']:,} | "
                f"{_percent(group['accuracy'])} | {sd} | {_interval(group)} | "
                f"{_percent(group['majority'])} | {auc} | {right} |"
            )
        notes.append(
            f"{name}: {summary['parameters']:,} parameters, {len(summary['seeds'])} seeds, "
            f"trained for {_listed(summary['epochs_trained'])} epochs, lowest validation loss "
            f"after epochs {_listed(summary['best_epoch'])}; `{command(run)}`."
        )
    versions = runs[0].versions
    notes.append(f"Device: {versions['device']}, jax {versions['packages']['jax']}.")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def end_to_end_table(runs: Sequence[Run]) -> str:
    """Markdown table of what is found in whole photographs and called right, by detector."""
    detectors = dict.fromkeys(name for run in runs for name in run.summary["end_to_end"])
    columns = "".join(f" {name}: found | and right (%) | 95 % |" for name in detectors)
    lines = [f"| net | faces of | class | annotated |{columns}"]
    lines.append("|---|---|---|---:|" + "---:|" * (3 * len(detectors)))
    for run in runs:
        measured = run.summary["end_to_end"]
        by_detector = [measured.get(name, {}).get("sources", {}) for name in detectors]
        for source, classes in by_detector[0].items():
            if source == "all" and len(by_detector[0]) == 2:
                continue  # the same as those of the only source
            for name, cell in classes.items():
                shown = f"{cell['count']:,}"
                for sources in by_detector:
                    each = sources[source][name]
                    shown += f" | {each['found']:,} | {_share(each)}"
                lines.append(f"| {run.name} | {source} | {name} | {shown} |")
    seeds = ", ".join(f"{run.name} {len(run.summary['seeds'])}" for run in runs)
    notes = [
        "Of the photographs of the test faces, and of as large a part of those in which no face "
        "could be cut out. A face is found if a box, the best one first, has at least "
        f"{OVERLAP:g} of intersection over union with it; a person without an annotated box if any "
        f"face is found, of which the largest counts. Right: mean over the seeds ({seeds}).",
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def both_ways_table(runs: Sequence[Run]) -> str:
    """Markdown table of the same faces cut by annotated and by detected boxes."""
    lines = [
        "| net | detector | class | faces | annotated box: right (%) | 95 % | "
        "detected box: right (%) | 95 % |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for run in runs:
        for detector, measured in run.summary["end_to_end"].items():
            if not (ways := [*measured["both_ways"].values()]):
                continue
            everything = [{**way, "share": way["accuracy"]} for way in ways]
            rows = {"all": everything}
            rows |= {name: [way["classes"][name] for way in ways] for name in ways[0]["classes"]}
            lines += [
                f"| {run.name} | {detector} | {name} | {pair[0]['count']:,} | "
                f"{' | '.join(map(_share, pair))} |"
                for name, pair in rows.items()
            ]
    return "\n".join(lines)


def classes_table(runs: Sequence[Run]) -> str:
    """Markdown table of the recall of every class, and what its faces are called."""
    names = max((run.summary["names"] for run in runs), key=len)
    called = "".join(f" called {name} |" for name in names)
    lines = [f"| net | faces | class | number | recall (%) | 95 % |{called}"]
    lines.append("|---|---|---|---:|---:|---:|" + "---:|" * len(names))
    for run in runs:
        known, seeds = run.summary["names"], len(run.summary["seeds"])
        for split in ("val", "test"):
            group = run.summary[split]["all"]
            for name, cell in group["classes"].items():
                counts = dict(zip(known, group["confusion"][known.index(name)], strict=True))
                shown = [f"{counts[each] / seeds:.1f}" if each in counts else "-" for each in names]
                lines.append(
                    f"| {run.name} | {split} | {name} | {cell['count']:,} | {_share(cell)} | "
                    f"{' | '.join(shown)} |"
                )
    return "\n".join(lines)


def curves(run: Run) -> dict[str, list[Any]]:
    """{"val_loss": [E, S], ...}: null after the epoch at which a seed stopped."""
    return {key: [row[key] for row in run.metrics] for key in _CURVES}


def trends_table(run: Run) -> str:
    """Markdown table of what the report saw in training, and what the same net did here."""
    by_seed = {key: _columns(rows) for key, rows in curves(run).items()}
    seeds, trained = len(run.summary["seeds"]), run.summary["epochs_trained"]
    falls = [bool(np.all(np.diff(loss) < 0)) for loss in by_seed["train_loss"]]
    turns = [_turns(loss) for loss in by_seed["val_loss"]]
    ends = {key: [(100 * c[0], 100 * c[-1]) for c in by_seed[f"{key}_accuracy"]] for key in _PARTS}
    behind = [100 * (accuracy.max() - accuracy[-1]) for accuracy in by_seed["val_accuracy"]]
    rows = [
        ("F17, F23", "stops after epoch 14 of 30", f"after {_listed(trained)}"),
        ("F19", "training accuracy 79.7 → 98.0 %", _from_to(ends["train"])),
        ("F20", "validation accuracy 84.1 → 86.8 %", _from_to(ends["val"])),
        ("F21", "training loss falls in every epoch", f"in {sum(falls)} of {seeds} seeds"),
        ("F22", "validation loss fluctuates", f"it turns {_listed(turns)} times"),
        ("F32", "the kept net is 1.3 points behind the best epoch",
         f"{_listed(f'{value:.1f}' for value in behind)} points"),
    ]  # fmt: skip
    return "\n".join(
        ["| claim | the report | here, by seed |", "|---|---|---|"]
        + [f"| {claim} | {reported} | {ours} |" for claim, reported, ours in rows]
    )


def _columns(rows: Sequence[Any]) -> list[np.ndarray]:
    """One array a seed, as long as it was trained."""
    table = np.array([np.atleast_1d(row) for row in rows], np.float64)
    return [column[np.isfinite(column)] for column in table.T]


def _turns(values: np.ndarray) -> int:
    """How often a curve changes between falling and rising."""
    signs = np.sign(np.diff(values))
    return int((signs[1:] != signs[:-1]).sum())


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(group: Mapping[str, Any]) -> str:
    low, high = group["interval"]
    return f"{_percent(low)} - {_percent(high)}"


def _share(cell: Mapping[str, Any]) -> str:
    return f"{_percent(cell['share'])} | {_interval(cell)}"


def _accuracy(group: Mapping[str, Any]) -> str:
    shown = _percent(group["accuracy"]), _interval(group), _percent(group["majority"])
    return " | ".join(shown)


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def _from_to(pairs: Sequence[tuple[float, float]]) -> str:
    return "; ".join(f"{first:.1f} → {last:.1f} %" for first, last in pairs)
