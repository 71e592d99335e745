import json
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver
from ledger.tables.test_classifiers import finished_classifier
from ledger.tables.test_depth import RESULT, finished_study
from ledger.tables.test_noise import make_run as finished_attack

from research import report
from research.ledger import keep
from research.ledger.tables import classifiers, depth
from research.structs import UserError


def write_results(root):
    (root / "results").mkdir()
    (root / "results" / "depth.json").write_text(json.dumps(RESULT))


def test_rendering_replaces_the_block_and_nothing_else(tmp_path):
    write_results(tmp_path)
    text = "before\n<!-- generated: depth -->\nold\n<!-- end -->\nafter\n"
    made = report.render(text, tmp_path)
    assert made.startswith("before\n<!-- generated: depth -->\n| net |")
    assert made.endswith("<!-- end -->\nafter\n") and "old" not in made
    assert report.render(made, tmp_path) == made


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("<!-- generated: dpeth -->\n<!-- end -->", "'dpeth' is unknown"),
        ("<!-- generated: depth -->\n", "no `<!-- end -->`"),
        ("<!-- generated: benchmark-depth -->\n<!-- end -->", "cannot be read"),
    ],
)
def test_a_block_that_cannot_be_made_is_named(block, said, tmp_path):
    write_results(tmp_path)
    with pytest.raises(UserError, match=said):
        _ = report.render(block, tmp_path)


@pytest.mark.parametrize(
    "stale", [f"{depth.FIGURE}.png", f"confusion_{classifiers.CONFUSION}.png", keep.NOISE]
)
def test_a_figure_of_another_run_than_its_table_is_noticed(stale, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    _ = keep.keep(results, finished_study(tmp_path / "study"))
    _ = keep.keep(results, finished_classifier(tmp_path / "net", classifiers.CONFUSION))
    (tmp_path / "attack").mkdir()
    _ = keep.keep(results, finished_attack(tmp_path / "attack"))
    assert report.stale_figures(tmp_path) == []
    _ = (results / stale).write_bytes(b"another")
    assert report.stale_figures(tmp_path) == [stale]


def notebook(*cells):
    return json.dumps({"cells": list(cells), "nbformat": 4}, indent=1)


BLOCK = ["words\n", "<!-- generated: depth -->\n", "old\n", "<!-- end -->\n"]


def test_the_text_of_a_notebook_is_made_anew_and_its_code_is_left(tmp_path):
    write_results(tmp_path)
    code = {"cell_type": "code", "source": BLOCK, "outputs": [], "execution_count": None}
    before = notebook({"cell_type": "markdown", "source": BLOCK}, code)
    made = report.render_notebook(before, tmp_path, "a.ipynb")
    cells = json.loads(made)["cells"]
    assert "| net |" in "".join(cells[0]["source"]) and cells[1] == code
    assert report.render_notebook(made, tmp_path, "a.ipynb") == made


@pytest.mark.parametrize("change", [{"outputs": [{"text": "0.95"}]}, {"execution_count": 3}])
def test_a_notebook_with_outputs_is_refused(change, tmp_path):
    cell = {"cell_type": "code", "source": [], "outputs": [], "execution_count": None} | change
    with pytest.raises(UserError, match=r"a\.ipynb holds outputs"):
        _ = report.render_notebook(notebook(cell), tmp_path, "a.ipynb")


def test_every_document_and_notebook_is_checked(tmp_path):
    write_results(tmp_path)
    names = ("README.md", "docs/depth.md", "launch/README.md", "notebooks/a.ipynb")
    stale = [tmp_path / name for name in names]
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        cell = {"cell_type": "markdown", "source": BLOCK}
        _ = path.write_text(notebook(cell) if path.suffix == ".ipynb" else "".join(BLOCK))
    found = report.stale_documents(tmp_path)
    assert set(found) == set(stale)
    for path, made in found.items():
        _ = path.write_text(made)
    assert report.stale_documents(tmp_path) == {}


def act(*words):
    """The exit code of the command with these flags, in this process."""
    with flagsaver.flagsaver():
        _ = flags.FLAGS(["report", *words])
        return report.main([])


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
        (["--ledger", "--from=nowhere"], "error: nowhere holds no finished run"),
        (["--collect=nowhere"], "error: nowhere holds no finished run"),
    ],
)
def test_a_mistake_is_one_line(words, said, capsys):
    assert act(*words) == 2
    found = capsys.readouterr()
    assert found.err.startswith(said) and found.err.count("\n") == 1 and not found.out


def test_every_document_agrees_with_its_records():
    done = subprocess.run(
        [sys.executable, "-m", "research.report", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("docs/depth.md", "| tanh-40 |"),
        ("README.md", "| depth |"),
        ("docs/ledger.md", "| all 131 |"),
        ("docs/ledger.md", "| D06 N |"),
    ],
)
def test_a_changed_digit_in_a_table_is_noticed(name, begin):
    text = (report.ROOT / name).read_text()
    assert report.render(text, report.ROOT) == text
    row = next(line for line in text.splitlines() if line.startswith(begin))
    digits = [i for i, letter in enumerate(row) if letter.isdigit()]
    position = digits[3]
    other = str((int(row[position]) + 1) % 10)
    changed = text.replace(row, row[:position] + other + row[position + 1 :])
    assert report.render(changed, report.ROOT) != changed


def test_the_page_is_written_and_where_it_lies_is_said_last(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report.page, "write", lambda path, root: path.write_text("the page"))
    assert act(f"--html={tmp_path / 'report.html'}") == 0
    assert (tmp_path / "report.html").read_text() == "the page"
    said = capsys.readouterr().err
    assert said == f"the page is in {tmp_path / 'report.html'}; open it in a browser\n"
    assert act(f"--html={tmp_path / 'nowhere' / 'report.html'}") == 2
    assert capsys.readouterr().err.startswith("error: [Errno 2] No such file or directory: ")
