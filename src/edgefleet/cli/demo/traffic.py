"""Clients under constant load: images of digits, over real HTTP, to the real agents.

No request is retried: each answer that is not complete and well-formed counts as a failure.
"""

import http.client
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edgefleet.cli.demo.limits import ASK_EVERY_S, ASK_TIMEOUT_S
from edgefleet.cli.demo.observations import ClientObservations
from edgefleet.protocol.wire import encode
from edgefleet.sim.load.measure_release import read_field

_JSON: Final = {"Content-Type": "application/json"}


class _Output(msgspec.Struct):
    shape: list[int]
    data: list[float]


class _Answer(msgspec.Struct):
    model_version: str
    outputs: list[_Output]


@dataclass(frozen=True, slots=True)
class Question:
    """One case as a request body, and its label."""

    body: bytes
    label: int


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions to one model, and the number of scores in each answer."""

    model: str
    classes: int
    cases: tuple[Question, ...]


def read_questions(model: str, field: Path) -> Questions:
    """Every case of the model's field data. Raises OperatorError ``setting_invalid``."""
    data = read_field(field)
    ((name, pixels),) = data.inputs.items()
    cases = tuple(
        Question(
            encode(
                {
                    "inputs": [
                        {
                            "name": name,
                            "shape": [1, *image.shape],
                            "datatype": "FP32",
                            "data": image.astype(np.float32).ravel().tolist(),
                        }
                    ]
                }
            ),
            int(label),
        )
        for image, label in zip(pixels, data.labels, strict=True)
    )
    return Questions(model, int(data.labels.max()) + 1, cases)


class Client:
    """Asks one model of one agent, from the moment the model is ready there until ``stop``."""

    def __init__(self, agent: str, host: str, port: int, questions: Questions) -> None:
        self.agent = agent
        self.model = questions.model
        self._path = f"/v2/models/{questions.model}"
        self._connection = http.client.HTTPConnection(host, port, timeout=ASK_TIMEOUT_S)
        self._questions = questions
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"client-{agent}-{self.model}", daemon=True
        )
        self.requests = 0
        self.failed = 0
        self._first_failure = ""
        self._answered: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        self.last: str | None = None  # the release of the newest answer

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the last answer."""
        self._stop.set()
        self._thread.join()

    def observed(self) -> ClientObservations:
        return ClientObservations(
            agent=self.agent,
            model=self.model,
            requests=self.requests,
            failed=self.failed,
            answered=dict(self._answered),
            right=dict(self._right),
            last=self.last,
            first_failure=self._first_failure,
        )

    def _run(self) -> None:
        """Wait for the first release; from then on each failed request counts."""
        while not self._ready():
            if self._stop.wait(ASK_EVERY_S):
                return
        number, cases = 0, self._questions.cases
        while not self._stop.wait(ASK_EVERY_S):
            self._ask(cases[number % len(cases)])
            number += 1

    def _ready(self) -> bool:
        try:
            return self._send("GET", f"{self._path}/ready", None)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False

    def _ask(self, question: Question) -> None:
        self.requests += 1
        try:
            status, body = self._send("POST", f"{self._path}/infer", question.body)
            if status != http.client.OK:
                self._fail(f"status {status}: {body[:200].decode(errors='replace')}")
                return
            answer = msgspec.json.decode(body, type=_Answer)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
            self._connection.close()
            self._fail(f"{type(error).__name__}: {error}")
            return
        scores = answer.outputs[0] if answer.outputs else _Output([], [])
        classes = self._questions.classes
        if scores.shape != [1, classes] or len(scores.data) != classes:
            self._fail(f"answer of shape {scores.shape}")
            return
        self.last = answer.model_version
        self._answered[answer.model_version] += 1
        self._right[answer.model_version] += scores.data.index(max(scores.data)) == question.label

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        self._connection.request(method, path, body=body, headers=_JSON if body else {})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _fail(self, reason: str) -> None:
        self.failed += 1
        self._first_failure = self._first_failure or reason
