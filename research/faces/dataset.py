"""Faces with and without masks: a TFDS data set, made once from photographs and their annotations.

`prepare` reads the annotations (`annotations`), cuts the faces out (`ingest`), shares them out by
photograph (`splits`), adds augmented copies of the class with too few to the training split, and
writes all of it as a TFDS data set, `masks/<key>/2.0.0`; the key names the files and the settings.
Beside the records lie `about.json` (counts, settings, checksum), `problems.csv`, one line for each
thing that was wrong with the files, and `near_duplicates.csv`.

Every face that the annotations name is in exactly one place: in a split, among those that a setting
leaves out, which `about.json` counts, or in a line of `problems.csv`.

`load` reads it back. The decoded pixels are kept in one file beside the records and stay there
(`stored`): 12,243 faces of 200 x 200 are 1.5 GB, and nobody needs them all at once.

Importing this module imports `tensorflow_datasets` (0.5 s).
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from research.data import cache
from research.data.lazy_images import LazyImages
from research.data.provenance import DataError
from research.faces import annotations, crops, ingest, splits
from research.faces.annotations import Face, Problem, Settings
from research.runtime import files, progress
from research.structs import Dataset, printable

VERSION = "2.0.0"
LABELS = ("with_mask", "without_mask", "incorrect")
PROBLEMS, NEAR, ABOUT = "problems.csv", "near_duplicates.csv", "about.json"

_FORMAT = "5"  # another one where the same files and settings shall give another data set
_AT_ONCE = 256  # faces that are decoded, augmented or written at a time
_KINDS = 20  # of problems that about.json lists, the commonest; problems.csv names all of them
_FACES_PER_FILE = 4096  # of records; a face of 200 x 200 is about 60 kB


@dataclass(frozen=True)
class Request:
    """Settings of a data set of faces.

    directories: {layout: directory}, see `annotations`.  keep_incorrect: whether masks that are
    worn incorrectly are a third class; they are left out otherwise.  cut: see `ingest`.
    val, test: see `splits.split_by_image`.  balance: up to which share of the largest class the
    others are filled with augmented copies, in training; 0 for none.  seed: of split and copies.
    detector: settings of the face detector, which the boxes of `folders` depend on.
    reading: what the user says about the files.
    """

    directories: Mapping[str, str]
    keep_incorrect: bool
    cut: ingest.Cut
    val: float
    test: float
    balance: float
    seed: int
    detector: Mapping[str, float | str]
    reading: Settings = field(default_factory=Settings)

    def key(self) -> str:
        """A name that changes with any file of the directories and with any setting."""
        settings = {**dataclasses.asdict(self), "format": _FORMAT}
        settings["directories"] = {
            layout: cache.key_of(_files(directory))
            for layout, directory in self.directories.items()
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class Faces(NamedTuple):
    """One split: images [N, S, S, 3] uint8 and labels [N] int32, and where each face comes from.

    sources: [N] layouts, as "voc".  photos: [N] paths.  synthetic: [N] bool, augmented copies.
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
    """One record of the data set: a face and where its crop lies, in which row of which chunk.

    copy: number of the augmented copy of it that this is; -1 for the face itself.
    """

    chunk: int
    row: int
    copy: int
    face: Face


class Plan(NamedTuple):
    """The records of the data set, and everything else that is written.

    examples: {split: its records in their order, copies last}.
    """

    chunks: Sequence[Path]
    examples: Mapping[str, Sequence[Example]]
    names: tuple[str, ...]
    request: Request
    about: Mapping[str, Any]
    problems: Sequence[Problem]
    near: Sequence[tuple[str, str, int]]


