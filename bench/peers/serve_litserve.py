"""LitServe: a LitAPI as documented, ``POST /predict`` with ``{"input": [[...]]}``.

One worker, one API server, no access log. ``fast_queue`` (ZeroMQ) is on: its documentation advises
it above 100 requests a second. Batching is ``max_batch_size`` with ``batch_timeout``.
"""

import litserve
import numpy as np
import peer_model

BATCH_TIMEOUT_S = 0.01


class OnnxApi(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self._model = peer_model.Model()

    def decode_request(self, request):
        # With a type, FastAPI would check each float.
        return np.array(request["input"][0], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._model.run(x if x.ndim == 2 else x[None])  # a batch has two dimensions

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        return {"output": output.ravel().tolist()}


def main() -> None:
    peer_model.announce()
    many = peer_model.batch() > 1
    more = {"max_batch_size": peer_model.batch(), "batch_timeout": BATCH_TIMEOUT_S} if many else {}
    server = litserve.LitServer(
        OnnxApi(**more), accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=peer_model.port(), num_api_servers=1, log_level="warning",
        generate_client_file=False, access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
