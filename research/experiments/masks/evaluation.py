"""A trained mask classifier, judged: numbers by split and source, and the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.experiments import trainer
from research.faces import annotations, dataset
from research.figures import classifiers as pictures
from research.figures import masks as figures
from research.figures.curves import draw_curves_with_stop
from research.storage import run_directory
from research.structs import PyTree
from research.training import scores
from research.training.evaluate import predict_all

SHOWN = 25  # test faces in the picture of Fig. 18
MISTAKES = 20


class Judged(NamedTuple):
    """Logits [S, N, K] of every seed's net, by split, and the faces they are of."""

    logits: Mapping[str, np.ndarray]
    found: dataset.Masks

    def groups(self, split: str) -> dict[str, Any]:
        """The numbers of a split: {"all" or a source: see `group`}; {} of an empty one."""
        if split not in self.logits:
            return {}
        faces = self.found.splits[split]
        labels = np.asarray(faces.data.labels)
        numbers = {"all": group(self.logits[split], labels)}
        for source in annotations.LAYOUTS:
            of = faces.sources == source
            if of.any():
                numbers[source] = group(self.logits[split][:, of], labels[of])
        return numbers


def judge(
    task: trainer.Task,
    params: PyTree,
    seeds: int,
    found: dataset.Masks,
    into: Path,
    only: Sequence[str] = ("val", "test"),
) -> Judged:
    """Predictions of every seed's net, params [S, ...], written to predictions_<split>.npz."""
    logits: dict[str, np.ndarray] = {}
    for split in only:
        data = found.splits[split].data
        if len(data.labels):
            logits[split] = predict_all(task.model, params, data.images, task.loop, seeds=seeds)
            arrays = {"logits": logits[split], "labels": np.asarray(data.labels)}
            run_directory.write_arrays(into / f"predictions_{split}.npz", arrays)
    return Judged(logits, found)


