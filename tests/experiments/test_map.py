import jax
import numpy as np
import pytest
import several

from configs import map as configs
from research import prng
from research.data import batching
from research.experiments import map as study
from research.experiments import trainer
from research.models.mlp import MLP
from research.runtime import preemption, sharding
from research.storage import run_directory
from research.structs import UserError
from research.training import evaluate, optim
from research.training.step import Loop, init_state, make_step


def smoke(variant="tanh", **changes):
    config = configs.get_config(f"{variant},smoke")
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The summary and the directory of a map: 3 depths x 3 sigma_w x 2 seeds, on eight devices."""
    workdir = tmp_path_factory.mktemp("map")
    return study.run(smoke(), workdir), workdir


def map_of(workdir):
    return run_directory.files.parse_arrays((workdir / "map.npz").read_bytes())


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], key)


def test_a_map_has_a_net_in_every_cell_and_a_figure(trained):
    summary, workdir = trained
    arrays = map_of(workdir)
    assert arrays["depths"].tolist() == [2, 4, 6] and str(arrays["axis"]) == "sigma_w"
    np.testing.assert_allclose(arrays["values"], [0.5, np.sqrt(2), 4])
    for key in ("test_accuracy", "test_loss", "train_loss", "finite_steps"):
        assert arrays[key].shape == (3, 3, 2)
    assert (arrays["finite_steps"] == 20).all() and summary["not_finite"] == 0
    assert len({*arrays["test_loss"].ravel().tolist()}) == 18  # no net is trained twice
    assert (workdir / "figures" / "map.png").exists()
    assert run_directory.load_run(workdir).map.keys() == arrays.keys()


def test_a_cell_is_the_net_of_the_depth_study_trained_by_the_ordinary_step(trained):
    """Depth 4, sigma_w sqrt 2, seed 1: without a mask, a step at a time."""
    config = smoke()
    train, test, _ = trainer.load(config, "mnist", download=False)
    model = MLP(4, config.width, "tanh", "lecun_normal", gain=float(np.float32(np.sqrt(2))))
    tx = optim.make_optimizer(config.learning_rate)
    state = init_state(model, tx, 1, train.images[:1])
    step = jax.jit(make_step(model, tx, Loop(1, config.batch_size, 1)))
    losses = []
    for number in range(config.steps):
        epoch, place = divmod(number, 8)  # of 512 images
        key = prng.stream(1, "order", epoch + 1)
        indices, mask = batching.epoch_order(key, len(train.labels), config.batch_size)
        batch = batching.gather(train, indices[place], mask[place])
        state, output = step(state, batch, np.uint32(1), np.True_)
        losses.append(float(output.metrics.loss_sum) / config.batch_size)
    tested = evaluate.evaluate(model, state.params, test, batch_size=256)
    arrays = map_of(trained[1])
    assert arrays["test_accuracy"][1, 1, 1] == int(tested.correct) / 256
    assert arrays["test_loss"][1, 1, 1] == pytest.approx(float(tested.loss_sum) / 256, rel=1e-5)
    assert arrays["train_loss"][1, 1, 1] == pytest.approx(np.mean(losses[-2:]), rel=1e-5)


def test_a_map_that_was_stopped_goes_on_and_ends_with_the_same_bits(trained, tmp_path, monkeypatch):
    calls = []

    def stop():
        calls.append(len(run_directory.files.parse_arrays(path.read_bytes())["test_accuracy"]))
        if calls[-1] == 2:
            raise preemption.Stopped(15)

    path = tmp_path / "map.npz"
    monkeypatch.setattr(preemption, "raise_if_requested", stop)
    with pytest.raises(preemption.Stopped):
        _ = study.run(smoke(), tmp_path)
    assert map_of(tmp_path)["test_accuracy"].shape == (2, 3, 2)
    monkeypatch.setattr(preemption, "raise_if_requested", lambda: calls.append("row"))
    _ = study.run(smoke(), tmp_path)
    assert calls == [1, 2, "row", "row"]  # one depth, and the end of `deferred`
    assert_same_bits(map_of(tmp_path), map_of(trained[1]))
    _ = study.run(smoke(), tmp_path)
    assert len(calls) == 4


def test_one_device_and_a_program_a_depth_give_the_same_bits(trained, tmp_path, monkeypatch):
    one = sharding.make_mesh(1)
    monkeypatch.setattr(sharding, "make_mesh", lambda *_, **__: one)
    _ = study.run(smoke(programs=3), tmp_path)
    assert_same_bits(map_of(tmp_path), map_of(trained[1]))


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_map_that_is_not_what_was_written_is_made_again(how, trained, tmp_path, capfd):
    source = trained[1]
    for name in ("config.json", "versions.json", "summary.json", "SHA256SUMS"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    content = (source / "map.npz").read_bytes()[:-100]
    if how == "changed":  # an .npz file like any other
        arrays = map_of(source)
        content = run_directory.npz(arrays | {"test_accuracy": arrays["test_accuracy"] + 0.1})
    (tmp_path / "map.npz").write_bytes(content)
    _ = study.run(smoke(), tmp_path)
    assert "map.npz" in capfd.readouterr().err
    assert_same_bits(map_of(tmp_path), map_of(source))
    assert run_directory.verify(tmp_path) == []


def test_a_map_that_remains_without_its_config_is_not_taken_over(trained, tmp_path):
    (tmp_path / "map.npz").write_bytes((trained[1] / "map.npz").read_bytes())
    with pytest.raises(UserError, match=r"config.json is missing, but map.npz is there"):
        _ = study.run(smoke(), tmp_path)


def test_over_the_learning_rate_a_net_that_is_lost_has_no_accuracy(tmp_path):
    ranges = {"sigma_w": (0.5, 4.0), "learning_rate": (1e-3, 1e30)}
    config = smoke("relu", axis="learning_rate", ranges=ranges, resolution=2, deepest=2, seeds=1)
    summary = study.run(config, tmp_path)
    arrays = map_of(tmp_path)
    assert (arrays["sigma_w"] == 1.6).all() and arrays["learning_rate"].tolist() == [1e-3, 1e30]
    assert np.isnan(arrays["test_accuracy"][:, 1]).all() and summary["not_finite"] == 2
    assert np.isfinite(arrays["test_accuracy"][:, 0]).all()
    assert (arrays["finite_steps"][:, 0] == 20).all()
    assert (arrays["finite_steps"][:, 1] < 3).all()
    assert (study.accuracy(arrays)[:, 1] == 0).all()


def test_scores_count_the_cells_on_the_right_side():
    """xi of 1, 2, 4 layers, depths 4, 10, 30: of nine cells three are less than 6 xi deep."""
    arrays = {
        "depths": np.array([4, 10, 30]),
        "xi": np.array([1.0, 2.0, 4.0]),
        "scales": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
    }
    shallow = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 0]], bool)
    accuracy = np.where(shallow, 0.9, 0.1)[..., None] * np.ones(2)
    scores = study.scores(arrays | {"test_accuracy": accuracy})
    assert (scores["trained"], scores["agreement"], scores["auc"]) == (5 / 9, 1.0, 1.0)
    assert 5 < scores["threshold"] < 7.5
    # As they are: 4 is lost and 5, 6 are not; 6 is not less than 6.
    assert scores["layers_auc"] == 18 / 20 and scores["layers_agreement"] == 7 / 9
    accuracy[0, 0] = np.nan
    assert study.scores(arrays | {"test_accuracy": accuracy})["trained"] == 4 / 9
    same = study.scores(arrays | {"test_accuracy": np.ones((3, 3, 2))})
    assert same["auc"] is None and same["threshold"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axis": "width"}, "axis: 'width' is not one of sigma_w, learning_rate"),
        ({"ranges": {"sigma_w": (2.0, 1.0)}}, r"ranges.sigma_w: \(2.0, 1.0\) is not a smaller"),
        ({"ranges": {"sigma_w": (1.0,)}}, "ranges.sigma_w"),
        ({"deepest": 2}, "deepest: 2 layers have fewer depths than the 3 of resolution"),
        ({"activation": "step"}, "activation: 'step' is not one of relu, tanh"),
        ({"seed": 2**32 - 1}, "seed: "),
    ],
)
def test_a_key_that_cannot_be_used_is_named(changes, words):
    with pytest.raises(UserError, match=words):
        study.check(smoke(**changes))


def test_a_description_counts_the_nets_and_says_how_deep_theory_lets_them_be():
    lines = study.describe(smoke()).splitlines()
    assert any("18 nets of 20 steps" in line and "1 program(s)" in line for line in lines)
    rows = [line.split() for line in lines[-3:]]
    assert rows[0] == ["0.5", "0.250", "0.721", "4"]  # chi is sigma_w^2, 6 / ln 4 is 4.3
    assert rows[1][3:] == ["all", "6"]


@pytest.mark.parametrize(("programs", "layers"), [(1, [6, 6, 6]), (2, [3, 6, 6]), (9, [2, 4, 6])])
def test_a_program_serves_a_range_of_depths(programs, layers):
    config = smoke(programs=programs)
    depths = study.depths_of(config)
    assert [study.layers_of(config, depth) for depth in depths] == layers


@pytest.mark.slow
def test_two_processes_share_the_nets_of_a_depth_and_end_as_one(tmp_path):
    words = ("-m", "research.main", "--config=configs/map.py:tanh,smoke", "--config.seeds=1")
    for count in (1, 2):  # of three nets, the second has one, and fills up with it again
        workdir = tmp_path / str(count)
        ended = several.run(count, (*words, "--config.cpu_devices=1", f"--workdir={workdir}"))
        assert [each.code for each in ended] == [0] * count, ended
    assert_same_bits(map_of(tmp_path / "2"), map_of(tmp_path / "1"))
