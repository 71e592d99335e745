"""The directory of a run: what was asked, what was used, what came out; writing and reading it.

config.json     the resolved config                    written before the first step
versions.json   packages, device, data, git commit     written before the first step
metrics.jsonl   one line per epoch                     appended
gradients.npz   {statistic: [E + 1, S, L]}             replaced after every epoch, if probed
theory.npz      see `theory.mean_field.predict`        written before the first step, if probed
map.npz         see `experiments.map`                  of maps, replaced after every depth
spectrum.npz    see `experiments.spectrum`             of Jacobians and sharpness
predictions.npz {logits [S, N, K], labels [N]}         of classifiers, after the last epoch; of
                                                       masks predictions_<split>.npz
cells.jsonl     one line per image and target class    of attacks, see `attack_files`
problems.csv    what was wrong with the files          of masks
export/         see `research.storage.export`          of masks
summary.json    the dict that the run returns          written when all else is there
SHA256SUMS      the digests of the files above         written last
tensorboard/    the metrics again, for TensorBoard     appended
checkpoints/    see `research.storage.checkpoint`

How the files show damage is told in `research.storage.records`.

`load_run` reads a finished run, be it a user's own or a trimmed one in results/, which lacks some
files and may have over_seeds.json in the place of metrics.jsonl and gradients.npz of many seeds.

A run that is killed and started again continues these files: they are cut back to the epoch of the
checkpoint it resumes from. Of several processes the first alone writes and reads them, and tells
the others what it finds; every process has to call the same functions. In an object store (see
`research.runtime.files`) a file that grows is written anew each time.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from filelock import FileLock, Timeout
from flax.traverse_util import flatten_dict, unflatten_dict
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from configs.common import OF_THE_MACHINE, RENAMED
from research.data.image_files import read_image, read_photograph
from research.models import native
from research.runtime import distributed, files, progress, sharding
from research.storage import records
from research.structs import UserError

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets",
    "matplotlib", "ml_collections", "chex", "dm-pix",
)  # fmt: skip
_DISTRIBUTION = "small-net-laboratory"  # in pyproject.toml
EXPERIMENTS = ("depth", "classifiers", "map", "noise", "masks", "spectrum", "predict")
_DPI = 160
_MISSING = "(absent)"
T = TypeVar("T")

_LOCK = ".lock"
_GRADIENTS = "gradients.npz"
_RESTORE = "restore it or give another --workdir"
_AGAIN = "restore it or make the run again"
# What the list of a finished run names. Folders that it leaves out have digests of their own, are
# changed later, or hold nothing that is not elsewhere.
_LISTED = (".json", ".jsonl", ".npz", ".png", ".csv")
_UNLISTED = ("checkpoints", "tensorboard", "profile", "data", "evaluations", "ingest")
# What a run leaves, besides the two files that it is begun with.
_REMAINS = (
    *(
        "metrics.jsonl",
        "gradients.npz",
        "map.npz",
        "spectrum.npz",
        "checkpoints",
        "cells.jsonl",
        "net.json",
        "predictions.npz",
    ),
    *("figures", "export", "tensorboard", "summary.json", records.DIGESTS),
)
# Keys that configs have got since runs were first kept, and what runs did that have none.
_LATER = {
    "adversarial_radius": 0.0,
    "adversarial_steps": 1,
    "data.exif": "displayed",
    "data.labels": "",
    "data.whole": False,
    "data_devices": 0,
    "detector": "mtcnn-1.0",
    "gain": 1.0,
    "head": "softmax",
    "jitter": 0.0,
    "lagrangian.polish": 8,  # of a method that there was none of
    "lagrangian.required": 0.01,
    "lagrangian.search": 200,
    "lagrangian.steps": 160,
    "norm": "l2",
    "optimizer": "sgd",  # of the depth study; the others always had one
    "residual": False,
    "shift": False,
    "shrink": 1,
}


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Hold the work directory for this run alone; the lock dies with the first process.

    A directory in an object store cannot be locked; a warning says so once.
    Raises UserError if another run holds it, the directory cannot be made or reached, or if not
    every process of this run sees it.
    """
    with contextlib.ExitStack() as held:

        def hold() -> None:
            if files.stored(workdir):
                _say_unlocked()
                _check_writable(workdir)
            else:
                held.enter_context(_lock(workdir))

        distributed.broadcast_from_first(hold)
        files.check_shared(workdir)
        yield


