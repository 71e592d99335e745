import json

import pytest

from ledger import finished
from research.ledger import documents
from research.structs import UserError


def write_results(root):
    finished.study(root / "results" / "depth")


def test_rendering_replaces_the_block_and_nothing_else(tmp_path):
    write_results(tmp_path)
    text = "before\n<!-- generated: depth -->\nold\n<!-- end -->\nafter\n"
    made = documents.render(text, tmp_path)
    assert made.startswith("before\n<!-- generated: depth -->\n| net |")
    assert made.endswith("<!-- end -->\nafter\n") and "old" not in made
    assert documents.render(made, tmp_path) == made


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
        _ = documents.render(block, tmp_path)


def notebook(*cells):
    return json.dumps({"cells": list(cells), "nbformat": 4}, indent=1)


BLOCK = ["words\n", "<!-- generated: depth -->\n", "old\n", "<!-- end -->\n"]


def test_the_text_of_a_notebook_is_made_anew_and_its_code_is_left(tmp_path):
    write_results(tmp_path)
    code = {"cell_type": "code", "source": BLOCK, "outputs": [], "execution_count": None}
    before = notebook({"cell_type": "markdown", "source": BLOCK}, code)
    made = documents.render_notebook(before, tmp_path, "a.ipynb")
    cells = json.loads(made)["cells"]
    assert "| net |" in "".join(cells[0]["source"]) and cells[1] == code
    assert documents.render_notebook(made, tmp_path, "a.ipynb") == made


@pytest.mark.parametrize("change", [{"outputs": [{"text": "0.95"}]}, {"execution_count": 3}])
def test_a_notebook_with_outputs_is_refused(change, tmp_path):
    cell = {"cell_type": "code", "source": [], "outputs": [], "execution_count": None} | change
    with pytest.raises(UserError, match=r"a\.ipynb holds outputs"):
        _ = documents.render_notebook(notebook(cell), tmp_path, "a.ipynb")


def test_every_document_and_notebook_is_checked(tmp_path):
    write_results(tmp_path)
    names = ("README.md", "docs/depth.md", "launch/README.md", "notebooks/a.ipynb")
    stale = [tmp_path / name for name in names]
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        cell = {"cell_type": "markdown", "source": BLOCK}
        _ = path.write_text(notebook(cell) if path.suffix == ".ipynb" else "".join(BLOCK))
    found = documents.stale_documents(tmp_path)
    assert set(found) == set(stale)
    for path, made in found.items():
        _ = path.write_text(made)
    assert documents.stale_documents(tmp_path) == {}


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
    text = (finished.ROOT / name).read_text()
    assert documents.render(text, finished.ROOT) == text
    row = next(line for line in text.splitlines() if line.startswith(begin))
    digits = [i for i, letter in enumerate(row) if letter.isdigit()]
    position = digits[3]
    other = str((int(row[position]) + 1) % 10)
    changed = text.replace(row, row[:position] + other + row[position + 1 :])
    assert documents.render(changed, finished.ROOT) != changed