def group(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Numbers of some faces: logits [S, N, K], labels [N].

    accuracy, auc: means over the seeds; accuracies: of each.  sd: over seeds, None for one.
    interval: Wilson's, 95 %, of the mean accuracy, for so many faces.  majority: share of the
    largest class.  auc: of the first class against the others; None if there is only one kind.
    """
    hits = (logits.argmax(axis=-1) == labels).sum(axis=1)
    positive = labels == 0
    auc = None
    if positive.any() and not positive.all():
        chances = [scores.softmax(each)[:, 0] for each in logits]
        auc = float(np.mean([scores.roc(chance, positive)[2] for chance in chances]))
    return {
        "count": len(labels),
        "accuracy": float(hits.mean() / len(labels)),
        "sd": float(np.std(hits / len(labels), ddof=1)) if len(hits) > 1 else None,
        "interval": list(scores.wilson_interval(round(float(hits.mean())), len(labels))),
        "majority": float(np.bincount(labels).max() / len(labels)),
        "accuracies": (hits / len(labels)).tolist(),
        "auc": auc,
    }


def draw(task: trainer.Task, judged: Judged, into: Path, data: str, caption: str) -> None:
    """Write the figures of a run into `into`/figures: what it learned from, and what it says.

    data, caption: what is said below them, of the data alone and with the settings.
    """
    rows = run_directory.rows(into)
    run_directory.save_figures(into, lambda: _figures(task.name, judged, rows, data, caption))


def _figures(
    name: str, judged: Judged, rows: Sequence[Mapping[str, Any]], data: str, caption: str
) -> dict[str, Any]:
    found, names = judged.found, judged.found.names
    drawn = {
        "samples": _samples(found, data),
        "balance": _balance(found, data),
        "learning_curves": draw_curves_with_stop(
            rows, title=f"{name}: learning curves", caption=caption
        ),
    }
    for split, logits in judged.logits.items():
        labels = np.asarray(found.splits[split].data.labels)
        counts = [scores.confusion(each.argmax(-1), labels, len(names)) for each in logits]
        over = f", {len(logits)} seeds together" if len(logits) > 1 else ""
        drawn[f"confusion_{split}"] = pictures.draw_confusion(
            np.sum(counts, axis=0),
            names,
            title=f"{name}: confusion on the {split} faces{over}",
            caption=caption,
        )
    curves = {f"{split} faces": _roc(judged, split) for split in judged.logits}
    if drawable := {split: seeds for split, seeds in curves.items() if seeds}:
        drawn["roc"] = figures.draw_roc(drawable, title=f"{name}: {names[0]}", caption=caption)
    shown = "test" if "test" in judged.logits else "val"
    what = "faces never seen before" if shown == "test" else "validation faces"
    drawn["scored"] = _scored(judged, shown, f"{name}: {what}", caption)
    mistakes = _mistakes(judged, shown, name, caption)
    return drawn | ({"mistakes": mistakes} if mistakes else {})


def _samples(found: dataset.Masks, caption: str) -> Any:
    """Some faces of every source, and varied copies (report, Figs. 10, 12, 13 and 14)."""
    train_faces = found.splits["train"]
    rows: dict[str, np.ndarray] = {}
    titles: dict[str, list[str]] = {}
    for source in annotations.LAYOUTS:
        of = np.flatnonzero((train_faces.sources == source) & ~train_faces.synthetic)
        if len(of):
            titles[source], rows[source] = _row(train_faces, found.names, of)
    copies = np.flatnonzero(train_faces.synthetic)
    if len(copies):
        titles["copies"], rows["copies"] = _row(train_faces, found.names, copies)
    title = "Faces to learn from, by source"
    return figures.draw_samples(rows, title=title, caption=caption, titles=titles)


def _row(
    faces: dataset.Faces, names: Sequence[str], of: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Classes and images of some faces, evenly out of those at `of`."""
    spread = np.linspace(0, len(of) - 1, min(figures.MOST_SAMPLES, len(of))).round().astype(int)
    places = of[spread]
    labels = np.asarray(faces.data.labels)[places].tolist()
    short = [str(names[label]).removesuffix("_mask") for label in labels]
    return short, np.asarray(faces.data.images[places])


def _balance(found: dataset.Masks, caption: str) -> Any:
    """Faces to learn from, before and after copies are added."""
    before: Mapping[str, Mapping[str, int]] = found.about["splits"]["train"]
    copies: Mapping[str, Mapping[str, int]] = found.about["copies"]
    after = {
        source: {label: n + copies.get(source, {}).get(label, 0) for label, n in counts.items()}
        for source, counts in before.items()
    }
    title = "Faces to learn from, without and with varied copies"
    return figures.draw_balance(before, after, title=title, caption=caption)


def _roc(judged: Judged, split: str) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Curves of the first class against the others, one a seed; none if only one kind is there."""
    positive = np.asarray(judged.found.splits[split].data.labels) == 0
    if positive.all() or not positive.any():
        return []
    return [scores.roc(scores.softmax(each)[:, 0], positive) for each in judged.logits[split]]


def _scored(judged: Judged, split: str, title: str, caption: str) -> Any:
    """The first faces of a split with the first seed's answers (report, Fig. 18)."""
    data = judged.found.splits[split].data
    chances = scores.softmax(judged.logits[split][0])
    # In another order than that of the photographs, so that all sources are shown.
    count = min(SHOWN, len(chances))
    places = np.sort(np.random.default_rng(0).permutation(len(chances))[:count])
    return figures.draw_scored(
        np.asarray(data.images[places]),
        np.asarray(data.labels)[places],
        chances[places].argmax(axis=-1),
        chances[places].max(axis=-1),
        judged.found.names,
        title=title,
        caption=caption,
    )


def _mistakes(judged: Judged, split: str, name: str, caption: str) -> Any:
    """The first seed's most confident mistakes, or None if it makes none."""
    data, names = judged.found.splits[split].data, judged.found.names
    labels = np.asarray(data.labels)
    chances = scores.softmax(judged.logits[split][0])
    wrong = np.flatnonzero(chances.argmax(axis=-1) != labels)
    if not len(wrong):
        return None
    order = wrong[np.argsort(-chances[wrong].max(axis=-1), kind="stable")[:MISTAKES]]
    titles = [
        f"{names[labels[i]]}\nsaid {names[chances[i].argmax()]} {chances[i].max():.0%}"
        for i in order
    ]
    return pictures.draw_examples(
        np.asarray(data.images[order]),
        titles,
        title=f"{name}: the most confident mistakes of {len(wrong):,} on the {split} faces",
        caption=caption,
    )
