"""The catalogue's scores, comparisons, command and page, without a browser."""

import json
import re
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from polyvec.catalogue.cards import Card, cards, find, read_card
from polyvec.catalogue.facts import TASK_TYPES
from polyvec.errors import InputError
from polyvec.fit.offers import Offer
from polyvec.fit.prices import Prices
from polyvec.gallery.page import catalogue_page, policy_hashes
from polyvec.gallery.radar import Scale, radar
from polyvec.gallery.running import Running
from polyvec.gallery.scores import all_scores, peers_of, scores_of
from polyvec.gallery.words import NOT_KNOWN, commands, compared, weights
from polyvec.serve.catalogue import CataloguePage, fresh_prices
from polyvec.serve.settings import ServeSettings
from tests.command import Command
from tests.live import Live

KNOWN = cards()
NEMOTRON, BGE = find("llama-embed-nemotron-8b", KNOWN), find("bge-m3", KNOWN)
BARE = """
name = "org/bare<b>"
family = "Fam & Co"
provider = "Org"
about = "Nothing is <i>known</i>."
[sources]
page = "https://example.org/<script>alert(1)</script>"
[facts]
dimension = { value = 8, source = "page" }
"""


def test_means_are_those_that_were_published() -> None:
    """Against the paper's table; its bitext mean is over one task more."""
    published = dict(
        zip(
            TASK_TYPES, (81.72, 73.21, 54.35, 10.82, 29.86, 83.97, 67.78, 68.69, 79.41), strict=True
        )
    )
    scores = scores_of(NEMOTRON)
    assert scores is not None
    for kind, mean in published.items():
        assert scores.by_type[kind] == pytest.approx(mean, abs=0.8), kind
    stated = scores_of(find("Qwen3-Embedding-4B", KNOWN))
    assert stated is not None
    assert stated.mean == pytest.approx(60.86, abs=0.01)  # the paper's mean over types
    assert scores_of(find("default", KNOWN)) is None


def test_peers_are_of_like_size_and_of_another_family() -> None:
    scores = all_scores(KNOWN.values())
    peers = [KNOWN[name] for name in peers_of(BGE, KNOWN, scores)]
    assert len(peers) == 2
    assert all(one.family != "BGE" and (one.number("parameters") or 0) < 1e9 for one in peers)


def test_a_radar_holds_its_shapes_and_says_its_numbers() -> None:
    scores = all_scores(KNOWN.values())
    scale = Scale(scores)
    best, worst = ({k: scale.ends[k][side] for k in TASK_TYPES} for side in (1, 0))
    far, near = (_distances(scale.path(ends)) for ends in (best, worst))
    assert max(far) - min(far) < 0.2  # a regular shape
    assert max(near) / min(far) == pytest.approx(0.15, abs=0.01)
    drawn = radar([("bge-m3", scores[BGE.name])], scale)
    assert f"Retrieval {scores[BGE.name].by_type['Retrieval']:.1f}" in drawn
    assert drawn.count('class="shape') == 1


def _distances(path: str) -> list[float]:
    points = [tuple(map(float, point.split())) for point in path[1:-1].split("L")]
    assert len(points) == len(TASK_TYPES)
    centre_x, centre_y = 220.0, 156.0
    return [((x - centre_x) ** 2 + (y - centre_y) ** 2) ** 0.5 for x, y in points]


def test_two_models_are_compared_figure_by_figure() -> None:
    rows = dict(compared([NEMOTRON, BGE]))
    assert rows["dimensions"] == ["4,096", "1,024"]
    assert rows["commercial use"] == ["no", "yes"]
    assert rows["weights in bf16"] == ["15.0 GB", "1.1 GB"]
    assert rows["MMTEB, mean of task types"] == ["61.26", "52.52"]
    assert dict(compared([find("default", KNOWN)]))["MMTEB, Retrieval"] == [NOT_KNOWN]


def test_only_models_that_run_have_commands() -> None:
    assert commands(BGE)[0] == "polyvec pull hf:BAAI/bge-m3"
    assert commands(find("default", KNOWN))[0].startswith("polyvec similarity -m default")
    assert commands(find("gemini-embedding-001", KNOWN)) == []
    assert weights(find("gemini-embedding-001", KNOWN), "bf16") == NOT_KNOWN


