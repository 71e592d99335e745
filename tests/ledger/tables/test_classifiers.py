import json

import pytest

from configs import cnn
from research.ledger.tables import classifiers
from research.storage import run_directory
from research.structs import UserError


def table_of(workdir):
    """What results/classifiers.json holds of a run."""
    kept = classifiers.collect(workdir)
    return {name.removeprefix("classifiers."): content for name, content in kept.items()}


def finished_classifier(workdir, name="cifar10", full=True, **changes):
    """What `collect` reads of a run of two seeds."""
    config = cnn.get_config(name)
    config.update({"seeds": 2} | changes)
    data = {"name": "CIFAR-10", "source": "tars in /home/somebody", "caption": "C", "full": full}
    versions = {"data": data, "device": "CPU", "packages": {"jax": "1"}, "git_commit": "abc"}
    (workdir / "figures").mkdir(parents=True)
    _ = (workdir / "figures" / "confusion.png").write_bytes(b"matrix")
    run_directory.write_json(workdir / "config.json", json.loads(config.to_json()))
    run_directory.write_json(workdir / "versions.json", versions)
    test = [
        {"accuracy": correct / 100, "correct": correct, "count": 100, "ece": ece}
        for correct, ece in ((80, 0.01), (70, 0.03))
    ]
    summary = {"parameters": 1234, "peak_memory_mib": 512.0, "test": test}
    run_directory.write_json(workdir / "summary.json", summary)
    return workdir


def test_a_classifier_is_collected_without_paths_and_becomes_a_row(tmp_path):
    found = table_of(finished_classifier(tmp_path / "run", epochs=10))
    assert "/home/somebody" not in json.dumps(found)
    head, _, row, *notes = classifiers.table(found).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["epochs"] == "10 of 50" and cells["seeds"] == "2"
    assert cells["parameters"] == "1,234" and cells["test accuracy (%)"] == "75.00"
    assert (cells["min"], cells["max"]) == ("70.00", "80.00")
    assert cells["95 % of the first"] == "71.12 - 86.66"
    assert cells["calibration error"] == "0.0200" and cells["the report |"] == "75 |"
    said = "\n".join(notes)
    for words in ("--config.seeds=2 --config.epochs=10", "512 MiB", "cifar10: C;"):
        assert words in said


def test_a_net_of_ours_has_no_number_of_the_report(tmp_path):
    found = table_of(finished_classifier(tmp_path, "mnist-best", seeds=1))
    assert classifiers.table(found).splitlines()[2].endswith("| - |")


def test_a_classifier_from_before_adversarial_training_is_still_collected(tmp_path):
    workdir = finished_classifier(tmp_path)
    config = json.loads((workdir / "config.json").read_text())
    for key in ("adversarial_radius", "adversarial_steps"):
        del config[key]
    run_directory.write_json(workdir / "config.json", config)
    assert "classifiers.cifar10" in classifiers.collect(workdir)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.1}, r"stated configuration \(learning_rate\)"),
        ({"full": False}, "not run on the full set"),
        ({"name": "other"}, "'other', not one of mnist, cifar10"),
    ],
)
def test_another_classifier_is_not_published(changes, said, tmp_path):
    if "name" in changes:
        workdir = finished_classifier(tmp_path)
        config = json.loads((workdir / "config.json").read_text())
        run_directory.write_json(workdir / "config.json", config | changes)
    else:
        workdir = finished_classifier(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        _ = classifiers.collect(workdir)


def test_a_run_that_differs_as_a_hypothesis_says_is_kept_as_that(tmp_path):
    found = classifiers.collect(finished_classifier(tmp_path, "mnist", learning_rate=0.001))
    (kept,) = [found["hypotheses.adam-0-001"]]
    assert kept["test_accuracy"] == {"mnist": [0.8, 0.7]}
    assert "--config.learning_rate=0.001" in kept["command"]


def test_a_run_on_less_than_the_set_can_be_read_if_asked_for(tmp_path):
    found = classifiers.collect(finished_classifier(tmp_path, full=False), any_data=True)
    assert not found["classifiers.cifar10"]["data"]["full"]


def test_an_unfinished_classifier_is_not_collected(tmp_path):
    with pytest.raises(UserError, match="no finished run of a classifier"):
        _ = classifiers.collect(tmp_path)
