import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from research.training import probes

SHAPES = st.permutations([(6, 4), (3, 5), (1,), (7,)])  # each is compiled once
LARGE = float(np.float32(1e30))
FLOATS = st.floats(-LARGE, LARGE, width=32, allow_subnormal=False)


@given(data=st.data(), shapes=SHAPES)
@settings(max_examples=20, deadline=None)
def test_maxima_are_those_of_each_array_in_the_order_given(data, shapes):
    arrays = [data.draw(hnp.arrays(np.float32, shape, elements=FLOATS)) for shape in shapes]
    magnitudes = np.float32([np.abs(a).max() for a in arrays])
    found, signed = probes.extremes(arrays)
    np.testing.assert_array_equal(found, magnitudes)
    np.testing.assert_array_equal(probes.largest(arrays), magnitudes)
    np.testing.assert_array_equal(signed, np.float32([a.max() for a in arrays]))


def test_values_whose_squares_would_underflow_survive():
    tiny = np.float32([[1e-30, -3e-30], [2e-30, 0]])
    assert float(probes.largest([tiny])[0]) == np.float32(3e-30)
    magnitude, signed = probes.extremes([tiny])
    assert (float(magnitude[0]), float(signed[0])) == (np.float32(3e-30), np.float32(2e-30))


@pytest.mark.parametrize("nan", [np.nan, -np.nan])
def test_a_nan_of_either_sign_is_larger_than_infinity(nan):
    array = np.float32([1.0, np.inf, nan, 2.0])
    assert np.isnan(probes.largest([array])[0])
    assert np.isnan(probes.extremes([array])[0][0])


def test_all_negative_arrays_have_a_negative_signed_maximum():
    assert [float(x[0]) for x in probes.extremes([np.float32([-3, -1, -2])])] == [3.0, -1.0]


def test_statistics_take_every_reading_of_max_gradient():
    gradients = {
        "b": {"kernel": np.float32([[1, -5]]), "bias": np.float32([2, 0])},
        "a": {"kernel": np.float32([[3, -1]]), "bias": np.float32([-7, 0])},
    }
    signals = {"a": np.float32([[0.5, -0.25]]), "b": np.float32([[-4, 1]])}
    found = probes.layer_statistics(gradients, signals, ("b", "a"))
    assert tuple(found) == probes.STATISTICS
    assert {name: values.tolist() for name, values in found.items()} == {
        "kernel_abs": [5, 3],
        "kernel_signed": [1, 3],
        "layer_abs": [5, 7],
        "layer_signed": [2, 3],
        "signal_abs": [4, 0.5],
    }


def test_an_epoch_is_reduced_to_its_maximum_its_mean_and_its_last_step():
    found = probes.over_epoch({"x": jnp.float32([[1, 8], [4, 2], [1, 2]])})
    assert {name: values.tolist() for name, values in found.items()} == {
        "x_max": [4, 8],
        "x_mean": [2, 4],
        "x_last": [1, 2],
    }


def test_a_root_mean_square_survives_squares_that_underflow():
    tiny = np.float32([[3e-30, -4e-30], [0, 0]])
    assert float(probes.rms(tiny)) == pytest.approx(2.5e-30, rel=1e-6)
    assert float(probes.rms(np.zeros(3, np.float32))) == 0


def test_a_snapshot_of_two_layers_by_hand():
    kernels = [np.float32([[1, -1], [1, 1]]), np.float32([[2], [2]])]
    gradients = [np.float32([[3, 0], [4, 0]]), np.float32([[-1], [1]])]
    signals = [np.float32([[1, 1], [1, -7]]), np.float32([[0.5], [-0.5]])]
    updates = [-0.1 * gradient for gradient in gradients]
    activations = [np.float32([[0, 2], [0, 4]]), np.float32([[1], [5]])]
    slopes = [np.float32([[0, 0], [0, 1]])]  # of two images: one unit is dead
    found = probes.snapshot_statistics(kernels, gradients, signals, updates, activations, slopes)
    assert tuple(found) == probes.SNAPSHOT
    expected = {
        "kernel_rms_batch": [2.5, 1],
        "kernel_abs_batch": [4, 1],
        "signal_rms_batch": [np.sqrt(13), 0.5],
        "signal_abs_batch": [7, 0.5],
        "activation_variance": [2.75, 4],
        "dead_share": [0.5, np.nan],
        "saturated_share": [0.75, np.nan],
        "update_ratio": [0.25, 0.05],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_the_first_layer_with_a_nonfinite_value_is_named_in_the_order_of_the_net():
    outputs = {"a": np.float32([1]), "c": np.float32([np.inf]), "b": np.float32([np.nan])}
    assert probes.layer_of_first_nonfinite(outputs, ("a", "b", "c")) == "b"
    assert probes.layer_of_first_nonfinite(outputs, ("a",)) is None
