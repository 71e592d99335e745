"""The study of adversarial noise: how little noise makes a classifier see another class.

Report, Exercise 2, second half. Every image of a sample is attacked toward every class, each
success is judged on bytes and again from its file, and the nets are compared by norms, by robust
accuracy and by how their adversarial images transfer.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from configs import common
from research.adversarial import augmented_lagrangian
from research.adversarial.augmented_lagrangian import AugmentedLagrangian
from research.adversarial.faithful import Faithful
from research.adversarial.loop import Method
from research.adversarial.minimal import Minimal
from research.adversarial.pgd import NORMS
from research.adversarial.polish import Polish
from research.data import datasets
from research.experiments import trainer
from research.experiments.noise import attack_figures, attack_run, comparison, nets, samples
from research.experiments.noise.nets import Net
from research.figures.noise import MOST_JUDGES
from research.runtime import distributed, preemption, progress
from research.storage import attack_files, run_directory
from research.structs import Config, Dataset, UserError, printable

METHODS = ("lagrangian", "minimal", "faithful")


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Attack the nets of `config`, or go on where a killed run stopped.

    The first net's files lie in `workdir`, each other's in a directory of its name inside it.
    Returns the content of summary.json.  Raises UserError for a config, a data set, a picture or a
    directory that cannot be used.
    """
    check(config)
    data = trainer.load(config, config.dataset, download=config.data.download, workdir=workdir)
    train_set, test_set, source = data
    progress.say(f"data: {source.caption()}")
    samples.check(config, test_set)
    versions = run_directory.describe_versions(trainer.describe_data(source))
    with run_directory.locked(workdir):
        finished = run_directory.finished_summary(workdir)
        run_directory.begin(workdir, config, versions, resuming=finished is None)
        _check_picture(config, workdir, test_set)
        if finished is not None:
            _check_nets_again(config, workdir, train_set)
            progress.say(f"{config.name}: all of it is done already")
            return finished
        with preemption.deferred():
            opened = _open_nets(config, train_set)
            for net in opened:
                if trained_on := trainer.trained_on(net.origin, source):
                    progress.say(f"{net.name}: {trained_on}, attacked on {source.caption()}")
            first = opened[0]
            by_place = {workdir if net is first else workdir / net.name: net for net in opened}
            sample = samples.take(config, first, test_set)
            progress.say(f"{sample.words}: {len(sample.images)} images")
            methods = make_methods(config)
            results = {
                net.name: attack_run.attack(config, net, methods, sample, into, source)
                for into, net in by_place.items()
            }
            compared: dict[str, Any] = {}
            if config.pgd.images and not config.input:
                compared["robust_accuracy"] = comparison.robust_accuracy(config, by_place, test_set)
            if len(opened) > 1:
                compared["transfer"] = comparison.transfer(config, by_place, sample)
            trained_on = dict.fromkeys(trainer.trained_on(net.origin, source) for net in opened)
            caption = ", of nets ".join(filter(None, (source.caption(), *trained_on)))
            caption += f". {config.name}, seed {config.seed}"
            run_directory.save_figures(
                workdir, lambda: attack_figures.draw_compared(compared, caption)
            )
        summary = {
            "method": config.method,
            "sample": sample.words,
            "nets": results,
            **compared,
            "data": versions["data"],
            "device": versions["device"],
            "headline": f"{first.name}: {results[first.name]['words']}",
        }
        run_directory.finish(workdir, summary)
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
        lines.append(printable(f"{spec}: {place or 'would be trained first'}"))
    for spec in _baselines(config):
        place = nets.locate(spec, config.run, config.dataset)
        lines.append(printable(f"{spec}: {place or 'left out, not trained'}"))
    asked = config.images or config.per_class * len(config.classes) + len(config.extra_indices)
    count = 1 if config.input else min(asked, len(test_set.images))
    cells = count * len(datasets.CLASSES[config.dataset])
    methods = ", then ".join(map(str, make_methods(config)))
    return "\n".join([*lines, f"{count:,} images, {cells:,} cells a net", methods])


