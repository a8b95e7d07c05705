"""What users of an exported GGUF must know: GGUF has no key for it, or llama.cpp no code."""

from collections.abc import Iterator

import orjson

from polyvec.model.files import ModelFiles
from polyvec.publish.gguf_keys import context_length
from polyvec.spec import INSTRUCTION_SLOT, Role, Spec

_ROLES: dict[Role, str] = {"query": "queries", "document": "documents"}


def gguf_notes(files: ModelFiles) -> list[str]:
    """Return what other programs will do otherwise than the model, one sentence or two each."""
    return [*_prefixes(files.spec), *_limit(files), *_wordpiece(files)]


def _prefixes(spec: Spec) -> Iterator[str]:
    for role, plural in _ROLES.items():
        prefix = spec.prefix(role)
        if prefix:
            other = " (or another instruction in its place)" if _has_slot(spec, role) else ""
            yield f"llama.cpp and Ollama add no prefix: write {prefix!r}{other} before {plural}."


def _has_slot(spec: Spec, role: Role) -> bool:
    return role == "query" and INSTRUCTION_SLOT in spec.query_prefix


def _limit(files: ModelFiles) -> Iterator[str]:
    limit, reads = context_length(files.architecture), files.spec.max_tokens
    if reads < limit:
        yield (
            f"llama.cpp and Ollama read up to {limit:,} tokens of a text; the model's own files "
            f"cut at {reads:,}."
        )


def _wordpiece(files: ModelFiles) -> Iterator[str]:
    """Tell of the one tokenizer that llama.cpp has and that is not quite the model's.

    Taking accents off, BERT decomposes Korean and keeps spacing marks; llama.cpp's ``WPM`` does
    neither (src/unicode.cpp: ``unicode_cpts_normalize_nfd``; src/llama-vocab.cpp).
    """
    state = orjson.loads(files.tokenizer.backend.to_str())
    if state["model"]["type"] != "WordPiece":
        return
    accents, lowercase = (state["normalizer"][key] for key in ("strip_accents", "lowercase"))
    if lowercase if accents is None else accents:
        yield (
            "llama.cpp splits Korean, and Indic scripts and their like (Burmese, Khmer), into "
            "other tokens than this uncased BERT does; other scripts are as they should be."
        )
