"""Contender: sentence-transformers behind a plain FastAPI route, as many tutorials write it.

python bench/peer_fastapi.py FOLDER PORT float32|bfloat16
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
    folder, port, dtype = sys.argv[1:]
    model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
    app = FastAPI()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": [{"id": "m"}]}

    @app.post("/v1/embeddings")
    def embeddings(body: Body) -> dict[str, Any]:
        vectors = model.encode(body.input).tolist()
        return {"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)]}

    uvicorn.run(app, port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
