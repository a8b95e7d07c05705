"""Runs in a Python that has llama-cpp-python: embeds texts, or only says where its library is.

    python bench/llama_peer.py model.gguf texts.json vectors.npy

Nothing about the model is said beside its path: the file must say it all.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Print a JSON object about the library; embed if asked to."""
    import llama_cpp
    import numpy as np

    library = Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    print(json.dumps({"version": llama_cpp.__version__, "library": str(library)}), flush=True)
    if len(sys.argv) > 1:
        model, texts, out = sys.argv[1:]
        llama = llama_cpp.Llama(model, embedding=True, verbose=False)
        vectors = [llama.embed(text) for text in json.loads(Path(texts).read_text())]
        np.save(out, np.asarray(vectors, dtype=np.float32))


if __name__ == "__main__":
    main()
