"""The page at ``/`` in a real Chromium.

Needs ``pip install playwright`` and a Chromium of the system (``apt-get install chromium``, or
``POLYVEC_CHROMIUM=/path``); without them these tests are skipped.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.live import Live, serving

CHROMIUM = os.environ.get("POLYVEC_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

KEY = "k" * 24
TEXTS = ["the quick brown fox", "the lazy dog", "敏捷的棕色狐狸", "la zorra"]
HOSTILE = '<img src=x onerror="document.title=`owned`"><script>document.title="owned"</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # A container has no user namespaces and no GPU, and a test asks nobody but its server.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments)
        yield browser
        browser.close()


class Page:
    """A tab, and what happened in it that must not: errors, requests elsewhere."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(**({"locale": "en-US"} | context))
        self.tab = self.context.new_page()
        self.problems: list[str] = []
        self.sent: list[Any] = []
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on("console", lambda message: self._console(message))
        self.tab.on("request", lambda request: self._request(request, url))
        self.tab.goto(url)

    def _console(self, message: Any) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            self.problems.append(message.text)

    def _request(self, request: Any, url: str) -> None:
        if not request.url.startswith(url):
            self.problems.append(f"asked {request.url}")
        if request.url.endswith("/v1/embeddings"):
            self.sent.append(request)

    def status(self, words: str) -> None:
        self.tab.locator("#status", has_text=words).wait_for(timeout=30_000)

    def embed(self, *texts: str) -> None:
        self.tab.fill("#texts", "\n".join(texts))
        self.tab.click("#send")
        self.status("Done")

    def words(self, selector: str) -> str:
        text: str = self.tab.locator(selector).inner_text()
        return text


@pytest.fixture
def page(browser: Any, live: Live) -> Iterator[Page]:
    page = Page(browser, live.url)
    page.status("Ready: 2 models.")
    yield page
    page.context.close()
    assert page.problems == []


