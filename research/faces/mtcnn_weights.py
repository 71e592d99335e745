"""The weights of MTCNN, out of the package `mtcnn`, which is not imported: that needs TensorFlow.

The package (MIT licence, see NOTICE) holds one file for each net: an LZ4 frame around a pickle, as
joblib writes it, of a list of float32 arrays in the order and the layout of Keras. A pickle can run
anything, so a file is loaded only if it is, to the byte, one of those of release 1.0.0, and then by
an unpickler that knows three names.

Source: K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask
Cascaded Convolutional Networks", 2016; weights as in github.com/ipazc/mtcnn.
"""

import hashlib
import importlib.util
import io
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.structs import PyTree, UserError

INSTALL = "pip install --no-deps mtcnn==1.0.0 lz4"

Params = dict[str, dict[str, np.ndarray]]


class Net(NamedTuple):
    """One weight file: its digest, and the layers whose arrays it lists.

    layers: in order; a name with "conv" or "dense" stands for kernel, bias and the slopes of a
    PReLU, any other for a head, kernel and bias.
    """

    sha256: str
    layers: tuple[str, ...]


NETS = {
    "pnet": Net(
        "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
        ("conv_0", "conv_1", "conv_2", "box", "face"),
    ),
    "rnet": Net(
        "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
        ("conv_0", "conv_1", "conv_2", "dense", "box", "face"),
    ),
    "onet": Net(
        "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
        ("conv_0", "conv_1", "conv_2", "conv_3", "dense", "box", "landmarks", "face"),
    ),
}

SHA256 = {name: net.sha256 for name, net in NETS.items()}


def load() -> dict[str, Params]:
    """{"pnet", "rnet", "onet"} -> {layer: {"kernel", "bias"[, "slope"]}}, the params of the modules
    in `research.models.mtcnn`, float32.

    Raises UserError, with the command that helps, if the package or lz4 is not installed or a file
    is not that of release 1.0.0.
    """
    folder = find()
    return {name: to_params(read(folder / f"{name}.lz4", net), net) for name, net in NETS.items()}


def find() -> Path:
    """The folder of the three files in the installed package.

    Raises UserError if the package is not installed.
    """
    spec = importlib.util.find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"faces are found with the weights of the package mtcnn: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "assets" / "weights"


def read(path: Path, net: Net) -> list[np.ndarray]:
    """The arrays of one file, read only if its digest is the known one.

    Raises UserError if it cannot be read, is another, or lz4 is not installed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): {INSTALL}") from None
    if hashlib.sha256(content).hexdigest() != net.sha256:
        raise UserError(f"{path}: is not the file of mtcnn 1.0.0 (SHA-256 differs): {INSTALL}")
    try:
        import lz4.frame
    except ImportError:
        raise UserError(f"{path}: is compressed with lz4, which is missing: {INSTALL}") from None
    return unpickle(lz4.frame.decompress(content))


def to_params(arrays: Sequence[np.ndarray], net: Net) -> Params:
    """The tree of one net from its arrays; the slopes of a PReLU lose their axes of length 1."""
    rest, params = iter(arrays), {}
    for layer in net.layers:
        params[layer] = {"kernel": next(rest), "bias": next(rest)}
        if layer.startswith(("conv", "dense")):
            params[layer]["slope"] = next(rest).reshape(-1)
    return params


def unpickle(content: bytes) -> list[np.ndarray]:
    """The list of arrays in a pickle of joblib's, in which their bytes follow their descriptions.

    Raises pickle.UnpicklingError for a pickle that asks for any name but the three.
    """
    return [_as_array(entry) for entry in _Unpickler(io.BytesIO(content)).load()]


class _Wrapper:
    """Takes the place of joblib's NumpyArrayWrapper, and reads the array that follows it."""

    file: io.BytesIO  # of the pickle; set in a subclass, for the pickle makes the instances
    array: np.ndarray | None = None

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # What joblib does when it is done with the description of an array: a byte that says how
        # many more to skip, and then the array.
        if state.get("numpy_array_alignment_bytes") is not None:
            _ = self.file.seek(self.file.read(1)[0], os.SEEK_CUR)
        shape, dtype = state["shape"], state["dtype"]
        count = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(self.file.read(count * dtype.itemsize), dtype)
        self.array = flat.reshape(shape, order=state["order"]).copy()


class _Unpickler(pickle.Unpickler):
    """Knows joblib's wrapper, numpy.ndarray and numpy.dtype, and nothing else."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._known = {
            ("joblib.numpy_pickle", "NumpyArrayWrapper"): type("_", (_Wrapper,), {"file": file}),
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = (module_name, global_name)
        if name not in self._known:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed here")
        return self._known[name]


def _as_array(entry: PyTree) -> np.ndarray:
    if not isinstance(entry, _Wrapper) or entry.array is None:
        raise pickle.UnpicklingError(f"a {type(entry).__name__} where an array was expected")
    return entry.array
