import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chex
import numpy as np
import object_store
import pytest
from several import run

from research.runtime import files
from research.storage import checkpoint
from research.structs import UserError

HERE = Path(__file__).parent


def state(epoch):
    values = np.random.default_rng(epoch).normal(size=(2, 40, 30)).astype(np.float32)
    return {"params": {"kernel": values, "bias": values[0, 0]}, "step": np.full(2, epoch, np.int32)}


RUN = {"net": "tanh-5", "config": {"seed": 0, "learning_rate": 0.1}, "data": "ab"}


def records(epoch):
    """What is known of the epochs, in binary as in text; longer with every epoch."""
    return {"metrics.jsonl": b"{}\n" * epoch, "gradients.npz": bytes(range(256)) * epoch}


def opened(directory, run=RUN):
    return checkpoint.Checkpoints(directory, run)


def save(checkpoints, epoch, seed=None):
    checkpoints.save(epoch, state(epoch if seed is None else seed), records(epoch))


def restore(directory, run=RUN):
    """((epoch, state) or None, what was said); the records have to be those of the epoch."""
    said = []
    restored = checkpoint.restore_newest(directory, run, state(0), say=said.append)
    if restored is None:
        return None, said
    assert restored.records == records(restored.epoch)
    return restored[:2], said


def contents(directory):
    """{path: (time of change, size)} of everything in a directory."""
    return {
        path.relative_to(directory): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in (directory, *directory.rglob("*"))
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with opened(directory) as checkpoints:
        for epoch in (1, 2, 3, 4):
            save(checkpoints, epoch)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_the_newest_state_comes_back_bit_for_bit(saved):
    (epoch, found), said = restore(saved)
    assert (epoch, said) == (4, [])
    chex.assert_trees_all_equal(found, state(4))
    assert found["params"]["kernel"].dtype == np.float32


def test_three_states_are_kept_and_the_trash_is_emptied_at_the_next_start(copy):
    assert sorted(p.name for p in copy.iterdir() if p.name.isdecimal()) == ["2", "3", "4"]
    with opened(copy):
        pass
    assert not (copy / "trash").exists()


def test_reading_changes_nothing_of_what_a_training_has_not_finished(copy):
    (copy / "5.orbax-checkpoint-tmp-17").mkdir()
    assert (copy / "trash").is_dir()
    before = contents(copy)
    assert restore(copy)[0][0] == 4
    assert contents(copy) == before
    assert restore(copy.parent / "none") == (None, []) and not (copy.parent / "none").exists()


def test_a_training_and_its_readers_do_not_disturb_one_another(tmp_path):
    """States come and go under the reader, several a second: it has whole ones, no complaint."""
    directory, epochs = tmp_path / "checkpoints", 15
    ended = threading.Event()

    def train():
        try:
            with opened(directory) as checkpoints:
                for epoch in range(1, epochs + 1):
                    save(checkpoints, epoch)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train)
        read = []
        while not ended.is_set():
            found, said = restore(directory)
            assert said == []
            if found:
                chex.assert_trees_all_equal(found[1], state(found[0]))
                read.append(found[0])
        training.result()
    assert read and read == sorted(read)
    assert restore(directory)[0][0] == epochs


def test_a_state_that_is_gone_when_it_is_read_is_looked_for_again(copy, monkeypatch):
    """As when the training has saved one more, twice, since the directory was listed."""
    read, newest = checkpoint._read, iter([5, 6])

    def late(folder, *arguments):
        if (epoch := next(newest, None)) is not None:
            with opened(copy, RUN) as checkpoints:
                save(checkpoints, epoch)
            shutil.rmtree(folder)
        return read(folder, *arguments)

    monkeypatch.setattr(checkpoint, "_read", late)
    (epoch, found), said = restore(copy)
    assert (epoch, said) == (6, [])
    chex.assert_trees_all_equal(found, state(6))