# --- The page ---------------------------------------------------------------------------------


class _Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.bad: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")
            if name.startswith("on") or name == "style" or tag in ("link", "img", "iframe"):
                self.bad.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    text = catalogue_page(KNOWN)
    page = _Parsed(text)
    assert page.bad == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"url\(|@import|https?://[^\s\"<]+\.(js|css|woff2?)\b", text)
    for card in KNOWN.values():
        assert card.short_name in page.text
        for fact in card.facts.values():
            assert fact.source in page.text
    assert "FloresBitextMining" in page.text


def test_cards_are_words_and_no_html() -> None:
    bare = read_card(BARE, "bare.toml")
    text = catalogue_page({card.name: card for card in (bare, BGE)})
    assert "<i>known" not in text
    assert "<script>alert" not in text
    assert "&lt;i&gt;known" in text
    facts = re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)
    assert facts is not None
    assert json.loads(facts[1])["bare<b>"]["path"] == ""


def test_a_page_of_models_without_scores() -> None:
    two: dict[str, Card] = {c.name: c for c in (find("default", KNOWN), find("LaBSE", KNOWN))}
    text = catalogue_page(two)
    assert text.count("Published MMTEB scores by task type: not known.") == 2


def test_one_model_is_no_page() -> None:
    with pytest.raises(InputError, match="give two or more"):
        catalogue_page({BGE.name: BGE})


# --- The command and the server ---------------------------------------------------------------


def test_the_command_lists_shows_and_compares(run: Command) -> None:
    listed = run("catalogue")
    assert "Llama-Embed-Nemotron" in listed.out
    assert "bge-m3" in listed.out
    shown = run("catalogue", "hf:BAAI/bge-m3")
    assert "100 (at least; mteb lists 29 by name)" in shown.out
    assert "https://deepinfra.com/BAAI/bge-m3-multi-8k" in shown.out
    pair = run("catalogue", "bge-m3", "e5-mistral-7b-instruct")
    assert re.search(r"dimensions +1,024 +4,096", pair.out)
    facts = json.loads(run("catalogue", "bge-m3", "--json").out)
    assert facts[0]["facts"]["commercial_use"]["value"] == "yes"
    assert facts[0]["facts"]["released"]["value"] == "2024-06-28"
    assert facts[0]["mmteb"]["by_type"]["STS"] == pytest.approx(74.0, abs=0.1)
    assert len(json.loads(run("catalogue", "--json").out)) == len(KNOWN)