def prepare(
    request: Request,
    tfds_dir: str,
    find_faces: Callable[[], ingest.FindFaces],
    say: Callable[[str], None],
) -> Masks:
    """The data set of a request, prepared now if it was not before.

    tfds_dir: "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    find_faces: makes the detector, if one is needed; see `ingest.ingest`.
    Raises DataError for directories that cannot be used, if no face is left or if `tfds_dir` cannot
    be written, and UserError for parts that cannot be had (`splits.split_by_image`).  A preparation
    that was killed goes on; of two processes the second waits for the first.
    """
    root = files.locate(tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    directories = {layout: _absolute(given) for layout, given in request.directories.items()}
    request = dataclasses.replace(request, directories=directories)
    home = root.absolute() / "masks"
    _check_apart(directories.values(), home)
    key = request.key()
    folder, work = home / key / VERSION, home / f".work-{key}"
    if not folder.is_dir() or work.is_dir():
        with cache.locked(home / f".{key}.lock", "the faces", say):
            if not folder.is_dir():
                _make(request, home, key, work, find_faces, say)
            shutil.rmtree(work, ignore_errors=True)
    return load(folder, say)


def load(folder: Path, say: Callable[[str], None]) -> Masks:
    """Read a prepared data set back: its images stay on the disk.

    Pixels that are damaged are decoded anew.  Raises DataError naming the folder if something else
    is: moved away, it will be made again; or if the pixels cannot be written there.
    """
    try:
        about = json.loads((folder / ABOUT).read_text())
        builder: Any = tfds.builder_from_directory(folder)
        digests = {split: (folder / f"{split}.sha256").read_text() for split in splits.SPLITS}
        names = tuple(builder.info.features["label"].names)
        about["sha256"] = hashlib.sha256("".join(digests.values()).encode()).hexdigest()
    except Exception as error:  # damage surfaces as any type, from three libraries
        raise _damaged(folder, error) from error
    read = {split: _read_split(builder, folder, split, digests[split], say) for split in digests}
    return Masks(read, names, about, folder)


def _absolute(directory: str) -> str:
    return os.path.abspath(files.locate(directory))


def _files(directory: str) -> list[str]:
    """All files below a directory that `annotations` may look at: not hidden, links followed."""
    files: list[str] = []
    seen: set[str] = set()
    for folder, inside, names in os.walk(_absolute(directory), followlinks=True):
        if os.path.realpath(folder) in seen:  # a link may lead round in a circle
            inside.clear()
            continue
        seen.add(os.path.realpath(folder))
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        paths = (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))
        files += [path for path in paths if os.path.exists(path)]  # a link may lead nowhere
    return files


def _check_apart(directories: Iterable[str], home: Path) -> None:
    """Raises DataError if what is written would lie among the photographs, or they in there."""
    prepared = os.path.realpath(home)
    for directory in directories:
        photographs = os.path.realpath(directory)
        if os.path.commonpath([prepared, photographs]) in (prepared, photographs):
            raise DataError(
                f"{directory} is to hold photographs and {home} the prepared faces, but one is in "
                "the other; name another directory with data.tfds_dir"
            )


def _damaged(folder: Path, error: object) -> DataError:
    reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    return DataError(
        f"{folder} cannot be read ({' '.join(reason.split())}); move it away and the faces will be "
        "prepared again"
    )


def _make(
    request: Request,
    home: Path,
    key: str,
    work: Path,
    find_faces: Callable[[], ingest.FindFaces],
    say: Callable[[str], None],
) -> None:
    faces, problems, counts = _annotated(request, say)
    with ingest.writing(home):
        work.mkdir(parents=True, exist_ok=True)  # before anything that takes long
    finder = find_faces() if any(face.box is None for face in faces) else None
    chunks = ingest.ingest(faces, request.cut, work, finder, say)
    plan = _plan(request, chunks, problems, counts)
    say(f"writing {sum(map(len, plan.examples.values())):,} faces to {home / key}")
    incomplete = home / key / f".incomplete-{VERSION}"
    with ingest.writing(home / key):
        shutil.rmtree(incomplete, ignore_errors=True)  # of a process that was killed
        incomplete.mkdir(parents=True)
        try:
            _write(plan, incomplete, key)
            os.replace(incomplete, home / key / VERSION)
        except RuntimeError as error:  # which is what array_record makes of a full disk
            raise OSError(" ".join(str(error).split())) from error
        finally:
            shutil.rmtree(incomplete, ignore_errors=True)


