"""Do the benchmarks compute the ratios they print, and refuse wrong arguments in one line?"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import contest, depth, layers, measure, probe, seeds, study

HEAD = {"device": "Abacus, 2 cores", "date": "2024-02-29", "data": "MNIST"}


def depth_results() -> dict[str, object]:
    samples = {"ours": [1.0, 2.0, 9.0], "keras": [4.0, 4.0, 90.0], "keras_jit": [2.0, 2.0, 9.0]}
    return {
        **HEAD,
        "missing": ["torch"],
        "versions": {"jax": "1.2", "keras": "3.4"},
        "threads": {"ours": 1},
        "steady": {"relu-5": samples},
        "command": {
            "net": "tanh-40",
            "epochs": 10,
            "seconds": {"ours": [10.0], "ours_again": [5.0], "keras": [20.0]},
            "peak_mib": {"ours": [600.0], "ours_again": [500.0], "keras": [2000.0]},
            "test_accuracy": {"ours": [0.9512], "ours_again": [0.9512], "keras": [0.95]},
            "first_step": {"ours": [7.0], "ours_again": [3.25]},
        },
    }


def cells(table: str, label: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_depth_table_has_medians_and_medians_of_paired_ratios() -> None:
    table = depth.table(depth_results())
    # Of the ratios 1/4, 2/4 and 9/90 the median is 0.25; 2/4 would be that of the medians.
    assert cells(table, "relu-5, steady epoch (s)") == ["2.00", "4.00 (0.25)", "2.00 (1.00)"]
    assert cells(table, "tanh-40, 10 epochs, first start (s)") == ["10.0", "20.0 (0.50)", "-"]
    assert cells(table, "tanh-40, 10 epochs, second start (s)") == ["5.0", "20.0 (0.25)", "-"]
    assert cells(table, "... until its first step (s)") == ["3.2", "-", "-"]
    assert cells(table, "peak memory, first start (MiB)") == ["600", "2,000 (0.30)", "-"]
    assert cells(table, "test accuracy (%)") == ["95.12", "95.00", "-"]


def test_the_depth_table_says_what_it_was_measured_on_and_which_peer_is_missing() -> None:
    table = depth.table(depth_results())
    assert "Missing here: PyTorch" in table and "benchmarks/requirements.txt" in table
    assert "Abacus, 2 cores; jax 1.2, keras 3.4; MNIST; 2024-02-29. Threads: ours: 1." in table
    whole = {**depth_results(), "missing": []}
    assert "Missing" not in depth.table(whole)


def test_the_other_tables_form_their_ratios_the_same_way() -> None:
    on_off = {"on": [1.0, 3.0, 9.0], "off": [1.0, 2.0, 9.0]}
    expected = ["3.000", "2.000", "1.500", "1.000"]
    assert cells(probe.table({**HEAD, "seconds": {"relu-5": on_off}}), "relu-5") == expected

    forms = {f"{form}, probe {p}": [2.0] for form in ("unrolled", "scanned") for p in ("on", "off")}
    slower = {**forms, "scanned, probe on": [4.0]}
    table = layers.table({**HEAD, "net": "tanh-40", "compile": forms, "epoch": slower})
    assert cells(table, "compile, probe on (s)") == ["2.00", "2.00", "1.00"]
    assert cells(table, "steady epoch, probe on (s)") == ["2.00", "4.00", "0.50"]

    digests = {"alone": ["a", "b"], "map_2": ["a", "b"], "vmap_1": ["a", "c"]}
    seconds = {"alone": [4.0], "map_2": [2.0], "vmap_1": [6.0]}
    table = seeds.table(
        {**HEAD, "net": "tanh-5", "seeds": 2, "digests": digests, "seconds": seconds}
    )
    assert cells(table, "lax.map") == ["2", "1.000", "0.50", "2 of 2"]
    assert cells(table, "vmap") == ["1", "3.000", "1.50", "1 of 2"]


def test_a_child_is_measured_with_its_memory_its_time_and_the_line_watched_for() -> None:
    # In a process of its own: a child never seems smaller than its parent, and this one is large.
    child = (
        "import sys, time; kept = b'x' * 2**26; time.sleep(0.2); print('ready', file=sys.stderr);"
        "time.sleep(0.1); print('done'); sys.exit(3)"
    )
    code = (
        "import dataclasses, json, sys; from benchmarks import measure;"
        f"runs = [measure.run([sys.executable, '-c', c], watch='ready') for c in ({child!r}, '')];"
        "print(json.dumps([dataclasses.asdict(run) for run in runs]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=measure.ROOT, capture_output=True, text=True, check=True
    )
    large, small = json.loads(done.stdout)
    assert large["returncode"] == 3 and large["output"] == "done\n" and large["errors"] == "ready\n"
    assert 0.2 <= large["seen_s"] <= large["seconds"] - 0.1
    assert large["peak_mib"] - small["peak_mib"] == pytest.approx(64, abs=16)
    assert small["seen_s"] is None and small["returncode"] == 0


def test_paced_contestants_answer_and_a_dead_one_is_one_line() -> None:
    code = (
        "import time; from benchmarks import contest;"
        "contest.announce(versions={'a': '1'}); contest.wait(); contest.report(0.5);"
        "contest.wait(); raise RuntimeError('out of memory')"
    )
    with measure.Paced("Somebody", [sys.executable, "-c", code]) as contestant:
        assert contestant.facts == {"versions": {"a": "1"}}
        assert contestant.turn() == 0.5
        with pytest.raises(SystemExit, match=r"^error: Somebody failed: .*out of memory$"):
            _ = contestant.turn()


def test_functions_take_turns_and_the_first_round_is_dropped() -> None:
    calls: list[str] = []
    samples = measure.alternate({n: lambda n=n: calls.append(n) for n in ("a", "b")}, rounds=2)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(seconds) for name, seconds in samples.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs=0"], "error: flag --epochs=0"),
        (["--epoch=1"], "error: Unknown command line flag 'epoch'"),
        (["all"], "error: unexpected argument 'all'"),
        (["--data_dir=nowhere"], "error: --data_dir: 'nowhere' lacks train-images-idx3-ubyte"),
        (["--table", "--output=nowhere.json"], "error: nowhere.json cannot be read"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.depth", *arguments],
        cwd=measure.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(expected) and done.stderr.count("\n") == 1


def test_a_python_without_any_peer_is_one_line_that_names_the_requirements(tmp_path: Path) -> None:
    python = tmp_path / "python"
    _ = python.write_text('#!/bin/sh\necho \'["keras", "torch"]\'\n')
    python.chmod(0o755)
    with pytest.raises(SystemExit, match=r"^error: .* neither .* benchmarks/requirements\.txt .*"):
        _ = measure.find_missing(str(python))
    _ = python.write_text("#!/bin/sh\necho '[\"torch\"]'\n")
    assert measure.find_missing(str(python)) == ["torch"]
    with pytest.raises(SystemExit, match="cannot be run"):
        _ = measure.find_missing(str(tmp_path / "nowhere"))


def test_the_parent_of_the_contestants_imports_nothing_large() -> None:
    code = "import benchmarks.depth, sys; print(sorted({'jax', 'matplotlib'} & {*sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=measure.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_peers_read_the_files_that_our_door_reads(tmp_path: Path) -> None:
    for name, count in zip(contest.FILES, (2, 2, 1, 1), strict=True):
        images = "images" in name
        body = bytes([0, 255, *[51] * 782] * count) if images else bytes(range(7, 7 + count))
        _ = (tmp_path / name).write_bytes(bytes(16 if images else 8) + body)
    train_images, train_labels, test_images, _ = contest.read_digits(str(tmp_path))
    assert train_images.shape == (2, 784) and test_images.shape == (1, 784)
    assert train_images[1, :3].tolist() == pytest.approx([0.0, 1.0, 0.2])
    assert train_labels.tolist() == [7, 8]


def test_the_study_table_has_a_row_for_each_start() -> None:
    taken = {"first": (120.4, 900.0), "second": (80.6, 1000.0)}
    starts = {name: {"seconds": s, "peak_mib": m} for name, (s, m) in taken.items()}
    table = study.table({**HEAD, "seeds": 1, "starts": starts})
    assert cells(table, "first start, nothing compiled") == ["120", "900"]
    assert cells(table, "second start") == ["81", "1,000"]
    assert "1 seed(s)" in table and "MNIST" in table
