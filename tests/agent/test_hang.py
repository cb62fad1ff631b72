"""Real releases that pass their golden set and loop for ever on what a device sees."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.agent.state import AgentState
from edgefleet.agent.table import Stage
from edgefleet.base.errors import EdgefleetError, NetworkError
from edgefleet.base.network import HttpLink
from edgefleet.protocol.device import IsolationReason, Offer
from edgefleet.protocol.serving import ModelStatus, ServingStatus, model_status
from support.agent_process import AgentProcess, Publisher, device, only
from support.fake_hub import FakeHub, fake_hub
from support.tiny_models import HANGS_ABOVE, pixels

WAYS = pytest.mark.parametrize("slow", [False, True], ids=["event loop", "thread"])
"""Where the model runs in the serving process."""


@pytest.fixture
def hub() -> Generator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def pair(hub: FakeHub, tmp_path: Path) -> Generator[tuple[AgentProcess, Publisher]]:
    with device(tmp_path, hub) as both:
        yield both


class Client:
    """Asks in a loop, each time on a connection of its own, and gives up after a second.

    With ``hanging`` set, it asks about what the release hangs on.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.hanging = threading.Event()
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
            release = ask(self.address, hanging=self.hanging.is_set(), timeout_s=1.0)
            if release:
                self.answers.append(release)
            else:
                self.refused += 1


def ask(address: str, *, hanging: bool = False, timeout_s: float = 5.0) -> str:
    """The release that answers one request. Empty without an answer."""
    given = pixels(1)
    if hanging:
        given = np.full_like(given, 2 * HANGS_ABOVE)
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


def revert(offer: Offer, rollout: str) -> Offer:
    return replace(offer, action="revert", rollout=rollout)


@WAYS
def test_a_release_that_hangs_on_live_requests_fails_its_trial(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher], slow: bool
) -> None:
    agent, publisher = pair
    publisher.offer("1", slow=slow)
    agent.start()
    confirmed(hub, "1")
    with Client(agent.serve) as client:
        client.wait_for("1", 20)
        publisher.offer("2", slow=slow, hangs=True, confirm_after_s=8.0)
        client.hanging.set()
        hub.wait(lambda hub: finals(hub, "2"))
        assert finals(hub, "2") == [("trial_failed", "inference_hung")]
        (outcome,) = [one for one in hub.outcomes.values() if one.kind == "trial_failed"]
        assert "The oldest request has waited" in outcome.detail
        assert "(limit 5 s)" in outcome.detail
        agent.wait(idle_on("1"))
        client.wait_for("1")
    assert agent.check_valid() == "1"


@WAYS
def test_the_way_back_from_a_confirmed_release_that_hangs_is_never_waited_for(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher], slow: bool
) -> None:
    agent, publisher = pair
    good = publisher.offer("1", slow=slow)
    agent.start()
    confirmed(hub, "1")
    publisher.offer("2", slow=slow, hangs=True)
    confirmed(hub, "2")
    wait_status(agent, lambda _, mine: mine.release == "2" and mine.worker is None)
    with Client(agent.serve) as client:
        client.wait_for("2", 5)
        client.hanging.set()
        count = client.refused
        while client.refused == count:
            time.sleep(0.01)
        hub.offer = revert(good, "ro-2")
        agent.wait(idle_on("1"))
        client.wait_for("1")
    hub.wait(lambda hub: len(finals(hub, "2")) == 2)
    assert finals(hub, "2") == [("confirmed", ""), ("reverted", "recalled")]
    assert finals(hub, "1") == [("confirmed", "")], "the good release is not blamed"
    assert _isolated(hub) == {}


@WAYS
def test_a_confirmed_release_that_hangs_is_ended_named_and_given_a_worker(
    hub: FakeHub, pair: tuple[AgentProcess, Publisher], slow: bool
) -> None:
    agent, publisher = pair
    publisher.offer("1", slow=slow, hangs=True)
    agent.start()
    confirmed(hub, "1")
    pid = wait_status(agent, lambda _, mine: mine.ready and mine.worker is None).pid
    with Client(agent.serve) as client:
        client.wait_for("1", 5)
        assert ask(agent.serve, hanging=True, timeout_s=0.5) == ""
        client.wait_for("1")
    hub.wait(lambda hub: _isolated(hub) == {"digits": IsolationReason.HUNG})
    hub.wait(lambda hub: _errors(hub) >= 1)
    wait_status(agent, lambda status, mine: mine.worker is not None and status.pid != pid)


def _isolated(hub: FakeHub) -> dict[str, str]:
    """By model, the last reason for a process of its own that the device has reported."""
    facts = [one.facts for one in hub.check_ins if one.facts is not None]
    return {one.model: one.reason for one in facts[-1].isolated} if facts else {}


def _errors(hub: FakeHub) -> int:
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
