"""Runs in a Python that has llama-cpp-python: embeds, quantizes, or says where its library is.

    python bench/llama_peer.py
    python bench/llama_peer.py embed model.gguf texts.json vectors.npy tokens.json
    python bench/llama_peer.py quantize from.gguf to.gguf 15

Nothing about a model is said beside its path: the file must say it all. The number is one of
llama.cpp's enum ``llama_ftype``.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Print a JSON object about the library; embed or quantize if asked to."""
    import llama_cpp

    library = Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    print(json.dumps({"version": llama_cpp.__version__, "library": str(library)}), flush=True)
    if sys.argv[1:2] == ["embed"]:
        _embed(*sys.argv[2:])
    elif sys.argv[1:2] == ["quantize"]:
        _quantize(*sys.argv[2:])


def _embed(model: str, texts: str, vectors: str, tokens: str) -> None:
    """Write each text's vector, and the ids of its tokens."""
    import llama_cpp
    import numpy as np

    llama = llama_cpp.Llama(model, embedding=True, verbose=False)
    given = json.loads(Path(texts).read_text())
    ids = [llama.tokenize(text.encode()) for text in given]
    np.save(vectors, np.asarray([llama.embed(text) for text in given], dtype=np.float32))
    Path(tokens).write_text(json.dumps(ids))


def _quantize(source: str, target: str, file_type: str) -> None:
    """Quantize as llama.cpp's own program does, without an importance matrix."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = int(file_type)
    parameters.nthread = 1
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters):
        raise SystemExit(f"llama.cpp could not quantize {source}")


if __name__ == "__main__":
    main()
