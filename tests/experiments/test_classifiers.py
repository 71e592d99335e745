import shutil
import signal

import chex
import jax
import matplotlib.image
import numpy as np
import pytest

from configs import cnn as configs
from research.experiments import classifiers, trainer
from research.runtime import preemption
from research.storage import run_directory
from research.structs import UserError
from research.training.step import Loop

SMALL = {
    "cnn": {"filters": (2, 3), "dense": (8,), "shift": 1},
    "resnet": {"widths": (8,), "residual": (True,)},
}


def smoke(variant="mnist", **changes):
    config = configs.get_config(f"{variant},smoke")
    if config.name.startswith("cifar10-smoke"):
        changes = {"pools": (1, 2), "dropouts": (0.0, 0.4), "dense_dropouts": (0.0,)} | changes
    config.update(SMALL[config.net] | changes)
    return config


def evaluating(**changes):
    return smoke(mode="evaluate", seeds=2, **changes)


def predictions(directory):
    with np.load(directory / "predictions.npz") as stored:
        return stored["logits"], stored["labels"]


def contents(workdir):
    """Bytes of every file of the run itself, without its evaluations."""
    files = (path for path in sorted(workdir.rglob("*")) if path.is_file())
    return {path: path.read_bytes() for path in files if "evaluations" not in path.parts}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The summary and the directory of a net trained with two seeds."""
    workdir = tmp_path_factory.mktemp("study")
    return classifiers.run(smoke(seeds=2), workdir), workdir


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(classifiers, "_draw", lambda *_: {})
    monkeypatch.setattr(classifiers, "draw_net_curves", lambda *_, **__: None)
    monkeypatch.setattr(run_directory, "save_figures", lambda *_: None)


@pytest.fixture
def promotion():
    """AdamW of optax mixes whole numbers with others."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_a_run_leaves_its_documented_files_and_five_pictures(study):
    summary, workdir = study
    names = {"config.json", "versions.json", "metrics.jsonl", "predictions.npz", "summary.json"}
    names |= {"SHA256SUMS"}
    folders = {"figures", "checkpoints", "tensorboard"}
    assert {path.name for path in workdir.iterdir()} == names | folders | {".lock"}
    assert run_directory.read_json(workdir / "summary.json") == summary
    drawn = {path.stem: path for path in (workdir / "figures").iterdir()}
    assert set(drawn) == {"learning_curves", "confusion", "per_class", "reliability", "mistakes"}
    for path in drawn.values():
        assert matplotlib.image.imread(path)[..., :3].std() > 0.02


def test_every_logit_is_kept_and_the_numbers_of_the_summary_are_those_of_the_logits(study):
    summary, workdir = study
    logits, labels = predictions(workdir)
    chex.assert_shape([logits, labels], [(2, 256, 10), (256,)])
    accuracies = (logits.argmax(axis=-1) == labels).mean(axis=-1).tolist()
    assert (
        summary["test_accuracy"] == accuracies == run_directory.rows(workdir)[-1]["test_accuracy"]
    )
    assert [each["accuracy"] for each in summary["test"]] == accuracies
    assert summary["headline"].startswith(f"mnist-smoke: test accuracy {np.mean(accuracies):.2%}")
    assert summary["parameters"] == 20 + 57 + (12 * 12 * 3 * 8 + 8) + 90
    assert (summary["epoch"], summary["seeds"]) == (2, [0, 1])


def test_a_finished_run_is_not_run_again(study, capsys):
    summary, workdir = study
    before = contents(workdir)
    assert classifiers.run(smoke(seeds=2), workdir) == summary
    assert "all 2 epochs are done already" in capsys.readouterr().err
    assert contents(workdir) == before


def restored(workdir, **changes):
    config = smoke(**changes)
    task = classifiers.make_task(config, 512)
    images, _, _ = trainer.load(config, "mnist", download=False)
    return trainer.restore(task, config.seeds, workdir, images)


