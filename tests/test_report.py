import json
import shutil
import subprocess
import sys

import pytest

from research import report


def act(*words):
    """The exit code of the command with these words, in this process."""
    report._FLAGS.unparse_flags()
    try:
        return report.main(["report", *words])
    except SystemExit as ended:
        return ended.code


def test_the_ledger_is_printed_as_text_or_as_json(capsys):
    assert act("--ledger", "--json") == 0
    entries = json.loads(capsys.readouterr().out)
    assert len(entries) == 131 and entries[0]["id"] == "A01"
    assert act("--ledger") == 0
    assert "131 claims: " in capsys.readouterr().out.splitlines()[-1]


def test_without_time_nothing_is_run_and_what_is_left_is_told(capsys):
    assert act("--run", "--budget=0s") == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("0 of ") and "left: " in last and "are needed" in last


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "--budget=soon"], "error: --budget: 'soon'"),
        (["--run", "--data=mnist=nowhere"], "error: --data: nowhere is not a directory"),
        (
            ["--ledger", "--from=nowhere"],
            "error: nowhere/summary.json is missing",
        ),
        (["--collect=nowhere"], "error: nowhere/summary.json is missing"),
        (["check"], "error: unexpected argument 'check'; did you mean --check?"),
        (["ledgr"], "error: unexpected argument 'ledgr'; did you mean --ledger?"),
        (["--check", "now"], "error: unexpected argument 'now'; flags start with --"),
        (["--chek"], "error: Unknown command line flag 'chek'. Did you mean: check ?"),
        (["--from=runs/mlp/all"], "error: --from needs --ledger"),
        (["--json", "--check"], "error: --json needs --ledger"),
        (["--budget=30m"], "error: --budget needs --run"),
        (["--check", "--ledger"], "error: --ledger and --check exclude each other"),
        (["--check", "--collect=runs/mlp/all"], "error: --collect and --check exclude each other"),
        (["--html="], "error: --html: empty"),
        (["--ledger", "--from="], "error: --from: empty"),
        (
            ["--run", "--data=mnits=."],
            "error: --data: 'mnits' is no data set of the ledger;",
        ),
        (["--run", "--data=kaggle-voc=."], "error: --data: 'kaggle-voc' is no data set of the"),
        (["--verify=nowhere"], "error: nowhere/config.json is missing: there is no run in nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(words, said, capsys, monkeypatch):
    for module, name in ((report.documents, "stale_documents"), (report.runs, "execute")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("something is done"))
    assert act(*words) == 2
    found = capsys.readouterr()
    assert found.err.startswith(said) and found.err.count("\n") == 1 and not found.out


@pytest.mark.parametrize("words", [[], ["--ledger"], ["--check"], ["--run"], ["--html=x.html"]])
def test_without_results_the_command_says_where_they_are(words, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    assert act(*words) == 2
    found = capsys.readouterr()
    assert found.err.startswith(f"error: {tmp_path}/results is missing: the ledger is judged by")
    assert not found.out and list(tmp_path.iterdir()) == []


def test_runs_are_verified_and_each_fault_is_a_line(tmp_path, capsys):
    kept = sorted(path for path in (report.ROOT / "results").iterdir() if path.is_dir())
    assert act(*(f"--verify={path}" for path in kept)) == 0
    assert capsys.readouterr().err.count(": all files are what was written\n") == len(kept)
    run = shutil.copytree(report.ROOT / "results" / "depth", tmp_path / "depth")
    (run / "tanh-5/over_seeds.json").unlink()
    summary = run / "summary.json"
    _ = summary.write_text(summary.read_text().replace("0.9", "0.8", 1))
    assert act(f"--verify={run}", f"--verify={kept[0]}") == 1
    *faults, good = capsys.readouterr().err.splitlines()
    named = {line.partition(": cannot be read ")[0] for line in faults}
    assert named == {f"error: {run / name}" for name in ("summary.json", "tanh-5/over_seeds.json")}
    assert good == f"{kept[0]}: all files are what was written"


def test_every_document_agrees_with_results():
    done = subprocess.run(
        [sys.executable, "-m", "research.report", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_is_written_and_where_it_lies_is_said_last(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report.page, "write", lambda path, root: path.write_text("the page"))
    assert act(f"--html={tmp_path / 'report.html'}") == 0
    assert (tmp_path / "report.html").read_text() == "the page"
    said = capsys.readouterr().err
    assert said == f"the page is in {tmp_path / 'report.html'}; open it in a browser\n"
    assert act(f"--html={tmp_path / 'nowhere' / 'report.html'}") == 2
    assert capsys.readouterr().err.startswith("error: [Errno 2] No such file or directory: ")
