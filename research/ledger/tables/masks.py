"""Tables of the face masks: what the data hold, how well nets tell them, what the report saw."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import masks
from research.storage import run_directory
from research.structs import UserError

PICTURES = "masks_pictures.json"  # in results/: what is known of pictures that have no table
SOURCES = ("voc", "json", "folders")
# Keys that may differ from the stated configuration, for they do not change what is measured.
_FREE_KEYS = (
    *("seeds", "eval_batch_size", "steps_per_dispatch"),
    *("cpu_devices", "cpu_threads", "data_devices"),
)
_FREE_DATA_KEYS = ("voc", "json", "folders", "tfds_dir")
_PARTS = ("train", "test")
_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def counts_table(result: Mapping[str, Any]) -> str:
    """Markdown table of the data by source and class, from results/masks.json."""
    data = next(iter(result.values()))["data"]
    about = data["about"]
    lines = [
        "| source | class | annotated | usable | train | copies | test | score |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for source in (source for source in SOURCES if source in about["annotated"]):
        for label, annotated in sorted(about["annotated"][source].items()):
            parts = [about["usable"], about["splits"]["train"], about["copies"]]
            parts += [about["splits"]["test"], about["splits"]["score"]]
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


def table(result: Mapping[str, Any]) -> str:
    """Markdown table of the nets, a row for each source, from results/masks.json."""
    lines = [
        "| net | faces of | test: faces | accuracy (%) | sd | 95 % | majority (%) | AUC | "
        "score: faces | accuracy (%) | 95 % | majority (%) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    for name, run in result.items():
        for source, group in run["test"].items():
            score = run["score"].get(source)
            sd = "-" if group["sd"] is None else f"{100 * group['sd']:.1f}"
            auc = "-" if group["auc"] is None else f"{group['auc']:.4f}"
            right = f"{score['count']:,} | {_accuracy(score)}" if score else "- | - | - | -"
            lines.append(
                f"| {name} | {source} | {group['count']:,} | "
                f"{_percent(group['accuracy'])} | {sd} | {_interval(group)} | "
                f"{_percent(group['majority'])} | {auc} | {right} |"
            )
        notes.append(
            f"{name}: {run['parameters']:,} parameters, {len(run['seeds'])} seeds, trained for "
            f"{_listed(run['epochs_trained'])} epochs, lowest test loss after epochs "
            f"{_listed(run['best_epoch'])}; "
            f"`{run['command']}`."
        )
    first = next(iter(result.values()))
    notes.append(f"Device: {first['device']}, jax {first['packages']['jax']}.")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def trends_table(result: Mapping[str, Any]) -> str:
    """Markdown table of what the report saw in training, and what the same net did here."""
    run = result["vgg"]
    curves = {key: _columns(run["curves"][key]) for key in _CURVES}
    seeds = len(run["seeds"])
    falls = [bool(np.all(np.diff(loss) < 0)) for loss in curves["train_loss"]]
    turns = [_turns(loss) for loss in curves["test_loss"]]
    ends = {key: [(100 * c[0], 100 * c[-1]) for c in curves[f"{key}_accuracy"]] for key in _PARTS}
    behind = [100 * (accuracy.max() - accuracy[-1]) for accuracy in curves["test_accuracy"]]
    rows = [
        ("F17, F23", "stops after epoch 14 of 30", f"after {_listed(run['epochs_trained'])}"),
        ("F19", "training accuracy 79.7 → 98.0 %", _from_to(ends["train"])),
        ("F20", "test accuracy 84.1 → 86.8 %", _from_to(ends["test"])),
        ("F21", "training loss falls in every epoch", f"in {sum(falls)} of {seeds} seeds"),
        ("F22", "test loss fluctuates", f"it turns {_listed(turns)} times"),
        ("F32", "the kept net is 1.3 points behind the best epoch",
         f"{_listed(f'{value:.1f}' for value in behind)} points"),
    ]  # fmt: skip
    return "\n".join(
        ["| claim | the report | here, by seed |", "|---|---|---|"]
        + [f"| {claim} | {said} | {found} |" for claim, said, found in rows]
    )


def collect(workdir: Path) -> dict[str, Any]:
    """{net: what results/masks.json keeps of a run}, paths of the machine left out.

    Raises UserError if the run is not finished, is of drawn faces, or differs from the stated
    configuration in more than its data and the number of seeds.
    """
    summary = run_directory.finished_summary(workdir)
    if summary is None or "epochs_trained" not in summary:
        raise UserError(f"{workdir} holds no finished run of a mask classifier")
    versions = json.loads((workdir / "versions.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    if config["name"] not in masks.VARIANTS[:2]:
        raise UserError(f"{workdir} holds {config['name']!r}, not one of {masks.VARIANTS[:2]}")
    stated = json.loads(masks.get_config(config["name"]).to_json())
    config = run_directory.complete(config, stated)
    changed = _changed(config, stated, (*_FREE_KEYS, "data"))
    changed += _changed(config["data"], stated["data"], _FREE_DATA_KEYS)
    if changed:
        wrong = ", ".join(changed)
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    given = [source for source in SOURCES if config["data"][source]]
    kept = ("seeds", "epochs_trained", "best_epoch", "test", "score", "parameters", "seconds")
    rows = run_directory.rows(workdir)
    return {
        config["name"]: {
            "command": " ".join(
                [f"python -m research.main --config=configs/masks.py:{config['name']}"]
                + [f"--config.seeds={config['seeds']}"]
                + [f"--config.data.{source}=DIR/{source}" for source in given]
            ),
            **{key: summary[key] for key in (*kept, "peak_memory_mib")},
            "curves": {key: [row[key] for row in rows] for key in _CURVES},
            "data": summary["data"],
            "device": versions["device"],
            "packages": versions["packages"],
            "git_commit": versions["git_commit"],
        }
    }


def picture_of(workdir: Path, summary: Mapping[str, Any]) -> tuple[str, Path] | None:
    """The name in results/ of a picture that is shown for itself, and its file in a run, if any.

    Samples of the drawn faces are from a run of `smoke`, the portrait from `research.predict`.
    """
    if summary.get("net") == "smoke" and "epochs_trained" in summary:
        return "masks_samples.png", workdir / "figures" / "samples.png"
    if "photographs" in summary:
        return "masks_portrait.png", next(iter(sorted(workdir.rglob("*-panels.png"))))
    return None


def collect_picture(results: Path, workdir: Path, summary: Mapping[str, Any]) -> None:
    """Copy the picture of a run to results/, and note its checksum in masks_pictures.json."""
    found = picture_of(workdir, summary)
    assert found is not None
    name, file = found
    path = results / PICTURES
    kept = json.loads(path.read_text()) if path.exists() else {}
    content = file.read_bytes()
    _ = (results / name).write_bytes(content)
    about = {"sha256": hashlib.sha256(content).hexdigest(), "headline": summary["headline"]}
    run_directory.write_json(path, kept | {name: about})


def _changed(found: Mapping[str, Any], stated: Mapping[str, Any], free: Sequence[str]) -> list[str]:
    return [key for key in stated if found[key] != stated[key] and key not in free]


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


def _accuracy(group: Mapping[str, Any]) -> str:
    shown = _percent(group["accuracy"]), _interval(group), _percent(group["majority"])
    return " | ".join(shown)


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def _from_to(pairs: Sequence[tuple[float, float]]) -> str:
    return "; ".join(f"{first:.1f} → {last:.1f} %" for first, last in pairs)
