"""Files of a work directory: the same on a disk and in a store, but for what a store cannot do."""

import fsspec
import object_store
import pytest
from etils import epath

from research import files
from research.types import UserError


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A bucket that is there."""
    folder = tmp_path / "objects"
    folder.mkdir()
    monkeypatch.setenv(object_store.FOLDER, str(folder))
    object_store.install(folder)
    return files.locate(f"s3://{object_store.BUCKET}/runs/one")


@pytest.fixture(params=["disk", "epath", "store"])
def workdir(request, tmp_path):
    """A directory of each kind."""
    if request.param == "store":
        return request.getfixturevalue("store")
    folder = tmp_path / "run"
    return epath.Path(folder) if request.param == "epath" else folder


def test_a_file_is_replaced_appended_to_copied_and_removed(workdir):
    files.make_folder(workdir / "deep/er")
    path = workdir / "deep/er/file.txt"
    files.replace(path, "one\n")
    files.append(path, "two\n")
    files.append(workdir / "deep/new.txt", "three\n")
    files.copy(path, workdir / "copy.txt")
    assert [(workdir / name).read_text() for name in ("copy.txt", "deep/new.txt")] == [
        "one\ntwo\n",
        "three\n",
    ]
    files.replace(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [each.name for each in path.parent.iterdir()] == ["file.txt"]
    files.remove(workdir / "copy.txt")
    files.remove(workdir / "deep")
    files.remove(workdir / "deep")
    assert not (workdir / "copy.txt").exists() and not (workdir / "deep").exists()


def test_a_tree_is_copied_with_its_places(workdir, tmp_path):
    (tmp_path / "from/in").mkdir(parents=True)
    (tmp_path / "from/in/a").write_text("a")
    (tmp_path / "from/b").write_text("b")
    files.copy_tree(tmp_path / "from", workdir / "to")
    assert (workdir / "to/in/a").read_text() + (workdir / "to/b").read_text() == "ab"


def test_only_the_first_process_writes(workdir, monkeypatch):
    files.make_folder(workdir)
    files.replace(workdir / "file", "first")
    monkeypatch.setattr(files.processes, "first", lambda: False)
    files.replace(workdir / "file", "second")
    files.append(workdir / "file", "second")
    files.copy(workdir / "file", workdir / "copy")
    files.remove(workdir / "file")
    files.make_folder(workdir / "folder")
    assert (workdir / "file").read_text() == "first"
    assert [each.name for each in workdir.iterdir()] == ["file"]


def test_a_directory_is_of_this_machine_or_of_a_store(store):
    assert not files.stored(files.locate("runs/one"))
    assert files.stored(store) and str(store) == "s3://bucket/runs/one"
    assert files.stored(files.locate("gs://bucket/x") / "y")
    for wrong in ("http://host/x", "gs://", "gs:///"):
        with pytest.raises(UserError, match="not a directory, nor one of gs://bucket/path, s3://"):
            _ = files.locate(wrong)


def test_a_store_whose_package_is_missing_says_what_to_install(monkeypatch):
    def missing(scheme):
        raise ImportError(scheme)

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    said = f"gs:// needs the package gcsfs.*pip install gcsfs=={fsspec.__version__}"
    with pytest.raises(UserError, match=said):
        _ = files.locate("gs://bucket/run")


def test_a_bucket_that_is_not_there_is_named_and_not_made(store):
    files.check_store(store)
    with pytest.raises(UserError, match="there is no bucket s3://other"):
        files.check_store(files.locate("s3://other/run"))


def test_what_a_store_refuses_is_an_error_as_of_a_disk(store, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("quota\nused up")

    monkeypatch.setattr(object_store.ObjectStore, "_open", refuse)
    with pytest.raises(OSError, match=r"s3://bucket/runs/one/file: quota$"):
        files.replace(store / "file", "content")
