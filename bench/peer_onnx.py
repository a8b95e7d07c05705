"""Contender: ONNX Runtime's dynamic quantization to int8, one weight scale per output channel.

python bench/peer_onnx.py model-folder threads
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from padded import Ids, Padded
from peer_serve import serve


def quantized(folder: Path) -> Path:
    """Return the int8 graph beside the model, written on first use."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from onnx_graph import write_graph

    output, plain = folder.with_name("model-int8.onnx"), folder.with_name("model.onnx")
    if not output.exists():
        write_graph(folder, plain)
        partial = output.with_suffix(".partial")
        quantize_dynamic(
            plain,
            partial,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
        )
        partial.rename(output)
    return output


def make(folder: str, threads: str) -> Padded:
    """Load the session with everything the library optimizes by itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    model = str(quantized(Path(folder)))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(ids: Ids, mask: Ids) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = session.run(None, {"ids": ids, "mask": mask})[0]
        return vectors

    return Padded(Path(folder), run)


if __name__ == "__main__":
    serve(make, sys.argv[1:])
