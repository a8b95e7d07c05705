import numpy as np
import pytest

from polyvec.engine.remote import connect
from polyvec.errors import RemoteError
from tests.servers import serving


def lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


TEXTS = [f"{'x' * n}" for n in range(1, 40)]


@pytest.mark.parametrize("dialect", ["openai", "ollama", "tei"])
def test_the_dialect_is_found_out_and_the_order_kept(dialect: str) -> None:
    with serving(dialect, lengths) as url:
        server = connect(url)
        assert server.dialect == dialect
        assert np.array_equal(server.embed(TEXTS)[:, 0], np.arange(1, 40, dtype=np.float32))


def test_cohere_is_named_and_gets_the_role() -> None:
    with serving("cohere", lengths) as url:
        server = connect(f"cohere+{url}?model=m")
        assert server.embed(["abc"], "document")[0, 0] == 3
        assert server.embed(["abc"], "query")[0, 0] == 3 + len("Instruct: Find it\nQuery: ")


def test_openai_addresses_with_and_without_v1_are_the_same() -> None:
    with serving("openai", lengths) as url:
        assert connect(f"{url}/v1").base == connect(url).base


def test_several_models_must_be_chosen_from() -> None:
    gets = {"/v1/models": {"data": [{"id": "a"}, {"id": "b"}]}}
    with serving("openai", lengths, gets) as url:
        with pytest.raises(RemoteError, match=r"has 2 models: a, b; name one with \?model=NAME"):
            connect(url)
        assert connect(f"{url}?model=b").model == "b"


def test_a_server_of_no_known_shape() -> None:
    with (
        serving("cohere", lengths) as url,
        pytest.raises(RemoteError, match=r"like none of ollama, tei, openai .*404: no such path"),
    ):
        connect(url)


def test_no_server_at_all() -> None:
    with pytest.raises(RemoteError, match=r"cannot be reached: .*refused"):
        connect("openai+http://127.0.0.1:9?model=m").embed(["x"])


def test_unknown_dialects_and_addresses() -> None:
    with pytest.raises(RemoteError, match=r"names the dialect 'grpc'; polyvec speaks openai"):
        connect("grpc+http://127.0.0.1:9")
    with pytest.raises(RemoteError, match=r"is no http:// or https:// address"):
        connect("openai+ftp://127.0.0.1?model=m").embed(["x"])


def test_too_few_vectors_are_an_error() -> None:
    with (
        serving("ollama", lambda texts: lengths(texts)[:1]) as url,
        pytest.raises(RemoteError, match=r"answered 2 texts with vectors of shape \[1, 2\]"),
    ):
        connect(url).embed(["a", "b"])
