"""BERT-family models as GGUF files: what llama.cpp and Ollama look for, and our own reading."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from gguf.gguf_reader import GGUFReader
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors

from polyvec.engine.embedder import Embedder
from polyvec.errors import SpecError
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.tokens import Tokenizer as Ours
from polyvec.publish.gguf import write_gguf
from polyvec.publish.measure import check_tokens
from polyvec.publish.mixture import FILE_TYPES, tensor_type
from polyvec.publish.notes import gguf_notes
from polyvec.publish.vocabulary import tokenizer_metadata
from polyvec.spec import BertArchitecture
from tests.tiny import BOS, EOS, Json, byte_bpe, write_json, write_model
from tests.tiny_bert import (
    PIECES,
    SPECIALS,
    TEXTS,
    bert_metadata,
    bert_shape,
    bert_weights,
    charsmap,
    gguf_arrays,
    official_unigram,
    unigram,
    wordpiece,
    write_bert_model,
)

ODD = ["[CLS] x [unused1]", "<unk> a <s></s>", "Café NAÏVE", "tabs\tand\nends", "  two  spaces  "]


def _metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def _written(source: ModelFiles, path: Path, kind: str = "F32") -> ModelFiles:
    write_gguf(source, path, kind)
    return open_model(path)


def _model(folder: Path, kind: str, tokenizer: Tokenizer) -> ModelFiles:
    config = bert_shape(kind, vocab_size=tokenizer.get_vocab_size())
    write_model(folder, config, tokenizer=tokenizer, tensors=bert_weights(config))
    return open_model(folder)


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2), ("lasttoken", 3)])
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_a_gguf_has_the_vectors_and_the_spec(
    kind: str, pooling: str, number: int, tmp_path: Path
) -> None:
    folder = write_bert_model(tmp_path / "m", bert_shape(kind), pooling, normalize=False)
    source = open_model(folder, {"max_tokens": 40})
    result = _written(source, tmp_path / "m.gguf")
    assert result.spec == source.spec
    assert _metadata(tmp_path / "m.gguf")["bert.pooling_type"] == number
    ours, theirs = (Embedder(files, "fp32").encode_document(TEXTS) for files in (source, result))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_tensors_are_those_of_llama_cpps_converter(kind: str, tmp_path: Path) -> None:
    config = bert_shape(kind)
    source = open_model(write_bert_model(tmp_path / "m", config))
    write_gguf(source, tmp_path / "m.gguf", "F32")
    expected = gguf_arrays(config, bert_weights(config))
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert tensors.keys() == expected.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, expected[name])
    keys = _metadata(tmp_path / "m.gguf")
    wanted = bert_metadata(config)
    assert {key: keys[key] for key in wanted} == pytest.approx(wanted)
    assert keys["tokenizer.ggml.token_type_count"] == config["type_vocab_size"]


def test_keys_of_a_wordpiece(tmp_path: Path) -> None:
    source = _model(tmp_path / "m", "bert", wordpiece())
    write_gguf(source, tmp_path / "m.gguf", "F32")
    keys = _metadata(tmp_path / "m.gguf")
    tokens = keys["tokenizer.ggml.tokens"]
    assert tokens[:5] == list(SPECIALS)
    assert keys["tokenizer.ggml.token_type"][:6] == [3, 3, 3, 3, 3, 1]
    vocabulary = wordpiece().get_vocab()
    assert tokens[vocabulary["the"]] == "▁the"
    piece = next(token for token in vocabulary if token.startswith("##"))
    assert tokens[vocabulary[piece]] == piece[2:]
    assert keys["tokenizer.ggml.model"] == "bert"
    assert keys["tokenizer.ggml.normalizer.lowercase"] is True
    assert keys["tokenizer.ggml.normalizer.strip_accents"] is True
    names = ("padding", "unknown", "cls", "seperator", "mask", "bos", "eos")
    assert [keys[f"tokenizer.ggml.{name}_token_id"] for name in names] == [0, 1, 2, 3, 4, 2, 3]


def test_keys_of_a_unigram(tmp_path: Path) -> None:
    source = _model(tmp_path / "m", "xlm-roberta", official_unigram())
    write_gguf(source, tmp_path / "m.gguf", "F32")
    keys = _metadata(tmp_path / "m.gguf")
    assert keys["tokenizer.ggml.model"] == "t5"
    assert keys["tokenizer.ggml.tokens"][:4] == list(PIECES)
    assert keys["tokenizer.ggml.token_type"][:5] == [3, 3, 3, 2, 1]
    assert bytes(keys["tokenizer.ggml.precompiled_charsmap"]) == charsmap()
    assert (
        GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.precompiled_charsmap"].types[-1].name
        == "UINT8"
    )  # llama.cpp refuses any other but INT8
    for name in ("add_space_prefix", "remove_extra_whitespaces", "add_bos_token", "add_eos_token"):
        assert keys[f"tokenizer.ggml.{name}"] is True
    names = ("bos", "padding", "eos", "unknown", "cls", "seperator")
    assert [keys[f"tokenizer.ggml.{name}_token_id"] for name in names] == [0, 1, 2, 3, 0, 2]


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_ollama_takes_it_for_an_embedding_model(kind: str, tmp_path: Path) -> None:
    """What ollama/ollama reads, at commit fb30760: see docs/export.md.

    ``server/images.go`` gives the capability "embedding", and not "completion", for
    ``{arch}.pooling_type``; ``llm/llama_server.go`` then starts llama-server with ``--embedding``
    and nothing about pooling, attention, BOS or EOS, so the file must say them.
    ``server/routes.go`` (EmbedHandler) cuts at ``{arch}.context_length`` and counts the tokens
    named by ``bos_token_id`` and ``eos_token_id``.
    """
    source = open_model(write_bert_model(tmp_path / "m", bert_shape(kind)))
    write_gguf(source, tmp_path / "m.gguf", "F16")
    keys = _metadata(tmp_path / "m.gguf")
    arch = keys["general.architecture"]
    assert keys[f"{arch}.pooling_type"] == 1
    assert keys[f"{arch}.attention.causal"] is False
    assert keys[f"{arch}.context_length"] == 64
    assert (source.tokenizer.bos_ids, source.tokenizer.eos_ids) == (
        [keys["tokenizer.ggml.bos_token_id"]],
        [keys["tokenizer.ggml.eos_token_id"]],
    )
    assert "tokenizer.chat_template" not in keys


# --- Tokenizers that survive ------------------------------------------------------------------


def _byte_bpe_framed() -> Tokenizer:
    return byte_bpe(bos=True, eos=True)


def _xlmr_of_transformers_4() -> Tokenizer:
    backend = unigram()
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(charsmap()),
            normalizers.Strip(left=False),
            normalizers.Replace(Regex(" {2,}"), "▁"),
        ]
    )
    return backend


def _cased_without_accents() -> Tokenizer:
    backend = wordpiece(lowercase=False)
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    return backend


def _uncased_with_capitals() -> Tokenizer:
    """A vocabulary trained cased, used uncased: only the key says so."""
    backend = wordpiece(lowercase=False)
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    return backend


@pytest.mark.parametrize(
    ("kind", "tokenizer"),
    [
        ("bert", wordpiece()),
        ("bert", wordpiece(lowercase=False)),
        ("bert", _cased_without_accents()),
        ("bert", _uncased_with_capitals()),
        ("xlm-roberta", unigram()),
        ("xlm-roberta", official_unigram()),
        ("xlm-roberta", _xlmr_of_transformers_4()),
        ("roberta", _byte_bpe_framed()),
    ],
    ids=["uncased", "cased", "no accents", "capitals", "unigram", "xlm-r", "older xlm-r", "bytes"],
)
def test_a_text_has_the_same_tokens(kind: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = _model(tmp_path / "m", kind, tokenizer)
    result = _written(source, tmp_path / "m.gguf")
    check_tokens(source, result)
    for text in [*TEXTS, *ODD]:
        ids = [f.tokenizer.encode([text], f.spec, "document").ids for f in (source, result)]
        assert ids[0] == ids[1]


def test_rows_without_a_token_get_an_unused_one(tmp_path: Path) -> None:
    config = bert_shape("xlm-roberta")
    config["vocab_size"] += 3
    result = _written(open_model(write_bert_model(tmp_path / "m", config)), tmp_path / "m.gguf")
    keys = _metadata(tmp_path / "m.gguf")
    assert keys["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]
    assert keys["tokenizer.ggml.scores"][-3:] == [-10_000] * 3
    assert result.architecture.vocab_size == config["vocab_size"]


def test_a_pooler_is_left_out(tmp_path: Path) -> None:
    tensors = bert_weights(bert_shape())
    pooler = {"pooler.dense.weight": tensors["embeddings.LayerNorm.bias"].repeat(48, 1)}
    folder = write_bert_model(tmp_path / "m", tensors={**tensors, **pooler})
    assert _written(open_model(folder), tmp_path / "m.gguf").weights.names == tensors.keys()


# --- Types ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_positions_and_token_types_stay_float32(kind: str) -> None:
    """``tensor_allows_quantization`` in llama.cpp, and its converter."""
    for name in ("position_embd.weight", "token_types.weight"):
        assert tensor_type(name, (512, 384), FILE_TYPES[kind], 6).name == "F32"


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("token_embd.weight", 384, "Q8_0"),
        ("blk.0.attn_q.weight", 384, "Q5_0"),
        ("blk.0.ffn_up.weight", 384, "Q5_0"),
        ("blk.2.attn_v.weight", 384, "Q8_0"),
        ("blk.0.attn_v.weight", 384, "Q5_0"),
        ("blk.2.ffn_down.weight", 1536, "Q6_K"),
        ("blk.5.ffn_down.weight", 1536, "Q6_K"),
        ("blk.0.ffn_down.weight", 1536, "Q4_K"),
    ],
)
def test_q4_k_m_of_minilm_is_llama_cpps_mixture(name: str, columns: int, expected: str) -> None:
    """Rows of 384 are no whole blocks of 256; bench/parity.py runs llama.cpp's own quantizer."""
    assert tensor_type(name, (384, columns), FILE_TYPES["Q4_K_M"], 6).name == expected


