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


def test_every_side_of_a_jittered_box_moves_by_itself_by_at_most_its_share():
    """In a picture of columns and rows, the numbers along an edge say where the box has begun."""
    n, side, share = 2_000, 100, 0.2
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1)
    images = np.broadcast_to(places.astype(np.uint8), (n, side, side, 2))
    found = np.asarray(augment.jitter(jax.random.key(0), images, share))
    assert found.dtype == np.uint8 and found.shape == images.shape
    for axis in range(2):  # rows, columns: along the other one nothing changes
        along = np.moveaxis(found[..., axis], 1 + axis, 1)
        assert (along == along[:, :, :1]).all()
        steps = np.diff(along[:, :, 0].astype(int), axis=1)
        assert steps.min() >= 0 and steps.max() <= 2
        inside = along[:, side // 4 : -side // 4, 0].astype(float)
        scale = (inside[:, -1] - inside[:, 0]) / (inside.shape[1] - 1)
        first = inside[:, 0] - scale * (side // 4)  # may lie before the picture
        ends = np.stack([first, first + scale * side], 1) / side - (0, 1)
        assert np.abs(ends).max() < share + 0.03
        assert np.abs(ends.mean(axis=0)).max() < 0.02
        np.testing.assert_allclose(ends.std(axis=0), share / np.sqrt(3), atol=0.01)
        assert abs(np.corrcoef(ends.T)[0, 1]) < 0.1
    assert abs(np.corrcoef(found[:, 50, 50].T)[0, 1]) < 0.1


def test_beyond_the_picture_a_jittered_box_repeats_its_edge(monkeypatch):
    outwards = np.array([[[-0.5, 0.5], [0.0, -0.5]]])
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, minval, maxval: outwards)
    image = np.arange(8, dtype=np.uint8).reshape(1, 4, 2, 1)
    (found,) = np.asarray(augment.jitter(jax.random.key(0), image, 0.5))[..., 0]
    assert found.tolist() == [[0, 0], [2, 2], [6, 6], [6, 6]]


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


@pytest.mark.parametrize("share", [-0.1, 0.5])
def test_a_jitter_that_could_turn_a_box_inside_out_is_refused(share):
    with pytest.raises(UserError, match=rf"jitter: {share} is not in \[0, 0.5\)"):
        _ = augment.make_augment(shift_pixels=0, mirrored=False, jittered=share)


def test_jitter_leaves_the_other_changes_as_they_are(key):
    """Their random numbers are the same with it and without."""
    change = augment.make_augment(shift_pixels=0, mirrored=True, jittered=1e-9)
    plain = augment.make_augment(shift_pixels=0, mirrored=True)
    np.testing.assert_array_equal(change(key, IMAGES), plain(key, IMAGES))
