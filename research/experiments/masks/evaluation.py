"""Evaluation of a trained mask classifier: metrics by split and source, and the figures."""

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


class Predictions(NamedTuple):
    """Logits [S, N, K] float32 of every seed's net, by split, and the faces they belong to."""

    logits: Mapping[str, np.ndarray]
    masks: dataset.Masks

    def metrics(self, split: str) -> dict[str, Any]:
        """The metrics of a split: {"all" or a source: see `group_metrics`}; {} of an empty one."""
        if split not in self.logits:
            return {}
        faces, names = self.masks.splits[split], self.masks.names
        labels = np.asarray(faces.data.labels)
        by_source = {"all": group_metrics(self.logits[split], labels, names)}
        for source in annotations.LAYOUTS:
            of = faces.sources == source
            if of.any():
                by_source[source] = group_metrics(self.logits[split][:, of], labels[of], names)
        return by_source


def predict(
    task: trainer.Task,
    params: PyTree,
    seeds: int,
    masks: dataset.Masks,
    into: Path,
    predicted_splits: Sequence[str] = ("val", "test"),
) -> Predictions:
    """Predictions of every seed's net, params [S, ...], written to into/predictions_<split>.npz."""
    logits: dict[str, np.ndarray] = {}
    for split in predicted_splits:
        data = masks.splits[split].data
        if len(data.labels):
            logits[split] = predict_all(task.model, params, data.images, task.loop, seeds=seeds)
            arrays = {"logits": logits[split], "labels": np.asarray(data.labels)}
            run_directory.write_arrays(into / f"predictions_{split}.npz", arrays)
    return Predictions(logits, masks)


def group_metrics(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Metrics on a group of faces: logits [S, N, K], labels [N], names of the K classes.

    accuracy, auc: means over the seeds; accuracies: of each.  sd: over seeds, None for one.
    interval: Wilson's, 95 %, of the mean accuracy, for so many faces.  majority: share of the
    largest class.  auc: of the first class against the others; None if there is only one kind.
    classes: {class that has faces: see `share_of`}.  confusion: counts of all seeds together, rows
    actual, columns predicted.
    """
    predicted = logits.argmax(axis=-1)
    right = predicted == labels
    hits = right.sum(axis=1)
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
        "classes": {
            name: share_of(right[:, labels == k])
            for k, name in enumerate(names)
            if (labels == k).any()
        },
        "confusion": np.sum(
            [scores.confusion(each, labels, len(names)) for each in predicted], axis=0
        ).tolist(),
    }


def share_of(right: np.ndarray) -> dict[str, Any]:
    """What share of some faces every seed's net gets right: right [S, N] bool.

    share: mean over the seeds.  interval: Wilson's, 95 %, of it, for so many faces.  rights: how
    many, by seed.
    """
    count, rights = right.shape[1], right.sum(axis=1)
    return {
        "count": count,
        "share": float(rights.mean() / count),
        "interval": list(scores.wilson_interval(round(float(rights.mean())), count)),
        "rights": rights.tolist(),
    }


def draw(task: trainer.Task, predictions: Predictions, into: Path, data: str, caption: str) -> None:
    """Write the figures of a run into `into`/figures: of its training faces and its predictions.

    data, caption: lines below the figures, on the data alone and with the settings.
    """
    rows = run_directory.rows(into)
    run_directory.save_figures(into, lambda: _figures(task.name, predictions, rows, data, caption))


def _figures(
    name: str, predictions: Predictions, rows: Sequence[Mapping[str, Any]], data: str, caption: str
) -> dict[str, Any]:
    masks, names = predictions.masks, predictions.masks.names
    drawn = {
        "samples": _samples(masks, data),
        "balance": _balance(masks, data),
        "learning_curves": draw_curves_with_stop(
            rows, title=f"{name}: learning curves", caption=caption
        ),
    }
    for split, logits in predictions.logits.items():
        labels = np.asarray(masks.splits[split].data.labels)
        counts = [scores.confusion(each.argmax(-1), labels, len(names)) for each in logits]
        over = f", {len(logits)} seeds together" if len(logits) > 1 else ""
        drawn[f"confusion_{split}"] = pictures.draw_confusion(
            np.sum(counts, axis=0),
            names,
            title=f"{name}: confusion on the {split} faces{over}",
            caption=caption,
        )
    curves = {f"{split} faces": _roc(predictions, split) for split in predictions.logits}
    if drawable := {split: seeds for split, seeds in curves.items() if seeds}:
        drawn["roc"] = figures.draw_roc(drawable, title=f"{name}: {names[0]}", caption=caption)
    shown = "test" if "test" in predictions.logits else "val"
    what = "faces never seen before" if shown == "test" else "validation faces"
    drawn["scored"] = _scored(predictions, shown, f"{name}: {what}", caption)
    mistakes = _mistakes(predictions, shown, name, caption)
    return drawn | ({"mistakes": mistakes} if mistakes else {})


def _samples(masks: dataset.Masks, caption: str) -> Any:
    """Some faces of every source, and augmented copies (report, Figs. 10, 12, 13 and 14)."""
    train_faces = masks.splits["train"]
    rows: dict[str, np.ndarray] = {}
    titles: dict[str, list[str]] = {}
    for source in annotations.LAYOUTS:
        of = np.flatnonzero((train_faces.sources == source) & ~train_faces.synthetic)
        if len(of):
            titles[source], rows[source] = _row(train_faces, masks.names, of)
    copies = np.flatnonzero(train_faces.synthetic)
    if len(copies):
        titles["copies"], rows["copies"] = _row(train_faces, masks.names, copies)
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


def _balance(masks: dataset.Masks, caption: str) -> Any:
    """Faces to learn from, before and after copies are added."""
    before = masks.about["splits"]["train"]
    after = figures.add_copies(before, masks.about["copies"])
    title = "Faces to learn from, without and with augmented copies"
    return figures.draw_balance(before, after, title=title, caption=caption)


def _roc(predictions: Predictions, split: str) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Curves of the first class against the others, one a seed; none if only one kind is there."""
    positive = np.asarray(predictions.masks.splits[split].data.labels) == 0
    if positive.all() or not positive.any():
        return []
    return [scores.roc(scores.softmax(each)[:, 0], positive) for each in predictions.logits[split]]


def _scored(predictions: Predictions, split: str, title: str, caption: str) -> Any:
    """The first faces of a split with the first seed's answers (report, Fig. 18)."""
    data = predictions.masks.splits[split].data
    chances = scores.softmax(predictions.logits[split][0])
    # In another order than that of the photographs, so that all sources are shown.
    count = min(SHOWN, len(chances))
    places = np.sort(np.random.default_rng(0).permutation(len(chances))[:count])
    return figures.draw_scored(
        np.asarray(data.images[places]),
        np.asarray(data.labels)[places],
        chances[places].argmax(axis=-1),
        chances[places].max(axis=-1),
        predictions.masks.names,
        title=title,
        caption=caption,
    )


def _mistakes(predictions: Predictions, split: str, name: str, caption: str) -> Any:
    """The first seed's most confident mistakes, or None if it makes none."""
    data, names = predictions.masks.splits[split].data, predictions.masks.names
    labels = np.asarray(data.labels)
    chances = scores.softmax(predictions.logits[split][0])
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
