"""Time and memory of child processes and of functions that take turns.

A machine is rarely as quiet as one thinks: contestants take turns, and ratios are formed within a
round before their median is taken. Imports nothing large, because a child is never seen to use less
memory than its parent did when it started it (Linux counts from the fork).
"""

import datetime
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from research.runtime import commands, startup

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_DROPPED = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "NPROC", "OMP_NUM_THREADS")
_SET = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
_PACKAGES = {"keras": ("tensorflow",), "torch": ("torch",)}


@dataclass(frozen=True)
class Finished:
    """A child that has come to its end.

    peak_mib: largest resident set of the child, in MiB.  seen_s: seconds from the start to the
    first line on standard error that contains the text watched for, None without one.
    """

    seconds: float
    peak_mib: float
    returncode: int
    output: str
    errors: str
    seen_s: float | None


def run(argv: Sequence[str], *, watch: str = "") -> Finished:
    """Run a command in the root of the repository, to its end."""
    lines: list[tuple[float, str]] = []
    began = time.monotonic()
    pipe = subprocess.PIPE
    child = subprocess.Popen(argv, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True)
    assert child.stdout and child.stderr
    with child.stdout as output, child.stderr as errors:
        reader = threading.Thread(
            target=lambda: lines.extend((time.monotonic() - began, line) for line in errors)
        )
        reader.start()
        printed = output.read()
        reader.join()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    seen = next((at for at, line in lines if watch and watch in line), None)
    text = "".join(line for _, line in lines)
    return Finished(seconds, _mib(usage), child.returncode, printed, text, seen)


class Paced:
    """A contestant in a process of its own, which takes a turn whenever it is asked to.

    facts: what it announced of itself (`contest.announce`).  peak_mib: its largest resident set in
    MiB, known when it has ended.
    """

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile("w+")
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(
            argv, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, stderr=self._errors,
            text=True,
        )  # fmt: skip

    def __enter__(self) -> "Paced":
        self.facts: dict[str, Any] = self.answer()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        self._child.stdout.close()
        if error[0] is not None:
            self._child.kill()
        _, status, usage = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        self.peak_mib = _mib(usage)
        self._errors.close()

    def turn(self, request: str = "") -> Any:
        """What it answers to a line: as a rule the seconds of its next turn."""
        assert self._child.stdin
        _ = self._child.stdin.write(f"{request}\n")
        self._child.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next line it prints, parsed.  Exits with one line if there is none."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if line:
            return json.loads(line)
        _ = self._errors.seek(0)
        raise SystemExit(f"error: {self._name} failed: {last_line(self._errors.read())}")


def environment() -> dict[str, str]:
    """The environment of every child: the CPU only, and nobody's threads or caches preset."""
    kept = {key: value for key, value in os.environ.items() if key not in _DROPPED}
    return kept | _SET


