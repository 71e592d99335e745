"""No byte of a file of a run can change without a line that names the file."""

import io
import json
import subprocess
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.runtime import files
from research.storage import records
from research.structs import UserError

CONTENT = {"net": "tanh-5", "loss": 0.1 + 0.2, "seeds": [0, None, 1e-30], "in": {"deep": "é"}}
ROWS = [{"epoch": epoch, "loss": 1 / (epoch + 3), "seconds": None} for epoch in range(1, 5)]
WHOLE = records.lines(ROWS)[0].encode()


def read(path, parse):
    return files.read(path, parse, remedy="mend it")


def flips(content):
    """Each copy of some bytes with one bit changed."""
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            yield bytes(changed)


@pytest.mark.parametrize("content", [CONTENT, {}])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_comes_back_without_its_check_which_is_the_crc_of_what_stands_before_it(
    content, indent
):
    text, check = records.with_check(content, indent=indent)
    assert records.parse_json(text.encode()) == content
    assert json.loads(text) == {**content, "check": f"{check:08x}"}
    before = json.dumps(content, indent=indent)[:-1].rstrip()
    assert text.startswith(before) and check == zlib.crc32(before.encode())


def test_no_flipped_bit_and_no_cut_gives_other_json():
    """But spaces before the check, or one more entry where it has lost its name."""
    whole = records.with_check(CONTENT, indent=2)[0].encode()
    cuts = [whole[:size] for size in range(len(whole))]
    kept = 0
    for changed in [*flips(whole), *cuts]:
        try:
            found = records.parse_json(changed)
        except ValueError:
            continue
        assert {**found, **CONTENT} == found and len(found) <= len(CONTENT) + 1
        kept += 1
    assert kept < 60


def test_no_flipped_bit_gives_other_rows_and_no_cut_more_than_the_first_ones():
    for changed in flips(WHOLE):
        try:
            assert records.parse_rows(changed) == ROWS
        except ValueError:
            pass
        whole = records.whole_rows(changed)
        assert all(row in (None, *ROWS) for row in whole) and sum(map(bool, whole)) >= len(ROWS) - 2
    for size in range(len(WHOLE)):
        whole = [row for row in records.whole_rows(WHOLE[:size]) if row]
        assert whole == ROWS[: len(whole)] and len(whole) == WHOLE[:size].count(b"\n")


@given(order=st.lists(st.integers(0, 3), max_size=6))
def test_lines_in_another_order_or_number_are_not_the_rows(order):
    lines = WHOLE.splitlines(keepends=True)
    changed = b"".join(lines[i] for i in order)
    if order == list(range(len(order))):
        assert records.parse_rows(changed) == ROWS[: len(order)]
    else:
        with pytest.raises(ValueError, match=r"line \d is not what was written there"):
            _ = records.parse_rows(changed)


def test_lines_are_continued_by_the_check_of_the_last():
    first, check = records.lines(ROWS[:2])
    assert first + records.lines(ROWS[2:], check)[0] == WHOLE.decode()
    with pytest.raises(ValueError, match="line 3 "):
        _ = records.parse_rows((first + records.lines(ROWS[2:])[0]).encode())


def test_what_was_written_before_there_were_checks_is_read_as_it_is():
    assert records.parse_json(json.dumps(CONTENT).encode()) == CONTENT
    assert records.parse_rows(b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)) == ROWS


ARRAYS = {"logits": np.arange(6, dtype=np.float32).reshape(2, 3), "labels": np.arange(2)}


def stored():
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **ARRAYS)
    return stream.getvalue()


def test_no_flipped_bit_gives_other_arrays(tmp_path):
    path, kept = tmp_path / "a.npz", 0
    for changed in flips(stored()):
        path.write_bytes(changed)
        try:
            np.testing.assert_equal(read(path, files.parse_arrays), ARRAYS)
            kept += 1
        except UserError as error:
            assert str(error).startswith(f"{path}: cannot be read (") and "\n" not in str(error)
    assert kept > 100  # dates and the like


def test_an_array_that_states_fewer_numbers_than_it_has_is_noticed():
    """NumPy by itself stops reading before the end, where the CRC-32 is compared."""
    whole = stored()
    assert whole.count(b"(2, 3)") == 1
    with pytest.raises(zipfile.BadZipFile, match="CRC-32"):
        _ = files.parse_arrays(whole.replace(b"(2, 3)", b"(1, 3)"))


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"7", b"\xff", b"[" * 100_000, b"{"])
@pytest.mark.parametrize("parse", [records.parse_json, records.parse_rows, files.parse_arrays])
def test_a_file_of_another_kind_is_one_line_that_names_it(tmp_path, content, parse):
    path = tmp_path / "file"
    path.write_bytes(content)
    if content == b"" and parse is records.parse_rows:
        assert read(path, parse) == []
        return
    with pytest.raises(UserError) as caught:
        _ = read(path, parse)
    said = str(caught.value)
    assert said.startswith(f"{path}: cannot be read (") and said.endswith("); mend it")
    assert "\n" not in said


@pytest.fixture
def listed(tmp_path):
    """A folder with a list that names another one."""
    names = ["in/deep.json", "a b.json", "é.json"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    records.write_digests(tmp_path / "in", records.digests(tmp_path / "in", ["deep.json"]))
    records.write_digests(
        tmp_path, records.digests(tmp_path, ["a b.json", "é.json", "in/SHA256SUMS"])
    )
    return tmp_path


def test_the_list_is_one_of_sha256sum(listed):
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=listed, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.count(": OK"), done.stderr) == (0, 3, "")
    assert records.faults(listed, remedy="mend it") == []


@pytest.mark.parametrize("name", ["in/deep.json", "a b.json", "é.json", "in/SHA256SUMS"])
@pytest.mark.parametrize("kind", ["flip", "delete"])
def test_a_listed_file_that_is_another_or_missing_is_named_however_deep(listed, name, kind):
    path = listed / name
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    (fault,) = records.faults(listed, remedy="mend it")
    assert fault.startswith(f"{path}: cannot be read (")


def test_no_flipped_bit_of_the_list_passes_unseen(listed):
    """Also where it takes a file off the list."""
    path = listed / "SHA256SUMS"
    expected = records.read_digests(listed, remedy="")
    for changed in flips(path.read_bytes()):
        path.write_bytes(changed)
        try:
            assert records.read_digests(listed, remedy="") == expected
        except UserError as error:
            assert str(error).startswith(f"{path}: cannot be read (")
