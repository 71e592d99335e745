import json
import subprocess
import sys

import numpy as np
import pytest
from tables.test_noise import make_run as finished_attack

from configs import cnn
from configs import mlp as configs
from research import record, report
from research.types import UserError

RESULT = {
    "command": "python -m research.main",
    "epochs": 10,
    "data": {"caption": "MNIST, 60,000 train / 10,000 test (IDX files), sha256 14d9c3d6"},
    "device": "CPU, 2 cores (x86_64)",
    "packages": {"jax": "0.10.2"},
    "test_accuracy": {"tanh-40": [0.95, 0.96, 0.94]},
}


def test_a_row_has_mean_sd_min_max_and_the_number_of_the_report():
    assert "| tanh-40 | 95.00 | 1.00 | 94.00 | 96.00 | 95.4 |" in report.depth_table(RESULT)


def test_a_table_names_seeds_data_and_device():
    last = report.depth_table(RESULT).splitlines()[-1]
    for word in ("3 seeds", "10 epochs", RESULT["data"]["caption"], RESULT["device"], "0.10.2"):
        assert word in last


def test_the_report_has_a_number_for_every_net_of_the_study():
    assert set(report.REPORTED) == set(configs.NETS)


def study(**accuracies):
    """A result in which a net has the given accuracy for two seeds, and its loss falls with it."""
    nets = {net: accuracies.get(net.replace("-", "_"), (0.95, 0.95)) for net in configs.NETS}
    losses = {net: [1 - a for a in values] for net, values in nets.items()}
    return {
        "test_accuracy": nets,
        "train_accuracy": nets,
        "test_loss": losses,
        "train_loss": losses,
        "gradient_maxima": {net: GRADIENTS.get(net, [[1.0, 1.0]]) for net in configs.NETS},
    }


GRADIENTS = {"lecun-5": [[3.0, 3.0]], "lecun-20": [[2.0, 0.5]], "lecun-40": [[4.0, 4.0]]}


@pytest.mark.parametrize(
    ("accuracies", "row"),
    [
        ({}, "| B17 | sigmoid fails at every depth (at most 20 %) | best of all seeds and depths: "
             "95.00 % | does not hold |"),
        ({"sigmoid_5": (0.1, 0.2), "sigmoid_20": (0.1, 0.1), "sigmoid_40": (0.1, 0.1)},
         "best of all seeds and depths: 20.00 % | holds |"),
        ({"tanh_20": (0.97, 0.97), "relu_5": (0.98, 0.94)},
         "tanh-20 97.00 %, then relu-5 96.00 %; the seeds of tanh-20 and relu-5 reach those of "
         "tanh-20 | holds |"),
        ({"tanh_5": (0.99, 0.99)},
         "the seeds of tanh-20 and relu-5 do not reach those of tanh-5 | does not hold |"),
        ({}, "share of layers and epochs in which they are: 100 % (5), 50 % (20), 100 % (40) | "
             "does not hold |"),
        ({}, "median ratio: 3.00 (5), 1.25 (20), 4.00 (40) | holds |"),
        ({"tanh_40": (0.94, 0.95)}, "95.00 -> 95.00 -> 94.50 % | does not hold |"),
        ({"relu_20": (0.9, 0.7), "relu_40": (0.1, 0.8)},
         "95.00 -> 80.00 -> 45.00 %; in 1 of 2 seeds | holds |"),
        ({"lecun_20": (0.96, 0.96), "lecun_40": (0.97, 0.97)},
         "95.00 -> 96.00 -> 97.00 % | holds |"),
        ({"lecun_5": (0.96, 0.96)}, "LeCun +1.00 points | does not hold |"),
        ({"lecun_40": (0.96, 0.94)},
         "better: train accuracy 1, test accuracy 1, train loss 1, test loss 1 | does not hold |"),
        ({"lecun_40": (0.96, 0.96)},
         "better: train accuracy 2, test accuracy 2, train loss 2, test loss 2 | holds |"),
    ],
)  # fmt: skip
def test_a_conclusion_holds_or_not_by_the_numbers_beside_it(accuracies, row):
    assert row in report.claims_table(study(**accuracies))


def write_results(root):
    (root / "results").mkdir()
    (root / "results" / "depth.json").write_text(json.dumps(RESULT))


def test_rendering_replaces_the_block_and_nothing_else(tmp_path):
    write_results(tmp_path)
    text = "before\n<!-- generated: depth -->\nold\n<!-- end -->\nafter\n"
    made = report.render(text, tmp_path)
    assert made.startswith("before\n<!-- generated: depth -->\n| net |")
    assert made.endswith("<!-- end -->\nafter\n") and "old" not in made
    assert report.render(made, tmp_path) == made


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("<!-- generated: dpeth -->\n<!-- end -->", "'dpeth' is unknown"),
        ("<!-- generated: depth -->\n", "no `<!-- end -->`"),
        ("<!-- generated: benchmark-depth -->\n<!-- end -->", "cannot be read"),
    ],
)
def test_a_block_that_cannot_be_made_is_named(block, said, tmp_path):
    write_results(tmp_path)
    with pytest.raises(UserError, match=said):
        _ = report.render(block, tmp_path)


