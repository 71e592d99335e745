import re
from collections import Counter
from pathlib import Path

import pytest

from ledger import small
from research.ledger import claims
from research.ledger.published import PUBLISHED
from research.ledger.tables.classifiers import REPORTED as CLASSIFIERS
from research.ledger.tables.depth import HYPOTHESES, REPORTED
from research.structs import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def book():
    return claims.read()


def test_all_131_claims_are_there_in_order(book):
    found = Counter(claim.id[0] for claim in book.claims)
    assert found == claims.COUNTS and sum(found.values()) == 131
    expected = [f"{part}{i:02d}" for part, n in claims.COUNTS.items() for i in range(1, n + 1)]
    assert [claim.id for claim in book.claims] == expected


def test_every_test_that_a_claim_names_exists(book):
    for claim in book.claims:
        for name in claim.tests:
            path, _, function = name.partition("::")
            text = (ROOT / path).read_text()
            assert re.search(rf"^def {function}\(", text, re.MULTILINE), f"{claim.id}: {name}"


def test_the_numbers_of_claims_are_those_of_the_tables(book):
    stated = {
        c.net: c.parts[0].settings["is"]
        for c in book.claims
        if c.net in REPORTED and c.parts[0].rule == "value"
    }
    assert stated == REPORTED
    for claim in book.claims:
        for part in claim.parts:
            if part.rule == "value" and part.of[0].startswith("cnn-"):
                net = part.of[0].removeprefix("cnn-").partition(":")[0]
                assert part.settings["is"] == CLASSIFIERS[net]


def test_every_hypothesis_of_the_tables_is_in_the_book_and_used(book):
    assert set(HYPOTHESES) <= set(book.hypotheses)
    used = {name for claim in book.claims for name in claim.hypotheses}
    assert used == set(book.hypotheses)


def test_every_run_is_one_of_main_with_a_config_that_exists(book):
    for run in book.runs.values():
        file = run.command.removeprefix("--config=").partition(":")[0]
        assert (ROOT / file).exists()
        assert run.by_hand or run.name in PUBLISHED
        assert not run.after or run.after in book.runs


def change(old, new):
    assert old in small.BOOK
    return small.BOOK.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (change('rule = "value"', 'rule = "near"'), "B08: rule 'near' is not one of value, "),
        (change("digit = 0.1", "digits = 0.1"), "B08, value: digit is missing"),
        (change("digit = 0.1", "digit = 0.1, bound = 3"), "B08, value: unknown key 'bound'"),
        (change("depth:test_accuracy.relu-5", "relu-5"), "B08, value: 'relu-5' is not run:path"),
        (change('kind = "M"', 'kind = "Z"'), "A01: kind 'Z' is not one of N, Q, M, C, X"),
        (change('run = "depth"', 'run = "studies"'), "B08: run 'studies' is not one of"),
        (change('run = "depth"\n', ""), "B08: a claim with parts names the run"),
        (change('"REPRODUCED"', '"FINE"'), "A01: verdict 'FINE' is not one of"),
        (change('reason = "Equal."\n', ""), "A01: verdict and reason are for tests and reading"),
        (change('text = "faces"', 'test = "faces"'), "F02: text is missing"),
        (change('id = "F28"', 'id = "F01"'), "ids are not in order"),
        (change('id = "F28"', 'id = "G28"'), "G28: the id is not a letter from A to F"),
        (change('untestable = "The', 'reading = true\nuntestable = "The'), "F28: give one of"),
        (change('["batch-32"]', '["batch-3"]'), "hypotheses 'batch-3' is not one of batch-32"),
        (change("seconds = 100\n", ""), "run depth: seconds is missing"),
        (change("[run.depth]", "[runs.depth]"), "unknown table 'runs'"),
        ("id = ", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_the_claim_and_the_key(text, said, tmp_path):
    with pytest.raises(UserError) as caught:
        _ = small.book(tmp_path, text)
    assert said in str(caught.value) and "\n" not in str(caught.value)[:60]


def test_a_part_about_an_order_is_known_by_its_rule_unless_it_says_so(tmp_path):
    number, order = (small.book(tmp_path).claims[i].parts[0] for i in (1, 2))
    assert (number.order, order.order) == (False, True)
    said = small.book(tmp_path, change("digit = 0.1", "digit = 0.1, order = true"))
    assert said.claims[1].parts[0].order