def _write(plan: Plan, folder: Path, key: str) -> None:
    """Write the records of all splits, in the order of the plan, and the files beside them."""
    size = plan.request.cut.size
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=plan.names),
            "source": tfds.features.ClassLabel(names=annotations.LAYOUTS),
            "photo": tfds.features.Text(),
            "box": tfds.features.Tensor(shape=(4,), dtype=np.int32),
            "synthetic": tfds.features.Scalar(np.bool_),
        }
    )
    identity = tfds.core.DatasetIdentity(
        name="masks",
        version=tfds.core.Version(VERSION),
        data_dir=str(folder),
        module_name=__name__,
        config_name=key,
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Faces with and without masks, cut out of annotated photographs.",
        features=features,
        supervised_keys=("image", "label"),
        disable_shuffling=True,  # the order is the plan's
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=_FACES_PER_FILE, file_format="array_record"
    )
    _write_csv(folder / PROBLEMS, Problem.__dataclass_fields__, plan.problems)
    _write_csv(folder / NEAR, ("image", "other", "bits"), plan.near)
    _ = (folder / ABOUT).write_text(json.dumps(plan.about, indent=2))
    # TFDS has no splits without examples.
    writer.initialize_splits([split for split in splits.SPLITS if plan.examples[split]])
    total = sum(map(len, plan.examples.values()))
    with progress.bar(None, "writing", total=total, unit="faces") as bar:
        for split in splits.SPLITS:
            digest = hashlib.sha256()
            pairs = _with_pngs(plan, split)
            # A few at a time: the writer renews the description of the data set with every call.
            while some := list(itertools.islice(pairs, _AT_ONCE)):
                for example, png in some:
                    digest.update(_digested(png, example.face.label))
                writer.add_examples({split: [_encoded(example, png) for example, png in some]})
                _ = bar.update(len(some))
            _ = (folder / f"{split}.sha256").write_text(digest.hexdigest())
    writer.close_all()


def _encoded(example: Example, png: bytes) -> dict[str, Any]:
    """An example by the features of the data set, as TFDS takes it."""
    face = example.face
    assert face.box is not None
    return {
        "image": io.BytesIO(png),
        "label": face.label,
        "source": face.source,
        "photo": os.fsencode(face.photograph.path),  # which need not be UTF-8
        "box": np.array(dataclasses.astuple(face.box), np.int32),
        "synthetic": example.copy >= 0,
    }


def _annotated(
    request: Request, say: Callable[[str], None]
) -> tuple[list[Face], list[Problem], dict[str, Any]]:
    """All faces that are to be cut, by source and photograph; the problems so far; the counts.

    The counts: `photographs` {source: n}, faces that were `annotated` {source: {label: n}}, things
    whose label is `left_out` {source: {raw label: n}}, those whose label is `unknown`, `incorrect`
    faces left out by the setting, and faces `lost`.
    """
    faces: list[Face] = []
    problems: list[Problem] = []
    photographs: dict[str, int] = {}
    annotated: dict[str, dict[str, int]] = {}
    left_out: dict[str, dict[str, int]] = {}
    unknown: dict[str, dict[str, int]] = {}
    for layout in annotations.LAYOUTS:
        if layout not in request.directories:
            continue
        read = annotations.read(request.directories[layout], layout, request.reading)
        faces += read.faces
        problems += read.problems
        photographs[layout] = read.pictures
        annotated[layout] = dict(Counter(face.label for face in read.faces))
        left_out[layout] = dict(read.left_out)
        unknown[layout] = dict(read.unknown)
        shown = ", ".join(f"{n:,} {label}" for label, n in sorted(annotated[layout].items()))
        say(f"{layout}: {shown}; {len(read.problems):,} problems in {request.directories[layout]}")
    counts: dict[str, Any] = {"annotated": annotated, "left_out": left_out, "incorrect": 0}
    counts |= {"unknown": unknown, "photographs": photographs}
    if not request.keep_incorrect:
        counts["incorrect"] = sum(face.label == "incorrect" for face in faces)
        faces = [face for face in faces if face.label != "incorrect"]
    faces, counts["lost"] = _without_copies(faces, problems)
    if not faces:
        where = ", ".join(request.directories.values())
        raise DataError(
            f"no face with a usable label and picture was found in {where}{_commonest(problems)}"
        )
    return faces, problems, counts


