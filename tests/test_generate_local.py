"""``generate`` asks a real local language model, which a server in OpenAI's shape runs.

Needs one that is up, with a small model; any of these, then the address and the model's name::

    python -m llama_cpp.server --model SmolLM2-135M-Instruct.Q4_1.gguf --port 8080
    llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --port 8080
    POLYVEC_TEST_CHAT='http://127.0.0.1:8080/v1?model=smollm2' \\
        python -m pytest tests/test_generate_local.py

``polyvec pull smollm2`` fetches the file. A model this small writes little sense, so what is tested
is that whatever is kept has the shape that was asked for.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from polyvec.data.generate.run import Generator
from polyvec.data.generate.settings import GenerateSettings, Kind, parse_endpoint
from polyvec.data.generate.tasks import Inputs, Passage
from polyvec.records.read import read_records

ADDRESS = os.environ.get("POLYVEC_TEST_CHAT", "")

pytestmark = pytest.mark.skipif(not ADDRESS, reason="POLYVEC_TEST_CHAT is not set")

PASSAGES = (
    Passage("Lake Constance lies between Germany, Austria and Switzerland.", "d1"),
    Passage("The panda eats bamboo for up to twelve hours a day.", "d2"),
    Passage("A router is reset by holding its small button for ten seconds.", "d3"),
    Passage("Rust's compiler refuses a reference that outlives its value.", "d4"),
)


@pytest.mark.parametrize(("kind", "inputs"), [("questions", Inputs(PASSAGES)), ("sts", Inputs())])
def test_a_small_model_is_held_to_the_schema(tmp_path: Path, kind: Kind, inputs: Inputs) -> None:
    endpoint = replace(parse_endpoint(ADDRESS), max_concurrent=1, max_answer_tokens=200)
    settings = GenerateSettings(
        kind, (endpoint,), 2, ideas_per_request=2, max_attempts=6.0, near_duplicate=1.0
    )
    output = tmp_path / "out.jsonl"
    status = Generator(settings, output, inputs).run()
    (facts,) = status.endpoints.values()
    assert facts["response_format"] != "none"  # a grammar, not words, makes it write JSON
    assert status.kept >= 1
    texts = {passage.text for passage in PASSAGES}
    for record in read_records(output):
        assert any(map(str.isalpha, record.query))
        if kind == "questions":
            assert record.positives[0] in texts
        else:
            assert len({record.query, *record.positives, *record.negatives}) == 3
