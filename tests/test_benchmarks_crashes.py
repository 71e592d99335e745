"""Does the benchmark of crashes plan, judge and count as it says?"""

import json
import shutil
import sys

import pytest

from benchmarks import crashes
from benchmarks.crashes import Ended, Trial

MADE = [("mkdir", "/run"), *(("write", f"/run/checkpoints/{i}/d") for i in range(50))]
MADE += [("rename", "/run/summary.json")]


def test_trials_are_of_every_kind_of_change_and_of_file():
    files = {False: [f"run/cells/{i:05d}.png" for i in range(99)] + ["run/config.json"]}
    trials = crashes.plan("depth", MADE, {**files, True: ["run/metrics.jsonl"]}, 0.1)
    by_kind = {kind: [each for each in trials if each.kind == kind] for kind in crashes.KINDS}
    killed = {trial.place for trial in by_kind["killed"]}
    assert len(killed) == 12 and {"mkdir /run", "rename /run/summary.json"} < killed
    assert {each.half for each in by_kind["killed"] if each.place.startswith("write")} == {
        True,
        False,
    }
    assert "run/config.json" in {each.place for each in by_kind["flip"] + by_kind["cut"]}
    assert all(each.number in (1, len(MADE)) or 1 < each.number < len(MADE) for each in trials[:10])


def test_a_run_is_judged_by_its_results_and_by_the_one_line_that_names_the_file(tmp_path):
    (tmp_path / "run").mkdir()
    for name, content in (("config.json", {}), ("summary.json", {"test_accuracy": 0.5})):
        _ = (tmp_path / "run" / name).write_text(json.dumps({**content, "seconds": 3.0}))
    reference = {"config.json": {}, "summary.json": {"test_accuracy": 0.5}}

    def judge(code, err="", place=""):
        return crashes.judge(tmp_path, Ended(code, "", err), reference, place)

    assert judge(0) == "same"
    assert judge(2, "error: run/a/b.npz is damaged\n", "run/a/b.npz") == "refused"
    assert judge(2, "error: it is damaged\n", "run/a/b.npz") == "failed"
    state = "run/checkpoints/3/state/d"
    assert judge(2, "error: checkpoint 3 in run/checkpoints is damaged\n", state) == "refused"
    assert judge(2, "error: checkpoint 2 in run/checkpoints is damaged\n", state) == "failed"
    assert judge(-11, "b.npz", "run/a/b.npz") == "failed"
    reference["summary.json"]["test_accuracy"] = 0.25
    assert judge(0) == "wrong"


def test_damage_is_one_bit_or_a_shorter_file(tmp_path):
    for seed in range(20):
        file = tmp_path / "file"
        _ = file.write_bytes(bytes(range(200)))
        crashes.damage(file, "flip", seed)
        pairs = zip(file.read_bytes(), range(200), strict=True)
        assert sum((one ^ other).bit_count() for one, other in pairs) == 1
        crashes.damage(file, "cut", seed)
        assert len(file.read_bytes()) < 200


def test_the_table_counts_every_trial_and_a_failure_is_named():
    rows = [["depth", "kill", 1, False, how, 0, "write /a", ""] for how in ("same", "wrong")]
    rows.append(["masks", "full", 2, False, "failed", 3, "write /b", "1: Traceback"])
    results = {"trials": rows, "device": "Abacus", "date": "2024-02-29"}
    lines = crashes.table(results).splitlines()
    assert "| all | 3 | 1 | 0 | 1 | 1 | 1 |" in lines
    assert len(crashes.failures(results)) == 2
    assert Trial("depth", "kill").what == crashes.COPY


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_trials_of_the_depth_study_end_as_they_have_to(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    words = ["--only=depth", "--share=0.05", f"--output={tmp_path / 'crashes.json'}"]
    assert crashes.main([sys.argv[0], *words]) == 0, capfd.readouterr().err
