"""Tables of the adversarial noise, from small made-up runs."""

import json

import pytest

from configs import noise
from research.ledger.tables import noise as tables
from research.structs import UserError


def spread(median):
    return {"median": median, "p90": 2 * median}


def kind(won, tried, **medians):
    keys = ("l0", "l2", "linf", "psnr", "ssim", "probability", "margin", "steps", "start_l2")
    counts = {"tried": tried, "won": won, "tried_correct": tried, "won_correct": won}
    return counts | {key: spread(medians[key]) if key in medians else None for key in keys}


def net(**changes):
    return {
        "targeted": kind(88, 90, l2=0.5, linf=40 / 255, psnr=30.26, ssim=0.91251),
        "untargeted": kind(10, 10),
        "verified": {"files": 98, "survived": 97, "batch_size": 65},
        "diagnostics": {"dead_share_first": 0.404, "dead_share_last": 0.7, "failures": [1, 2]},
        "cells": 100,
        "gradients": 12_345,
        "epochs": 4,
        "success_matrix": {},
        "words": "",
    } | changes


def make_run(tmp_path, *, summary=None, data=None, **changes):
    config = noise.get_config("mnist")
    with config.unlocked():
        config.update(changes)
    caption = "MNIST, all of it"
    versions = {
        "data": {"name": "MNIST", "caption": caption, "full": True, "source": "/home/me"},
        "device": "a device",
        "packages": {"jax": "0.0.1"},
        "git_commit": "abc",
    }
    versions["data"] |= data or {}
    content = {"method": config.method, "sample": "some images", "nets": {"mnist": net()}}
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "versions.json").write_text(json.dumps(versions))
    (tmp_path / "summary.json").write_text(json.dumps(content | (summary or {})))
    (tmp_path / "figures").mkdir()
    (tmp_path / tables.FIGURE).write_bytes(b"drawn")
    return tmp_path


def test_a_row_says_what_the_net_withstood_and_what_it_took(tmp_path):
    result = tables.collect(make_run(tmp_path))
    row = tables.table(result).splitlines()[2]
    assert row == (
        "| mnist | minimal | 88 of 90 | 10 of 10 | 97 of 98 | 0.500 (1.00) | 40 | 30.3 | 0.913 | "
        "123 | 40, 70 |"
    )


def test_the_command_names_what_differs_from_the_stated_configuration(tmp_path):
    run = make_run(tmp_path, method="faithful", faithful={"dropout": True}, batch=7)
    (found,) = tables.collect(run).items()
    assert found[0] == "mnist method=faithful faithful.dropout=True"
    assert found[1]["command"] == (
        "python -m research.main --config=configs/noise.py:mnist --config.method=faithful "
        "--config.faithful.dropout=True --config.data.dir=DIR"
    )


def test_neither_paths_of_the_machine_nor_single_cells_are_kept(tmp_path):
    kept = json.dumps(tables.collect(make_run(tmp_path)))
    assert "/home/me" not in kept and "failures" not in kept


def test_a_table_without_a_success_has_no_norms(tmp_path):
    lost = net(targeted=kind(0, 90))
    result = tables.collect(make_run(tmp_path, summary={"nets": {"mnist": lost}}))
    assert "| 0 of 90 | 10 of 10 | 97 of 98 | - (-) | - | - | - |" in tables.table(result)


def test_robust_accuracies_are_shares_of_the_images_tried(tmp_path):
    robust = {
        "levels": [0, 4.0, 26], "norm": "linf", "count": 200, "steps": 40, "restarts": 2,
        "hits": {"mnist": [199, 100, 1], "mnist-robust": [196, 190, 181]},
    }  # fmt: skip
    lines = tables.robust_table(
        tables.collect(make_run(tmp_path, summary={"robust_accuracy": robust}))
    ).splitlines()
    assert lines[0] == "| mnist: linf budget, levels of 255 | 0 | 4 | 26 |"
    assert lines[2] == "| mnist | 99.5 | 50.0 | 0.5 |"
    assert lines[3] == "| mnist-robust | 98.0 | 95.0 | 90.5 |"
    assert "first 200 test images" in lines[5] and "40 steps, 2 starts" in lines[5]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "stated configuration.*seed"),
        ({"data": {"full": False}}, "full set"),
        ({"summary": {"method": None}}, None),
    ],
)
def test_what_is_not_the_stated_run_is_refused(tmp_path, changes, said):
    run = make_run(tmp_path, **changes)
    if said is None:
        (run / "summary.json").write_text("{}")
        said = "no finished attack"
    with pytest.raises(UserError, match=said):
        _ = tables.collect(run)
