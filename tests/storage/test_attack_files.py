"""Pictures byte for byte, one-line refusals, and a log that a kill cannot spoil."""

import json
import os

import numpy as np
import object_store
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from research.storage import attack_files
from research.structs import UserError

GREY = (28, 28, 1)
CELLS = 3


class Killed(BaseException):
    pass


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def killed(*_):
    raise Killed


def refusal(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


# Pictures


@settings(max_examples=30, deadline=None)
@given(
    image=st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])).flatmap(
        lambda shape: arrays.arrays(np.uint8, shape)
    )
)
def test_a_picture_comes_back_byte_for_byte(tmp_path_factory, image):
    path = tmp_path_factory.getbasetemp() / "some" / "picture.png"
    attack_files.write_png(path, image)
    np.testing.assert_array_equal(attack_files.read_png(path), image)
    with Image.open(path) as picture:  # what any other program sees
        assert picture.format == "PNG" and picture.mode == ("L" if image.shape[2] == 1 else "RGB")
        np.testing.assert_array_equal(np.asarray(picture).reshape(image.shape), image)


def test_a_picture_that_is_not_one_in_memory_is_refused(tmp_path):
    wrong = (np.zeros((4, 4)), np.zeros((4, 4, 1)), np.zeros((4, 4), np.uint8), noise((4, 4, 4)))
    for image in wrong:
        with pytest.raises(ValueError, match="expected"):
            attack_files.write_png(tmp_path / "p.png", image)
    assert not list(tmp_path.iterdir())


def test_a_picture_is_replaced_in_one_move(tmp_path, monkeypatch):
    path = tmp_path / "p.png"
    attack_files.write_png(path, noise(GREY))

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "fsync", killed)
        attack_files.write_png(path, noise(GREY, 1))
    np.testing.assert_array_equal(attack_files.read_png(path), noise(GREY))
    attack_files.write_png(path, noise(GREY, 2))
    np.testing.assert_array_equal(attack_files.read_png(path), noise(GREY, 2))
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_picture_a_folder_and_another_format_are_named(tmp_path):
    missing = tmp_path / "none.png"
    refusal(lambda: attack_files.read_png(missing), str(missing), "No such file")
    refusal(lambda: attack_files.read_png(tmp_path), str(tmp_path), "no regular file")
    Image.new("L", (28, 28)).save(tmp_path / "p.png", "JPEG")
    refusal(lambda: attack_files.read_png(tmp_path / "p.png"), "p.png: ", "expected a PNG picture")


# Cells


def cells_of(image):
    """Rows of one image, not in the order of their targets."""
    return [
        {"image": image, "target": target, "psnr": None, "l2": 0.1 * target} for target in (1, 0, 2)
    ]


def log_of(folder, *chunks):
    log = attack_files.CellLog(folder, cells=CELLS)
    for chunk in chunks:
        log.write(row for image in chunk for row in cells_of(image))
    return log


def by_target(images):
    return [sorted(cells_of(i), key=lambda row: row["target"])[t] for i in images for t in range(3)]


def test_rows_come_by_image_and_target_from_memory_as_from_the_disk(tmp_path):
    log = log_of(tmp_path, [7, 2], [5])
    for each in (log, attack_files.CellLog(tmp_path, cells=CELLS)):
        assert each.rows() == by_target([2, 5, 7])
        assert each.finished([2, 3, 7]) == {2, 7}
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == [7] * 3 + [2] * 3 + [5] * 3


def test_a_log_in_a_store_goes_on_and_has_its_pictures(tmp_path, monkeypatch):
    store = object_store.install(tmp_path / "objects", monkeypatch)
    _ = log_of(store, [7, 2], [5])
    content = (store / "cells.jsonl").read_bytes()
    _ = (store / "cells.jsonl").write_bytes(content[:-3])
    log = attack_files.CellLog(store, cells=CELLS)
    assert log.rows() == by_target([2, 7]) and log.finished([5]) == set()
    log.write(cells_of(5))
    assert (store / "cells.jsonl").read_bytes() == content
    attack_files.write_png(store / "cells/7.png", noise(GREY))
    np.testing.assert_array_equal(attack_files.read_png(store / "cells/7.png"), noise(GREY))


def test_a_process_that_is_not_the_first_writes_nothing_and_knows_all(tmp_path, monkeypatch):
    _ = log_of(tmp_path, [7])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(attack_files.distributed, "is_first", lambda: False)
    log = log_of(tmp_path, [2])
    attack_files.write_png(tmp_path / "2.png", noise(GREY))
    assert log.finished([2, 7]) == {2, 7}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_log_is_empty(tmp_path):
    log = attack_files.CellLog(tmp_path, cells=CELLS)
    assert log.rows() == [] and log.finished(range(9)) == set()
    log.write([])
    assert attack_files.CellLog(tmp_path, cells=CELLS).rows() == []


def test_a_kill_at_any_byte_costs_the_unfinished_images_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of them
    _ = log_of(tmp_path, [4, 3], [9])
    path = tmp_path / "cells.jsonl"
    content = path.read_bytes()
    ends = [len(b"".join(content.splitlines(keepends=True)[:n])) for n in (3, 6, 9)]
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        log = attack_files.CellLog(tmp_path, cells=CELLS)
        left = [image for image, end in zip((4, 3, 9), ends, strict=True) if size >= end]
        assert log.finished([3, 4, 9]) == set(left)
        assert path.read_bytes() == content[: ends[len(left) - 1] if left else 0]
        if size % 40 == 0:
            log.write(row for image in (4, 3, 9) if image not in left for row in cells_of(image))
            assert path.read_bytes() == content
            assert (
                log.rows()
                == attack_files.CellLog(tmp_path, cells=CELLS).rows()
                == by_target([3, 4, 9])
            )


