"""Distances between clean and changed images: norms and similarity, one number per image.

uint8 images in, NumPy arrays out, computed on the host in float64 whatever
the accelerator is. Images count as values in [0, 1]: one level of a byte is 1/255. Each is measured
by itself, so that its numbers do not depend on what else is in the batch.
"""

from typing import NamedTuple

import dm_pix
import jax
import numpy as np

_LEVELS = 255
_WINDOW_PX, _SIGMA_PX = 11, 1.5


class Distances(NamedTuple):
    """The distances of N pairs of images.

    l0: [N] int64, pixels changed; one counts once, whatever its channels.
    l1, l2, linf: [N] float64, norms of the difference over pixels and channels; linf is k/255.
    psnr: [N] float64, dB, infinite for equal images.
    ssim: [N] float64, -1..1, exactly 1 for equal images.
    """

    l0: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    linf: np.ndarray
    psnr: np.ndarray
    ssim: np.ndarray

    def rows(self) -> list[dict[str, int | float | None]]:
        """Each pair as a dict that is ready for JSON, which has no infinity: there psnr is None."""
        return [
            {
                "l0": int(l0),
                "l1": float(l1),
                "l2": float(l2),
                "linf": float(linf),
                "psnr": float(psnr) if np.isfinite(psnr) else None,
                "ssim": float(ssim),
            }
            for l0, l1, l2, linf, psnr, ssim in zip(*self, strict=True)
        ]


def measure(clean: np.ndarray, changed: np.ndarray) -> Distances:
    """Compare images [N, H, W, C] uint8, pair by pair; H and W of 11 or more, the window of SSIM.

    SSIM: Gaussian window of 11 x 11 pixels and sigma 1.5, K1 0.01, K2 0.03, range 1; the mean over
    all windows that lie within the image, and over channels.
    Raises ValueError for other shapes or types.
    Source: Wang, Bovik, Sheikh, Simoncelli 2004, Image Quality Assessment: From Error Visibility to
    Structural Similarity, section III.
    """
    for name, images in (("clean", clean), ("changed", changed)):
        if images.dtype != np.uint8 or images.ndim != 4 or min(images.shape[1:3]) < _WINDOW_PX:
            raise ValueError(
                f"expected {name} images [N, H, W, C] uint8 of at least {_WINDOW_PX} x "
                f"{_WINDOW_PX} pixels, got {images.dtype} {list(images.shape)}"
            )
    if clean.shape != changed.shape:
        shapes = f"{list(clean.shape)} and {list(changed.shape)}"
        raise ValueError(f"expected images of one shape, got {shapes}")
    levels = np.abs(changed.astype(np.int64) - clean)
    squares = np.square(levels).sum(axis=(1, 2, 3))
    values = int(np.prod(clean.shape[1:]))
    with np.errstate(divide="ignore"):
        psnr = 10.0 * np.log10(values * _LEVELS**2 / squares)
    return Distances(
        l0=levels.any(axis=3).sum(axis=(1, 2)),
        l1=levels.sum(axis=(1, 2, 3)) / _LEVELS,
        l2=np.sqrt(squares) / _LEVELS,
        linf=levels.max(axis=(1, 2, 3)) / _LEVELS,
        psnr=psnr,
        ssim=_ssim(clean, changed),
    )


@jax.jit
def _ssim_of_pair(clean: jax.Array, changed: jax.Array) -> jax.Array:
    ssim = dm_pix.ssim(clean, changed, max_val=1.0, filter_size=_WINDOW_PX, filter_sigma=_SIGMA_PX)
    return jax.numpy.asarray(ssim)


def _ssim(clean: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """SSIM [N] float64: variances are differences of squares, float32 is off by 7e-5 near white."""
    similarity = np.ones(len(clean))
    host = jax.local_devices(backend="cpu")[0]
    # The library promotes types by itself, and gives equal images of one colour 1 - 3e-11.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.default_device(host):
        for i, (before, after) in enumerate(zip(clean, changed, strict=True)):
            if not np.array_equal(before, after):
                similarity[i] = _ssim_of_pair(before / _LEVELS, after / _LEVELS)
    return similarity
