import json

import pytest

from configs import noise
from research.ledger.tables import cells
from research.storage import run_directory
from research.structs import UserError


def row(image, actual, target, predicted, success=True, **more):
    numbers = {"steps": 101, "probability": 0.75, "psnr": 20.0, "l2": 1.0, "ssim": 0.5}
    return {
        "image": image, "actual": actual, "target": target, "predicted": predicted,
        "success": success, **numbers, **more,
    }  # fmt: skip


MNIST = [row(3, 0, 0, 6), row(3, 0, 2, 1, success=False, steps=3000), row(10, 0, 2, 2)]
HORSE = [row(87, 7, 0, 0, probability=0.99), row(87, 7, 7, 4), row(5, 3, 0, 0)]


def finished_attack(workdir, name="mnist", rows=MNIST, data=None, net_epochs=4, **changes):
    """What `collect` reads of a run of the report's attack."""
    config = noise.get_config(name)
    config.update({"method": "faithful"} | changes)
    found = {"name": "MNIST", "source": "/home/somebody", "caption": "MNIST", "full": True}
    versions = {
        "data": found | (data or {}), "device": "CPU", "packages": {"jax": "1"}, "git_commit": "a",
    }  # fmt: skip
    workdir.mkdir(exist_ok=True)
    run_directory.write_json(workdir / "config.json", json.loads(config.to_json()))
    run_directory.write_json(workdir / "versions.json", versions)
    summary = {"method": config.method, "nets": {"net": {"epochs": net_epochs}}}
    run_directory.write_json(workdir / "summary.json", summary)
    _ = (workdir / "cells.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return workdir


def test_cells_are_kept_by_class_and_target_without_paths(tmp_path):
    kept = cells.collect(finished_attack(tmp_path / "run"))["cells.mnist faithful"]
    assert "/home/somebody" not in json.dumps(kept)
    assert kept["untargeted"] == {"0": {"predicted": [6], "probability": [0.75]}}
    assert kept["toward"]["0-2"]["predicted"] == [1, 2]
    assert (kept["won_share"], kept["steps"]) == ([0.5], [101, 3000, 101])
    assert (kept["epochs"], kept["published"], kept["psnr_first"]) == (4, True, [])
    assert "--config.method=faithful" in kept["command"]


def test_of_cifar10_the_horse_alone_is_kept(tmp_path):
    run = finished_attack(
        tmp_path, "cifar10", HORSE, data={"name": "CIFAR-10 (JPEG copies)"}, classes=()
    )
    kept = cells.collect(run)["cells.cifar10 faithful"]
    assert (kept["won"], kept["actual"]) == ([1, 1], [7, 7])
    assert (kept["predicted_first"], kept["probability_first"]) == ([0], [0.99])
    assert not kept["published"]
    assert "'--config.classes=()'" in kept["command"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "minimal"}, "no attack of the report's"),
        ({"per_class": 3}, r"\(per_class\)"),
        ({"classes": ()}, r"\(classes\)"),
        ({"faithful": {"dropout": True}}, r"\(faithful\)"),
        ({"data": {"full": False}}, "not run on the full set"),
    ],
)
def test_another_attack_is_no_evidence(changes, said, tmp_path):
    with pytest.raises(UserError, match=said):
        _ = cells.collect(finished_attack(tmp_path, **changes))


def test_an_unfinished_attack_is_not_collected(tmp_path):
    with pytest.raises(UserError, match="no finished attack"):
        _ = cells.collect(tmp_path)
