"""Contender: OpenVINO with int8 weights (nncf) and its dynamic quantization of activations.

python bench/peer_openvino.py model-folder threads
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from padded import Ids, Padded
from peer_serve import serve


def compressed(folder: Path) -> Path:
    """Return the int8 model beside the folder, written on first use."""
    import nncf
    import openvino

    from onnx_graph import write_graph

    output, plain = folder.with_name("model-openvino.xml"), folder.with_name("model.onnx")
    if not output.exists():
        if not plain.exists():
            write_graph(folder, plain)
        model = openvino.Core().read_model(plain)
        openvino.save_model(nncf.compress_weights(model), output)
    return output


def make(folder: str, threads: str) -> Padded:
    """Compile for throughput of one stream; groups of activations are the library's default."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": int(threads), "NUM_STREAMS": 1}
    model = core.compile_model(str(compressed(Path(folder))), "CPU", settings)
    request = model.create_infer_request()

    def run(ids: Ids, mask: Ids) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = request.infer({"ids": ids, "mask": mask})[0]
        return vectors

    return Padded(Path(folder), run)


if __name__ == "__main__":
    serve(make, sys.argv[1:])
