"""Which photographs go where: never apart what belongs together, and as many as were asked for."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from research.faces import splits
from research.faces.annotations import Box, Face, Photograph
from research.faces.splits import fingerprint, near_duplicates, split_by_image
from research.structs import UserError

BOX = Box(0, 0, 9, 9)


def faces_of(sizes: dict[str, list[int]]) -> list[Face]:
    """{source: how many faces each of its photographs has}."""
    return [
        Face(Photograph(f"{source}/{i}", 9, 9), BOX, "with_mask", source)
        for source, counts in sizes.items()
        for i, count in enumerate(counts)
        for _ in range(count)
    ]


def counts(faces: list[Face], split_of: dict[str, str]) -> Counter[str]:
    return Counter(split_of[face.photograph.path] for face in faces)


ANY = st.dictionaries(
    st.sampled_from(["voc", "json", "folders"]),
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
    min_size=1,
)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.data())
def test_single_faces_are_split_into_the_very_numbers_by_source(
    sizes: list[int], data: st.DataObject
) -> None:
    faces = faces_of({str(source): [1] * size for source, size in enumerate(sizes)})
    if len(faces) < 3:
        return
    val = data.draw(st.integers(1, len(faces) - 1))
    test = data.draw(st.integers(0, len(faces) - 1 - val))
    split_of = split_by_image(faces, val=val, test=test, seed=3)
    found = counts(faces, split_of)
    assert (found["val"], found["test"]) == (val, test)
    for source, size in enumerate(sizes):
        taken = Counter(split_of[f"{source}/{i}"] for i in range(size))
        assert abs(taken["test"] - test * size / len(faces)) < 1
        left = (size - taken["test"]) / (len(faces) - test)
        assert abs(taken["val"] - val * left) < 1


@given(ANY, st.integers(1, 30), st.integers(0, 30), st.integers(0, 3))
def test_a_number_is_missed_only_where_no_photograph_fits(
    sizes: dict[str, list[int]], val: int, test: int, seed: int
) -> None:
    faces = faces_of(sizes)
    wanted = {"val": val, "test": test}
    if val + test >= len(faces):
        return
    try:
        split_of = split_by_image(faces, **wanted, seed=seed)
    except UserError as error:
        assert f"val: {val} of {len(faces)}" in str(error)
        assert min(min(each) for each in sizes.values()) > val or test
        return
    per_image = Counter(face.photograph.path for face in faces)
    assert set(split_of) == set(per_image) and set(split_of.values()) <= set(splits.SPLITS)
    found = counts(faces, split_of)
    assert found["train"] > 0 and found["val"] > 0
    for split, number in wanted.items():
        missing = number - found[split]
        assert missing >= 0
        assert all(per_image[i] > missing for i in per_image if split_of[i] == "train")


def test_shares_are_of_the_faces_and_the_seed_moves_them() -> None:
    faces = faces_of({"voc": [1] * 60, "folders": [1] * 40})
    split_of = split_by_image(faces, val=0.2, test=0.05, seed=0)
    assert counts(faces, split_of) == {"train": 75, "val": 20, "test": 5}
    assert Counter(split_of[f"folders/{i}"] for i in range(40))["val"] == 8
    assert split_of == split_by_image(faces[::-1], val=20, test=5, seed=0)
    assert split_of != split_by_image(faces, val=0.2, test=0.05, seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val": 0.01}, r"^val: 0\.01 of 10 faces is none; give a larger part$"),
        ({"val": 0}, r"^val: 0 of 10 faces is none"),
        ({"val": 8, "test": 2}, r"^val, test: 8 and 2 of 10 faces leave none to train on"),
        ({"test": 2.5}, r"^test: 2\.5 is above 1 and no whole number of faces$"),
        ({"val": -1}, r"^val: -1 is neither a share of the faces nor a number"),
        ({"test": float("nan")}, r"^test: nan is neither"),
        ({"val": float("inf")}, r"^val: inf is neither"),
        ({"seed": -1}, r"^seed: -1 is negative$"),
    ],
)
def test_an_impossible_split_is_an_error_with_its_key(settings: dict, message: str) -> None:
    given = {"val": 2, "test": 0, "seed": 0} | settings
    with pytest.raises(UserError, match=message):
        split_by_image(faces_of({"voc": [1] * 10}), **given)


def test_photographs_with_too_many_faces_for_a_split_are_an_error() -> None:
    message = r"^val: 0\.1 of 21 faces are 2, but each of the photographs has 7 or more, .*larger"
    with pytest.raises(UserError, match=message):
        split_by_image(faces_of({"voc": [7, 7, 7]}), val=0.1, test=0, seed=0)


# Near duplicates


def scene(seed: int) -> Image.Image:
    """A picture with large forms, as photographs have."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(2))