# --- What GGUF has no words for ---------------------------------------------------------------


def _refused(backend: Tokenizer, words: str, bos: bool = True) -> None:
    ours = Ours(backend, [0] if bos else [], [2] if bos else [])
    with pytest.raises(SpecError, match=words):
        tokenizer_metadata(ours, backend.get_vocab_size())


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Lowercase(),
        normalizers.BertNormalizer(clean_text=False),
        normalizers.BertNormalizer(handle_chinese_chars=False),
    ],
)
def test_a_wordpiece_that_is_not_berts_is_refused(normalizer: normalizers.Normalizer) -> None:
    backend = wordpiece()
    backend.normalizer = normalizer
    _refused(backend, r"is WordPiece, but not as BERT has it.*Export it to a folder")


def test_a_wordpiece_with_longer_words_is_refused() -> None:
    backend = wordpiece()
    backend.model.max_input_chars_per_word = 200
    _refused(backend, r"reads words of up to 200 characters")


def test_tokens_that_marks_would_make_one_are_refused() -> None:
    backend = wordpiece()
    backend.add_tokens(["##[x]"])
    _refused(backend, r"token '##\[x\]' would be '\[x\]' in a GGUF, which there means '\[x\]'")


def test_a_model_without_first_and_last_token_is_refused() -> None:
    """llama.cpp's WordPiece adds both whatever the file says."""
    for backend in (wordpiece(), unigram()):
        _refused(backend, r"have no first or no last token of their own", bos=False)