def _without_copies(faces: Sequence[Face], problems: list[Problem]) -> tuple[list[Face], int]:
    """Those of no photograph that an earlier layout has as well, and how many others there were.

    Adds a problem for each such photograph; duplicates within a layout are left out already.
    """
    first_of = annotations.duplicates(dict.fromkeys(face.photograph for face in faces))
    counts = Counter(face.photograph.path for face in faces)
    for path, first in first_of.items():
        done = f"left out with its {counts[path]} face{'s' if counts[path] > 1 else ''}"
        problems.append(Problem(path, f"the same bytes as {first}", done))
    kept = [face for face in faces if face.photograph.path not in first_of]
    return kept, len(faces) - len(kept)


def _plan(
    request: Request,
    chunks: Sequence[Path],
    problems: Sequence[Problem],
    counts: Mapping[str, Any],
) -> Plan:
    """The split of each face, the copies, and the counts for `about.json`."""
    read = [ingest.read_chunk(path) for path in chunks]
    every = [*problems, *(problem for chunk in read for problem in chunk.problems)]
    cut_out = [
        Example(c, i, -1, f) for c, chunk in enumerate(read) for i, f in enumerate(chunk.faces)
    ]
    faces = [example.face for example in cut_out]
    if not faces:
        small = sum(chunk.small for chunk in read)
        whole = "; data.whole=True takes pictures of data.folders that are faces already"
        hint = whole if "folders" in request.directories and not request.reading.whole else ""
        lost = f"{small:,} are smaller than min_side{_commonest(every)}"
        raise DataError(f"no face is left; {lost}{hint}")
    split_of = splits.split_by_image(faces, val=request.val, test=request.test, seed=request.seed)
    examples: dict[str, list[Example]] = {split: [] for split in splits.SPLITS}
    for example in cut_out:
        examples[split_of[example.face.photograph.path]].append(example)
    about = {
        **counts,
        "too_small": sum(chunk.small for chunk in read),
        "lost": counts["lost"] + sum(chunk.lost for chunk in read),
        "usable": _count(cut_out),
        "splits": {split: _count(some) for split, some in examples.items()},
    }
    copies = _copies(examples["train"], request)
    examples["train"] += copies
    fingerprints = {path: bits for chunk in read for path, bits in chunk.fingerprints.items()}
    near = splits.near_duplicates(fingerprints, split_of)
    about |= {
        "copies": _count(copies),
        "filling": sum(_fills(face) for face in faces) if not request.reading.whole else 0,
        "problems": len(every),
        "kinds": [
            {"what": kind, "count": count, "first": problem.file}
            for kind, count, problem in annotations.kinds(every)[:_KINDS]
        ],
        "near_duplicates": len(near),
        "request": dataclasses.asdict(request),
    }
    labels = {face.label for face in faces}
    names = tuple(name for name in LABELS if name in labels)
    return Plan(chunks, examples, names, request, about, every, near)


def _fills(face: Face) -> bool:
    """Whether a face that was detected takes more than half of its picture."""
    assert face.box is not None
    area = face.box.width * face.box.height
    return face.source == "folders" and 2 * area > face.photograph.pixels


