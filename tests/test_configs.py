import pytest
from ml_collections import ConfigDict

from configs import common, mlp
from research.experiments import depth


def test_a_variant_comes_with_its_switches():
    assert common.parse_variant("b,fast", ("a", "b"), ("fast", "loud")) == ("b", {"fast"})
    assert common.parse_variant("a", ("a", "b"), ()) == ("a", set())


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("tanh-41", "variant 'tanh-41' is unknown; did you mean 'tanh-40'? valid: relu-5,"),
        ("tanh-40,smok", "switch 'smok' is unknown; did you mean 'smoke'? valid: smoke"),
        ("", "variant '' is unknown; valid: relu-5,"),
        ("tanh-40,", "switch '' is unknown; valid: smoke"),
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


def test_smoke_is_short_and_never_real_data():
    config = mlp.get_config("tanh-40,smoke")
    assert (config.epochs, config.data.source) == (2, "synthetic")
    assert config.name == "tanh-40-smoke"


def test_every_config_is_a_plain_tree_that_json_can_hold():
    for variant in (*mlp.NETS, "all"):
        config = mlp.get_config(variant)
        assert isinstance(config, ConfigDict)
        assert config.to_json() == config.to_json_best_effort()
