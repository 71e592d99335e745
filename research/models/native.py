"""Convolutions of our own for a CPU: native.cc, compiled by the C++ compiler of the machine.

XLA's convolution is far from what a CPU can do where it computes the gradient of a kernel, and the
forms of `conv_cpu` are a part of the way (`python -m benchmarks.cnn`, `benchmarks.layers_cnn`).
These read images where they lie and keep sums in registers. They are asked for by
`--native_convolutions`, need a C++ compiler and nothing else, and agree with XLA's within rounding.
A value depends on its image alone, and the order of every sum on the shapes, not on the threads.

Layouts: images [B, H, W, C], kernels [height, width, C in, C out].
"""

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from research.runtime import files, sharding
from research.structs import one_line

Pads = tuple[tuple[int, int], tuple[int, int]]  # rows or columns before and after, of each axis
SOURCE = Path(__file__).with_suffix(".cc")
_TARGETS = {"native_convolve": "Convolve", "native_kernel_gradient": "KernelGradient"}
# Nothing that gives up the rules of IEEE 754, which could do so for the whole process. Products may
# be added without a rounding between.
_FLAGS = "-std=c++17 -O3 -march=native -ffp-contract=fast -fno-math-errno -shared -fPIC -w".split()
# Entries of a kernel above which XLA's convolution, not its gradient, is as fast or faster. On two
# cores it is equal at 73,728, 5 % faster at 147,456 and 20 % at 589,824.
_LARGE = 2**17
_in_use = False
_registered: set[str] = set()


def enable(cache: str) -> str:
    """Compile, load and use them from now on; returns a sentence that says whether, or why not.

    cache: a directory, as a user names it, where the compiled library is kept under a name of all
    that it depends on; "" for nowhere, as where nothing can be written.
    Programs that were traced before stay as they are.
    """
    global _in_use
    if jax.default_backend() != "cpu":
        return "convolutions are XLA's: the devices are no CPU"
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    try:
        with tempfile.TemporaryDirectory() as passing:
            folder = files.locate(cache or passing)
            if files.stored(folder) or not files.can_write(folder):
                folder = Path(passing)
            library = ctypes.CDLL(str(_compile(compiler, folder)))
    except subprocess.CalledProcessError as error:
        return f"convolutions are XLA's: {compiler[0]} failed ({one_line(error.stderr)[:300]})"
    except OSError as error:
        return (
            f"convolutions are XLA's: {one_line(error)}; install a C++ compiler, or name one by "
            "the variable CXX"
        )
    for target, symbol in _TARGETS.items():
        if target not in _registered:  # which JAX does once in a process
            handler = jax.ffi.pycapsule(getattr(library, symbol))
            jax.ffi.register_ffi_target(target, handler, platform="cpu")
            _registered.add(target)
    _in_use = True
    return "convolutions are our own, compiled for this CPU"


def _compile(compiler: Sequence[str], cache: Path) -> Path:
    """The library of this source, compiler, JAX and processor; compiled if it is not there.

    Raises OSError and subprocess.CalledProcessError.
    """

    def run(*words: str) -> str:
        command = [*compiler, *_FLAGS, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    # What the compiler defines tells its version and the instructions of the processor.
    defined = run("-dM", "-E", "-x", "c++", os.devnull)
    parts = (SOURCE.read_text(), " ".join(_FLAGS), defined, jax.__version__)
    path = cache / f"native-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:  # other processes do the same
            made = Path(folder) / path.name
            _ = run(f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(made))
            _ = made.replace(path)
    return path.resolve()  # a name without a directory would be looked for elsewhere


def settings() -> dict[str, str]:
    """What decides bits beside the environment, for `versions.json`."""
    return {"--native_convolutions": "on"} if _in_use else {}


@contextlib.contextmanager
def unused() -> Iterator[None]:
    """What is traced inside is XLA's, as a program that is taken to other machines has to be."""
    global _in_use
    before, _in_use = _in_use, False
    try:
        yield
    finally:
        _in_use = before


def fit(images: jax.Array, kernel: tuple[int, ...]) -> bool:
    """Whether they are in use and know such images; a batch that devices share is XLA's to cut."""
    return (
        _in_use
        and images.dtype == jnp.float32
        and images.size > 0
        and min(kernel) > 0
        and sharding.sharing() == 1
    )


def fit_values(images: jax.Array, kernel: tuple[int, ...]) -> bool:
    """Whether the convolution itself gains as well, and not its gradients alone."""
    return fit(images, kernel) and math.prod(kernel) <= _LARGE


def convolve(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolution with stride 1 of images with zeros around them, [B, H', W', C out]; float32."""
    call = functools.partial(_convolve, pads=pads)
    batched = custom_vmap(call)

    @batched.def_vmap
    def _(size: int, axes: Sequence[bool], images: jax.Array, kernel: jax.Array):
        if axes[1]:  # a kernel for each, one after the other
            return jax.vmap(call, in_axes=tuple(0 if axis else None for axis in axes))(
                images, kernel
            ), True
        out = convolve(images.reshape(-1, *images.shape[2:]), kernel, pads)
        return out.reshape(size, -1, *out.shape[1:]), True

    return batched(images, kernel)


def _convolve(images: jax.Array, kernel: jax.Array, *, pads: Pads) -> jax.Array:
    batch, *sides = images.shape[:3]
    out = [
        side + sum(around) - size + 1
        for side, around, size in zip(sides, pads, kernel.shape[:2], strict=True)
    ]
    return _call("native_convolve", (batch, *out, kernel.shape[3]), images, kernel, pads)


def kernel_gradient(
    images: jax.Array, cotangent: jax.Array, shape: tuple[int, ...], pads: Pads
) -> jax.Array:
    """[height, width, C in, C out] from the images without their zeros; float32."""
    return _call("native_kernel_gradient", shape, images, cotangent, pads)


def _call(
    target: str, shape: tuple[int, ...], first: jax.Array, second: jax.Array, pads: Pads
) -> jax.Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(target, result, vmap_method="sequential")
    return call(first, second, pads=np.array(pads, np.int64).reshape(-1))
