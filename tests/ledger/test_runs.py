import signal
import sys
import time
from pathlib import Path

import pytest

from ledger import finished, small
from research.ledger import evidence, runs
from research.structs import UserError


@pytest.fixture
def place(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1.5h", 5400), ("90s", 90), ("", float("inf"))]
)
def test_a_budget_is_a_number_and_its_unit(text, seconds):
    assert runs.budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-3m", "30 minutes"])
def test_another_budget_is_refused(text):
    with pytest.raises(UserError, match="--budget"):
        _ = runs.budget_seconds(text)


def test_directories_of_data_are_given_by_name(tmp_path):
    book = small.book(tmp_path)
    assert runs.data_directories([f"mnist={tmp_path}"], book) == {"mnist": str(tmp_path)}
    for word, said in (
        (str(tmp_path), "NAME=DIR"),
        ("mnist=nowhere", "not a directory"),
        (f"mnits={tmp_path}", "'mnits' is no data set of the ledger; did you mean mnist"),
    ):
        with pytest.raises(UserError, match=said):
            _ = runs.data_directories([word], book)


def test_what_has_no_record_that_counts_is_missing(tmp_path):
    book = small.book(tmp_path)

    def names(records):
        return [run.name for run in runs.missing(book, records)]

    attack = "noise-cifar10-faithful"
    assert names({}) == ["depth", "batch-32", "noise-cifar10-faithful", "masks-voc"]
    assert names(small.records()) == ["masks-voc"]
    assert names(small.records(epochs=3)) == ["noise-cifar10-faithful", "masks-voc"]
    assert names(small.records(data=small.SAMPLE)) == ["depth", "batch-32", attack, "masks-voc"]


def test_the_cheapest_is_first_but_not_before_the_run_it_builds_on(tmp_path):
    book = small.book(tmp_path)
    found = runs.in_order(book, runs.missing(book, {}), tmp_path)
    assert [run.name for run in found] == [
        "masks-voc",
        "batch-32",
        "depth",
        "noise-cifar10-faithful",
    ]
    there = {"depth": small.records()["depth"]}
    found = runs.in_order(book, runs.missing(book, there), tmp_path)
    assert [run.name for run in found] == ["masks-voc", "noise-cifar10-faithful", "batch-32"]


def test_a_run_that_was_begun_is_estimated_from_its_own_epochs(tmp_path):
    study = small.book(tmp_path).runs["depth"]
    assert runs.estimate(study, tmp_path / "depth") == 100
    nets = ("relu-5", "tanh-5")
    workdir = finished.study(tmp_path / "depth", nets=nets)  # one epoch of ten each, of 2 s
    assert runs.estimate(study, workdir) == 2.0 * 18
    for name in ("tanh-5/metrics.jsonl", "config.json"):  # which the run itself will name
        _ = (workdir / name).write_text("null\n")
        assert runs.estimate(study, workdir) == 100


def test_a_command_is_that_of_main_with_its_data_and_its_directory(tmp_path):
    book = small.book(tmp_path)
    words = runs.command(book.runs["noise-cifar10-faithful"], tmp_path, {"mnist": "a b"})
    assert words == [
        *(sys.executable, "-m", "research.main", "--config=configs/noise.py:cifar10"),
        *(
            "--config.baselines=()",
            "--config.data.dir=a b",
            f"--workdir={tmp_path / 'noise-cifar10-faithful'}",
        ),
    ]
    (tmp_path / "depth").mkdir()
    _ = (tmp_path / "depth" / "summary.json").write_text("{}")
    words = runs.command(book.runs["noise-cifar10-faithful"], tmp_path, {})
    assert f"--config.run={tmp_path / 'depth'}" in words
    # Without a directory the sample would be taken, which judges nothing.
    assert "--config.data.source=tfds" in words
    assert runs.command(book.runs["masks-voc"], tmp_path, {}) == "ask for the photographs"