def describe_versions(data: Mapping[str, Any]) -> dict[str, Any]:
    """Packages, Python, device, settings of the compiler, git commit, and the data as given."""
    return {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": describe_device(),
        "environment": sharding.environment() | native.settings(),
        "git_commit": code_version(Path(__file__)),
        "data": dict(data),
    }


def describe_device() -> str:
    """The accelerators that JAX sees, or the model of the CPU and its cores."""
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return f"{len(devices)} x {devices[0].device_kind}"
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    model = named[1] if named else platform.processor() or platform.machine()
    return f"CPU {model}, {os.cpu_count()} cores"


def begin(
    workdir: Path, config: ConfigDict, versions: Mapping[str, Any], *, resuming: bool = True
) -> None:
    """Write config.json and versions.json, or check that they are those of this run.

    resuming: whether something will be computed, so that other versions than before are noted and
    told.

    Raises UserError naming every key that differs from the config the directory was begun with, of
    those that say which run it is (`identity`), or the data if they are not the same, and what a
    run has left in a directory without config.json or versions.json, which may be of any run.
    """
    distributed.broadcast_from_first(lambda: _begin(workdir, config, versions, resuming))


def _begin(workdir: Path, config: ConfigDict, versions: Mapping[str, Any], resuming: bool) -> None:
    asked = json.loads(config.to_json_best_effort())
    path = workdir / "config.json"
    if path.exists():
        begun = complete(_read_config(path), asked)
        differences = _differences(identity(begun), identity(asked))
        if differences:
            raise UserError(
                f"{workdir} was begun with another config: {'; '.join(differences)}. "
                "Give another --workdir, or the config of this one"
            )
        before = _read_json(workdir / "versions.json", "data")
        if not isinstance(before["data"], dict) or "sha256" not in before["data"]:
            raise UserError(f"{workdir / 'versions.json'}: names no data; {_RESTORE}")
        if before["data"]["sha256"] != versions["data"]["sha256"]:
            raise UserError(
                f"{workdir} was begun on other data: {before['data']['caption']} then, "
                f"{versions['data']['caption']} now. Give another --workdir, such as "
                f"{workdir},data={versions['data']['sha256'][:8]}"
            )
        earlier = before.pop("resumed_with", [])
        last = earlier[-1] if earlier else before
        settings = versions.get("environment", {})
        if resuming and last.get("environment", settings) != settings:
            differing = _differences(last["environment"], settings)
            raise UserError(
                f"{workdir} was begun under other settings of the compiler: "
                f"{'; '.join(differing)}. Set the environment as it was, or give another --workdir"
            )
        if resuming and dict(versions) != last:
            # Bits are promised for the same versions on the same device only; keep all of them.
            if changed := _differences({**last, "data": versions["data"]}, versions):
                progress.say(
                    f"{workdir}: going on in other circumstances, so that the last digits may be "
                    f"others than those of a run without a stop: {'; '.join(changed)}"
                )
            resumed = {**before, "resumed_with": [*earlier, dict(versions)]}
            write_json(workdir / "versions.json", resumed)
        return
    if remains := [name for name in _REMAINS if (workdir / name).exists()]:
        raise UserError(
            f"{path} is missing, but {remains[0]} is there, and nothing shows that it is of this "
            f"run; {_RESTORE}"
        )
    write_json(workdir / "versions.json", versions)
    write_json(path, asked)


