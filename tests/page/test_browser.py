"""The page in a browser: it loads without a word of complaint, and its controls do what they say.

Debian's Chromium, without a window and without a network. Skipped where there is none; `$CHROMIUM`
names another one.
"""

import os
import shutil

import pytest

from page import made
from research.page import render

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of made-up runs, with Vega in it."""
    folder = made.root(tmp_path_factory.mktemp("page"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render.verdicts, "judged", lambda root: made.entries())
        render.write(folder / "report.html", folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        # A container's root has no sandbox of its own.
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, file):
    """Opens the page; the test fails for any message of the console, error or request."""
    complaints, contexts = [], []

    def open_page(viewport=DESK, scheme="light", hash=""):
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(f"file://{file}{hash}")
        complaints[:] = [text for text in complaints if not text.startswith(("file:", "data:"))]
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if not text.startswith("data:")] == []


def shown(page):
    """Ids of the claims that are on the page, without opening them."""
    claims = page.locator(".claim:visible details")
    return [claim.get_attribute("id").removeprefix("claim-") for claim in claims.all()]


def test_the_ledger_is_filtered_by_verdict_exercise_kind_and_words(opened):
    page = opened()
    assert len(shown(page)) == 7
    page.locator(".count.contradicted").click()
    assert shown(page) == ["B02", "F01"]
    page.locator("[name=section]").select_option("Exercise 3")
    assert shown(page) == ["F01"]
    assert page.locator("#matches").inner_text() == "1 of 7 claims"
    page.get_by_role("button", name="Clear").click()
    page.locator("[name=kind]").select_option("order or shape")
    assert shown(page) == ["B01", "E22"]
    page.get_by_label("Search").fill("HORSE")
    assert shown(page) == ["E22"] and page.locator(".part:visible").count() == 1
    page.get_by_label("Search").fill("nobody says this")
    assert shown(page) == [] and page.locator("#nothing").is_visible()


def test_a_link_to_a_claim_opens_it(opened):
    page = opened(hash="#claim-E22")
    assert page.locator("#claim-E22 .evidence").is_visible()
    assert page.locator("#claim-B00 .evidence").is_hidden()


def test_the_slider_moves_the_curves_through_the_epochs(opened):
    page = opened(PHONE)
    page.locator("#explorer").scroll_into_view_if_needed()
    page.wait_for_selector("html[data-depth=ready]")
    cell = page.locator("#depth-numbers tbody tr").nth(1).locator("td").first
    chart = page.locator("#depth-chart")

    def line():
        return chart.locator("path[stroke='var(--tanh)']").first.get_attribute("d")

    before = line()
    assert cell.inner_text().startswith("100 ") and "tanh: 100 in layer 1" in chart.get_attribute(
        "aria-label"
    )
    dashed = chart.locator("path[stroke-dasharray][stroke='var(--tanh)']")
    assert dashed.count() == 0
    page.get_by_role("checkbox", name="before the first step").check()
    dashed.first.wait_for(state="attached")
    page.locator("#epoch").press("ArrowRight")
    page.wait_for_function(
        "document.querySelector('#depth-numbers td').innerText.startsWith('1000')"
    )
    assert line() != before and page.locator("#epoch-says").inner_text() == "4"
    page.get_by_role("checkbox", name="tanh").uncheck()
    page.wait_for_function("!document.querySelector('#depth-chart path[stroke=\"var(--tanh)\"]')")
    page.get_by_role("radio", name="linear").check()
    page.get_by_label("Statistic").select_option("signal_abs_max")
    page.wait_for_function("document.querySelector('#epoch').max === '3'")
    assert page.locator("#epoch-says").inner_text() == "3"


def test_a_cell_shows_its_images_and_numbers_by_click_and_by_keyboard(opened):
    page = opened()
    figure = page.locator("#grid-mnist")
    cells = figure.locator(".cell")
    cells.nth(11 + 3).click()
    assert figure.locator(".says").inner_text() == "7 toward 2: reached."
    measures = figure.locator(".measures").inner_text()
    assert "0.700" in measures and "51 of 255 levels" in measures and "30.0 dB" in measures
    page.keyboard.press("ArrowUp")
    assert figure.locator(".says").inner_text() == "0 toward 2: reached."
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    assert "away from its own class" in figure.locator(".says").inner_text()
    assert cells.nth(1).get_attribute("aria-pressed") == "true"
    assert "1.500" in figure.locator(".measures").inner_text()
    figure.get_by_role("radio", name="with far smaller noise").check()
    page.wait_for_function(
        "document.querySelector('#grid-mnist .measures').innerText.includes('2.5')"
    )


def test_the_canvas_holds_the_pixels_of_the_chosen_cell(opened):
    page = opened()
    figure = page.locator("#grid-mnist")
    figure.locator(".cell").nth(11 + 3).click()
    level = """(name) => document.querySelector(`#grid-mnist ${name}`)
        .getContext("2d").getImageData(1, 1, 1, 1).data[0]"""
    assert page.evaluate(level, ".clean") == 11 and page.evaluate(level, ".made") == 14
    assert figure.locator(".scale").inner_text().strip() == "±3 levels"


@pytest.mark.parametrize(("viewport", "scheme"), [(PHONE, "dark"), (DESK, "light")])
def test_nothing_sticks_out_and_text_stands_out_from_its_ground(opened, viewport, scheme):
    page = opened(viewport, scheme)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == viewport["width"]
    contrasts = page.evaluate(_CONTRASTS)
    assert {name: value for name, value in contrasts.items() if value < 4.5} == {}


# Contrast of every colour of text with both grounds, by the formula of WCAG 2.
_CONTRASTS = """() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const part = (i) => {
      const c = parseInt(hex.slice(2 * i, 2 * i + 2), 16) / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    };
    return 0.2126 * part(0) + 0.7152 * part(1) + 0.0722 * part(2);
  };
  const found = {};
  for (const ground of ["--paper", "--card", "--shade"]) {
    for (const name of "ink muted accent good near bad grey open".split(" ")) {
      const text = "--" + name;
      const [a, b] = [light(ground), light(text)].sort();
      found[`${text} on ${ground}`] = (b + 0.05) / (a + 0.05);
    }
  }
  return found;
}"""
