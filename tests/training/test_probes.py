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


def test_the_first_layer_with_a_nonfinite_value_is_named_in_the_order_of_the_net():
    outputs = {"a": np.float32([1]), "c": np.float32([np.inf]), "b": np.float32([np.nan])}
    assert probes.layer_of_first_nonfinite(outputs, ("a", "b", "c")) == "b"
    assert probes.layer_of_first_nonfinite(outputs, ("a",)) is None