def cosines(live: Live, request: Any) -> np.ndarray[Any, Any]:
    """Ask the server the same and multiply with numpy."""
    headers = {k: v for k, v in request.headers.items() if k.startswith("x-polyvec")}
    answer = live.http.post("/v1/embeddings", content=request.post_data, headers=headers).json()
    rows = np.array([item["embedding"] for item in answer["data"]], dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result: np.ndarray[Any, Any] = rows @ rows.T
    return result


def cells(page: Page, grid: int = 0) -> list[str]:
    found: list[str] = (
        page.tab.locator("table[role=grid]")
        .nth(grid)
        .locator("td[role=gridcell]")
        .all_inner_texts()
    )
    return found


# --- What is shown ----------------------------------------------------------------------------


def test_the_heat_map_has_the_servers_cosines(page: Page, live: Live) -> None:
    page.embed(*TEXTS)
    expected = cosines(live, page.sent[0])
    shown = [float(cell.replace("−", "-")) for cell in cells(page)]
    assert np.allclose(np.reshape(shown, (4, 4)), expected, atol=0.00501)
    assert page.sent[0].post_data_json == {
        "model": "tiny", "input": TEXTS, "encoding_format": "float",
    }  # fmt: skip
    assert page.sent[0].headers["x-polyvec-role"] == "document"
    tokens = live.post("/v1/embeddings", page.sent[0].post_data_json).json()["usage"]
    summary = page.words("#summary")
    assert f"{tokens['prompt_tokens']} tokens" in summary
    assert "4 texts" in summary
    assert "48 numbers a vector" in summary


def test_the_table_is_there_for_who_sees_no_colours(page: Page, live: Live) -> None:
    page.embed(*TEXTS)
    expected = cosines(live, page.sent[0])
    page.tab.click("#values summary")
    rows = page.tab.locator("#values table tbody tr")
    rows.nth(3).wait_for()
    assert rows.count() == 4
    first = [float(t.replace("−", "-")) for t in rows.nth(0).locator("td").all_inner_texts()]
    assert np.allclose(first, expected[0], atol=0.0000501)
    nearest = page.tab.locator("#nearest tbody tr").nth(1).locator("td").all_inner_texts()
    off = expected[1].copy()
    off[1] = -2
    assert nearest[0] == TEXTS[1]
    assert int(nearest[1]) == len(live.post("/tokenize", {"inputs": [TEXTS[1]]}).json()[0])
    assert nearest[2].startswith(f"{off.argmax() + 1}\u00a0(")


def test_the_map_shows_every_text_and_its_share(page: Page) -> None:
    page.embed(*TEXTS)
    points = page.tab.locator("svg [role=option]")
    assert points.count() == 4
    assert points.nth(2).get_attribute("aria-label") == f"3: {TEXTS[2]}"
    said = re.search(
        r"Across: (\d+) % of the variance, up: (\d+) %; (\d+) % together", page.words("#maps")
    )
    assert said is not None
    across, up, together = map(int, said.groups())
    assert 0 < up <= across < 100
    assert abs(across + up - together) <= 1


def test_texts_are_never_markup(page: Page) -> None:
    page.embed(HOSTILE, "</textarea><b>bold", "fox")
    page.tab.click("#values summary")
    assert page.tab.title() == "polyvec: embeddings of your texts"
    assert page.tab.locator("#results img, #results script, #results b b").count() == 0
    assert HOSTILE in page.words("#nearest")


def test_a_text_that_is_cut_is_named(page: Page) -> None:
    page.embed("fox", "the lazy dog jumps " * 60)
    assert "1 text was longer than the model reads and was cut: number 2." in page.words(
        "#warnings"
    )
    page.tab.select_option("#long-input", "average")
    page.tab.click("#send")
    page.tab.locator("#warnings").wait_for(state="hidden")
    page.tab.select_option("#long-input", "error")
    page.tab.click("#send")
    page.tab.locator("#error").wait_for()
    assert "The server cannot use this request (400)." in page.words("#error")
    assert "64" in page.words("#error")


def test_too_many_texts_are_said(page: Page, live: Live) -> None:
    page.embed(*(f"fox {number}" for number in range(105)))
    assert "The heat map shows the first 100 of 105 texts" in page.words("#warnings")
    assert page.tab.locator("#nearest tbody tr").count() == 105
    assert page.tab.locator("svg [role=option]").count() == 105
    limit = live.server.settings.max_texts
    page.tab.fill("#texts", "\n".join(["fox"] * (limit + 1)))
    page.tab.click("#send")
    page.tab.locator("#error").wait_for()
    assert f"{limit + 1:,} texts; this server takes {limit:,}" in page.words("#error")
    assert len(page.sent) == 1


def test_no_text_is_refused_before_it_is_sent(page: Page) -> None:
    page.tab.click("#send")
    assert "There is no text yet." in page.words("#error")
    assert page.tab.evaluate("document.activeElement.id") == "texts"
    assert page.sent == []


# --- What can be asked ------------------------------------------------------------------------


def test_dimensions_are_those_of_the_model(page: Page) -> None:
    assert page.tab.locator("#dimensions").is_disabled()
    page.tab.select_option("#model", "nested")
    page.tab.locator("#dimensions-hint", has_text="was trained for").wait_for()
    assert page.tab.locator("#dimensions option").all_inner_texts() == ["48, all", "24", "16"]
    page.tab.select_option("#dimensions", "16")
    page.embed(*TEXTS)
    assert page.sent[0].post_data_json["dimensions"] == 16
    assert page.sent[0].post_data_json["model"] == "nested"
    assert "16 numbers a vector" in page.words("#summary")


def test_a_model_with_a_fixed_prefix_takes_no_instruction(page: Page) -> None:
    page.tab.check("input[value=query]")
    assert page.tab.locator("#instruction").is_disabled()
    assert "takes no instruction" in page.words("#instruction-hint")
    page.tab.fill("#texts", "fox")
    page.tab.click("text=What the model reads")
    page.tab.locator("#prefix", has_text="query: fox").wait_for()
    page.tab.click("#send")
    page.status("Done")
    assert page.sent[0].headers["x-polyvec-role"] == "query"


def test_results_of_another_form_are_marked(page: Page) -> None:
    page.embed(*TEXTS)
    assert page.tab.locator("#stale").is_hidden()
    page.tab.check("input[value=query]")
    assert page.tab.locator("#stale").is_visible()
    page.tab.check("input[value=document]")
    assert page.tab.locator("#stale").is_hidden()


@pytest.fixture(scope="module")
def instructed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A model that takes an instruction, behind a key."""
    from tests.tiny import shape, weights, write_model

    folder = tmp_path_factory.mktemp("instructed")
    config = shape(is_causal=False, max_position_embeddings=64)
    prompts = {"query": "Instruct: Find it\nQuery: ", "document": ""}
    model = write_model(folder / "model", config, prompts=prompts, tensors=weights(config, 3))
    (folder / "keys").write_text(KEY)
    with serving(f"asked={model}", api_key_file=str(folder / "keys")) as live:
        live.http.headers["Authorization"] = f"Bearer {KEY}"
        yield live


@pytest.fixture
def keyed(browser: Any, instructed: Live) -> Iterator[Page]:
    page = Page(browser, instructed.url)
    page.status("This server asks for an API key.")
    yield page
    page.context.close()
    assert page.problems == []


def test_a_key_is_asked_for_and_kept_for_the_tab_only(keyed: Page) -> None:
    assert keyed.tab.evaluate("document.activeElement.id") == "key"
    keyed.tab.keyboard.type("wrong" * 5)
    keyed.tab.keyboard.press("Enter")
    keyed.tab.locator("#error").wait_for()
    assert "does not know this key (401)" in keyed.words("#error")
    keyed.tab.fill("#key", KEY)
    keyed.tab.click("#use-key")
    keyed.status("Ready: 1 model.")
    assert keyed.tab.locator("#error").is_hidden()
    stored = keyed.tab.evaluate(
        "[Object.values({...sessionStorage}), {...localStorage}, document.cookie]"
    )
    assert stored == [[KEY], {}, ""]
    keyed.embed("fox", "dog")
    for language in ("curl", "Python", "JavaScript"):
        keyed.tab.select_option("#language", language)
        assert "POLYVEC_API_KEY" in keyed.words("#snippet")
        assert KEY not in keyed.words("body")
    keyed.tab.click("#forget-key")
    assert keyed.tab.evaluate("sessionStorage.length") == 0


def test_two_instructions_side_by_side(keyed: Page, instructed: Live) -> None:
    keyed.tab.fill("#key", KEY)
    keyed.tab.click("#use-key")
    keyed.status("Ready")
    keyed.tab.check("input[value=query]")
    keyed.tab.fill("#instruction", "Group “by” topic: 主题")
    keyed.tab.check("#compare")
    keyed.tab.fill("#instruction-2", "It's the language")
    keyed.embed(*TEXTS)
    assert len(keyed.sent) == 2
    before, after = (cosines(instructed, request) for request in keyed.sent)
    for grid, expected in enumerate((before, after)):
        shown = [float(cell.replace("−", "-")) for cell in cells(keyed, grid)]
        assert np.allclose(np.reshape(shown, (4, 4)), expected, atol=0.00501)
    change = np.triu(np.abs(after - before), 1)
    i, j = np.unravel_index(change.argmax(), change.shape)
    first = keyed.tab.locator("#changes tbody tr").nth(0)
    assert first.locator("th").inner_text().startswith(f"{i + 1} “")
    row = first.locator("td").all_inner_texts()
    assert row[0].startswith(f"{j + 1} “")
    assert float(row[3].replace("−", "-")) == pytest.approx(after[i, j] - before[i, j], abs=1e-4)
    assert keyed.tab.locator("svg.map").count() == 2
    for which, request in zip(("1", "2"), keyed.sent, strict=True):
        keyed.tab.select_option("#which", which)
        instruction = request.headers["x-polyvec-instruction"]
        assert f"X-Polyvec-Instruction: {instruction}'" in keyed.words("#snippet")


def test_the_snippet_is_the_request(page: Page) -> None:
    page.embed(*TEXTS, 'it\'s \\ "quoted" $HOME')
    code = page.words("#snippet")
    body = re.search(r"<<'JSON'\n(.*)\nJSON", code, re.DOTALL)
    assert body is not None
    assert json.loads(body[1]) == page.sent[0].post_data_json
    for name in ("X-Polyvec-Role", "X-Polyvec-Long-Input"):
        assert f"{name}: {page.sent[0].headers[name.lower()]}'" in code


def test_a_snippet_is_copied(browser: Any, live: Live) -> None:
    page = Page(browser, live.url, permissions=["clipboard-read", "clipboard-write"])
    page.status("Ready")
    page.tab.fill("#texts", "fox")
    page.tab.locator("#snippet", has_text="fox").wait_for()
    page.tab.click("#copy")
    page.tab.locator("#copied", has_text="Copied.").wait_for()
    assert (
        page.tab.evaluate("navigator.clipboard.readText()").strip()
        == page.words("#snippet").strip()
    )
    page.context.close()


# --- Files ------------------------------------------------------------------------------------


def test_files_are_opened_and_their_column_chosen(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text('title,text\nAnimals,"the fox\nand the dog"\nFood,bread\n', encoding="utf-8")
    page.tab.set_input_files("#files", str(file))
    page.status("2 texts read. 1 text had line breaks, which are spaces now.")
    assert page.tab.input_value("#texts") == "the fox and the dog\nbread"
    page.tab.select_option("#column", "title")
    assert page.tab.input_value("#texts") == "Animals\nFood"
    (tmp_path / "texts.docx").write_bytes(b"PK")
    page.tab.set_input_files("#files", str(tmp_path / "texts.docx"))
    page.tab.locator("#error").wait_for()
    assert "texts.docx cannot be read here" in page.words("#error")


def test_files_are_dropped(page: Page) -> None:
    page.tab.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(['"fox"\\n{"text": "dog"}'], "a.jsonl"));
            data.items.add(new File(["bread\\n"], "b.txt"));
            document.body.dispatchEvent(
                new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        }"""
    )
    page.status("3 texts read.")
    assert page.tab.input_value("#texts") == "fox\ndog\nbread"


