import json

import numpy as np
import pytest

from ledger import small
from ledger.tables.test_cells import finished_attack
from ledger.tables.test_classifiers import finished_classifier
from ledger.tables.test_depth import finished_study
from research.ledger import evidence
from research.structs import UserError

RECORDS = {
    "masks.vgg": {
        "curve": [[0.5, 0.4], [0.3, 0.6], [0.4, None]],
        "three": {"a": [1, 5], "b": [4, 2]},
        "one": 7,
    }
}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("masks.vgg:three.a", [1, 5]),
        ("masks.vgg:one", [7]),
        ("masks.vgg:three.a,b", [[1, 5], [4, 2]]),
        ("masks.vgg:three.a,b|highest", [4, 5]),
        ("masks.vgg:three.a,b|lowest", [1, 2]),
        ("masks.vgg:curve|first", [0.5, 0.4]),
        ("masks.vgg:curve|last", [0.4, 0.6]),
        ("masks.vgg:curve|rises", [1, 1]),
        ("masks.vgg:curve|turns", [1, 0]),
    ],
)
def test_a_key_is_the_way_to_its_numbers(key, values):
    found = evidence.samples(RECORDS, key)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("key", ["depth:x", "masks.vgg:other", "masks.vgg:three.c"])
def test_what_is_not_recorded_is_missing(key):
    with pytest.raises(KeyError):
        _ = evidence.samples(RECORDS, key)


def test_files_are_records_or_hold_one_an_entry(tmp_path):
    _ = (tmp_path / "depth.json").write_text(json.dumps({"epochs": 10}))
    _ = (tmp_path / "noise.json").write_text(json.dumps({"mnist": {}, "mlp": {}}))
    assert set(evidence.read(tmp_path)) == {"depth", "noise.mnist", "noise.mlp"}
    _ = (tmp_path / "masks.json").write_text("{")
    with pytest.raises(UserError, match=r"masks\.json cannot be read"):
        _ = evidence.read(tmp_path)


def test_only_whole_sets_and_faces_count():
    assert evidence.counts({"data": small.DATA})
    assert evidence.counts({"data": {"caption": "Face masks", "about": {}}})
    assert not evidence.counts({"data": small.SAMPLE})
    assert not evidence.counts({"data": {"caption": "?"}})


def test_a_run_directory_gives_the_records_of_its_experiment(tmp_path):
    study = evidence.of_run(finished_study(tmp_path / "a"))
    assert set(study) == {"depth", "gradients"}
    assert set(evidence.of_run(finished_classifier(tmp_path / "b"))) == {"classifiers.cifar10"}
    horse = finished_attack(tmp_path / "c", "cifar10", rows=[], classes=())
    assert set(evidence.of_run(horse)) == {"cells.cifar10 faithful"}


def test_a_run_on_the_sample_is_read_and_does_not_count(tmp_path):
    run = finished_study(tmp_path / "a", data={"name": "MNIST sample", "full": False})
    assert not evidence.counts(evidence.of_run(run)["depth"])
    with pytest.raises(UserError, match="full MNIST"):
        _ = evidence.of_run(run, any_data=False)
