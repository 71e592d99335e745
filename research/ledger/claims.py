"""Claims of the report: `research/ledger/claims.toml`, read and checked."""

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.structs import UserError

FILE = Path(__file__).with_name("claims.toml")
VERDICTS = ("REPRODUCED", "TREND-ONLY", "CONTRADICTED", "UNTESTABLE", "NOT RUN")
KINDS = ("N", "Q", "M", "C", "X")
SECTIONS = {
    "A": "Exercise 1, Part A",
    "B": "Exercise 1, Part B",
    "C": "Exercise 1, Part C",
    "D": "Exercise 1, Part D",
    "E": "Exercise 2",
    "F": "Exercise 3",
}
# How many there are of each: the report is fixed, and no claim of it may get lost.
COUNTS = {"A": 15, "B": 21, "C": 13, "D": 18, "E": 31, "F": 33}
# Keys of a part by its rule, besides `rule` and `of`; those with a star may be left out.
RULES: dict[str, tuple[str, ...]] = {
    "value": ("is", "digit", "images*"),
    "includes": ("is",),
    "at_most": ("bound", "every*"),
    "at_least": ("bound", "every*"),
    "above": ("than",),
    "rising": (),
    "falling": (),
    "best": ("among",),
    "level": ("within",),
    "usually": ("is",),
    "mostly_above": ("than", "rows*"),
    "mostly_falling": ("rows*",),
    "more_above": ("than", "rows*"),
}
NUMBERS = ("value", "includes", "at_most", "at_least")
_ALWAYS = ("unit*", "order*")


@dataclasses.dataclass(frozen=True)
class Part:
    """One check on recorded numbers.

    of: keys of its samples, "run:path".  order: whether it is about an order or a shape, not a
    number.  unit: "%" or "".  settings: the keys of the rule, samples in lists.
    """

    rule: str
    of: tuple[str, ...]
    order: bool
    unit: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """A command whose run judges claims.

    name: as in `published.PUBLISHED`.  command: flags of research.main.  seconds: on two cores.
    data: {flag: name of a data set}.  requires: values among the facts of the run that make it the
    stated configuration.  after: the run that trains its net, or "".  by_hand: why no machine can
    start it, or "".
    """

    name: str
    command: str
    seconds: float
    data: Mapping[str, str]
    requires: Mapping[str, Any]
    after: str
    by_hand: str


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """Another setting: its samples are shown beside those of the stated configuration."""

    name: str
    text: str
    of: str
    run: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the report; see the head of claims.toml for its keys."""

    id: str
    kind: str
    text: str
    claimed: str = ""
    config: str = ""
    figure: str = ""
    run: str = ""
    net: str = ""
    shown: str = ""
    note: str = ""
    stand_in: str = ""
    untestable: str = ""
    reading: bool = False
    verdict: str = ""
    reason: str = ""
    parts: tuple[Part, ...] = ()
    tests: tuple[str, ...] = ()
    hypotheses: tuple[str, ...] = ()
    failed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def section(self) -> str:
        """The part of the report that it is in."""
        return SECTIONS[self.id[0]]


@dataclasses.dataclass(frozen=True)
class Book:
    """All of claims.toml: claims in the order of their ids, runs and hypotheses by name."""

    claims: tuple[Claim, ...]
    runs: Mapping[str, Run]
    hypotheses: Mapping[str, Hypothesis]


def read(path: Path = FILE) -> Book:
    """The book of claims.

    Raises UserError naming the claim and key for anything that is not as the head of the file says.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    where = path.name
    unknown = set(table) - {"claim", "run", "hypothesis"}
    if unknown:
        raise UserError(f"{where}: unknown table {min(unknown)!r}; valid: claim, run, hypothesis")
    runs = {name: _run(where, name, entry) for name, entry in table.get("run", {}).items()}
    hypotheses = {
        name: _hypothesis(where, name, entry, runs)
        for name, entry in table.get("hypothesis", {}).items()
    }
    claims = tuple(_claim(where, entry, runs, hypotheses) for entry in table.get("claim", ()))
    ids = [claim.id for claim in claims]
    if ids != sorted(set(ids)):
        raise UserError(f"{where}: ids are not in order, each once")
    return Book(claims, runs, hypotheses)


