"""MNIST and CIFAR-10 prepared by TensorFlow Datasets (TFDS), without TensorFlow.

A prepared data set is read from its folder below the TFDS directory. Where there is none, it is
prepared from the published files: those in a directory that the user names, those in
`downloads/manual`, or those downloaded into that. The builders keep the name, version, features and
place on disk of the stock ones, so that either reads what the other has written as array_record.

The stock builders unpack and decode with TensorFlow; here NumPy and Pillow do. TFDS is imported
where it is used: that takes 0.5 s, and what is cached is read without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from research.data import cache, cifar10, cifar10_batches, idx, image_files
from research.data.provenance import PUBLISHED, Arrays, DataError, Loaded, Unavailable, verify
from research.runtime import files
from research.structs import one_line

VERSIONS = {"mnist": "3.0.1", "cifar10": "3.0.2"}
CONNECT_S = 5.0  # for a server to answer, and between two parts of a file
# SHA-256 of the published files by the address they are downloaded from.
DOWNLOADS = {
    "mnist": {
        f"{idx.URL}train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        f"{idx.URL}train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        f"{idx.URL}t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        f"{idx.URL}t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
    "cifar10": {
        f"https://www.cs.toronto.edu/~kriz/{cifar10_batches.ARCHIVE}": (
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
        ),
    },
}
_CACHE = "arrays.npz"
_DIGEST = "sha256.txt"  # beside the records: the checksum of what they were made from
_CHUNK = 5_000  # examples read at a time: few enough to stay small, many enough to be fast


def load(
    dataset: str, tfds_dir: str, directory: str, download: bool, say: Callable[[str], None]
) -> Loaded:
    """The cached arrays, else those of the prepared data set, else those that are prepared now.

    dataset: "mnist" or "cifar10".  tfds_dir: "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    directory: where the published files lie; "" for `downloads/manual` or the network.
    Raises Unavailable if there is no way to have them, DataError if they are not what they
    should be.
    """
    root = files.locate(tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    version = root / dataset / VERSIONS[dataset]
    if not os.path.isdir(version):
        directory = directory or str(_obtain(dataset, root, download, say))
        _ = _find(dataset, directory)  # before anything is written
    source = f"TFDS {dataset}/{VERSIONS[dataset]} in {root.resolve()}"

    def prepare_and_read() -> Loaded:
        if not os.path.isdir(version):
            say(f"preparing {PUBLISHED[dataset].name} in {root} (once)")
            prepare(dataset, root, directory)
        say(f"reading {PUBLISHED[dataset].name} back from {version} (once, a few seconds)")
        return read(dataset, version, source)

    return cache.cached(
        version / _CACHE,
        prepare_and_read,
        dataset=dataset,
        source=source,
        lock=version.parent / ".lock",
        say=say,
        sha256=PUBLISHED[dataset].sha256,
    )


def prepare(dataset: str, root: Path, directory: str | Path) -> None:
    """Write a data set below the TFDS directory `root`, from the published files in `directory`.

    Call it under a lock: what killed preparations left behind is removed first. Raises DataError if
    the files are damaged or not those published, Unavailable if `root` cannot be written.
    """
    import tensorflow_datasets

    builders = tensorflow_datasets.image_classification
    stock: Any = builders.MNIST if dataset == "mnist" else builders.Cifar10
    arrays = _published_arrays(dataset, directory)
    sha256 = verify(dataset, arrays, str(directory), "published")[2].sha256

    class Builder(stock, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        name = dataset

        def _split_generators(self, dl_manager: Any) -> Any:
            if dataset == "cifar10":
                self.info.features["label"].names = list(PUBLISHED[dataset].classes)
            # TFDS writes into a temporary folder until everything is there; so does this.
            _ = (Path(self.data_dir) / _DIGEST).write_text(sha256)
            return {split: _examples(dataset, arrays, split) for split in ("train", "test")}

    for leftover in (root / dataset).glob(f"incomplete.*_{VERSIONS[dataset]}"):
        shutil.rmtree(leftover, ignore_errors=True)
    tensorflow_datasets.disable_progress_bar()
    config = tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder = Builder(data_dir=root, file_format="array_record")
            builder.download_and_prepare(download_config=config)
    except OSError as error:
        raise Unavailable(
            f"{PUBLISHED[dataset].name} cannot be prepared in {root}: {one_line(error)}"
        ) from error


def read(dataset: str, version: Path, source: str) -> Loaded:
    """A prepared data set in the order in which it was published.

    version: its folder, as `prepare` or the stock builder has written it in array_record.
    source: for `Source.source`.
    Raises DataError if it is damaged, in another format or not the data set that was published.
    """
    import tensorflow_datasets

    published = PUBLISHED[dataset]
    remedy = f"move this directory away and {published.name} will be prepared again"
    arrays: dict[str, np.ndarray] = {}
    try:
        builder: Any = tensorflow_datasets.builder_from_directory(version)
        file_format = builder.info.file_format.value
        if file_format != "array_record":
            raise DataError(
                f"{version} is stored as {file_format}, expected array_record; name another TFDS "
                f"directory, or {remedy}"
            )
        skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
        for split in ("train", "test"):
            examples = builder.as_data_source(split, decoders=skip)
            images = np.empty((len(examples), *published.shape), np.uint8)
            labels = np.empty(len(examples), np.uint8)
            order = _published_order(split, len(examples))
            for start in range(0, len(examples), _CHUNK):
                numbers = order[start : start + _CHUNK]
                chunk = examples.__getitems__(range(start, start + len(numbers)))
                for number, example in zip(numbers, chunk, strict=True):
                    images[number] = image_files.read_image(
                        example["image"], formats=("PNG",), shape=published.shape
                    )
                    labels[number] = example["label"]
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    except DataError:
        raise
    except Exception as error:  # damage surfaces as any type, from four libraries
        raise DataError(
            f"{version} cannot be read ({type(error).__name__}: {one_line(error)}); {remedy}"
        ) from error
    digest = version / _DIGEST
    expected = published.sha256 or (digest.read_text() if os.path.isfile(digest) else "")
    loaded = verify(dataset, arrays, source, "published" if expected else "unknown")
    if expected and loaded[2].sha256 != expected:
        raise DataError(
            f"{version} does not hold {published.name} as published (the checksum differs); "
            f"{remedy}"
        )
    return loaded


def _published_order(split: str, count: int) -> list[int]:
    """The index in the published files of each example, in the order in which TFDS stores them.

    TFDS sorts examples by the MD5 of the name of the split and their key, here their index. Another
    order than TFDS's would be noticed by the checksum of the whole.
    """
    start = hashlib.md5(split.encode(), usedforsecurity=False)

    def digest(index: int) -> bytes:
        md5 = start.copy()
        md5.update(str(index).encode())
        return md5.digest()

    return sorted(range(count), key=digest)


def _examples(dataset: str, arrays: Arrays, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        # A Pillow image, because TFDS encodes arrays with TensorFlow.
        example = {"image": Image.fromarray(image), "label": int(label)}
        yield index, example | ({"id": f"{split}_{index:05d}"} if dataset == "cifar10" else {})


def _find(dataset: str, directory: str | Path) -> Any:
    return (idx.find_files if dataset == "mnist" else cifar10_batches.find)(directory)


def _published_arrays(dataset: str, directory: str | Path) -> Arrays:
    """The four arrays of the published files; raises DataError for any other files."""
    paths = _find(dataset, directory)
    if dataset == "mnist":
        arrays = idx.read_files(paths)
        idx.check_md5(arrays, paths)
        return arrays
    arrays, published = cifar10_batches.read(paths)
    if not published:
        raise DataError(
            f"{paths[0].parent}: the six batches have not the MD5 of CIFAR-10 as published; "
            f"download {cifar10_batches.ARCHIVE} again"
        )
    return arrays


def _obtain(dataset: str, root: Path, allowed: bool, say: Callable[[str], None]) -> Path:
    """TFDS's folder for files that users put there, with the published files in it.

    Those that are missing are downloaded, if that is allowed. Raises Unavailable.
    """
    manual = root / "downloads" / "manual"
    with contextlib.suppress(DataError):
        _ = _find(dataset, manual)
        return manual
    try:
        if not allowed:
            raise OSError("not allowed")
        for url, sha256 in DOWNLOADS[dataset].items():
            path = manual / url.rpartition("/")[2]
            if not os.path.isfile(path):
                fetch(url, path, sha256, say)
    except (OSError, http.client.HTTPException) as error:
        expected = idx.EXPECTED if dataset == "mnist" else cifar10.EXPECTED
        raise Unavailable(
            f"the full {PUBLISHED[dataset].name} is not in {root}, and it cannot be downloaded "
            f"({one_line(error)}); name a directory with data.dir that holds {expected}; or put "
            f"{' and '.join(url.rpartition('/')[2] for url in DOWNLOADS[dataset])} into {manual}"
        ) from None
    return manual


def fetch(url: str, path: Path, sha256: str, say: Callable[[str], None]) -> None:
    """Download `url` to `path`, in one move after its digest has been checked.

    Raises OSError or HTTPException if it cannot be had: no connection or no further part within
    `CONNECT_S`, an answer other than the file, another digest.
    """
    with urllib.request.urlopen(url, timeout=CONNECT_S) as response:
        say(f"downloading {url}")
        with cache.locked(path.parent / ".lock", path.name, say):
            partial, digest = path.with_name(f"{path.name}.part"), hashlib.sha256()
            with partial.open("wb") as file:
                while part := response.read(2**20):
                    digest.update(part)
                    _ = file.write(part)
            if digest.hexdigest() != sha256:
                partial.unlink()
                raise OSError(f"{url}: SHA-256 {digest.hexdigest()}, expected {sha256}")
            os.replace(partial, path)
