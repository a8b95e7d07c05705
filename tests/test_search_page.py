"""The page at ``/search`` in a real Chromium, with documents that try to be more than text."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.library import Indexed, index_files
from tests.live import Live, serving, write_tiny
from tests.streaming_chat import StreamingChat, Turn, streaming
from tests.test_serve_page_browser import CHROMIUM, Page, browser, playwright

__all__ = ["CHROMIUM", "browser", "playwright"]  # a fixture, and what says that it can be had
pytest.importorskip("lancedb", reason="lancedb is not installed")

KEY = "k" * 24
OWNED = "document.title=`owned`"
LONG = "donaudampfschiff" * 60
HOSTILE_FILES = {
    "<img src=x onerror=document.title=1>.md": f"# <script>{OWNED}</script>\n\n"
    f'<img src=x onerror="{OWNED}"> <svg onload="{OWNED}"> router\n\n'
    f"[click](javascript:{OWNED}) <a href='javascript:{OWNED}'>here</a> router {{{{7*7}}}}\n",
    "evil.txt": f"<iframe srcdoc='<script>parent.{OWNED}</script>'></iframe> router {LONG}\n",
    "rlo\u202egpj.exe.txt": "The router \u202eis spelled backwards\u202c here. \x07 \ufeff end\n",
    "عربي/موجه.txt": "اضغط على زر إعادة الضبط في جهاز router لمدة عشر ثوان.\n",
    "lamp.txt": "The lamp of the router is green.\n",
    "long.txt": "\n\n".join(f"Paragraph {n} of the router manual." for n in range(40)),
}
QUESTION = "Is the lamp of the router green?"
ANSWER = "The lamp of the router is green [1]. <b>It</b> is blue [7]."


def add_hostile(root: Path) -> None:
    for name, text in HOSTILE_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    return index_files(tmp_path_factory.mktemp("hostile"), write_tiny, add_hostile)


@pytest.fixture(scope="module")
def answering() -> Iterator[StreamingChat]:
    with streaming(ANSWER) as chat:
        yield chat


@pytest.fixture(scope="module")
def searched(
    indexed: Indexed, answering: StreamingChat, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    foreign = index_files(tmp_path_factory.mktemp("foreign"), partial(write_tiny, seed=9))
    with serving(
        f"tiny={indexed.model}",
        index=(f"documents={indexed.uri}", f"foreign={foreign.uri}"),
        chat_url=answering.url,
        chat_model="scripted",
    ) as live:
        yield live


class SearchPage(Page):
    """The tab at ``/search``."""

    def __init__(self, browser: Any, live: Live, **context: Any) -> None:
        super().__init__(browser, live.url, **context)
        self.tab.goto(f"{live.url}/search")

    def search(self, query: str) -> None:
        self.tab.fill("#query", query)
        self.tab.press("#query", "Enter")
        self.status("Results follow.")

    def ask(self, question: str = QUESTION) -> None:
        """Ask of ``lamp.txt``, which is one passage whatever the model."""
        if not self.tab.locator("#path").is_visible():
            self.tab.click("#filters summary")
        self.tab.fill("#path", "lamp.txt")
        self.tab.fill("#query", question)
        self.tab.click("#ask")

    def clean(self) -> None:
        assert self.tab.title() == "polyvec: search documents"
        inside = "#found :is(img, script, svg, iframe, b), #preview :is(img, script, svg, iframe)"
        assert self.tab.locator(inside).count() == 0
        hrefs = self.tab.evaluate("[...document.links].map((link) => link.getAttribute('href'))")
        assert not [href for href in hrefs if ":" in href]
        assert self.problems == []


@pytest.fixture
def page(browser: Any, searched: Live, answering: StreamingChat) -> Iterator[SearchPage]:
    answering.turns[:] = [Turn(ANSWER)]
    page = SearchPage(browser, searched)
    page.status("Ready: 2 indexes.")
    yield page
    page.context.close()
    assert page.problems == []


# --- Searching and reading --------------------------------------------------------------------


def test_it_searches_and_explains(page: SearchPage) -> None:
    assert "documents" in page.words("#contents")
    assert "Vectors by" in page.words("#contents")
    page.search("reset button router")
    first = page.tab.locator("#hits article", has_text="router.md").first
    assert "button" in [mark.casefold() for mark in first.locator("mark").all_inner_texts()]
    assert "line" in first.locator(".place").first.inner_text()
    first.locator(".why summary").first.click()
    assert "by words" in first.locator(".why p").first.inner_text()
    titles = page.tab.locator("#hits article h3").all_inner_texts()
    assert len(titles) == len(set(titles)), "passages stand under their document"


def test_filters_are_sent(page: SearchPage) -> None:
    page.tab.click("#filters summary")
    page.tab.select_option("#type", "markdown")
    page.tab.fill("#path", "router.md")
    page.tab.fill("#since", "2020-01-01")
    page.tab.check("input[value=text]")
    assert page.words("#active") == "(3 filters on)"
    page.search("router")
    assert page.tab.locator("#hits article h3").all_inner_texts() == ["router.md"]
    page.tab.fill("#until", "2020-01-02")
    page.tab.press("#query", "Enter")
    page.status("Nothing was found.")
    assert "Take filters away" in page.words("#empty")
    page.tab.fill("#path", "../../etc")
    page.tab.press("#query", "Enter")
    page.tab.locator("#error").wait_for()
    assert "leads out of the indexed folder" in page.words("#error")


def test_a_passage_is_read_among_its_neighbours(page: SearchPage) -> None:
    page.tab.click("#filters summary")
    page.tab.fill("#path", "long.txt")
    page.search("Paragraph 20")
    page.tab.locator("#hits button").first.click()
    preview = page.tab.locator("#preview")
    preview.wait_for()
    assert page.words("#preview-title") == "long.txt"
    assert preview.locator(".chunk.wanted").count() == 1
    assert "paragraph" in [m.casefold() for m in preview.locator("mark").all_inner_texts()]
    assert page.tab.evaluate("document.activeElement.id") == "close"
    before = preview.locator(".chunk").count()
    button = "#later" if page.tab.locator("#later").is_visible() else "#earlier"
    page.tab.click(button)
    preview.locator(".chunk").nth(before).wait_for()
    page.tab.keyboard.press("Escape")
    preview.wait_for(state="hidden")
    assert page.tab.evaluate("document.activeElement.textContent").startswith("Read around it")


def test_texts_of_documents_are_never_more_than_texts(page: SearchPage) -> None:
    page.search("router")
    shown = page.words("#hits")
    assert "<img src=x onerror=" in shown
    assert "rloU+202Egpj.exe.txt" in shown, "a name cannot be spelled backwards"
    page.clean()
    for button in page.tab.locator("#hits button").all():
        button.click()
        page.tab.locator("#preview").wait_for()
        page.clean()
        page.tab.click("#close")
    assert page.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_answer_is_never_more_than_text(page: SearchPage, answering: StreamingChat) -> None:
    said = f"<img src=x onerror='{OWNED}'> [x](javascript:{OWNED}) router [1]."
    answering.turns[:] = [Turn(said)]
    page.ask()
    page.status("The answer is here.")
    assert "<img src=x onerror=" in page.words("#answer")
    page.clean()


def test_a_right_to_left_passage_reads_from_the_right(page: SearchPage) -> None:
    page.search("إعادة الضبط")
    snippet = page.tab.locator("#hits .snippet", has_text="اضغط").first
    assert snippet.evaluate("(e) => getComputedStyle(e).direction") == "rtl"


# --- Asking -----------------------------------------------------------------------------------


def test_an_answer_has_citations_that_lead_to_passages(page: SearchPage) -> None:
    assert "at 127.0.0.1" in page.words("#chat-hint")
    page.ask()
    page.status("1 of 2 citations holds.")
    cites = page.tab.locator("#answer .cite")
    assert [each.get_attribute("class") for each in cites.all()] == [
        "cite supported", "cite unknown",
    ]  # fmt: skip
    assert "[7] is no passage" in page.words("#notes")
    assert "<b>It</b> is blue" in page.words("#answer")
    cites.first.click()
    assert page.tab.evaluate("document.activeElement.id") == "source-1"
    page.tab.locator("#source-1 button").click()
    page.tab.locator("#preview .wanted").wait_for()


def test_words_are_shown_as_they_come_and_can_be_stopped(
    page: SearchPage, answering: StreamingChat
) -> None:
    answering.turns[:] = [Turn(ANSWER, wait_s=2), Turn(ANSWER)]
    page.ask()
    page.status("scripted answers from")
    assert page.tab.locator("#sources li").count() > 0, "sources come before words"
    page.tab.click("#cancel")
    page.status("Cancelled.")
    page.ask()
    page.status("The answer is here.")


def test_what_is_not_in_the_documents_is_said(page: SearchPage, answering: StreamingChat) -> None:
    answering.turns[:] = [Turn("NOT IN YOUR DOCUMENTS")]
    page.ask()
    page.status("Not in your documents.")
    assert page.words("#answer") == "Not in your documents."
    assert page.words("#sources-title") == "Nearest, and not enough"


def test_an_endpoint_that_breaks_off_is_said(page: SearchPage, answering: StreamingChat) -> None:
    answering.turns[:] = [Turn(ANSWER, break_after=3)]
    page.ask()
    page.tab.locator("#error").wait_for()
    assert "The chat endpoint failed (502)" in page.words("#error")
    assert "The lamp" in page.words("#answer"), "what came stays"


# --- States -----------------------------------------------------------------------------------


def test_an_index_of_another_model_is_searched_by_words_only(page: SearchPage) -> None:
    page.tab.select_option("#index", "foreign")
    assert "--migrate" in page.words("#problem")
    assert page.tab.locator("#ask").is_hidden()
    page.tab.click("#filters summary")
    assert page.tab.locator("input[value=hybrid]").is_disabled()
    page.search("Eiffel")
    assert page.tab.locator("#hits h3").first.inner_text() == "paris.txt"


def test_without_an_index_it_says_how_to_make_one_and_links_lead_there(
    browser: Any, live: Live
) -> None:
    page = Page(browser, live.url)
    page.status("Ready")
    page.tab.get_by_role("link", name="Search").click()
    page.status("This server has no index yet.")
    assert "polyvec index ~/Documents" in page.words("#no-index")
    assert page.tab.locator("#search-section").is_hidden()
    page.tab.get_by_role("link", name="Models").click()
    page.tab.wait_for_url("**/models")
    page.tab.get_by_role("link", name="Search", exact=True).click()
    page.tab.wait_for_url("**/search")
    page.tab.get_by_role("link", name="Compare texts").click()
    page.status("Ready")
    assert page.problems == []
    page.context.close()


def test_the_index_is_brought_up_to_date(browser: Any, tmp_path: Path) -> None:
    mine = index_files(tmp_path / "mine", write_tiny)
    with serving(f"tiny={mine.model}", index=(mine.uri,), allow_updates=True) as live:
        page = SearchPage(browser, live)
        page.status("Ready: 1 index.")
        before = page.words("#contents")
        (mine.root / "<b>zebra.md").write_text("The zebra is striped.")
        page.tab.click("#update")
        page.status("Up to date: 1 file added.")
        assert page.words("#contents") != before
        page.tab.click("#update")
        page.status("Up to date: nothing is new.")
        page.clean()
        page.context.close()


def test_there_is_no_button_where_the_server_may_not(page: SearchPage) -> None:
    assert not page.tab.locator("#update").is_visible()


def test_nothing_to_look_for_is_said(page: SearchPage) -> None:
    page.tab.click("#send")
    assert "There are no words yet." in page.words("#error")
    assert page.tab.evaluate("document.activeElement.id") == "query"


def test_a_key_is_asked_for(browser: Any, searched: Live) -> None:
    page = Page(browser, searched.url)
    page.tab.route("**/search/indexes", lambda route: route.fulfill(
        status=200 if route.request.headers.get("authorization") == f"Bearer {KEY}" else 401,
        json={"indexes": [], "chat": None},
    ))  # fmt: skip
    page.tab.goto(f"{searched.url}/search")
    page.status("This server asks for an API key.")
    assert page.tab.evaluate("document.activeElement.id") == "key"
    page.tab.keyboard.type(KEY)
    page.tab.keyboard.press("Enter")
    page.status("This server has no index yet.")
    stored = page.tab.evaluate("[Object.values({...sessionStorage}), {...localStorage}]")
    assert stored == [[KEY], {}]
    assert page.problems == []
    page.context.close()


# --- Keyboard, screen readers, sizes ----------------------------------------------------------


def test_everything_by_keyboard(page: SearchPage) -> None:
    assert page.tab.evaluate("document.activeElement.id") == "query", "one types at once"
    page.tab.keyboard.type("reset router")
    page.tab.keyboard.press("Enter")
    page.status("Results follow.")
    seen = []
    for _ in range(12):
        page.tab.keyboard.press("Tab")
        seen.append(
            page.tab.evaluate("document.activeElement.id || document.activeElement.textContent")
        )
        if seen[-1].startswith("Read around it"):
            break
    assert "send" in seen
    assert "ask" in seen
    page.tab.keyboard.press("Enter")
    page.tab.locator("#preview .wanted").wait_for()
    assert page.tab.evaluate("document.activeElement.id") == "close"
    page.tab.keyboard.press("Enter")
    page.tab.locator("#preview").wait_for(state="hidden")


def test_a_screen_reader_finds_its_way(page: SearchPage) -> None:
    page.ask()
    page.status("The answer is here.")
    tree = page.tab.locator("body").aria_snapshot()
    for line in (
        "- banner", "- main", '- navigation "Server"', '- search "Documents"',
        '- searchbox "Words or a question, in any language"', '- button "Search"',
        '- region "Answer"', '- list "Passages it was made of"', '- list "What the check found"',
        'link "1: the passage says this, as far as the check can tell"', "- status:",
    ):  # fmt: skip
        assert line in tree
    assert page.tab.locator("#error").get_attribute("role") == "alert"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits_every_screen_and_words_can_be_read(
    browser: Any, searched: Live, scheme: str, width: int
) -> None:
    from tests.test_gallery_browser import _CONTRAST

    size = {"width": width, "height": 740}
    page = SearchPage(browser, searched, color_scheme=scheme, viewport=size)
    page.status("Ready")
    page.ask()
    page.status("The answer is here.")
    for selector in ("#answer", ".cite", "#notes li", "main p", ".soft"):
        assert page.tab.evaluate(_CONTRAST, selector) >= 4.5, selector
    page.tab.fill("#path", "")
    page.search("router")
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    page.tab.locator("#hits button").first.click()
    page.tab.locator("#preview .wanted").wait_for()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert page.tab.evaluate("document.querySelector('#preview').matches(':modal')") == (
        width < 960
    )
    for selector in ("main p", "a", "mark", ".soft", "summary", "#preview p", ".sign"):
        assert page.tab.evaluate(_CONTRAST, selector) >= 4.5, selector
    page.context.close()
    assert page.problems == []