def _commonest(problems: Sequence[Problem]) -> str:
    """The end of a message: the three commonest kinds of problems, each by its first one."""
    kinds = annotations.kinds(problems)[:3]
    shown = [f"{count:,} like {first.file}: {first.what}" for _, count, first in kinds]
    return f"; the commonest of {len(problems):,} problems: {'; '.join(shown)}" if shown else ""


def _copies(examples: Sequence[Example], request: Request) -> list[Example]:
    """Copies to be augmented: of each face as many as of the others of its class, or one fewer."""
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.face.label, []).append(example)
    most = max(map(len, by_label.values()), default=0)
    copies: list[Example] = []
    generator = np.random.Generator(np.random.PCG64(request.seed))
    for _, originals in sorted(by_label.items()):
        full = len(originals) == most
        missing = 0 if full else round(request.balance * most) - len(originals)
        order = generator.permutation(len(originals))
        for n in range(max(missing, 0)):
            turn, position = divmod(n, len(order))
            copies.append(originals[order[position]]._replace(copy=turn))
    return sorted(copies, key=lambda example: example[:3])


def _count(examples: Iterable[Example]) -> dict[str, dict[str, int]]:
    """{source: {label: how many}}."""
    counts: dict[str, dict[str, int]] = {}
    pairs = Counter((example.face.source, example.face.label) for example in examples)
    for (source, label), count in sorted(pairs.items()):
        counts.setdefault(source, {})[label] = count
    return counts


def _with_pngs(plan: Plan, split: str) -> Iterator[tuple[Example, bytes]]:
    """The examples of a split, each with its crop or augmented copy as a PNG, in their order."""
    with ThreadPoolExecutor(ingest.cores()) as pool:
        for chunk, group in itertools.groupby(plan.examples[split], lambda each: each.chunk):
            part = list(group)
            crops_of = ingest.read_pngs(plan.chunks[chunk], [example.row for example in part])
            seeds = [plan.request.seed] * len(part)
            yield from zip(part, pool.map(_augmented, part, crops_of, seeds), strict=True)


def _augmented(example: Example, png: bytes, seed: int) -> bytes:
    """The crop of an example as it is, or the copy of that number."""
    if example.copy < 0:
        return png
    stream = np.random.SeedSequence((seed, example.chunk, example.row, example.copy))
    generator = np.random.Generator(np.random.PCG64(stream))
    return ingest.encode(crops.augment(ingest.decode(png), generator))


def _digested(png: bytes, label: str) -> bytes:
    """Digest of one example; the checksum of a split covers those of all its examples."""
    return hashlib.sha256(png + label.encode()).digest()


def _read_split(
    builder: Any, folder: Path, split: str, digest: str, say: Callable[[str], None]
) -> Faces:
    """The faces of a split, with their decoded pixels, which are written if they are missing."""
    faces = _decoded_split(builder, folder, split, digest, say)
    if faces is None:
        with cache.locked(folder / ".lock", "the pixels", say):
            # Another process may have made them meanwhile; the damage has been reported.
            faces = _decoded_split(builder, folder, split, digest, lambda line: None)
            if faces is None:
                _decode_split(builder, folder, split, digest)
                faces = _decoded_split(builder, folder, split, digest, say)
    if faces is None:
        raise _damaged(folder, f"the pixels of {split} are not what was written")
    return faces


