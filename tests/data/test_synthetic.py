"""Synthetic digits: the contract of real ones, equal everywhere, learnable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from research.data import synthetic


def test_the_contract_is_that_of_real_digits() -> None:
    for data, n in zip(synthetic.digits(33, 17), (33, 17), strict=True):
        assert data.images.shape == (n, 28, 28, 1)
        assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int32)
        assert (data.images.min(), data.images.max()) == (0, 255)
        counts = np.bincount(data.labels, minlength=10)
        assert counts.sum() == n and counts.max() - counts.min() <= 1


def test_the_bytes_are_the_same_on_every_machine() -> None:
    train, _ = synthetic.digits(64, 16, seed=3)
    digest = hashlib.sha256(np.asarray(train.images).tobytes()).hexdigest()
    assert digest[:16] == "f099e9fedda5eb68"


def test_the_sets_are_independent_of_each_others_size_and_of_each_other() -> None:
    train, test = synthetic.digits(20, 20, seed=1)
    np.testing.assert_array_equal(synthetic.digits(20, 50, seed=1)[0].images, train.images)
    np.testing.assert_array_equal(synthetic.digits(50, 20, seed=1)[1].images, test.images)
    assert not any((test.images == image).all((1, 2, 3)).any() for image in train.images)


def test_another_seed_draws_other_images() -> None:
    first, second = (synthetic.digits(20, 20, seed=seed)[0] for seed in (1, 2))
    assert (first.images != second.images).mean() > 0.1


def test_nearest_class_mean_learns_them_but_not_at_once() -> None:
    train, test = synthetic.digits()
    means = np.stack([train.images[train.labels == k].mean(0) for k in range(10)])
    distances = ((test.images[:, None] - means.astype(np.float64)) ** 2).sum((2, 3, 4))
    accuracy = (distances.argmin(1) == test.labels).mean()
    assert 0.4 < accuracy < 0.99


def test_no_glyph_is_cut_or_wrapped_at_an_edge() -> None:
    train, _ = synthetic.digits(500, 1)
    ink = train.images[1:, ..., 0] >= 160  # noise stays below 64; image 0 has one pixel set
    for axis in (1, 2):
        used = ink.any(axis)
        extents = used.shape[1] - used.argmax(1) - used[:, ::-1].argmax(1)
        for k in range(10):
            assert len(set(extents[train.labels[1:] == k].tolist())) == 1


def test_a_size_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        synthetic.digits(0, 1)


def test_objects_have_the_contract_of_cifar_10() -> None:
    for data, n in zip(synthetic.objects(33, 17), (33, 17), strict=True):
        assert data.images.shape == (n, 32, 32, 3)
        assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int32)
        counts = np.bincount(data.labels, minlength=10)
        assert counts.sum() == n and counts.max() - counts.min() <= 1
        assert data.images.max() > 200 and data.images.min() < 20
    train, _ = synthetic.objects(64, 16, seed=3)
    digest = hashlib.sha256(np.asarray(train.images).tobytes()).hexdigest()
    assert digest[:16] == "510801fd4b664dbf"


def test_objects_are_independent_of_the_other_set_and_of_the_digits() -> None:
    train, test = synthetic.objects(20, 20, seed=1)
    np.testing.assert_array_equal(synthetic.objects(20, 50, seed=1)[0].images, train.images)
    np.testing.assert_array_equal(synthetic.objects(50, 20, seed=1)[1].images, test.images)
    assert (train.images != test.images).mean() > 0.5
    assert (synthetic.objects(20, 20, seed=2)[0].images != train.images).mean() > 0.5


def test_the_shapes_of_objects_can_be_learnt_and_their_colours_tell_nothing() -> None:
    train, test = synthetic.objects()

    def accuracy(features: Callable[[np.ndarray], np.ndarray]) -> float:
        fit, held = features(train.images / 255), features(test.images / 255)
        means = np.stack([fit[train.labels == k].mean(0) for k in range(10)])
        distances = ((held[:, None] - means) ** 2).sum(-1)
        return float((distances.argmin(1) == test.labels).mean())

    assert 0.3 < accuracy(lambda images: images.reshape(len(images), -1)) < 0.99
    assert accuracy(lambda images: images[:, ::31, ::31].reshape(len(images), -1)) < 0.2  # corners
    colours = train.images[:, 0, 0].astype(int)
    assert (colours.max(1) - colours.min(1)).mean() > 20  # coloured, not grey


def test_an_object_set_of_size_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        synthetic.objects(1, 0)
