"""The runs in results/: their names, their configurations, and the commands that make them."""

import dataclasses
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs import map as map_config
from configs.common import LOCATIONS, OF_THE_MACHINE
from research.data import provenance
from research.storage import run_directory
from research.storage.run_directory import Run
from research.structs import UserError


@dataclasses.dataclass(frozen=True)
class Published:
    """A run that results/ may hold.

    config: file in configs/ and variant.  changes: keys that differ from it, "a.b" of nested ones.
    free: keys that may have any value besides those of `_FREE`.
    files: what is kept besides config.json, versions.json and summary.json, as patterns; a name
    that ends in .webp is made from the PNG of the same name.
    layout: of the photographs, for a run that only prepares those of one data set.
    """

    config: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    free: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    layout: str = ""


_TABLE_OF_NETS = ("nets", "probe")  # other settings are tried on some of the nets
_ATTACK = ("cells.jsonl",)
_SPECTRUM = ("figures/jacobian.png", "figures/sharpness.png")
_PICTURES = (*_ATTACK, "clean/*.png", "cells/*.png")
_ALL_DIGITS = {"classes": list(range(10)), "per_class": 1, "baselines": []}
_HORSE = {"classes": [], "per_class": 0, "baselines": []}
_MINIMAL, _REPORTS = {"method": "minimal"}, {"method": "faithful"}

PUBLISHED: dict[str, Published] = {
    "depth": Published("mlp:all", files=("figures/figure_3.png",)),
    "batch-32": Published("mlp:all", {"batch_size": 32}, free=_TABLE_OF_NETS),
    "epochs-20": Published("mlp:all", {"epochs": 20}, free=_TABLE_OF_NETS),
    "he": Published("mlp:all", {"init": "he"}, free=_TABLE_OF_NETS),
    "cnn-mnist": Published("cnn:mnist"),
    "cnn-mnist-best": Published("cnn:mnist-best"),
    "cnn-mnist-robust": Published("cnn:mnist-robust"),
    "cnn-cifar10": Published("cnn:cifar10"),
    "cnn-cifar10-best": Published("cnn:cifar10-best", files=("figures/confusion.png",)),
    "adam-0-001": Published("cnn:mnist", {"learning_rate": 0.001}),
    **{
        f"map-{name}": Published(f"map:{name}", files=("map.npz", "figures/map.webp"))
        for name in map_config.VARIANTS
    },
    "map-tanh-rate": Published(
        "map:tanh", {"axis": "learning_rate"}, files=("map.npz", "figures/map.webp")
    ),
    "noise-mnist": Published("noise:mnist", _MINIMAL, files=("figures/distributions.png",)),
    "noise-mnist-lagrangian": Published("noise:mnist", free=("baselines", "pgd")),
    "noise-cifar10-lagrangian": Published("noise:cifar10", free=("baselines",)),
    "noise-mlp-lagrangian": Published("noise:mlp"),
    "noise-cifar10": Published("noise:cifar10", _MINIMAL | {"baselines": []}),
    "noise-mlp": Published("noise:mlp", _MINIMAL),
    "grid-mnist-faithful": Published("noise:mnist", _REPORTS | _ALL_DIGITS, files=_PICTURES),
    "grid-mnist-minimal": Published("noise:mnist", _MINIMAL | _ALL_DIGITS, files=_PICTURES),
    "grid-cifar10-faithful": Published("noise:cifar10", _REPORTS | _HORSE, files=_PICTURES),
    "grid-cifar10-minimal": Published("noise:cifar10", _MINIMAL | _HORSE, files=_PICTURES),
    "noise-mnist-faithful": Published(
        "noise:mnist", _REPORTS, free=("baselines", "pgd"), files=_ATTACK
    ),
    "noise-cifar10-faithful": Published(
        "noise:cifar10",
        _REPORTS,
        free=("baselines", "pgd", "classes", "extra_indices"),
        files=_ATTACK,
    ),
    "spectrum-relu-5": Published("spectrum:relu-5", files=_SPECTRUM),
    "spectrum-tanh-5": Published("spectrum:tanh-5", files=_SPECTRUM),
    "spectrum-tanh-40": Published("spectrum:tanh-40", {"init": "orthogonal"}, files=_SPECTRUM),
    "masks-vgg": Published("masks:vgg", files=("metrics.jsonl",)),
    "masks-best": Published("masks:best", files=("metrics.jsonl",)),
    "masks-best3": Published("masks:best3", files=("metrics.jsonl",)),
    "masks-smoke": Published("masks:smoke", files=("figures/samples.png",)),
    "masks-voc": Published("masks:vgg", {"mode": "ingest"}, layout="voc"),
    "masks-folders": Published("masks:vgg", {"mode": "ingest"}, layout="folders"),
    "masks-drawn": Published("masks:vgg", free=("data.drawn",), files=("figures/scored.webp",)),
    "predict-portrait": Published("", files=("**/*-panels.png",)),
    "predict-drawn": Published("", files=("**/drawn*-panels.webp",)),
}

