"""What stands on the page: words and numbers of made-up claims and records."""

import json

import pytest

from page import made
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
def test_numbers_are_said_with_their_spread_and_seeds(changes, expected):
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


def test_curves_of_readings_that_were_kept_are_given_as_median_lowest_and_highest():
    kept = content.explorer(made.gradients())
    assert list(kept["readings"]) == ["kernel_abs_max", "signal_abs_max"]
    median, low, high = kept["nets"]["tanh-5"]["kernel_abs_max"]
    assert len(median) == 11 and len(median[0]) == 6
    assert low[2][3] < median[2][3] < high[2][3]


def test_cells_toward_their_own_class_are_counted_apart():
    assert content.tally(made.grid(actual=(0, 9))) == {
        "targeted_tried": 18, "targeted_won": 17, "untargeted_tried": 2, "untargeted_won": 1,
    }  # fmt: skip


def test_methods_are_shown_side_by_side_on_the_same_images_only(tmp_path):
    made.root(tmp_path)
    kept = json.loads((tmp_path / "results" / "grids.json").read_text())
    digits, horse = content.grids(tmp_path, kept)
    assert [run["method"] for run in digits["tries"]] == ["faithful", "minimal"]
    assert digits["tries"][0]["sheet"] != digits["tries"][1]["sheet"]
    assert horse["which"] == "test image 3" and len(horse["classes"]) == 10
    kept["mnist-minimal"]["images"][0]["image"] = 4
    with pytest.raises(UserError, match="have not the same images"):
        _ = content.grids(tmp_path, kept)


def test_pictures_that_are_not_of_their_record_are_refused(tmp_path):
    made.root(tmp_path)
    sheet = tmp_path / "results" / "grid_mnist-minimal.png"
    sheet.write_bytes(sheet.read_bytes() + b"x")
    kept = json.loads((tmp_path / "results" / "grids.json").read_text())
    with pytest.raises(UserError, match=r"grid_mnist-minimal\.png is not of the run"):
        _ = content.grids(tmp_path, kept)
    sheet.unlink()
    with pytest.raises(UserError, match=r"grid_mnist-minimal\.png cannot be read"):
        _ = content.grids(tmp_path, kept)


def test_a_picture_is_inside_the_page_and_no_larger_than_a_screen(tmp_path, monkeypatch):
    made.root(tmp_path)
    monkeypatch.setattr(content, "_PICTURE_PX", 15)
    about = json.loads((tmp_path / "results" / "masks_pictures.json").read_text())
    shown = content.picture(tmp_path, about, "masks_portrait.png")
    assert (shown["width"], shown["height"]) == (15, 10)
    assert shown["source"].startswith("data:image/webp;base64,")
    assert shown["headline"] == "headline of masks_portrait.png"


def test_a_record_that_is_missing_is_named_with_what_makes_it(tmp_path):
    made.root(tmp_path)
    (tmp_path / "results" / "gradients.json").unlink()
    with pytest.raises(UserError, match=r"gradients\.json cannot be read .* --collect"):
        _ = content.records(tmp_path)
