"""Tables of the adversarial noise, from small made-up runs."""

from ledger import finished
from research.ledger.tables import noise as tables
from research.storage.run_directory import load_run


def test_a_row_says_what_the_net_withstood_and_what_it_took(tmp_path):
    lines = tables.table([load_run(finished.attack(tmp_path))]).splitlines()
    assert lines[2] == (
        "| mnist | lagrangian | 88 of 90 | 10 of 10 | 97 of 98 | 0.500 (1.00) | 40 | 30.3 | 0.913 "
        "| 123 | 40, 70 |"
    )
    assert lines[4].startswith("- some images; MNIST, all of it; `python -m research.main")


def test_a_table_without_a_success_has_no_norms(tmp_path):
    lost = finished.attacked(targeted=finished.kind(0, 90))
    run = load_run(finished.attack(tmp_path, net=lost))
    assert "| 0 of 90 | 10 of 10 | 97 of 98 | - (-) | - | - | - |" in tables.table([run])


def test_robust_accuracies_are_shares_of_the_images_tried(tmp_path):
    robust = {
        "levels": [0, 4.0, 26], "norm": "linf", "count": 200, "steps": 40, "restarts": 2,
        "hits": {"mnist": [199, 100, 1], "mnist-robust": [196, 190, 181]},
    }  # fmt: skip
    lines = tables.robust_table(
        [load_run(finished.attack(tmp_path, summary={"robust_accuracy": robust}))]
    ).splitlines()
    assert lines[0] == "| mnist: linf budget, levels of 255 | 0 | 4 | 26 |"
    assert lines[2] == "| mnist | 99.5 | 50.0 | 0.5 |"
    assert lines[3] == "| mnist-robust | 98.0 | 95.0 | 90.5 |"
    assert "first 200 test images" in lines[5] and "40 steps, 2 starts" in lines[5]


def test_nets_with_failed_cases_are_listed_with_their_reasons_and_what_others_reach(tmp_path):
    health = {"failed_cells": 4, "why_failed": {"flat": 1, "budget": 3}, "restart_gain": 0.25}
    failing = finished.attacked(diagnostics=health)
    robust = {"count": 200, "hits": {"mnist": [199, 28]}}
    whole = finished.attacked(diagnostics=health | {"failed_cells": 0})
    for workdir, net, summary in (("a", failing, {"robust_accuracy": robust}), ("b", whole, {})):
        _ = finished.attack(tmp_path / workdir, net=net, summary=summary)
    lines = tables.failures_table([load_run(tmp_path / name) for name in "ab"]).splitlines()
    assert lines[2:] == ["| mnist | lagrangian | 4 of 100 | 1: flat; 3: budget | 25 | 14.0 |"]
    finished.attack(
        tmp_path / "c", net=finished.attacked(diagnostics=health | {"restart_gain": None})
    )
    assert tables.failures_table([load_run(tmp_path / "c")]).endswith("| - | - |")
