"""Rental prices: what providers answer, what they get wrong, and the cache.

Replies have the shapes that the providers document: Vast.ai's ``POST /api/v0/bundles/`` and
RunPod's GraphQL ``gpuTypes``.
"""

import json
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from polyvec.errors import InputError
from polyvec.fit import prices as module
from polyvec.fit import rates
from polyvec.fit.facts import ModelFacts, facts_of
from polyvec.fit.hunted import Gpuhunt
from polyvec.fit.offers import Offer, PriceError
from polyvec.fit.prices import keep_fresh, known_prices, prices, rentals
from polyvec.fit.runpod import RunPod
from polyvec.fit.vast import Vast
from polyvec.hub import cache_folder
from tests.command import Command

NEMOTRON = "llama-embed-nemotron-8b"


def vast_offer(**changed: Any) -> dict[str, Any]:
    """Return an entry as Vast.ai gives it, most fields left out."""
    return {
        "id": 31415926, "machine_id": 2718, "gpu_name": "RTX 4090", "num_gpus": 1,
        "gpu_ram": 24564, "cpu_ram": 64_000, "dph_total": 0.40, "min_bid": 0.15,
        "reliability2": 0.998, "geolocation": "Iceland, IS", "rentable": True, "verified": True,
        **changed,
    }  # fmt: skip


def runpod_type(**changed: Any) -> dict[str, Any]:
    """Return a GPU type as RunPod gives it."""
    return {
        "id": "NVIDIA H100 80GB HBM3", "displayName": "H100 SXM", "memoryInGb": 80,
        "securePrice": 2.99, "communityPrice": 2.69, "secureSpotPrice": 1.75,
        "communitySpotPrice": 0, **changed,
    }  # fmt: skip


VAST = {"offers": [vast_offer(), vast_offer(gpu_name="L40S", gpu_ram=46068, dph_total=0.8)]}
RUNPOD = {"data": {"gpuTypes": [runpod_type()]}}


