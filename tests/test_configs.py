import re

import pytest
from ml_collections import ConfigDict

from configs import cnn, common, masks, mlp, noise, spectrum
from configs import map as maps
from research import main
from research.adversarial.faithful import Faithful
from research.experiments import depth
from research.experiments.noise import study as attacks

FILES = (mlp, spectrum, cnn, maps, noise, masks)
VARIANTS = [(file, net) for file in (mlp, spectrum) for net in (*mlp.NETS, "all")]
VARIANTS += [(file, variant) for file in (cnn, maps, noise, masks) for variant in file.VARIANTS]


def keys(config):
    """All keys of a config as paths."""
    return {
        (key, *rest)
        for key, value in config.items()
        for rest in (keys(value) if isinstance(value, ConfigDict) else [()])
    }


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("tanh-41", "variant 'tanh-41' is unknown; did you mean 'tanh-40'? valid: relu-5,"),
        ("tanh-40,smok", "switch 'smok' is unknown; did you mean 'smoke'? valid: smoke"),
        ("", "variant '' is unknown; valid: relu-5,"),
        ("tanh-40,", "nothing follows a comma of 'tanh-40,'; leave it out, or valid: smoke"),
        ("tanh-40,,smoke", "nothing follows a comma of 'tanh-40,,smoke'"),
    ],
)
def test_a_word_that_is_not_valid_is_named_with_the_nearest_and_the_list(arg, said):
    with pytest.raises(ValueError) as caught:
        _ = mlp.get_config(arg)
    assert said in str(caught.value)


def test_the_nets_are_those_of_the_report():
    assert len(mlp.NETS) == 12
    assert {tuple(net.split("-")) for net in mlp.NETS} == {
        (a, d) for a in ("relu", "tanh", "sigmoid", "lecun") for d in ("5", "20", "40")
    }
    assert mlp.get_config("all").nets == mlp.NETS


@pytest.mark.parametrize("net", mlp.NETS)
def test_the_settings_are_those_of_the_report(net):
    config = mlp.get_config(net)
    assert (config.epochs, config.batch_size, config.learning_rate) == (10, 64, 0.01)
    assert (config.width, config.init, config.nets) == (32, "glorot_uniform", (net,))
    depth.check(config)


def test_the_classifiers_are_those_of_the_report_and_one_better_for_each_data_set():
    assert cnn.VARIANTS == ("mnist", "cifar10", "mnist-best", "cifar10-best", "mnist-robust")
    mnist, cifar10 = cnn.get_config(), cnn.get_config("cifar10")
    assert (mnist.filters, mnist.pools, mnist.dropouts) == ((32, 64), (1, 2), (0.0, 0.25))
    assert (mnist.dense, mnist.dense_dropouts) == ((128,), (0.25,))
    assert (mnist.optimizer, mnist.learning_rate) == ("adam", 0.01)
    assert (mnist.batch_size, mnist.epochs) == (128, 4)
    assert (cifar10.filters, cifar10.dropouts) == ((64, 64, 128, 128), (0.0, 0.4, 0.0, 0.4))
    assert (cifar10.dense, cifar10.dense_dropouts) == ((1024, 1024), (0.0, 0.0))
    assert (cifar10.optimizer, cifar10.epochs) == ("adam", 50)


def test_the_report_s_nets_are_trained_on_plain_images_and_labels():
    for variant in ("mnist", "cifar10"):
        config = cnn.get_config(variant)
        assert (config.shift, config.mirror, config.label_smoothing) == (0, False, 0.0)
        assert (config.schedule, config.weight_decay) == ("constant", 0.0)
        assert config.adversarial_radius == 0.0


def test_the_robust_net_is_the_report_s_but_for_how_it_is_trained():
    robust, mnist = cnn.get_config("mnist-robust"), cnn.get_config("mnist")
    differing = {key for key in mnist if robust[key] != mnist[key]}
    of_training = {"adversarial_radius", "adversarial_steps", "learning_rate", "schedule"}
    assert differing == {"name"} | of_training


def test_the_attack_of_the_report_is_on_fifty_digits_of_five_classes_and_a_horse():
    mnist, cifar10 = noise.get_config(), noise.get_config("cifar10")
    assert mnist.nets == ("cnn:mnist",) and cifar10.nets == ("cnn:cifar10",)
    assert (mnist.classes, mnist.per_class, mnist.extra_indices) == ((0, 2, 4, 6, 8), 10, ())
    assert mnist.only_correct and mnist.images == 0
    assert cifar10.extra_indices == (87,)
    faithful = mnist.faithful
    assert (faithful.steps, faithful.check_every, faithful.learning_rate) == (3000, 100, 0.01)
    assert (faithful.std, faithful.dropout) == (0.05, False)
    mnist.method = "faithful"
    assert attacks.make_methods(mnist) == (Faithful(),)


