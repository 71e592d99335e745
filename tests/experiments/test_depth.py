import shutil

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import numpy_mlp
import object_store
import pytest

from configs import mlp as configs
from research.experiments import depth, trainer
from research.storage import checkpoint, run_directory
from research.structs import UserError
from research.training import divergence, probes
from research.training.epoch import snapshot_batch
from research.training.step import as_input, init_state, make_gradient


def smoke(variant, **changes):
    config = configs.get_config(f"{variant},smoke")
    config.update(changes)
    return config


# A net for each figure, of few layers: programs of all twelve nets take long to compile.
SOME, DEPTHS = ("relu-3", "tanh-5", "sigmoid-8"), (3, 5, 8)


@pytest.fixture(
    scope="module", params=[SOME, pytest.param(configs.NETS, marks=pytest.mark.slow)], ids=len
)
def study(request, tmp_path_factory):
    """The summary and the directory of several nets, two seeds, one epoch."""
    workdir = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == SOME:
            patch.setattr(depth, "REPORT_DEPTHS", DEPTHS)
        return depth.run(smoke("all", nets=request.param, epochs=1, seeds=2), workdir), workdir


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The summary and the directory of tanh-5, seed 1 by itself, one epoch."""
    workdir = tmp_path_factory.mktemp("alone")
    return depth.run(smoke("tanh-5", epochs=1, seed=1), workdir), workdir


def test_a_study_runs_its_nets_and_draws_figures_1_to_5(study, request):
    summary, workdir = study
    assert tuple(summary["nets"]) == request.node.callspec.params["study"]
    drawn = {path.stem for path in (workdir / "figures").iterdir()}
    assert drawn == {
        *("figure_1", "figure_2", "figure_3", "figure_4", "figure_5"),
        *("figure_1_signal", "figure_2_signal", "figure_3_signal"),
    }
    for path in (workdir / "figures").iterdir():
        picture = matplotlib.image.imread(path)
        assert picture.shape[0] > 300 and picture.shape[1] > 600
        assert picture[..., :3].std() > 0.02
    assert run_directory.read_json(workdir / "summary.json") == summary


def figures_of(nets, workdir, monkeypatch, gradients=True):
    """The names of the figures of a study whose nets have been trained, and what is told."""
    said, row = [], {"train_accuracy": 0.5, "test_accuracy": 0.5, "train_loss": 1, "test_loss": 1}
    rows = {net: [{"epoch": 1, **row}] for net in nets}
    record = {
        net: {
            "epochs": np.arange(2),
            "layers": np.array([*map(str, range(int(net.split("-")[1]))), "output"]),
            "kernel_abs_max": np.ones((2, 1, int(net.split("-")[1]) + 1)),
            "signal_abs_max": np.ones((2, 1, int(net.split("-")[1]) + 1)),
        }
        for net in nets
    }
    read = lambda path: record[path.name] if gradients else {}  # noqa: E731
    monkeypatch.setattr(run_directory, "gradients", read)
    monkeypatch.setattr(depth.progress, "say", said.append)
    return set(depth._draw_study(workdir, rows, "data")), said


def test_nets_of_other_depths_are_drawn_in_figures_of_their_own(tmp_path, monkeypatch):
    drawn, said = figures_of(("relu-3", "lecun-3", "tanh-20"), tmp_path, monkeypatch)
    assert drawn == {
        *("figure_2", "figure_2_signal", "figure_4", "figure_5"),
        *("learning_curves_3", "gradients_3", "gradients_3_signal"),
    }
    none = "figures of the report that are not drawn: "
    assert said == [f"{none}1, 3 (this run has none of their nets)"]
    every = [f"{name}-{layers}" for name in ("relu", "lecun") for layers in (5, 20, 40)]
    assert figures_of(every, tmp_path, monkeypatch)[1] == []


def test_without_the_probe_a_study_has_its_curves_and_says_what_it_lacks(tmp_path, monkeypatch):
    nets = ("relu-3", "relu-5", "tanh-20")
    drawn, said = figures_of(nets, tmp_path, monkeypatch, gradients=False)
    assert drawn == {"figure_4", "learning_curves_3", "learning_curves_5"}
    assert said == [
        "figures of the report that are not drawn: 3 (this run has none of their nets); "
        "1, 2, 5 (no gradients are recorded with probe=False)"
    ]


def test_a_net_has_one_name():
    with pytest.raises(UserError, match="nets: 'relu-05' is not an activation"):
        depth.check(smoke("relu-5", nets=("relu-5", "relu-05")))


def test_every_net_leaves_a_complete_record(study):
    summary, workdir = study
    for net, result in summary["nets"].items():
        check_record(workdir / net, net, result)


def check_record(workdir, net, result):
    (row,) = run_directory.rows(workdir)
    assert list(row) == [
        *("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"),
        *("step_ms", "device_memory_mib"),
    ]
    assert len(row["test_accuracy"]) == 2
    assert all(0 <= value <= 1 for value in row["train_accuracy"] + row["test_accuracy"])
    assert result["test_accuracy"] == row["test_accuracy"]
    arrays = run_directory.gradients(workdir)
    layers = int(net.split("-")[1]) + 1
    for statistic in probes.STATISTICS:
        for reduction in probes.REDUCTIONS:
            found = arrays[f"{statistic}_{reduction}"]
            assert found.shape == (2, 2, layers) and found.dtype == np.float32
            assert np.isfinite(found).all()
    assert (arrays["layer_abs_max"] >= arrays["kernel_abs_max"]).all()
    assert (arrays["kernel_abs_max"] >= arrays["kernel_abs_mean"]).all()
    assert (arrays["kernel_abs_last"] >= arrays["kernel_signed_last"]).all()
    for name in ("config.json", "versions.json", "summary.json", "checkpoints", "tensorboard"):
        assert (workdir / name).exists()


def test_the_theory_lies_beside_the_gradients_and_is_of_their_size(study):
    """Two seeds of each net, epoch 0, within five standard deviations of the prediction."""
    summary, workdir = study
    for net, result in summary["nets"].items():
        with np.load(workdir / net / "theory.npz") as stored:
            theory = dict(stored)
        arrays = run_directory.gradients(workdir / net)
        assert list(theory["layers"]) == list(arrays["layers"])
        for name in ("kernel_rms", "kernel_abs", "signal_rms", "signal_abs"):
            ratio = np.log(arrays[f"{name}_batch"][0] / theory[f"{name}_median"])
            assert (np.abs(ratio) < 5 * theory[f"{name}_sd"] + 0.5).all(), (net, name)
        assert "a layer, predicted" in result["theory"]


def test_a_snapshot_is_of_one_batch_and_equals_gradients_by_hand(study):
    """tanh-5, seed 1, before its first step, in float64."""
    config = smoke("tanh-5", seeds=2)
    train_set, _, _ = trainer.load(config, "mnist", download=False)
    task = depth.make_task(config, len(train_set.images))
    state = init_state(task.model, task.tx, 1, train_set.images[:1])
    batch = snapshot_batch(train_set, config.batch_size)
    _, grads, signals = numpy_mlp.gradients(
        state.params, task.model.layer_names, "tanh", batch.images, batch.labels
    )
    arrays = run_directory.gradients(study[1] / "tanh-5")
    for i, layer in enumerate(task.model.layer_names):
        for family, values in (("kernel", grads[layer]["kernel"]), ("signal", signals[layer])):
            rms = np.sqrt(np.mean(values**2))
            assert arrays[f"{family}_rms_batch"][0, 1, i] == pytest.approx(rms, rel=1e-3)
            largest = np.abs(values).max()
            assert arrays[f"{family}_abs_batch"][0, 1, i] == pytest.approx(largest, rel=1e-3)
        kernel = np.sqrt(np.mean(np.square(state.params[layer]["kernel"])))
        ratio = 0.01 * np.sqrt(np.mean(grads[layer]["kernel"] ** 2)) / kernel
        assert arrays["update_ratio"][0, 1, i] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("net", "changes"),
    [
        ("sigmoid-3", {"shift": True}),
        pytest.param("relu-3", {"init": "lsuv"}, marks=pytest.mark.slow),
        pytest.param("tanh-3", {"init": "orthogonal", "gain": 1.2}, marks=pytest.mark.slow),
        pytest.param("relu-3", {"residual": True}, marks=pytest.mark.slow),
    ],
)
def test_the_theory_knows_every_init(net, changes):
    """rms of the pre-activations and of the signal of 40 seeds, against q and the prediction."""
    config = smoke("all", nets=(net,), width=64, **changes)
    train_set, _, _ = trainer.load(config, "mnist", download=False)
    task = depth.make_task(config, len(train_set.images))
    theory = depth.predict(task.model, train_set, config.batch_size)
    batch = snapshot_batch(train_set, config.batch_size)
    gradient = make_gradient(task.model, task.loop)

    @jax.jit
    def one(seed):
        state = init_state(
            task.model, task.tx, seed, train_set.images[: task.loop.init_images], task.loop
        )
        _, signals, _ = gradient(state.params, batch, jax.random.key(0))
        _, seen = task.model.apply(
            {"params": state.params}, as_input(batch.images), capture_intermediates=True
        )
        names = task.model.layer_names
        u = [seen["intermediates"][name]["__call__"][0] for name in names]
        back = [signals[f"{name}_signal"] for name in names]
        return [jnp.stack([jnp.mean(jnp.square(x)) for x in xs]) for xs in (u, back)]

    q, signal = jax.lax.map(one, jnp.arange(40, dtype=jnp.uint32))
    np.testing.assert_allclose(q.mean(0) / theory["q"], 1, atol=0.15)
    np.testing.assert_allclose(signal.mean(0) / theory["signal_rms_mean"] ** 2, 1, atol=0.25)


@pytest.mark.slow  # as training/test_probes.py has it for arrays
def test_the_signal_of_sigmoid_40_is_recorded_far_below_the_root_of_the_smallest_float(tmp_path):
    _ = depth.run(smoke("sigmoid-40", epochs=1), tmp_path)
    arrays = run_directory.gradients(tmp_path)
    first = arrays["signal_abs_max"][0, :, 0]
    assert (first > 0).all() and (first < 1e-19).all()


def test_a_finished_run_is_not_run_again_and_keeps_what_it_says_of_its_device(
    study, capsys, monkeypatch
):
    summary, workdir = study
    nets = tuple(summary["nets"])
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if ".lock" != path.name}
    monkeypatch.setattr(run_directory, "describe_device", lambda: "another machine")
    monkeypatch.setattr(run_directory.files, "can_write", lambda folder: False)
    again = depth.run(smoke("all", nets=nets, epochs=1, seeds=2), workdir)
    assert again == summary
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "all 1 epochs are done already" in capsys.readouterr().err


def test_what_a_finished_run_has_lost_is_named_and_made_again_from_its_checkpoint(
    study, tmp_path, capsys
):
    """All but a summary's clocks to the byte; without a checkpoint nothing is written."""
    workdir = shutil.copytree(study[1] / "tanh-5", tmp_path / "tanh-5")
    config = depth.net_config(smoke("all", nets=("tanh-5",), epochs=1, seeds=2), "tanh-5")
    names = ("metrics.jsonl", "gradients.npz", "figures/gradients.png")
    whole = {name: (workdir / name).read_bytes() for name in names}
    (workdir / names[0]).write_bytes(whole[names[0]].replace(b"0.", b"1.", 1))
    (workdir / names[1]).unlink()
    (workdir / names[2]).write_bytes(whole[names[2]][:-1])
    summary = depth.run(config, workdir)
    said = capsys.readouterr().err
    assert f"{workdir}/" in said and "; what can be is made again (2 more files)" in said
    assert "tanh-5: going on after epoch 1" in said and "epoch 1/1" not in said
    assert {name: (workdir / name).read_bytes() for name in names} == whole
    clocks = ("peak_memory_mib",)
    before = study[0]["nets"]["tanh-5"]
    assert {**summary, **{key: before[key] for key in clocks}} == before
    assert run_directory.verify(workdir) == []


