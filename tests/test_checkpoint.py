import shutil

import chex
import numpy as np
import pytest

from research import checkpoint
from research.types import UserError


def state(epoch):
    values = np.random.default_rng(epoch).normal(size=(2, 40, 30)).astype(np.float32)
    return {"params": {"kernel": values, "bias": values[0, 0]}, "step": np.full(2, epoch, np.int32)}


def restore(directory, usable=lambda epoch: True):
    said = []
    with checkpoint.Checkpoints(directory) as checkpoints:
        found = checkpoints.restore_newest(state(0), say=said.append, usable=usable)
    return found, said


def restore_open(checkpoints):
    found = checkpoints.restore_newest(state(0), say=print, usable=lambda epoch: True)
    return found[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with checkpoint.Checkpoints(directory) as checkpoints:
        for epoch in (1, 2, 3, 4):
            checkpoints.save(epoch, state(epoch))
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
    _ = restore(copy)
    assert not (copy / "trash").exists()


def test_an_empty_directory_holds_nothing(tmp_path):
    assert restore(tmp_path / "none") == (None, [])


def test_a_state_that_the_records_do_not_cover_is_passed_over(copy):
    (epoch, _), said = restore(copy, usable=lambda epoch: epoch <= 3)
    assert epoch == 3
    assert "checkpoint 4" in said[0] and "ahead of the records" in said[0]


def test_saving_again_after_a_fall_back_replaces_the_later_states(copy):
    with checkpoint.Checkpoints(copy) as checkpoints:
        checkpoints.save(3, state(30))
        assert restore_open(checkpoints) == 3
        for later in (4, 5, 6, 7):  # long enough for 3 and 4 to be thrown away a second time
            checkpoints.save(later, state(10 * later))
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
    before = sorted(p for p in copy.rglob("*") if "trash" not in p.parts)
    with pytest.raises(UserError, match=r"none of the checkpoints \[4, 3, 2\] can be used"):
        _ = restore(copy)
    assert sorted(p for p in copy.rglob("*") if "trash" not in p.parts) == before


def test_a_state_of_another_shape_is_not_taken(copy):
    with checkpoint.Checkpoints(copy) as checkpoints, pytest.raises(UserError):
        _ = checkpoints.restore_newest(
            {"step": np.zeros(3, np.int32)}, say=lambda line: None, usable=lambda epoch: True
        )


def test_digests_see_values_shapes_and_types():
    one = {"x": np.zeros((2, 3), np.float32)}
    others = [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32), np.eye(2, 3, dtype="f4")]
    assert all(checkpoint.digests({"x": x}) != checkpoint.digests(one) for x in others)
    assert checkpoint.digests(one) == checkpoint.digests({"x": np.zeros((2, 3), np.float32)})
