import json

import pytest

from ledger import finished
from research.ledger import published
from research.storage.run_directory import load_run
from research.structs import UserError

PART = {"full": False, "caption": "a part"}
OTHER = {"sha256": "0" * 64, "caption": "other pictures"}
UNKNOWN = "it is on data of unknown origin: other pictures"


def net(**changes):
    """What a summary says of an attacked net that was made from something else."""
    return finished.attacked(origin=finished.origin(**changes))


def name_of(workdir):
    return published.name_of(load_run(workdir))


@pytest.mark.parametrize(
    ("make", "arguments", "name"),
    [
        (finished.study, {}, "depth"),
        (finished.study, {"batch_size": 32}, "batch-32"),
        (finished.study, {"epochs": 20, "probe": False}, "epochs-20"),
        (finished.study, {"init": "he", "nets": ("relu-5", "relu-20")}, "he"),
        (finished.classifier, {"epochs": 10}, "cnn-cifar10"),
        (finished.classifier, {"name": "mnist", "learning_rate": 0.001}, "adam-0-001"),
        (finished.attack, {"batch": 7}, "noise-mnist-lagrangian"),
        (finished.attack, {"method": "minimal"}, "noise-mnist"),
        (finished.attack, {"method": "faithful", "baselines": ()}, "noise-mnist-faithful"),
        (
            finished.attack,
            {"method": "faithful", "classes": tuple(range(10)), "per_class": 1, "baselines": ()},
            "grid-mnist-faithful",
        ),
        (finished.attack, {"name": "cifar10", "baselines": ()}, "noise-cifar10-lagrangian"),
        (
            finished.attack,
            {"name": "cifar10", "method": "faithful", "classes": ()},
            "noise-cifar10-faithful",
        ),
        (finished.mask_classifier, {}, "masks-vgg"),
        (finished.mask_classifier, {"data": {"drawn": 24}}, "masks-drawn"),
        (finished.mask_classifier, {"name": "smoke"}, "masks-smoke"),
    ],
)
def test_a_run_is_known_by_its_configuration(make, arguments, name, tmp_path):
    assert name_of(make(tmp_path, **arguments)) == name


@pytest.mark.parametrize(
    ("make", "changes", "words"),
    [
        (finished.study, {"learning_rate": 0.1}, "from depth differ: learning_rate"),
        (finished.study, {"seeds": 1}, "seeds: fewer than 2"),
        (finished.study, {"nets": ("relu-5",)}, "from depth differ: nets"),
        (finished.classifier, {"learning_rate": 0.1}, "from cnn-cifar10 differ: learning_rate"),
        (finished.attack, {"seed": 1}, "from noise-mnist-lagrangian differ: seed"),
        (finished.attack, {"faithful": {"dropout": True}}, r"differ: faithful\.dropout"),
        (
            finished.attack,
            {"net": net(changes={"learning_rate": 1, "seeds": 3})},
            "from noise-mnist-lagrangian differ: learning_rate of the net mnist$",
        ),
        (
            finished.attack,
            {"net": net(epochs=3)},
            "from noise-mnist-lagrangian differ: the net mnist, trained for 3 epochs of its run",
        ),
        (finished.mask_classifier, {"epochs": 3}, "from masks-vgg differ: epochs"),
    ],
)
def test_a_run_of_another_configuration_is_refused_by_the_keys(make, changes, words, tmp_path):
    with pytest.raises(UserError, match=f"not a run of the stated configuration.*{words}"):
        name_of(make(tmp_path, **changes))


def test_a_variant_that_is_not_published_is_refused(tmp_path):
    workdir = finished.classifier(tmp_path)
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"name": "other"}))
    with pytest.raises(UserError, match="holds 'other', which is not published: cnn:mnist, "):
        name_of(workdir)


def test_a_run_of_before_a_key_was_there_is_one_of_the_stated_configuration(tmp_path):
    workdir = finished.classifier(tmp_path)
    config = json.loads((workdir / "config.json").read_text())
    for key in ("adversarial_radius", "adversarial_steps", "data_devices"):
        del config[key]
    (workdir / "config.json").write_text(json.dumps(config))
    assert name_of(workdir) == "cnn-cifar10"


def test_the_command_names_what_differs_from_the_config_file_and_no_path(tmp_path):
    changes = {"method": "faithful", "faithful": {"dropout": True}, "batch": 7, "baselines": ()}
    assert published.command(load_run(finished.attack(tmp_path / "a", **changes))) == (
        'python -m research.main --config=configs/noise.py:mnist "--config.baselines=()" '
        "--config.method=faithful --config.faithful.dropout=True --config.data.dir=DIR"
    )
    assert published.command(load_run(finished.mask_classifier(tmp_path / "b"))) == (
        "python -m research.main --config=configs/masks.py:vgg --config.seeds=2 "
        "--config.data.voc=DIR/voc"
    )


def test_the_command_of_a_run_in_smoke_says_so(tmp_path):
    run = load_run(finished.classifier(tmp_path, "mnist,smoke", seeds=1))
    word = "--config=configs/cnn.py:mnist,smoke"
    assert published.command(run) == f"python -m research.main {word} --config.data.dir=DIR"


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (finished.study, {}, ""),
        (finished.study, {"data": PART}, "it is on a part"),
        (finished.study, {"data": OTHER}, UNKNOWN),
        (finished.classifier, {}, ""),
        (finished.classifier, {"data": {"name": "CIFAR-10 (JPEG copies)"} | OTHER}, UNKNOWN),
        (finished.mask_classifier, {}, ""),
        (finished.mask_classifier, {"sha256": "0"}, "it is on data of unknown origin: Faces, some"),
        (finished.attack, {}, ""),
        (finished.attack, {"data": OTHER}, UNKNOWN),
        (finished.attack, {"net": net(data=PART)}, "of its net mnist, it is on a part"),
        (finished.attack, {"net": net(data=OTHER)}, f"of its net mnist, {UNKNOWN}"),
        (
            finished.attack,
            {"net": net(data={"dataset": "cifar10", "name": "CIFAR-10", "sha256": "1"})},
            "its net mnist was trained on other data: MNIST, all of it",
        ),
    ],
)
def test_a_run_is_as_whole_as_the_least_of_what_it_was_made_from(make, arguments, words, tmp_path):
    assert published.shortfall(load_run(make(tmp_path, **arguments))) == words


def test_a_net_that_its_own_command_gives_only_with_more_epochs_has_that_command(tmp_path):
    run = load_run(finished.attack(tmp_path, net=net(changes={"epochs": 1, "seeds": 3}), run="x"))
    assert published.name_of(run) == "noise-mnist-lagrangian"
    command = "python -m research.main --config=configs/cnn.py:mnist --config.epochs=1"
    assert published.net_commands(run) == {"mnist": f"{command} --config.data.dir=DIR"}


def test_the_committed_runs_are_those_that_their_names_say():
    runs = published.read(published_results := finished.ROOT / "results")
    assert set(runs) == {path.name for path in published_results.iterdir() if path.is_dir()}
    for name, run in runs.items():
        assert published.name_of(run) == name
        assert "/home" not in json.dumps([run.config, run.versions, run.summary])
