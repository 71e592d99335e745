import dataclasses
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import mlp
from research.data import datasets
from research.experiments import depth, trainer
from research.experiments.noise import nets
from research.storage import checkpoint, run_directory
from research.structs import Dataset, UserError

SPEC, NAME = "mlp:relu-5,smoke", "relu-5-smoke"
IMAGES = Dataset(images=np.zeros((3, 4, 4, 1), np.uint8), labels=np.zeros(3, np.int32))
STATED = mlp.get_config("relu-5,smoke")


def leave_run(workdir, *, epochs=(1,), finished=True, seeds=1, fill=0.5, versions=None, **changes):
    """The files of a run with narrow layers, every number of the first seed `fill`."""
    config = ConfigDict({**STATED.to_dict(), "width": 3, "seeds": seeds, **changes})
    task = depth.make_task(config, 1)
    shapes = trainer.template(task, seeds, IMAGES)
    (workdir / "checkpoints").mkdir(parents=True)
    _ = (workdir / "config.json").write_text(config.to_json())
    if versions:
        run_directory.write_json(workdir / "versions.json", versions)
    run = trainer.run_of(workdir, task)
    with checkpoint.Checkpoints(workdir / "checkpoints", run) as checkpoints:
        for epoch in epochs:
            state = jax.tree.map(lambda leaf: filled(leaf, fill), shapes)
            checkpoints.save(epoch, state, {"metrics.jsonl": b"{}"})
    if finished:
        run_directory.finish(workdir, {"net": NAME})
    return config


def filled(leaf, first):
    array = np.zeros(leaf.shape, leaf.dtype)
    array[0] = first
    return array


def find(run="", spec=SPEC, dataset="mnist"):
    return nets.find(spec, str(run), IMAGES, dataset)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_states(monkeypatch):
    """Runs without a checkpoint are enough to be located."""
    monkeypatch.setattr(checkpoint.Checkpoints, "save", lambda *_: None)


def test_a_net_is_found_where_its_own_command_puts_it_at_its_newest_epoch(elsewhere):
    leave_run(elsewhere / "runs/mlp" / NAME, epochs=(1, 2), seeds=2)
    net = find()
    assert (net.name, net.epochs, str(net.workdir)) == (NAME, 2, f"runs/mlp/{NAME}")
    kernel = net.params["output"]["kernel"]
    assert kernel.shape == (3, 10) and (kernel == 0.5).all()  # the first seed of two
    logits = net.apply_fn(net.params, np.zeros((2, 4, 4, 1), np.float32))
    hidden = 0.5
    for _ in range(4):
        hidden = 0.5 * 3 * hidden + 0.5
    np.testing.assert_allclose(logits, np.full((2, 10), 0.5 * 3 * hidden + 0.5), rtol=1e-6)


def test_a_net_says_what_it_was_made_from(elsewhere):
    data = {"caption": "600 digits", "sha256": "ab", "full": False}
    versions = {"data": {**data, "source": "files in /home"}, "git_commit": "abc", "device": "d"}
    leave_run(elsewhere / "a", epochs=(2,), seeds=2, learning_rate=0.5, versions=versions)
    net = find("a")
    assert net.origin["data"] == data and net.origin["git_commit"] == "abc"
    assert net.origin["changes"] == {"width": 3, "seeds": 2, "learning_rate": 0.5}
    assert (net.origin["epochs"], net.origin["epochs_asked"]) == (2, STATED.epochs)
    source = datasets.Source("MNIST", "here", 600, 100, "ab", False)
    assert trainer.trained_on(net.origin, source) == ""
    other = dataclasses.replace(source, sha256="cd")
    assert trainer.trained_on(net.origin, other) == "trained on 600 digits"
    leave_run(elsewhere / "b", learning_rate=0.25, data={**STATED.data.to_dict(), "dir": "there"})
    leave_run(elsewhere / "c", learning_rate=0.25)
    digests = [find(name).origin["config_sha256"] for name in "abc"]
    assert digests[0] != digests[1] == digests[2]
    unnamed = trainer.trained_on(find("b").origin, source)
    assert unnamed == "trained on data that its run does not name"


@pytest.mark.usefixtures("no_states")
def test_the_places_of_a_run_are_tried_in_their_order(elsewhere):
    assert nets.locate(SPEC, "", "mnist") is None
    places = [elsewhere / "runs/mlp/all" / NAME, elsewhere / "runs/mlp" / NAME]
    for place in places:
        leave_run(place)
        assert nets.locate(SPEC, "", "mnist") == place.relative_to(elsewhere)


@pytest.mark.usefixtures("no_states")
def test_a_given_directory_is_the_run_or_holds_it_by_its_name_and_nothing_else_is_tried(elsewhere):
    leave_run(elsewhere / "runs/mlp" / NAME)
    leave_run(elsewhere / "a/b", finished=False)
    leave_run(elsewhere / "many" / NAME)
    leave_run(elsewhere / "many", name="all-smoke")  # a study holds its nets
    assert str(nets.locate(SPEC, "a/b", "mnist")) == "a/b"
    assert str(nets.locate(SPEC, "many", "mnist")) == f"many/{NAME}"
    assert nets.locate(SPEC, "a", "mnist") is None
    assert nets.locate("mlp:relu-20,smoke", "a/b", "mnist") is None  # it is another's


