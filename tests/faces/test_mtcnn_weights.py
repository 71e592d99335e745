"""The weights of MTCNN: read without joblib, and only if they are the known ones."""

import importlib.util
import io
import pickle
import sys
import types

import numpy as np
import pytest

from research.faces import mtcnn_weights
from research.structs import UserError

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("mtcnn") is None, reason="the package mtcnn is not installed"
)


class NumpyArrayWrapper:
    """Looks like joblib's in a pickle."""

    __module__ = "joblib.numpy_pickle"


def joblib_pickle(arrays, *, aligned=True):
    """What joblib.dump writes, without its compression: each description before its array."""

    class Pickler(pickle._Pickler):
        def save(self, obj, save_persistent_id=True):
            if not isinstance(obj, np.ndarray):
                return super().save(obj, save_persistent_id)
            order = "C" if obj.flags.c_contiguous else "F"
            wrapper = NumpyArrayWrapper()
            wrapper.__dict__ |= {"subclass": np.ndarray, "shape": obj.shape, "dtype": obj.dtype}
            wrapper.__dict__ |= {"order": order, "allow_mmap": True}
            wrapper.__dict__ |= {"numpy_array_alignment_bytes": 16 if aligned else None}
            super().save(wrapper, save_persistent_id)
            self.framer.commit_frame(force=True)
            if aligned:
                missing = -(stream.tell() + 1) % 16
                stream.write(bytes([missing, *[255] * missing]))
            stream.write(obj.tobytes(order))

    stream = io.BytesIO()
    Pickler(stream, protocol=4).dump(arrays)
    return stream.getvalue()


@pytest.fixture
def wrapper_of_joblib(monkeypatch):
    """Lets `NumpyArrayWrapper` pass for joblib's class while a pickle is written."""
    module = types.ModuleType("joblib.numpy_pickle")
    module.NumpyArrayWrapper = NumpyArrayWrapper
    monkeypatch.setitem(sys.modules, "joblib", types.ModuleType("joblib"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@needs_package
def test_the_three_nets_have_their_published_numbers_of_parameters():
    found = mtcnn_weights.load()
    counts = {
        net: sum(array.size for layer in layers.values() for array in layer.values())
        for net, layers in found.items()
    }
    assert counts == {"pnet": 6_632, "rnet": 100_178, "onet": 389_040}
    assert found["onet"]["landmarks"]["kernel"].shape == (256, 10)
    assert found["pnet"]["conv_2"]["slope"].shape == (32,)
    arrays = [a for net in found.values() for layer in net.values() for a in layer.values()]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
    assert "mtcnn" not in sys.modules


@needs_package
def test_the_arrays_are_those_that_joblib_reads():
    joblib, frame = pytest.importorskip("joblib"), pytest.importorskip("lz4.frame")
    for name, net in mtcnn_weights.NETS.items():
        path = mtcnn_weights.find() / f"{name}.lz4"
        expected = joblib.load(io.BytesIO(frame.decompress(path.read_bytes())))
        for mine, theirs in zip(mtcnn_weights.read(path, net), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("aligned", [True, False])
def test_arrays_that_follow_their_description_are_read(aligned, wrapper_of_joblib):
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal((3, 4, 5)).astype(np.float32),
        np.asfortranarray(generator.standard_normal((4, 3)).astype(np.float32)),
        generator.integers(0, 9, 7).astype(np.int64),
    ]
    found = mtcnn_weights.unpickle(joblib_pickle(arrays, aligned=aligned))
    for mine, expected in zip(found, arrays, strict=True):
        assert mine.dtype == expected.dtype
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("value", [print, np.float64(1), sys.exit], ids=str)
def test_a_pickle_that_asks_for_any_other_name_is_refused(value):
    with pytest.raises(pickle.UnpicklingError, match="not allowed here"):
        _ = mtcnn_weights.unpickle(pickle.dumps([value]))


def test_a_pickle_without_arrays_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="a int where an array"):
        _ = mtcnn_weights.unpickle(pickle.dumps([1]))


def test_layers_get_their_arrays_in_order():
    net = mtcnn_weights.Net("", ("conv_0", "dense", "face"))
    arrays = [np.full((1, 1, 2), i) for i in range(8)]
    params = mtcnn_weights.to_params(arrays, net)
    numbers = {name: [int(a.flat[0]) for a in layer.values()] for name, layer in params.items()}
    assert numbers == {"conv_0": [0, 1, 2], "dense": [3, 4, 5], "face": [6, 7]}
    assert params["dense"]["slope"].shape == (2,)


def test_another_file_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    def unpack(content):
        raise AssertionError("unpacked")

    monkeypatch.setattr(mtcnn_weights, "unpickle", unpack)
    path = tmp_path / "pnet.lz4"
    _ = path.write_bytes(b"something else")
    with pytest.raises(
        UserError, match=r"pnet\.lz4: is not the file of mtcnn 1\.0\.0.*pip install"
    ):
        _ = mtcnn_weights.read(path, mtcnn_weights.NETS["pnet"])
    with pytest.raises(UserError, match=r"rnet\.lz4: cannot be read \(No such file.*pip install"):
        _ = mtcnn_weights.read(tmp_path / "rnet.lz4", mtcnn_weights.NETS["rnet"])


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^faces .* mtcnn: pip install --no-deps mtcnn==1\.0\.0"):
        _ = mtcnn_weights.load()


@needs_package
def test_without_lz4_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lz4", None)
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(UserError, match=r"pnet\.lz4: .* lz4, which is missing: pip install"):
        _ = mtcnn_weights.load()