# --- Keyboard, screen readers, sizes ----------------------------------------------------------


def focused(page: Page) -> list[str]:
    found: list[str] = page.tab.evaluate(
        "(e => [e.id, e.getAttribute('role') ?? e.tagName.toLowerCase()])(document.activeElement)"
    )
    return found


def test_everything_by_keyboard(page: Page) -> None:
    press = page.tab.keyboard.press
    press("Tab")
    assert page.tab.evaluate("document.activeElement.textContent") == "Skip to the results"
    seen: list[str] = []
    while (now := focused(page)[0]) != "texts":
        seen.append(now)
        assert len(seen) < 10
        press("Tab")
    page.tab.keyboard.type("fox\ndog\nbread")
    press("Control+Enter")
    page.status("Done")
    order = []
    for _ in range(40):
        press("Tab")
        order.append(focused(page))
        if order[-1][0] == "snippet":
            break
    roles = [role for _, role in order]
    assert roles.count("gridcell") == 1, "one stop for all cells"
    assert roles.count("option") == 1, "one stop for all dots"
    names = [name for name, _ in order if name]
    expected = [
        "example",
        "clear",
        "pick",
        "model",
        "long-input",
        "send",
        "language",
        "copy",
        "snippet",
    ]
    assert [name for name in names if name in expected] == expected


