from ledger import finished
from research.ledger.tables import cells
from research.storage.run_directory import load_run


def test_cells_are_grouped_by_class_and_by_target(tmp_path):
    content = cells.of_attack(load_run(finished.attack(tmp_path)))
    assert content["untargeted"] == {"0": {"predicted": [6], "probability": [0.75]}}
    assert content["toward"] == {"0-2": {"predicted": [1, 2], "probability": [0.75, 0.75]}}
    assert (content["won_share"], content["steps"]) == ([0.5], [101, 3000, 101])
    assert (content["actual"], content["won"]) == ([0, 0, 0], [1, 0, 1])


def test_of_cifar10_the_horse_alone_is_taken(tmp_path):
    run = load_run(finished.attack(tmp_path, "cifar10", finished.HORSE))
    content = cells.of_attack(run)
    assert (content["won"], content["actual"]) == ([1, 1], [7, 7])
    assert (content["predicted_first"], content["probability_first"]) == ([0], [0.99])
