import json

import pytest

from ledger.tables.test_cells import finished_attack
from ledger.tables.test_classifiers import finished_classifier
from ledger.tables.test_depth import finished_study
from ledger.tables.test_noise import make_run
from research.ledger import evidence
from research.ledger.keep import NOISE, compact, keep
from research.ledger.tables import classifiers, depth
from research.structs import UserError


def test_a_study_is_kept_with_its_gradients_and_its_figure(tmp_path):
    assert keep(tmp_path, finished_study(tmp_path / "run")) == ["depth", "gradients"]
    assert (tmp_path / f"{depth.FIGURE}.png").read_bytes() == b"picture"
    assert set(evidence.read(tmp_path)) == {"depth", "gradients"}


def test_entries_of_a_file_stay_when_another_is_kept(tmp_path):
    for name in ("cifar10", classifiers.CONFUSION):
        _ = keep(tmp_path, finished_classifier(tmp_path / name, name))
    assert set(json.loads((tmp_path / "classifiers.json").read_text())) == {
        "cifar10",
        classifiers.CONFUSION,
    }
    assert (tmp_path / f"confusion_{classifiers.CONFUSION}.png").read_bytes() == b"matrix"
    run = finished_attack(tmp_path / "horse", "cifar10", rows=[], classes=())
    assert keep(tmp_path, run) == ["cells.cifar10 faithful"]
    (tmp_path / "attack").mkdir()
    _ = keep(tmp_path, make_run(tmp_path / "attack"))
    assert (tmp_path / NOISE).exists()


def test_a_run_on_the_sample_is_not_kept(tmp_path):
    run = finished_study(tmp_path / "run", data={"full": False})
    with pytest.raises(UserError, match="full MNIST"):
        _ = keep(tmp_path, run)
    assert not (tmp_path / "depth.json").exists()


def test_an_unfinished_run_is_not_kept(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        _ = keep(tmp_path, tmp_path)


def test_lists_of_numbers_are_lines_and_nothing_is_changed():
    content = {"a": [[1.5, None, 2], []], "b": {"c": [True], "d": "x, [y  z]"}}
    made = compact(content)
    assert json.loads(made) == content
    assert " [1.5, null, 2]," in made.splitlines()[2]