def test_numbers_are_plain_with_one_seed_and_the_data_are_named(alone):
    summary, workdir = alone
    assert isinstance(summary["test_accuracy"], float)
    correct = summary["test_accuracy"] * 256
    assert correct == pytest.approx(round(correct))
    assert f"({round(correct)} of 256 images)" in summary["headline"]
    stored = run_directory.read_json(workdir / "versions.json")
    assert stored["data"]["caption"] == summary["data"]["caption"]
    assert {p.stem for p in (workdir / "figures").iterdir()} == {
        *("learning_curves", "gradients", "theory"),
    }


def test_batches_are_those_of_the_config_and_figures_are_captioned_with_data_and_settings(
    tmp_path, monkeypatch
):
    captions, states = [], []
    monkeypatch.setattr(run_directory, "save_figures", lambda _, draw: captions.extend(
        text.get_text() for figure in draw().values() for text in figure.texts
    ))  # fmt: skip
    monkeypatch.setattr(
        checkpoint.Checkpoints, "save", lambda self, epoch, state, records: states.append(state)
    )
    _ = depth.run(smoke("relu-5", init="he", batch_size=128), tmp_path)
    for word in ("SYNTHETIC DIGITS", "he,", "SGD 0.01", "batches of 128"):
        assert sum(word in " ".join(text.split()) for text in captions) == 3
    assert [int(state.step[0]) for state in states] == [4, 8]