def _decoded_split(
    builder: Any, folder: Path, split: str, digest: str, say: Callable[[str], None]
) -> Faces | None:
    """The faces of a split if all is as `_decode_split` left it, None if it is to be done again.

    Raises DataError if the records are not those it was done with.
    """
    table, pixels = folder / f"{split}.npz", folder / f"{split}.u8"
    if not table.exists():
        return None
    try:
        arrays = files.parse_arrays(table.read_bytes())
        with pixels.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == str(arrays["pixels"])
        same = same and str(arrays["digest"]) == digest
    except Exception:  # damage surfaces as any type
        same, arrays = False, {}
    if not same:
        say(f"{pixels} is damaged; making it again")
        return None
    if _sizes(builder, folder, split) != arrays["sizes"].tolist():
        raise _damaged(folder, f"the records of {split} are not what was written")
    shape = (len(arrays["labels"]), *builder.info.features["image"].shape)
    images: Any = LazyImages(pixels, shape)
    data = Dataset(images=images, labels=arrays["labels"])
    photos = np.array([os.fsdecode(name) for name in arrays["photos"].tolist()], np.str_)
    return Faces(data, arrays["sources"], photos, arrays["synthetic"])


def _sizes(builder: Any, folder: Path, split: str) -> list[int]:
    """Bytes of the files of records of a split."""
    if split not in builder.info.splits:
        return []
    try:
        return [os.path.getsize(path) for path in builder.info.splits[split].filepaths]
    except OSError as error:
        raise _damaged(folder, error) from error


def _decode_split(builder: Any, folder: Path, split: str, digest: str) -> None:
    """Write the pixels of a split, and after them the table that says that they are there."""
    names = builder.info.features["label"].names
    records, pixels = hashlib.sha256(), hashlib.sha256()
    tables: dict[str, list[Any]] = {"labels": [], "sources": [], "photos": [], "synthetic": []}
    temporary = folder / f".{split}.tmp"
    with ingest.writing(folder), temporary.open("wb") as file:
        for example, image in _decoded(builder, folder, split):
            records.update(_digested(example["image"], names[example["label"]]))
            pixels.update(image.data)
            _ = file.write(image.data)
            tables["labels"].append(example["label"])
            tables["sources"].append(annotations.LAYOUTS[example["source"]])
            tables["photos"].append(example["photo"])
            tables["synthetic"].append(example["synthetic"])
        file.flush()
        os.fsync(file.fileno())
    if records.hexdigest() != digest:
        raise _damaged(folder, f"the records of {split} are not what was written")
    arrays = {
        "labels": np.array(tables["labels"], np.int32),
        "sources": np.array(tables["sources"], np.str_),
        "photos": np.array(tables["photos"], np.bytes_),
        "synthetic": np.array(tables["synthetic"], bool),
        "digest": np.array(digest),
        "pixels": np.array(pixels.hexdigest()),
        "sizes": np.array(_sizes(builder, folder, split), np.int64),
    }
    with ingest.writing(folder):
        os.replace(temporary, folder / f"{split}.u8")
        with (folder / f".{split}.npz.tmp").open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(folder / f".{split}.npz.tmp", folder / f"{split}.npz")


def _decoded(builder: Any, folder: Path, split: str) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """The records of a split with their pixels [S, S, 3] uint8."""
    if split not in builder.info.splits:
        return
    try:
        skip = {"image": tfds.decode.SkipDecoding()}
        source: Any = builder.as_data_source(split, decoders=skip)
        with (
            progress.bar(None, f"decoding {split} (once)", total=len(source), unit="faces") as bar,
            ThreadPoolExecutor(ingest.cores()) as pool,
        ):
            for start in range(0, len(source), _AT_ONCE):
                part = source.__getitems__(range(start, min(start + _AT_ONCE, len(source))))
                images = pool.map(lambda example: ingest.decode(example["image"]), part)
                yield from zip(part, images, strict=True)
                _ = bar.update(len(part))
    except Exception as error:  # damage surfaces as any type, from three libraries
        raise _damaged(folder, error) from error


def _write_csv(path: Path, header: Iterable[str], rows: Sequence[Any]) -> None:
    """A line each, whatever is in a name: it may have line ends, and need not be UTF-8."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(list(header))
        for row in rows:
            cells = dataclasses.astuple(row) if isinstance(row, Problem) else row
            writer.writerow([printable(str(cell)) for cell in cells])
