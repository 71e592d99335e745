import io
import sys
from types import SimpleNamespace

import pytest

from research.runtime import distributed, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that a test moves on; tqdm takes its own from the module it is written in."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(sys.modules["tqdm.std"], "time", lambda: now.seconds)
    return now


def test_a_log_has_a_line_every_ten_seconds_with_the_time_that_is_left(clock, capsys):
    with progress.bar(None, "attack", total=2_000, done=1_000, unit="images") as bar:
        for _ in range(5):
            clock.seconds += 8.0
            bar.update(64)
    assert capsys.readouterr().err.splitlines() == [
        "attack: 1,128 of 2,000 images, about 01:49 left",
        "attack: 1,256 of 2,000 images, about 01:33 left",
    ]


def test_short_work_leaves_nothing_in_a_log(clock, capsys):
    assert list(progress.bar("abc", "letters", unit="letters")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar_that_goes_away_and_lines_above_it(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.bar(None, "attack", total=10, unit="images") as bar:
        clock.seconds += 1.0
        bar.update(5)
        progress.say("half of it")
    written = sys.stderr.getvalue()
    assert "attack:  50%" in written and "5.00 images/s" in written
    assert "\rhalf of it\n" in written
    assert written.rpartition("\n")[2].split("\r")[-2].strip() == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_only_the_first_process_says_anything(stream, clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    for _ in progress.bar(range(3), "work", unit="pieces"):
        clock.seconds += 60.0
    progress.say("a line")
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_name_forges_no_line_and_gives_a_terminal_no_order(stream, clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    name = "a\nerror: b\x1b[2K\r\u202e\udcff.png"
    with progress.bar(None, name, total=2, unit="images") as bar:
        clock.seconds += 60.0
        bar.update(1)
        progress.say(f"{name} is read")
    written = sys.stderr.getvalue()
    assert written.count(r"a\nerror: b\x1b[2K\r\u202e\udcff.png") >= 2
    assert "\nerror" not in written and "\x1b[2K" not in written


def test_a_line_goes_to_standard_error(capsys):
    progress.say("a line")
    assert capsys.readouterr() == ("", "a line\n")