def test_an_unfinished_run_is_not_collected(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        _ = report.collect(tmp_path)


def finished_study(workdir, **changes):
    """What `collect` reads of a run of the twelve nets with two seeds."""
    config = configs.get_config("all")
    config.update({"seeds": 2} | changes)
    data = {"name": "MNIST", "source": "IDX files in /home/somebody", "caption": "MNIST"}
    versions = {"data": data, "device": "CPU", "packages": {"jax": "1"}, "git_commit": "abc"}
    (workdir / "figures").mkdir(parents=True)
    _ = (workdir / "figures" / f"{report.FIGURE}.png").write_bytes(b"picture")
    record.write_json(workdir / "config.json", json.loads(config.to_json()))
    record.write_json(workdir / "versions.json", versions)
    record.write_json(workdir / "summary.json", {"nets": dict.fromkeys(configs.NETS)})
    for net in configs.NETS:
        (workdir / net).mkdir()
        numbers = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        record.write_row(workdir / net, {"epoch": 1} | {key: [0.25, 0.75] for key in numbers})
        layers = int(net.split("-")[1]) + 1
        maxima = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 2, layers), "f4")
        record.write_gradients(workdir / net, {"kernel_abs_max": maxima})
    return workdir


def test_a_finished_run_is_collected_with_its_figure_and_without_paths(tmp_path):
    found = report.collect(finished_study(tmp_path / "run"))
    assert "/home/somebody" not in json.dumps(found)
    assert found["test_accuracy"]["tanh-40"] == [0.25, 0.75]
    assert found["gradient_maxima"]["relu-5"] == [[1.0] * 6, [2.0] * 6, [3.0] * 6]
    assert "--config.seeds=2" in found["command"]


@pytest.mark.parametrize(
    "stale", [f"{report.FIGURE}.png", f"confusion_{report.CONFUSION}.png", report.NOISE]
)
def test_a_figure_of_another_run_than_its_table_is_noticed(stale, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    study = finished_study(tmp_path / "study")
    net = finished_classifier(tmp_path / "net", report.CONFUSION)
    report.collect_into(results, study)
    report.collect_into(results, net)
    (tmp_path / "attack").mkdir()
    report.collect_into(results, finished_attack(tmp_path / "attack"))
    assert report.stale_figures(tmp_path) == []
    _ = (results / stale).write_bytes(b"another")
    assert report.stale_figures(tmp_path) == [stale]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.1}, r"stated configuration \(learning_rate\)"),
        ({"epochs": 3, "init": "he"}, r"stated configuration \((epochs, init|init, epochs)\)"),
        ({"seeds": 1}, "fewer than two"),
    ],
)
def test_a_run_of_another_configuration_is_not_published(changes, said, tmp_path):
    with pytest.raises(UserError, match=said):
        _ = report.collect(finished_study(tmp_path / "run", **changes))


def test_a_run_on_the_sample_is_not_published(tmp_path):
    workdir = finished_study(tmp_path / "run")
    versions = json.loads((workdir / "versions.json").read_text())
    versions["data"]["name"] = "MNIST sample"
    record.write_json(workdir / "versions.json", versions)
    with pytest.raises(UserError, match="not run on the full MNIST"):
        _ = report.collect(workdir)


def finished_classifier(workdir, name="cifar10", full=True, **changes):
    """What `collect_classifier` reads of a run of two seeds."""
    config = cnn.get_config(name)
    config.update({"seeds": 2} | changes)
    data = {"name": "CIFAR-10", "source": "tars in /home/somebody", "caption": "C", "full": full}
    versions = {"data": data, "device": "CPU", "packages": {"jax": "1"}, "git_commit": "abc"}
    (workdir / "figures").mkdir(parents=True)
    _ = (workdir / "figures" / "confusion.png").write_bytes(b"matrix")
    record.write_json(workdir / "config.json", json.loads(config.to_json()))
    record.write_json(workdir / "versions.json", versions)
    test = [
        {"accuracy": correct / 100, "correct": correct, "count": 100, "ece": ece}
        for correct, ece in ((80, 0.01), (70, 0.03))
    ]
    summary = {"parameters": 1234, "peak_memory_mib": 512.0, "test": test}
    record.write_json(workdir / "summary.json", summary)
    return workdir


def test_a_classifier_is_collected_without_paths_and_becomes_a_row(tmp_path):
    found = report.collect_classifier(finished_classifier(tmp_path / "run", epochs=10))
    assert "/home/somebody" not in json.dumps(found)
    head, _, row, *notes = report.classifiers_table(found).splitlines()
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
    found = report.collect_classifier(finished_classifier(tmp_path, "mnist-best", seeds=1))
    assert report.classifiers_table(found).splitlines()[2].endswith("| - |")


def test_a_classifier_from_before_adversarial_training_is_still_collected(tmp_path):
    workdir = finished_classifier(tmp_path)
    config = json.loads((workdir / "config.json").read_text())
    for key in ("adversarial_radius", "adversarial_steps"):
        del config[key]
    record.write_json(workdir / "config.json", config)
    assert "cifar10" in report.collect_classifier(workdir)


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
        record.write_json(workdir / "config.json", config | changes)
    else:
        workdir = finished_classifier(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        _ = report.collect_classifier(workdir)


def test_an_unfinished_classifier_is_not_collected(tmp_path):
    with pytest.raises(UserError, match="no finished run of a classifier"):
        report.collect_into(tmp_path, tmp_path)


def test_the_tables_of_the_readme_equal_their_records():
    done = subprocess.run(
        [sys.executable, "-m", "research.report", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_digit_in_a_table_is_noticed():
    text = (report.ROOT / "README.md").read_text()
    assert report.render(text, report.ROOT) == text
    row = next(line for line in text.splitlines() if line.startswith("| tanh-40 |"))
    digits = [i for i, letter in enumerate(row) if letter.isdigit()]
    position = digits[3]
    other = str((int(row[position]) + 1) % 10)
    changed = text.replace(row, row[:position] + other + row[position + 1 :])
    assert report.render(changed, report.ROOT) != changed
