"""A client that asks an agent's serving process about what a bad release ends on, and what is seen."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, Self

import numpy as np

from edgefleet.agent.state import AgentState
from edgefleet.agent.table import Stage
from edgefleet.base.errors import EdgefleetError, NetworkError
from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import ModelStatus, ServingStatus, model_status
from support.agent_process import AgentProcess, only
from support.fake_hub import FakeHub
from support.tiny_models import pixels

WHITE: Final = 300.0
"""The value of all pixels of a picture that no golden set has."""
_PATHS: Final = (str(Path(__file__).parent / "bad_runtime"), os.environ.get("PYTHONPATH"))
PLANTED: Final = {"PYTHONPATH": os.pathsep.join(filter(None, _PATHS))}
"""The environment of an agent whose serving process obeys the descriptions of bad releases."""
LIMIT_MIB: Final = 600
"""Of agent, serving process and worker; they take about 250 without a leak."""


class Client:
    """Asks in a loop, each time on a connection of its own, and gives up after a second.

    With ``bad`` set, it asks about what a bad release hangs, crashes or leaks on.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.bad = threading.Event()
        self.answers: list[str] = []
        self.refused = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def wait_for(self, release: str, count: int = 3, timeout_s: float = 60.0) -> None:
        """Wait for ``count`` more answers of ``release``."""
        wanted, until = self.answers.count(release) + count, time.monotonic() + timeout_s
        while self.answers.count(release) < wanted:
            assert time.monotonic() < until, (release, self.answers[-5:], self.refused)
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            release = ask(self.address, bad=self.bad.is_set(), timeout_s=1.0)
            if release:
                self.answers.append(release)
            else:
                self.refused += 1


def ask(address: str, *, bad: bool = False, timeout_s: float = 5.0) -> str:
    """The release that answers one request. Empty without an answer."""
    given = pixels(1)
    if bad:
        given = np.full_like(given, WHITE)
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    link = HttpLink(f"http://{address}")
    with closing(link):
        try:
            answer = link.request(
                "POST", "/v2/models/digits/infer", body=given.tobytes(), headers=headers,
                timeout_s=timeout_s,
            )  # fmt: skip
        except EdgefleetError:
            return ""
    if answer.status != 200:
        return ""
    head = answer.body[: int(answer.headers["inference-header-content-length"])].decode()
    return head.partition('"model_version":"')[2].partition('"')[0]


def idle_on(release: str) -> Callable[[AgentState], bool]:
    def there(state: AgentState) -> bool:
        mine = only(state)
        active = mine.a if mine.active == "a" else mine.b
        return (
            mine.stage is Stage.IDLE
            and active.installed is not None
            and active.installed.release == release
        )

    return there


def confirmed(hub: FakeHub, release: str) -> None:
    hub.wait(lambda hub: (release, "confirmed", "") in hub.kinds())


def finals(hub: FakeHub, release: str) -> list[tuple[str, str]]:
    return [
        (kind, reason)
        for named, kind, reason in hub.kinds()
        if named == release and kind != "trial_started"
    ]


def isolated(hub: FakeHub) -> dict[str, str]:
    """By model, the last reason for a process of its own that the device has reported."""
    facts = [one.facts for one in hub.check_ins if one.facts is not None]
    return {one.model: one.reason for one in facts[-1].isolated} if facts else {}


def reported_errors(hub: FakeHub) -> int:
    return sum(one.telemetry.errors for one in hub.check_ins if one.telemetry is not None)


def wait_status(
    agent: AgentProcess, what: Callable[[ServingStatus, ModelStatus], bool], timeout_s: float = 60.0
) -> ServingStatus:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            status = agent.status()
        except NetworkError:
            status = None
        mine = model_status(status, "digits")
        if status is not None and mine is not None and what(status, mine):
            return status
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {agent.status()}\n{agent.log()}")