# Digests over faces as they are cut: those of results/masks-vgg, of 777 photographs, and those of
# results/masks-best3, of three classes and CenterFace's boxes in the folders.
FACES = {
    "b96586f933ebefb085dd3df836a9874c12f66d3978426c5b1c5d3267b134e448",
    "790428613984b3ac133ebf7b344951cecac2d4feb3c061f8a24cd140ed8262f5",
}
# Photographs of Kaggle's andrewmvd/face-mask-detection and, in folders, of its
# prithwirajmitra/covid-face-mask-detection-dataset.
PHOTOGRAPHS = {"voc": 853, "folders": 1006}
_PLACES = [key.removeprefix("data.") for key in LOCATIONS]
# Keys that may differ from a published configuration, by experiment: they do not change what is
# measured, or the table shows them.
_EVERY = ("seeds", "eval_batch_size", "steps_per_dispatch", "matmul_precision", *OF_THE_MACHINE)
_FREE = {
    "depth": (*_EVERY, "data"),
    "spectrum": (*_EVERY, "data"),
    "classifiers": (*_EVERY, "data", "epochs"),
    "map": (*_EVERY[1:], "data", "programs"),
    "noise": (*_EVERY, "data", "run", "batch"),
    "masks": (*_EVERY, "detector"),
}
_SILENT = {*_EVERY[1:], "run", "batch", "programs"} - {"data.source"}  # not in a command


def read(results: Path) -> dict[str, Run]:
    """{name: run} of the published runs that `results` holds, in the order of `PUBLISHED`.

    Raises UserError naming a file that is damaged.
    """
    return {
        name: run_directory.load_run(results / name)
        for name in PUBLISHED
        if (results / name).is_dir()
    }


def name_of(run: Run) -> str:
    """The name in `PUBLISHED` of the configuration that a run has.

    Raises UserError naming the keys that differ from the nearest one if it has none of them.
    """
    if run.experiment == "predict":
        drawn = any(run.path.glob("**/drawn*-panels.*"))
        return "predict-drawn" if drawn else "predict-portrait"
    same_study = {
        name: published
        for name, published in PUBLISHED.items()
        if published.config.partition(":")[0] == _FILES[run.experiment]
    }
    differing = {
        name: _differing(run, published)
        for name, published in same_study.items()
        if published.config.partition(":")[2] == run.name
    }
    if not differing:
        known = ", ".join(dict.fromkeys(each.config for each in same_study.values()))
        raise UserError(f"{run.path} holds {run.name!r}, which is not published: {known} are")
    name = min(differing, key=lambda name: len(differing[name]))
    if differing[name]:
        raise UserError(
            f"{run.path} is not a run of the stated configuration; from {name} differ: "
            f"{', '.join(differing[name])}"
        )
    if run.experiment == "depth" and run.config["seeds"] < 2:
        raise UserError(
            f"{run.path} is not a run of the stated configuration (seeds: fewer than 2)"
        )
    return name


def shortfall(run: Run) -> str:
    """Why a run may judge no claim and take no place in results/, in words, or "".

    A run is as whole as the least of what it was made from: its data, and those of each net that it
    attacks.  Some nets of results/ are older than the record of what nets are made from.
    """
    data = run.versions["data"]
    if run.experiment == "masks":
        if run.config["mode"] == "ingest":
            counts = data["about"].get("photographs", {})  # not of an earlier version
            parts = [
                f"{counts.get(layout, 0):,} of {whole:,} photographs"
                for layout, whole in PHOTOGRAPHS.items()
                if layout in data["about"]["annotated"] and counts.get(layout) != whole
            ]
            return f"it is on {' and '.join(parts)}" if parts else ""
        if data.get("sha256") in FACES:
            return ""
        return f"it is on data of unknown origin: {data.get('caption', 'drawn faces')}"
    if reason := provenance.shortfall(data):
        return reason
    for net, origin in _origins(run).items():
        if reason := provenance.shortfall(origin["data"]):
            return f"of its net {net}, {reason}"
        if origin["data"]["sha256"] != data["sha256"]:
            return f"its net {net} was trained on other data: {origin['data']['caption']}"
    return ""


def check_origins(run: Run) -> None:
    """Raise UserError if an attack does not say what its nets were made from."""
    if run.experiment == "noise" and (unknown := set(run.nets) - set(_origins(run))):
        raise UserError(
            f"{run.path}: is of an earlier version, which did not record what the net "
            f"{min(unknown)} was trained on; make the run again in another --workdir"
        )


