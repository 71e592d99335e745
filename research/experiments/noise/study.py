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

from research.adversarial import generate
from research.adversarial.faithful import Faithful
from research.adversarial.loop import Method
from research.adversarial.minimal import Minimal
from research.adversarial.pgd import NORMS, PGD
from research.adversarial.polish import Polish
from research.data import datasets
from research.experiments import trainer
from research.experiments.noise import attack_figures, attack_run, nets, samples
from research.experiments.noise.nets import Net
from research.experiments.noise.samples import Sample
from research.figures.noise import MOST_JUDGES
from research.runtime import distributed, preemption
from research.storage import attack_files, run_directory
from research.structs import Config, Dataset, UserError

METHODS = ("minimal", "faithful")
_LEVELS = 255


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Attack the nets of `config`, or go on where a killed run stopped.

    The first net's files lie in `workdir`, each other's in a directory of its name inside it.
    Returns the content of summary.json.  Raises UserError for a config, a data set, a picture or a
    directory that cannot be used.
    """
    check(config)
    data = trainer.load(config, config.dataset, download=config.data.download, workdir=workdir)
    train_set, test_set, source = data
    trainer.say(f"data: {source.caption()}")
    samples.check(config, test_set)
    versions = run_directory.describe_versions(trainer.describe_data(source))
    with run_directory.locked(workdir):
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        _check_picture(config, workdir, test_set)
        if finished is not None:
            trainer.say(f"{config.name}: all of it is done already")
            return finished
        with preemption.deferred():
            found = _nets(config, train_set)
            sample = samples.take(config, found[0], test_set)
            trainer.say(f"{sample.words}: {len(sample.images)} images")
            results = {
                net.name: attack_run.attack(
                    config, net, make_methods(config), sample, _into(workdir, found, net), source
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
        run_directory.write_json(workdir / "summary.json", summary)
        return summary


def describe(config: Config) -> str:
    """What `run` would do: config, data, nets, cells."""
    check(config)
    _, test_set, source = trainer.load(config, config.dataset, download=False)
    samples.check(config, test_set)
    lines = [json.dumps(json.loads(config.to_json_best_effort()), indent=2)]
    lines += [f"data: {source.caption()}"]
    for spec in config.nets:
        place = nets.locate(spec, config.run, config.dataset)
        lines.append(f"{spec}: {place or 'would be trained first'}")
    for spec in _compared(config):
        place = nets.locate(spec, config.run, config.dataset)
        lines.append(f"{spec}: {place or 'left out, not trained'}")
    asked = config.images or config.per_class * len(config.classes) + len(config.extra_indices)
    count = 1 if config.input else min(asked, len(test_set.images))
    cells = count * len(datasets.CLASSES[config.dataset])
    methods = ", then ".join(map(str, make_methods(config)))
    return "\n".join([*lines, f"{count:,} images, {cells:,} cells a net", methods])


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    if config.dataset not in datasets.CLASSES:
        valid = ", ".join(datasets.CLASSES)
        raise UserError(f"dataset: {config.dataset!r} is not one of {valid}")
    _check_nets(config)
    classes = len(datasets.CLASSES[config.dataset])
    if any(not 0 <= label < classes for label in config.classes):
        raise UserError(f"classes: {tuple(config.classes)} are not all in 0 .. {classes - 1}")
    positive = {"batch": config.batch, "eval_batch_size": config.eval_batch_size}
    positive |= {f"minimal.{key}": config.minimal[key] for key in ("steps", "search")}
    positive |= {f"faithful.{key}": config.faithful[key] for key in ("steps", "check_every")}
    positive |= {f"pgd.{key}": config.pgd[key] for key in ("steps", "restarts")}
    for key, value in positive.items():
        if value < 1:
            raise UserError(f"{key}: {value} is not a positive number")
    for key, value in (
        *((key, config[key]) for key in ("images", "per_class")),
        *((f"minimal.{key}", config.minimal[key]) for key in ("required", "polish")),
        ("pgd.images", config.pgd.images),
        ("pgd.levels", min(config.pgd.levels, default=0)),
    ):
        if value < 0:
            raise UserError(f"{key}: {value} is negative")
    if config.pgd.norm not in NORMS:
        raise UserError(f"pgd.norm: {config.pgd.norm!r} is not one of {', '.join(NORMS)}")
    if not 0 <= config.seed < 2**31 - 1:
        raise UserError(f"seed: {config.seed} is not in 0 .. 2**31 - 2")
    _ = make_methods(config)


def _check_nets(config: Config) -> None:
    specs = [*config.nets, *_compared(config)]
    names = [nets.name_of(spec) for spec in specs]
    if not config.nets:
        raise UserError("nets: empty; give names such as 'cnn:mnist'")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"nets, baselines: two are called {twice[0]!r}; name each once")
    if len(specs) > MOST_JUDGES:
        raise UserError(f"nets, baselines: {len(specs)} nets are more than {MOST_JUDGES}")
    for spec in specs:
        found = nets.locate(spec, config.run, config.dataset)
        if found is None and config.run and spec in config.nets:
            raise UserError(
                f"run: {config.run} is no run of {spec!r}, nor does it hold one as "
                f'{nets.name_of(spec)}; "" is where its own command puts it'
            )


def make_methods(config: Config) -> tuple[Method, ...]:
    """The attack of a config: methods that run one after the other.

    Raises UserError if there is no such method.
    """
    if config.method == "minimal":
        own = config.minimal
        minimal = Minimal(steps=own.steps, search=own.search, required=own.required)
        polish = Polish(own.polish, own.required)
        return (minimal, polish) if own.polish else (minimal,)
    if config.method == "faithful":
        own = config.faithful
        faithful = Faithful(
            steps=own.steps,
            check_every=own.check_every,
            learning_rate=own.learning_rate,
            std=own.std,
            dropout=own.dropout,
        )
        return (faithful,)
    raise UserError(f"method: {config.method!r} is not one of {', '.join(METHODS)}")


def _nets(config: Config, train_set: Dataset) -> list[Net]:
    """The nets of a run, trained where they are not; those to compare only if they are trained."""
    found: list[Net] = []
    for spec in config.nets:
        net = nets.find(spec, config.run, train_set, config.dataset)
        if net is None:
            net = nets.train(spec, config.data, train_set, config.dataset)
            preemption.raise_if_requested()
        trainer.say(f"{net.name}: the net in {net.workdir}, after epoch {net.epochs}")
        found.append(net)
    for spec in _compared(config):
        net = nets.find(spec, config.run, train_set, config.dataset)
        if net is None:
            trainer.say(f"{spec} is not trained to its end, and left out of the comparison")
        else:
            trainer.say(f"{net.name}: to compare, the net in {net.workdir}")
            found.append(net)
    return found


def _check_picture(config: Config, workdir: Path, test_set: Dataset) -> None:
    """Raise UserError if the picture is not the one that the directory was begun with."""
    path = workdir / attack_run.clean_file(0)
    picture = samples.read_picture(config, test_set) if config.input else None

    def same() -> bool:
        if picture is None or not path.exists():
            return True
        return np.array_equal(picture, attack_files.read_png(path))

    if not distributed.broadcast_from_first(same):
        raise UserError(
            f"{config.input} is not the picture that {workdir} was begun with; "
            "give another --workdir"
        )


def _compared(config: Config) -> list[str]:
    """The nets to compare that are not attacked anyway."""
    return [spec for spec in config.baselines if spec not in config.nets]


def _into(workdir: Path, found: Sequence[Net], net: Net) -> Path:
    return workdir if net is found[0] else workdir / net.name


def _compare(
    config: Config,
    found: Sequence[Net],
    sample: Sample,
    results: Mapping[str, Any],
    test_set: Dataset,
    workdir: Path,
    source: datasets.Source,
) -> dict[str, Any]:
    """Robust accuracy of every net against the budget, and how their images transfer."""
    caption = f"{source.caption()}. {config.name}, seed {config.seed}"
    compared: dict[str, Any] = {}
    if config.pgd.images and not config.input:
        compared["robust_accuracy"] = _robust_accuracy(config, found, test_set, workdir)
    if len(found) > 1:
        clean = {
            net.name: generate.logits_of(
                net.apply_fn, net.params, sample.images, batch_size=config.eval_batch_size
            ).argmax(axis=1)
            for net in found
        }
        compared["transfer"] = _transfer(config, found, sample, results, clean, workdir)
    run_directory.save_figures(workdir, lambda: attack_figures.draw_compared(compared, caption))
    return compared


def _robust_accuracy(
    config: Config, found: Sequence[Net], test_set: Dataset, workdir: Path
) -> dict[str, Any]:
    """How many of the first test images each net still has right within every budget."""
    own = config.pgd
    levels = [0, *sorted(set(own.levels) - {0})]
    count = min(own.images, len(test_set.images))
    images, labels = (np.asarray(a)[:count] for a in (test_set.images, test_set.labels))
    hits: dict[str, list[int]] = {}
    for net in found:
        into = _into(workdir, found, net)
        hits[net.name] = [
            len(each) for each in _standing(config, net, images, labels, levels, into)
        ]
        shares = ", ".join(f"{hit / count:.0%}" for hit in hits[net.name])
        trainer.say(f"{net.name}: right within {', '.join(map(str, levels))}: {shares}")
    return {
        "levels": levels,
        "norm": own.norm,
        "count": count,
        "hits": hits,
        "steps": own.steps,
        "restarts": own.restarts,
    }


def _standing(
    config: Config,
    net: Net,
    images: np.ndarray,
    labels: np.ndarray,
    levels: Sequence[float],
    into: Path,
) -> list[list[int]]:
    """The places of the images that the net has right within each level, ascending from 0.

    An image that falls within a budget has fallen within every larger one. What is found is kept
    in `into`, and not sought again.
    """
    path = into / "robust_accuracy.json"
    begun = run_directory.read_json(path)
    standing: list[list[int]] = begun["standing"] if begun else []
    for level in levels[len(standing) :]:
        fallen = _fallen(config, net, images, labels, level)
        before = standing[-1] if standing else range(len(images))
        standing.append([place for place in before if not fallen[place]])
        run_directory.write_json(path, {"levels": list(levels), "standing": standing})
        preemption.raise_if_requested()
    return standing


def _fallen(
    config: Config, net: Net, images: np.ndarray, labels: np.ndarray, level: float
) -> np.ndarray:
    """Whether each image is taken for another class, [N] bool: by itself, or with PGD's noise."""
    own = config.pgd
    if level == 0:
        logits = generate.logits_of(
            net.apply_fn, net.params, images, batch_size=config.eval_batch_size
        )
        return logits.argmax(axis=1) != labels
    method = PGD(np.asarray(level / _LEVELS, np.float32), own.norm, own.steps, own.restarts)
    size = min(len(images), config.batch * len(datasets.CLASSES[config.dataset]))
    parts: list[np.ndarray] = []
    for first in range(0, len(images), size):  # as many cells in a call as an attack has
        places = np.resize(np.arange(first, min(first + size, len(images))), size)
        progress = generate.generate(
            net.apply_fn, net.params, images[places], labels[places],
            targets=labels[places][:, None], methods=(method,), seed=config.seed, numbers=places,
        )  # fmt: skip
        parts.append(np.asarray(progress.success)[:, 0])
    return np.concatenate(parts)[: len(images)]


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
    classes = len(datasets.CLASSES[config.dataset])
    rates: list[list[float | None]] = []
    counts: list[int] = []
    for maker in found:
        log = attack_files.CellLog(_into(workdir, found, maker), cells=classes)
        images, places = attack_run.successes(_into(workdir, found, maker), log.rows(), sample)
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
