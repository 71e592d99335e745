"""Tables of the face masks, from a small made-up run."""

import hashlib
import json

import pytest

from configs import masks
from research.ledger.tables import masks as tables
from research.structs import UserError


def group(count, accuracy, sd=0.05):
    return {
        "count": count,
        "accuracy": accuracy,
        "sd": sd,
        "interval": [accuracy - 0.1, accuracy + 0.1],
        "majority": 0.75,
        "accuracies": [accuracy] * 2,
        "auc": 0.98765,
    }


ABOUT = {
    "annotated": {"voc": {"with_mask": 70, "without_mask": 20, "incorrect": 3}},
    "usable": {"voc": {"with_mask": 70, "without_mask": 19}},
    "splits": {
        "train": {"voc": {"with_mask": 50, "without_mask": 12}},
        "test": {"voc": {"with_mask": 12, "without_mask": 4}},
        "score": {"voc": {"with_mask": 8, "without_mask": 3}},
    },
    "copies": {"voc": {"without_mask": 38}},
    "problems": 1,
    "near_duplicates": 2,
}
# Two seeds; the second has stopped after its third epoch.
CURVES = {
    "train_loss": [[0.5, 0.5], [0.4, 0.6], [0.3, 0.5], [0.2, None]],
    "train_accuracy": [[0.7, 0.6], [0.8, 0.7], [0.9, 0.8], [0.95, None]],
    "test_loss": [[0.6, 0.6], [0.7, 0.5], [0.5, 0.4], [0.6, None]],
    "test_accuracy": [[0.6, 0.5], [0.85, 0.6], [0.8, 0.7], [0.75, None]],
}


def make_run(tmp_path, name="vgg", data=None, **changes):
    config = masks.get_config(name)
    config.data.voc = "/home/me/photos"
    config.update({"seeds": 2} | changes)
    config.data.update(data or {})
    rows = [{key: CURVES[key][i] for key in CURVES} | {"epoch": i + 1} for i in range(4)]
    described = {"caption": "Face masks, some", "sha256": "ab", "about": ABOUT}
    summary = {
        "seeds": [0, 1],
        "epochs_trained": [4, 3],
        "best_epoch": [3, 3],
        "test": {"all": group(16, 0.8), "voc": group(16, 0.8, None)},
        "score": {"all": group(11, 0.7)},
        "parameters": 1234,
        "seconds": 9.0,
        "peak_memory_mib": 800.0,
        "data": described,
    }
    versions = {"data": described, "device": "a device", "packages": {"jax": "0.0.1"}}
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "versions.json").write_text(json.dumps(versions | {"git_commit": "abc"}))
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(lines)
    return tmp_path


def test_a_row_has_the_numbers_of_a_source_and_of_both_held_out_sets(tmp_path):
    result = tables.collect(make_run(tmp_path))
    whole, voc = tables.table(result).splitlines()[2:4]
    assert whole == (
        "| vgg | all | 16 | 80.0 | 5.0 | 70.0 - 90.0 | 75.0 | 0.9877 "
        "| 11 | 70.0 | 60.0 - 80.0 | 75.0 |"
    )
    assert voc == "| vgg | voc | 16 | 80.0 | - | 70.0 - 90.0 | 75.0 | 0.9877 | - | - | - | - |"
    command = "python -m research.main --config=configs/masks.py:vgg --config.seeds=2"
    assert f"`{command} --config.data.voc=DIR/voc`" in tables.table(result)
    assert "/home/me" not in json.dumps(result)


def test_a_run_of_before_a_key_was_there_is_one_of_the_stated_configuration(tmp_path):
    path = make_run(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    del config["data_devices"]
    path.write_text(json.dumps(config))
    assert tables.collect(tmp_path).keys() == {"vgg"}


def test_the_counts_follow_every_class_from_annotation_to_split(tmp_path):
    lines = tables.counts_table(tables.collect(make_run(tmp_path))).splitlines()
    assert lines[2:5] == [
        "| voc | incorrect | 3 | 0 | 0 | 0 | 0 | 0 |",
        "| voc | with_mask | 70 | 70 | 50 | 0 | 12 | 8 |",
        "| voc | without_mask | 20 | 19 | 12 | 38 | 4 | 3 |",
    ]


def test_the_trends_are_those_of_every_seed_as_long_as_it_was_trained(tmp_path):
    found = {}
    for line in tables.trends_table(tables.collect(make_run(tmp_path))).splitlines()[2:]:
        claim, _, here = (cell.strip() for cell in line.strip("|").split("|"))
        found[claim] = here
    assert found == {
        "F17, F23": "after 4, 3",
        "F19": "70.0 → 95.0 %; 60.0 → 80.0 %",
        "F20": "60.0 → 75.0 %; 50.0 → 70.0 %",
        "F21": "in 1 of 2 seeds",
        "F22": "it turns 2, 0 times",
        "F32": "10.0, 0.0 points",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 3}, r"is not a run of the stated configuration \(epochs\)"),
        ({"data": {"drawn": 24}}, r"is not a run of the stated configuration \(drawn\)"),
        ({"name": "smoke"}, r"holds 'smoke', not one of \('vgg', 'best'\)"),
    ],
)
def test_another_configuration_or_drawn_faces_are_not_collected(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        _ = tables.collect(make_run(tmp_path, **changes))


def test_a_run_that_is_not_finished_is_not_collected(tmp_path):
    (make_run(tmp_path) / "summary.json").unlink()
    with pytest.raises(UserError, match="no finished run of a mask classifier"):
        _ = tables.collect(tmp_path)


def test_a_picture_is_kept_with_its_checksum_and_what_it_shows(tmp_path):
    (tmp_path / "run" / "figures" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "figures" / "deep" / "face-panels.png").write_bytes(b"marked")
    (tmp_path / "run" / "figures" / "samples.png").write_bytes(b"drawn")
    drawn = {"net": "smoke", "epochs_trained": [3], "headline": "two faces"}
    tables.collect_picture(tmp_path, tmp_path / "run", drawn)
    tables.collect_picture(tmp_path, tmp_path / "run", {"photographs": 1, "headline": "one"})
    assert (tmp_path / "masks_samples.png").read_bytes() == b"drawn"
    assert (tmp_path / "masks_portrait.png").read_bytes() == b"marked"
    kept = json.loads((tmp_path / tables.PICTURES).read_text())
    assert {name: entry["headline"] for name, entry in kept.items()} == {
        "masks_samples.png": "two faces",
        "masks_portrait.png": "one",
    }
    sha256 = hashlib.sha256(b"drawn").hexdigest()
    assert kept["masks_samples.png"]["sha256"] == sha256
    assert tables.picture_of(tmp_path, {"net": "vgg", "epochs_trained": [3]}) is None
