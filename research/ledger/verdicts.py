"""The judged ledger: every claim with its verdict, our numbers and where they come from."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.ledger import claims, evidence, rules
from research.ledger.claims import VERDICTS, Book, Claim, Part, Run
from research.ledger.published import quoted
from research.ledger.tables.depth import READINGS
from research.storage import run_directory

MAIN = "python -m research.main"
_BLANK = "{reading}"
_NO_WORDS = ("gradients", _BLANK, "median", "curves", "data", "about")
PARTS = ("1A", "1B", "1C", "1D", "2", "3")


def judged(root: Path, runs: Sequence[Path] = (), book: Book | None = None) -> list[dict[str, Any]]:
    """Every claim as a dict that JSON can hold, in the order of ids.

    root: of the repository, with research/ledger/claims.toml and results/.
    runs: run directories, which take the place of those in results/.
    The keys are those of `entry`.  Raises UserError for a file that cannot be used.
    """
    book = claims.read() if book is None else book
    facts = evidence.read(root / "results")
    for workdir in runs:
        facts |= evidence.of_run(run_directory.load_run(workdir))
    path = root / "benchmarks" / "results" / "theory.json"
    theory = evidence.of_benchmark(root, "theory")["nets"] if path.exists() else {}
    return [entry(book, claim, facts, theory) for claim in book.claims]


def entry(
    book: Book, claim: Claim, facts: evidence.Facts, theory: Mapping[str, Any]
) -> dict[str, Any]:
    """One judged claim; theory: see `predicted`.

    {id, exercise, section, kind, text, claimed, verdict, reason, ours, values, reported, parts,
    data, config, command, figure, hypotheses, test, estimate}: `ours` {mean, sd, min, max, seeds,
    percentile, unit} or None, `values` the numbers behind it, `reported` the report's number or
    None, `parts` [{text, holds, order}], `estimate` seconds of a run that is missing.
    """
    judgement = {
        "id": claim.id,
        "exercise": {"E": 2, "F": 3}.get(claim.id[0], 1),
        "section": claim.section,
        "kind": claim.kind,
        "text": claim.text,
        "claimed": claim.claimed,
        "verdict": claim.verdict,
        "reason": claim.reason,
        "ours": None,
        "values": [],
        "reported": None,
        "parts": [],
        "data": "",
        "config": claim.config,
        "command": command(book.runs[claim.run]) if claim.run else "",
        "figure": claim.figure,
        "hypotheses": [_hypothesis(book, claim, name, facts) for name in claim.hypotheses],
        "test": list(claim.tests),
        "estimate": None,
    }
    if claim.untestable:
        judgement |= {"verdict": "UNTESTABLE", "reason": claim.untestable}
    elif claim.parts:
        run = book.runs[claim.run]
        missing = why_not_run(claim, run, facts)
        if missing:
            by_hand = f" {run.by_hand}." if run.by_hand else ""
            judgement |= {
                "verdict": "NOT RUN",
                "reason": missing + by_hand,
                "estimate": run.seconds,
            }
        else:
            judgement |= _judged(claim, facts)
            words = (judgement["reason"], predicted(claim, theory))
            judgement["reason"] = " ".join(text for text in words if text)
    return judgement


def predicted(claim: Claim, theory: Mapping[str, Any]) -> str:
    """What init alone predicts of the nets whose gradients a claim is about; "" of other claims.

    theory: {net: {"predicted" and "measured": {statistic: [L + 1]}}} of one batch before the first
    step, medians over seeds.
    """
    keys = [key for part in claim.parts for key in keys_of(part)]
    nets = dict.fromkeys(
        net for key in keys for net in re.findall(r"gradients\.([a-z]+-\d+)\.", key)
    )
    decays = any("signal_decay" in key for key in keys)
    pairs: list[str] = []
    for net in nets:
        if net not in theory:
            continue
        values: list[float] = []
        for side in ("predicted", "measured"):
            signal = np.array(theory[net][side]["signal_rms"])
            rate = (signal[0] / signal[-2]) ** (1 / max(len(signal) - 2, 1))
            values.append(float(rate if decays else max(theory[net][side]["kernel_abs"])))
        pairs.append(f"{net} {values[0]:.3g} / {values[1]:.3g}")
    quantity = "the signal a layer" if decays else "largest gradient of one batch"
    listed = ", ".join(pairs)
    return f"Before the first step, {quantity}, predicted / measured: {listed}." if pairs else ""


def command(run: Run) -> str:
    """What to type for a run; DIR stands for the directory of its data."""
    return " ".join(
        [MAIN, *(quoted(word) for word in run.command.split(" "))]
        + [f"--{flag}=DIR" for flag in run.data]
    )


def why_not_run(claim: Claim, run: Run, facts: evidence.Facts) -> str:
    """Why a claim with parts cannot be judged by the runs that there are, or ""."""
    names = {key.partition(":")[0] for part in claim.parts for key in keys_of(part)}
    for name in sorted(names):
        if name not in facts:
            return "There is no record of the run."
        run_facts = facts[name]
        if run_facts["shortfall"]:
            return f"The run that there is judges nothing: {run_facts['shortfall']}."
        if name != run.name:
            continue
        for key, value in run.requires.items():
            if run_facts[key] != value:
                return f"The run that there is has {key} {run_facts[key]}, and not {value}."
    return ""


def keys_of(part: Part) -> tuple[str, ...]:
    """Every sample that a part reads."""
    others = (key for name in ("than", "among") for key in part.settings.get(name, ()))
    return (*part.of, *others)


def label(part: Part) -> str:
    """What a part is about, in words made from the keys of its samples."""
    than = part.settings.get("than", ())
    words = ", ".join(_words(key, brief=number > 0) for number, key in enumerate(part.of))
    return f"{words} over {', '.join(_words(key, brief=True) for key in than)}" if than else words


def _words(key: str, *, brief: bool = False) -> str:
    way, _, operation = key.partition(":")[2].partition("|")
    words = [word for word in way.split(".") if word not in _NO_WORDS]
    if brief:  # the net alone: what is measured of it has been stated
        words = [words[0] if way.startswith("gradients.") else words[-1]]
    return " ".join([*words, operation]).replace("_", " ").replace(",", ", ").strip()


def _judged(claim: Claim, facts: evidence.Facts) -> dict[str, Any]:
    """The keys of an entry that come from runs."""
    open_reading = any(_BLANK in key for part in claim.parts for key in keys_of(part))
    readings = READINGS if open_reading else ("",)
    outcomes = {
        reading: [_check(part, facts, reading) for part in claim.parts] for reading in readings
    }
    each = {reading: rules.verdict(parts) for reading, parts in outcomes.items()}
    verdict = rules.over_readings(list(each.values()))
    words: list[str] = []
    if open_reading:
        listed = ", ".join(f"{name} {one}" for name, one in each.items())
        same = len(set(each.values())) == 1
        words.append(
            "The same in all four readings of 'max gradient'."
            if same
            else f"It depends on the reading of 'max gradient': {listed}."
        )
    if claim.failed:
        values = _samples(facts, claim.failed["of"], "%")
        below = int((values < claim.failed["below"]).sum())
        words.append(f"{below} of {len(values)} seeds stay below {claim.failed['below']} %.")
    if claim.stand_in:
        verdict = rules.with_stand_in(verdict)
        words.append(claim.stand_in)
    words.append(claim.note)
    name = claim.parts[0].of[0].partition(":")[0]
    return {
        "verdict": verdict,
        "reason": " ".join(text for text in words if text),
        "parts": [
            {"text": f"{label(part)}: {one.text}", "holds": one.holds, "order": one.order}
            for part, one in zip(claim.parts, outcomes[readings[0]], strict=True)
        ],
        "data": facts[name]["data"]["caption"],
        **_shown(claim, facts, readings[0]),
    }


def _check(part: Part, facts: evidence.Facts, reading: str) -> rules.Outcome:
    def samples(keys: Sequence[str]) -> list[np.ndarray]:
        return [_samples(facts, key.replace(_BLANK, reading), part.unit) for key in keys]

    filled = {
        key: samples(value) if key in ("than", "among") else value
        for key, value in part.settings.items()
    }
    return rules.check(part.rule, samples(part.of), filled, order=part.order)


def _samples(facts: evidence.Facts, key: str, unit: str) -> np.ndarray:
    values = evidence.samples(facts, key)
    return 100 * values if unit == "%" else values


def _shown(claim: Claim, facts: evidence.Facts, reading: str) -> dict[str, Any]:
    """Our numbers beside the report's: of the samples named, else the first of the first part."""
    key = claim.shown or claim.parts[0].of[0]
    part = next((part for part in claim.parts if key in part.of), claim.parts[0])
    # Of curves over layers the largest of every seed is the number to show.
    key = key.replace(_BLANK, reading).replace(".median", ".largest")
    values = _samples(facts, key, part.unit)
    reported = part.settings["is"] if part.rule == "value" else None
    return {
        "ours": summary(values, reported, part.unit),
        "values": values.tolist(),
        "reported": reported,
    }


