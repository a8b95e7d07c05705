"""The tools for assistants, asked by the protocol's own client over standard input and output."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.library import Indexed, index_files
from tests.live import write_tiny
from tests.streaming_chat import streaming

mcp = pytest.importorskip("mcp", reason="mcp is not installed")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    return index_files(tmp_path_factory.mktemp("indexed"), write_tiny)


def calls(
    arguments: list[str], wanted: list[tuple[str, dict[str, Any]]]
) -> tuple[list[str], list[Any]]:
    """Start the server, call tools, and return the tools' names and the results."""

    async def talk() -> tuple[list[str], list[Any]]:
        started = ["-m", "polyvec", "mcp", *arguments]
        server = mcp.StdioServerParameters(
            command=sys.executable, args=started, env=dict(os.environ)
        )
        async with mcp.Client(server) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            return names, [await client.call_tool(name, given) for name, given in wanted]

    return asyncio.run(talk())


def facts(result: Any) -> Any:
    return json.loads(result.content[0].text)


def test_an_assistant_searches_and_asks(indexed: Indexed) -> None:
    with streaming("Hold the reset button [1].") as chat:
        names, results = calls(
            [*("--index", indexed.uri, "--chat-url", chat.url, "--chat-model", "m"),
             *("--min-cosine", "1")],
            [
                ("search", {"query": "Eiffel", "mode": "text"}),
                ("search", {"query": "router", "paths": ["*.md"], "limit": 1}),
                ("ask", {"question": "reset button router"}),
                ("search", {"query": " "}),
                ("search", {"query": "router", "since": "2999-01-01"}),
                ("ask", {"question": "reset button router", "paths": ["paris.txt"]}),
                ("ask", {"question": "reset button router", "file_types": ["tango"]}),
            ],
        )  # fmt: skip
    assert names == ["search", "ask"]
    assert facts(results[0])["results"][0]["path"] == "paris.txt"
    assert [r["path"] for r in facts(results[1])["results"]] == ["router.md"]
    assert facts(results[2])["answer"] == "Hold the reset button [1]."
    assert results[3].is_error
    assert "The query is empty" in results[3].content[0].text
    assert facts(results[4])["results"] == []
    assert "1.000 is needed (--min-cosine)" in facts(results[5])["reason"]
    assert "'tango' is no type of document" in results[6].content[0].text


def test_without_a_chat_endpoint_there_is_search_alone(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("POLYVEC_CHAT_URL", raising=False)
    monkeypatch.delenv("POLYVEC_CHAT_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    names, _ = calls(["--index", indexed.uri], [])
    assert names == ["search"]
