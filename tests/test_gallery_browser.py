"""The catalogue's page in a real Chromium: as a file, and as the server's ``/models``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polyvec.catalogue.cards import cards
from polyvec.gallery.page import catalogue_page
from tests.live import Live
from tests.test_serve_page_browser import CHROMIUM, Page, browser, playwright

__all__ = ["CHROMIUM", "browser", "playwright"]  # a fixture, and what says that it can be had
NUM_MODELS = len(cards())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "models.html"
    path.write_text(catalogue_page(cards()), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Page]:
    page = Page(browser, file.as_uri())
    yield page
    assert page.problems == []
    page.context.close()


def rows(page: Page) -> list[str]:
    names: list[str] = page.tab.locator("#models tbody tr:visible th").all_inner_texts()
    return names


def test_the_table_is_searched_and_filtered(page: Page) -> None:
    assert len(rows(page)) == NUM_MODELS
    page.tab.fill("#find", "e5 large")
    assert rows(page) == ["multilingual-e5-large-instruct", "multilingual-e5-large"]
    page.tab.fill("#find", "")
    page.tab.check("#allowed")
    assert "llama-embed-nemotron-8b" not in rows(page)
    assert "bge-m3" in rows(page)
    page.tab.check("#runs")
    assert "gte-multilingual-base" not in rows(page)
    assert page.words("#found") == f"{len(rows(page))} of {NUM_MODELS} models"


def test_the_table_is_sorted_by_keyboard_and_unknowns_stay_last(page: Page) -> None:
    head = page.tab.locator("#models thead th", has_text="parameters")
    head.locator("button").focus()
    page.tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert rows(page)[0].startswith("KaLM-Embedding-Gemma3-12B")
    page.tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert rows(page)[0] == "all-MiniLM-L6-v2"
    unknown = page.tab.locator("#models tbody tr").last.locator("td").first.inner_text()
    assert unknown == "not known"


def test_any_two_models_are_compared_and_the_address_keeps_them(page: Page) -> None:
    assert page.tab.input_value("#left") == "llama-embed-nemotron-8b"
    page.tab.select_option("#right", "e5-mistral-7b-instruct")
    pair = page.tab.locator("#pair tr", has_text="commercial use")
    assert pair.locator("td").all_inner_texts() == ["no", "yes"]
    assert page.tab.locator("#both .shape").count() == 2
    said = page.tab.locator("#both svg").get_attribute("aria-label")
    assert "e5-mistral-7b-instruct: Bitext 71.3" in said
    assert page.tab.url.endswith("#compare=llama-embed-nemotron-8b,e5-mistral-7b-instruct")
    page.tab.select_option("#left", "default")
    assert page.tab.locator("#both .shape").count() == 1
    assert "are known of default" in page.words("#unscored")


def test_a_comparison_is_opened_by_its_address(browser: Any, file: Path) -> None:
    page = Page(browser, file.as_uri() + "#compare=qwen3-embedding-0-6b,bge-m3")
    heads = page.tab.locator("#pair thead th").all_inner_texts()
    assert heads == ["figure", "Qwen3-Embedding-0.6B", "bge-m3"]
    page.tab.goto(file.as_uri() + "#compare=nobody,bge-m3")
    assert page.tab.locator("#pair thead th").nth(2).inner_text() == "bge-m3"
    page.context.close()


def test_a_figure_leads_to_its_source_though_that_is_folded(page: Page) -> None:
    card = page.tab.locator("#bge-m3")
    card.locator("sup a").first.click()
    assert card.locator("details li", has_text="mteb").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_screen_and_words_can_be_read(
    browser: Any,
    file: Path,
    scheme: str,
    width: int,
) -> None:
    size = {"width": width, "height": 740}
    page = Page(browser, file.as_uri(), color_scheme=scheme, viewport=size)
    assert page.tab.evaluate("document.documentElement.scrollWidth") == width
    for selector in ("body", ".soft", "a", "dd", "#models td"):
        assert page.tab.evaluate(_CONTRAST, selector) >= 4.5, selector
    page.context.close()


def test_it_reads_without_scripts(browser: Any, file: Path) -> None:
    page = Page(browser, file.as_uri(), java_script_enabled=False)
    assert page.tab.locator("#find").is_hidden()
    assert page.tab.locator("#left").is_hidden()
    assert page.tab.locator("#pair thead th").nth(1).inner_text() == "llama-embed-nemotron-8b"
    assert page.tab.locator("#both .shape").count() == 2
    page.context.close()


def test_the_server_has_it_and_its_policy_lets_it_run(browser: Any, live: Live) -> None:
    page = Page(browser, live.url)
    page.tab.get_by_role("link", name="Models").click()
    page.tab.wait_for_url("**/models")
    page.tab.fill("#find", "nemotron-8b")
    assert rows(page) == ["llama-embed-nemotron-8b"]
    assert page.problems == []
    page.context.close()


_CONTRAST = """(selector) => {
  const number = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map((part) => part / 255);
    const light = parts.map((p) => (p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4));
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  };
  let lowest = 21;
  for (const one of document.querySelectorAll(selector)) {
    let under = one;
    while (/, 0\\)$/.test(getComputedStyle(under).backgroundColor) && under.parentElement) {
      under = under.parentElement;
    }
    const ink = number(getComputedStyle(one).color);
    const paper = number(getComputedStyle(under).backgroundColor);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    lowest = Math.min(lowest, ratio);
  }
  return lowest;
}"""