def summary(values: np.ndarray, reported: float | None, unit: str) -> dict[str, Any]:
    """{mean, sd, min, max, seeds, percentile, unit} of the numbers of some seeds [S].

    percentile: percent of the seeds that are at most the reported value.
    """
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "min": float(values.min()),
        "max": float(values.max()),
        "seeds": len(values),
        "percentile": None if reported is None else float(100 * (values <= reported).mean()),
        "unit": unit,
    }


def _hypothesis(book: Book, claim: Claim, name: str, facts: evidence.Facts) -> dict[str, Any]:
    stated = book.hypotheses[name]
    judgement = {
        "name": name,
        "text": stated.text,
        "command": command(book.runs[stated.run]),
        "ours": None,
        "reason": "not run",
    }
    part = next((part for part in claim.parts if claim.shown in part.of), claim.parts[0])
    try:
        values = _samples(facts, stated.of.format(net=claim.net), part.unit)
        content = facts[stated.of.partition(":")[0]]
    except KeyError:
        return judgement
    if content["shortfall"]:
        return judgement | {"reason": f"not counted: {content['shortfall']}"}
    reported = part.settings["is"] if part.rule == "value" else None
    judgement["ours"] = summary(values, reported, part.unit)
    if reported is None:
        return judgement | {"reason": ""}
    outcome = rules.check(part.rule, [values], part.settings, order=part.order)
    return judgement | {
        "reason": "gives the number" if outcome.holds else "does not give the number"
    }


def counts(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """{part of the report, as "1B": {verdict: how many}}, every verdict in its order."""
    table: dict[str, dict[str, int]] = {part: {name: 0 for name in VERDICTS} for part in PARTS}
    for one in entries:
        table[part_of(one)][one["verdict"]] += 1
    return table


def part_of(one: Mapping[str, Any]) -> str:
    """Exercise and part of an entry, as "1B"; exercises without parts are "2" and "3"."""
    return f"1{one['id'][0]}" if one["exercise"] == 1 else str(one["exercise"])


def to_json(entries: Sequence[Mapping[str, Any]]) -> str:
    """The ledger as JSON text."""
    return json.dumps(list(entries), indent=1) + "\n"