def test_the_command_writes_a_page_and_keeps_what_is_there(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "models.html"
    run("catalogue", "--html", str(path))
    assert path.read_text(encoding="utf-8").count("<article") == len(KNOWN)
    assert run("catalogue", "--html", str(path)).code == 2
    run("catalogue", "bge-m3", "LaBSE", "--html", str(path), "--force")
    assert "Linq-Embed-Mistral" not in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_that_is_not_known_is_said(run: Command) -> None:
    failed = run("catalogue", "bge-m4")
    assert "Did you mean bge-m3" in failed.err


def test_the_server_has_the_page_and_its_policy_fits(live: Live) -> None:
    answer = live.get("/models")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    for digest in policy_hashes(answer.text):
        assert f"'{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


# --- Where models run -------------------------------------------------------------------------


def _prices(*offers: Offer, age_s: float = 1500.0) -> Prices:
    return Prices(list(offers), {"vast": time.time() - age_s})


def _offer(gpu: str, memory_gb: float, price: float, is_spot: bool = False) -> Offer:
    return Offer("vast", gpu, 1, memory_gb, None, price, is_spot, "DE")


def test_a_card_says_which_devices_run_it() -> None:
    small, large = (Running(None).part(card) for card in (BGE, NEMOTRON))
    assert _verdict(small, "RTX 3060 12GB") == ("ok", "runs", "bf16, resident")
    assert _verdict(large, "RTX 4090, 24 GB") == ("ok", "runs", "bf16, resident")
    assert _verdict(large, "RTX 3060 12GB")[:2] == ("tight", "runs, with layers outside")
    assert "no prices are in the cache" in large
    assert "polyvec rent llama-embed-nemotron-8b" in large


def _verdict(part: str, device: str) -> tuple[str, ...]:
    found = re.search(
        rf'>{device}</th><td title="[^"]+"><span class="(\w+)".*?</span> ([^<]+)'
        r"</td><td>([^<]+)",
        part,
    )
    assert found is not None, device
    return found.groups()


def test_the_cheapest_that_is_enough_is_named_with_the_age_of_its_price() -> None:
    dear, cheap = _offer("RTX 5090", 32, 0.6), _offer("RTX 4090", 24, 0.34)
    tiny, spot = _offer("RTX 3060", 12, 0.05), _offer("L4", 24, 0.2, is_spot=True)
    part = Running(_prices(dear, cheap, tiny, spot)).part(NEMOTRON)
    rented = part.partition("The cheapest rentals")[2]
    shape = r'"row">bf16, resident</th><td>([^<]+)</td>.*?<td>(spot|on demand)</td>'
    rows = re.findall(shape, rented)
    assert rows == [("RTX 4090", "on demand"), ("L4", "spot")]
    assert re.search(r"Q4_K_M, packed</th><td>RTX 3060</td>", rented)  # bf16 does not fit
    assert "(25 minutes old)" in part
    assert "<code>--resume</code>" in part
    assert "(4 days old)" in Running(_prices(cheap, age_s=4.1 * 86400)).part(NEMOTRON)
    none = Running(_prices(_offer("GTX 1050", 2, 0.01))).part(NEMOTRON)
    assert "none of the offers in the cache has enough memory" in none


def test_a_model_whose_shape_is_not_known_is_not_judged() -> None:
    part = Running(None).part(find("jina-embeddings-v3", KNOWN))
    assert "does not state its network" in part
    rows = Running(None).rows(find("jina-embeddings-v3", KNOWN))
    assert {cell for _, cell in rows} == {NOT_KNOWN}


def test_a_comparison_has_what_each_needs_and_costs() -> None:
    running = Running(_prices(_offer("RTX 4090", 24, 0.34)))
    rows = dict(compared([NEMOTRON, BGE], running.rows))
    needs = [float(cell.split()[0]) for cell in rows["needs in bf16, on a GPU"]]
    assert needs[0] > 15.0 > needs[1] > 1.1  # at least the weights
    assert float(rows["needs in Q4_K_M packed, on a GPU"][0].split()[0]) < 12
    assert rows["cheapest rental in bf16, on demand"] == ["$0.34 an hour, RTX 4090"] * 2


def test_every_card_has_its_part() -> None:
    text = catalogue_page(KNOWN, Running(None))
    assert len(re.findall(r"<summary>Where \S+ runs", text)) == len(KNOWN)
    assert _Parsed(text).bad == []


# --- The server's prices ----------------------------------------------------------------------


def test_the_server_asks_for_prices_only_if_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[threading.Event] = []
    monkeypatch.setattr("polyvec.fit.prices.keep_fresh", stops.append)
    with fresh_prices(wanted=False):
        assert stops == []
    with fresh_prices(wanted=True):
        assert [stop.is_set() for stop in stops] == [False]
    assert stops[0].is_set()


def test_the_page_of_the_server_is_made_again_with_new_prices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = _prices(_offer("RTX 4090", 24, 0.34))
    monkeypatch.setattr("polyvec.fit.prices.known_prices", lambda: found)
    page = CataloguePage()
    first = page.text()
    assert "0.34" in first[0]
    assert page.text() is first
    found = _prices(_offer("RTX 4090", 24, 0.99))
    monkeypatch.setattr("polyvec.serve.catalogue._KEPT_S", 0.0)
    assert "0.99" in page.text()[0]


def test_a_setting_that_is_no_choice_is_refused() -> None:
    with pytest.raises(InputError, match="rental_prices is 'yes'; write true or false"):
        ServeSettings(rental_prices="yes")  # type: ignore[arg-type]
