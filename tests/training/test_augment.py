import jax
import numpy as np
import pytest

from research.structs import UserError
from research.training import augment

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 2)).astype(np.uint8)


def crops(image, pixels):
    """Every cut of the size of the image out of the image with repeated edges."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    places = range(2 * pixels + 1)
    return [padded[i : i + height, j : j + width] for i in places for j in places]


def is_one_of(image, candidates):
    return any(np.array_equal(image, candidate) for candidate in candidates)


def test_a_shifted_image_is_a_cut_of_itself_with_repeated_edges(key):
    found = np.asarray(augment.shift(key, IMAGES, 2))
    assert found.dtype == np.uint8
    for image, shifted in zip(IMAGES, found, strict=True):
        assert is_one_of(shifted, crops(image, 2))
    assert (found != IMAGES).any()


def test_shifts_are_spread_evenly_and_drawn_for_every_image():
    """A picture of positions shows in its middle by how much it was moved."""
    n, cells = 5_000, 25
    positions = np.arange(25, dtype=np.uint8).reshape(1, 5, 5, 1)
    found = augment.shift(jax.random.key(0), np.repeat(positions, n, axis=0), 2)
    counts = np.bincount(np.asarray(found)[:, 2, 2, 0], minlength=cells)
    assert len(counts) == cells
    assert np.abs(counts - n / cells).max() < 5 * np.sqrt(n / cells)


def test_half_of_the_images_are_mirrored(key):
    n = 2_000
    image = IMAGES[:1]
    found = np.asarray(augment.mirror(key, np.repeat(image, n, axis=0)))
    turned = (found == image[:, :, ::-1]).all((1, 2, 3))
    assert found.dtype == np.uint8
    assert (turned | (found == image).all((1, 2, 3))).all()
    assert abs(turned.sum() - n / 2) < 5 * np.sqrt(n / 4)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("pixels", [0, 1])
def test_every_image_becomes_a_change_of_itself_that_was_asked_for(pixels, mirrored, key):
    change = augment.make_augment(shift_pixels=pixels, mirrored=mirrored)
    if not pixels and not mirrored:
        assert change is None
        return
    found = np.asarray(change(key, IMAGES))
    assert found.dtype == np.uint8 and (found != IMAGES).any()
    for image, changed in zip(IMAGES, found, strict=True):
        sources = (image, image[:, ::-1]) if mirrored else (image,)
        assert is_one_of(changed, [cut for source in sources for cut in crops(source, pixels)])


def test_a_change_is_a_function_of_its_key():
    change = augment.make_augment(shift_pixels=2, mirrored=True)
    first, again, other = (change(jax.random.key(seed), IMAGES) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_negative_shift_is_refused():
    with pytest.raises(UserError, match="shift: -1 pixels is negative"):
        _ = augment.make_augment(shift_pixels=-1, mirrored=False)
