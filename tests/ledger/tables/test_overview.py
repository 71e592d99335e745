import re

from research.ledger import claims
from research.ledger.tables import overview

NUMBERS = {"mean": 94.747, "sd": 0.4, "seeds": 20}


def judged(**changes):
    """The entries that the table shows, all alike."""
    entry = {
        "verdict": "REPRODUCED", "ours": NUMBERS, "reported": 96.2, "claimed": "96.2 %",
        "hypotheses": [], "command": "main --config=depth",
    }  # fmt: skip
    ids = [name for _, _, names in overview.ROWS for name in names]
    return [entry | {"id": name} | changes.get(name, {}) for name in ids]


def rows(entries):
    lines = overview.table(entries, claims.read()).splitlines()
    return [re.split(r" ?\| ?", line)[1:-1] for line in lines if line.startswith("| ")][1:], lines


def test_a_row_has_the_means_of_its_claims_beside_the_report_s_and_counts_their_verdicts():
    changes = {"B11": {"verdict": "CONTRADICTED", "ours": NUMBERS | {"mean": 95.18}}}
    (first, *_), _ = rows(judged(**changes))
    assert first[2] == "94.75, 95.18, 94.75, 94.75"
    assert first[3] == "96.2, 96.2, 96.2, 96.2"
    assert first[4] == "3 REPRODUCED, 1 CONTRADICTED"


def test_seeds_and_minutes_are_those_of_the_run_that_judges_the_claim():
    shown, _ = rows(judged())
    run = claims.read().runs["depth"]
    assert f"--config.seeds={shown[0][5]}" in run.command
    assert shown[0][6] == f"{run.seconds / 60:.0f}"


def test_a_claim_that_is_not_run_shows_other_settings_and_names_them():
    other = {"ours": {"mean": 72.54}, "text": "10 epochs in the place of 50"}
    missing = {"ours": None, "reported": None, "claimed": "75 %", "hypotheses": [other]}
    shown, _ = rows(judged(E07=missing))
    assert shown[3][2:4] == ["72.54 (10 epochs in the place of 50)", "75"]
    shown, _ = rows(judged(E07=missing | {"hypotheses": []}))
    assert shown[3][2] == "-"


def test_a_command_is_listed_once():
    _, lines = rows(judged(F20={"command": "main --config=masks"}))
    assert lines[-2:] == ["- depth: `main --config=depth`", "- masks: `main --config=masks`"]


def test_the_note_of_a_config_has_each_command_once_and_its_results_below_it():
    shown = overview.note(
        judged(E07={"command": "main --config=cifar10"}), claims.read(), "classifiers"
    )
    lines = shown.splitlines()
    assert [line.strip() for line in lines if "main" in line] == [
        "main --config=depth", "main --config=cifar10"
    ]  # fmt: skip
    assert "seeds: 3;" in lines[1] and lines[2].endswith(": 94.75; the report 96.2; REPRODUCED")
