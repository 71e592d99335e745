"""Several processes of one run against one process, and a run of which one process is killed.

    python -m benchmarks.processes

Local processes of `python -m research.main` on the loopback, one virtual device each: seeds of the
depth study and cells of an attack, which are compared bit for bit; one seed whose batches the
processes share, which agrees within rounding; and a run of which one process is killed and which
another number of processes goes on with. Fails if anything is not as it has to be.
"""

import importlib.metadata
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import measure
from research.runtime import commands, distributed

_FLAGS = measure.make_flags("processes", data=False)
_COUNTS = flags.DEFINE_multi_integer(
    "counts", [2, 4], "Numbers of processes, compared with one.", flag_values=_FLAGS
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 2, "Epochs of every net.", lower_bound=1, flag_values=_FLAGS
)
_LONG = flags.DEFINE_integer(
    "long_epochs", 20, "Epochs where a process is killed.", lower_bound=3, flag_values=_FLAGS
)
_IMAGES = flags.DEFINE_integer(
    "images", 10, "Images attacked toward every class.", lower_bound=1, flag_values=_FLAGS
)

TOLERANCE = 1e-3  # of what processes that share each batch compute, relative to one process
# Exit codes of a process when another one has died: its own, or JAX's SIGABRT.
ENDED = (distributed.LOST, -signal.SIGABRT)
SOON = distributed.HEARTBEAT + distributed.GRACE  # seconds within which it has to end
LIMIT = 1800  # seconds after which a run is given up
# In a row, of the machine and not of the run; the check covers them.
OWN_TIME = ("seconds", "step_ms", "device_memory_mib", "check")
LABELS = {
    "depth": "depth study, seeds dealt out",
    "shared": "depth study, one seed, each batch shared",
    "attack": "attack, cells dealt out",
}


class Ended(NamedTuple):
    """One process at its end. at: `time.monotonic`. line: its last one on standard error."""

    code: int
    at: float
    line: str


