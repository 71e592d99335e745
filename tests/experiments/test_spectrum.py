import shutil

import jax
import numpy as np
import pytest

from configs import spectrum as configs
from research.experiments import depth, spectrum, trainer
from research.models.activations import ACTIVATIONS
from research.storage import run_directory
from research.structs import UserError
from research.training.step import as_input, init_state


def smoke(**changes):
    """Two trainings of a small net, of four and of two measurements."""
    config = configs.get_config("tanh-5,smoke")
    config.update({"nets": ("tanh-3",), "width": 8, "steps": 16, "every": 8, "seeds": 2} | changes)
    return config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The summary and the directory of a run."""
    workdir = tmp_path_factory.mktemp("study")
    return spectrum.run(smoke(), workdir), workdir


def arrays_of(workdir):
    with np.load(workdir / "spectrum.npz") as stored:
        return dict(stored)


def test_a_run_that_was_killed_in_its_second_training_goes_on_to_the_same_bits(
    study, tmp_path, capsys
):
    """Before its second measurement: nothing of that, and nothing that comes after, is there."""
    workdir = shutil.copytree(study[1], tmp_path / "killed")
    part = workdir / "batch_64"
    shutil.rmtree(part / "checkpoints" / "2")
    for folder in (workdir, part):
        (folder / "SHA256SUMS").unlink()
        (folder / "summary.json").unlink()
    (workdir / "spectrum.npz").unlink()
    summary = spectrum.run(smoke(), workdir)
    said = capsys.readouterr().err
    assert "batches of 64: going on after epoch 1" in said and "full batch epoch" not in said
    np.testing.assert_equal(arrays_of(workdir), arrays_of(study[1]))
    clocks = {"seconds", "peak_memory_mib", "step_ms"}
    for name in ("full_batch", "batch_64"):
        ours, theirs = (each["trainings"][name] for each in (summary, study[0]))
        assert {k: ours[k] for k in ours.keys() - clocks} == {
            k: theirs[k] for k in theirs.keys() - clocks
        }
    assert spectrum.run(smoke(), workdir) == summary
    assert "tanh-3: all is done already" in capsys.readouterr().err


def test_a_run_leaves_its_arrays_figures_and_one_sentence(study):
    summary, workdir = study
    arrays = arrays_of(workdir)
    assert arrays["singular_values"].shape == (2, 4, 8)
    assert arrays["full_batch_sharpness"].shape == (2, 2)
    assert arrays["full_batch_steps"].tolist() == [8, 16]
    assert arrays["batch_64_steps"].tolist() == [8, 16]
    assert {path.stem for path in (workdir / "figures").iterdir()} == {"jacobian", "sharpness"}
    assert summary["edge"] == 20
    ranks = 8 / (1 + arrays["spread"][:, -1])
    assert ranks.min() - 1 < summary["jacobian"]["effective_rank"] < ranks.max() + 1
    assert run_directory.verify(workdir) == []
    assert "of 8)" in summary["explained"] and "\n" not in summary["explained"]


def test_full_batch_is_gradient_descent_by_hand(study):
    """Sixteen steps on the mean loss of all 256 images, and the largest dense eigenvalue."""
    config = smoke()
    train, _, _ = trainer.load(config, "mnist", download=False)
    images, labels = as_input(train.images[:256]), train.labels[:256]
    model = depth.make_model(config, "tanh-3")
    params = init_state(model, spectrum.optim.make_optimizer(0.1), 1, train.images[:1]).params

    def loss(params):
        logits = jax.nn.log_softmax(model.apply({"params": params}, images))
        return -logits[np.arange(256), labels].mean()

    step = jax.jit(lambda p: jax.tree.map(lambda w, g: w - 0.1 * g, p, jax.grad(loss)(p)))
    losses = []
    for _ in range(16):
        losses.append(float(loss(params)))
        params = step(params)
    recorded = arrays_of(study[1])["full_batch_train_loss"][:, 1]
    np.testing.assert_allclose(recorded, [np.mean(losses[:8]), np.mean(losses[8:])], rtol=1e-5)


def test_the_singular_values_are_those_of_autodiff():
    """Of a net with residual layers and shifted biases, second draw, first image."""
    config = smoke(nets=("sigmoid-4",), shift=True, residual=True)
    train, _, _ = trainer.load(config, "mnist", download=False)
    values = spectrum.measure_jacobian(config, "sigmoid-4", train.images)["singular_values"]
    model = depth.make_model(config, "sigmoid-4")
    tx = spectrum.optim.make_optimizer(0.1)
    params = init_state(model, tx, 1, train.images[:1]).params
    layers = [params[name] for name in model.layer_names[:-1]]
    sigmoid = ACTIVATIONS["sigmoid"].function

    def hidden(h):
        for layer in layers[1:]:
            h = h + model.branch * sigmoid(h @ layer["kernel"] + layer["bias"])
        return h

    first = layers[0]
    x = as_input(train.images[:1]).reshape(-1)
    dense = jax.jacobian(hidden)(sigmoid(x @ first["kernel"] + first["bias"]))
    expected = np.linalg.svd(np.asarray(dense), compute_uv=False)
    np.testing.assert_allclose(values[1, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"nets": ()}, "nets: empty"),
        ({"nets": ("tanh-1",)}, "nets: 'tanh-1' has no layer between"),
        ({"nets": ("tanh-5", "tanh-5")}, "nets: 'tanh-5' is there twice"),
        ({"batch_sizes": (64, 64)}, "batch_sizes: 64 is there twice"),
        ({"batch_sizes": ()}, "batch_sizes: empty"),
        ({"draws": 0}, "draws: 0"),
        ({"lanczos": 0}, "lanczos: 0"),
        ({"seed": 2**32 - 2, "draws": 3}, "seed: 4294967294"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_key(changes, word, tmp_path):
    with pytest.raises(UserError, match=word):
        _ = spectrum.run(smoke(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_description_has_the_trainings_with_their_steps():
    text = spectrum.describe(configs.get_config("relu-5,smoke"))
    assert "full batch: 40 steps, sharpness after every 10" in text
    assert "SGD, batches of 64: 40 steps, sharpness after every 8" in text