class Providers:
    """Both providers on this machine; a test sets what they answer."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {"vast": VAST, "runpod": RUNPOD}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.wait_s = 0.0
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        serve = self.server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        name = "vast" if handler.path == "/vast/bundles/" else "runpod"
        self.asked.append((handler.path, body, handler.headers.get("Authorization")))
        time.sleep(self.wait_s)
        reply = self.replies[name]
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        try:
            handler.send_response(self.status)
            for key, value in self.headers.items():
                handler.send_header(key, value)
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:
            pass  # the client has given up, as a test wants

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Providers]:
    running = Providers()
    monkeypatch.setenv("POLYVEC_VAST_URL", f"{running.url}/vast")
    monkeypatch.setenv("POLYVEC_RUNPOD_URL", f"{running.url}/graphql")
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(rates, "_measure", lambda *_: 1e-3)
    for key in ("VAST_API_KEY", "RUNPOD_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    yield running
    running.stop()


@pytest.fixture
def nemotron() -> ModelFacts:
    return facts_of(NEMOTRON)


def _age_cache(hours: float) -> None:
    path = cache_folder() / module.FILE
    kept = orjson.loads(path.read_bytes())
    for part in kept.values():
        part["at"] -= hours * 3600
    path.write_bytes(orjson.dumps(kept))


def test_vast_gives_on_demand_and_interruptible(providers: Providers) -> None:
    found = Vast().fetch(5)
    assert [(o.gpu, o.is_spot, o.price_per_h) for o in found.offers] == [
        ("RTX 4090", False, 0.40), ("L40S", False, 0.80),
        ("RTX 4090", True, 0.15), ("L40S", True, 0.15),
    ]  # fmt: skip
    assert found.offers[0].memory_gb == pytest.approx(23.99, abs=0.01)
    assert found.offers[0].host_memory_gb == 62.5
    assert [body["type"] for _, body, _ in providers.asked] == ["on-demand", "bid"]
    assert providers.asked[0][1]["rentable"] == {"eq": True}


def test_runpod_gives_both_clouds_and_leaves_prices_of_zero_out(providers: Providers) -> None:
    found = RunPod().fetch(5)
    assert [(o.place, o.is_spot, o.price_per_h) for o in found.offers] == [
        ("secure cloud", False, 2.99), ("community cloud", False, 2.69),
        ("secure cloud", True, 1.75),
    ]  # fmt: skip
    assert "gpuTypes" in providers.asked[0][1]["query"]


def test_a_key_goes_along(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_API_KEY", "k-1")
    Vast().fetch(5)
    assert providers.asked[0][2] == "Bearer k-1"


@pytest.mark.parametrize(
    "changed",
    [
        {"dph_total": 0}, {"dph_total": None}, {"dph_total": "cheap"}, {"dph_total": -1},
        {"gpu_ram": 0}, {"gpu_name": None}, {"num_gpus": 0}, {"dph_total": float("nan")},
        {"dph_total": True},
    ],
)  # fmt: skip
def test_an_entry_without_a_price_or_size_is_left_out_and_counted(
    providers: Providers, changed: dict[str, Any]
) -> None:
    providers.replies["vast"] = {"offers": [vast_offer(**changed, min_bid=0), vast_offer()]}
    found = Vast().fetch(5)
    assert len(found.offers) == 2  # the good one, both ways
    assert found.skipped == 2


def test_missing_fields_are_left_out_and_counted(providers: Providers) -> None:
    providers.replies["vast"] = {"offers": [{"id": 1}, "text", vast_offer()]}
    assert Vast().fetch(5).skipped == 4
    providers.replies["runpod"] = {"data": {"gpuTypes": [{"id": "x"}, None, runpod_type()]}}
    found = RunPod().fetch(5)
    assert (len(found.offers), found.skipped) == (3, 2)


BROKEN: list[tuple[Any, str]] = [
    (b"<html>down for maintenance</html>", "not JSON"),
    (b'{"offers": [', "not JSON"),
    (b"", "not JSON"),
    ([1, 2], "not a JSON object"),
    ({"success": False}, "format has changed"),
    ({"offers": None}, "format has changed"),
    ({"data": {"gpuTypes": "none"}}, "format has changed"),
]


@pytest.mark.parametrize(("reply", "said"), BROKEN)
@pytest.mark.parametrize("make", [Vast, RunPod])
def test_a_broken_reply_is_an_error(
    providers: Providers, make: Callable[[], Vast | RunPod], reply: object, said: str
) -> None:
    providers.replies = {"vast": reply, "runpod": reply}
    with pytest.raises(PriceError, match=said):
        make().fetch(5)


def test_graphql_errors_are_shown(providers: Providers) -> None:
    providers.replies["runpod"] = {"errors": [{"message": "Cannot query field"}], "data": None}
    with pytest.raises(PriceError, match="Cannot query field"):
        RunPod().fetch(5)


@pytest.mark.parametrize(
    ("status", "said"), [(429, "try again in 30 s"), (401, "VAST_API_KEY"), (500, "answered 500")]
)
def test_refusals_say_what_to_do(providers: Providers, status: int, said: str) -> None:
    providers.status, providers.headers = status, {"Retry-After": "30"}
    with pytest.raises(PriceError, match=said):
        Vast().fetch(5)


def test_a_provider_that_hangs_is_given_up(providers: Providers) -> None:
    providers.wait_s = 2.0
    started = time.monotonic()
    with pytest.raises(PriceError, match="timed out"):
        Vast().fetch(0.2)
    assert time.monotonic() - started < 1.5


def test_nobody_there(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("POLYVEC_VAST_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(PriceError, match="could not be reached"):
        Vast().fetch(2)


def test_prices_are_kept_for_an_hour(providers: Providers) -> None:
    prices()
    asked = len(providers.asked)
    again = prices()
    assert len(providers.asked) == asked
    assert len(again.offers) == 7
    _age_cache(1.1)
    prices()
    assert len(providers.asked) == 2 * asked
    prices(refresh=True)
    assert len(providers.asked) == 3 * asked


def test_one_provider_down_uses_its_last_prices_and_says_so(providers: Providers) -> None:
    prices()
    _age_cache(30)
    providers.replies["vast"] = b"broken"
    found = prices()
    assert found.age_s("vast") > 29 * 3600
    assert found.age_s("runpod") < 60
    assert "Vast.ai" in found.problems[0]
    assert {o.provider for o in found.offers} == {"vast", "runpod"}


def test_offline_asks_nobody(providers: Providers) -> None:
    prices()
    _age_cache(50)
    providers.asked.clear()
    assert prices(offline=True).age_s("vast") > 49 * 3600
    assert not providers.asked


def test_without_cache_and_network_it_is_an_error(providers: Providers) -> None:
    providers.status = 500
    with pytest.raises(PriceError, match="none are in the cache"):
        prices()
    with pytest.raises(PriceError, match="--offline"):
        prices(offline=True)
    assert known_prices() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"vast": 3}', b'{"vast": {"at": "x"}}'])
def test_a_damaged_cache_is_fetched_again(providers: Providers, content: bytes) -> None:
    path = cache_folder() / module.FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert prices().offers


def test_a_cache_that_cannot_be_written_is_no_error(
    providers: Providers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "file"))
    assert prices().offers


def test_an_unknown_provider_is_refused(providers: Providers) -> None:
    with pytest.raises(InputError, match=r"ebay.*vast"):
        prices(["ebay"])


def test_the_server_keeps_prices_fresh_until_it_stops(providers: Providers) -> None:
    stop = threading.Event()
    thread = keep_fresh(stop, every_s=0.05)
    until = time.monotonic() + 20
    while len(providers.asked) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    providers.status = 500  # a failure does not end it
    while len(providers.asked) < 10 and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert len(providers.asked) >= 10
    assert known_prices() is not None


def _offer(gpu: str, memory: float, price: float, **changed: Any) -> Offer:
    given = {"gpus": 1, "host_memory_gb": 64.0, "is_spot": False} | changed
    return Offer("vast", gpu, memory_gb=memory, price_per_h=price, **given)


def test_rentals_have_enough_memory_and_the_cheapest_comes_first(nemotron: ModelFacts) -> None:
    offers = [
        _offer("RTX 4060", 8, 0.05), _offer("H100 SXM", 80, 2.0), _offer("RTX 4090", 24, 0.5),
        _offer("RTX 4090", 24, 0.4), _offer("A40", 48, 0.8, gpus=4),
    ]  # fmt: skip
    found = rentals(offers, nemotron, "bf16")
    assert [(r.offer.gpu, r.offer.price_per_gpu_h) for r in found] == [
        ("A40", 0.2), ("RTX 4090", 0.4), ("H100 SXM", 2.0),
    ]  # fmt: skip


def test_streamed_layers_let_small_ones_in(nemotron: ModelFacts) -> None:
    found = rentals([_offer("RTX 4060", 8, 0.05)], nemotron, "bf16", "streamed")
    assert [r.offer.gpu for r in found] == ["RTX 4060"]


def test_packed_blocks_must_fit_the_machines_memory(nemotron: ModelFacts) -> None:
    small = _offer("RTX 4060", 8, 0.05, host_memory_gb=4.0)
    enough = _offer("RTX 4060", 8, 0.06, host_memory_gb=8.0)
    (found,) = rentals([small, enough], nemotron, "Q4_K_M")
    assert found.offer.price_per_h == 0.06
    assert found.assessment.source == "packed"


def test_a_million_documents_cost_hours_times_price(nemotron: ModelFacts) -> None:
    (found,) = rentals([_offer("H100 SXM", 80, 2.0)], nemotron, "bf16")
    rate = found.assessment.texts_per_s
    assert rate is not None
    assert found.price_per_million == pytest.approx(2.0 * 1e6 / rate / 3600)


def test_a_gpu_that_is_not_in_the_table_has_no_speed(nemotron: ModelFacts) -> None:
    (found,) = rentals([_offer("Unheard 9", 80, 1.0)], nemotron, "bf16")
    assert found.price_per_million is None


def test_gpuhunt_is_optional_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    with pytest.raises(PriceError, match="pip install gpuhunt"):
        Gpuhunt().fetch(1)
    item = types.SimpleNamespace(
        provider="lambdalabs", instance_name="gpu_1x_h100", location="us-east-1", price=2.49,
        cpu=26, memory=200.0, gpu_count=1, gpu_name="H100", gpu_memory=80.0, spot=False,
    )  # fmt: skip
    free = types.SimpleNamespace(**{**vars(item), "price": 0.0})
    fake = types.ModuleType("gpuhunt")
    fake.query = lambda **_: [item, free]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gpuhunt", fake)
    found = Gpuhunt().fetch(1)
    assert (found.offers[0].provider, found.offers[0].host_memory_gb) == ("lambdalabs", 200.0)
    assert found.skipped == 1


def test_the_command_lists_both_kinds_and_warns(run: Command, providers: Providers) -> None:
    done = run("rent", NEMOTRON)
    assert done.code == 0
    assert "on demand" in done.out
    assert "spot, may be interrupted" in done.out
    assert "--resume" in done.err
    assert "without notice" in done.err
    assert run("rent", NEMOTRON, "--on-demand").err.count("without notice") == 0


def test_the_command_offline_says_how_old_prices_are(run: Command, providers: Providers) -> None:
    run("rent", NEMOTRON)
    _age_cache(49)
    done = run("rent", NEMOTRON, "--offline")
    assert done.code == 0
    assert "2 days old" in done.err


def test_the_command_in_json(run: Command, providers: Providers) -> None:
    found = json.loads(run("rent", NEMOTRON, "--precision", "Q4_K_M", "--json").out)
    first = found["rentals"][0]
    assert first["price_per_gpu_h"] == 0.4
    assert first["assessment"]["weights"] in ("resident", "packed")
    assert first["price_per_million"] > 0
    assert set(found["age_s"]) == {"vast", "runpod"}


def test_fit_orders_devices_by_these_prices(run: Command, providers: Providers) -> None:
    prices()
    found = json.loads(run("fit", NEMOTRON, "--json").out)
    green = [d for d in found["devices"] if d["color"] == "green"]
    stated = [d["price_per_gpu_h"] for d in green]
    assert stated[:4] == [0.15, 0.15, 1.75, None]  # unknown prices come last
    assert {d["device"]["name"] for d in green[:2]} == {"RTX 4090", "L40S"}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("--provider", "ebay"), 2, "ebay"),
        (("--precision", "int3"), 2, "int3"),
        (("--offline",), 1, "none are in the cache"),
    ],
)
def test_bad_input_is_an_error(
    run: Command, providers: Providers, given: tuple[str, ...], code: int, said: str
) -> None:
    done = run("rent", NEMOTRON, *given)
    assert (done.code, said in done.err) == (code, True)


def test_nothing_large_enough_says_what_to_do(run: Command, providers: Providers) -> None:
    providers.replies["vast"] = {"offers": [vast_offer(gpu_ram=8_192)]}
    done = run("rent", NEMOTRON, "--provider", "vast")
    assert done.code == 2
    assert "--weights streamed" in done.err


def test_the_cache_is_written_whole(providers: Providers) -> None:
    prices()
    assert not list(cache_folder().glob("*partial*"))