def alternate(
    contestants: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of every call, in rounds, after one round that is not counted.

    Every other round goes backwards, so that nobody is always first.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name in sorted(contestants, reverse=turn % 2 == 1):
            began = time.perf_counter()
            _ = contestants[name]()
            samples[name] += [time.perf_counter() - began] if turn else []
    return samples


def pace(contestants: Mapping[str, Paced], turns: int) -> dict[str, list[float]]:
    """Seconds of every turn of every contestant, one turn each in every round."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, contestant in contestants.items():
            samples[name].append(contestant.turn())
    return samples


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def against(
    label: str,
    ours: Sequence[float],
    theirs: Sequence[Sequence[float] | None],
    *,
    digits: int,
    scale: float = 1.0,
) -> list[str]:
    """A row: the median of ours, then for every peer its median and in brackets the ratio.

    theirs: None for a peer that was not measured.  scale: what the medians are multiplied by.
    """
    cells = [label, f"{scale * statistics.median(ours):,.{digits}f}"]
    for samples in theirs:
        median = f"{scale * statistics.median(samples):,.{digits}f}" if samples else "-"
        cells.append(f"{median} ({ratio(ours, samples):.2f})" if samples else median)
    return cells


def describe() -> dict[str, str]:
    """The machine and the day, for the head of every file of results."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        model = names[0] if names else model
    today = datetime.datetime.now(datetime.UTC).date()
    return {"device": f"{model}, {os.cpu_count()} cores", "date": today.isoformat()}


def make_flags(name: str, *, data: bool = True, peers: bool = False) -> flags.FlagValues:
    """The flags that benchmarks share: --output, --table and what the arguments ask for."""
    values = flags.FlagValues()
    if data:
        text = "Directory of MNIST's four IDX files."
        _ = flags.DEFINE_string("data_dir", "", text, flag_values=values)
    if peers:
        text = "Python with the peers installed."
        _ = flags.DEFINE_string("peer_python", sys.executable, text, flag_values=values)
    text, file = "File of the results.", RESULTS / f"{name}.json"
    _ = flags.DEFINE_string("output", str(file), text, flag_values=values)
    text = "Print the table of --output, and stop."
    _ = flags.DEFINE_bool("table", False, text, flag_values=values)
    return values


def start(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a benchmark to its end, whether or not somebody still reads what it says."""
    startup.prepare_streams()
    sys.exit(main(sys.argv))


def print_faults(lines: Sequence[str]) -> int:
    """Print what has come out otherwise than it must; the exit code of the benchmark."""
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(lines))


def begin(
    values: flags.FlagValues, argv: Sequence[str], help_text: str, table: Callable[[Any], str]
) -> Path:
    """Parse argv with absl; returns the file of the results.

    --help and --table print and leave; a mistake is one line and exit code 2.
    """
    _ = commands.parse(values, argv, help_text)
    for name, value in values.flag_values_dict().items():
        if isinstance(value, str) and value.startswith("~"):  # only paths begin so
            setattr(values, name, os.path.expanduser(value))
    output = Path(values.output)
    if values.table:
        print(table(read(output)))
        sys.exit(0)
    return output


def find_missing(python: str) -> list[str]:
    """The peers that `python` lacks.  Exits with one line if that is all of them."""
    missing, _ = find_packages(python, _PACKAGES)
    if len(missing) == len(_PACKAGES):
        commands.fail(
            f"{python} has neither tensorflow nor torch; install benchmarks/requirements.txt"
            " into an environment of its own and name its Python with --peer_python"
        )
    return missing


def find_packages(python: str, peers: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """The peers of which `python` lacks a package, and the packages.  Exits with one line if it
    cannot be run.

    peers: {name: the packages it needs}.
    """
    wanted = sorted({package for packages in peers.values() for package in packages})
    lacking = _ask(
        python,
        "import importlib.util, json; "
        f"print(json.dumps([n for n in {wanted} if not importlib.util.find_spec(n)]))",
    )
    return [name for name, packages in peers.items() if {*packages} & {*lacking}], lacking


def find_versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """Version of each of the packages that `python` has.  Exits with one line if it cannot be run.

    packages: as an installer names them, "adv-lib".
    """
    return _ask(
        python,
        "import importlib.metadata, json; "
        "there = {d.name: d.version for d in importlib.metadata.distributions()}; "
        f"print(json.dumps({{n: there[n] for n in {list(packages)} if n in there}}))",
    )


def _ask(python: str, code: str) -> Any:
    """The JSON that a line of Python prints.  Exits with one line if `python` cannot be run."""
    try:
        done = run([python, "-c", code])
    except OSError as error:
        commands.fail(f"--peer_python: {python} cannot be run ({error.strerror})")
    if done.returncode:
        commands.fail(f"--peer_python: {python}: {last_line(done.errors)}")
    return json.loads(done.output)


def summarize(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """versions, threads and data of a file of results, from what the contestants announced."""
    return {
        "versions": {k: v for fact in facts.values() for k, v in fact["versions"].items()},
        "threads": {n: fact["threads"] for n, fact in facts.items() if "threads" in fact},
        "data": facts["ours"]["data"],
    }


def caption(results: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The notes that say on what, with what and when it was measured, and which peer is missing."""
    missing = " and ".join(labels[name] for name in results["missing"])
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    threads = "; ".join(f"{labels[name]}: {n}" for name, n in results["threads"].items())
    return (
        (f"Missing here: {missing} (see benchmarks/requirements.txt). " if missing else "")
        + f"{results['device']}; {versions}; {results['data']}; {results['date']}. "
        + f"Threads: {threads}."
    )


def finish(results: Mapping[str, Any], path: Path, table: Callable[[Any], str]) -> None:
    """Write results as JSON and print their table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _ = path.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def read(path: Path) -> dict[str, Any]:
    """Results written earlier.  Exits with one line if there are none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        commands.fail(f"{path} cannot be read ({error}); measure first, without --table")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> str:
    """A Markdown table, and below it its notes as one paragraph."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    lines.insert(1, "|---" + "|---:" * (len(head) - 1) + "|")
    return "\n".join([*lines, "", " ".join(note for note in notes if note)])


def last_line(text: str) -> str:
    """The last line that is not empty: what a program says when it dies."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")


def _mib(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
