"""MNIST and CIFAR-10 by name: `load` finds them in whatever form they are there.

Always the same arrays in the same order, and always with a `Source` that says what they are.
"""

from __future__ import annotations

from collections.abc import Callable

from research.data import cifar10, mnist, synthetic, tfds
from research.data.provenance import (
    PUBLISHED,
    DataError,
    Loaded,
    Source,
    Unavailable,
    check_request,
    describe,
)

__all__ = ["CLASSES", "SOURCES", "DataError", "Loaded", "Source", "load"]

# By the name of the data set: where it can be taken from, and what its labels mean.
SOURCES = {name: published.sources for name, published in PUBLISHED.items()}
CLASSES = {name: published.classes for name, published in PUBLISHED.items()}


def load(
    name: str,
    *,
    directory: str = "",
    source: str = "auto",
    tfds_dir: str = "",
    download: bool = True,
    say: Callable[[str], None] = print,
) -> Loaded:
    """The training set, the test set and what they are.

    Images [N, H, W, C] uint8, [28, 28, 1] for "mnist" and [32, 32, 3] for "cifar10"; labels [N]
    int32 from 0 to 9. NumPy arrays, in the published order except for pictures
    (`cifar10_pictures`) and the sample (`mnist`).

    directory: holds the files; "" for none.
    source: "auto" takes the first of `directory`, a prepared TFDS data set, one prepared from the
        published files in TFDS's manual folder or from a download and, of MNIST, the sample.
        Another name (`SOURCES`) takes that one or fails. With "tfds", `directory` is where the data
        set is prepared from.
    tfds_dir: "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    download: whether the network may be tried; a server that does not answer costs
        `tfds.CONNECT_S` seconds, a name server that does not its own time-out.
    say: receives a line before anything slow and for every decision a user should know of.
    Raises DataError for an unknown name or source, and for everything that is missing, damaged, or
    not what it should be.
    """
    check_request(name, source, directory)
    if source == "synthetic":
        train, test = synthetic.digits() if name == "mnist" else synthetic.objects()
        return train, test, describe(name, train, test, "synthetic", name="synthetic")
    if source == "sample":
        return mnist.load_sample()
    if source not in ("auto", "tfds") and not directory:
        expected = mnist.EXPECTED if name == "mnist" else cifar10.EXPECTED
        raise DataError(f"data source {source!r} needs a directory with {expected}")
    if directory and source != "tfds":
        if name == "mnist":
            return mnist.load_files(directory, source, say)
        return cifar10.load_files(directory, source, say)
    try:
        return tfds.load(name, tfds_dir, directory, download, say)
    except Unavailable as error:
        if name != "mnist" or source == "tfds":
            raise
        say(f"{error}. Going on with the sample of real MNIST")
        return mnist.load_sample()
