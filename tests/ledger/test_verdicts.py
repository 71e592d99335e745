import json
from pathlib import Path

import numpy as np
import pytest

from ledger import finished, small
from research.ledger import verdicts
from research.structs import UserError

ROOT = Path(__file__).parents[2]
KEYS = {
    *("id", "exercise", "section", "kind", "text", "claimed", "verdict", "reason", "ours"),
    *("values", "reported", "parts", "data", "config", "command", "figure", "hypotheses", "test"),
    "estimate",
}


def judged(tmp_path, records):
    made = small.book(tmp_path)
    return {claim.id: verdicts.entry(made, claim, records, {}) for claim in made.claims}


def test_every_claim_has_its_verdict_and_its_numbers(tmp_path):
    found = judged(tmp_path, small.records())
    found_verdicts = {name: one["verdict"] for name, one in found.items()}
    assert found_verdicts == {
        "A01": "REPRODUCED", "B08": "REPRODUCED", "C01": "TREND-ONLY", "E22": "TREND-ONLY",
        "F02": "NOT RUN", "F28": "UNTESTABLE",
    }  # fmt: skip
    assert all(set(one) == KEYS for one in found.values())
    ours = found["B08"]["ours"]
    assert ours == {
        "mean": pytest.approx(95.3333, abs=1e-4), "sd": pytest.approx(1.5275, abs=1e-4),
        "min": 94.0, "max": 97.0, "seeds": 3, "percentile": pytest.approx(66.67, abs=0.01),
        "unit": "%",
    }  # fmt: skip
    assert found["B08"]["values"] == [94.0, 95.0, 97.0] and found["B08"]["reported"] == 96.2
    assert found["B08"]["data"] == small.DATA["caption"]
    assert found["B08"]["reason"] == "0 of 3 seeds stay below 20 %. A note."
    assert "kernel_abs_last CONTRADICTED" in found["C01"]["reason"]
    assert "relu-5 largest over tanh-5" in found["C01"]["parts"][0]["text"]
    assert (found["E22"]["reason"], found["E22"]["ours"]["sd"]) == ("Other images.", None)
    assert found["A01"]["test"] and found["F28"]["reason"] == "The images are not given."
    assert json.loads(verdicts.to_json(list(found.values())))


def test_what_has_no_record_is_not_run_and_says_how_to(tmp_path):
    found = judged(tmp_path, {})
    assert [found[name]["verdict"] for name in ("B08", "C01", "E22")] == ["NOT RUN"] * 3
    assert found["B08"]["command"] == (
        "python -m research.main --config=configs/mlp.py:all --config.seeds=20 "
        "--config.data.dir=DIR"
    )
    assert found["E22"]["command"].split()[-2] == '"--config.baselines=()"'
    assert found["B08"]["estimate"] == 100
    assert "ask for the photographs" in found["F02"]["reason"]
    assert found["B08"]["ours"] is None and found["B08"]["parts"] == []


def test_numbers_of_the_sample_judge_nothing(tmp_path):
    """The very numbers that reproduce a claim on the whole set."""
    found = judged(tmp_path, small.records(data=small.SAMPLE))
    for name in ("B08", "C01", "E22"):
        assert (found[name]["verdict"], found[name]["ours"]) == ("NOT RUN", None)
        assert "judges nothing: it is on MNIST sample" in found[name]["reason"]
    (other,) = found["B08"]["hypotheses"]
    assert other["ours"] is None and "counted: it is on" in other["reason"]


def test_a_run_on_the_sample_in_the_place_of_a_record_judges_nothing(tmp_path):
    run = finished.study(tmp_path / "run", data={"name": "MNIST sample", "full": False})
    entries = {one["id"]: one for one in verdicts.judged(ROOT, [run])}
    assert {entries[name]["verdict"] for name in ("B08", "B17", "C03", "D12")} == {"NOT RUN"}


def test_other_pictures_under_the_names_and_counts_of_the_set_judge_nothing(tmp_path):
    run = finished.classifier(
        tmp_path / "run", "mnist", data=finished.whole("MNIST", sha256="0" * 64), seeds=3
    )
    entries = {one["id"]: one for one in verdicts.judged(ROOT, [run])}
    assert entries["E03"]["verdict"] == "NOT RUN"
    assert "data of unknown origin: MNIST, all of it" in entries["E03"]["reason"]


def test_another_configuration_than_stated_is_not_run(tmp_path):
    found = judged(tmp_path, small.records(epochs=2))["E22"]
    assert found["verdict"] == "NOT RUN"
    assert found["reason"] == "The run that there is has epochs 2, and not 4."


def test_other_settings_stand_beside_and_change_no_verdict(tmp_path):
    records = small.records()
    records["depth"]["test_accuracy"]["relu-5"] = [0.94, 0.941]
    found = judged(tmp_path, records)["B08"]
    assert found["verdict"] == "CONTRADICTED"
    (other,) = found["hypotheses"]
    assert (other["name"], other["reason"]) == ("batch-32", "gives the number")
    assert other["ours"]["mean"] == pytest.approx(96.2)
    del records["batch-32"]
    (other,) = judged(tmp_path, records)["B08"]["hypotheses"]
    assert (other["ours"], other["reason"]) == (None, "not run")
    assert other["command"].endswith("--config.batch_size=32 --config.data.dir=DIR")


def test_the_percentile_is_of_the_seeds_that_are_no_more_than_the_report():
    assert verdicts.summary(np.array([1.0, 2.0, 3.0, 4.0]), 3.0, "")["percentile"] == 75.0
    assert verdicts.summary(np.array([1.0, 2.0]), None, "")["percentile"] is None


def test_counts_are_by_part_of_the_report(tmp_path):
    found = verdicts.counts(list(judged(tmp_path, small.records()).values()))
    assert list(found) == list(verdicts.PARTS)
    assert found["1B"]["REPRODUCED"] == found["1C"]["TREND-ONLY"] == found["3"]["NOT RUN"] == 1
    assert sum(sum(row.values()) for row in found.values()) == 6


def test_the_committed_records_judge_every_claim_that_they_can():
    entries = verdicts.judged(ROOT)
    assert len(entries) == 131
    not_run = {one["id"] for one in entries if one["verdict"] == "NOT RUN"}
    # CIFAR-10 in its published order, 50 epochs on it, and two whole sets of faces.
    assert not_run <= {"E07", "E25", "E26", "E27", "E28", "F02", "F07"}
    for one in entries:
        assert one["reason"] or one["parts"], one["id"]


def test_a_broken_run_is_one_line(tmp_path):
    _ = (finished.study(tmp_path / "results" / "depth") / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"depth/config\.json: cannot be read"):
        _ = verdicts.judged(tmp_path)


def test_a_claim_about_gradients_quotes_what_init_predicts_and_its_verdict_stays(tmp_path):
    made = small.book(tmp_path)
    sides = {
        side: {"signal_rms": [0.1 * f, 0.2 * f, 0.4, 1.0], "kernel_abs": [0.3 * f, 0.1, 0.2, 0.1]}
        for side, f in (("predicted", 1.0), ("measured", 1.21))
    }
    theory = {"relu-5": sides, "lecun-40": sides}
    for claim in made.claims:
        plain = verdicts.entry(made, claim, small.records(), {})
        quoted = verdicts.entry(made, claim, small.records(), theory)
        assert plain["verdict"] == quoted["verdict"]
        added = quoted["reason"].removeprefix(plain["reason"])
        assert ("relu-5 0.3 / 0.363" in added) == (claim.id == "C01"), added
        assert bool(added) == (claim.id == "C01")