@pytest.mark.usefixtures("no_figures")
def test_the_second_seed_alone_and_stopped_within_an_epoch_ends_as_the_second_of_two(
    study, tmp_path, monkeypatch
):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:  # after one within the first epoch and one at its end
            raise preemption.Stopped(signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(preemption.Stopped):
        patched.setattr(preemption, "raise_if_requested", stop)
        _ = classifiers.run(smoke(seed=1), tmp_path)
    assert [row["epoch"] for row in run_directory.rows(tmp_path)] == [1]
    assert classifiers.run(smoke(seed=1, mode="evaluate"), tmp_path)["epoch"] == 1
    summary = classifiers.run(smoke(seed=1), tmp_path)
    assert summary["test_accuracy"] == study[0]["test_accuracy"][1]
    np.testing.assert_array_equal(predictions(tmp_path)[0][0], predictions(study[1])[0][1])
    (epoch, alone), (_, both) = restored(tmp_path, seed=1), restored(study[1], seeds=2)
    assert epoch == 2
    chex.assert_trees_all_equal(alone, jax.tree.map(lambda leaf: leaf[1:], both))


def test_an_evaluation_finds_the_logits_of_the_training_and_leaves_the_run_as_it_is(study):
    summary, workdir = study
    before = contents(workdir)
    found = classifiers.run(evaluating(steps_per_dispatch=0, cpu_threads=1), workdir)
    assert contents(workdir) == before
    (directory,) = (workdir / "evaluations").glob("synthetic-*")
    assert directory.name == f"synthetic-{summary['data']['sha256'][:8]}"
    assert run_directory.read_json(directory / "summary.json") == found
    assert found["test"] == summary["test"] and found["headline"] == summary["headline"]
    chex.assert_trees_all_equal(predictions(directory), predictions(workdir))
    assert {path.stem for path in (directory / "figures").iterdir()} == {
        *("confusion", "per_class", "reliability", "mistakes")
    }


@pytest.mark.usefixtures("no_figures")
def test_a_net_can_be_judged_on_other_data(study, capsys):
    config = evaluating()
    config.data.source = "sample"
    summary = classifiers.run(config, study[1])
    (directory,) = (study[1] / "evaluations").glob("mnist-sample-*")
    logits, labels = predictions(directory)
    assert (logits.shape, summary["data"]["name"]) == ((2, 1000, 10), "MNIST sample")
    assert summary["test_accuracy"] == (logits.argmax(-1) == labels).mean(-1).tolist()
    assert summary["origin"]["data"]["sha256"] == study[0]["data"]["sha256"]
    assert "trained on SYNTHETIC DIGITS, not MNIST, 512" in capsys.readouterr().err


def times(workdir):
    """The time of change of everything in a directory, but for its evaluations."""
    paths = (path for path in workdir.rglob("*") if "evaluations" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_is_being_trained_can_be_evaluated_and_is_not_touched(study):
    with run_directory.locked(study[1]):
        before = times(study[1])
        assert classifiers.run(evaluating(), study[1])["test"] == study[0]["test"]
        assert times(study[1]) == before


@pytest.mark.usefixtures("no_figures")
def test_a_finished_run_that_nobody_can_write_to_is_evaluated_and_read(study, monkeypatch, capsys):
    monkeypatch.setattr(run_directory.files, "can_write", lambda folder: False)
    shutil.rmtree(study[1] / "evaluations", ignore_errors=True)
    before = times(study[1])
    assert classifiers.run(evaluating(), study[1])["test"] == study[0]["test"]
    assert "cannot be written: this evaluation leaves no files" in capsys.readouterr().err
    assert classifiers.run(smoke(seeds=2), study[1]) == study[0]
    assert "are done already" in capsys.readouterr().err
    assert times(study[1]) == before and not (study[1] / "evaluations").exists()


def test_a_directory_without_a_run_is_not_evaluated(tmp_path):
    with pytest.raises(UserError, match="holds no run to evaluate; train one"):
        _ = classifiers.run(evaluating(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filters": (2, 4)}, r"filters: begun with \[2, 3\], asked for \[2, 4\]"),
        ({"learning_rate": 0.5}, "learning_rate: begun with 0.01"),
        ({"seed": 1}, "seed: begun with 0, asked for 1"),
    ],
)
def test_another_net_than_the_one_that_was_trained_is_not_evaluated(study, changes, said):
    with pytest.raises(UserError, match=f"holds another net: {said}"):
        _ = classifiers.run(evaluating(**changes), study[1])


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures", "promotion")
def test_the_residual_net_trains_on_changed_pictures_in_colour(tmp_path):
    summary = classifiers.run(smoke("cifar10-best", epochs=1, batch_size=128), tmp_path)
    assert np.isfinite([summary["train_loss"], summary["test_loss"]]).all()
    assert summary["parameters"] == (216 + 2 * 576) + 3 * (8 + 16) + 90
    assert predictions(tmp_path)[0].shape == (1, 256, 10)


@pytest.mark.parametrize("switch", ["", ",smoke"])
@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_every_variant_can_be_used_and_its_settings_reach_the_loop(variant, switch):
    config = configs.get_config(variant + switch)
    classifiers.check(config)
    task = classifiers.make_task(config, 50_000)
    assert task.name == config.name
    assert task.loop == Loop(
        epochs=config.epochs,
        batch_size=config.batch_size,
        eval_batch_size=500,
        augment=task.loop.augment,
        adversarial=task.loop.adversarial,
        label_smoothing=config.label_smoothing,
        steps_per_dispatch=config.steps_per_dispatch,
        data_devices=config.data_devices,
        convolutions=True,
    )
    assert (task.loop.augment is None) == (config.shift == 0 and not config.mirror)
    assert (task.loop.adversarial is None) == (variant != "mnist-robust")


def test_the_net_itself_is_attacked_with_the_settings_of_the_config(monkeypatch):
    asked = []
    monkeypatch.setattr(
        classifiers, "make_adversarial", lambda model, **settings: asked.append((model, settings))
    )
    task = classifiers.make_task(smoke("mnist-robust", adversarial_steps=3), 64)
    assert asked == [(task.model, {"radius": 0.2, "steps": 3})]


def test_a_figure_says_what_the_net_was_trained_against():
    config = smoke("mnist-robust")
    _, _, source = trainer.load(config, "mnist", download=False)
    assert classifiers._caption(config, source).endswith(
        "2 epochs, trained on images attacked within 0.2"
    )
    assert classifiers._caption(smoke("mnist"), source).endswith("2 epochs")


def test_one_cycle_ends_with_the_last_step():
    """Three batches in two epochs are six steps; the seventh does not move."""
    config = smoke("mnist-best", optimizer="sgd", weight_decay=0.0)
    tx = classifiers.make_task(config, 2 * 64 + 1).tx
    state, rates = tx.init(np.float32([0.0])), []
    for _ in range(7):
        update, state = tx.update(np.float32([1.0]), state)
        rates.append(-float(update[0]))
    assert rates[5] > 0.0 and rates[6] == 0.0


def test_a_description_has_the_layers_the_steps_and_the_cost(tmp_path):
    text = classifiers.describe(smoke())
    for line in ("conv_1.kernel", "3 x 3 x 2 x 3", "3,631", "8 steps an epoch, 16 in all"):
        assert line in text
    assert "FLOPs a step" in text and "MiB of images" in text and "SYNTHETIC" in text


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"epochs": 0}, "epochs: 0"),
        ({"mode": "test"}, "mode: 'test' is not one of train, evaluate"),
        ({"dataset": "cifar100"}, "dataset: 'cifar100' is not one of mnist, cifar10"),
        ({"precision": "float16"}, "precision: 'float16' is not one of float32, bfloat16"),
        ({"net": "vit"}, "net: 'vit' is not one of cnn, resnet"),
        ({"steps_per_dispatch": -1}, "steps_per_dispatch: -1 is not a"),
        ({"label_smoothing": 1.0}, "label_smoothing: 1.0 is not in"),
        ({"padding": "full"}, "padding: 'full'"),
        ({"dropouts": (0.25,)}, "dropouts: .* has 1 entries"),
        ({"optimizer": "lion"}, "optimizer: 'lion'"),
        ({"schedule": "step"}, "schedule: 'step'"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0"),
        ({"weight_decay": 0.1}, "weight_decay: only adamw"),
        ({"shift": -1}, "shift: -1"),
        ({"adversarial_radius": 76.0}, "adversarial_radius: 76.0"),
        ({"adversarial_steps": 0}, "adversarial_steps: 0"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_key(changes, word, tmp_path):
    with pytest.raises(UserError, match=word):
        _ = classifiers.run(smoke(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_net_too_deep_for_its_images_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"nothing is left of the image .*conv_1"):
        _ = classifiers.run(smoke(pools=(11, 2)), tmp_path)
    assert not (tmp_path / "config.json").exists()
