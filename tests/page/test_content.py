"""Content of the page: words and numbers of made-up claims and runs."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from page import made
from research.ledger import published
from research.page import content
from research.structs import UserError


def test_every_verdict_of_the_ledger_has_a_sign_of_its_own():
    shown = content.verdicts(made.entries())
    assert [verdict["name"] for verdict in shown] == list(made.verdicts.VERDICTS)
    assert len({verdict["sign"] for verdict in shown}) == 5
    assert [verdict["count"] for verdict in shown] == [2, 1, 2, 1, 1]


def test_a_verdict_that_there_is_none_of_is_refused():
    with pytest.raises(UserError, match=r"B08: there is no verdict 'MAYBE'"):
        _ = content.ledger([made.entry(verdict="MAYBE")])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "94.60 % (sd 0.66, 93.50 to 95.30, 5 values)"),
        ({"seeds": 1, "sd": None}, "94.60 % (1 value)"),
        ({"unit": "", "mean": 0.00012345}, "0.0001234 (sd 0.66, 93.5 to 95.3, 5 values)"),
    ],
)
def test_numbers_are_printed_with_their_spread_and_seeds(changes, expected):
    assert content.numbers(made.ours(**changes)) == expected


@pytest.mark.parametrize(
    ("percentile", "expected"),
    [
        (100.0, "above all of our values"),
        (0.0, "below all of our values"),
        (40.0, "40 % of our values are at or below it"),
        (None, ""),
    ],
)
def test_the_reported_value_has_its_place_among_the_seeds(percentile, expected):
    assert content.rank(made.ours(percentile=percentile)) == expected


def test_a_claim_is_found_by_its_id_its_words_and_the_name_of_its_kind():
    (shown,) = content.ledger([made.entry("E22", kind="N/X", text="Digit Zero")])
    assert shown["kinds"] == "number, error in the text"
    assert all(word in shown["searched"] for word in ("e22", "digit zero", "error in the text"))


def test_gradients_that_were_kept_are_given_as_median_lowest_and_highest(tmp_path):
    kept = content.explorer(made.depth(tmp_path), made.theory())
    assert list(kept["statistics"]) == ["kernel_abs_max", "signal_abs_max"]
    median, low, high = kept["nets"]["tanh-5"]["kernel_abs_max"]
    assert len(median) == 11 and len(median[0]) == 6
    assert low[2][3] < median[2][3] < high[2][3]
    assert kept["theory"]["tanh-5"]["signal_abs_max"][2] == 1e-4


def test_a_markdown_table_is_read_cell_by_cell():
    text = "| a | b |\n|---|---:|\n| x `k=1` | 2 |\n\nA note. `command`"
    assert content.table(text) == {
        **{"head": ["a", "b"], "rows": [["x k=1", "2"]]},
        "note": "A note. command",
    }


def test_untargeted_cells_are_counted_apart(tmp_path):
    run = made.attack(tmp_path, actual=(0, 9))
    assert content.tally(content.attack_rows(run)) == {
        "targeted_tried": 18, "targeted_won": 17, "untargeted_tried": 2, "untargeted_won": 1,
    }  # fmt: skip


def test_of_many_images_one_of_every_class_comes_before_a_second_one():
    cells = [
        {"image": image, "actual": image // 6, "target": target}
        for image in range(18)
        for target in (1, 0)
    ]
    rows = content.attack_rows(SimpleNamespace(cells=cells))
    assert [row[0]["image"] for row in rows] == [0, 1, 2, 3, 6, 7, 8, 12, 13, 14]
    assert [cell["target"] for cell in rows[0]] == [0, 1]


def test_methods_are_shown_side_by_side_on_the_same_images_only(tmp_path):
    runs = published.read(made.root(tmp_path) / "results")
    digits, horse = content.grids(runs)
    assert [attack["method"] for attack in digits["tries"]] == ["faithful", "minimal"]
    assert horse["which"] == "test image 3" and len(horse["classes"]) == 10
    png = base64.b64decode(digits["tries"][1]["sheet"].partition(",")[2])
    levels = np.asarray(Image.open(io.BytesIO(png)))[::4, ::4]
    np.testing.assert_array_equal(levels, 100 + np.arange(22).reshape(2, 11))
    runs["grid-mnist-minimal"].cells.pop()
    for cell in runs["grid-mnist-minimal"].cells[:10]:
        cell["image"] = 4
    with pytest.raises(UserError, match="have not the same images"):
        _ = content.grids(runs)


def test_a_picture_is_inside_the_page_and_no_larger_than_a_screen(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "_PICTURE_PX", 15)
    Image.new("RGB", (30, 20), "green").save(tmp_path / "photo.png")
    shown = content.picture(tmp_path / "photo.png", "a headline")
    assert (shown["width"], shown["height"], shown["headline"]) == (15, 10, "a headline")
    assert shown["source"].startswith("data:image/webp;base64,")
