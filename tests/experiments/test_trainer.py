from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import mlp
from research.data import datasets
from research.data.provenance import MNIST_SHA256
from research.experiments import trainer
from research.models.mlp import MLP
from research.runtime import preemption, progress
from research.storage import run_directory
from research.structs import Dataset, Metrics, UserError
from research.training.epoch import EpochResult
from research.training.step import Loop


def config(**changes):
    plain = {"epochs": 3, "batch_size": 8, "eval_batch_size": 8, "seeds": 2, "seed": 0}
    return ConfigDict(plain | changes)


def task(epochs=3):
    return trainer.Task("net", MLP(1, 4, "relu"), optax.sgd(0.1), Loop(epochs, 8, 8))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs: 0 is not a whole number from 1"),
        ({"batch_size": -1}, "batch_size: -1"),
        ({"eval_batch_size": 0}, "eval_batch_size: 0"),
        ({"seeds": 0}, "seeds: 0"),
        ({"seed": -1}, "seed: -1 is not a"),
        ({"seeds": 2, "seed": 2**32 - 1}, "seed: 4294967295 is not in"),
    ],
)
def test_a_common_key_that_cannot_be_used_is_refused_by_name(changes, said):
    config = mlp.get_config()
    config.update(changes)
    with pytest.raises(UserError, match=said):
        trainer.check(config)


def test_the_last_seed_of_a_run_may_be_the_largest_there_is():
    largest = mlp.get_config()
    largest.update({"seeds": 2, "seed": 2**32 - 2})
    trainer.check(largest)
    assert list(trainer.seeds_of(largest)) == [2**32 - 2, 2**32 - 1]


@pytest.mark.parametrize(
    ("name", "sha256", "full", "said"),
    [
        ("MNIST", MNIST_SHA256, True, ""),
        ("MNIST (unknown digest)", "0" * 64, True, f"data of unknown origin: SHA-256 {'0' * 64}"),
        ("MNIST subset", "0" * 64, False, ""),  # its name says so
    ],
)
def test_a_run_on_data_of_unknown_origin_says_so_at_its_start(
    name, sha256, full, said, monkeypatch, capsys
):
    source = datasets.Source(name, "IDX files in here", 60_000, 10_000, sha256, full)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: (None, None, source))
    data = {"dir": "here", "source": "auto", "tfds_dir": ""}
    assert trainer.load(config(data=data), "mnist", download=False)[2] is source
    err = capsys.readouterr().err
    assert err.startswith(said) and bool(err) == bool(said)


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        (0.5, "50.00% (2,500 of 5,000 images)"),
        ([0.29], "29.00% (1,450 of 5,000 images)"),
        (
            [0.5, 0.6, 0.7],
            "60.00% mean, 10.00% sd, 50.00% min, 70.00% max (3 seeds, 5,000 images)",
        ),
    ],
)
def test_an_accuracy_in_words_has_its_images_or_its_spread(accuracies, said):
    assert trainer.spread(accuracies, 5_000) == said


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_row_has_means_a_number_for_one_seed_and_a_list_for_several(seeds):
    def metrics(*sums):
        return Metrics(*(np.array(pair[:seeds]) for pair in sums))

    result = EpochResult(
        train=metrics((2.0, 4.0), (1, 3), (4, 4)),
        test=metrics((5.0, 1.0), (5, 2), (10, 10)),
        probe={},
        bad_step=np.array([-1, -1][:seeds]),
        trained=np.ones(seeds, bool),
    )
    expected = {
        **{"train_loss": [0.5, 1.0], "train_accuracy": [0.25, 0.75]},
        **{"test_loss": [0.5, 0.1], "test_accuracy": [0.5, 0.2]},
    }
    row = trainer.row_of(7, result, 1.23456, steps=5)
    assert row == {
        "epoch": 7,
        **{key: pair if seeds == 2 else pair[0] for key, pair in expected.items()},
        "seconds": 1.235,
        "step_ms": 246.912,
        "device_memory_mib": None,
    }


