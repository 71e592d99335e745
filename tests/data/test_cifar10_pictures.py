"""Pictures in a folder per class: pixels, order, and a clear refusal of everything else."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cifar_files import CLASSES, picture, pictures_of, some_arrays, write_pictures, write_tar
from research.data import cifar10_pictures as pictures
from research.data.provenance import Absent, DataError

PIXELS = some_arrays()["test_images"][0]
PNG, JPEG = picture(PIXELS), picture(PIXELS, "jpg")


def refusal(call: Callable[[], object], *words: str) -> str:
    with pytest.raises(DataError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


# Folders and tar files


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_come_in_turns_of_the_classes_by_name(tmp_path: Path, packed: bool) -> None:
    found = pictures.find(write_pictures(tmp_path, packed=packed))
    arrays, lossy = pictures.read(found, print)
    assert not lossy
    for key, array in some_arrays().items():
        np.testing.assert_array_equal(arrays[key], array)


def test_the_order_of_the_members_does_not_matter(tmp_path: Path) -> None:
    files = pictures_of("train")
    backwards = dict(sorted(files.items(), reverse=True))
    arrays, _ = pictures.read({"train": write_tar(tmp_path / "train.tar", backwards)}, print)
    np.testing.assert_array_equal(arrays["train_images"], some_arrays()["train_images"])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("above", ["test", "cifar10/test"])
def test_a_split_may_lie_in_folders_of_its_own(tmp_path: Path, packed: bool, above: str) -> None:
    files = {f"{above}/{name}": content for name, content in pictures_of("test").items()}
    path = tmp_path / ("test.tar" if packed else "test")
    if packed:
        write_tar(path, files)
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    arrays, _ = pictures.read({"test": path}, print)
    np.testing.assert_array_equal(arrays["test_images"], some_arrays()["test_images"])


def test_two_splits_in_one_archive_are_not_mixed(tmp_path: Path) -> None:
    files = {f"{s}/{name}": PNG for s in ("train", "test") for name in pictures_of("test")}
    path = write_tar(tmp_path / "train.tar", files)
    refusal(lambda: pictures.read({"train": path}, print), "holds classes in test and in train")


def test_the_folder_that_an_archive_unpacks_to_is_found(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cifar10")
    assert pictures.find(tmp_path)["test"] == tmp_path / "cifar10" / "test"


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_without_a_class_folder_are_kaggles_competition(
    tmp_path: Path, packed: bool
) -> None:
    path = tmp_path / ("test.tar" if packed else "test")
    if packed:
        write_tar(path, {"test/1.png": PNG})
    else:
        path.mkdir()
        (path / "1.png").write_bytes(PNG)
    words = ("1.png in no class folder", "trainLabels.csv", "cifar-10-python.tar.gz")
    refusal(lambda: pictures.read({"test": path}, print), str(path), *words)


def test_a_picture_that_viewers_turn_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG"):
        stream = io.BytesIO()
        Image.fromarray(PIXELS).save(stream, kind, exif=exif)
        path = break_split(write_pictures(tmp_path), "cat/0003.jpg", stream.getvalue(), False)
        refusal(lambda p=path: pictures.read({"test": p}, print), "0003.jpg: EXIF orientation 6")


def test_one_jpeg_among_the_pictures_is_told(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path)
    (folder / "train" / "cat" / "0003.png").write_bytes(JPEG)
    assert pictures.read(pictures.find(folder), print)[1]


def test_classes_of_different_sizes_keep_every_picture(tmp_path: Path) -> None:
    files = {**pictures_of("test"), "cat/9999.png": PNG, "cat/9998.png": PNG}
    arrays, _ = pictures.read({"test": write_tar(tmp_path / "test.tar", files)}, print)
    assert arrays["test_labels"].tolist() == [*range(10), 3, 3]


def test_hidden_files_of_file_managers_are_passed_over(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path)
    for name in (".DS_Store", "cat/._0003.png"):
        (folder / "test" / name).write_bytes(b"x")
    write_tar(folder / "train.tar", {**pictures_of("train"), "cat/._0.png": b"", ".x": b""})
    arrays, _ = pictures.read(pictures.find(folder), print)
    assert len(arrays["train_labels"]) == 20 and len(arrays["test_labels"]) == 10


def test_progress_is_told_while_it_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pictures.find(write_pictures(tmp_path, packed=True))
    said: list[str] = []
    pictures.read(found, said.append)
    assert said == []
    monkeypatch.setattr(pictures, "_SAY_EVERY_S", -1.0)
    pictures.read(found, said.append)
    assert said[12] == "decoding train.tar: 13 of 20 images"


# Refusals


def break_split(folder: Path, name: str, content: bytes | None, packed: bool) -> Path:
    """The test split with one more file, or without one, as a folder or a tar file."""
    files = pictures_of("test")
    if content is None:
        del files[name]
    else:
        files[name] = content
    if packed:
        return write_tar(folder / "test.tar", files)
    shutil.rmtree(folder / "test")
    for each, bytes_ in files.items():
        (folder / "test" / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / "test" / each).write_bytes(bytes_)
    return folder / "test"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("puma/1.png", PNG, ("puma", "no class of CIFAR-10; expected airplane, automobile")),
        ("Cat/1.png", PNG, ("'Cat' is no class",)),
        ("cat/0003.png", None, ("holds no pictures of cat; expected <class>/NAME",)),
        ("cat/1.gif", PNG, ("cat/1.gif: expected a name with .png, .jpg, .jpeg",)),
        ("cat/1.png", PNG[:-30], ("cat/1.png: damaged or truncated",)),
        ("cat/1.jpg", JPEG[:-60], ("cat/1.jpg: damaged or truncated",)),
        ("cat/1.png", picture(PIXELS[..., 0]), ("cat/1.png: 32 x 32 pixels, grey", "RGB")),
        ("readme.txt", b"x", ("readme.txt", "is no class of CIFAR-10")),
    ],
)
def test_a_split_with_something_else_in_it_is_refused(
    tmp_path: Path, packed: bool, name: str, content: bytes | None, words: tuple[str, ...]
) -> None:
    folder = write_pictures(tmp_path)
    path = break_split(folder, name, content, packed)
    refusal(lambda: pictures.read(pictures.find(folder), print), str(path), *words)


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_split_lacks_every_class(tmp_path: Path, packed: bool) -> None:
    folder = write_pictures(tmp_path)
    shutil.rmtree(folder / "test")
    if packed:
        write_tar(folder / "test.tar", {})
    else:
        (folder / "test").mkdir()
    words = ("holds no pictures of airplane, automobile", "truck")
    refusal(lambda: pictures.read(pictures.find(folder), print), str(folder / "test"), *words)


def test_a_truncated_tar_file_is_refused(tmp_path: Path) -> None:
    path = write_pictures(tmp_path, packed=True) / "test.tar"
    path.write_bytes(path.read_bytes()[:-15_000])
    refusal(lambda: pictures.read(pictures.find(tmp_path), print), f"{path}: damaged or truncated")


def test_a_picture_of_a_megabyte_is_refused_unread(tmp_path: Path) -> None:
    path = break_split(write_pictures(tmp_path), "cat/1.png", bytes(2**20 + 1), packed=True)
    refusal(lambda: pictures.read({"test": path}, print), f"{path}: cat/1.png has 1,048,577 bytes")


def test_a_file_in_the_place_of_a_class_and_a_folder_in_that_of_a_picture(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path)
    shutil.rmtree(folder / "test" / "cat")
    (folder / "test" / "cat").write_bytes(b"x")
    refusal(lambda: pictures.read({"test": folder / "test"}, print), "cat", "Not a directory")
    (folder / "train" / "cat" / "0.png").mkdir()
    refusal(lambda: pictures.read({"train": folder / "train"}, print), "0.png", "Is a directory")


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"holds no folders of pictures; expected train and test"):
        pictures.find(tmp_path)
    shutil.rmtree(write_pictures(tmp_path) / "test")
    refusal(lambda: pictures.find(tmp_path), f"{tmp_path} lacks test and test.tar", *CLASSES)
    refusal(lambda: pictures.find(tmp_path / "no"), "no does not exist; expected a directory")


def test_the_files_of_both_splits_are_listed(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path)
    assert sorted(pictures.files(pictures.find(folder))) == sorted(folder.rglob("*.png"))
    write_tar(folder / "test.tar", pictures_of("test"))
    train = sorted((folder / "train").rglob("*.png"))
    assert sorted(pictures.files(pictures.find(folder))) == sorted([folder / "test.tar", *train])


def test_the_test_split_of_the_real_pictures_is_read(
    real_cifar10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_SAY_EVERY_S", 0.2)
    said: list[str] = []
    arrays, lossy = pictures.read({"test": real_cifar10 / "test.tar"}, said.append)
    images, labels = arrays["test_images"], arrays["test_labels"]
    assert lossy and images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert labels[:12].tolist() == [*range(10), 0, 1]
    # Means of the channels of the published test images, which JPEG keeps.
    assert np.abs(images.mean((0, 1, 2)) / 255 - (0.494, 0.485, 0.450)).max() < 0.002
    assert said and said[0].endswith("of 10,000 images")
