"""The KServe Python SDK: a custom predictor as its documentation writes one, over V2 REST.

One worker, no gRPC, no latency log, no access log. The SDK has no batching of its own: the batcher
of KServe is another process, written in Go. An asynchronous ``predict`` runs on the event loop.
"""

import copy
import uuid

import kserve
import kserve.logging
import peer_model
from kserve import InferOutput, InferRequest, InferResponse


class OnnxModel(kserve.Model):
    def load(self) -> bool:
        self._model = peer_model.Model()
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None):  # noqa: ARG002
        scores = self._model.run(payload.inputs[0].as_numpy())
        output = InferOutput(peer_model.OUTPUT, list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=False)
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [output])


def main() -> None:
    peer_model.announce()
    quiet = copy.deepcopy(kserve.logging.KSERVE_LOG_CONFIG)
    for logger in quiet["loggers"].values():
        logger["level"] = "WARNING"
    kserve.logging.configure_logging(quiet)
    model = OnnxModel("m")
    model.load()
    kserve.ModelServer(
        http_port=peer_model.port(), workers=1, enable_grpc=False, enable_latency_logging=False
    ).start([model])


if __name__ == "__main__":
    main()
