"""Contender: sentence-transformers behind a plain FastAPI route, as many tutorials write it.

python bench/peer_fastapi.py FOLDER PORT
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Body(BaseModel):
    """OpenAI's request."""

    input: list[str]
    model: str = ""


def main() -> None:
    """Serve; FastAPI runs the route in its threads."""
    model, app = SentenceTransformer(sys.argv[1], device="cpu"), FastAPI()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": [{"id": "m"}]}

    @app.post("/v1/embeddings")
    def embeddings(body: Body) -> dict[str, Any]:
        vectors = model.encode(body.input).tolist()
        return {"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)]}

    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