def print_of(image: Image.Image) -> int:
    return fingerprint(np.asarray(image))


def test_the_fingerprint_says_where_it_becomes_lighter_to_the_right() -> None:
    ramp = np.repeat(np.arange(0, 180, 2, np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
    assert fingerprint(ramp) == 2**64 - 1
    assert fingerprint(ramp[:, ::-1]) == fingerprint(np.zeros((5, 5, 3), np.uint8)) == 0
    lower_right = ramp.copy()
    lower_right[:70] = 7
    assert fingerprint(lower_right) == 2**8 - 1  # the last row is the last byte


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_in_another_size_and_quality_has_nearly_the_same_fingerprint(seed: int) -> None:
    image, stream = scene(seed), io.BytesIO()
    image.resize((70, 50), Image.Resampling.BILINEAR).save(stream, "JPEG", quality=50)
    differing = (print_of(image) ^ print_of(Image.open(stream))).bit_count()
    assert differing <= splits.NEAR
    assert (print_of(image) ^ print_of(scene(seed + 100))).bit_count() > 3 * splits.NEAR


def test_near_duplicates_are_listed_across_splits_and_not_within() -> None:
    prints = {"a": 0b0, "b": 0b11, "c": 0b1, "far": 2**40 - 1}
    split_of = {"a": "train", "b": "train", "c": "test", "far": "val"}
    assert near_duplicates(prints, split_of) == [("a", "c", 1), ("b", "c", 1)]
    assert near_duplicates(prints, dict.fromkeys(prints, "train")) == []
    limit = {"a": 0, "c": 2**splits.NEAR - 1, "d": 2 ** (splits.NEAR + 1) - 1}
    split_of = {"a": "train", "c": "val", "d": "test"}
    assert near_duplicates(limit, split_of) == [("c", "d", 1), ("a", "c", splits.NEAR)]


@given(st.lists(st.tuples(st.integers(0, 63), st.sampled_from(splits.SPLITS)), max_size=9))
def test_every_photograph_with_a_copy_elsewhere_is_named_with_one_as_near_as_any(
    drawn: list[tuple[int, str]],
) -> None:
    prints = {f"{i}": bits for i, (bits, _) in enumerate(drawn)}
    split_of = {f"{i}": split for i, (_, split) in enumerate(drawn)}
    found = near_duplicates(prints, split_of)
    assert len(set(found)) == len(found) <= len(prints)
    assert [bits for *_, bits in found] == sorted(bits for *_, bits in found)
    for one, other, bits in found:
        assert split_of[one] != split_of[other]
        assert bits == (prints[one] ^ prints[other]).bit_count()
    for name, mine in prints.items():
        others = [(mine ^ prints[o]).bit_count() for o in prints if split_of[o] != split_of[name]]
        nearest = min(others, default=99)
        named = [bits for *pair, bits in found if name in pair]
        assert (min(named) if nearest <= splits.NEAR else named) == (
            nearest if nearest <= splits.NEAR else []
        )


def test_many_photographs_that_are_all_blank_are_no_more_lines_than_photographs() -> None:
    names = [f"{i:03d}" for i in range(300)]
    split_of = {name: splits.SPLITS[i % 2] for i, name in enumerate(names)}
    assert len(near_duplicates(dict.fromkeys(names, 0), split_of)) < 300
