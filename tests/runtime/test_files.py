"""Files of a work directory: the same on a disk and in a store, but for what a store cannot do."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import jax
import numpy as np
import object_store
import pytest
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from benchmarks import measure
from research.data import tfds
from research.data.provenance import existing_directory
from research.experiments.noise import samples
from research.faces import dataset, ingest
from research.ledger import claims, runs
from research.page import viewer
from research.runtime import files, sharding
from research.storage import run_directory
from research.structs import Dataset, UserError


@pytest.fixture
def store(tmp_path, monkeypatch):
    return object_store.install(tmp_path / "objects", monkeypatch)


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


def test_what_is_made_or_renamed_is_followed_by_an_fsync_of_its_directory(tmp_path, monkeypatch):
    """Without it a name may be gone after a power cut, though the content is on the disk."""
    synced = []
    fsync = os.fsync

    def watched(number):
        synced.append(Path(os.readlink(f"/proc/self/fd/{number}")))
        fsync(number)

    monkeypatch.setattr(os, "fsync", watched)
    folder = tmp_path / "deep/er"
    files.make_folder(folder)
    assert synced == [tmp_path, tmp_path / "deep"]
    for write in (files.replace, files.append):
        synced.clear()
        write(folder / write.__name__, "content")
        assert folder in synced
    synced.clear()
    files.append(folder / "append", "more")
    assert synced == [folder / "append"]
    files.replace(folder / "replace", "later", named=False)
    assert folder not in synced


def test_a_tree_is_copied_with_its_places(workdir, tmp_path):
    (tmp_path / "from/in").mkdir(parents=True)
    (tmp_path / "from/in/a").write_text("a")
    (tmp_path / "from/b").write_text("b")
    files.copy_tree(tmp_path / "from", workdir / "to")
    assert (workdir / "to/in/a").read_text() + (workdir / "to/b").read_text() == "ab"


def test_only_the_first_process_writes(workdir, monkeypatch):
    files.make_folder(workdir)
    files.replace(workdir / "file", "first")
    monkeypatch.setattr(files.distributed, "is_first", lambda: False)
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
        with pytest.raises(UserError, match="not a path, nor one of gs://bucket/path, s3://"):
            _ = files.locate(wrong)


def test_a_leading_tilde_is_the_home_wherever_a_path_is_typed(tmp_path, monkeypatch):
    """In flags, keys of the config, notebooks and benchmarks; and no directory "~" appears."""
    home, here = tmp_path / "home", tmp_path / "here"
    for each in (home / "data", here):
        each.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TFDS_DATA_DIR", "~/tfds")
    monkeypatch.chdir(here)
    assert files.locate("~/a/b") == home / "a/b" and files.locate("a~/~b") == Path("a~/~b")
    with pytest.raises(UserError, match="~no-such-user/a: no such home is known"):
        _ = files.locate("~no-such-user/a")
    assert existing_directory("~/data", "anything") == home / "data"
    assert runs.data_directories(["mnist=~/data"], claims.read()) == {"mnist": str(home / "data")}
    before = jax.config.jax_compilation_cache_dir
    sharding.cache_programs("~/compiled")
    assert jax.config.jax_compilation_cache_dir == str(home / "compiled")
    jax.config.update("jax_compilation_cache_dir", before)
    digits = Dataset(np.zeros((1, 4, 4, 1), np.uint8), np.zeros(1, np.int32))
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(home / "seven.png")
    assert (samples.read_picture(ConfigDict({"input": "~/seven.png"}), digits) == 7).all()
    for typed in (
        lambda: tfds.load("mnist", "", "", False, print),
        lambda: viewer.load("~/run", "depth"),
        lambda: dataset.prepare(request("~/data"), "~", print, print),
    ):
        with pytest.raises(UserError, match=str(home)):
            typed()
    values = measure.make_flags("depth")
    given = ["", "--data_dir=~/data", "--output=~/x.json"]
    assert measure.begin(values, given, "", str) == home / "x.json"
    assert values.data_dir == str(home / "data")
    assert list(here.iterdir()) == []


def request(directory):
    cut = ingest.Cut(0.0, 8, 1)
    return dataset.Request({"voc": directory}, False, cut, 0.1, 0.1, 1.0, 0, {})


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


ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["stand-in", "s3"])
def bucket(request, tmp_path, monkeypatch):
    """A directory in a store, and the words of a command that runs an experiment with it.

    s3: the package s3fs, and a server of moto's, which both have to be installed for this test.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    if request.param == "stand-in":
        words = (str(ROOT / "tests/object_store.py"),)
        yield object_store.install(tmp_path / "objects", monkeypatch), words
        return
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server())
    fsspec.register_implementation("s3", "s3fs.S3FileSystem", clobber=True)
    store = fsspec.filesystem("s3", use_listings_cache=False)
    store.makedirs("bucket", exist_ok=True)
    yield files.locate(f"s3://bucket/{tmp_path.name}"), ("-m", "research.main")


@functools.cache
def moto_server():
    """Its address; one for all tests, since s3fs keeps the first that it is told of."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_in_a_store_survives_signals_with_the_records_of_a_disk(bucket, tmp_path, signum):
    workdir, words = bucket

    def start(where):
        flags = ("--config=configs/mlp.py:tanh-5,smoke", "--config.epochs=30", "--processes=1")
        flags += (f"--workdir={where}", f"--compilation_cache={tmp_path / 'compiled'}")
        command = [sys.executable, *words, *flags]
        return subprocess.Popen(command, cwd=ROOT, env=dict(os.environ, JAX_PLATFORMS="cpu"))

    def records(where):
        timed = ("seconds", "step_ms")
        rows = [{k: row[k] for k in row if k not in timed} for row in run_directory.rows(where)]
        return rows, {
            name: array.tolist() for name, array in run_directory.gradients(where).items()
        }

    assert start(tmp_path / "disk").wait(120) == 0
    process, deadline = start(workdir), time.monotonic() + 120
    while len(run_directory.rows(workdir)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signum)
    assert process.wait(60) == (-signum if signum == signal.SIGKILL else 128 + signum)
    assert 5 <= len(run_directory.rows(workdir)) < 30
    assert start(workdir).wait(120) == 0
    # NaN stands in them where a layer has no such statistic, and is equal to itself here.
    np.testing.assert_equal(records(workdir), records(tmp_path / "disk"))


def test_a_directory_can_be_written_if_it_is_or_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert files.can_write(tmp_path / "a/b") and files.can_write(Path("a/b"))
    assert not files.can_write(tmp_path / "file/a") and not files.can_write(Path("file"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere else
    assert not files.can_write(tmp_path / "a/b")