def test_a_seed_that_has_stopped_has_no_numbers_in_the_row_and_none_in_its_mean(capsys):
    sums = Metrics(np.array([2.0, 0.0]), np.array([1, 0]), np.array([4, 0]))
    result = EpochResult(sums, sums, {}, np.array([-1, -1]), np.array([True, False]))
    row = trainer.row_of(7, result, 1.0, steps=1)
    assert row["test_loss"] == [0.5, None] and row["train_accuracy"] == [0.25, None]
    assert "test loss 0.5000 accuracy 0.2500" in trainer.epoch_line("net", 9, row)


def test_time_and_memory_of_a_run_are_summed_up_and_old_rows_have_neither(monkeypatch):
    old = {"epoch": 1, "seconds": 2.0}
    assert trainer.costs_of([old])["step_ms"] is trainer.costs_of([old])["device_memory_mib"]
    new = [
        {"seconds": 1.0, "step_ms": each, "device_memory_mib": peak}
        for each, peak in ((9.0, 5.5), (2.0, 7.5), (1.0, 7.0))
    ]
    found = trainer.costs_of([old, *new])
    assert (found["seconds"], found["step_ms"], found["device_memory_mib"]) == (5.0, 2.0, 7.5)
    device = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 3 * 2**19})
    monkeypatch.setattr(trainer.jax, "local_devices", lambda: [device])
    assert trainer.device_memory_mib() == 1.5


def test_the_template_has_the_shapes_and_types_of_the_states_of_a_run():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    data = Dataset(images=images, labels=np.zeros(2, np.int32))
    template = trainer.template(task(), 3, data)
    assert template.params["output"]["kernel"].shape == (3, 4, 10)
    assert (template.step.shape, template.step.dtype) == ((3,), jnp.int32)


@pytest.mark.parametrize(("seeds", "asked", "shared"), [(2, 4, 4), (2, 1, 1), (8, 0, 1)])
def test_versions_have_the_number_of_devices_that_share_a_batch(
    seeds, asked, shared, tmp_path, capsys
):
    """The bits depend on it: a run that goes on with another says so."""
    asked = config(seeds=seeds, data_devices=asked, experiment="depth")
    data = {"sha256": "a", "caption": "MNIST"}
    versions = trainer.describe_versions(asked, data)
    assert versions["batch_devices"] == shared
    run_directory.begin(tmp_path, asked, {**versions, "batch_devices": 3})
    run_directory.begin(tmp_path, asked, versions)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"batch_devices: begun with 3, asked for {shared}" in said


def test_a_directory_without_a_checkpoint_cannot_be_restored(tmp_path):
    data = Dataset(images=np.zeros((2, 4, 4, 1), np.uint8), labels=np.zeros(2, np.int32))
    with pytest.raises(UserError, match="holds no checkpoint; train the net first"):
        _ = trainer.restore(task(), 1, tmp_path, data)


def trained(folder, monkeypatch, *, steps_per_dispatch=0):
    """Two epochs of four batches, with the steps of the bar and the calls for a stop in `seen`."""
    data = Dataset(images=np.zeros((32, 4, 4, 1), np.uint8), labels=np.zeros(32, np.int32))
    seen, real = [], preemption.raise_if_requested
    loop = Loop(2, 8, 32, steps_per_dispatch=steps_per_dispatch)

    def asked():
        seen.append("stop?")
        real()

    class Bar(progress.tqdm):
        def update(self, n=1):
            super().update(n)
            seen.append(self.n)

    with monkeypatch.context() as patch:
        patch.setattr(preemption, "raise_if_requested", asked)
        patch.setattr(progress, "_LogLines", Bar)
        _ = trainer.train_net(
            task()._replace(loop=loop), config(epochs=2, seeds=1), folder, data, data
        )
    return seen


def test_a_stop_is_asked_for_within_an_epoch_and_once_it_is_saved(tmp_path, monkeypatch):
    """Not after the last piece, where the whole epoch would be lost."""
    for folder in ("whole", "pieces"):
        (tmp_path / folder).mkdir()
    whole = trained(tmp_path / "whole", monkeypatch)
    assert whole == [4, "stop?", 8, "stop?", "stop?"]  # the last one when all is over
    pieces = trained(tmp_path / "pieces", monkeypatch, steps_per_dispatch=2)
    epoch = ["stop?", "stop?"]
    assert pieces == [2, "stop?", 4, "stop?", 6, "stop?", 8, *epoch]
