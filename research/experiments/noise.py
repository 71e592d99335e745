"""Adversarial noise: which classifier can be made to say what, and how little does it take?

Report, Exercise 2, second half. Every image of a sample is attacked toward every class, each
success is judged on bytes and again from its file, and the nets are compared by norms, by robust
accuracy and by how their adversarial images transfer.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research import gallery, preemption, record
from research.adversarial import generate
from research.adversarial.cells import Method
from research.adversarial.faithful import Faithful
from research.adversarial.minimal import Minimal
from research.adversarial.pgd import NORMS, PGD
from research.data import standard
from research.experiments import album, attacked, nets, samples, training
from research.experiments.nets import Net
from research.experiments.samples import Sample
from research.types import Config, Dataset, UserError

METHODS = ("minimal", "faithful")
_LEVELS = 255


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Attack the nets of `config`, or go on where a killed run stopped.

    The first net's files lie in `workdir`, each other's in a directory of its name inside it.
    Returns the content of summary.json.  Raises UserError for a config, a data set, a picture or a
    directory that cannot be used.
    """
    check(config)
    data = training.load(config, config.dataset, download=config.data.download)
    train_set, test_set, source = data
    training.say(f"data: {source.caption()}")
    versions = record.describe_versions(training.describe_data(source))
    with record.locked(workdir):
        finished = record.finished_summary(workdir)
        record.begin(workdir, config, versions, resuming=finished is None)
        if finished is not None:
            training.say(f"{config.name}: all of it is done already")
            return finished
        with preemption.deferred():
            found = _nets(config, train_set)
            sample = samples.take(config, found[0], test_set)
            training.say(f"{sample.words}: {len(sample.images)} images")
            results = {
                net.name: attacked.attack(
                    config, net, make_method(config), sample, _into(workdir, found, net), source
                )
                for net in found
            }
            compared = _compare(config, found, sample, results, test_set, workdir, source)
        first = found[0].name
        summary = {
            "method": config.method,
            "sample": sample.words,
            "nets": results,
            **compared,
            "data": versions["data"],
            "device": versions["device"],
            "headline": f"{first}: {results[first]['words']}",
        }
        record.write_json(workdir / "summary.json", summary)
        return summary


def describe(config: Config) -> str:
    """What `run` would do: config, data, nets, cells."""
    check(config)
    train_set, _, source = training.load(config, config.dataset, download=False)
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    lines += [f"data: {source.caption()}"]
    for spec in config.nets:
        net = nets.find(spec, config.run, train_set, config.dataset)
        lines.append(f"{spec}: {'would be trained first' if net is None else net.workdir}")
    for spec in config.compare:
        net = nets.find(spec, config.run, train_set, config.dataset)
        lines.append(f"{spec}: {'left out, not trained' if net is None else net.workdir}")
    asked = config.per_class * len(config.classes) + len(config.always)
    count = 1 if config.input else config.images or asked
    cells = count * len(standard.CLASSES[config.dataset])
    return "\n".join([*lines, f"{count:,} images, {cells:,} cells a net", f"{make_method(config)}"])


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    if config.dataset not in standard.CLASSES:
        valid = ", ".join(standard.CLASSES)
        raise UserError(f"dataset: {config.dataset!r} is not one of {valid}")
    if not config.nets:
        raise UserError("nets: empty; give names such as 'cnn:mnist'")
    classes = len(standard.CLASSES[config.dataset])
    if any(not 0 <= label < classes for label in config.classes):
        raise UserError(f"classes: {tuple(config.classes)} are not all in 0 .. {classes - 1}")
    positive = {"batch": config.batch, "eval_batch_size": config.eval_batch_size}
    positive |= {f"minimal.{key}": config.minimal[key] for key in ("steps", "search")}
    positive |= {f"faithful.{key}": config.faithful[key] for key in ("steps", "check_every")}
    positive |= {f"budget.{key}": config.budget[key] for key in ("steps", "restarts")}
    for key, value in positive.items():
        if value < 1:
            raise UserError(f"{key}: {value} is not a positive number")
    for key, value in (
        *((key, config[key]) for key in ("images", "per_class")),
        *((f"minimal.{key}", config.minimal[key]) for key in ("required", "polish")),
        *(("budget.images", config.budget.images), ("budget.levels", min(config.budget.levels))),
    ):
        if value < 0:
            raise UserError(f"{key}: {value} is negative")
    if config.budget.norm not in NORMS:
        raise UserError(f"budget.norm: {config.budget.norm!r} is not one of {', '.join(NORMS)}")
    if not 0 <= config.seed < 2**31 - 1:
        raise UserError(f"seed: {config.seed} is not in 0 .. 2**31 - 2")
    _ = make_method(config)