def test_the_face_mask_net_is_the_report_s():
    vgg = masks.get_config()
    assert vgg.filters == (10, 10, 10, 10, 16, 16, 32, 32) and vgg.pools == (1, 2) * 4
    assert (vgg.dense, vgg.head, vgg.padding) == ((1024, 256, 32), "sigmoid", "valid")
    assert (vgg.optimizer, vgg.learning_rate, vgg.batch_size) == ("adam", 0.001, 32)
    assert (vgg.epochs, vgg.patience, vgg.keep_best, vgg.final_epochs) == (30, 4, False, 0)
    assert (vgg.data.size, vgg.data.margin, vgg.data.keep_incorrect) == (200, 0.0, False)
    assert (vgg.shift, vgg.mirror, vgg.label_smoothing) == (0, False, 0.0)


@pytest.mark.parametrize(
    ("file", "variant"), VARIANTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_smoke_is_the_same_config_in_small_on_synthetic_data(file, variant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no net is trained
    config = file.get_config(variant)
    smoke = file.get_config("smoke" if variant == "smoke" else f"{variant},smoke")
    assert config.experiment in main.EXPERIMENTS and config.name == variant
    assert smoke.experiment == config.experiment
    assert keys(smoke) == keys(config)
    if config.experiment == "masks":
        assert smoke.data.drawn and smoke.epochs <= 3
        assert variant == "smoke" or not config.data.drawn
    else:
        assert (config.data.source, smoke.data.source) == ("auto", "synthetic")
    if config.experiment == "noise":
        assert all(net.endswith(",smoke") for net in smoke.nets) and not smoke.baselines
        attacks.check(config)
        attacks.check(smoke)


@pytest.mark.parametrize(
    ("file", "variant"), VARIANTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_a_config_is_a_plain_tree_that_json_can_hold(file, variant):
    config = file.get_config(variant)
    assert config.to_json() == config.to_json_best_effort()


@pytest.mark.parametrize(
    ("file", "variant"), VARIANTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_every_key_has_a_kind_which_the_value_is_of_but_none_and_words_are_not(file, variant):
    config = file.get_config(variant)
    paths = {".".join(path) for path in keys(config)}
    assert paths == set(common.kinds(config)) and common.problem(config) == ""
    for path in paths:
        *sections, key = path.split(".")
        changed = config.copy_and_resolve_references()
        section = changed[sections[0]] if sections else changed
        for wrong in (None, object, ("x", None), ["x", []]):
            with section.ignore_type():
                section[key] = wrong
            assert re.match(rf"{re.escape(path)}: .* is not a?", common.problem(changed))
        del section[key]
        assert common.missing(changed) == [path]
        assert common.problem(changed).startswith(f"{path}: the config has no such key")


@pytest.mark.parametrize(
    ("file", "path", "good", "bad"),
    [
        (mlp, "epochs", (1, 1_000_000), (0, -1, True, 2.0, "3", 10**11)),
        (mlp, "learning_rate", (1, 0.5, 1e20), (0, 0.0, -0.1, float("inf"), float("nan"), "1")),
        (mlp, "seed", (0, 2**32 - 1), (-1, 2**32)),
        (mlp, "batch_size", (1, 60_000), (0, 99_999_999_999)),
        (mlp, "cpu_devices", (0, 1024), (-1, 100_000)),
        (mlp, "probe", (True, False), (0, 1, "False")),
        (mlp, "nets", (("tanh-5",), ["tanh-5"], ()), ((1, 2), "tanh-5", None, ("tanh-5", None))),
        (cnn, "filters", ((32, 64),), ((32.5, 64), (0, 64), ("32", 64), 32)),
        (cnn, "dropouts", ((0, 0.25), (0.0, 1.0)), ((0.0, 1.5), (0.0, float("nan")), (False, 0.0))),
        (masks, "data.margin", (0, 1, 0.5), (-0.1, 1.5)),
        (masks, "data.size", (8, 200), (7, 200.0)),
        (noise, "classes", ((0, 9), ()), (("3",), (10,), (-1,), (3.0,))),
        (noise, "minimal.steps", (1,), (0, 0.5)),
        (noise, "seed", (0, 2**31 - 2), (-1, 2**31 - 1, 2**32)),
    ],
)
def test_what_a_key_may_hold_ends_at_its_bounds(file, path, good, bad):
    kind = common.kinds(file.get_config())[path]
    assert all(common._is_of(value, kind) for value in good)
    assert not any(common._is_of(value, kind) for value in bad)


@pytest.mark.parametrize("file", (mlp, cnn, noise, masks))
def test_the_docstring_has_the_results_of_the_study(file):
    assert f"<!-- generated: note-{file.get_config().experiment} -->" in file.__doc__
