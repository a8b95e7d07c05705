"""Contender: llama.cpp by llama-cpp-python, on a GGUF that says everything itself.

python bench/peer_llama.py model.gguf threads
"""

import ctypes
import platform
import sys
from collections.abc import Iterator

from peer_serve import serve

MAX_TOKENS = 2048
BATCH_TOKENS = 512
"""Tokens in one of llama.cpp's batches, unless a text has more. It computes attention between all
of them and masks what is not one text, so few is faster than many (dev/LOG.md)."""
_ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA, _SYS_ARCH_PRCTL = 0x1023, 18, 158


class Llama:
    """The library, several texts in a batch."""

    def __init__(self, model: str, threads: str) -> None:
        import llama_cpp

        allow_tiles()
        self.llama = llama_cpp.Llama(
            model,
            embedding=True,
            verbose=False,
            n_ctx=MAX_TOKENS,
            n_batch=MAX_TOKENS,
            n_ubatch=MAX_TOKENS,
            n_threads=int(threads),
            n_threads_batch=int(threads),
            flash_attn=True,
        )

    def embed(self, texts: list[str]) -> object:
        """Embed batch by batch."""
        vectors: list[list[float]] = []
        for batch in self._batches(texts):
            vectors += self.llama.embed(batch)
        return vectors

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        batch, size = list[str](), 0
        for text in texts:
            tokens = len(self.llama.tokenize(text.encode()))
            if batch and size + tokens > BATCH_TOKENS:
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += tokens
        yield batch


def allow_tiles() -> None:
    """Ask Linux for the use of AMX, which ggml may use before it has asked; else it dies."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        syscall = ctypes.CDLL(None, use_errno=True).syscall
        syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA)


if __name__ == "__main__":
    serve(Llama, sys.argv[1:])