@pytest.mark.parametrize("damage", [b"\0" * 9, b"{}\n", b"7\n", b"\xff\n", b'{"image": 3}\n'])
def test_a_line_that_is_no_row_costs_the_image_it_lies_in(tmp_path, damage):
    _ = log_of(tmp_path, [4, 3])
    path = tmp_path / "cells.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], damage + b"\n", *lines[5:]]))
    log = attack_files.CellLog(tmp_path, cells=CELLS)
    assert log.finished([3, 4]) == {4}
    assert path.read_bytes() == b"".join(lines[:3])


def changed_digit(lines):
    return [lines[0].replace(b'"l2": 0.1', b'"l2": 0.2'), *lines[1:]]


def exchanged(lines):
    return [lines[1], lines[0], *lines[2:]]


def left_out(lines):
    return [lines[0], *lines[2:]]


@pytest.mark.parametrize("change", [changed_digit, exchanged, left_out])
def test_rows_that_are_valid_but_not_what_was_written_cost_their_image(tmp_path, change):
    """The digits of a row, two rows exchanged, one left out of an image with one too many."""
    _ = log_of(tmp_path, [4, 3])
    path = tmp_path / "cells.jsonl"
    whole = path.read_bytes()
    changed = b"".join(change(whole.splitlines(keepends=True)))
    assert len(changed.splitlines()) >= 5 and changed != whole
    path.write_bytes(changed)
    log = attack_files.CellLog(tmp_path, cells=CELLS)
    assert log.finished([3, 4]) == {3}
    log.write(cells_of(4))
    assert attack_files.CellLog(tmp_path, cells=CELLS).rows() == by_target([3, 4])


@pytest.mark.parametrize("damage", ["missing", "another", "damaged"])
def test_a_picture_that_is_not_what_was_written_costs_its_image(tmp_path, damage):
    log, pictures = log_of(tmp_path), {1: tmp_path / "a.png", 2: tmp_path / "b.png"}
    for image, path in pictures.items():
        attack_files.write_png(path, noise(GREY, image))
        log.write(row | {"file": path.name} for row in cells_of(image))
    assert attack_files.CellLog(tmp_path, cells=CELLS).rows() == log.rows()
    if damage == "missing":
        pictures[1].unlink()
    else:
        whole = pictures[2].read_bytes()
        pictures[1].write_bytes(whole if damage == "another" else whole[:-1])
    assert attack_files.CellLog(tmp_path, cells=CELLS).finished([1, 2]) == {2}


def test_a_last_row_without_its_end_of_line_is_cut_short(tmp_path):
    _ = log_of(tmp_path, [4])
    path = tmp_path / "cells.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    log = attack_files.CellLog(tmp_path, cells=CELLS)
    assert log.rows() == [] and path.read_bytes() == b""


def test_the_file_is_cut_back_in_one_move_and_only_if_need_be(tmp_path, monkeypatch):
    _ = log_of(tmp_path, [4, 3])
    path = tmp_path / "cells.jsonl"

    monkeypatch.setattr(os, "replace", killed)
    assert attack_files.CellLog(tmp_path, cells=CELLS).finished([3, 4]) == {3, 4}
    cut = path.read_bytes()[:-5]
    path.write_bytes(cut)
    with pytest.raises(Killed):
        _ = attack_files.CellLog(tmp_path, cells=CELLS)
    assert path.read_bytes() == cut


def test_rows_are_on_the_disk_before_write_returns(tmp_path, monkeypatch):
    log, seen = log_of(tmp_path), []
    sync = os.fsync

    def watched(number):
        seen.append(os.fstat(number).st_size)
        sync(number)

    monkeypatch.setattr(os, "fsync", watched)
    for image in (1, 2):
        log.write(cells_of(image))
        assert seen.pop() == (tmp_path / "cells.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (cells_of(5)[:2], "image 5 lacks or repeats a cell"),
        ([*cells_of(5), cells_of(5)[0]], "image 5 lacks or repeats a cell"),
        ([*cells_of(5)[:2], cells_of(5)[0]], "image 5 lacks or repeats a cell"),
        ([*cells_of(6), *cells_of(4)], "image 4 is finished already"),
        ([*cells_of(5)[:2], {**cells_of(5)[2], "psnr": float("inf")}], "JSON compliant"),
    ],
)
def test_rows_that_would_spoil_the_log_are_refused_before_a_byte_is_written(tmp_path, rows, words):
    log = log_of(tmp_path, [4])
    before = (tmp_path / "cells.jsonl").read_bytes()
    with pytest.raises(ValueError, match=words):
        log.write(rows)
    assert (tmp_path / "cells.jsonl").read_bytes() == before and log.rows() == by_target([4])


def test_a_run_killed_between_pictures_and_rows_ends_as_if_it_had_not_been(tmp_path):
    def run(folder, kill_at=None):
        log = attack_files.CellLog(folder, cells=CELLS)
        for image in sorted({1, 2, 3} - log.finished([1, 2, 3])):
            rows = cells_of(image)
            for row in rows:
                row["file"] = f"cells/{image}-to-{row['target']}.png"
                attack_files.write_png(folder / row["file"], noise(GREY, image))
                if (image, row["target"]) == kill_at:
                    return
            log.write(rows)

    run(tmp_path / "whole")
    for kill_at in [(1, 1), (2, 0), (3, 2)]:
        folder = tmp_path / f"killed{kill_at[0]}"
        run(folder, kill_at)
        run(folder)
        for file in (
            "cells.jsonl",
            *(f"cells/{n}-to-{t}.png" for n in (1, 2, 3) for t in range(3)),
        ):
            assert (folder / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
