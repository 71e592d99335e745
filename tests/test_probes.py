import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from research import probes

SHAPES = st.lists(st.sampled_from([(6, 4), (3, 5), (8, 4), (1,), (7,)]), min_size=1, max_size=5)
LARGE = float(np.float32(1e30))
FLOATS = st.floats(-LARGE, LARGE, width=32, allow_subnormal=False)


@given(data=st.data(), shapes=SHAPES, signed=st.booleans())
@settings(max_examples=30, deadline=None)
def test_largest_is_the_maximum_of_each_array_in_the_order_given(data, shapes, signed):
    arrays = [data.draw(hnp.arrays(np.float32, shape, elements=FLOATS)) for shape in shapes]
    found = probes.largest(arrays, signed=signed)
    expected = [a.max() if signed else np.abs(a).max() for a in arrays]
    np.testing.assert_array_equal(found, np.float32(expected))


def test_values_whose_squares_would_underflow_survive():
    tiny = np.float32([[1e-30, -3e-30], [2e-30, 0]])
    assert float(probes.largest([tiny])[0]) == np.float32(3e-30)
    assert float(probes.largest([tiny], signed=True)[0]) == np.float32(2e-30)


@pytest.mark.parametrize("signed", [False, True])
def test_a_nan_is_larger_than_infinity(signed):
    array = np.float32([1.0, np.inf, np.nan, 2.0])
    assert np.isnan(probes.largest([array], signed=signed)[0])


def test_all_negative_arrays_have_a_negative_signed_maximum():
    assert float(probes.largest([np.float32([-3, -1, -2])], signed=True)[0]) == -1.0


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
