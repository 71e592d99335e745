import numpy as np
import pytest

from research.theory import comparison

RATE, SEEDS = 0.5, 400


def nets(factor=1.0, seeds=SEEDS, sd=0.3):
    """A theory of four hidden layers, and seeds that follow it but for `factor` in layer 2."""
    signal = np.array([RATE**3, RATE**2, RATE, 1.0, 2.0])
    theory = {
        "kernel_rms_mean": np.full(5, 1.1),
        "kernel_rms_median": np.ones(5),
        "kernel_rms_sd": np.full(5, sd),
        "signal_rms_mean": 1.1 * signal,
        "signal_rms_median": signal,
    }
    normal = np.linspace(-2, 2, seeds)[:, None]
    kernel = np.exp(sd * normal) * np.array([1, factor, 1, 1, 1])
    measured = np.exp(sd * normal) * signal
    later = np.full((seeds, 5), 99.0)
    return theory, {
        "kernel_rms_batch": np.stack([kernel, later]).astype(np.float32),
        "signal_rms_batch": np.stack([measured, later]).astype(np.float32),
    }


def test_rates_are_of_hidden_layers_before_the_first_step():
    found = comparison.compare(*nets())
    assert found.predicted_rate == pytest.approx(RATE)
    assert found.measured_rate == pytest.approx(RATE, rel=1e-5)
    np.testing.assert_allclose(found.ratio, 1, rtol=1e-4)
    assert not found.off.any() and not found.failed.any()
    words = comparison.sentence(*nets())
    assert "halves every 1 layers" in words and "init explains it" in words


def test_a_layer_beyond_what_chance_allows_is_named():
    for factor in (1.6, 0.6):
        compared = comparison.compare(*nets(factor))
        np.testing.assert_array_equal(np.flatnonzero(compared.failed), [1])
        words = comparison.sentence(*nets(factor))
        assert f"{factor:.2f} times the predicted one in layer 2" in words
        assert "fails in 1 of 5 layers (2)" in words and "init explains it" not in words


@pytest.mark.parametrize("factor", [1.4, 5.0])
def test_few_seeds_neither_explain_a_layer_that_is_off_nor_refute_it(factor):
    """The median of one is as uncertain as a seed, whose sd is a factor of 3 here."""
    compared = comparison.compare(*nets(factor, seeds=1, sd=np.log(3.0)))
    assert compared.off[1] and not compared.failed.any()
    words = comparison.sentence(*nets(factor, seeds=1, sd=np.log(3.0)))
    assert "more seeds would tell" in words and "init explains it" not in words


def test_layers_in_a_row_are_one_range():
    assert comparison.ranges(np.array([1, 1, 1, 0, 1, 0, 1, 1], bool)) == "1-3, 5, 7-8"


def test_of_a_net_without_a_known_median_the_mean_is_compared():
    theory, gradients = nets()
    for name in ("kernel_rms_median", "signal_rms_median", "kernel_rms_sd"):
        theory[name] = np.full(5, np.nan)
    np.testing.assert_allclose(comparison.compare(theory, gradients).ratio, 1 / 1.1, rtol=1e-4)
    assert not comparison.compare(theory, gradients).failed.any()
    one = {name: values[:, :1] for name, values in gradients.items()}  # of unknown scatter
    assert not comparison.compare(theory, one).failed.any()