def check(config: Config) -> None:
    """Raise UserError naming the first key whose value cannot be used."""
    if problem := common.problem(config):
        raise UserError(problem)
    if config.dataset not in datasets.CLASSES:
        valid = ", ".join(datasets.CLASSES)
        raise UserError(f"dataset: {config.dataset!r} is not one of {valid}")
    _check_nets(config)
    if config.pgd.norm not in NORMS:
        raise UserError(f"pgd.norm: {config.pgd.norm!r} is not one of {', '.join(NORMS)}")
    _ = make_methods(config)


def _check_nets(config: Config) -> None:
    specs = [*config.nets, *_baselines(config)]
    names = [nets.name_of(spec) for spec in specs]
    if not config.nets:
        raise UserError("nets: empty; give names such as 'cnn:mnist'")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"nets, baselines: two are called {twice[0]!r}; name each once")
    if len(specs) > MOST_JUDGES:
        raise UserError(f"nets, baselines: {len(specs)} nets are more than {MOST_JUDGES}")
    for spec in specs:
        place = nets.locate(spec, config.run, config.dataset)
        if place is None and config.run and spec in config.nets:
            raise UserError(
                f"run: {config.run} is no run of {spec!r}, nor does it hold one as "
                f'{nets.name_of(spec)}; "" is where its own command puts it'
            )


def make_methods(config: Config) -> tuple[Method, ...]:
    """The attack of a config: methods that run one after the other.

    Raises UserError if there is no such method, or if it cannot make the norm small.
    """
    if config.norm not in augmented_lagrangian.NORMS:
        valid = ", ".join(augmented_lagrangian.NORMS)
        raise UserError(f"norm: {config.norm!r} is not one of {valid}")
    if config.norm != "l2" and config.method != "lagrangian":
        raise UserError(f"norm: {config.norm} needs method=lagrangian, not {config.method}")
    if config.method == "minimal":
        minimal = config.minimal
        search = Minimal(steps=minimal.steps, search=minimal.search, required=minimal.required)
        return (search, Polish(minimal.polish, minimal.required)) if minimal.polish else (search,)
    if config.method == "lagrangian":
        lagrangian = config.lagrangian
        search = AugmentedLagrangian(
            steps=lagrangian.steps,
            search=lagrangian.search,
            required=lagrangian.required,
            norm=config.norm,
        )
        polishes = config.norm == "l2" and lagrangian.polish
        return (search, Polish(lagrangian.polish, lagrangian.required)) if polishes else (search,)
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


def _open_nets(config: Config, train_set: Dataset) -> list[Net]:
    """The nets of a run, trained where they are not, and those baselines that are trained."""
    opened: list[Net] = []
    for spec in config.nets:
        net = nets.find(spec, config.run, train_set, config.dataset)
        if net is None:
            net = nets.train(spec, config.data, train_set, config.dataset)
            preemption.raise_if_requested()
        progress.say(f"{net.name}: the net in {net.workdir}, after epoch {net.epochs}")
        opened.append(net)
    for spec in _baselines(config):
        net = nets.find(spec, config.run, train_set, config.dataset)
        if net is None:
            progress.say(f"{spec} is not trained to its end, and left out of the comparison")
        else:
            progress.say(f"{net.name}: for comparison, the net in {net.workdir}")
            opened.append(net)
    return opened


def _check_nets_again(config: Config, workdir: Path, train_set: Dataset) -> None:
    """Raise UserError if another `run` leads to other nets than those that were attacked."""
    begun = run_directory.read_json(workdir / "config.json")["run"]
    for spec in config.nets if config.run != begun else ():
        net = nets.find(spec, config.run, train_set, config.dataset)
        if net is None:
            raise UserError(
                f"run: {spec} is not trained where its own command puts it, and {workdir} was "
                f"begun with run={begun!r}; give that or another --workdir"
            )
        attack_run.claim(net, workdir if spec == config.nets[0] else workdir / net.name)


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


def _baselines(config: Config) -> list[str]:
    """The baselines that are not among the nets."""
    return [spec for spec in config.baselines if spec not in config.nets]
