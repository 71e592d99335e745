"""Synthetic digits and coloured glyphs for tests and smoke runs.

Glyphs of 5 x 7 dots, enlarged, shifted and covered with noise: made in milliseconds, the same on
every machine, learnable, and never to be quoted as a result.
"""

from __future__ import annotations

import numpy as np

from research.structs import Dataset

_SIDE_PX = 28
_OBJECT_SIDE_PX = 32
_SCALE_PX = 3  # one dot of a glyph
_MAX_SHIFT_PX = 3
_GLYPHS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "01110 10001 00001 00110 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)


def digits(n_train: int = 512, n_test: int = 256, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A training and a test set of drawn digits, as `datasets.load("mnist")` gives them.

    Images [N, 28, 28, 1] uint8 from 0 to 255, labels [N] int32 from 0 to 9, classes balanced to
    within one. Equal arguments give equal bytes on every platform: integers only, PCG64. The two
    sets come from separate streams, so the size of one never changes the other.
    Raises ValueError if a size is below 1.
    """
    if min(n_train, n_test) < 1:
        raise ValueError(f"sizes of at least 1 expected, got {n_train} and {n_test}")
    return _draw(n_train, (seed, 0)), _draw(n_test, (seed, 1))


def objects(n_train: int = 512, n_test: int = 256, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A training and a test set of coloured glyphs, as `datasets.load("cifar10")` gives them.

    Images [N, 32, 32, 3] uint8, labels [N] int32 from 0 to 9, classes balanced to within one. Equal
    on every platform and independent of each other's size, as those of `digits`.
    Raises ValueError if a size is below 1.
    """
    if min(n_train, n_test) < 1:
        raise ValueError(f"sizes of at least 1 expected, got {n_train} and {n_test}")
    return _draw_objects(n_train, (seed, 2)), _draw_objects(n_test, (seed, 3))


def _draw(n: int, stream: tuple[int, int]) -> Dataset:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
    labels = np.arange(n, dtype=np.int32) % 10
    rows, columns = generator.integers(-_MAX_SHIFT_PX, _MAX_SHIFT_PX + 1, (2, n))
    ink = generator.integers(160, 256, n, dtype=np.uint8)
    noise = generator.integers(0, 64, (n, _SIDE_PX, _SIDE_PX), dtype=np.uint8)
    # Real digits lie on an empty ground: noise on a quarter of the pixels keeps most of it at 0.
    noise *= generator.integers(0, 4, noise.shape, dtype=np.uint8) == 0
    templates = _templates(_SIDE_PX)
    images = noise
    for i in range(n):
        drawn = np.roll(templates[labels[i]], (rows[i], columns[i]), axis=(0, 1))
        images[i] = np.where(drawn, ink[i], noise[i])
    images[0].flat[np.argmax(images[0])] = 255  # the full range, which every reader checks
    images[0, 0, 0] = 0
    return Dataset(images=images[..., None], labels=labels)


def _draw_objects(n: int, stream: tuple[int, int]) -> Dataset:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
    labels = np.arange(n, dtype=np.int32) % 10
    rows, columns = generator.integers(-_MAX_SHIFT_PX, _MAX_SHIFT_PX + 1, (2, n))
    # Bright on dark, in every channel: shapes tell the classes apart, colours tell nothing.
    ink = generator.integers(128, 224, (n, 1, 1, 3), dtype=np.uint8)
    ground = generator.integers(0, 96, (n, 1, 1, 3), dtype=np.uint8)
    side = _OBJECT_SIDE_PX
    noise = generator.integers(0, 32, (n, side, side, 3), dtype=np.uint8)
    shapes = _templates(side)
    drawn = [np.roll(shapes[labels[i]], (rows[i], columns[i]), axis=(0, 1)) for i in range(n)]
    images = np.where(np.stack(drawn)[..., None], ink, ground) + noise
    return Dataset(images=images, labels=labels)


def _templates(side: int) -> np.ndarray:
    glyphs = np.array([[list(row) for row in glyph.split()] for glyph in _GLYPHS]) == "1"
    large = glyphs.repeat(_SCALE_PX, axis=1).repeat(_SCALE_PX, axis=2)
    rows, columns = (side - large.shape[1]) // 2, (side - large.shape[2]) // 2
    canvas = np.zeros((len(_GLYPHS), side, side), bool)
    canvas[:, rows : rows + large.shape[1], columns : columns + large.shape[2]] = large
    return canvas
