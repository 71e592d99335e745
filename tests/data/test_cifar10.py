"""CIFAR-10 from every form of a directory: the same arrays, their identity, clear refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.cifar_files import publish, some_arrays, write_batches, write_pictures, write_tar
from research.data import cifar10_batches, provenance
from research.data import cifar10_pictures as pictures
from research.data.cifar10 import load_files
from research.data.provenance import DataError, Loaded

FORMS = {
    "python": "python batches",
    "python packed": "cifar-10-python.tar.gz",
    "folders": "folder train and folder test",
    "folders packed": "train.tar and test.tar",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "small-net-laboratory"


def write(folder: Path, form: str) -> Path:
    packed = form.endswith(" packed")
    name = form.removesuffix(" packed")
    if name == "folders":
        return write_pictures(folder, packed=packed)
    return write_batches(folder, packed=packed)


def load(folder: Path, form: str = "auto") -> tuple[Loaded, list[str]]:
    lines: list[str] = []
    return load_files(str(folder), form, lines.append), lines


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_arrays(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "data", form)
    for name in ("auto", form.removesuffix(" packed")):
        (train, test, source), _ = load(folder, name)
        for split, data in (("train", train), ("test", test)):
            np.testing.assert_array_equal(data.images, some_arrays()[f"{split}_images"])
            np.testing.assert_array_equal(data.labels, some_arrays()[f"{split}_labels"])
            assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int32)
        assert source.source == f"{FORMS[form]} in {folder}"
        assert source.sha256 == provenance.verify("cifar10", some_arrays(), "")[2].sha256
        assert source.caption() == (
            f"CIFAR-10 SUBSET, 20 train / 10 test of 60,000 ({FORMS[form]}), "
            f"sha256 {source.sha256[:8]}"
        )


@pytest.mark.parametrize("form", FORMS)
def test_only_published_digests_give_the_plain_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder = write(tmp_path / "data", form)
    publish(monkeypatch)
    proved = form in ("python", "python packed")
    for _ in range(2):  # the second from the cache
        source = load(folder)[0][2]
        assert source.name == ("CIFAR-10" if proved else "CIFAR-10 (unknown digest)")
        assert source.full


def test_copies_by_jpeg_never_pass_for_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "data", packed=True, kind="jpg")
    assert load(folder)[0][2].name == "CIFAR-10 subset (JPEG copies)"
    publish(monkeypatch)
    assert load(folder)[0][2].name == "CIFAR-10 subset (JPEG copies)"  # as it was cached
    (folder / "test.tar").touch()
    for _ in range(2):
        source = load(folder)[0][2]
        assert (source.name, source.full) == ("CIFAR-10 (JPEG copies)", True)
        assert source.caption().startswith("CIFAR-10 (JPEG copies), 20 train / 10 test (train.tar")


@pytest.mark.parametrize("form", ["folders", "folders packed", "python packed"])
def test_a_second_start_decodes_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    calls: list[str] = []
    for module, name in ((pictures, "read_image"), (cifar10_batches, "read_batch")):
        original = getattr(module, name)

        def counted(*values: object, original=original, name=name, **options: object) -> object:
            calls.append(name)
            return original(*values, **options)

        monkeypatch.setattr(module, name, counted)
    folder = write(tmp_path / "data", form)
    first, lines = load(folder)
    count = len(calls)
    assert count == (6 if "python" in form else 30)
    assert len(lines) == 1 and "(once" in lines[0] and str(folder) in lines[0]
    second, lines = load(folder)
    assert len(calls) == count and lines == [] and first[2] == second[2]
    next(cache.glob("*.npz")).write_bytes(b"damaged")
    assert "is damaged" in load(folder)[1][0] and len(calls) == 2 * count
    path = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    shutil.copyfile(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)  # the same bytes, of another time
    assert "was made from other files" in load(folder)[1][0] and len(calls) == 3 * count
    assert len(list(cache.glob("*.npz"))) == 1


def test_unpacked_batches_are_not_cached(tmp_path: Path, cache: Path) -> None:
    assert load(write(tmp_path / "data", "python"))[1] == []
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_lines(tmp_path: Path, cache: Path) -> None:
    cache.parent.write_bytes(b"")
    (_, _, source), lines = load(write(tmp_path / "data", "folders"))
    assert source.train_count == 20 and "CIFAR-10 is not cached" in lines[-1]


def test_batches_are_preferred_to_pictures_and_must_be_complete(tmp_path: Path) -> None:
    folder = write(write(tmp_path / "data", "folders"), "python")
    assert load(folder)[0][2].source.startswith("python batches")
    assert load(folder, "folders")[0][2].source.startswith("folder train")
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match=r"data lacks test_batch; expected data_batch_1"):
        load(folder)


# Refusals


def test_a_directory_without_any_form_lists_all_of_them(tmp_path: Path) -> None:
    words = r"holds no CIFAR-10; expected data_batch_1 .*cifar-10-python\.tar\.gz; or .*train\.tar"
    with pytest.raises(DataError, match=words):
        load(tmp_path)
    with pytest.raises(DataError, match=r"nowhere does not exist; expected .*train\.tar"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(("form", "other"), [("python", "folders"), ("folders", "python")])
def test_a_form_that_is_named_is_never_replaced_by_another(
    tmp_path: Path, form: str, other: str
) -> None:
    folder = write(tmp_path / "data", other)
    with pytest.raises(DataError, match=r"data holds no .*; expected"):
        load(folder, form)


def test_a_damaged_member_is_one_line_with_archive_and_member(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "data", "folders packed")
    write_tar(folder / "test.tar", {"cat/1.png": b"\x89PNG\r\n\x1a\n"})
    with pytest.raises(DataError, match=r"test\.tar holds no pictures of airplane"):
        load(folder)
    assert not list(cache.glob("*.npz"))


@pytest.mark.slow
def test_the_whole_of_the_real_pictures_is_read_and_cached(real_cifar10: Path) -> None:
    (train, test, source), lines = load(real_cifar10)
    assert (source.name, source.full) == ("CIFAR-10 (JPEG copies)", True)
    assert source.sha256 in provenance.PUBLISHED["cifar10"].copies
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    means = train.images.reshape(-1, 3).mean(0) / 255
    # Of the published training images, which JPEG keeps.
    assert np.abs(means - (0.4914, 0.4822, 0.4465)).max() < 0.002
    assert len(lines) > 1
    again, lines = load(real_cifar10)
    assert lines == [] and again[2] == source
