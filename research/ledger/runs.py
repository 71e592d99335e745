"""Run what the ledger still lacks: cheapest first, within a budget of time, resumable."""

import difflib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from research.ledger import evidence
from research.ledger.claims import Book, Run
from research.ledger.text import duration
from research.ledger.trim import trim
from research.runtime import files
from research.storage import run_directory
from research.structs import UserError, printable

Start = Callable[[Sequence[str]], int]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNITS = {"s": 1, "m": 60, "h": 3600}


def budget_seconds(text: str) -> float:
    """Seconds of "30m", "2h" or "90s"; "" is no end.  Raises UserError for anything else."""
    if not text:
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise UserError(f"--budget: {text!r} is not a number and a unit, as 30m, 2h or 90s")
    return float(match[1]) * _UNITS[match[2]]


def data_directories(given: Sequence[str], book: Book) -> dict[str, str]:
    """{name of a data set: directory} of words such as "mnist=DIR".  Raises UserError else.

    A data set has the name that the runs of the book have for it.
    """
    known = {name for run in book.runs.values() if not run.by_hand for name in run.data.values()}
    directories: dict[str, str] = {}
    for word in given:
        name, equals, directory = word.partition("=")
        if not equals or not directory:
            raise UserError(f"--data: {word!r} is not NAME=DIR, as mnist=path/to/idx/files")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(
                f"--data: {name!r} is no data set of the ledger; {hint}known: "
                f"{', '.join(sorted(known))}"
            )
        path = files.locate(directory)
        if not path.is_dir():
            raise UserError(f"--data: {directory} is not a directory")
        directories[name] = str(path)
    return directories


def missing(book: Book, facts: evidence.Facts) -> list[Run]:
    """The runs that are wanted by some claim or hypothesis and are not there on the whole data."""
    wanted = [claim.run for claim in book.claims if claim.run]
    wanted += [book.hypotheses[name].run for claim in book.claims for name in claim.hypotheses]
    return [run for name, run in book.runs.items() if name in wanted and not _is_there(run, facts)]


def _is_there(run: Run, facts: evidence.Facts) -> bool:
    content = facts.get(run.name)
    if content is None or content["shortfall"]:
        return False
    return all(content[key] == value for key, value in run.requires.items())


def estimate(run: Run, workdir: Path) -> float:
    """Seconds that a run still takes: from the epochs it has done, else as claims.toml has it."""
    try:
        begun = run_directory.read_json(workdir / "config.json")
        if begun is None:
            return run.seconds
        # A study of several nets has a directory each.
        folders = [workdir, *(path for path in workdir.iterdir() if path.is_dir())]
        rows = [row for folder in folders for row in run_directory.rows(folder)]
    except UserError:  # it is said when the run goes on
        return run.seconds
    seconds = [row["seconds"] for row in rows if "seconds" in row]
    total = begun.get("epochs", 0) * len(begun.get("nets", ("one",)))
    if not seconds or not total:
        return run.seconds
    return sum(seconds) / len(seconds) * max(total - len(seconds), 0)


def command(run: Run, place: Path, data: Mapping[str, str]) -> list[str] | str:
    """The words to start a run with, or what is missing to start it."""
    if run.by_hand:
        return run.by_hand
    words = [sys.executable, "-m", "research.main", *shlex.split(_quoted(run.command))]
    for flag, name in run.data.items():
        if name in data:
            words.append(f"--{flag}={data[name]}")
        elif flag == "config.data.dir":
            # Never the sample, which judges nothing: rather an error.
            words.append("--config.data.source=tfds")
        else:
            return f"give --data={name}=DIR"
    if run.after and (place / run.after / "summary.json").exists():
        words.append(f"--config.run={place / run.after}")
    return [*words, f"--workdir={place / run.name}"]


def _quoted(words: str) -> str:
    return " ".join(shlex.quote(word) for word in words.split(" "))


def execute(
    book: Book,
    results: Path,
    place: Path,
    *,
    budget: float,
    data: Mapping[str, str],
    start: Start | None = None,
    say: Callable[[str], None] = lambda line: print(printable(line), file=sys.stderr, flush=True),
) -> int:
    """Run what is missing and keep its trimmed run in `results`; the exit code.

    place: where run directories lie; a run that was stopped goes on there.  budget: seconds; no run
    begins that is not expected to end within them.  data: {name of a data set: directory}.
    start: starts the words of a command and returns its exit code.
    Returns 0 if nothing went wrong, whatever is left for want of time or data, else 1; 130 or 143
    if it was asked to stop.
    """
    start = _start if start is None else start
    began, done, wrong, left = time.monotonic(), 0, 0, list[str]()
    queue = in_order(book, missing(book, evidence.read(results)), place)
    for number, run in enumerate(queue, 1):
        words, needed = command(run, place, data), estimate(run, place / run.name)
        if isinstance(words, str):
            left.append(f"{run.name} ({words})")
            continue
        rest = budget - (time.monotonic() - began)
        if needed > rest:
            left.append(f"{run.name} (about {duration(needed)})")
            continue
        say(f"{number} of {len(queue)}: {run.name}, about {duration(needed)}: {shlex.join(words)}")
        code = start(words)
        if code in [128 + number for number in _SIGNALS]:
            say(f"{run.name} was stopped; the same command goes on")
            return code
        if code:
            wrong += 1
            left.append(f"{run.name} (ended with code {code})")
            continue
        try:
            name = trim(run_directory.load_run(place / run.name), results)
        except UserError as error:
            wrong += 1
            left.append(f"{run.name} ({error})")
            continue
        done += 1
        say(f"{run.name} is done; kept in {results.name}/{name}")
        if not _is_there(run, evidence.read(results)):
            left.append(f"{run.name} (what it gave is not of the stated configuration)")
    spent = duration(time.monotonic() - began)
    rest = f"; left: {'; '.join(left)}" if left else "; nothing is left"
    say(f"{done} of {len(queue)} runs done in {spent}{rest}")
    return 1 if wrong else 0


def in_order(book: Book, runs: Sequence[Run], place: Path) -> list[Run]:
    """Cheapest first, but none before the run that trains its net."""

    def cost(run: Run) -> tuple[float, int]:
        own = estimate(run, place / run.name)
        earlier = book.runs[run.after] if run.after in [other.name for other in runs] else None
        if earlier is None:
            return own, 0
        before, depth = cost(earlier)
        return max(own, before), depth + 1

    return sorted(runs, key=cost)


def _start(words: Sequence[str]) -> int:
    """The exit code of a command; its progress is seen, its summary is not.

    A request to stop is passed on, so that the run saves where it is; 128 and the number of the
    signal is returned then.
    """
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    asked: list[int] = []

    def forward(number: int, frame: object) -> None:
        del frame
        asked.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _SIGNALS}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            _ = signal.signal(number, handler)
    return 128 + asked[0] if asked else code
