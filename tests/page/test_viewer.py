import numpy as np
import pytest
from matplotlib.figure import Figure

from page import made
from research.figures.depth import draw_gradient_maxima
from research.ledger.tables import depth
from research.page import drawings, viewer
from research.storage import run_directory
from research.structs import UserError


def numbers(picture):
    return int.from_bytes(picture.png[16:20], "big"), int.from_bytes(picture.png[20:24], "big")


def test_a_figure_becomes_a_picture_that_says_its_title():
    made = viewer.drawn(lambda what, title: Figure(figsize=(what, 1)), 2.0, title="a title")
    assert numbers(made) == (320, 160) and made.width == 200
    data, metadata = made._repr_mimebundle_()
    assert data["text/plain"] == "a title" and metadata["image/png"]["width"] == 200


def test_what_is_missing_is_shown_in_the_place_of_a_figure():
    gone = viewer.Missing("*nothing here*")
    assert viewer.drawn(draw_gradient_maxima, gone, title="t", caption="c") is gone
    assert not gone and gone._repr_markdown_() == "*nothing here*"


def test_arguments_take_the_place_of_the_first_argument():
    made = viewer.drawn(
        lambda width, height, title: Figure(figsize=(width, height)),
        viewer.Arguments(width=1, height=2),
        title="t",
    )
    assert numbers(made) == (160, 320)


def test_a_directory_without_a_finished_run_or_with_another_one_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"summary\.json is missing"):
        _ = viewer.load(str(tmp_path), "depth")
    _ = made.masks(tmp_path)
    with pytest.raises(UserError, match="a run of 'masks', expected one of 'noise'"):
        _ = viewer.load(str(tmp_path), "noise")


@pytest.fixture
def net(tmp_path):
    """A run of a single net, two seeds, two epochs and three layers, that is not trimmed."""
    signal = np.ones((5, 2, 4), np.float32)
    signal[0] = [[0.25, 0.5, 1, 9], [4, 2, 1, 9]]
    statistics = (*depth.READINGS, "signal_abs_max", "signal_abs_mean")
    arrays = {
        "epochs": np.arange(5),
        "layers": np.array(["hidden_0", "hidden_1", "hidden_2", "output"]),
        **dict.fromkeys(statistics, signal),
    }
    rows = [
        {"epoch": epoch, **{key: [epoch / 8, epoch / 4] for key in made.KEYS}} for epoch in (1, 2)
    ]
    config = {"experiment": "depth", "name": "tanh-5", "nets": ["tanh-3"], "seeds": 2}
    summary = {"net": "tanh-3", "test_accuracy": [0.25, 0.5], "headline": "tanh-3: fine"}
    _ = made.write(tmp_path, config, summary, {"metrics.jsonl": made.lines(rows)})
    run_directory.write_arrays(tmp_path / "gradients.npz", arrays)
    return viewer.load(str(tmp_path), "depth")


def test_a_run_of_a_single_net_is_read_as_the_committed_study_is(net):
    study = viewer.load("results/depth", "depth")
    assert viewer.accuracies(net) == {"tanh-3": [0.25, 0.5]}
    assert len(viewer.accuracies(study)["tanh-40"]) == study.config["seeds"]
    for run, depth_ in ((net, 3), (study, 5)):
        (columns,) = viewer.curves(run, ("tanh", "unknown"), depth_).values()
        assert columns["test_loss"].seeds == run.config["seeds"]
        (record,) = viewer.gradients(run, ("tanh",), depth_, statistic="signal_abs_max").values()
        assert record["signal_abs_max"].middle.shape == (4, depth_ + 1)
    np.testing.assert_allclose(viewer.curves(net, ("tanh",), 3)["tanh-3"]["test_loss"].middle,
                               [0.1875, 0.375], rtol=1e-3)  # fmt: skip
    assert "none of the nets relu-40" in viewer.curves(net, ("relu",), 40).markdown
    assert "no gradients of relu-40" in viewer.gradients(net, ("relu",), 40).markdown


def test_the_factor_a_layer_leaves_the_output_out(net):
    # One seed halves a layer, the other doubles: 1.25 in the mean, squared over two steps.
    assert "| tanh-3 | 1.250 | 1.6e+00 |" in viewer.decays(net).markdown


def test_a_run_that_judges_nothing_says_why_and_leaves_the_claims_to_the_committed_ones(net):
    ledger = viewer.Ledger(net)
    assert "judged by the committed runs, for" in ledger.about.markdown
    committed = viewer.Ledger(viewer.load("results/depth", "depth"))
    assert ledger.entries == committed.entries
    assert "The run in `results/depth`" in committed.about.markdown


def test_claims_are_those_of_the_part_that_were_named_or_that_do_not_hold():
    ledger = viewer.Ledger(viewer.load("results/depth", "depth"))
    named = ledger.claims("1B", "B14", "C03").markdown
    assert "| B14 N |" in named and "C03" not in named and "B15" not in named
    table = ledger.against("1A").markdown.splitlines()[2:]
    rows = [line.split(" | ")[2] for line in table if line.startswith("| ")]
    assert rows and set(rows) <= {"CONTRADICTED", "TREND-ONLY"}
    counted = [int(word) for word in ledger.counts("1A", "1B").markdown.split() if word.isdigit()]
    assert sum(counted) == 15 + 21


def test_an_attack_is_the_run_of_that_method_or_the_committed_one(tmp_path):
    mine = made.attack(tmp_path, method="faithful")
    assert viewer.attack(mine, "faithful") is mine
    assert viewer.attack(mine, "minimal").path.name == "grid-mnist-minimal"


def test_pictures_of_an_attack_are_those_that_its_numbers_are_of():
    run = viewer.load("results/grid-mnist-minimal", "noise")
    grid, norms = viewer.grid(run), viewer.norms(run)
    assert grid["clean"].shape == (10, 28, 28, 1) and grid["adversarial"].shape[:2] == (10, 10)
    noise = grid["adversarial"].astype(float) - grid["clean"][:, None]
    measured = np.abs(noise).max(axis=(2, 3, 4)).ravel()
    np.testing.assert_allclose(np.sort(measured), np.sort(norms["linf"]), atol=0.02)
    assert norms["untargeted"].sum() == 10
    matrix = viewer.matrix(run)
    assert np.sum(matrix["tried"]) == 100
    won = np.array(matrix["won"])[grid["actual"]]
    np.testing.assert_array_equal(won, np.array(grid["success"], int))


def test_copies_are_added_to_the_faces_they_are_copies_of():
    run = viewer.load("results/masks-vgg", "masks")
    balance, about = viewer.balance(run), run.versions["data"]["about"]
    for source, counts in balance["after"].items():
        for label, count in counts.items():
            added = about["copies"].get(source, {}).get(label, 0)
            assert count == about["splits"]["train"][source][label] + added
    assert balance["after"] != balance["before"]


def test_a_figure_that_a_run_lacks_is_that_of_another(tmp_path):
    run = made.masks(tmp_path)
    assert viewer.figure(run, "samples", otherwise="masks-smoke").is_relative_to(viewer.RESULTS)
    assert not viewer.confusion(run, "val") and not viewer.roc(run, "val")


def test_the_report_s_log_stops_four_epochs_after_its_best():
    losses = [row["val_loss"] for row in drawings.reported_masks()]
    assert len(losses) == 14 and int(np.argmin(losses)) == 9
