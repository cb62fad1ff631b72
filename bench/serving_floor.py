"""The floor of a server for the tiny model: decode, run and encode in one process, and no more."""

from collections.abc import Callable

import msgspec
import numpy as np
import onnxruntime
from serving_requests import Asked, Tensor


def decode_run_encode(artifact_path: str) -> Callable[[bytes], bytes]:
    """Answers a body of ``tiny_body``. It checks and counts nothing."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact_path, options)
    decoder = msgspec.json.Decoder(Asked)

    def answer(body: bytes) -> bytes:
        tensor = decoder.decode(body).inputs[0]
        array = np.array(tensor.data, np.float32).reshape(tensor.shape)
        (scores,) = session.run(["scores"], {"x": array})
        output = Tensor("scores", scores.shape, "FP32", scores.ravel().tolist())
        return msgspec.json.encode(
            {"model_name": "tiny", "model_version": "1", "outputs": [output]}
        )

    return answer
