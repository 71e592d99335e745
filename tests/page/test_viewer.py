import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from research.figures.depth import draw_gradient_maxima
from research.page import viewer
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
    assert viewer.picture(gone, "words") is gone
    assert not gone and gone._repr_markdown_() == "*nothing here*"


def test_arguments_take_the_place_of_the_first_argument():
    made = viewer.drawn(
        lambda width, height, title: Figure(figsize=(width, height)),
        viewer.Arguments(width=1, height=2),
        title="t",
    )
    assert numbers(made) == (160, 320)


def test_a_directory_without_a_finished_run_is_refused_with_what_makes_one(tmp_path):
    with pytest.raises(UserError, match="no finished run of this kind; make one: python -m"):
        _ = viewer.Depth(str(tmp_path))
    run_directory.write_json(tmp_path / "summary.json", {"epochs_trained": [3], "net": "vgg"})
    with pytest.raises(UserError, match=r"configs/noise\.py:mnist"):
        _ = viewer.Attack(str(tmp_path), "mnist")


@pytest.fixture
def net(tmp_path):
    """A run of a single net, two seeds, two epochs and three layers."""
    signal = np.ones((3, 2, 4), np.float32)
    signal[0] = [[0.25, 0.5, 1, 9], [4, 2, 1, 9]]
    arrays = {
        "epochs": np.arange(3),
        "layers": np.array(["hidden_0", "hidden_1", "hidden_2", "output"]),
    }
    run_directory.write_gradients(tmp_path, {**arrays, "signal_abs_mean": signal})
    for epoch in (1, 2):
        row = {"epoch": epoch, "train_loss": [1.0, 3.0], "test_loss": [2.0, 2.0]}
        row |= {"train_accuracy": [0.5, 0.7], "test_accuracy": [epoch / 4, epoch / 2]}
        run_directory.write_row(tmp_path, row)
    run_directory.write_json(
        tmp_path / "summary.json", {"net": "tanh-3", "headline": "tanh-3: fine"}
    )
    versions = {"data": {"caption": "DRAWN", "name": "drawn", "full": False}}
    run_directory.write_json(tmp_path / "versions.json", versions)
    return viewer.Depth(str(tmp_path))


def test_a_run_of_a_single_net_is_read_from_its_own_directory(net):
    assert net.accuracies == {"tanh-3": [0.5, 1.0]} and net.seeds == 2 and net.caption == "DRAWN"
    kept = net.curves(("tanh", "lecun"), 3)
    assert list(kept) == ["tanh-3"]
    assert [row["train_loss"] for row in kept["tanh-3"]] == [[1.0, 3.0]] * 2
    assert net.gradients(("tanh",), 3)["tanh-3"]["signal_abs_mean"].shape == (3, 2, 4)
    assert "none of the nets relu-40" in net.curves(("relu",), 40).markdown
    assert "no gradients of relu-40" in net.gradients(("relu",), 40).markdown


def test_the_factor_a_layer_leaves_the_output_out(net):
    # One seed halves a layer, the other doubles: 1.25 in the mean, squared over two steps.
    assert "| tanh-3 | 1.250 | 1.6e+00 |" in net.decays().markdown


def test_a_run_that_judges_nothing_says_why_and_leaves_the_claims_to_the_records(net):
    assert "judged by the committed records, for" in net.about.markdown
    assert net.entries == viewer.Depth().entries


def test_claims_are_those_of_the_part_that_were_named_or_that_do_not_hold():
    study = viewer.Depth()
    named = study.claims("1B", "B14", "C03").markdown
    assert "| B14 N |" in named and "C03" not in named and "B15" not in named
    table = study.against("1A").markdown.splitlines()[2:]
    rows = [line.split(" | ")[2] for line in table if line.startswith("| ")]
    assert rows and set(rows) <= {"CONTRADICTED", "TREND-ONLY"}
    counted = [int(word) for word in study.counts("1A", "1B").markdown.split() if word.isdigit()]
    assert sum(counted) == 15 + 21


def test_pictures_of_the_records_are_cut_from_their_sheet():
    study = viewer.Attack("results", "mnist")
    grid = study.grid("minimal")
    assert grid["clean"].shape == (10, 28, 28, 1) and grid["adversarial"].shape[:2] == (10, 10)
    norms = study.norms("minimal")
    # The pictures are those that the numbers are of.
    noise = grid["adversarial"].astype(float) - grid["clean"][:, None]
    measured = np.abs(noise).max(axis=(2, 3, 4)).ravel()
    np.testing.assert_allclose(np.sort(measured), np.sort(norms["linf"]), atol=0.02)
    assert norms["untargeted"].sum() == 10


def test_of_many_images_one_of_every_class_comes_before_a_second_one():
    study = viewer.Attack("results", "mnist")
    cells = [
        {"image": image, "actual": image // 6, "target": target}
        for image in range(18)
        for target in (1, 0)
    ]
    rows = study._chosen(cells)
    assert [row[0]["image"] for row in rows] == [0, 1, 2, 3, 6, 7, 8, 12, 13, 14]
    assert [cell["target"] for cell in rows[0]] == [0, 1]


def test_the_success_matrix_counts_the_cells_of_the_grid():
    study = viewer.Attack("results", "mnist")
    matrix, grid = study.matrix(), study.grid("faithful")
    assert matrix["tried"].sum() == 100
    np.testing.assert_array_equal(matrix["won"][grid["actual"]], np.array(grid["success"], int))
    assert not viewer.Attack("results", "cifar10").matrix()


def test_copies_are_added_to_the_faces_they_are_copies_of():
    balance = viewer.Masks().balance()
    about = json.loads((viewer.ROOT / "results" / "masks.json").read_text())["vgg"]["data"]["about"]
    for source, counts in balance["after"].items():
        for label, count in counts.items():
            added = about["copies"].get(source, {}).get(label, 0)
            assert count == about["splits"]["train"][source][label] + added
    assert balance["after"] != balance["before"]


def test_the_report_s_log_stops_four_epochs_after_its_best():
    losses = [row["test_loss"] for row in viewer.Masks().reported_rows()]
    assert len(losses) == 14 and int(np.argmin(losses)) == 9