def test_arrows_move_in_the_heat_map(page: Page) -> None:
    page.embed(*TEXTS)
    grid = page.tab.locator("table[role=grid]")
    grid.locator("td[tabindex='0']").focus()

    def place() -> list[int]:
        found: list[int] = page.tab.evaluate(
            "(e => [e.parentNode.rowIndex - 1, e.cellIndex - 1])(document.activeElement)"
        )
        return found

    for key, expected in (
        ("ArrowRight", [0, 1]), ("ArrowDown", [1, 1]), ("End", [1, 3]), ("ArrowRight", [1, 3]),
        ("Control+End", [3, 3]), ("Home", [3, 0]), ("PageUp", [0, 0]), ("ArrowUp", [0, 0]),
        ("ArrowDown", [1, 0]),
    ):  # fmt: skip
        page.tab.keyboard.press(key)
        assert place() == expected
    assert grid.locator("td[tabindex='0']").count() == 1
    said = page.words("figure .readout >> nth=0")
    assert f"2 “{TEXTS[1]}” and 1 “{TEXTS[0]}”" in said
    grid.locator("td[role=gridcell]").nth(2).hover()
    assert f"1 “{TEXTS[0]}” and 3 “{TEXTS[2]}”" in page.words("figure .readout >> nth=0")