def execute(place, budget=float("inf"), fails=(), epochs=4):
    """The code, what `execute` started and what it said; what is started makes its directory.

    epochs: of the net that is attacked, 4 in the stated configuration.
    """
    book, started, said = small.book(place.parent), [], []

    def start(words):
        workdir = Path(words[-1].removeprefix("--workdir="))
        started.append(workdir.name)
        if workdir.name in fails:
            return 2
        if workdir.name == "noise-cifar10-faithful":
            net = finished.attacked(epochs=epochs)
            settings = {"method": "faithful", "classes": ()}
            _ = finished.attack(workdir, "cifar10", finished.HORSE, net, **settings)
        else:
            changes = {"batch_size": 32} if workdir.name == "batch-32" else {}
            _ = finished.study(workdir, **changes)
        return 0

    results = place.parent / "results"
    code = runs.execute(book, results, place, budget=budget, data={}, start=start, say=said.append)
    return code, started, said


def test_what_is_missing_is_run_and_kept_and_the_rest_is_told(place):
    code, started, said = execute(place)
    assert (code, started) == (0, ["batch-32", "depth", "noise-cifar10-faithful"])
    kept = evidence.read(place.parent / "results")
    assert set(kept) == {"depth", "batch-32", "noise-cifar10-faithful"}
    assert said[0].startswith("2 of 4: batch-32, about 50 s: ")
    assert said[-1].startswith("3 of 4 runs done in ")
    assert said[-1].endswith(" s; left: masks-voc (ask for the photographs)")


def test_the_same_command_goes_on_with_what_is_left(place):
    code, started, said = execute(place, fails=("depth",))
    assert (code, started) == (1, ["batch-32", "depth", "noise-cifar10-faithful"])
    assert "left: masks-voc (ask for the photographs); depth (ended with code 2)" in said[-1]
    _, started, _ = execute(place)
    assert started == ["depth"]


def test_no_run_begins_that_does_not_fit_the_budget(place):
    code, started, said = execute(place, budget=60)
    assert (code, started) == (0, ["batch-32", "noise-cifar10-faithful"])
    assert "depth (about 2 min)" in said[-1]


def test_a_run_of_another_configuration_than_stated_is_still_left(place):
    code, _, said = execute(place, epochs=2)
    assert code == 0
    assert "noise-cifar10-faithful (what it gave is not of the stated configuration)" in said[-1]


def test_a_run_that_cannot_be_kept_is_told_and_the_others_go_on(place):
    (place / "batch-32").mkdir(parents=True)
    book, said = small.book(place.parent), []
    code = runs.execute(
        book, place.parent / "results", place,
        budget=60, data={}, start=lambda words: 0, say=said.append,
    )  # fmt: skip
    assert code == 1 and "0 of 4 runs done" in said[-1]
    assert "no finished run" in said[-1]


def test_a_request_to_stop_ends_it_and_nothing_more_is_begun(place):
    book, started, said = small.book(place.parent), [], []

    def start(words):
        started.append(words)
        return 143

    results = place.parent / "results"
    code = runs.execute(book, results, place, budget=60, data={}, start=start, say=said.append)
    assert (code, len(started)) == (143, 1)
    assert said[-1] == "batch-32 was stopped; the same command goes on"


def test_a_request_to_stop_is_passed_on_to_the_run():
    """The run tells its parent, this process, to stop, and ends well only if it hears of it."""
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(30)\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    assert runs._start([sys.executable, "-c", program]) == 143
    assert time.monotonic() - began < 25
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_real_run_is_started_and_goes_on_where_it_stopped(tmp_path):
    """A net in smoke, twice: the second time nothing is left to be done."""
    words = [sys.executable, "-m", "research.main", "--config=configs/mlp.py:relu-5,smoke"]
    words.append(f"--workdir={tmp_path / 'run'}")
    assert runs._start(words) == 0
    before = (tmp_path / "run" / "summary.json").stat().st_mtime_ns
    assert runs._start(words) == 0
    assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns == before
