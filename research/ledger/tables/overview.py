"""The table of README.md: of each study our numbers, those of the report, seeds and minutes."""

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from research.ledger.claims import Book

# Study, what is measured, and the claims whose numbers are shown.
ROWS = (
    (
        "depth",
        "test accuracy (%), 5 hidden layers: ReLU, tanh, sigmoid, LeCun",
        ("B08", "B11", "B14", "D06"),
    ),
    (
        "depth",
        "test accuracy (%), 40 hidden layers: ReLU, tanh, sigmoid, LeCun",
        ("B10", "B13", "B16", "D08"),
    ),
    ("classifiers", "test accuracy (%), the CNN on MNIST", ("E03",)),
    ("classifiers", "test accuracy (%), the CNN on CIFAR-10", ("E07",)),
    ("noise", "digits taken to each other class (%), the report's attack", ("E24",)),
    ("masks", "validation accuracy (%), on other faces than the report's", ("F20",)),
)


def table(entries: Sequence[Mapping[str, Any]], book: Book) -> str:
    """Markdown table of `ROWS`, and a list of their commands.

    entries: the judged claims, see `verdicts.entry`.  book: gives the seeds and seconds of a run.
    """
    lines = [
        "| study | measured | here | the report | verdict | seeds | minutes |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    commands: dict[str, str] = {}
    for study, *cells, command in _rows(entries, book):
        lines.append(f"| {' | '.join((study, *cells))} |")
        _ = commands.setdefault(command, study)
    notes = [f"- {study}: `{command}`" for command, study in commands.items()]
    return "\n".join([*lines, "", *notes])


def note(entries: Sequence[Mapping[str, Any]], book: Book, study: str) -> str:
    """The rows of one study as plain text under their commands, for the docstring of its config."""
    lines: list[str] = []
    for name, measured, ours, reported, verdict, seeds, minutes, command in _rows(entries, book):
        if name != study:
            continue
        cost = f"seeds: {seeds}; minutes on two CPU cores: {minutes}"
        for text in (command, cost, f"{measured}: {ours}; the report {reported}; {verdict}"):
            wrapped = textwrap.wrap(text, 94, break_long_words=False, break_on_hyphens=False)
            indented = "\n      ".join(wrapped)
            if f"    {indented}" not in lines:
                lines.append(f"    {indented}")
    return "\n".join(lines)


def _rows(entries: Sequence[Mapping[str, Any]], book: Book) -> list[tuple[str, ...]]:
    """(study, measured, ours, reported, verdict, seeds, minutes, command) of each of `ROWS`."""
    judged = {entry["id"]: entry for entry in entries}
    runs = {claim.id: book.runs[claim.run] for claim in book.claims if claim.run}
    rows: list[tuple[str, ...]] = []
    for study, measured, ids in ROWS:
        chosen, run = [judged[name] for name in ids], runs[ids[0]]
        counts = Counter(entry["verdict"] for entry in chosen)
        verdicts = [f"{count} {name}" if len(ids) > 1 else name for name, count in counts.items()]
        seeds = re.search(r"--config\.seeds=(\d+)", run.command)
        rows.append(
            (
                *(study, measured, ", ".join(map(_ours, chosen))),
                *(", ".join(map(_reported, chosen)), ", ".join(verdicts)),
                *(seeds[1] if seeds else "1", f"{run.seconds / 60:.0f}", chosen[0]["command"]),
            )
        )
    return rows


def _ours(entry: Mapping[str, Any]) -> str:
    """The mean of the seeds; of a claim that is not run, that of other settings, which it names."""
    if entry["ours"]:
        return f"{entry['ours']['mean']:.2f}"
    others = [other for other in entry["hypotheses"] if other["ours"]]
    return f"{others[0]['ours']['mean']:.2f} ({others[0]['text']})" if others else "-"


def _reported(entry: Mapping[str, Any]) -> str:
    number = entry["reported"]
    return f"{number:g}" if number is not None else entry["claimed"].removesuffix(" %")
