"""The answers of every dialect as JSON Schema, for the OpenAPI document; tests hold them to it."""

from typing import Any

from pydantic import BaseModel

from polyvec.serve.failures import Dialect

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}


def array(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def obj(**properties: Schema) -> Schema:
    """Return the schema of an object with all of these fields."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def maybe(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


VECTOR = array(NUMBER)
VECTORS = array(VECTOR)

_OPENAI_MODEL = obj(id=STRING, object=STRING, created=INTEGER, owned_by=STRING)
_OLLAMA_DETAILS = obj(
    format=STRING, family=STRING, families=array(STRING), parameter_size=STRING,
    quantization_level=STRING, parent_model=STRING,
)  # fmt: skip
_OLLAMA_MODEL = obj(
    name=STRING, model=STRING, modified_at=STRING, size=INTEGER, digest=STRING,
    details=_OLLAMA_DETAILS,
)  # fmt: skip
_TOKEN = obj(id=INTEGER, text=STRING, special=BOOLEAN, start=maybe(INTEGER), stop=maybe(INTEGER))
_PASSAGE = obj(
    chunk_id=STRING, path=STRING, title=STRING, heading=STRING, place=STRING, text=STRING,
    file_type=STRING, language=STRING, modified_at=STRING, also_in=array(STRING), score=NUMBER,
    cosine=maybe(NUMBER), bm25=maybe(NUMBER), dense_rank=maybe(INTEGER), text_rank=maybe(INTEGER),
    query_share=maybe(NUMBER),
    snippet=obj(text=STRING, marks=array(array(INTEGER))), explanation=STRING,
)  # fmt: skip
_COUNTS: Schema = {"type": "object", "additionalProperties": INTEGER}
_UPDATE = obj(is_running=BOOLEAN, last=maybe(obj(problem=maybe(STRING))))
_INDEX = obj(
    name=STRING, model=STRING, problem=maybe(STRING), documents=INTEGER, unread=INTEGER,
    chunks=INTEGER, file_types=_COUNTS, languages=_COUNTS, update=maybe(_UPDATE),
)  # fmt: skip
_AROUND = obj(
    chunk_id=STRING, ordinal=INTEGER, heading=STRING, language=STRING, text=STRING, place=STRING,
    is_wanted=BOOLEAN,
)  # fmt: skip
_RANK: Schema = {
    "type": "object",
    "properties": {"index": INTEGER, "score": NUMBER, "text": STRING},
    "required": ["index", "score"],
}

ANSWERS: dict[str, Schema] = {
    "/v1/embeddings": obj(
        object=STRING,
        data=array(obj(object=STRING, index=INTEGER, embedding={"anyOf": [VECTOR, STRING]})),
        model=STRING,
        usage=obj(prompt_tokens=INTEGER, total_tokens=INTEGER),
    ),
    "/v1/models": obj(object=STRING, data=array(_OPENAI_MODEL)),
    "/v1/models/{model}": _OPENAI_MODEL,
    "/api/embed": obj(
        model=STRING, embeddings=VECTORS, total_duration=INTEGER, load_duration=INTEGER,
        prompt_eval_count=INTEGER,
    ),
    "/api/embeddings": obj(embedding=VECTOR),
    "/api/tags": obj(models=array(_OLLAMA_MODEL)),
    "/api/show": obj(
        modelfile=STRING, parameters=STRING, template=STRING, details=_OLLAMA_DETAILS,
        model_info={"type": "object"}, capabilities=array(STRING), modified_at=STRING,
    ),
    "/api/ps": obj(models=array(_OLLAMA_MODEL)),
    "/api/version": obj(version=STRING, server=STRING),
    "/embed": VECTORS,
    "/": {"anyOf": [VECTORS, VECTOR]},
    "/embed_all": array(VECTORS),
    "/similarity": VECTOR,
    "/rerank": array(_RANK),
    "/tokenize": array(array(_TOKEN)),
    "/decode": array(STRING),
    "/info": {"type": "object"},
    "/health": obj(status=STRING),
    "/v2/embed": obj(
        id=STRING, embeddings={"type": "object"}, texts=array(STRING), response_type=STRING,
        meta={"type": "object"},
    ),
    "/search/indexes": obj(indexes=array(_INDEX), chat=maybe(obj(model=STRING, host=STRING))),
    "/search": obj(query=STRING, mode=STRING, index=STRING, results=array(_PASSAGE)),
    "/search/update": obj(index=STRING, update=_UPDATE),
    "/search/chunk": obj(
        index=STRING, path=STRING, title=STRING, file_type=STRING, modified_at=STRING,
        chunks=array(_AROUND), more_before=BOOLEAN, more_after=BOOLEAN,
    ),
    "/ask": obj(type={"enum": ["sources", "words", "answer", "error"]}),
}  # fmt: skip
"""By path: what a request that succeeded gets."""

ERRORS: dict[Dialect, Schema] = {
    "openai": obj(error=obj(message=STRING, type=STRING, param=maybe(STRING), code=maybe(STRING))),
    "ollama": obj(error=STRING),
    "tei": obj(error=STRING, error_type=STRING),
    "cohere": obj(message=STRING),
    "search": obj(error=STRING),
}


def body_schema(body: type[BaseModel]) -> Schema:
    """Return a body's schema in one piece: what it refers to is put in its place."""
    schema = body.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(value: Any) -> Any:  # noqa: ANN401 (any JSON)
        if isinstance(value, dict):
            if "$ref" in value:
                return whole(definitions[value["$ref"].rpartition("/")[2]])
            return {key: whole(item) for key, item in value.items()}
        return [whole(item) for item in value] if isinstance(value, list) else value

    result: Schema = whole(schema)
    return result
