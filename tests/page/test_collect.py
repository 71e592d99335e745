"""Records for the page from made-up runs: what is kept, and what is not."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from configs import noise
from research.page import collect
from research.storage import attack_files
from research.structs import UserError

CELL = {
    "success": True, "steps": 3, "predicted": 1, "probability": 0.123456, "l0": 9, "l2": 0.5,
    "linf": 0.2, "psnr": 30.0, "ssim": 0.9, "gradients": 7,
}  # fmt: skip


def make_attack(folder, *, full=True, **changes):
    """A finished attack on test images 3, a 7, and 5, a 0; grey levels tell pictures apart."""
    config = noise.get_config("mnist")
    config.classes, config.per_class, config.baselines = (0, 7), 1, ()
    with config.unlocked():
        config.update(changes)
    rows = []
    for image, actual in ((3, 7), (5, 0)):
        attack_files.write_png(folder / "clean" / f"{image:05d}.png", grey(10 * image))
        for target in (1, 0, *range(2, 10)):
            file = f"cells/{image:05d}-to-{target}.png"
            attack_files.write_png(folder / file, grey(10 * image + 1 + target))
            rows.append(CELL | {"image": image, "actual": actual, "target": target, "file": file})
    data = {"full": full, "caption": "MNIST, all of it", "source": "/home/me"}
    versions = {"data": data, "device": "a device", "packages": {}, "git_commit": "abc"}
    summary = {"method": config.method, "sample": "some", "nets": {"mnist": {"epochs": 4}}}
    (folder / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(config.to_json())
    (folder / "versions.json").write_text(json.dumps(versions))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def grey(level):
    return np.full((4, 4, 1), level, np.uint8)


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_a_sheet_holds_originals_and_results_by_class_and_target(tmp_path, results):
    assert collect.collect(results, make_attack(tmp_path))
    sheet = np.asarray(Image.open(results / "grid_mnist-minimal.png"))
    assert sheet.shape == (8, 44)
    assert sheet[::4, ::4].tolist() == [list(range(50, 61)), list(range(30, 41))]  # the 0 first
    assert collect.sheets(results) == {
        "grid_mnist-minimal.png": hashlib.sha256(
            (results / "grid_mnist-minimal.png").read_bytes()
        ).hexdigest()
    }
    kept = json.loads((results / "grids.json").read_text())["mnist-minimal"]
    assert kept["images"] == [{"image": 5, "actual": 0}, {"image": 3, "actual": 7}]
    assert kept["cells"][0][1]["probability"] == 0.1235 and "gradients" not in kept["cells"][0][1]
    assert kept["net"] == "mnist" and kept["epochs"] == 4


def test_the_command_repeats_the_run_and_no_path_of_the_machine_is_kept(tmp_path, results):
    assert collect.collect(results, make_attack(tmp_path, method="faithful", run="/home/me"))
    text = (results / "grids.json").read_text()
    assert json.loads(text)["mnist-faithful"]["command"] == (
        "python -m research.main --config=configs/noise.py:mnist --config.method=faithful "
        "'--config.classes=(0,7)' --config.per_class=1 '--config.baselines=()' "
        "--config.data.dir=DIR"
    )
    assert "/home/me" not in text


def test_one_method_is_kept_beside_the_other(tmp_path, results):
    for method in ("faithful", "minimal"):
        (tmp_path / method).mkdir()
        assert collect.collect(results, make_attack(tmp_path / method, method=method))
    kept = json.loads((results / "grids.json").read_text())
    assert list(kept) == ["mnist-faithful", "mnist-minimal"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "is not a run of the stated configuration (seed)"),
        ({"full": False}, "was not run on the full set: MNIST, all of it"),
    ],
)
def test_attacks_that_cannot_be_published_are_refused(tmp_path, results, changes, message):
    with pytest.raises(UserError) as caught:
        _ = collect.collect(results, make_attack(tmp_path, **changes))
    assert message in str(caught.value)
    assert not list(results.iterdir())


def write_run(folder, config, **summary):
    (folder / "figures").mkdir()
    Image.new("RGB", (30, 20), "green").save(folder / "figures" / "scored.png")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"headline": "said", **summary}))
    return folder


def test_faces_are_kept_where_they_are_drawn_and_nowhere_else(tmp_path, results):
    for name, drawn, expected in (("photographs", 0, False), ("drawn", 200, True)):
        (tmp_path / name).mkdir()
        config = {"name": "vgg", "data": {"drawn": drawn, "voc": "" if drawn else "DIR"}}
        run = write_run(tmp_path / name, config, epochs_trained=[3])
        assert collect.collect(results, run) is expected
        assert (results / collect.SCORED).exists() is expected
    about = json.loads((results / collect.PICTURES).read_text())[collect.SCORED]
    assert about["headline"] == "said" and len(about["sha256"]) == 64


def test_panels_are_kept_of_a_photograph_that_is_drawn_by_its_name(tmp_path, results):
    for name, expected in (("somebody", False), ("drawn", True)):
        (tmp_path / name).mkdir()
        run = write_run(tmp_path / name, {}, photographs=1)
        Image.new("RGB", (30, 20), "green").save(run / f"{name}-panels.png")
        assert collect.collect(results, run) is expected
        assert (results / collect.DRAWN).exists() is expected


def test_runs_of_other_kinds_are_left_to_the_tables(tmp_path, results):
    for name, changes in (("usual", {"per_class": 10}), ("first", {"images": 5})):
        (tmp_path / name).mkdir()
        assert not collect.collect(results, make_attack(tmp_path / name, **changes))
    assert not collect.collect(results, tmp_path / "nothing")
    assert collect.sheets(results) == {}
    assert not list(results.iterdir())
