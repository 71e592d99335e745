"""Export of a trained net to a folder that loads with or without this code.

README.md           the model card
config.json         the resolved config of the run
origin.json         what the net was made from: data, epochs, digest of the config, commit
labels.json         the names of the classes, in the order of the outputs
model.safetensors   the parameters, under keys such as "conv_0/kernel"
checkpoint/         the parameters again, for Orbax
model.jaxexport     the net with its parameters, as a program of `jax.export` (StableHLO)
SHA256SUMS          digests of the files above that are compared when they are read

The program takes images [b, S, S, 3] uint8, as they come out of `faces.crops.crop`, for any b, and
returns probabilities [b, K] float32: the softmax of the net's logits. Where each output is a
sigmoid p of its own, the logits are log p and the probabilities p / sum p, as in Keras's
categorical cross-entropy.

It is compiled where it is loaded, for a CPU, CUDA or a TPU. `models.conv` chooses its forms by the
platform that the program is *written* on: what was written on a CPU computes the same on an
accelerator but pools by comparing slices there, instead of by XLA's own operation; what was written
on an accelerator has XLA's operations everywhere. Forms for a certain number of images have no
place in a program for any. Products are rounded as the key
`matmul_precision` of the config says, which is part of the program.

    import jax
    program = jax.export.deserialize(open("model.jaxexport", "rb").read())
    probabilities = program.call(images)
"""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy
from jax import export as jax_export

from research.models import native
from research.runtime import distributed, files
from research.storage import checkpoint, records
from research.structs import PyTree, UserError
from research.training.step import as_input

PLATFORMS = ("cpu", "cuda", "tpu")
WEIGHTS, PROGRAM = "model.safetensors", "model.jaxexport"
CONFIG, LABELS, CARD = "config.json", "labels.json", "README.md"
ORIGIN = "origin.json"
CHECKPOINT, DIGESTS = "checkpoint", records.DIGESTS
_REMEDY = "export the net again"

T = TypeVar("T")


class Exported(NamedTuple):
    """A net as `load` reads it.

    params: tree of float32 NumPy arrays.  config: of the run.  labels: names of the classes.
    origin: what the net was made from, with the digest of its parameters, "weights_sha256"; the
    digest alone of an export of before it was recorded.
    """

    params: PyTree
    config: dict[str, Any]
    labels: tuple[str, ...]
    origin: dict[str, Any]


def write(
    folder: Path,
    *,
    model: nn.Module,
    params: PyTree,
    config: Mapping[str, Any],
    labels: Sequence[str],
    origin: Mapping[str, Any],
    card: str,
) -> None:
    """Write one net into `folder`, in place of what was exported there before.

    params: of one net, without a seed axis.  config: resolved, as JSON has it; `data.size` is the
    side of the images and `matmul_precision` what its name says.  origin: what the net was made
    from.  card: the text of README.md.
    The folder appears in one move, when everything in it is on the disk.  In an object store an
    earlier export is deleted first, and the digests appear last: a folder without them is not read.
    The first of several processes writes, the others wait for it.
    """

    write_to = functools.partial(
        _write,
        model=model,
        params=params,
        config=config,
        labels=labels,
        origin=origin,
        card=card,
    )

    def everything() -> None:
        if not files.stored(folder):
            files.check_held(folder)
            fresh = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(fresh, ignore_errors=True)
            files.make_folder(fresh)
            write_to(fresh)
            _move(fresh, folder)
            return
        with tempfile.TemporaryDirectory() as here:
            write_to(Path(here))
            files.remove(folder)
            digests = (Path(here) / DIGESTS).read_bytes()
            (Path(here) / DIGESTS).unlink()
            files.copy_tree(Path(here), folder)
            files.replace(folder / DIGESTS, digests)

    distributed.broadcast_from_first(everything)


