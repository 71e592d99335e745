import numpy as np
import pytest

from configs import map as configs
from ledger import finished
from research.ledger import published
from research.ledger.tables import map as tables
from research.ledger.trim import trim
from research.storage.run_directory import load_run, write_arrays


def run_of(workdir, activation, reach, **changes):
    """A finished map of 4 depths: at each of two sigma_w nets train up to `reach` depth scales."""
    config = configs.get_config(activation)
    config.update(changes)
    summary = {"seconds": 90.0, "trained": 0.5, "agreement": 0.75, "auc": 0.9}
    _ = finished.write(workdir, config, finished.whole("MNIST"), summary)
    depths, xi = np.array([2, 4, 6, 8]), np.array([1.0, 1.25])
    scales = depths[:, None] / xi
    accuracy = np.where(scales < reach, 0.9, 0.1)[..., None] * np.ones(3)
    names = {"activation": np.array(activation), "axis": np.array("sigma_w")}
    deep = {"depths": depths, "xi": xi, "scales": scales}
    write_arrays(workdir / "map.npz", {**names, **deep, "test_accuracy": accuracy})
    (workdir / "figures").mkdir()
    picture = finished.ROOT / "results" / "depth" / "figures" / "figure_3.png"
    (workdir / "figures" / "map.png").write_bytes(picture.read_bytes())
    return load_run(workdir)


@pytest.fixture
def runs(tmp_path):
    return [run_of(tmp_path / "tanh", "tanh", 5.0), run_of(tmp_path / "relu", "relu", 4.5)]


def test_the_threshold_of_the_first_map_sorts_the_others(runs):
    """Scales 1.6, 2, 3.2, 4, 4.8, 6, 6.4, 8: tanh trains up to 4.8, ReLU up to 4."""
    lines = tables.table(runs).splitlines()
    assert lines[2] == "| tanh | 62 % | 100.0 % | 1.000 | 5.4 | 1.000 | 1.000 | 1.000 | 1.000 |"
    assert lines[3] == "| relu | 50 % | 87.5 % | 1.000 | 4.4 | 0.875 | 0.875 | 1.000 | 0.875 |"
    for words in ("3 seeds", "learning rate 0.05", "4 x 2 cells", "5.4", "a device", "1.5, 1.5"):
        assert words in lines[-1]


def test_the_note_has_the_numbers_of_the_runs(runs):
    lines = tables.note(runs).splitlines()
    assert lines[0].split(" ", 4)[-1].startswith("python -m research.main --config=configs/map.py:")
    assert lines[-1].strip().startswith("relu: 50% of the cells train, 75% agree")


def test_a_map_is_published_with_its_arrays_and_its_figure(tmp_path):
    run = run_of(tmp_path / "run", "lecun", 5.0)
    assert trim(run, tmp_path / "results") == "map-lecun"
    kept = load_run(tmp_path / "results" / "map-lecun")
    assert kept.map.keys() == run.map.keys() and kept.figure("map").suffix == ".webp"
    assert published.command(kept).endswith("--config=configs/map.py:lecun --config.data.dir=DIR")
    rate = run_of(tmp_path / "rate", "tanh", 5.0, axis="learning_rate")
    assert published.name_of(rate) == "map-tanh-rate"
    assert "--config.axis=learning_rate" in published.command(rate)