def test_an_unfinished_run_is_taken_only_where_it_is_given(elsewhere, capsys):
    leave_run(elsewhere / "runs/mlp" / NAME, finished=False)
    assert find() is None
    with run_directory.locked(elsewhere / "runs/mlp" / NAME):  # it is being trained
        before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
        assert find(f"runs/mlp/{NAME}").epochs == 1
        assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before
    assert "its training is not finished; going on with epoch 1" in capsys.readouterr().err


def test_a_net_is_trained_to_its_end_where_its_own_command_would(elsewhere, monkeypatch, capsys):
    asked = []

    def run(config, workdir):
        asked.append((config, str(workdir)))
        leave_run(workdir)

    monkeypatch.setattr(depth, "run", run)
    source = ConfigDict({**STATED.data, "dir": "/some/where"})
    net = nets.train(SPEC, source, IMAGES, "mnist")
    (config, workdir), *_ = asked
    assert workdir == f"runs/mlp/{NAME}" == str(net.workdir)
    assert config.data == source
    assert {key: config[key] for key in config if key != "data"} == {
        key: STATED[key] for key in STATED if key != "data"
    }
    assert f"{NAME} is not trained yet: training it in {workdir} first" in capsys.readouterr().err
    monkeypatch.setattr(depth, "run", lambda *_: None)
    _ = nets.train(SPEC, source, IMAGES, "mnist")
    said = capsys.readouterr().err
    assert f"going on in {workdir} first; --config.run={workdir} takes it as it is" in said


def test_keys_that_are_younger_than_a_run_are_filled_in(elsewhere, monkeypatch):
    leave_run(elsewhere / "old")
    monkeypatch.setattr(nets.run_directory, "_LATER", {"warmth": 7})
    stated = ConfigDict({**STATED.to_dict(), "warmth": 3})
    monkeypatch.setattr(mlp, "get_config", lambda variant: stated)
    seen, plain = [], depth.make_task
    monkeypatch.setattr(
        depth, "make_task", lambda config, n: seen.append(config.warmth) or plain(config, n)
    )
    _ = find("old")
    assert seen == [7]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("cnn", "nets: 'cnn': variant '' is unknown; valid: mnist,"),
        ("ccn:mnist", "nets: 'ccn:mnist' is not the name of a config file"),
        ("cnn:mnst", "nets: 'cnn:mnst': variant 'mnst' is unknown; did you mean 'mnist'"),
        ("noise:mnist", "nets: 'noise:mnist' trains no classifier"),
        ("common:mnist", "nets: 'common:mnist' trains no classifier"),
        ("mlp:all", "nets: 'mlp:all' is a study of several"),
        ("cnn:cifar10", "nets: 'cnn:cifar10' is a net for cifar10, but the images are of mnist"),
    ],
)
def test_a_name_of_no_net_is_refused_whether_or_not_there_is_a_run(spec, said, elsewhere):
    with pytest.raises(UserError, match=said):
        _ = nets.locate(spec, "", "mnist")
    with pytest.raises(UserError, match=said):
        _ = nets.train(spec, STATED.data, IMAGES, "mnist")


def test_a_net_of_the_depth_study_is_one_for_mnist(elsewhere):
    with pytest.raises(UserError, match="is a net for mnist, but the images are of cifar10"):
        _ = find(dataset="cifar10")


@pytest.mark.usefixtures("no_states")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"name": "relu-5-smoke", "experiment": "noise"}', "holds no classifier .*'noise'"),
        ('{"name": "relu-5-smoke", "experiment": "depth"}', "holds no classifier of this version"),
        ('{"name": ', "holds no classifier of this version"),
        ("[1]", "holds no classifier of this version"),
        (STATED.to_json(), r"checkpoints: .*|holds no checkpoint"),
    ],
)
def test_a_directory_that_cannot_be_used_is_named(content, said, elsewhere):
    (elsewhere / "odd").mkdir()
    _ = (elsewhere / "odd/config.json").write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        _ = find("odd")
    assert str(caught.value).startswith("odd")


def test_a_run_with_the_name_of_a_net_for_other_images_is_refused(elsewhere):
    from configs import cnn

    other = json.loads(cnn.get_config("mnist").to_json()) | {"dataset": "cifar10"}
    (elsewhere / "odd").mkdir()
    _ = (elsewhere / "odd/config.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="'cnn:mnist' is a net for cifar10"):
        _ = find("odd", "cnn:mnist")


def test_dropout_is_on_only_with_a_key():
    class Model:
        def apply(self, variables, images, **options):
            return variables, images, options

    apply_fn = nets.apply_of(Model())
    assert apply_fn(1, 2) == ({"params": 1}, 2, {})
    assert apply_fn(1, 2, dropout=3) == ({"params": 1}, 2, {"train": True, "rngs": {"dropout": 3}})
