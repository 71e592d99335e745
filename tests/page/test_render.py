"""The page as text: all of it is inside, nothing of a record is taken for HTML."""

import json
import re
from collections import defaultdict
from html.parser import HTMLParser

import pytest

from page import made
from research.ledger import published
from research.page import charts, drawings, render
from research.structs import UserError

VOID = {"meta", "link", "img", "input", "br"}


class Tree(HTMLParser):
    """Tags with their attributes, and whether every one of them is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def all(self, tag, **wanted):
        return [
            a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())
        ]


TABLES = {"why": made.table(), "saved": made.table()}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A page of made-up runs; the charts are tested in test_charts.py."""
    folder = made.root(tmp_path_factory.mktemp("page"))
    with pytest.MonkeyPatch.context() as patch:
        svg = {"source": "data:image/svg+xml;base64,", "width": 3, "height": 2}
        patch.setattr(drawings, "svg", lambda figure: svg)
        patch.setattr(charts, "explorer", lambda log: {"log": log})
        patch.setattr(charts, "runtime", lambda: "let runtime;")
        runs = published.read(folder / "results")
        return render.page(render.gather(runs, made.entries(), made.theory(), TABLES))


@pytest.fixture(scope="module")
def tree(text):
    return Tree(text)


def test_nothing_is_loaded_from_anywhere(text, tree):
    addresses = [a[key] for _, a in tree.tags for key in ("src", "href", "srcset") if key in a]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    styles = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"@import|url\((?!data:)", styles)
    assert "fetch(" not in text and "XMLHttpRequest" not in text


def test_every_claim_is_there_and_can_be_linked_to(tree):
    ids = {a["id"] for _, a in tree.tags if "id" in a}
    assert all(f"claim-{entry['id']}" in ids for entry in made.entries())
    found = [a["data-verdict"] for a in tree.all("li") if "data-verdict" in a]
    assert sorted(found) == sorted(entry["verdict"] for entry in made.entries())


def test_links_within_the_page_lead_somewhere_and_names_are_given_once(tree):
    ids = [a["id"] for _, a in tree.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in tree.all("a")} <= set(ids)
    for _, attributes in tree.tags:
        for key in ("for", "aria-labelledby"):
            assert attributes.get(key) is None or attributes[key] in ids


def test_text_of_a_record_is_never_taken_for_html(text):
    assert made.HOSTILE not in text
    assert "&lt;script&gt;alert(" in text
    data = re.search(r'<script type="application/json" id="attacks">(.*?)</script>', text)[1]
    assert json.loads(data)["mnist"]["cells"]["minimal"][0][0]["l2"] == 2.5


def test_every_picture_says_what_it_shows(tree):
    pictures = tree.all("img") + [a for a in tree.all("div") if a.get("role") == "img"]
    texts = [picture.get("alt") or picture.get("aria-label") for picture in pictures]
    assert len(texts) == 12 and all(text and len(text) > 40 for text in texts)
    cells = [a for a in tree.all("button") if "cell" in a.get("class", "")]
    assert len(cells) == 33 and len({cell["aria-label"] for cell in cells}) == 33


def test_the_page_has_landmarks_a_language_and_its_figures(text, tree):
    assert tree.all("html", lang="en")
    assert all(len(tree.all(tag)) == 1 for tag in ("main", "nav", "h1", "footer"))
    numbers = re.findall(r'<span class="number">(Figures? [\d to]+)', text)
    assert numbers == [*(f"Figure {i}" for i in (1, 2, 3, 4, 5, 8, 9, 17, 18, 19, 20)),
                       "Figures 10 to 14"]  # fmt: skip


def test_a_contradiction_is_shown_with_our_numbers_and_other_settings(text):
    cards = text[text.index('id="contradicted"') : text.index('id="depth"')]
    assert re.search(
        r"94\.60 % \(sd 0\.66, 93\.50 to 95\.30, 5 values\); the report.s is above", cards
    )
    assert "96.00 %" in cards and "batch-32" in cards


def test_a_page_that_is_too_large_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "gather", lambda runs, entries, *_: {"entries": entries})
    monkeypatch.setattr(render.verdicts, "judged", lambda root: [root.name])
    monkeypatch.setattr(render.evidence, "of_benchmark", lambda root, name: {})
    monkeypatch.setattr(
        render.documents, "BLOCKS", defaultdict(lambda: lambda root: "| a |\n|---|")
    )
    monkeypatch.setattr(render, "page", lambda values: f"{values['entries']}")
    render.write(tmp_path / "report.html", tmp_path)
    assert (tmp_path / "report.html").read_text() == f"['{tmp_path.name}']"
    monkeypatch.setattr(render, "MOST_BYTES", 5)
    with pytest.raises(UserError, match=r"the page has .* bytes, 5 at most"):
        render.write(tmp_path / "large.html", tmp_path)
    assert not (tmp_path / "large.html").exists()


def test_a_run_that_is_missing_is_named_with_what_keeps_it(tmp_path):
    runs = published.read(made.root(tmp_path) / "results")
    del runs["masks-smoke"]
    with pytest.raises(UserError, match=r"results/masks-smoke is missing.*--collect"):
        _ = render.gather(runs, made.entries(), made.theory(), TABLES)
    for path in runs["predict-drawn"].path.glob("*-panels.*"):
        path.unlink()
    with pytest.raises(UserError, match="no panels of an annotated photograph"):
        _ = render._panels(runs["predict-drawn"])