def _run(where: str, name: str, entry: Mapping[str, Any]) -> Run:
    place = f"{where}: run {name}"
    _check_keys(place, entry, ("command", "seconds"), ("data", "requires", "after", "by_hand"))
    return Run(
        name=name,
        command=entry["command"],
        seconds=float(entry["seconds"]),
        data=entry.get("data", {}),
        requires=entry.get("requires", {}),
        after=entry.get("after", ""),
        by_hand=entry.get("by_hand", ""),
    )


def _hypothesis(
    where: str, name: str, entry: Mapping[str, Any], runs: Mapping[str, Run]
) -> Hypothesis:
    place = f"{where}: hypothesis {name}"
    _check_keys(place, entry, ("text", "of", "run"), ())
    _check_one(place, "run", entry["run"], runs)
    return Hypothesis(name, entry["text"], entry["of"], entry["run"])


def _claim(
    where: str,
    entry: Mapping[str, Any],
    runs: Mapping[str, Run],
    hypotheses: Mapping[str, Hypothesis],
) -> Claim:
    place = f"{where}: {entry.get('id', 'a claim without id')}"
    fields = [field.name for field in dataclasses.fields(Claim)]
    _check_keys(place, entry, fields[:3], fields[3:])
    if not re.fullmatch(r"[A-F]\d\d", entry["id"]):
        raise UserError(f"{place}: the id is not a letter from A to F and two digits")
    for kind in entry["kind"].split("/"):
        _check_one(place, "kind", kind, KINDS)
    if entry.get("run"):
        _check_one(place, "run", entry["run"], runs)
    for name in entry.get("hypotheses", ()):
        _check_one(place, "hypotheses", name, hypotheses)
    parts = tuple(_part(place, part) for part in entry.get("parts", ()))
    lists = {key: tuple(entry.get(key, ())) for key in ("tests", "hypotheses")}
    claim = Claim(**{**entry, **lists, "parts": parts})
    _check_way(place, claim)
    return claim


def _check_way(place: str, claim: Claim) -> None:
    """Raise UserError unless there is exactly one way to judge the claim, with all it needs."""
    by_tests = bool(claim.tests) and not claim.parts
    ways = (bool(claim.parts), by_tests, claim.reading, bool(claim.untestable))
    if sum(ways) != 1:
        raise UserError(f"{place}: give one of parts, tests, reading and untestable")
    written = by_tests or claim.reading
    if written:
        _check_one(place, "verdict", claim.verdict, VERDICTS[:3])
    if written != bool(claim.reason) or (claim.verdict and not written):
        raise UserError(f"{place}: verdict and reason are for tests and reading, and needed there")
    if bool(claim.parts) != bool(claim.run):
        raise UserError(f"{place}: a claim with parts names the run that gives them, others none")
    if claim.stand_in and not claim.parts:
        raise UserError(f"{place}: stand_in is for claims with parts")


def _part(place: str, entry: Mapping[str, Any]) -> Part:
    rule = entry.get("rule", "")
    _check_one(place, "rule", rule, RULES)
    place = f"{place}, {rule}"
    keys = ("rule", "of", *RULES[rule], *_ALWAYS)
    needed = [key for key in keys if not key.endswith("*")]
    _check_keys(place, entry, needed, [key[:-1] for key in keys if key.endswith("*")])
    samples = {key: _listed(entry[key]) for key in ("of", "than", "among") if key in entry}
    for sample in (sample for listed in samples.values() for sample in listed):
        if ":" not in sample:
            raise UserError(f"{place}: {sample!r} is not run:path")
    rest = {k: v for k, v in entry.items() if k not in ("rule", "of", "unit", "order")}
    return Part(
        rule=rule,
        of=samples.pop("of"),
        order=entry.get("order", rule not in NUMBERS),
        unit=entry.get("unit", ""),
        settings={**rest, **samples},
    )


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_keys(
    place: str, entry: Mapping[str, Any], needed: Sequence[str], allowed: Sequence[str]
) -> None:
    for key in needed:
        if key not in entry:
            raise UserError(f"{place}: {key} is missing")
    for key in entry:
        if key not in (*needed, *allowed):
            raise UserError(
                f"{place}: unknown key {key!r}; valid: {', '.join((*needed, *allowed))}"
            )


def _check_one(place: str, key: str, value: Any, valid: Any) -> None:
    if value not in valid:
        raise UserError(f"{place}: {key} {value!r} is not one of {', '.join(valid)}")
