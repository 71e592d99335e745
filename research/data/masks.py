"""Faces with and without masks: a TFDS data set, made once from photographs and their annotations.

`prepare` reads the annotations (`annotations`), cuts the faces out (`ingest`), shares them out by
photograph (`splits`), adds varied copies of the class that has too few to what is trained on, and
writes all of it as a TFDS data set, `masks/<key>/1.0.0`; the key names the files and the settings.
Beside the records lie `about.json` (counts, settings, checksum), `problems.csv`, one line for each
thing that was wrong with the files, and `near_duplicates.csv`.

`load` reads it back. The decoded pixels are kept in one file beside the records and stay there
(`stored`): 12,243 faces of 200 x 200 are 1.5 GB, and nobody needs them all at once.

Importing this module imports `tensorflow_datasets` (0.5 s).
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from research.data import annotations, crops, ingest, splits, store
from research.data.source import DataError
from research.data.stored import Stored
from research.types import Dataset, Face, Problem

VERSION = "1.0.0"
LABELS = ("with_mask", "without_mask", "incorrect")
PROBLEMS, NEAR, ABOUT = "problems.csv", "near_duplicates.csv", "about.json"

_FORMAT = "1"  # another one where the same files and settings shall give another data set
_AT_ONCE = 256  # faces that are decoded or varied at a time


@dataclass(frozen=True)
class Request:
    """What a data set is made from.

    directories: {layout: directory}, see `annotations`.  keep_incorrect: whether masks that are
    worn incorrectly are a third class; they are left out otherwise.  cut: see `ingest`.
    test, score: see `splits.split_by_image`.  balance: up to which share of the largest class the
    others are filled with varied copies, in training; 0 for none.  seed: of split and copies.
    detector: settings of the face detector, which the boxes of `folders` depend on.
    """

    directories: Mapping[str, str]
    keep_incorrect: bool
    cut: ingest.Cut
    test: float
    score: float
    balance: float
    seed: int
    detector: Mapping[str, float]

    def key(self) -> str:
        """A name that changes with any file of the directories and with any setting."""
        settings = {**dataclasses.asdict(self), "format": _FORMAT}
        files = sorted(
            os.path.join(folder, name)
            for directory in self.directories.values()
            for folder, _, names in os.walk(directory)
            for name in names
        )
        settings["files"] = store.key_of(files)
        del settings["directories"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class Faces(NamedTuple):
    """One split: images [N, S, S, 3] uint8 and labels [N] int32, and where each face comes from.

    sources: [N] layouts, as "voc".  photos: [N] paths.  synthetic: [N] bool, varied copies.
    """

    data: Dataset
    sources: np.ndarray
    photos: np.ndarray
    synthetic: np.ndarray


class Masks(NamedTuple):
    """The data set: {split: its faces}, the names of the labels, what `about.json` says, where."""

    splits: Mapping[str, Faces]
    names: tuple[str, ...]
    about: Mapping[str, Any]
    folder: Path


class Example(NamedTuple):
    """One record: a face as PNG, and where it comes from."""

    png: bytes
    face: Face
    synthetic: bool


class Plan(NamedTuple):
    """Which faces, by their place in the chunks, make up the splits, copies last.

    places: {split: [(chunk, row, number of the copy or -1)]}.
    """

    chunks: Sequence[Path]
    places: Mapping[str, Sequence[tuple[int, int, int]]]
    names: tuple[str, ...]
    request: Request
    about: Mapping[str, Any]
    problems: Sequence[Problem]
    near: Sequence[tuple[str, str, int]]


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The TFDS builder of one plan; its configuration is named by the key of the request."""

    name = "masks"
    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, plan: Plan, key: str, **settings: Any) -> None:
        self._plan = plan
        config = tfds.core.BuilderConfig(name=key, version=VERSION)
        super().__init__(config=config, file_format="array_record", **settings)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self._plan.request.cut.size
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=self._plan.names),
                "source": tfds.features.ClassLabel(names=annotations.LAYOUTS),
                "photo": tfds.features.Text(),
                "box": tfds.features.Tensor(shape=(4,), dtype=np.int32),
                "synthetic": tfds.features.Scalar(np.bool_),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Faces with and without masks, cut out of annotated photographs.",
            features=features,
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the order is the plan's
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        del dl_manager
        # TFDS writes into a temporary folder until everything is there; so does this.
        folder = Path(self.data_dir)
        _write_csv(folder / PROBLEMS, Problem.__dataclass_fields__, self._plan.problems)
        _write_csv(folder / NEAR, ("image", "other", "bits"), self._plan.near)
        _ = (folder / ABOUT).write_text(json.dumps(self._plan.about, indent=2))
        return {split: self._generate_examples(split) for split in splits.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Any]]:
        digest = hashlib.sha256()
        for i, example in enumerate(_examples(self._plan, split)):
            assert example.face.box is not None
            digest.update(_digested(example.png, example.face.label))
            yield (
                i,
                {
                    "image": io.BytesIO(example.png),
                    "label": example.face.label,
                    "source": example.face.source,
                    "photo": example.face.image,
                    "box": np.array(dataclasses.astuple(example.face.box), np.int32),
                    "synthetic": example.synthetic,
                },
            )
        _ = (Path(self.data_dir) / f"{split}.sha256").write_text(digest.hexdigest())


