import json

import numpy as np
import pytest

from configs import mlp as configs
from research.ledger.tables import depth
from research.storage import run_directory
from research.structs import UserError

RESULT = {
    "command": "python -m research.main",
    "epochs": 10,
    "data": {"caption": "MNIST, 60,000 train / 10,000 test (IDX files), sha256 14d9c3d6"},
    "device": "CPU, 2 cores (x86_64)",
    "packages": {"jax": "0.10.2"},
    "test_accuracy": {"tanh-40": [0.95, 0.96, 0.94]},
}
NUMBERS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def test_a_row_has_mean_sd_min_max_and_the_number_of_the_report():
    assert "| tanh-40 | 95.00 | 1.00 | 94.00 | 96.00 | 95.4 |" in depth.table(RESULT)


def test_a_table_names_seeds_data_and_device():
    last = depth.table(RESULT).splitlines()[-1]
    for word in ("3 seeds", "10 epochs", RESULT["data"]["caption"], RESULT["device"], "0.10.2"):
        assert word in last


def test_the_report_has_a_number_for_every_net_of_the_study():
    assert set(depth.REPORTED) == set(configs.NETS)


def test_other_settings_are_columns_and_nets_they_lack_are_empty_cells():
    of_batches = RESULT | {"test_accuracy": {"relu-5": [0.96, 0.97]}}
    made = depth.hypotheses_table({"batch-32": of_batches, "he": RESULT, "adam-0-001": RESULT})
    lines = made.splitlines()
    assert lines[0] == "| net | batch-32 | he | the report |"
    assert "| relu-5 | 96.50 (96.00 - 97.00) | - | 96.2 |" in lines
    assert "| tanh-40 | - | 95.00 (94.00 - 96.00) | 95.4 |" in lines
    assert len(lines) == 4 + 5  # none for the ten nets that neither has
    assert lines[-2].startswith("- batch-32: 2 seeds; MNIST")


def finished_study(workdir, nets=configs.NETS, data=None, **changes):
    """What `collect` reads of a run of some nets with two seeds: rows of epoch 1, gradients of 4.

    In layer l (from 0) of seed s the kernel maxima of epoch e are e + 10 s - l / 100.
    """
    config = configs.get_config("all")
    config.update({"seeds": 2, "nets": tuple(nets)} | changes)
    found = {"name": "MNIST", "source": "IDX files in /home/somebody", "caption": "MNIST"}
    found |= {"full": True} | (data or {})
    versions = {"data": found, "device": "CPU", "packages": {"jax": "1"}, "git_commit": "abc"}
    (workdir / "figures").mkdir(parents=True)
    _ = (workdir / "figures" / f"{depth.FIGURE}.png").write_bytes(b"picture")
    run_directory.write_json(workdir / "config.json", json.loads(config.to_json()))
    run_directory.write_json(workdir / "versions.json", versions)
    run_directory.write_json(workdir / "summary.json", {"nets": dict.fromkeys(nets)})
    for net in nets:
        (workdir / net).mkdir()
        row = {"epoch": 1, "seconds": 2.0} | {key: [0.25, 0.75] for key in NUMBERS}
        run_directory.write_row(workdir / net, row)
        layers = np.arange(int(net.split("-")[1]) + 1)
        epochs, seeds = np.arange(4)[:, None, None], np.arange(2)[None, :, None]
        maxima = np.float32(epochs + 10 * seeds - layers / 100)
        readings = (*depth.READINGS, "signal_abs_max")
        arrays = {name: maxima for name in readings}
        arrays["signal_abs_mean"] = np.float32(0.5) ** np.float32(layers[::-1]) * np.ones((4, 2, 1))
        run_directory.write_gradients(workdir / net, arrays)
    return workdir


def test_a_finished_run_is_collected_with_its_figure_and_without_paths(tmp_path):
    found = depth.collect(finished_study(tmp_path / "run"))
    assert set(found) == {"depth", "gradients"}
    assert "/home/somebody" not in json.dumps(found)
    study = found["depth"]
    assert study["test_accuracy"]["tanh-40"] == [0.25, 0.75]
    assert study["curves"]["tanh-40"]["test_loss"] == {"mean": [0.5], "low": [0.25], "high": [0.75]}
    assert "--config.seeds=2" in study["command"]


def test_gradients_keep_bands_and_the_extremes_of_epochs_1_to_3(tmp_path):
    relu = depth.collect(finished_study(tmp_path / "run"))["gradients"]["nets"]["relu-5"]
    reading = relu["kernel_abs_max"]
    assert reading["median"][0] == [5.0, 4.99, 4.98, 4.97, 4.96, 4.95]
    assert (reading["low"][2][0], reading["high"][2][0]) == (2.0, 12.0)
    assert (reading["largest"], reading["smallest"]) == ([3.0, 13.0], [0.95, 10.95])
    assert (reading["middle"], reading["peak"]) == ([2.975, 12.98], [1, 1])
    assert relu["signal_decay"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"batch_size": 32}, "batch-32"),
        ({"epochs": 20, "probe": False}, "epochs-20"),
        ({"init": "he", "nets": ("relu-5", "relu-20")}, "he"),
    ],
)
def test_a_run_that_differs_as_a_hypothesis_says_is_kept_as_that(changes, name, tmp_path):
    found = depth.collect(finished_study(tmp_path / "run", **changes))
    assert list(found) == [f"hypotheses.{name}"]
    (kept,) = found.values()
    key, value = next(iter(changes.items()))
    assert f"--config.{key}={value}" in kept["command"]
    assert kept["test_accuracy"]["relu-5"] == [0.25, 0.75]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.1}, r"stated configuration \(learning_rate\)"),
        ({"epochs": 3, "init": "he"}, r"stated configuration \(init, epochs\)"),
        ({"seeds": 1}, "fewer than two"),
        ({"nets": ("relu-5",)}, "does not hold the twelve nets"),
    ],
)
def test_a_run_of_another_configuration_is_not_published(changes, said, tmp_path):
    with pytest.raises(UserError, match=said):
        _ = depth.collect(finished_study(tmp_path / "run", **changes))


def test_a_run_on_the_sample_is_not_published_but_can_be_read(tmp_path):
    workdir = finished_study(tmp_path / "run", data={"name": "MNIST sample", "full": False})
    with pytest.raises(UserError, match="not run on the full MNIST"):
        _ = depth.collect(workdir)
    assert not depth.collect(workdir, any_data=True)["depth"]["data"]["full"]


def test_an_unfinished_run_is_not_collected(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        _ = depth.collect(tmp_path)
