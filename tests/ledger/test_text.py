import pytest

from ledger import small
from research.ledger import text, verdicts


@pytest.fixture
def entries(tmp_path):
    made = small.book(tmp_path)
    return [verdicts.entry(made, claim, small.records(), {}) for claim in made.claims]


def test_a_claim_is_printed_with_its_verdict_numbers_data_and_command(entries):
    said = text.terminal(entries)
    for words in (
        "B08 REPRODUCED: accuracy of relu-5 [96.2 %]",
        "95.33 % mean, 1.53 sd, 94.00 min, 97.00 max, 3 values; the report's 96.2 % is at",
        "yes: test accuracy relu-5: 95.33 (sd 1.53, 94.00 to 97.00), the report 96.2",
        "batches of 32: 96.20 % mean",
        "data: MNIST, 60,000 train",
        "command: python -m research.main --config=configs/mlp.py:all",
        "F02 NOT RUN: faces",
        "takes about 1 s on two cores",
        "test: tests/ledger/test_claims.py::test_x",
        "6 claims: 2 REPRODUCED, 2 TREND-ONLY, 0 CONTRADICTED, 1 UNTESTABLE, 1 NOT RUN",
    ):
        assert words in said
    assert max(map(len, said.splitlines())) < 160


def test_a_section_has_a_row_a_claim_and_what_judged_them(entries):
    lines = text.section(entries, "1B").splitlines()
    assert lines[2].startswith(
        "| B08 N | accuracy of relu-5 **96.2 %** | REPRODUCED | 95.33 % mean"
    )
    assert lines[-1].startswith("- B08: `python -m research.main") and "MNIST" in lines[-1]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_the_short_form_counts_and_lists_what_is_contradicted(entries):
    part = {"text": "relu-5: 95.33 against 96.2", "holds": False, "order": False}
    entries[1] = entries[1] | {"verdict": "CONTRADICTED", "parts": [part]}
    lines = text.short(entries).splitlines()
    assert "| Exercise 1, Part B: nine nets | 0 | 0 | 1 | 0 | 0 |" in lines
    assert "| all 6 | 1 | 2 | 1 | 1 | 1 |" in lines
    row = "| B08 | accuracy of relu-5 **96.2 %** | relu-5: 95.33 against 96.2 (3 values) |"
    assert row in lines
    assert lines[-1].startswith("NOT RUN: F02")


def test_chosen_claims_are_rows_in_the_order_asked_for(entries):
    lines = text.rows(entries, ["C01", "B08"]).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| C01", "| B08"]


@pytest.mark.parametrize(("seconds", "said"), [(45, "45 s"), (720, "12 min"), (30_000, "8.3 h")])
def test_times_are_told_in_the_unit_that_fits(seconds, said):
    assert text.duration(seconds) == said