def net_commands(run: Run) -> dict[str, str]:
    """{net: the command that trains it} of the attacked nets that their own variant does not give.

    Their number of epochs alone may differ from it, see `name_of`.
    """
    commands: dict[str, str] = {}
    for spec in (*run.config["nets"], *run.config["baselines"]):
        file, _, variant = spec.partition(":")
        net = variant.replace(",", "-")
        changes = _origins(run).get(net, {}).get("changes", {})
        if "epochs" in changes:
            commands[net] = (
                f"python -m research.main --config=configs/{file}.py:{variant} "
                f"--config.epochs={changes['epochs']} --config.data.dir=DIR"
            )
    return commands


def _origins(run: Run) -> dict[str, dict[str, Any]]:
    """{net: what it was made from} of those attacked nets of which it is recorded."""
    if run.experiment != "noise":
        return {}
    origins = {net: part.summary.get("origin") for net, part in run.nets.items()}
    return {net: origin for net, origin in origins.items() if origin is not None}


def command(run: Run) -> str:
    """The command that makes a run; DIR stands for the directory of its data."""
    file, variant = _place(run)
    stated = stated_config(run)
    words = [f"python -m research.main --config=configs/{file}.py:{variant}"]
    asked = dict(_leaves(run_directory.complete(run.config, stated)))
    for key, usual in _leaves(stated):
        if asked.get(key, usual) == usual or key in _SILENT:
            continue
        words.append(quoted(f"--config.{key}={_written(asked[key])}"))
    if run.experiment == "masks":
        given = [k for k in _PLACES if k != "tfds_dir" and run.config["data"].get(k)]
        return " ".join([*words, *(f"--config.data.{key}=DIR/{key}" for key in given)])
    return " ".join([*words, "--config.data.dir=DIR"])


_FILES = {
    "depth": "mlp",
    "classifiers": "cnn",
    "map": "map",
    "noise": "noise",
    "masks": "masks",
    "spectrum": "spectrum",
}


def stated_config(run: Run) -> dict[str, Any]:
    """The config of the variant that a run is of, without what its command has changed."""
    return _get_config(":".join(_place(run)))


def _place(run: Run) -> tuple[str, str]:
    """File in configs/ and variant; "mnist-smoke" is the name of a run of "mnist,smoke"."""
    name = run.name
    variant = f"{name.removesuffix('-smoke')},smoke" if name.endswith("-smoke") else name
    return _FILES[run.experiment], variant


def quoted(word: str) -> str:
    """A word of a command, in double quotes where a shell needs some."""
    return f'"{word}"' if any(sign in word for sign in "()'") else word


def without_places(run: Run) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """config, versions and summary of a run without paths of the machine that it was made on."""
    settings, versions, summary = (
        json.loads(json.dumps(content)) for content in (run.config, run.versions, run.summary)
    )
    for key in _PLACES:
        if settings.get("data", {}).get(key):
            settings["data"][key] = "DIR"
    if "run" in settings:
        settings["run"] = ""
    for content in (versions, summary):
        content.get("data", {}).pop("source", None)
    for part in summary.get("nets", {}).values():
        part.pop("run", None)
    summary.pop("out", None)
    return settings, versions, summary


def _differing(run: Run, published: Published) -> list[str]:
    """The keys in which a run differs from a published one, but those that are free."""
    stated = _get_config(published.config)
    asked = dict(_leaves(run_directory.complete(run.config, stated)))
    free = (*_FREE[run.experiment], *published.free)
    differing = [
        key
        for key, usual in _leaves(stated)
        if asked.get(key) != published.changes.get(key, usual)
        and not any(key == name or key.startswith(f"{name}.") for name in free)
    ]
    if published.layout and run.config["mode"] == "ingest":
        if list(run.versions["data"]["about"]["annotated"]) != [published.layout]:
            differing.append(f"data, which are not of the layout {published.layout} alone")
    for net, origin in _origins(run).items():
        others = set(origin["changes"]) - set(_FREE[origin["experiment"]])
        differing += [f"{key} of the net {net}" for key in sorted(others)]
        if origin["epochs"] < origin["epochs_asked"]:
            differing.append(f"the net {net}, trained for {origin['epochs']} epochs of its run")
    return differing


def _get_config(name: str) -> dict[str, Any]:
    file, _, variant = name.partition(":")
    config = importlib.import_module(f"configs.{file}").get_config(variant)
    return json.loads(config.to_json_best_effort())


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _written(value: Any) -> str:
    """A value as the command line takes it, without spaces."""
    if not isinstance(value, list):
        return f"{value}"
    items = ",".join(repr(item) for item in value)
    return f"({items},)" if len(value) == 1 else f"({items})"
