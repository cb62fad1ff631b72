"""MLServer: a custom runtime as its user guide writes one, NumpyCodec, no parallel workers.

``parallel_workers = 0`` runs the model in the server's process: its inference pool costs a hop to
another process and gains nothing on one core. The access log (``debug``) and gzip are off, the
metrics are on, as ours are. Batching is ``max_batch_size`` with ``max_batch_time``, which the user
guide asks for together.
"""

import json
import socket
import sys
import tempfile
from pathlib import Path

import peer_model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

MAX_BATCH_S = 0.01


class OnnxModel(MLModel):
    async def load(self) -> bool:
        self._model = peer_model.Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        scores = self._model.run(rows)
        outputs = [NumpyCodec.encode_output(peer_model.OUTPUT, scores)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    peer_model.announce()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quiet = {"version": 1, "root": {"level": "WARNING"}, "disable_existing_loggers": False}
        settings = {
            "host": "127.0.0.1",
            "http_port": peer_model.port(),
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "metrics_dir": name,
            "parallel_workers": 0,
            "debug": False,
            "gzip_enabled": False,
            "logging_settings": quiet,
        }
        model: dict[str, object] = {"name": "m", "implementation": "serve_mlserver.OnnxModel"}
        if peer_model.batch() > 1:
            model |= {"max_batch_size": peer_model.batch(), "max_batch_time": MAX_BATCH_S}
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        from mlserver.cli.main import main as mlserver  # noqa: PLC0415 - reads the settings

        sys.argv[1:] = ["start", name]
        mlserver()


if __name__ == "__main__":
    main()
