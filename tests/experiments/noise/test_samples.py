import numpy as np
import pytest
import toy_attack as toy
from PIL import Image

from research.experiments.noise import samples
from research.storage import attack_files
from research.structs import UserError


def take(**changes):
    config = toy.smoke(extra_indices=())
    config.update(changes)
    return samples.take(config, toy.net(), toy.data())


def check(found, numbers):
    assert found.numbers.tolist() == list(numbers)
    np.testing.assert_array_equal(found.images, toy.data().images[found.numbers])
    np.testing.assert_array_equal(found.labels, toy.LABELS[found.numbers])


def test_the_first_of_each_class_that_the_net_has_right_in_the_order_of_the_test_set():
    found = take(per_class=2, classes=(2, 0))
    check(found, (2, 22, 10, 20))  # 0 and 12 are taken for another class
    assert found.words == "the first 2 correctly classified test images of each of 2 classes"


def test_right_or_wrong_if_asked():
    found = take(per_class=2, only_correct=False)
    check(found, (0, 10, 2, 12))
    assert "correctly" not in found.words


def test_images_that_are_always_there_come_first_and_only_once():
    found = take(per_class=1, extra_indices=(21, 2))
    check(found, (21, 2, 10))
    assert found.words.endswith("of each of 2 classes, and test image 21, 2")


def test_images_by_number_alone_are_called_so_and_the_net_is_not_asked():
    found = samples.take(
        toy.smoke(classes=(), extra_indices=(21, 2), only_correct=True), None, toy.data()
    )
    check(found, (21, 2))
    assert found.words == "test image 21, 2"


def test_the_first_images_of_the_test_set():
    check(take(images=4), range(4))
    check(take(images=4000), range(toy.COUNT))


def test_a_picture_of_the_user_has_the_class_that_the_net_says(tmp_path):
    image = toy.data().images[0]
    attack_files.write_png(tmp_path / "mine.png", image)
    found = take(input=str(tmp_path / "mine.png"), images=5)
    np.testing.assert_array_equal(found.images, image[None])
    assert (found.labels.tolist(), found.numbers.tolist()) == ([1], [0])  # 0 is taken for a 1
    assert found.labels.dtype == np.int32 and found.words == "the picture mine.png"


GREY = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
BINARY = np.where(GREY > 99, 255, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "mode", "settings"),
    [
        *(("PNG", mode, {}) for mode in ("L", "LA", "RGB", "RGBA", "P")),
        *((kind, mode, {}) for kind in ("BMP", "GIF") for mode in ("L", "RGB")),
        ("WEBP", "RGB", {"lossless": True}),
        ("PNG", "1", {}),
        ("BMP", "1", {}),
    ],
)
def test_a_picture_that_holds_the_same_pixels_in_another_way_is_taken(
    tmp_path, kind, mode, settings
):
    pixels = BINARY if mode == "1" else GREY
    path = tmp_path / "mine.png"  # known by its content
    Image.fromarray(pixels).convert(mode).save(path, kind, **settings)
    found = samples.read_picture(toy.smoke(input=str(path)), toy.data())
    np.testing.assert_array_equal(found, pixels[..., None])


def lossy(kind):
    colour = np.stack([GREY, GREY, GREY], axis=-1)
    if kind == "colour":
        colour[3, 4, 1] ^= 1
        return Image.fromarray(colour)
    if kind == "16 bits":
        return Image.fromarray(GREY.astype(np.uint16) * 257)
    picture = Image.fromarray(colour).convert("RGBA")
    picture.putpixel((4, 3), (*picture.getpixel((4, 3))[:3], 254))
    return picture


@pytest.mark.parametrize("kind", ["colour", "16 bits", "transparency"])
def test_a_picture_of_which_something_would_be_lost_is_refused(tmp_path, kind):
    lossy(kind).save(tmp_path / "mine.png")
    with pytest.raises(UserError, match=r"mine.png: 12 x 12 pixels.* expected .*grey.*convert it"):
        _ = samples.read_picture(toy.smoke(input=str(tmp_path / "mine.png")), toy.data())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extra_indices": (3, 30)}, "extra_indices: there is no test image 30, only 30"),
        ({"extra_indices": (-1,)}, "extra_indices: there is no test image -1"),
        ({"per_class": 0}, "classes, per_class, extra_indices: they choose no image"),
        ({"classes": ()}, "classes, per_class, extra_indices: they choose no image"),
        ({"input": "nowhere.png"}, r"nowhere.png: cannot be read .* 12 x 12 pixels, grey"),
    ],
)
def test_a_sample_that_cannot_be_taken_is_refused_by_its_key(changes, said):
    with pytest.raises(UserError, match=said):
        _ = take(**changes)


def test_a_picture_of_another_size_is_refused_before_anything_is_computed(tmp_path):
    attack_files.write_png(tmp_path / "wide.png", np.zeros((12, 14, 1), np.uint8))
    config = toy.smoke(input=str(tmp_path / "wide.png"))
    with pytest.raises(UserError, match=r"wide.png: 14 x 12 pixels.* expected .* 12 x 12"):
        samples.check(config, toy.data())


def test_a_class_with_too_few_images_gives_what_it_has():
    labels = np.array([1, 0, 1, 1, 0])
    allowed = np.array([True, True, False, True, True])
    assert samples.choose(labels, allowed, (0, 1), 9).tolist() == [1, 4, 0, 3]
    assert samples.choose(labels, allowed, (), 9).tolist() == []
