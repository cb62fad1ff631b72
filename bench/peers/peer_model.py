"""The arguments, the first line and the model, which the programs of all peers share.

A program is called as ``python serve_NAME.py MODEL PORT BATCH``. A BATCH over 1 switches the peer's
own batching on. The first line of its output is its URL; what the peer prints later goes to the
standard error, so that nobody has to read a pipe.
"""

import os
import sys

import numpy as np
import onnxruntime

INPUT, OUTPUT = "x", "scores"
# Handed to the processes that a peer starts, which import the program again.
MODEL, PORT, BATCH = "PEER_MODEL", "PEER_PORT", "PEER_BATCH"


def announce() -> None:
    """Keep the arguments for child processes, print the URL, and send later output elsewhere."""
    for name, value in zip((MODEL, PORT, BATCH), sys.argv[1:4], strict=True):
        os.environ[name] = value
    del sys.argv[1:]  # some peers read the command line themselves
    print(f"http://127.0.0.1:{port()}", flush=True)
    os.dup2(2, 1)


def port() -> int:
    return int(os.environ[PORT])


def batch() -> int:
    return int(os.environ.get(BATCH, "1"))


class Model:
    """ONNX Runtime with one thread that does not spin, as each peer and the reference use it."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(os.environ[MODEL], options)

    def run(self, rows: np.ndarray) -> np.ndarray:
        return self._session.run([OUTPUT], {INPUT: np.asarray(rows, np.float32)})[0]