@pytest.mark.parametrize(
    ("normalizer", "splitter"),
    [
        (None, pre_tokenizers.Metaspace()),
        (normalizers.Replace(Regex(" {2,}"), " "), pre_tokenizers.Metaspace()),
        (None, pre_tokenizers.WhitespaceSplit()),
        (
            normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]),
            pre_tokenizers.Metaspace(prepend_scheme="first"),
        ),
        (
            None,
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        ),
    ],
    ids=["kept", "end kept", "no mark", "first only", "tabs split"],
)
def test_other_ways_with_spaces_are_refused(
    normalizer: normalizers.Normalizer | None, splitter: pre_tokenizers.PreTokenizer
) -> None:
    backend = unigram()
    state = orjson.loads(backend.to_str()) | {"normalizer": None}
    backend = Tokenizer.from_str(orjson.dumps(state).decode())
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    _refused(backend, r"treats spaces in a way that GGUF has no words for")


def test_a_stated_limit_is_kept(tmp_path: Path) -> None:
    folder = write_bert_model(tmp_path / "m")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20})
    source = open_model(folder)
    result = _written(source, tmp_path / "m.gguf")
    assert isinstance(result.architecture, BertArchitecture)
    assert (result.spec.max_tokens, result.architecture.num_positions) == (20, 64)


def test_first_and_last_token_of_bytes_are_roberta_s(tmp_path: Path) -> None:
    backend = byte_bpe()
    vocabulary = backend.get_vocab()
    first, last = (BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])
    backend.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=False)
    source = _model(tmp_path / "m", "roberta", backend)
    write_gguf(source, tmp_path / "m.gguf", "F32")
    keys = _metadata(tmp_path / "m.gguf")
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert keys["tokenizer.ggml.add_bos_token"] is True
    assert keys["tokenizer.ggml.add_eos_token"] is True


# --- What the user is told --------------------------------------------------------------------


def _notes(folder: Path) -> str:
    return " | ".join(gguf_notes(open_model(folder)))


def test_what_llama_cpp_does_otherwise_is_told(tmp_path: Path) -> None:
    config = bert_shape()
    prompts = {"query": "query: ", "document": "passage: "}
    parts: Json = {"tensors": bert_weights(config), "tokenizer": wordpiece()}
    folder = write_model(tmp_path / "m", config, prompts=prompts, **parts)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20})
    notes = _notes(folder)
    assert "add no prefix: write 'query: ' before queries." in notes
    assert "add no prefix: write 'passage: ' before documents." in notes
    assert "read up to 64 tokens of a text; the model's own files cut at 20." in notes
    assert (
        "splits Korean, and Indic scripts and their like (Burmese, Khmer), into other tokens"
        in notes
    )


def test_a_model_that_llama_cpp_runs_wholly_right_has_no_notes(tmp_path: Path) -> None:
    for kind in ("roberta", "xlm-roberta"):
        assert _notes(write_bert_model(tmp_path / kind, bert_shape(kind))) == ""
    tokenizer = wordpiece(lowercase=False)
    config = bert_shape(vocab_size=tokenizer.get_vocab_size())
    tensors = bert_weights(config)
    assert _notes(write_model(tmp_path / "m", config, tokenizer=tokenizer, tensors=tensors)) == ""
