"""The judged ledger in words: for the terminal, README.md and docs/ledger.md."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from research.ledger.claims import VERDICTS
from research.ledger.verdicts import PARTS, counts, part_of
from research.structs import printable

_WIDTH = 100
_NAMES = {
    "1A": "Exercise 1, Part A: mathematics",
    "1B": "Exercise 1, Part B: nine nets",
    "1C": "Exercise 1, Part C: gradients",
    "1D": "Exercise 1, Part D: LeCun's activation",
    "2": "Exercise 2: CNNs and adversarial noise",
    "3": "Exercise 3: face masks",
}
Entry = Mapping[str, Any]


def terminal(entries: Sequence[Entry]) -> str:
    """The whole ledger as plain text, a paragraph a claim, with the counts at its end."""
    lines: list[str] = []
    for part in PARTS:
        lines += ["", _NAMES[part], "-" * len(_NAMES[part])]
        for one in (one for one in entries if part_of(one) == part):
            lines += _paragraph(one)
    lines += ["", headline(entries)]
    return "\n".join(lines).lstrip("\n")


def headline(entries: Sequence[Entry]) -> str:
    """How many claims there are of every verdict, in one line."""
    totals = {name: sum(row[name] for row in counts(entries).values()) for name in VERDICTS}
    words = ", ".join(f"{count} {name}" for name, count in totals.items())
    return f"{len(entries)} claims: {words}"


def _paragraph(one: Entry) -> list[str]:
    claimed = f" [{one['claimed']}]" if one["claimed"] else ""
    text = [f"{one['id']} {one['verdict']}: {one['text']}{claimed}"]
    rest = [numbers(one["ours"], one["reported"]), *_checks(one), one["reason"], *_beside(one)]
    if one["figure"]:
        rest.append(f"The report's {one['figure']}.")
    rest += [f"{key}: {one[key]}" for key in ("data", "command") if one[key]]
    if one["estimate"]:
        rest.append(f"takes about {duration(one['estimate'])} on two cores")
    rest += [f"test: {name}" for name in one["test"]]
    for line in (line for line in rest if line):
        text += textwrap.wrap(
            printable(line), _WIDTH - 4, break_long_words=False, break_on_hyphens=False
        )
    return [text[0], *(f"    {line}" for line in text[1:])]


def numbers(ours: Mapping[str, Any] | None, reported: float | None) -> str:
    """Mean, sd, min, max, seeds and percentile in one line; "" for none."""
    if ours is None:
        return ""
    unit = " %" if ours["unit"] == "%" else ""
    if ours["seeds"] == 1:
        words = f"{_number(ours['mean'])}{unit}, 1 value"
    else:
        words = (
            f"{_number(ours['mean'])}{unit} mean, {_number(ours['sd'])} sd, "
            f"{_number(ours['min'])} min, {_number(ours['max'])} max, {ours['seeds']} values"
        )
    if reported is None:
        return words
    return f"{words}; the report's {reported:g}{unit} is at percentile {ours['percentile']:.0f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def _checks(one: Entry) -> list[str]:
    return [f"{'yes' if part['holds'] else 'no'}: {part['text']}" for part in one["parts"]]


def _beside(one: Entry) -> list[str]:
    """Other settings, a line each."""
    return [
        f"{other['text']}: "
        + ", ".join(text for text in (numbers(other["ours"], None), other["reason"]) if text)
        for other in one["hypotheses"]
    ]


def section(entries: Sequence[Entry], part: str) -> str:
    """Markdown of the claims of one part, "1A" to "3": a table, then what judged them."""
    chosen = [one for one in entries if part_of(one) == part]
    lines = ["| claim | the report | verdict | here |", "|---|---|---|---|"]
    for one in chosen:
        claimed = f" **{one['claimed']}**" if one["claimed"] else ""
        remarks = [
            numbers(one["ours"], one["reported"]),
            *_checks(one),
            one["reason"],
            *_beside(one),
        ]
        words = "<br>".join(_cell(text) for text in remarks if text)
        figure = f" ({one['figure']})" if one["figure"] else ""
        lines.append(
            f"| {one['id']} {one['kind']} | {_cell(one['text'])}{figure}{_cell(claimed)} | "
            f"{one['verdict']} | {words} |"
        )
    notes: dict[str, list[str]] = {}
    for one in chosen:
        for test in one["test"]:
            notes.setdefault(f"`{test}`", []).append(one["id"])
        if one["command"]:
            data = f"; {one['data']}" if one["data"] else ""
            notes.setdefault(f"`{one['command']}`{data}", []).append(one["id"])
    listed = [f"- {', '.join(ids)}: {note}" for note, ids in notes.items()]
    return "\n".join([*lines, "", *listed])


def rows(entries: Sequence[Entry], ids: Sequence[str]) -> str:
    """Markdown table of some claims, by their ids."""
    chosen = {one["id"]: one for one in entries}
    lines = ["| claim | the report says | here | |", "|---|---|---|---|"]
    for name in ids:
        one = chosen[name]
        words = "<br>".join(_cell(text) for text in _checks(one))
        lines.append(f"| {name} | {_cell(one['text'])} | {words} | {one['verdict']} |")
    return "\n".join(lines)


def short(entries: Sequence[Entry]) -> str:
    """Markdown for docs/ledger.md: counts by part and verdict, then what is not reproduced."""
    lines = [f"| | {' | '.join(VERDICTS)} |", f"|---|{'---:|' * len(VERDICTS)}"]
    table = counts(entries)
    for part, row in table.items():
        lines.append(f"| {_NAMES[part]} | {' | '.join(str(row[name]) for name in VERDICTS)} |")
    totals = [sum(row[name] for row in table.values()) for name in VERDICTS]
    lines += [f"| all {len(entries)} | {' | '.join(str(total) for total in totals)} |", ""]
    lines += ["| CONTRADICTED | the report | here |", "|---|---|---|"]
    for one in (one for one in entries if one["verdict"] == "CONTRADICTED"):
        claimed = f" **{one['claimed']}**" if one["claimed"] else ""
        lines.append(f"| {one['id']} | {_cell(one['text'] + claimed)} | {_cell(_against(one))} |")
    missing = [one for one in entries if one["verdict"] == "NOT RUN"]
    if missing:
        words = ", ".join(one["id"] for one in missing)
        lines += ["", f"NOT RUN: {words}; `python -m research.report --run` runs what it can."]
    return "\n".join(lines)


def _against(one: Entry) -> str:
    """What speaks against a claim: the checks that fail, or the reason that is written down."""
    failed = [part["text"] for part in one["parts"] if not part["holds"]]
    if not failed:
        return one["reason"]
    seeds = f" ({one['ours']['seeds']} values)" if one["ours"] else ""
    return "; ".join(failed) + seeds


def _cell(text: str) -> str:
    return text.replace("|", "/")


def duration(seconds: float) -> str:
    """Seconds as "45 s", "12 min" or "8.3 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