def test_without_the_probe_there_are_metrics_but_no_gradients(tmp_path, capsys):
    _ = depth.run(smoke("relu-5", epochs=1, probe=False), tmp_path)
    assert len(run_directory.rows(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "figure gradients is not drawn: no gradients" in said
    assert "SYNTHETIC DIGITS, not MNIST" in said
    assert not (tmp_path / "gradients.npz").exists()


def test_a_run_that_diverges_at_once_says_where_and_that_nothing_was_finished(tmp_path):
    said = r"relu-2: the loss of seed 0 is not finite at step \d+ .*No epoch was finished"
    with pytest.raises(UserError, match=said):
        _ = depth.run(smoke("all", nets=("relu-2",), learning_rate=1e20), tmp_path)
    assert run_directory.rows(tmp_path) == []


def test_a_run_that_diverges_later_keeps_its_last_good_epoch(tmp_path, monkeypatch):
    check = divergence.check

    def broken(*arguments, number, **settings):
        if number == 3:
            raise divergence.Diverged(3, 40, 0, "hidden_02")
        check(*arguments, number=number, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(divergence, "check", broken)
        with pytest.raises(UserError, match=r"\(epoch 3\).*epoch 2 is kept in"):
            _ = depth.run(smoke("tanh-5", epochs=4), tmp_path)
    assert [row["epoch"] for row in run_directory.rows(tmp_path)] == [1, 2]
    _ = depth.run(smoke("tanh-5", epochs=4), tmp_path)
    assert [row["epoch"] for row in run_directory.rows(tmp_path)] == [1, 2, 3, 4]


def test_a_run_in_a_store_that_is_killed_and_goes_on_has_the_records_of_a_disk(
    tmp_path, monkeypatch
):
    """Killed between the record and the state of epoch 2; signals and servers: see test_files."""
    save, store = checkpoint.Checkpoints.save, object_store.install(tmp_path / "o", monkeypatch)

    def killed(self, epoch, *content):
        if epoch == 2:
            raise KeyboardInterrupt
        save(self, epoch, *content)

    config = smoke("tanh-5", epochs=3)
    monkeypatch.setattr(checkpoint.Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        _ = depth.run(config, store)
    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    assert [row["epoch"] for row in run_directory.rows(store)] == [1, 2]
    there, here = depth.run(config, store), depth.run(config, tmp_path / "disk")
    timed = ("seconds", "step_ms", "peak_memory_mib")
    for one, other in [
        (there, here),
        *zip(run_directory.rows(store), run_directory.rows(tmp_path / "disk"), strict=True),
    ]:
        assert {k: one[k] for k in one if k not in timed} == {
            k: other[k] for k in other if k not in timed
        }
    np.testing.assert_equal(
        run_directory.gradients(store), run_directory.gradients(tmp_path / "disk")
    )
    drawn = {path.name for path in (tmp_path / "disk/figures").iterdir()}
    assert {path.name for path in (store / "figures").iterdir()} == drawn


def test_the_first_seed_is_that_of_the_config(study, alone):
    """Seed 1 by itself is the second of the seeds 0 and 1."""
    both = study[0]["nets"]["tanh-5"]
    assert alone[0]["seeds"] == [1] and both["seeds"] == [0, 1]
    assert alone[0]["test_loss"] == both["test_loss"][1]
    ours, theirs = run_directory.gradients(alone[1]), run_directory.gradients(study[1] / "tanh-5")
    np.testing.assert_array_equal(ours["kernel_abs_mean"][:, 0], theirs["kernel_abs_mean"][:, 1])


def test_a_net_of_a_study_cannot_be_trained_twice_at_once(tmp_path):
    with run_directory.locked(tmp_path), pytest.raises(UserError, match="in use by process"):
        _ = depth.run(smoke("relu-5"), tmp_path)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"epochs": 0}, "epochs: 0"),
        ({"batch_size": -3}, "batch_size: -3"),
        ({"eval_batch_size": 0}, "eval_batch_size: 0"),
        ({"seeds": 0}, "seeds: 0"),
        ({"seed": -1}, "seed: -1"),
        ({"nets": ()}, "nets: empty"),
        ({"nets": ("elu-5",)}, "nets: 'elu-5'"),
        ({"nets": ("tanh",)}, "nets: 'tanh'"),
        ({"init": "xavier"}, "init: 'xavier'"),
        ({"width": 0}, "width: 0"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_key(changes, word, tmp_path):
    with pytest.raises(UserError, match=word):
        _ = depth.run(smoke("relu-5", **changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("depth_", "parameters"), [(5, "29,674"), (20, "45,514"), (40, "66,634")])
def test_a_description_has_the_layers_the_steps_and_the_cost(depth_, parameters):
    text = depth.describe(smoke(f"tanh-{depth_}"))
    assert f"hidden_01 .. hidden_{depth_ - 1:02d}" in text
    assert parameters in text
    assert "8 steps an epoch, 16 in all" in text
    assert "FLOPs" in text and "MiB" in text


@pytest.mark.parametrize(
    ("net", "changes", "words"),
    [
        ("tanh-40", {}, "up to 6 train: yes"),
        ("relu-40", {}, "40 hidden layers are 27.0 depth scales"),
        ("relu-40", {}, "with init he (0.0)"),
        ("sigmoid-20", {}, "no other init changes that"),
        ("sigmoid-20", {"shift": True}, "yes"),
        ("relu-40", {"residual": True}, "yes"),
    ],
)
def test_a_description_says_whether_the_net_will_train(net, changes, words):
    config = smoke(net, **changes)
    train_set, _, _ = trainer.load(config, "mnist", download=False)
    sentence = depth.will_it_train(depth.make_model(config, net), train_set.images[:64])
    assert words in sentence
