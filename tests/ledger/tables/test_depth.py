import json

import pytest

from configs import mlp as configs
from ledger import finished
from research.ledger.tables import depth
from research.storage.run_directory import load_run, write_arrays


def test_a_row_has_mean_sd_min_max_and_the_number_of_the_report(tmp_path):
    lines = depth.table(load_run(finished.study(tmp_path))).splitlines()
    assert "| tanh-40 | 50.00 | 35.36 | 25.00 | 75.00 | 95.4 |" in lines
    for word in ("2 seeds", "10 epochs", "MNIST, all of it", "a device", "0.0.1", "seeds=2"):
        assert word in lines[-1]


def test_a_run_of_one_seed_and_fewer_epochs_has_its_row_and_its_gradients(tmp_path):
    workdir = finished.study(tmp_path, ("tanh-5",), seeds=1)
    run = load_run(workdir)
    run.summary["nets"]["tanh-5"]["test_accuracy"] = 0.25
    assert "| tanh-5 | 25.00 | - | 25.00 | 25.00 | 96.1 |" in depth.table(run).splitlines()
    arrays = {name: array[:2] for name, array in run.nets["tanh-5"].gradients.items()}
    write_arrays(workdir / "tanh-5" / "gradients.npz", arrays)
    net = load_run(workdir).nets["tanh-5"]
    assert depth.gradients(net)["kernel_abs_max"]["largest"] == [1.0, 11.0]


def test_the_report_has_a_number_for_every_net_of_the_study():
    assert set(depth.REPORTED) == set(configs.NETS)


def test_other_settings_are_columns_and_nets_they_lack_are_empty_cells(tmp_path):
    runs = {
        "batch-32": load_run(finished.study(tmp_path / "a", ("relu-5",), batch_size=32)),
        "he": load_run(finished.study(tmp_path / "b", ("tanh-40",), init="he")),
    }
    lines = depth.hypotheses_table(runs).splitlines()
    assert lines[0] == "| net | batch-32 | he | the report |"
    assert "| relu-5 | 50.00 (25.00 - 75.00) | - | 96.2 |" in lines
    assert "| tanh-40 | - | 50.00 (25.00 - 75.00) | 95.4 |" in lines
    assert len(lines) == 4 + 5  # none for the ten nets that neither has
    assert lines[-2].startswith("- batch-32: 2 seeds; MNIST")


def test_curves_are_the_mean_and_the_range_of_the_seeds(tmp_path):
    net = load_run(finished.study(tmp_path)).nets["tanh-40"]
    assert depth.curves(net)["test_loss"] == {"mean": [0.5], "low": [0.25], "high": [0.75]}


def test_gradients_have_bands_and_the_extremes_of_epochs_1_to_3(tmp_path):
    relu = depth.gradients(load_run(finished.study(tmp_path)).nets["relu-5"])
    reading = relu["kernel_abs_max"]
    assert reading["median"][0] == [5.0, 4.99, 4.98, 4.97, 4.96, 4.95]
    assert (reading["low"][2][0], reading["high"][2][0]) == (2.0, 12.0)
    assert (reading["largest"], reading["smallest"]) == ([3.0, 13.0], [0.95, 10.95])
    assert (reading["middle"], reading["peak"]) == ([2.975, 12.98], [1, 1])
    assert relu["signal_decay"] == [0.5, 0.5]


@pytest.mark.parametrize("what", ["curves", "gradients"])
def test_a_trimmed_net_says_what_is_left_of_its_seeds(what, tmp_path):
    workdir = finished.study(tmp_path, ("relu-5", "tanh-5"))
    (workdir / "relu-5" / "over_seeds.json").write_text(json.dumps({what: "kept"}))
    nets = load_run(workdir).nets
    assert getattr(depth, what)(nets["relu-5"]) == "kept"
    assert getattr(depth, what)(nets["tanh-5"]) != "kept"


def test_why_a_net_trains_or_not_is_told_by_its_first_signal(tmp_path):
    """Four steps of one half are 8 ln 2 = 5.5 scales, of 0.4 they are 7.3; a mean of 0.5 trains."""
    run = load_run(finished.study(tmp_path, ("relu-5", "tanh-5")))
    kernels = {"predicted": [1.0] * 6, "measured": [1.0, 1.0, 0.7, 1.0, 1.1, 1.0]}
    theory = {"seeds": 7, "nets": {}}
    for net, rate in (("relu-5", 0.5), ("tanh-5", 0.4)):
        signal = [*(rate ** (4 - i) for i in range(5)), 3.0]
        sides = {side: {"signal_rms": signal, "kernel_rms": kernels[side]} for side in kernels}
        theory["nets"][net] = sides
    rows = [line.strip("| ").split(" | ") for line in depth.why_table(run, theory).splitlines()]
    arrives, lost = rows[2], rows[3]
    assert arrives[:6] == ["relu-5", "0.500", "0.500", "5.5", "0.70 in layer 3", "50.0"]
    assert lost[1:4] == ["0.400", "0.400", "7.3"]
    assert "arrives" in arrives[6] and "lost" in lost[6]
