"""Mixed load for minutes, with clients that hang up: no wrong vector, and memory that stays flat.

    python bench/soak.py --minutes 20 [--model default] [--clients 12]

Every client knows the vectors of its own texts, computed before by the library in the same
precision, and compares each answer with them; some requests are broken off midway. The memory of
the server and of its worker is printed every ten seconds; it fails if an answer is wrong, or if the
last quarter's mean memory is over the second quarter's by more than 5%.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from typing import Any

import numpy as np

from load import Connection, request_bytes
from serve import _running

MIN_COSINE, GROWTH = 0.995, 1.05
_WORDS = ["fox", "lago", "река", "湖", "सागर", "search", "passage", "question", "12", "world"]


def main() -> None:
    """Run and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--model", default="default")
    parser.add_argument("--clients", type=int, default=12)
    options = parser.parse_args()
    command = [sys.executable, "-c", "from polyvec.cli.main import run; run()", "serve"]
    texts, vectors = _texts(options.model)
    with _running([*command, f"m={options.model}", "--port", "PORT"]) as base:
        counts, memory = asyncio.run(_soak(base, texts, vectors, options))
    quarter = max(1, len(memory) // 4)
    early = statistics.mean(memory[quarter : 2 * quarter] or memory)
    late = statistics.mean(memory[-quarter:])
    flat = late <= GROWTH * early
    print(json.dumps({**counts, "early_mb": round(early), "late_mb": round(late), "flat": flat}))
    if counts["wrong"] or counts["status"] or not flat:
        raise SystemExit(1)


def _texts(model: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    import polyvec

    draw = random.Random(0)
    texts = [" ".join(draw.choices(_WORDS, k=draw.randint(1, 120))) for _ in range(200)]
    return texts, polyvec.load(model).encode_document(texts)


async def _soak(
    base: str, texts: list[str], vectors: np.ndarray[Any, Any], options: argparse.Namespace
) -> tuple[Counter[str], list[float]]:
    counts, memory = Counter(right=0, wrong=0, hung_up=0, busy=0, status=0), list[float]()
    end = time.monotonic() + 60 * options.minutes

    async def client(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < end:
            await _ask(f"{base}/v1/embeddings", texts, vectors, draw, counts)

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(min(10.0, 6 * options.minutes))
            answer = await asyncio.to_thread(_memory_mb, base)
            memory.append(answer)
            print(f"{answer:7.0f} MB  {dict(counts)}", file=sys.stderr)

    await asyncio.gather(watch(), *(client(seed) for seed in range(options.clients)))
    return counts, memory


async def _ask(
    url: str,
    texts: list[str],
    vectors: np.ndarray[Any, Any],
    draw: random.Random,
    counts: Counter[str],
) -> None:
    chosen = draw.sample(range(len(texts)), draw.choice([1, 1, 1, 4, 16]))
    request = request_bytes(url, {"model": "m", "input": [texts[i] for i in chosen]})
    connection = Connection(url)
    try:
        if draw.random() < 0.1:
            async with asyncio.timeout(draw.uniform(0.001, 0.2)):
                await connection.ask(request)
        status, raw = await connection.ask(request)
    except TimeoutError:
        counts["hung_up"] += 1
        return
    finally:
        connection.close()
    if status != 200:
        counts["busy" if status == 429 else "status"] += 1
        return
    got = np.asarray([item["embedding"] for item in json.loads(raw)["data"]], dtype=np.float32)
    right = got.shape == vectors[chosen].shape
    right = right and float((got * vectors[chosen]).sum(1).min()) > MIN_COSINE
    counts["right" if right else "wrong"] += 1


def _memory_mb(base: str) -> float:
    """Return the resident memory of the server's worker and of the server itself."""
    import urllib.request

    with urllib.request.urlopen(f"{base}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    wanted = ("polyvec_model_memory_bytes{", "polyvec_server_memory_bytes ")
    return sum(float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith(wanted)) / 1e6


if __name__ == "__main__":
    main()
