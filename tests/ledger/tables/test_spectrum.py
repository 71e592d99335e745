"""Table of the spectrum study, from a small made-up run."""

from configs import spectrum as configs
from ledger import finished
from research.ledger import published
from research.ledger.tables import spectrum
from research.storage.run_directory import load_run


def run_of(workdir, **changes):
    config = configs.get_config("tanh-40")
    config.update(changes)
    training = {
        "words": "full batch", "steps": 1200, "at_edge": [310, 1150], "plateau": [300, 20],
        "highest_over_edge": [1.456, 0.9], "last_over_edge": [0.2, 0.456],
    }  # fmt: skip
    summary = {
        "net": "tanh-40", "edge": 20.0, "explained": "all is well",
        "trainings": {"full_batch": training, "batch_64": training | {"words": "SGD"}},
    }  # fmt: skip
    return load_run(finished.write(workdir, config, finished.whole("MNIST"), summary))


def test_a_row_has_the_longest_and_highest_of_the_seeds(tmp_path):
    lines = spectrum.table([run_of(tmp_path)]).splitlines()
    assert lines[2] == "| tanh-40 | full batch | 20 | 1,150 of 1,200 | 300 | 1.46 | 0.46 |"
    assert lines[3].startswith("| tanh-40 | SGD |")
    assert lines[-1].startswith("- tanh-40: all is well. `python -m research.main --config=")


def test_a_run_of_another_init_has_its_name_and_its_command(tmp_path):
    run = run_of(tmp_path, init="orthogonal")
    assert published.name_of(run) == "spectrum-tanh-40"
    assert "configs/spectrum.py:tanh-40 --config.init=orthogonal " in published.command(run)