def prepare(
    request: Request,
    tfds_dir: str,
    find_faces: Callable[[], ingest.FindFaces],
    say: Callable[[str], None],
) -> Masks:
    """The data set of a request: read, if it was made before, else made and read.

    tfds_dir: "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    find_faces: makes the detector, if one is needed; see `ingest.ingest`.
    Raises DataError for directories that cannot be used, if no face is left, and UserError for
    parts that cannot be had (`splits.split_by_image`).  A preparation that was killed goes on.
    """
    root = Path(tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    home = root.expanduser() / "masks"
    key = request.key()
    folder = home / key / VERSION
    if not folder.is_dir():
        with store.locked(home / f".{key}.lock", "the faces", say):
            if not folder.is_dir():
                _make(request, root.expanduser(), key, find_faces, say)
    return load(folder, say)


def load(folder: Path, say: Callable[[str], None]) -> Masks:
    """Read a prepared data set back: its images stay on the disk.

    Raises DataError naming the folder if it is damaged: delete it, and it will be made again.
    """
    try:
        about = json.loads((folder / ABOUT).read_text())
        builder: Any = tfds.builder_from_directory(folder)
        digests = {split: (folder / f"{split}.sha256").read_text() for split in splits.SPLITS}
        read = {
            split: _read_split(builder, folder, split, digests[split], say) for split in digests
        }
    except DataError:
        raise
    except Exception as error:  # damage surfaces as any type, from three libraries
        raise DataError(
            f"{folder} cannot be read ({type(error).__name__}: {error}); delete it and the faces "
            "will be prepared again"
        ) from error
    about["sha256"] = hashlib.sha256("".join(digests.values()).encode()).hexdigest()
    return Masks(read, tuple(builder.info.features["label"].names), about, folder)


def _make(
    request: Request,
    root: Path,
    key: str,
    find_faces: Callable[[], ingest.FindFaces],
    say: Callable[[str], None],
) -> None:
    found, problems, counts = _annotated(request, say)
    work = root / "masks" / f".work-{key}"
    finder = find_faces() if any(face.box is None for face in found) else None
    chunks = ingest.ingest(found, request.cut, work, finder, say)
    plan = _plan(request, chunks, problems, counts)
    for leftover in (root / "masks" / key).glob(f"incomplete.*_{VERSION}"):
        shutil.rmtree(leftover, ignore_errors=True)
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of configurations that are not its own
    say(f"writing {sum(map(len, plan.places.values())):,} faces to {root / 'masks' / key}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder = Builder(plan=plan, key=key, data_dir=root)
            builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"{root / 'masks' / key} cannot be written: {error}") from error
    shutil.rmtree(work, ignore_errors=True)


def _annotated(
    request: Request, say: Callable[[str], None]
) -> tuple[list[Face], list[Problem], dict[str, Any]]:
    """All faces that are to be cut, by source and photograph; the problems so far; the counts."""
    faces: list[Face] = []
    problems: list[Problem] = []
    annotated: dict[str, dict[str, int]] = {}
    left_out: dict[str, dict[str, int]] = {}
    for layout in annotations.LAYOUTS:
        if layout not in request.directories:
            continue
        read = annotations.read(request.directories[layout], layout)
        faces += read.faces
        problems += read.problems
        annotated[layout] = dict(Counter(face.label for face in read.faces))
        left_out[layout] = dict(read.left_out)
        shown = ", ".join(f"{n:,} {label}" for label, n in sorted(annotated[layout].items()))
        say(f"{layout}: {shown}; {len(read.problems):,} problems in {request.directories[layout]}")
    if not request.keep_incorrect:
        faces = [face for face in faces if face.label != "incorrect"]
    same = annotations.duplicates(dict.fromkeys(face.image for face in faces))
    for image, first in same.items():
        problems.append(Problem(image, f"has the same bytes as {first}", "left out"))
    faces = [face for face in faces if face.image not in same]
    if not faces:
        where = ", ".join(request.directories.values())
        raise DataError(f"no face with a usable label and picture was found in {where}")
    return faces, problems, {"annotated": annotated, "left_out": left_out}


def _plan(
    request: Request,
    chunks: Sequence[Path],
    problems: Sequence[Problem],
    counts: Mapping[str, Any],
) -> Plan:
    """Which face goes where, and everything that there is to say about it."""
    read = [ingest.read_rows(path) for path in chunks]
    rows = [(c, i, row) for c, chunk in enumerate(read) for i, row in enumerate(chunk.rows)]
    faces = [row.face for _, _, row in rows]
    if not faces:
        raise DataError("no face is left: see what was wrong above, or give a smaller min_side")
    split_of = splits.split_by_image(
        faces, test=request.test, score=request.score, seed=request.seed
    )
    places: dict[str, list[tuple[int, int, int]]] = {split: [] for split in splits.SPLITS}
    for chunk, i, row in rows:
        places[split_of[row.face.image]].append((chunk, i, -1))
    label_of = {(chunk, i): row.face.label for chunk, i, row in rows}
    places["train"] += _copies(places["train"], label_of, request)
    prints = {row.face.image: row.print for _, _, row in rows}
    near = splits.near_duplicates(prints, split_of)
    every = [*problems, *(problem for chunk in read for problem in chunk.problems)]
    source_of = {(chunk, i): row.face.source for chunk, i, row in rows}
    about = {
        **counts,
        "too_small": sum(chunk.small for chunk in read),
        "usable": _count((face.source, face.label) for face in faces),
        "splits": {
            split: _count((source_of[c, i], label_of[c, i]) for c, i, copy in some if copy < 0)
            for split, some in places.items()
        },
        "copies": _count(
            (source_of[c, i], label_of[c, i]) for c, i, n in places["train"] if n >= 0
        ),
        "problems": len(every),
        "near_duplicates": len(near),
        "request": dataclasses.asdict(request),
    }
    names = tuple(name for name in LABELS if name in set(label_of.values()))
    return Plan(chunks, places, names, request, about, every, near)


def _copies(
    places: Sequence[tuple[int, int, int]],
    label_of: Mapping[tuple[int, int], str],
    request: Request,
) -> list[tuple[int, int, int]]:
    """Places of the faces to be varied, each as often as the others of its class but for one."""
    of_label: dict[str, list[tuple[int, int]]] = {}
    for chunk, i, _ in places:
        of_label.setdefault(label_of[chunk, i], []).append((chunk, i))
    most = max(map(len, of_label.values()), default=0)
    found: list[tuple[int, int, int]] = []
    generator = np.random.Generator(np.random.PCG64(request.seed))
    for label in sorted(of_label):
        missing = round(request.balance * most) - len(of_label[label])
        order = generator.permutation(len(of_label[label]))
        for n in range(max(missing, 0)):
            turn, position = divmod(n, len(order))
            found.append((*of_label[label][order[position]], turn))
    return sorted(found)


def _count(pairs: Any) -> dict[str, dict[str, int]]:
    """{source: {label: how often}}."""
    counts: dict[str, dict[str, int]] = {}
    for (source, label), count in sorted(Counter(pairs).items()):
        counts.setdefault(source, {})[label] = count
    return counts


def _examples(plan: Plan, split: str) -> Iterator[Example]:
    """The faces of a split, and the varied copies, in the order of the plan."""
    places = plan.places[split]
    with ThreadPoolExecutor(ingest.cores()) as pool:
        start = 0
        while start < len(places):
            chunk = places[start][0]
            end = start
            while end < len(places) and places[end][0] == chunk:
                end += 1
            part = places[start:end]
            rows = ingest.read_rows(plan.chunks[chunk]).rows
            pngs = ingest.read_pngs(plan.chunks[chunk], [i for _, i, _ in part])
            made = pool.map(lambda png, place: _varied(png, place, plan.request.seed), pngs, part)
            for (_, i, copy), png in zip(part, made, strict=True):
                yield Example(png, rows[i].face, copy >= 0)
            start = end


def _varied(png: bytes, place: tuple[int, int, int], seed: int) -> bytes:
    """A face as it is, or the copy of that number."""
    if place[2] < 0:
        return png
    stream = np.random.SeedSequence((seed, *place))
    generator = np.random.Generator(np.random.PCG64(stream))
    return ingest.encode(crops.vary(ingest.decode(png), generator))


def _digested(png: bytes, label: str) -> bytes:
    """What the checksum of a split is made of."""
    return hashlib.sha256(png + label.encode()).digest()


def _read_split(
    builder: Any, folder: Path, split: str, digest: str, say: Callable[[str], None]
) -> Faces:
    """The faces of a split, from their decoded pixels, which are made and checked if need be."""
    rows, pixels = folder / f"{split}.npz", folder / f"{split}.u8"
    count = builder.info.splits[split].num_examples if split in builder.info.splits else 0
    shape = (count, *builder.info.features["image"].shape)
    if not rows.exists():
        if split == "train":
            say(f"decoding {count:,} faces of {folder} (once)")
        _decode_split(builder, folder, split, digest)
    with rows.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        tables = {name: stored[name] for name in ("labels", "sources", "photos", "synthetic")}
        expected = str(stored["pixels"])
    with pixels.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            rows.unlink()
            raise DataError(f"{pixels} is damaged; start again, and it will be made again")
    images: Any = Stored(pixels, shape)
    data = Dataset(images=images, labels=tables["labels"])
    return Faces(data, tables["sources"], tables["photos"], tables["synthetic"])


def _decode_split(builder: Any, folder: Path, split: str, digest: str) -> None:
    """Write the pixels of a split, and after them the table that says that they are there."""
    source: Any = []
    if split in builder.info.splits:
        skip = {"image": tfds.decode.SkipDecoding()}
        source = builder.as_data_source(split, decoders=skip)
    names = builder.info.features["label"].names
    found, pixels = hashlib.sha256(), hashlib.sha256()
    tables: dict[str, list[Any]] = {"labels": [], "sources": [], "photos": [], "synthetic": []}
    temporary = folder / f".{split}.tmp"
    with temporary.open("wb") as file, ThreadPoolExecutor(ingest.cores()) as pool:
        for start in range(0, len(source), _AT_ONCE):
            part = source.__getitems__(range(start, min(start + _AT_ONCE, len(source))))
            for example, image in zip(
                part, pool.map(lambda e: ingest.decode(e["image"]), part), strict=True
            ):
                found.update(_digested(example["image"], names[example["label"]]))
                pixels.update(image.tobytes())
                _ = file.write(image.tobytes())
                tables["labels"].append(example["label"])
                tables["sources"].append(annotations.LAYOUTS[example["source"]])
                tables["photos"].append(example["photo"].decode())
                tables["synthetic"].append(example["synthetic"])
        file.flush()
        os.fsync(file.fileno())
    if found.hexdigest() != digest:
        raise DataError(f"{folder}: the records of {split} differ from what was written")
    os.replace(temporary, folder / f"{split}.u8")
    arrays = {
        "labels": np.array(tables["labels"], np.int32),
        "sources": np.array(tables["sources"], np.str_),
        "photos": np.array(tables["photos"], np.str_),
        "synthetic": np.array(tables["synthetic"], bool),
        "pixels": np.array(pixels.hexdigest()),
    }
    with (folder / f".{split}.npz.tmp").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(folder / f".{split}.npz.tmp", folder / f"{split}.npz")


def _write_csv(path: Path, header: Any, rows: Sequence[Any]) -> None:
    # Names on a disk need not be UTF-8.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(list(header))
        for row in rows:
            writer.writerow(dataclasses.astuple(row) if isinstance(row, Problem) else row)
