"""Clients of a serving process that check each answer, and models to serve."""

import threading
from pathlib import Path
from typing import Self

import numpy as np
from msgspec.structs import replace
from tritonclient import http as triton

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import ServedModel
from support.serving_process import ServingProcess
from support.tiny_models import TinyModel, artifact_of, classifier, pixels

GUARD_S = 60.0


class Asker:
    """A client in a loop, which checks each answer against the release that the answer names."""

    def __init__(self, address: str, models: dict[str, TinyModel]) -> None:
        self.answers: list[str] = []
        self.faults: list[str] = []
        self._address = address
        self._models = models
        self._stop = threading.Event()
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_answers(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(GUARD_S)

    def wait_for_answers(self, count: int) -> None:
        """Block until ``count`` more requests were answered or failed."""
        with self._answered:
            wanted = len(self.answers) + len(self.faults) + count
            assert self._answered.wait_for(
                lambda: len(self.answers) + len(self.faults) >= wanted, GUARD_S
            )

    def _ask(self) -> None:
        link = HttpLink(f"http://{self._address}")
        given = pixels(1)
        tensor = triton.InferInput("pixels", [1, 64], "FP32").set_data_from_numpy(given)
        body, size = triton.InferenceServerClient.generate_request_body([tensor])
        headers = {"Inference-Header-Content-Length": str(size)}
        expected = {name: m.probabilities(given) for name, m in self._models.items()}
        while not self._stop.is_set():
            try:
                answer = link.request("POST", "/v2/models/digits/infer", body=body, headers=headers)
                fault = "" if answer.status == 200 else str(answer)
            except EdgefleetError as error:
                fault = str(error)
            with self._answered:
                if fault:
                    self.faults.append(fault)
                else:
                    length = int(answer.headers["inference-header-content-length"])
                    result = triton.InferenceServerClient.parse_response_body(
                        answer.body, header_length=length
                    )
                    release = result.get_response()["model_version"]
                    got = result.as_numpy("probabilities")
                    if np.allclose(got, expected[release], rtol=1e-3, atol=1e-6):
                        self.answers.append(release)
                    else:
                        self.faults.append(f"release {release} answered {got}")
                self._answered.notify_all()


def two_models(folder: Path, *, slow: bool = False) -> dict[str, TinyModel]:
    """Models that run on the event loop, or slow ones whose largest batch takes milliseconds."""
    hidden, max_batch = (10, 512) if slow else (0, 8)
    return {
        name: classifier(folder / f"{name}.onnx", seed=seed, hidden=hidden, max_batch=max_batch)
        for seed, name in enumerate("ab")
    }


def ask(process: ServingProcess, model: TinyModel, model_name: str = "digits") -> str:
    """The release that answers. The answer is checked."""
    given = pixels(2)
    with triton.InferenceServerClient(process.address) as client:
        tensor = triton.InferInput("pixels", [2, 64], "FP32").set_data_from_numpy(given)
        result = client.infer(model_name, [tensor])
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), model.probabilities(given), rtol=1e-4
        )
        return str(result.get_response()["model_version"])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def announce(wanted: ServedModel, path: Path) -> ServedModel:
    """The same variant, with the digest of the damaged file."""
    release = wanted.confirmed
    assert release is not None
    variant = replace(release.variant, artifact=artifact_of(path))
    return replace(wanted, confirmed=replace(release, variant=variant))