def test_arrows_reach_every_dot(page: Page) -> None:
    page.embed(*TEXTS)
    page.tab.locator("svg [role=option]").nth(0).focus()
    seen = set()
    for key in ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"] * 6:
        page.tab.keyboard.press(key)
        seen.add(page.tab.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert len(seen) == 4
    assert page.tab.locator("svg [aria-selected=true]").count() == 1


def test_a_screen_reader_finds_its_way(page: Page) -> None:
    page.embed(*TEXTS)
    tree = page.tab.locator("body").aria_snapshot()
    for line in (
        "- banner", "- main", '- navigation "Server"', '- heading "polyvec" [level=1]',
        '- form "What to embed"', '- textbox "One text a line"', '- combobox "Model"',
        '- group "The texts are"', '- radio "documents" [checked]', "- status:",
        '- region "Results"', '- grid "Cosine similarities."', '- listbox "Map of the texts."',
        f'option "1: {TEXTS[0]}"', f'rowheader "1: {TEXTS[0]}"',
    ):  # fmt: skip
        assert line in tree
    assert page.tab.locator("#status").get_attribute("aria-live") == "polite"
    assert page.tab.locator("#error").get_attribute("role") == "alert"


def test_themes(browser: Any, live: Live) -> None:
    page = Page(browser, live.url, color_scheme="dark")
    page.status("Ready")

    def back() -> str:
        color: str = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
        return color

    dark = back()
    page.tab.emulate_media(color_scheme="light")
    light = back()
    assert light != dark
    page.tab.select_option("#theme", "dark")
    assert back() == dark
    page.tab.reload()
    assert back() == dark, "it is kept"
    page.tab.select_option("#theme", "")
    assert back() == light
    page.context.close()
    assert page.problems == []


@pytest.mark.parametrize("width", [320, 380, 768])
def test_a_narrow_screen_scrolls_one_way_only(browser: Any, live: Live, width: int) -> None:
    page = Page(browser, live.url, viewport={"width": width, "height": 700})
    page.status("Ready")
    page.embed("a" * 200, *TEXTS, *(f"fox {number}" for number in range(9)))
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()
    assert page.problems == []


def test_a_server_that_is_gone_is_said(page: Page) -> None:
    page.tab.route("**/v1/embeddings", lambda route: route.abort())
    page.tab.fill("#texts", "fox")
    page.tab.click("#send")
    page.tab.locator("#error", has_text="does not answer. Is it still running?").wait_for()
    page.problems.clear()  # the browser's own line about the request


def test_a_busy_server_is_said_in_its_words(page: Page) -> None:
    body = json.dumps({"error": {"message": "The server is busy. Try again in 3 s."}})
    page.tab.route("**/v1/embeddings", lambda route: route.fulfill(status=429, body=body))
    page.tab.fill("#texts", "fox")
    page.tab.click("#send")
    page.tab.locator("#error").wait_for()
    assert page.words("#error") == "The server is busy (429). The server is busy. Try again in 3 s."


def test_a_request_can_be_cancelled_and_the_next_one_works(page: Page) -> None:
    page.tab.route("**/v1/embeddings", lambda _: None)  # it is never answered
    page.tab.fill("#texts", "fox\ndog")
    page.tab.click("#send")
    page.tab.click("#cancel")
    page.status("Cancelled.")
    assert page.tab.locator("#cancel").is_hidden()
    assert page.tab.locator("#error").is_hidden()
    page.tab.unroute("**/v1/embeddings")
    page.tab.click("#send")
    page.status("Done: 2 texts")