def check_same(workdir: Path, config: ConfigDict, *, but: Sequence[str]) -> None:
    """Raise UserError naming every key in which the run in `workdir` differs from `config`.

    but: keys of the top level that may differ, beside those that do not say which run it is.
    """
    asked = json.loads(config.to_json_best_effort())
    begun = complete(
        distributed.broadcast_from_first(lambda: _read_config(workdir / "config.json")), asked
    )
    for key in but:
        begun.pop(key, None)
        asked.pop(key, None)
    if differences := _differences(identity(begun), identity(asked)):
        raise UserError(
            f"{workdir} holds another net: {'; '.join(differences)}. Give the config it was begun "
            "with, or another --workdir"
        )


def identity(config: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """The part of a config that says which run it is: without `configs.common.OF_THE_MACHINE`.

    Of the nets and of the picture that an attack is given not where they lie either: the study
    compares their digests and pixels.
    """
    settings: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{section}{key}"
        if isinstance(value, Mapping):
            settings[key] = identity(value, f"{name}.")
        elif name == "input":
            settings[key] = "a picture" if value else ""
        elif name != "run" and name not in OF_THE_MACHINE:
            settings[key] = value
    return settings


def complete(begun: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The config `begun` of a run, with those keys of `asked` that there were none of then."""
    begun, asked = (flatten_dict(each, keep_empty_nodes=True, sep=".") for each in (begun, asked))
    later = {key: value for key, value in _LATER.items() if key in asked}
    return unflatten_dict(later | begun, sep=".")


def rows(workdir: Path) -> list[dict[str, Any]]:
    """The complete lines of metrics.jsonl; a last line cut short by a kill is dropped."""
    return distributed.broadcast_from_first(lambda: _rows(workdir))


def _rows(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    return files.read(path, _parse_complete, remedy=_AGAIN)


def _parse_complete(content: bytes) -> list[dict[str, Any]]:
    """The rows of the lines that have their end."""
    return records.parse_rows(content[: content.rfind(b"\n") + 1])


def gradients(workdir: Path) -> dict[str, np.ndarray]:
    """The arrays of gradients.npz, or {} if there is none; not told to others.

    Raises UserError if it is damaged.
    """
    path = workdir / "gradients.npz"
    return files.read(path, files.parse_arrays, remedy=_AGAIN) if path.exists() else {}


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file in one move."""
    if distributed.is_first():
        files.replace(path, npz(arrays))


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of an .npz file."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def with_epoch(
    arrays: Mapping[str, np.ndarray],
    epoch: int,
    layers: Sequence[str],
    statistics: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """`arrays` as of gradients.npz, with {statistic: [S, L]} of one more epoch at their end.

    A statistic that an earlier version of the run did not record is NaN in its epochs.
    """
    longer = {"epochs": np.append(arrays.get("epochs", np.empty(0, np.int32)), np.int32(epoch))}
    longer["layers"] = np.asarray(layers)
    for name, values in statistics.items():
        absent = np.full((len(longer["epochs"]) - 1, *values.shape), np.nan, values.dtype)
        before = arrays.get(name, absent)
        longer[name] = np.concatenate([before, values[None]])
    return longer


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, a user's own or a trimmed one of results/; made by `load_run`.

    path: its directory.  config, versions, summary: the content of the files of these names.
    digests: {file below `path`: SHA-256} as the list of the run has them, {} if it has no list.
    The other files are read when they are first asked for. A trimmed run may lack any of them, and
    a run writes only those of its experiment: what a missing file would hold is empty.
    """

    path: Path
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    summary: Mapping[str, Any]
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def experiment(self) -> str:
        """The kind of the run, one of `EXPERIMENTS`."""
        return self.config["experiment"]

    @property
    def name(self) -> str:
        """The variant of the config file, such as "mnist-best"."""
        return self.config["name"]

    @property
    def caption(self) -> str:
        """The data in words, for figures and notes."""
        return self.versions["data"]["caption"]

    @functools.cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one an epoch from 1: {"epoch", "test_accuracy": [S], ...}."""
        return self._read("metrics.jsonl", records.parse_rows) or []

    @functools.cached_property
    def gradients(self) -> dict[str, np.ndarray]:
        """gradients.npz: {"epochs" [E + 1], "layers" [L], statistic: [E + 1, S, L] float32}."""
        return self._read("gradients.npz", files.parse_arrays) or {}

    @functools.cached_property
    def map(self) -> dict[str, np.ndarray]:
        """map.npz, of a map: see `experiments.map`."""
        return self._read("map.npz", files.parse_arrays) or {}

    @functools.cached_property
    def over_seeds(self) -> dict[str, Any]:
        """over_seeds.json, of a trimmed net of the depth study: {"curves": ..., "gradients": ...}.

        `ledger.tables.depth.curves` and `gradients` give the same of a net that is not trimmed.
        """
        return self._read("over_seeds.json", records.parse_json) or {}

    @functools.cached_property
    def cells(self) -> list[dict[str, Any]]:
        """The lines of cells.jsonl, of an attack: one for each image with each target class."""
        return self._read("cells.jsonl", records.parse_rows) or []

    @functools.cached_property
    def nets(self) -> dict[str, "Run"]:
        """{net: its part of the run}, in order; {net: this run} of a run of a single net.

        A part has the config and the versions of the whole, the summary of the net, and the files
        of the folder of its name where there is one. Of an attack the first net has no folder.
        """
        if "nets" not in self.summary:
            return {self.summary.get("net", self.name): self}
        parts: dict[str, Run] = {}
        for net, summary in self.summary["nets"].items():
            path, digests = self.path, self.digests
            if (folder := self.path / net).is_dir():
                own = {name.removeprefix(f"{net}/"): each for name, each in digests.items()}
                path, digests = folder, records.read_digests(folder, remedy=_AGAIN) or own
            parts[net] = Run(path, self.config, self.versions, summary, digests)
        return parts

    def predictions(self, split: str = "") -> dict[str, np.ndarray]:
        """predictions.npz, or predictions_<split>.npz: {logits [S, N, K], labels [N]}, or {}."""
        name = f"predictions{f'_{split}' if split else ''}.npz"
        return self._read(name, files.parse_arrays) or {}

    def figure(self, name: str) -> Path:
        """The file figures/<name>.png or .webp.  Raises UserError if it is missing or damaged."""
        png = self.path / "figures" / f"{name}.png"
        for path in (png, png.with_suffix(".webp")):
            if path.exists():
                _ = self._read(f"figures/{path.name}", len)
                return path
        raise UserError(f"{png} is missing; a run draws it when it is started again")

    def clean(self, image: int) -> np.ndarray:
        """The picture [H, W, C] uint8 of an attacked image, by its number in `cells`.

        Raises UserError that names the file if it is missing or damaged.
        """
        return self._picture(f"clean/{image:05d}.png")

    def adversarial(self, cell: Mapping[str, Any]) -> np.ndarray:
        """The picture [H, W, C] uint8 that the attack made, for an element of `cells`.

        Raises UserError that names the file if it is missing or damaged.
        """
        return self._picture(cell["file"])

    def _picture(self, name: str) -> np.ndarray:
        content = records.read_listed(self.path, name, self.digests, bytes, remedy=_AGAIN)
        return read_image(content, formats=("PNG",), name=str(self.path / name))

    def _read(self, name: str, parse: Callable[[bytes], T]) -> T | None:
        """What `parse` makes of a file that the list names or that is there, else None."""
        if name not in self.digests and not (self.path / name).exists():
            return None
        return records.read_listed(self.path, name, self.digests, parse, remedy=_AGAIN)


def load_run(path: Path) -> Run:
    """The finished run in a directory, whichever experiment it is of.

        run = load_run(Path("results/depth"))      # or Path("runs/mlp/all,seeds=3")
        run.experiment                             # "depth"
        run.nets["tanh-40"].summary["test_accuracy"]  # [S]
        load_run(Path("results/grid-mnist-minimal")).cells[0]["success"]

    Raises UserError, one line naming the file, if the run has not come to its end, was begun by an
    earlier version, or a file is missing or damaged.
    """
    if not (path / "summary.json").exists():
        raise UserError(
            f"{path / 'summary.json'} is missing: there is no finished run in {path}; its command "
            "goes on where it stopped"
        )
    digests = records.read_digests(path, remedy=_AGAIN)
    needed = {"config": ("experiment", "name"), "versions": ("data",), "summary": ()}
    config, versions, summary = (
        records.read_listed(
            path,
            f"{name}.json",
            digests,
            functools.partial(records.parse_json, keys=keys),
            remedy=_AGAIN,
        )
        for name, keys in needed.items()
    )
    return Run(path, _known(config, path / "config.json"), versions, summary, digests)


class EpochLog:
    """The growing records of one run: metrics.jsonl, gradients.npz and TensorBoard events."""

    def __init__(self, workdir: Path, layers: Sequence[str], *, probed: bool) -> None:
        self._workdir, self._layers, self._probed = workdir, layers, probed
        self._gradients: dict[str, np.ndarray] = {}
        self._contents: dict[str, bytes] = {}
        self._check = 0  # of the last line of metrics.jsonl
        self._events: _Events | None = None

    def __enter__(self) -> "EpochLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._events:
            self._events.close()

    def contents(self) -> dict[str, bytes]:
        """{name: content} of metrics.jsonl and gradients.npz, for a checkpoint; {} but in the first
        process.
        """
        return dict(self._contents)

    def continue_from(self, contents: Mapping[str, bytes]) -> None:
        """Write the files anew as a checkpoint holds them, or begin them: {}.

        Raises UserError if they are to be begun but are there, of more epochs than a kill before
        the first checkpoint can leave: the checkpoints have been lost.
        """
        distributed.broadcast_from_first(lambda: self._continue_from(contents))

    def _continue_from(self, contents: Mapping[str, bytes]) -> None:
        if not distributed.is_first():
            return
        path = self._workdir / "metrics.jsonl"
        if not contents and path.exists():
            # A checkpoint is complete before the record of the next epoch but one.
            done = path.read_bytes().count(b"\n")
            if done > 2:
                raise UserError(
                    f"{path} holds {done} epochs, but none of their checkpoints is left to go on "
                    "from: put back a copy of one, or give another --workdir to start from the "
                    "beginning"
                )
        self._contents = {path.name: b"", **contents}
        for name, content in self._contents.items():
            files.replace(self._workdir / name, content)
        rows = records.parse_rows(self._contents[path.name])
        self._check = records.lines(rows)[1]
        if _GRADIENTS in contents:
            self._gradients = files.parse_arrays(contents[_GRADIENTS])
        self._events = _Events(self._workdir / "tensorboard", len(rows) + 1)

    def write(
        self, epoch: int, row: Mapping[str, Any] | None, statistics: Mapping[str, Any]
    ) -> None:
        """Add an epoch: its line of metrics (none at epoch 0) and {statistic: [S, L]}."""
        if not distributed.is_first():
            return
        if self._probed:
            self._gradients = with_epoch(self._gradients, epoch, self._layers, statistics)
            self._contents[_GRADIENTS] = npz(self._gradients)
            files.replace(self._workdir / _GRADIENTS, self._contents[_GRADIENTS])
        if row is None:
            return
        line, self._check = records.with_check(row, self._check)
        self._contents["metrics.jsonl"] += line.encode()
        files.append(self._workdir / "metrics.jsonl", line)
        if self._events:
            means = {name: mean(values) for name, values in row.items() if name != "epoch"}
            self._events.add(epoch, {k: value for k, value in means.items() if value is not None})


class _Events:
    """TensorBoard's events, from epoch `first` on; those of a store are copied from a folder here.

    The file that is copied has a name of its own for every start.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self._folder = folder
        self._here = tempfile.TemporaryDirectory() if files.stored(folder) else None
        where = self._here.name if self._here else str(folder)
        self._writer = SummaryWriter(where, purge_step=first, write_to_disk=True)

    def add(self, epoch: int, means: Mapping[str, float]) -> None:
        for name, value in means.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()
        self._copy()

    def close(self) -> None:
        self._writer.close()
        self._copy()
        if self._here:
            self._here.cleanup()

    def _copy(self) -> None:
        if self._here:
            files.copy_tree(Path(self._here.name), self._folder)


def mean(values: Any) -> float | None:
    """The mean of a number or of a list over seeds, of those that are not None; None of none."""
    known = [value for value in np.atleast_1d(np.array(values, np.float64)) if value == value]
    return float(np.mean(known)) if known else None


def finished_summary(workdir: Path) -> dict[str, Any] | None:
    """The summary of a run that has come to its end with all its files as they were, else None.

    A line names a file that has changed since: the run goes on from its last state, and makes it
    again.  Raises UserError if the list of the files is damaged.
    """

    def summary() -> dict[str, Any] | None:
        if not (workdir / records.DIGESTS).exists():
            return None
        if faults := records.faults(workdir, remedy="what can be is made again"):
            more = f" ({len(faults) - 1} more files)" if len(faults) > 1 else ""
            progress.say(f"{faults[0]}{more}")
            return None
        return _read_json(workdir / "summary.json")

    return distributed.broadcast_from_first(summary)


def finish(workdir: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json, and after it the list of all files of the run."""
    write_json(workdir / "summary.json", summary)
    if distributed.is_first():
        records.write_digests(workdir, records.digests(workdir, _listed(workdir)))


def verify(path: Path) -> list[str]:
    """A line for every file of a run that is missing, damaged or not what was written, else [].

    Of a run without a list, which has not come to its end, only what each file shows by itself.
    Checkpoints are not looked at, which are compared with their digests whenever they are read.
    Raises UserError if there is no run.
    """
    if (path / records.DIGESTS).exists():
        return records.faults(path, remedy=_AGAIN)
    if not (path / "config.json").exists():
        raise UserError(f"{path / 'config.json'} is missing: there is no run in {path}")
    parsers = {
        ".json": records.parse_json,
        ".jsonl": _parse_complete,
        ".npz": files.parse_arrays,
        ".png": read_photograph,
    }
    faults: list[str] = []
    for name in _listed(path):
        file = path / name
        if file.name == records.DIGESTS:
            faults += records.faults(file.parent, remedy=_AGAIN)
        elif file.suffix in parsers:
            try:
                files.read(file, parsers[file.suffix], remedy=_AGAIN)
            except UserError as error:
                faults.append(str(error))
    return faults


def _listed(folder: Path) -> Iterator[str]:
    """The files that the list of a run names; a folder with a list of its own is one file of it."""
    for path in folder.iterdir():
        if path.suffix in _LISTED:
            yield path.name
        elif path.is_dir() and path.name not in _UNLISTED:
            own = (path / records.DIGESTS).exists()
            yield from (f"{path.name}/{n}" for n in ([records.DIGESTS] if own else _listed(path)))


def save_figures(workdir: Path, draw: Callable[[], Mapping[str, Figure]]) -> None:
    """Write {name: figure} to figures/<name>.png; `draw` is called in the first process only."""
    if not distributed.is_first():
        return
    files.make_folder(workdir / "figures")
    for name, figure in draw().items():
        content = io.BytesIO()
        figure.savefig(content, dpi=_DPI, format="png")
        files.replace(workdir / "figures" / f"{name}.png", content.getvalue())


def read_json(path: Path, *keys: str) -> Any:
    """The object of a JSON file, the same in every process, or None if there is no file.

    Raises UserError if it cannot be read or lacks one of `keys`.
    """

    def read() -> dict[str, Any] | None:
        return _read_json(path, *keys) if path.exists() else None

    return distributed.broadcast_from_first(read)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with its check, in one move."""
    files.replace(path, records.with_check(content, indent=2)[0])


@contextlib.contextmanager
def _lock(workdir: Path) -> Iterator[None]:
    """The lock of a directory of this machine, or of a file system that machines share.

    None of a finished run where nothing can be written, since nothing has to be.
    """
    if not files.can_write(workdir) and (workdir / "summary.json").exists():
        yield
        return
    path = Path(workdir / _LOCK)
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        files.make_folder(workdir)
        _ = lock.acquire()
    except Timeout:
        holder = ""
        with contextlib.suppress(OSError):
            holder = path.read_text().partition("\n")[0]
        holder = holder or "another process"
        raise UserError(
            f"{workdir} is in use by {holder}; wait for it or give another --workdir"
        ) from None
    except OSError as error:
        if error.errno in files.NO_LOCKS:
            raise UserError(
                f"{workdir}: its file system has no locks ({error.strerror}), and two runs could "
                "write there at once; give a --workdir on a file system that has"
            ) from error
        raise UserError(
            f"{workdir}: cannot be used as a work directory: {error.strerror or error}; give a "
            "--workdir that can be written"
        ) from error
    try:
        _ = path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        with files.guarded(path):
            yield
    finally:
        lock.release()


def _check_writable(workdir: Path) -> None:
    """Write an object, so that a store that refuses does so before anything is computed."""
    files.check_store(workdir)
    try:
        files.replace(workdir / _LOCK, "")
    except OSError as error:
        raise UserError(f"{workdir}: cannot be used as a work directory: {error}") from error


@functools.cache
def _say_unlocked() -> None:
    print(
        "a work directory in a store cannot be locked: take care that no other run uses it",
        file=sys.stderr,
        flush=True,
    )


def _read_json(path: Path, *keys: str) -> dict[str, Any]:
    return files.read(path, functools.partial(records.parse_json, keys=keys), remedy=_RESTORE)


def _read_config(path: Path) -> dict[str, Any]:
    return _known(_read_json(path), path)


def _known(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of config.json, `path`, by the names of this version.

    Raises UserError for an experiment that there is none of, or a key that has another name now.
    """
    if content.get("experiment") == "classify":
        content["experiment"] = "classifiers"  # its name in earlier versions
    if content.get("experiment") not in EXPERIMENTS:
        raise UserError(
            f"{path}: experiment {content.get('experiment')!r} is not one of "
            f"{', '.join(EXPERIMENTS)}"
        )
    for old, new in RENAMED.items():
        *sections, key = old.split(".")
        holder = content
        for section in sections:
            holder = holder.get(section, {})
        if key in holder:
            raise UserError(
                f"{path} is of an earlier version, which called {old} what is {new} now; make the "
                "run again in another --workdir"
            )
    return content


def _differences(begun: Any, asked: Any, key: str = "") -> list[str]:
    """ "key: begun with A, asked for B" for every leaf that differs."""
    if isinstance(begun, dict) and isinstance(asked, dict):
        differences: list[str] = []
        for name in [*begun, *(k for k in asked if k not in begun)]:
            path = f"{key}.{name}" if key else name
            differences += _differences(begun.get(name, _MISSING), asked.get(name, _MISSING), path)
        return differences
    return [] if begun == asked else [f"{key}: begun with {begun!r}, asked for {asked!r}"]


def code_version(file: Path) -> str:
    """Which code a module is of: the commit, with "+changes" if the tree is not clean.

    file: the module, research/storage/run_directory.py.
    Only a repository that has it there and tracks it tells: the one around an environment is
    somebody else's.  Of an installed package it is its name and version, else "unknown".
    """
    root = file.resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *words],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        _ = git("ls-files", "--error-unmatch", str(file.resolve()))
        if Path(git("rev-parse", "--show-toplevel")).resolve() == root:
            changed = git("status", "--porcelain", "--untracked-files=no")
            return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        installed = importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
    own = Path(str(installed.locate_file(""))).resolve() == root
    return f"{_DISTRIBUTION} {installed.version}" if own else "unknown"
