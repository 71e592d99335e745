"""Splits of faces into train, val and test by photograph, and near duplicates across splits.

All faces of a photograph go to the same split: two faces of one photograph have the same
light, camera and crowd, and a net that has seen one has seen much of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from research.faces.annotations import Face
from research.structs import UserError

SPLITS = ("train", "val", "test")
NEAR = 4  # most bits of 64 in which the prints of near duplicates differ


def split_by_image(faces: Sequence[Face], *, val: float, test: float, seed: int) -> dict[str, str]:
    """{image: its split, one of SPLITS}.

    val, test: a share of the faces if below 1, else their number.  Every source gives its part
    of both, and what its photographs have too many faces for is made up for by the others'.  A
    number is met exactly as long as there are photographs with few enough faces; it is never
    exceeded.
    Raises UserError naming the key if nothing would be left to train on, or none to validate on.
    """
    if seed < 0:
        raise UserError(f"seed: {seed} is negative")
    per_image = Counter(face.photograph.path for face in faces)
    source_of = {face.photograph.path: face.source for face in faces}
    per_source = Counter(face.source for face in faces)
    requested = {
        "test": _number("test", test, len(faces)),
        "val": _number("val", val, len(faces)),
    }
    if requested["val"] < 1:
        raise UserError(f"val: {val:g} of {len(faces):,} faces is none; give a larger part")
    if sum(requested.values()) >= len(faces):
        raise UserError(
            f"val, test: {requested['val']:,} and {requested['test']:,} of {len(faces):,} faces "
            "leave none to train on; give smaller numbers, or shares below 1"
        )
    left = {"test": _in_proportion(requested["test"], per_source)}
    remaining = {name: per_source[name] - left["test"][name] for name in per_source}
    left["val"] = _in_proportion(requested["val"], remaining)
    images = np.array(sorted(per_image), object)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(images).tolist()
    split_of: dict[str, str] = {}
    for image in order:
        source, count = source_of[image], per_image[image]
        fits = [split for split in left if left[split][source] >= count]
        split_of[image] = fits[0] if fits else "train"
        if fits:
            left[fits[0]][source] -= count
    for split, missing in ((split, sum(left[split].values())) for split in left):
        for image in order:
            if split_of[image] == "train" and per_image[image] <= missing:
                split_of[image] = split
                missing -= per_image[image]
    if "val" not in split_of.values():
        fewest = min(per_image[image] for image in order if split_of[image] == "train")
        raise UserError(
            f"val: {val:g} of {len(faces):,} faces are {requested['val']:,}, but each of the "
            f"photographs has {fewest:,} or more, which stay together; give a larger part"
        )
    return split_of


def fingerprint(image: np.ndarray) -> int:
    """64 bits of a picture [H, W, 3] uint8: which of neighbouring cells of a 9 x 8 grid is darker.

    Alike for copies in another size, format or quality.  Source: N. Krawetz, "Kind of Like That"
    (2013), the difference hash.
    """
    grey = Image.fromarray(image).convert("L").resize((9, 8), Resampling.BOX)
    cells = np.asarray(grey, np.int16)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_duplicates(
    prints: Mapping[str, int], split_of: Mapping[str, str]
) -> list[tuple[str, str, int]]:
    """(image, image, bits that differ) of photographs that look alike and are in other splits.

    For each photograph the one in another split that is most like it, the first by name of several;
    pairs of which each is the other's only once.  Sorted by the bits, then by name.
    prints: {image: its fingerprint}.
    """
    names = sorted(prints)
    values = np.array([prints[name] for name in names], np.uint64)
    split = np.array([SPLITS.index(split_of[name]) for name in names], np.int8)
    pairs: set[tuple[int, str, str]] = set()
    for i, name in enumerate(names):
        # One for each photograph and no more: all blank ones are alike, and pairs are many.
        distance = np.where(split == split[i], NEAR + 1, np.bitwise_count(values ^ values[i]))
        nearest = int(np.argmin(distance))
        if distance[nearest] <= NEAR:
            first, second = sorted((name, names[nearest]))
            pairs.add((int(distance[nearest]), first, second))
    return [(first, second, bits) for bits, first, second in sorted(pairs)]


def _number(key: str, value: float, total: int) -> int:
    """The number of faces that `value` requests: a share of `total` if below 1, else a number."""
    if not 0 <= value < float("inf"):
        raise UserError(f"{key}: {value} is neither a share of the faces nor a number of them")
    if value >= 1 and value != int(value):
        raise UserError(f"{key}: {value:g} is above 1 and no whole number of faces")
    return round(value * total) if value < 1 else int(value)


def _in_proportion(count: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """`count` shared out in proportion to `sizes`, the largest remainders rounded up."""
    total = sum(sizes.values())
    exact = {name: count * size / total for name, size in sizes.items()}
    parts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: count - sum(parts.values())]:
        parts[name] += 1
    return parts