def make_method(config: Config) -> Method:
    """The attack of a config.  Raises UserError if there is no such method."""
    if config.method == "minimal":
        own = config.minimal
        return Minimal(steps=own.steps, search=own.search, required=own.required)
    if config.method == "faithful":
        own = config.faithful
        return Faithful(
            steps=own.steps,
            check_every=own.check_every,
            learning_rate=own.learning_rate,
            deviation=own.deviation,
            dropout=own.dropout,
        )
    raise UserError(f"method: {config.method!r} is not one of {', '.join(METHODS)}")


def _nets(config: Config, train_set: Dataset) -> list[Net]:
    """The nets of a run, trained where they are not; those to compare only if they are trained."""
    found: list[Net] = []
    for spec in config.nets:
        net = nets.find(spec, config.run, train_set, config.dataset)
        if net is None:
            net = nets.train(spec, config.run, config.data, train_set, config.dataset)
            preemption.raise_if_requested()
        training.say(f"{net.name}: the net in {net.workdir}, after epoch {net.epochs}")
        found.append(net)
    for spec in config.compare:
        net = nets.find(spec, config.run, train_set, config.dataset)
        if net is None:
            training.say(f"{spec} is not trained, and left out of the comparison")
        else:
            training.say(f"{net.name}: to compare, the net in {net.workdir}")
            found.append(net)
    return found


def _into(workdir: Path, found: Sequence[Net], net: Net) -> Path:
    return workdir if net is found[0] else workdir / net.name


def _compare(
    config: Config,
    found: Sequence[Net],
    sample: Sample,
    results: Mapping[str, Any],
    test_set: Dataset,
    workdir: Path,
    source: standard.Source,
) -> dict[str, Any]:
    """Robust accuracy of every net against the budget, and how their images transfer."""
    caption = f"{source.caption()}. {config.name}, seed {config.seed}"
    drawn: dict[str, Any] = {}
    compared: dict[str, Any] = {}
    if config.budget.images and not config.input:
        compared["robust_accuracy"] = _robust_accuracy(config, found, test_set)
        drawn |= album.draw_budgets(compared["robust_accuracy"], caption)
    if len(found) > 1:
        clean = {
            net.name: generate.logits_of(
                net.apply_fn, net.params, sample.images, batch_size=config.eval_batch_size
            ).argmax(axis=1)
            for net in found
        }
        compared["transfer"] = _transfer(config, found, sample, results, clean, workdir)
        drawn["transfer"] = album.draw_transfers(compared["transfer"], caption)
    record.save_figures(workdir, drawn)
    return compared


def _robust_accuracy(config: Config, found: Sequence[Net], test_set: Dataset) -> dict[str, Any]:
    """How many of the first test images each net still has right within every budget.

    An image that falls within a budget has fallen within every larger one.
    """
    own = config.budget
    count = min(own.images, len(test_set.images))
    images, labels = (np.asarray(a)[:count] for a in (test_set.images, test_set.labels))
    hits: dict[str, list[int]] = {}
    for net in found:
        stands = np.ones(count, bool)
        hits[net.name] = []
        for level in (0, *sorted(own.levels)):
            method = PGD(np.float32(level / _LEVELS), own.norm, own.steps, own.restarts)
            progress = generate.generate(
                net.apply_fn, net.params, images, labels,
                targets=labels[:, None], method=method, seed=config.seed,
            )  # fmt: skip
            stands &= ~np.asarray(progress.success)[:, 0]
            hits[net.name].append(int(stands.sum()))
            preemption.raise_if_requested()
        shares = ", ".join(f"{hit / count:.0%}" for hit in hits[net.name])
        training.say(
            f"{net.name}: right within 0, {str(tuple(sorted(own.levels)))[1:-1]}: {shares}"
        )
    return {
        "levels": [0, *sorted(own.levels)],
        "norm": own.norm,
        "count": count,
        "hits": hits,
        "steps": own.steps,
        "restarts": own.restarts,
    }


def _transfer(
    config: Config,
    found: Sequence[Net],
    sample: Sample,
    results: Mapping[str, Any],
    clean: Mapping[str, np.ndarray],
    workdir: Path,
) -> dict[str, Any]:
    """Of the images made against each net, the share that each other net takes for another class.

    Only images that the judging net has right without noise are counted; a share of none is None.
    """
    classes = len(standard.CLASSES[config.dataset])
    rates: list[list[float | None]] = []
    counts: list[int] = []
    for maker in found:
        log = gallery.CellLog(_into(workdir, found, maker), cells=classes)
        images, places = attacked.successes(_into(workdir, found, maker), log.rows(), sample)
        counts.append(len(images))
        row: list[float | None] = []
        for judging in found:
            right = clean[judging.name] == sample.labels
            kept = right[places] if len(images) else np.zeros(0, bool)
            if not kept.any():
                row.append(None)
                continue
            said = generate.logits_of(
                judging.apply_fn, judging.params, images, batch_size=config.eval_batch_size
            ).argmax(axis=1)
            row.append(float(np.mean(said[kept] != sample.labels[places][kept])))
        rates.append(row)
    return {"names": list(results), "rates": rates, "counts": counts}