class Running:
    """`count` processes of `research.main` with the given flags; all end with the `with` block.

    began: `time.monotonic` at their start.
    """

    def __init__(self, count: int, words: Sequence[str]) -> None:
        self._errors = [tempfile.TemporaryFile("w+") for _ in range(count)]
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        self.began = time.monotonic()
        self.children: list[subprocess.Popen[str]] = []
        for number, errors in enumerate(self._errors):
            one_of = [f"--coordinator={address}", f"--processes={count}", f"--process={number}"]
            command = [
                sys.executable,
                "-m",
                "research.main",
                *words,
                *(one_of if count > 1 else []),
            ]
            environment, nowhere = measure.environment(), subprocess.DEVNULL
            child = subprocess.Popen(
                command, cwd=measure.ROOT, env=environment, stdout=nowhere, stderr=errors, text=True
            )
            self.children.append(child)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
                _ = child.wait()
        for errors in self._errors:
            errors.close()

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Return when `reached()`.  Exits with one line if a process ends before."""
        while not reached():
            for number, child in enumerate(self.children):
                if child.poll() is not None:
                    sys.exit(f"error: process {number} has ended: {self._last_line(number)}")
            time.sleep(0.005)

    def finish(self) -> list[Ended]:
        """Wait for all to end.  Exits with one line if that takes longer than LIMIT."""
        found: dict[int, Ended] = {}
        while len(found) < len(self.children):
            for number, child in enumerate(self.children):
                if number not in found and child.poll() is not None:
                    line = self._last_line(number)
                    found[number] = Ended(child.returncode, time.monotonic(), line)
            if time.monotonic() > self.began + LIMIT:
                sys.exit(f"error: {len(self.children)} processes have not ended in {LIMIT} s")
            time.sleep(0.005)
        return [found[number] for number in sorted(found)]

    def _last_line(self, number: int) -> str:
        _ = self._errors[number].seek(0)
        return measure.last_line(self._errors[number].read())


class Runs:
    """Runs in directories below `folder`; each number of processes compiles its programs once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def words(self, count: int, name: str, *words: str) -> list[str]:
        """The flags of a run named `name` that `count` processes take part in."""
        return [
            *words,
            "--config.data.source=sample",
            f"--workdir={self.folder / name}",
            f"--compilation_cache={self.folder}/compiled-{count}",
        ]

    def take(self, count: int, name: str, *words: str) -> float:
        """Seconds of a whole run.  Exits with one line if one of its processes fails."""
        _say(f"{name}: {count} process(es)")
        with Running(count, self.words(count, name, *words)) as running:
            ended = running.finish()
        for each in ended:
            if each.code:
                sys.exit(f"error: {name}: exit code {each.code}: {each.line}")
        return max(each.at for each in ended) - running.began

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of gradients.npz."""
        with np.load(self.folder / name / "gradients.npz") as stored:
            return dict(stored)

    def rows(self, name: str, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """The lines of a file, without what is of the machine."""
        lines = (self.folder / name / file).read_text().splitlines()
        return [_without(json.loads(line), OWN_TIME) for line in lines]

    def digests(self, name: str) -> dict[str, str]:
        """Digest of every leaf of the newest checkpoint."""
        folders = (self.folder / name / "checkpoints").glob("[0-9]*")
        newest = max(folders, key=lambda folder: int(folder.name))
        return json.loads((newest / "digest" / "metadata").read_text())["state"]

    def pictures(self, name: str) -> dict[str, bytes]:
        """Every image that was attacked and every one that was made."""
        workdir = self.folder / name
        found = sorted([*workdir.glob("clean/*.png"), *workdir.glob("cells/*.png")])
        return {str(path.relative_to(workdir)): path.read_bytes() for path in found}


def agreement(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[int]:
    """[how many entries are the same in both, how many there are in either]."""
    names = one.keys() | other.keys()
    same = [name for name in names if name in one and name in other]
    return [sum(_same(one[name], other[name]) for name in same), len(names)]


def difference(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Largest |other - one| / |one| over the entries of two arrays."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float((np.abs(second - first) / np.abs(first)).max())


def failures(results: Mapping[str, Any]) -> list[str]:
    """What is not as it has to be, one line each; pure."""
    found: list[str] = []
    for kind in ("depth", "attack"):
        for count, taken in results[kind].items():
            for name, (same, of) in taken["equal"].items():
                if same != of:
                    found.append(f"{kind}, {count} processes: {same} of {of} {name} are the same")
    for count, taken in results["shared"].items():
        for name, by in taken["difference"].items():
            if not by <= TOLERANCE:
                found.append(f"shared, {count} processes: {name} differ by {by:.1e}")
    killed = results["killed"]
    if killed["code"] not in ENDED or killed["seconds"] > SOON:
        found.append(f"killed: code {killed['code']} after {killed['seconds']:.1f} s")
    for name, (same, of) in killed["equal"].items():
        if same != of:
            found.append(f"killed and resumed: {same} of {of} {name} are the same")
    return found


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    for kind, label in LABELS.items():
        for count, taken in results[kind].items():
            same = [f"{same} of {of} {name}" for name, (same, of) in taken["equal"].items()]
            near = [f"{name} within {by:.1g}" for name, by in taken["difference"].items()]
            seconds, said = f"{taken['seconds']:.0f}", ", ".join([*same, *near]) or "-"
            rows.append([label, count, seconds, said])
    killed = results["killed"]
    equal = ", ".join(f"{same} of {of} {name}" for name, (same, of) in killed["equal"].items())
    processes = f"{killed['processes']}, then {killed['then']}"
    rows.append(["depth study, a process killed", processes, "-", equal])
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return measure.markdown(
        ["run", "processes", "seconds", "bit-identical to one process, or how near"],
        rows,
        f"tanh-5, {results['seeds']} seeds or one, {results['epochs']} epochs; "
        f"{results['images']} images toward every class; {results['data']}. Arrays are those of "
        f"gradients.npz, rows those of metrics.jsonl and cells.jsonl without times, digests those "
        f"of every array of the last checkpoint, pictures PNG files byte for byte. Seconds are the "
        f"whole command, compiling included, while processes share {results['device']}: they show "
        "that it works, not that it is faster.",
        f"Killed: process {killed['process']} by SIGKILL after epoch {killed['epoch']} of "
        f"{killed['epochs']}; the other one ended {killed['seconds']:.1f} s later with code "
        f"{killed['code']} and said: {killed['line']}. {killed['then']} processes went on "
        "from there, and are compared with one process that was not interrupted.",
        f"{results['device']}; {versions}; {results['date']}.",
    )


def measure_depth(runs: Runs, counts: Sequence[int], seeds: int, epochs: int) -> dict[str, Any]:
    """Nets of as many seeds as there are processes at most."""
    found: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for count in (1, *counts):
        name = f"depth-{count}"
        seconds = runs.take(count, name, *_net(seeds, epochs))
        rows = {str(i): row for i, row in enumerate(runs.rows(name))}
        taken = {"arrays": runs.arrays(name), "rows": rows, "digests": runs.digests(name)}
        found[str(count)] = {"seconds": seconds, **_beside(first, taken, agreement, "equal")}
    return found


def measure_shared(runs: Runs, counts: Sequence[int], epochs: int) -> dict[str, Any]:
    """One net, of which every process computes a part of each batch."""
    found: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for count in (1, *counts):
        name = f"shared-{count}"
        seconds = runs.take(count, name, *_net(1, epochs))
        losses = [[row["train_loss"], row["test_loss"]] for row in runs.rows(name)]
        taken = {"gradient maxima": runs.arrays(name)["kernel_abs_max"], "losses": losses}
        found[str(count)] = {"seconds": seconds, **_beside(first, taken, difference, "difference")}
    return found


def measure_attack(runs: Runs, counts: Sequence[int], images: int) -> dict[str, Any]:
    """Cells of one net, which one process has trained before."""
    _ = runs.take(1, "net", "--config=configs/cnn.py:mnist-best,smoke")
    found: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for count in (1, *counts):
        name = f"attack-{count}"
        seconds = runs.take(
            count,
            name,
            "--config=configs/noise.py:mnist,smoke",
            f"--config.run={runs.folder / 'net'}",
            f"--config.images={images}",
            "--config.pgd.images=0",
            "--config.cpu_devices=1",
        )
        cells = {f"{row['image']} {row['target']}": row for row in runs.rows(name, "cells.jsonl")}
        taken = {"rows": cells, "pictures": runs.pictures(name)}
        found[str(count)] = {"seconds": seconds, **_beside(first, taken, agreement, "equal")}
    return found


def measure_killed(runs: Runs, counts: Sequence[int], seeds: int, epochs: int) -> dict[str, Any]:
    """A run that loses its last process after an epoch, and is gone on with by another number."""
    words, name, metrics = _net(seeds, epochs), "killed", runs.folder / "killed" / "metrics.jsonl"
    _ = runs.take(1, "whole", *words)
    count, then = counts[0], counts[-1]
    _say(f"{name}: {count} processes, one to be killed")
    with Running(count, runs.words(count, name, *words)) as running:
        running.wait_until(lambda: metrics.exists() and "\n" in metrics.read_text())
        running.children[-1].kill()
        sent = time.monotonic()
        left = running.finish()[0]
    epoch = len(runs.rows(name))
    _ = runs.take(then, name, *words)
    rows = [{str(i): row for i, row in enumerate(runs.rows(each))} for each in ("whole", name)]
    equal = {
        "arrays": agreement(runs.arrays("whole"), runs.arrays(name)),
        "rows": agreement(*rows),
        "digests": agreement(runs.digests("whole"), runs.digests(name)),
    }
    return {
        **{"processes": count, "process": count - 1, "then": then, "epoch": epoch},
        **{"epochs": epochs, "seconds": left.at - sent, "code": left.code},
        "line": left.line.replace(str(runs.folder / name), "WORKDIR"),
        "equal": equal,
    }


def _beside(
    first: dict[str, Any], taken: Mapping[str, Any], compare: Callable[..., Any], how: str
) -> dict[str, Any]:
    """What a run of one process has left, kept in `first`, and that of another compared with it."""
    found = {kind: compare(first[kind], taken[kind]) for kind in taken} if first else {}
    first.update(taken if not first else {})
    return {"equal": {}, "difference": {}, how: found}


def _net(seeds: int, epochs: int) -> list[str]:
    return [
        "--config=configs/mlp.py:tanh-5",
        f"--config.seeds={seeds}",
        f"--config.epochs={epochs}",
        "--config.cpu_devices=1",
    ]


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same to the bit, or two other things equal."""
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and one.tobytes() == other.tobytes()
    return one == other


def _without(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    counts, epochs, images = _COUNTS.value, _EPOCHS.value, _IMAGES.value
    if min(counts) < 2:
        commands.fail(f"--counts: {min(counts)} is not several processes")
    seeds = max(counts)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    results: dict[str, Any] = {**measure.describe(), "versions": versions, "seeds": seeds}
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        results["depth"] = measure_depth(runs, counts, seeds, epochs)
        results["shared"] = measure_shared(runs, counts, epochs)
        results["killed"] = measure_killed(runs, counts, seeds, _LONG.value)
        results["attack"] = measure_attack(runs, counts, images)
        summary = json.loads((runs.folder / "depth-1" / "summary.json").read_text())
    results |= {"epochs": epochs, "images": images, "data": summary["data"]["caption"]}
    measure.finish(results, output, table)
    return measure.print_faults(failures(results))


if __name__ == "__main__":
    measure.start(main)
