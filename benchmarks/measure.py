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
from typing import Any

from absl import flags

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_DROPPED = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "NPROC", "OMP_NUM_THREADS")
_SET = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


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
    """A contestant in a process of its own, which runs an epoch whenever it is asked to.

    facts: what it announced of itself (`contest.announce`).
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
        _ = self._child.wait()
        self._errors.close()

    def epoch(self) -> float:
        """Seconds of its next epoch."""
        assert self._child.stdin
        _ = self._child.stdin.write("\n")
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


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def describe() -> dict[str, str]:
    """The machine and the day, for the head of every file of results."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        model = names[0] if names else model
    today = datetime.datetime.now(datetime.UTC).date()
    return {"device": f"{model}, {os.cpu_count()} cores", "date": today.isoformat()}


def parse(values: flags.FlagValues, argv: Sequence[str], help_text: str) -> None:
    """absl's parser; --help prints and leaves, a mistake is one line."""
    if "--help" in argv or "-h" in argv:
        print(f"{help_text.strip()}\n\nFlags:\n{values.get_help()}")
        sys.exit(0)
    try:
        rest = values(list(argv))
        if len(rest) > 1:
            raise flags.Error(f"unexpected argument {rest[1]!r}; flags start with --")
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


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
        sys.exit(f"error: {path} cannot be read ({error}); measure first, without --table")


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
