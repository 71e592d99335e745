import io
import json

import pytest
from PIL import Image

from ledger import finished
from research.ledger import evidence
from research.ledger.trim import compact, trim
from research.storage.run_directory import load_run
from research.structs import UserError


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


ALL = {"config.json", "versions.json", "summary.json", "SHA256SUMS"}


def test_a_study_keeps_what_is_left_of_its_seeds_and_a_figure(tmp_path):
    nets = ("relu-5", "tanh-5")
    run = load_run(finished.study(tmp_path / "run"))
    assert trim(run, tmp_path / "results") == "depth"
    folder = tmp_path / "results" / "depth"
    over_seeds = {f"{net}/over_seeds.json" for net in run.nets}
    assert files_of(folder) == ALL | over_seeds | {"figures/figure_3.png"}
    kept = load_run(folder)
    assert evidence.facts(kept)["gradients"] == evidence.facts(run)["gradients"]
    assert all(evidence.facts(kept)["test_accuracy"][net] == [0.25, 0.75] for net in nets)


def test_an_attack_keeps_its_cells_and_a_grid_its_pictures(tmp_path):
    grid = {"method": "minimal", "classes": tuple(range(10)), "per_class": 1, "baselines": ()}
    pictures = {
        "clean/00003.png",
        *(f"cells/000{n}.png" for n in ("03-to-0", "03-to-2", "10-to-2")),
    }
    for name, changes, files in (
        ("noise-mnist", {"method": "minimal"}, {"figures/distributions.png"}),
        ("noise-mnist-lagrangian", {}, set()),
        ("noise-mnist-faithful", {"method": "faithful"}, {"cells.jsonl"}),
        ("grid-mnist-minimal", grid, {"cells.jsonl"} | pictures),
    ):
        run = load_run(finished.attack(tmp_path / "runs" / name, **changes))
        assert trim(run, tmp_path) == name
        assert files_of(tmp_path / name) == ALL | files


def test_paths_of_the_machine_are_left_out(tmp_path):
    for run in (
        finished.study(tmp_path / "a"),
        finished.classifier(tmp_path / "b"),
        finished.attack(tmp_path / "c", run=f"{finished.HOME}/runs"),
        finished.mask_classifier(tmp_path / "d"),
    ):
        name = trim(load_run(run), tmp_path / "results")
        for file in ALL:
            assert finished.HOME not in (tmp_path / "results" / name / file).read_text()


def test_a_drawn_picture_is_kept_as_webp(tmp_path):
    workdir = finished.mask_classifier(tmp_path / "run", data={"drawn": 24}, sha256="drawn")
    (workdir / "figures").mkdir()
    Image.new("RGB", (30, 20), "green").save(workdir / "figures" / "scored.png")
    assert trim(load_run(workdir), tmp_path) == "masks-drawn"
    kept = load_run(tmp_path / "masks-drawn").figure("scored").read_bytes()
    assert Image.open(io.BytesIO(kept)).size == (30, 20)
    assert trim(load_run(tmp_path / "masks-drawn"), tmp_path / "again") == "masks-drawn"
    assert load_run(tmp_path / "again" / "masks-drawn").figure("scored").read_bytes() == kept


def test_another_run_takes_the_place_of_what_was_there_and_a_refused_one_does_not(tmp_path):
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "old.json").write_text("")
    part = {"data": {"full": False}}
    other = {"data": {"sha256": "0" * 64}}
    for refused, words in (
        (finished.study(tmp_path / "a", **part), "not run on the full set: it is on MNIST, all"),
        (finished.study(tmp_path / "b", **other), "set: it is on data of unknown origin: MNIST"),
        (finished.mask_classifier(tmp_path / "c", sha256="0"), "data of unknown origin: Faces"),
        (
            finished.attack(tmp_path / "d", net=finished.attacked(origin=finished.origin(**part))),
            "of its net mnist, it is on MNIST, all of it",
        ),
        (
            finished.attack(tmp_path / "e", net={"run": "runs/cnn/mnist", "epochs": 4}),
            "did not record what the net mnist was trained on",
        ),
    ):
        with pytest.raises(UserError, match=words):
            trim(load_run(refused), tmp_path)
    lacking = finished.study(tmp_path / "lacking")
    (lacking / "figures" / "figure_3.png").unlink()
    with pytest.raises(UserError, match=r"figures/figure_3\.png is missing"):
        trim(load_run(lacking), tmp_path)
    assert files_of(tmp_path / "depth") == {"old.json"}
    trim(load_run(finished.study(tmp_path / "whole")), tmp_path)
    assert "old.json" not in files_of(tmp_path / "depth")


def test_lists_of_numbers_are_lines_and_nothing_is_changed():
    content = {"a": [[1.5, None, 2], []], "b": {"c": [True], "d": "x, [y  z]"}}
    made = compact(content)
    assert json.loads(made) == content
    assert " [1.5, null, 2]," in made.splitlines()[2]