def test_an_empty_directory_holds_nothing(tmp_path):
    assert restore(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("copied", ["3 as 4", "of another seed", "of other data", "of before"])
def test_a_checkpoint_of_another_epoch_or_run_is_passed_over(copy, tmp_path, copied):
    """However whole it is."""
    shutil.rmtree(copy / "4")
    if copied == "3 as 4":
        shutil.copytree(copy / "3", copy / "4")
    else:
        other = {
            "of another seed": {**RUN, "config": {**RUN["config"], "seed": 1}},
            "of other data": {**RUN, "data": "cd"},
        }.get(copied, RUN)
        with opened(tmp_path / "other", other) as checkpoints:
            save(checkpoints, 4)
        shutil.copytree(tmp_path / "other" / "4", copy / "4")
        if copied == "of before":
            shutil.rmtree(copy / "4" / "records")
    (epoch, found), (said,) = restore(copy)
    assert epoch == 3 and "checkpoint 4" in said and "\n" not in said
    chex.assert_trees_all_equal(found, state(3))
    assert ("of another run or epoch" in said) == (copied != "of before")


def test_records_of_another_epoch_are_not_those_of_a_state(copy):
    shutil.rmtree(copy / "4" / "records")
    shutil.copytree(copy / "3" / "records", copy / "4" / "records")
    (epoch, _), (said,) = restore(copy)
    assert epoch == 3 and "the digest of ['gradients.npz'] differs" in said


def test_saving_again_after_a_fall_back_replaces_the_later_states(copy):
    with opened(copy) as checkpoints:
        save(checkpoints, 3, 30)
    assert restore(copy)[0][0] == 3
    with opened(copy) as checkpoints:
        for later in (4, 5, 6, 7):  # long enough for 3 and 4 to be thrown away a second time
            save(checkpoints, later, 10 * later)
    (epoch, found), _ = restore(copy)
    assert epoch == 7
    chex.assert_trees_all_equal(found, state(70))


def damaged_copies(copy, tmp_path):
    """Every file of the newest state, with one bit flipped, cut in half, or deleted."""
    for file in sorted(p.relative_to(copy) for p in (copy / "4").rglob("*") if p.is_file()):
        for kind in ("flip", "cut", "delete"):
            directory = shutil.copytree(copy, tmp_path / f"{kind}-{str(file).replace('/', '-')}")
            path = directory / file
            content = bytearray(path.read_bytes())
            if kind == "delete" or not content:
                path.unlink()
            else:
                content[len(content) // 2] ^= 16
                path.write_bytes(content if kind == "flip" else content[: len(content) // 2])
            yield f"{kind} {file}", directory


# Orbax leaves a closed event loop behind when a read fails inside it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_damage_to_any_file_ever_returns_a_wrong_state(copy, tmp_path):
    fell_back = 0
    for what, directory in damaged_copies(copy, tmp_path):
        (epoch, found), said = restore(directory)
        chex.assert_trees_all_equal(found, state(epoch))
        assert (epoch == 4) == (said == []), what
        if epoch == 3:
            assert "checkpoint 4" in said[0] and "damaged" in said[0], what
            fell_back += 1
    assert fell_back > 10


def test_a_flipped_bit_in_the_array_itself_is_noticed_by_its_digest(copy):
    (data,) = (p for p in (copy / "4").rglob("d/*") if p.stat().st_size > 4000)
    content = bytearray(data.read_bytes())
    content[3000] ^= 1
    data.write_bytes(content)
    (epoch, _), said = restore(copy)
    assert epoch == 3
    assert "digest" in said[0] and "kernel" in said[0]


def test_when_every_state_is_damaged_the_run_ends_and_nothing_is_deleted(copy):
    for digest in copy.glob("*/digest/metadata"):
        digest.write_text("{}")
    before = contents(copy)
    with pytest.raises(
        UserError, match=r"none of the checkpoints \[4, 3, 2\] can be used"
    ) as caught:
        _ = restore(copy)
    assert contents(copy) == before and "delete" not in str(caught.value)


def test_a_state_of_another_shape_is_not_taken(copy):
    with pytest.raises(UserError):
        _ = checkpoint.restore_newest(copy, RUN, {"step": np.zeros(3, np.int32)}, say=print)


def test_no_state_is_saved_once_the_lock_of_the_directory_is_lost(copy):
    lock = copy.parent / ".lock"
    lock.touch()
    with files.guarded(lock), opened(copy) as checkpoints:
        lock.unlink()
        before = contents(copy)
        with pytest.raises(UserError, match="was removed or replaced"):
            save(checkpoints, 5)
        with pytest.raises(UserError, match="was removed or replaced"):
            _ = opened(copy)
    assert contents(copy) == before


def test_digests_see_values_shapes_and_types():
    one = {"x": np.zeros((2, 3), np.float32)}
    others = [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32), np.eye(2, 3, dtype="f4")]
    assert all(checkpoint.digests({"x": x}) != checkpoint.digests(one) for x in others)
    assert checkpoint.digests(one) == checkpoint.digests({"x": np.zeros((2, 3), np.float32)})


@pytest.fixture
def store(tmp_path, monkeypatch):
    directory = object_store.install(tmp_path / "objects", monkeypatch) / "checkpoints"
    with opened(directory) as checkpoints:
        for epoch in (1, 2, 3, 4):
            save(checkpoints, epoch)
    return directory


def test_in_a_store_a_state_is_one_object_and_three_are_kept(store):
    assert sorted(path.name for path in store.iterdir()) == ["2.tar.gz", "3.tar.gz", "4.tar.gz"]
    (epoch, found), said = restore(store)
    assert (epoch, said) == (4, [])
    chex.assert_trees_all_equal(found, state(4))
    with opened(store) as checkpoints:
        save(checkpoints, 3, 30)
        assert sorted(path.name for path in store.iterdir()) == ["2.tar.gz", "3.tar.gz"]
    chex.assert_trees_all_equal(restore(store)[0][1], state(30))


def test_a_damaged_object_is_passed_over(store):
    content = bytearray((store / "4.tar.gz").read_bytes())
    for damaged in (content[: len(content) // 2], b"", b"no tar", _flipped(content)):
        (store / "4.tar.gz").write_bytes(bytes(damaged))
        (epoch, found), (said,) = restore(store)
        assert epoch == 3 and "checkpoint 4" in said and "damaged" in said
        chex.assert_trees_all_equal(found, state(3))


def _flipped(content):
    """With one bit changed in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_store_that_refuses_is_named(store, monkeypatch):
    monkeypatch.setattr(object_store.ObjectStore, "_open", lambda *_, **__: 1 / 0)
    with opened(store) as checkpoints:
        with pytest.raises(
            UserError, match=r"cannot write a checkpoint to s3://.*division by zero"
        ):
            save(checkpoints, 5)


TOGETHER = """
import json, sys
from pathlib import Path
import jax, numpy as np
given = dict(word[2:].split("=") for word in sys.argv[1:])
from research.runtime import files
from research.storage import checkpoint
from research.runtime import distributed
from research.storage import run_directory as record
from research.structs import UserError
distributed.initialize(coordinator=given["coordinator"], processes=int(given["processes"]),
                       process=int(given["process"]))
me, folder, said = distributed.process_index(), Path(given["folder"]), []
from storage.test_checkpoint import opened, records, restore, save, state
with record.locked(folder / "run"), opened(folder / "run/checkpoints") as kept:
    found, said = restore(folder / "run/checkpoints")
    kept.save(2, jax.tree.map(jax.numpy.asarray, state(20)), records(2))
    save(kept, 3, 30)
    log = record.EpochLog(folder / "run", ["output"], probed=False)
    log.continue_from({})
    for epoch in (1, 2):
        log.write(epoch, {"epoch": epoch, "by": me}, {})
    rows, absent = record.rows(folder / "run"), record.finished_summary(folder / "run")
try:
    with record.locked(folder / f"own-{me}"):
        pass
except UserError as error:
    said.append(str(error))
same = checkpoint.digests(state(1)) == checkpoint.digests(found[1])
print(json.dumps({"epoch": found[0], "same": same, "said": said, "rows": rows,
                  "held": sorted(log.contents()), "absent": absent}), flush=True)
distributed.close()
"""


def go_on(count, folder):
    """Several processes go on with the states of `folder`; what each of them found."""
    ended = run(count, ("-c", TOGETHER, f"--folder={folder}"), PYTHONPATH=f"{HERE}:{HERE.parent}")
    assert [each.code for each in ended] == [0] * count, [each.err for each in ended]
    return [json.loads(each.out) for each in ended]


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_go_on_with_what_one_has_saved_and_the_reverse(count, tmp_path):
    """And their records are one, of a directory that all of them see."""
    with opened(tmp_path / "run/checkpoints") as checkpoints:
        save(checkpoints, 1)
    shutil.copytree(tmp_path / "run/checkpoints/1", tmp_path / "run/checkpoints/2")
    for number, found in enumerate(go_on(count, tmp_path)):
        copied, apart = found["said"]
        assert (found["epoch"], found["same"]) == (1, True) and "run or epoch" in copied
        assert f"of {count} (from 0) and the first one" in apart
        assert found["held"] == ([] if number else ["metrics.jsonl"]) and found["absent"] is None
        assert found["rows"] == [{"epoch": epoch, "by": 0} for epoch in (1, 2)]
    (epoch, state_found), said = restore(tmp_path / "run/checkpoints")
    assert (epoch, said) == (3, [])
    chex.assert_trees_all_equal(state_found, state(30))
