"""The judge of `benchmarks.attacks`: pictures as somebody would receive them, read by NumPy alone.

What a contestant hands in is rounded to bytes, saved as PNG, read again and classified by a forward
pass written out here in float64, which shares no code with any contestant. Cell (n, t) holds the
image made of image n for target t. It is a success if its PNG is classified as t, or, where t is
the label of n (the own cell), as anything else.

A picture is refused if one of its pixels is not a number.
"""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_AT_ONCE = 25  # images of a forward pass; its patches are the largest arrays here

Weights = Mapping[str, np.ndarray]


class Verdict(NamedTuple):
    """What became of every cell [N, T].

    floats: a success as it was handed in.  success: a success as PNG.
    l2: distance of the PNG from the original, in units of the whole range of a pixel.
    black: whether the PNG is all black.
    """

    floats: np.ndarray
    success: np.ndarray
    l2: np.ndarray
    black: np.ndarray


def logits(weights: Weights, images: np.ndarray) -> np.ndarray:
    """[N, 10] float64 of images [N, H, W, C] in [0, 1].

    weights: {"conv_0/kernel": HWIO, "conv_0/bias", ..., "dense_0/kernel", ..., "output/bias"} and
    "pools", the pool after every convolution; no padding.
    """
    parts = [images[i : i + _AT_ONCE] for i in range(0, len(images), _AT_ONCE)]
    return np.concatenate([_logits(weights, part.astype(np.float64)) for part in parts])


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Images as uint8; floats are of [0, 1], rounded to the nearest level, halves to the even."""
    if images.dtype == np.uint8:
        return images
    levels = np.rint(np.nan_to_num(images.astype(np.float64)) * 255)
    return np.clip(levels, 0, 255).astype(np.uint8)


def through_png(images: np.ndarray) -> np.ndarray:
    """What is read of images [N, H, W, C] uint8, C = 1 or 3, after each was saved as PNG."""
    return np.stack([_decode(_encode(image)) for image in images])


def judge(
    weights: Weights, originals: np.ndarray, labels: np.ndarray, images: np.ndarray
) -> Verdict:
    """Judge the cells [N, T, H, W, C], uint8 or floats, made of originals [N, H, W, C] uint8."""
    if images.shape != (len(labels), images.shape[1], *originals.shape[1:]):
        raise ValueError(f"cells {images.shape} do not fit originals {originals.shape}")
    cells, flat = images.shape[:2], images.reshape(-1, *images.shape[2:])
    numbers = np.isfinite(flat).all(axis=(1, 2, 3)).reshape(cells)
    saved = through_png(to_bytes(flat))
    moved = saved.reshape(images.shape) / 255 - originals[:, None] / 255

    def judge_cells(pixels: np.ndarray) -> np.ndarray:
        predicted = logits(weights, pixels).argmax(axis=1).reshape(cells)
        return numbers & succeeds(predicted, labels)

    success = judge_cells(saved / 255)
    as_bytes = flat.dtype == np.uint8  # and so the PNG is what was handed in
    return Verdict(
        floats=success if as_bytes else judge_cells(np.nan_to_num(flat)),
        success=success,
        l2=np.sqrt(np.square(moved).sum(axis=(2, 3, 4))),
        black=(saved == 0).all(axis=(1, 2, 3)).reshape(cells),
    )


def succeeds(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which cells [N, T] are successes if they are classified as `predicted` [N, T]."""
    hit = predicted == np.arange(predicted.shape[1])
    return np.where(own_cells(labels, predicted.shape[1]), ~hit, hit)


def own_cells(labels: np.ndarray, targets: int) -> np.ndarray:
    """Which cells [N, T] have the label of their image as target."""
    return labels[:, None] == np.arange(targets)


def summarize(verdict: Verdict, labels: np.ndarray) -> dict[str, Any]:
    """Counts of a verdict: successes as targeted and own cells, those that the PNG has cost,
    and the median distance of targeted successes, None without any."""
    own = own_cells(labels, verdict.success.shape[1])
    reached = verdict.success & ~own
    return {
        "targeted": int(reached.sum()),
        "own": int((verdict.success & own).sum()),
        "floats": int(verdict.floats.sum()),
        "survivors": int((verdict.floats & verdict.success).sum()),
        "black": int((verdict.success & verdict.black).sum()),
        "median_l2": float(np.median(verdict.l2[reached])) if reached.any() else None,
    }


def _logits(weights: Weights, x: np.ndarray) -> np.ndarray:
    for i, pool in enumerate(weights["pools"]):
        x = _pool(_conv(x, *_layer(weights, f"conv_{i}")), int(pool))
    x = x.reshape(len(x), -1)
    names = sorted(name.partition("/")[0] for name in weights if name.endswith("/kernel"))
    for name in (name for name in names if name.startswith("dense_")):
        kernel, bias = _layer(weights, name)
        x = np.maximum(x @ kernel + bias, 0)
    kernel, bias = _layer(weights, "output")
    return x @ kernel + bias


def _layer(weights: Weights, name: str) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = (weights[f"{name}/{leaf}"].astype(np.float64) for leaf in ("kernel", "bias"))
    return kernel, bias


def _conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """ReLU of every window times the kernel plus the bias."""
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    z = np.broadcast_to(bias, (len(x), height, width, len(bias))).copy()
    for i in range(rows):
        for j in range(columns):
            z += x[:, i : i + height, j : j + width] @ kernel[i, j]
    return np.maximum(z, 0)


def _pool(x: np.ndarray, size: int) -> np.ndarray:
    batch, height, width, channels = x.shape
    x = x[:, : height // size * size, : width // size * size]
    return x.reshape(batch, height // size, size, width // size, size, channels).max((2, 4))


def _encode(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def _decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
