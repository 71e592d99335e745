"""CIFAR-10 through every door: the same arrays, the truth about them, and clear refusals."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from data.cifar_files import publish, some_arrays, write_batches, write_pictures, write_tar
from research.data import cifar10_batches, pictures, provenance
from research.data.cifar10 import load_cifar10
from research.data.provenance import DataError, Loaded

FORMS = {
    "python": "python batches",
    "python packed": "cifar-10-python.tar.gz",
    "binary": "binary batches",
    "binary packed": "cifar-10-binary.tar.gz",
    "folders": "folder train and folder test",
    "folders packed": "train.tar and test.tar",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar10_batches, "URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    return tmp_path / "cache" / "small-net-laboratory"


def write(folder: Path, form: str) -> Path:
    packed = form.endswith(" packed")
    name = form.removesuffix(" packed")
    if name == "folders":
        return write_pictures(folder, packed=packed)
    return write_batches(folder, name, packed=packed)


def load(folder: Path, **options: object) -> tuple[Loaded, list[str]]:
    said: list[str] = []
    options = {"source": "auto", "say": said.append, **options}
    return load_cifar10(directory=str(folder), **options), said  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_arrays(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "data", form)
    for name in ("auto", form.removesuffix(" packed")):
        (train, test, found), _ = load(folder, source=name)
        for split, data in (("train", train), ("test", test)):
            np.testing.assert_array_equal(data.images, some_arrays()[f"{split}_images"])
            np.testing.assert_array_equal(data.labels, some_arrays()[f"{split}_labels"])
            assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int32)
        assert found.source == f"{FORMS[form]} in {folder}"
        assert found.sha256 == provenance.finish("cifar10", some_arrays(), "")[2].sha256
        assert found.caption() == (
            f"CIFAR-10 SUBSET, 20 train / 10 test of 60,000 ({FORMS[form]}), "
            f"sha256 {found.sha256[:8]}"
        )


@pytest.mark.parametrize("form", FORMS)
def test_the_name_is_earned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    folder = write(tmp_path / "data", form)
    files = [path for path in folder.iterdir() if path.is_file()]
    publish(monkeypatch, *files)
    if form == "python packed":
        publish(monkeypatch, *write_batches(tmp_path / "loose", "python").iterdir())
    proved = form in ("python", "python packed", "binary packed")
    for _ in range(2):  # the second from the cache
        found = load(folder)[0][2]
        assert found.name == ("CIFAR-10" if proved else "CIFAR-10 (unknown digest)")
        assert found.full


def test_copies_by_jpeg_never_pass_for_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "data", packed=True, kind="jpg")
    assert load(folder)[0][2].name == "CIFAR-10 subset (JPEG copies)"
    publish(monkeypatch)
    assert load(folder)[0][2].name == "CIFAR-10 subset (JPEG copies)"  # as it was cached
    (folder / "test.tar").touch()
    for _ in range(2):
        found = load(folder)[0][2]
        assert (found.name, found.full) == ("CIFAR-10 (JPEG copies)", True)
        assert found.caption().startswith("CIFAR-10 (JPEG copies), 20 train / 10 test (train.tar")


@pytest.mark.parametrize("form", ["folders", "folders packed", "binary packed"])
def test_a_second_start_decodes_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    calls: list[str] = []
    for module, name in ((pictures, "decode"), (cifar10_batches, "read_binary")):
        original = getattr(module, name)

        def counted(content: bytes, where: str, original=original) -> object:
            calls.append(where)
            return original(content, where)

        monkeypatch.setattr(module, name, counted)
    folder = write(tmp_path / "data", form)
    first, said = load(folder)
    count = len(calls)
    assert count == (6 if "binary" in form else 30)
    assert len(said) == 1 and "(once" in said[0] and str(folder) in said[0]
    second, said = load(folder)
    assert len(calls) == count and said == [] and first[2] == second[2]
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


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, cache: Path) -> None:
    cache.parent.write_bytes(b"")
    (_, _, found), said = load(write(tmp_path / "data", "folders"))
    assert found.train_count == 20 and "CIFAR-10 is not cached" in said[-1]


def test_the_batches_are_preferred_to_pictures_and_what_is_whole_to_what_is_not(
    tmp_path: Path,
) -> None:
    folder = write(write(tmp_path / "data", "folders"), "python")
    assert load(folder)[0][2].source.startswith("python batches")
    (folder / "test_batch").unlink()
    assert load(folder)[0][2].source.startswith("folder train")
    shutil.rmtree(folder / "test")
    with pytest.raises(DataError, match=r"data lacks test_batch; expected data_batch_1"):
        load(folder)


# Refusals


def test_a_directory_without_any_form_lists_all_of_them(tmp_path: Path) -> None:
    words = r"holds no CIFAR-10; expected data_batch_1 .*cifar-10-binary\.tar\.gz; or .*train\.tar"
    with pytest.raises(DataError, match=words):
        load(tmp_path)
    with pytest.raises(DataError, match=r"nowhere does not exist; expected .*train\.tar"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("form", ["python", "binary", "folders"])
def test_a_form_that_is_named_is_never_replaced_by_another(tmp_path: Path, form: str) -> None:
    other = "binary" if form == "python" else "python"
    folder = write(tmp_path / "data", other)
    with pytest.raises(DataError, match=r"data holds no .*; expected"):
        load(folder, source=form)
    with pytest.raises(DataError, match=f"'{form}' needs a directory with data_batch_1"):
        load_cifar10(source=form)


def test_an_unknown_source_lists_the_valid_ones(tmp_path: Path) -> None:
    words = "'idx' is unknown; expected one of auto, python, binary, folders, tfds, synthetic for"
    with pytest.raises(DataError, match=words):
        load_cifar10(source="idx")
    with pytest.raises(DataError, match="'synthetic' reads no directory"):
        load(tmp_path, source="synthetic")


def test_pictures_never_stand_in_for_what_is_missing(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DataError) as error:
        load_cifar10(tfds_dir=str(tmp_path / "tfds"), say=said.append)
    message = str(error.value)
    for words in (
        "the full CIFAR-10 is not in",
        "cannot be downloaded (Connection refused)",
        "no sample of it",
        "data_batch_1 to data_batch_5",
        "cifar-10-python.tar.gz",
        "train.tar and test.tar",
        str(tmp_path / "tfds" / "downloads" / "manual"),
    ):
        assert words in message
    assert said == [] and not (tmp_path / "tfds").exists()
    with pytest.raises(DataError, match=r"cannot be downloaded \(not allowed\)"):
        load_cifar10(tfds_dir=str(tmp_path / "tfds"), download=False)


def test_a_damaged_member_is_one_line_with_archive_and_member(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "data", "folders packed")
    write_tar(folder / "test.tar", {"cat/1.png": b"\x89PNG\r\n\x1a\n"})
    with pytest.raises(DataError, match=r"test\.tar holds no pictures of airplane"):
        load(folder)
    assert not list(cache.glob("*.npz"))


def test_synthetic_objects_never_pass_for_cifar_10() -> None:
    train, _, found = load_cifar10(source="synthetic")
    assert train.images.shape == (512, 32, 32, 3)
    assert (found.name, found.full) == ("synthetic", False)
    assert found.caption().startswith("SYNTHETIC OBJECTS, not CIFAR-10, 512 train / 256 test")


def test_nothing_of_tfds_or_tensorflow_is_imported_for_a_directory(tmp_path: Path) -> None:
    load(write(tmp_path / "data", "binary"))
    assert "tensorflow" not in sys.modules


@pytest.mark.slow
def test_the_whole_of_the_real_pictures_is_read_and_cached(real_cifar10: Path) -> None:
    (train, test, found), said = load(real_cifar10)
    assert (found.name, found.full) == ("CIFAR-10 (JPEG copies)", True)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    means = train.images.reshape(-1, 3).mean(0) / 255
    # Of the published training images, which JPEG keeps.
    assert np.abs(means - (0.4914, 0.4822, 0.4465)).max() < 0.002
    assert len(said) > 1
    again, said = load(real_cifar10)
    assert said == [] and again[2] == found
