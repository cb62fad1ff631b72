"""Clients of a serving process that check each answer, and models to serve."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from tritonclient import http as triton

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import ServedModel
from support.serving_process import ServingProcess
from support.tiny_models import TinyModel, artifact_of, classifier, pixels

GUARD_S = 60.0
ANSWER_S = 30.0  # a request to a release that hangs is answered by another one in the end


Case = Mapping[str, NDArray[np.float32]]
"""The inputs of one request, by name."""


@dataclass(frozen=True)
class Question:
    """Requests to one model, one after the other, and the right answer of each release.

    ``expected`` has the values of ``output`` for each case. None: no answer to the case is right.
    """

    model: str
    cases: tuple[Case, ...]
    output: str
    expected: Mapping[str, Sequence[NDArray[np.float32] | None]]
    rtol: float = 1e-3
    atol: float = 1e-6

    def is_answer(self, release: str, case: int, got: NDArray[np.float32]) -> bool:
        """Whether ``release`` gives this answer to the case with the number ``case``."""
        right = self.expected[release][case] if release in self.expected else None
        return right is not None and np.allclose(got, right, rtol=self.rtol, atol=self.atol)


def digits(models: Mapping[str, TinyModel]) -> Question:
    """One request to tiny releases of the model ``digits``."""
    given = pixels(1)
    expected = {name: (model.probabilities(given),) for name, model in models.items()}
    return Question("digits", ({"pixels": given},), "probabilities", expected)


class Asker:
    """A client in a loop, which checks each answer against the release that the answer names."""

    def __init__(self, address: str, question: Question, *, pause_s: float = 0.0) -> None:
        self.answers: list[str] = []
        self.faults: list[str] = []
        self._address = address
        self._question = question
        self._pause_s = pause_s
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
        requests = [_encoded(case) for case in self._question.cases]
        for number in itertools.cycle(range(len(requests))):
            if self._stop.wait(self._pause_s):
                break
            body, size = requests[number]
            release, fault = self._asked(link, number, body, size)
            with self._answered:
                if fault:
                    self.faults.append(fault)
                else:
                    self.answers.append(release)
                self._answered.notify_all()
        link.close()

    def _asked(self, link: HttpLink, case: int, body: bytes, size: int) -> tuple[str, str]:
        """The release that answered, and what was wrong with the answer."""
        question = self._question
        headers = {"Inference-Header-Content-Length": str(size)}
        path = f"/v2/models/{question.model}/infer"
        try:
            answer = link.request("POST", path, body=body, headers=headers, timeout_s=ANSWER_S)
        except EdgefleetError as error:
            return "", str(error)
        if answer.status != 200:
            return "", f"{answer.status} {answer.body[:200]!r}"
        length = int(answer.headers["inference-header-content-length"])
        result = triton.InferenceServerClient.parse_response_body(answer.body, header_length=length)
        release = str(result.get_response()["model_version"])
        got = result.as_numpy(question.output)
        if question.is_answer(release, case, got):
            return release, ""
        return release, f"release {release} answered {got} to case {case}"


def _encoded(case: Case) -> tuple[bytes, int]:
    """The body of a request, and the size of its JSON part."""
    tensors = [
        triton.InferInput(name, list(array.shape), "FP32").set_data_from_numpy(array)
        for name, array in case.items()
    ]
    body, size = triton.InferenceServerClient.generate_request_body(tensors)
    return body, size


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
