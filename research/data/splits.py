"""Which photographs are trained on, which are tested on, and which look alike on both sides?

Faces are shared out by the photograph they come from: two faces of one photograph have the same
light, camera and crowd, and a net that has seen one has seen much of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from research.types import Face, UserError

SPLITS = ("train", "test", "score")
NEAR = 4  # most bits of 64 in which the prints of near duplicates differ


def split_by_image(
    faces: Sequence[Face], *, test: float, score: float, seed: int
) -> dict[str, str]:
    """{image: its split, one of SPLITS}.

    test, score: a share of the faces if below 1, else their number.  Every source gives its part
    of both.  A number is met exactly as long as there are photographs with few enough faces.
    Raises UserError naming the key if nothing would be left to train on, or nothing to test on.
    """
    per_image = Counter(face.image for face in faces)
    source_of = {face.image: face.source for face in faces}
    per_source = Counter(face.source for face in faces)
    wanted = {
        "score": _number("score", score, len(faces)),
        "test": _number("test", test, len(faces)),
    }
    if wanted["test"] < 1:
        raise UserError(f"test: {test:g} of {len(faces):,} faces is none; give a larger part")
    if sum(wanted.values()) >= len(faces):
        raise UserError(
            f"test, score: {wanted['test']:,} and {wanted['score']:,} of {len(faces):,} faces "
            "leave none to train on; give smaller numbers, or shares below 1"
        )
    left = {split: _in_proportion(count, per_source) for split, count in wanted.items()}
    images = np.array(sorted(per_image))
    split_of: dict[str, str] = {}
    for image in np.random.Generator(np.random.PCG64(seed)).permutation(images).tolist():
        source, count = source_of[image], per_image[image]
        fits = [split for split in wanted if left[split][source] >= count]
        split_of[image] = fits[0] if fits else "train"
        if fits:
            left[fits[0]][source] -= count
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

    prints: {image: its fingerprint}.  Sorted by the bits, then by name.
    """
    names = sorted(prints)
    values = np.array([prints[name] for name in names], np.uint64)
    split = np.array([SPLITS.index(split_of[name]) for name in names], np.int8)
    found: list[tuple[str, str, int]] = []
    for first in range(len(names)):
        distance = np.bitwise_count(values[first] ^ values[first + 1 :])
        alike = (distance <= NEAR) & (split[first + 1 :] != split[first])
        for other in np.flatnonzero(alike):
            found.append((names[first], names[first + 1 + other], int(distance[other])))
    return sorted(found, key=lambda pair: (pair[2], pair[0], pair[1]))


def _number(key: str, asked: float, total: int) -> int:
    """How many faces a share or a number asks for."""
    if not 0 <= asked < float("inf"):
        raise UserError(f"{key}: {asked} is neither a share of the faces nor a number of them")
    if asked >= 1 and asked != int(asked):
        raise UserError(f"{key}: {asked:g} is above 1 and no whole number of faces")
    return round(asked * total) if asked < 1 else int(asked)


def _in_proportion(count: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """`count` shared out in proportion to `sizes`, the largest remainders rounded up."""
    total = sum(sizes.values())
    exact = {name: count * size / total for name, size in sizes.items()}
    parts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: count - sum(parts.values())]:
        parts[name] += 1
    return parts