def _write(
    fresh: Path,
    *,
    model: nn.Module,
    params: PyTree,
    config: Mapping[str, Any],
    labels: Sequence[str],
    origin: Mapping[str, Any],
    card: str,
) -> None:
    """Write the files of a net into an empty folder of this machine."""
    params = jax.tree.map(np.asarray, params)
    flat: dict[str, Any] = dict(flax.traverse_util.flatten_dict(params, sep="/"))
    program = trace(
        model, params, size=config["data"]["size"], precision=config["matmul_precision"]
    )
    outputs = program.out_avals[0].shape[-1]
    if len(labels) != outputs:
        raise ValueError(f"expected a label for each of {outputs} outputs, got {len(labels)}")
    contents = {
        WEIGHTS: safetensors.numpy.save(flat, metadata={"format": "flax"}),
        PROGRAM: bytes(program.serialize()),
        CONFIG: _as_json(dict(config)),
        LABELS: _as_json(list(labels)),
        ORIGIN: _as_json(dict(origin)),
    }
    for name, content in {**contents, CARD: card.encode()}.items():
        files.replace(fresh / name, content)
    sums = {name: records.digest(content) for name, content in contents.items()}
    records.write_digests(fresh, sums)
    with ocp.StandardCheckpointer(multiprocessing_options=checkpoint.by_itself()) as checkpointer:
        checkpointer.save((fresh / CHECKPOINT).absolute(), params)


def trace(model: nn.Module, params: PyTree, *, size: int, precision: str) -> jax_export.Exported:
    """The program of the net: images [b, size, size, 3] uint8 to probabilities [b, K] float32.

    precision: see `sharding.configure`.  The program of equal nets is equal to the byte.
    """

    def probabilities(images: jax.Array) -> jax.Array:
        return jax.nn.softmax(apply(model, params, images))

    batch = jax_export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((*batch, size, size, 3), np.uint8)
    # Otherwise every operation would name the files and lines of the callers, on this machine.
    frames = jax.config.jax_traceback_in_locations_limit  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        with jax.default_matmul_precision(precision), native.unused():
            return jax_export.export(jax.jit(probabilities), platforms=PLATFORMS)(images)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)


def apply(model: nn.Module, params: PyTree, images: jax.Array) -> jax.Array:
    """Logits [B, K] float32 of images [B, S, S, 3] uint8."""
    logits = model.apply({"params": params}, as_input(images))
    assert isinstance(logits, jax.Array)
    return logits


def load(folder: Path) -> Exported:
    """Read what `write` wrote, parameters bit for bit.

    Raises UserError naming the file that is missing, damaged or not the one that was written, or
    the array that holds a number that is not finite.
    """
    config = _read(folder, CONFIG, records.parse_json)
    labels = _read(folder, LABELS, _parse_labels)
    sums = records.read_digests(folder, remedy=_REMEDY)
    origin = _read(folder, ORIGIN, records.parse_json) if ORIGIN in sums else {}
    flat = _read(folder, WEIGHTS, safetensors.numpy.load)
    origin["weights_sha256"] = sums[WEIGHTS]
    for name, array in flat.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{folder / WEIGHTS}: {name} holds a number that is not finite; {_REMEDY}"
            )
    return Exported(flax.traverse_util.unflatten_dict(flat, sep="/"), config, labels, origin)


def load_program(folder: Path) -> jax_export.Exported:
    """The program that `write` wrote; its method `call` takes images [b, S, S, 3] uint8.

    Raises UserError naming the file if it is missing, damaged, or of a version of JAX that this one
    does not understand.
    """
    return _read(folder, PROGRAM, lambda content: jax_export.deserialize(bytearray(content)))


def _read(folder: Path, name: str, parse: Callable[[bytes], T]) -> T:
    """What `parse` makes of a file, which has to be the listed one."""
    sums = records.read_digests(folder, remedy=_REMEDY)
    if name not in sums:
        raise UserError(f"{folder / DIGESTS}: lists no {name}; {_REMEDY}")
    return records.read_listed(folder, name, sums, parse, remedy=_REMEDY)


def _parse_labels(content: bytes) -> tuple[str, ...]:
    labels = json.loads(content)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("expected a list of names")
    return tuple(labels)


def _move(fresh: Path, folder: Path) -> None:
    """A folder that is not empty cannot be replaced: the old one is moved out of the way first."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    files.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
