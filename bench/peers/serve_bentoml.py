"""BentoML: a service as documented, ``POST /predict`` with ``{"input": [[...]]}``.

One worker, no access log; the metrics are on, as ours are. Without batching the method is
asynchronous and runs on the event loop. With it, ``batchable`` and ``max_batch_size``: the adaptive
batching decides how long to wait, at most MAX_LATENCY_MS.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import peer_model
from bentoml.validators import DType

MAX_LATENCY_MS = 60_000
Rows = Annotated[np.ndarray, DType("float32")]
QUIET = {"access": {"enabled": False}}


@bentoml.service(workers=1, logging=QUIET)
class Plain:
    def __init__(self) -> None:
        self._model = peer_model.Model()

    @bentoml.api
    async def predict(self, input: Rows) -> Rows:  # noqa: A002 - the name in the request
        return self._model.run(input)


@bentoml.service(workers=1, logging=QUIET)
class Batching:
    def __init__(self) -> None:
        self._model = peer_model.Model()

    @bentoml.api(
        batchable=True,
        max_batch_size=max(2, peer_model.batch()),  # 1 is refused
        max_latency_ms=MAX_LATENCY_MS,
    )
    def predict(self, input: Rows) -> Rows:  # noqa: A002 - the name in the request
        return self._model.run(input)


def main() -> None:
    peer_model.announce()
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    service = "serve_bentoml:Batching" if peer_model.batch() > 1 else "serve_bentoml:Plain"
    program = Path(sys.executable).with_name("bentoml")
    words = ["serve", service, "--host", "127.0.0.1", "--port", str(peer_model.port())]
    os.execv(program, [str(program), *words, "--working-dir", str(Path(__file__).parent)])


if __name__ == "__main__":
    main()
