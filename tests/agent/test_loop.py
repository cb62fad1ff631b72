"""The loop saves before it executes effects, goes on with a full disk, and ends on a defect."""

import threading
import time
from collections.abc import Callable, Generator
from functools import partial

import pytest

from edgefleet.agent import limits
from edgefleet.agent.agent_status import status_of
from edgefleet.agent.board import BoardSensors
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.fetch import Fetcher
from edgefleet.agent.log import LOGGER
from edgefleet.agent.loop import Loop, Parts
from edgefleet.agent.own_files import OwnFile
from edgefleet.agent.prover import Prover
from edgefleet.agent.slots import STATE, Slots
from edgefleet.agent.state import AgentState
from edgefleet.agent.stored import from_store
from edgefleet.agent.systemd import Notifier
from edgefleet.agent.trust import Trust
from edgefleet.agent.worker import Stopped, Token
from edgefleet.base.clock import SystemClock
from edgefleet.base.entropy import SeededEntropy
from edgefleet.base.network import HttpLink
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Offer
from edgefleet.protocol.release import ReleaseManifest
from support.agent_world import FACTS, manifest, offer
from support.memory_storage import MemoryStorage

WAIT_S = 30.0


class Hub:
    """Answers check-ins, and reads the disk at each of them."""

    def __init__(self, disk: MemoryStorage) -> None:
        self.disk = disk
        self.reserved: list[tuple[int, int]] = []
        self.sent: list[CheckIn] = []
        self.asked = threading.Event()
        self.defect: Exception | None = None
        self.offer: Offer | None = None

    def wait(self, what: Callable[[CheckIn], bool]) -> bool:
        """Wait until ``what`` is true of a check-in."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if any(map(what, tuple(self.sent))):
                return True
            time.sleep(0.005)
        return False

    def check_in(self, check_in: CheckIn) -> CheckInAnswered | CheckInFailed:
        stored = OwnFile(self.disk, STATE).content()
        self.sent.append(check_in)
        self.reserved.append((check_in.seq, from_store(stored).seq_reserved if stored else 0))
        self.asked.set()
        if self.defect:
            raise self.defect
        answer = CheckInAnswer(interval_s=0.05, offers=(self.offer,) if self.offer else ())
        return CheckInAnswered(seq=check_in.seq, answer=answer, draw=0.5)


class SlowFetcher:
    """Returns the manifest at once, but never a file."""

    def __init__(self) -> None:
        self.began, self.stopped = threading.Event(), threading.Event()

    def manifest(
        self, _model: str, _slot: str, sha256: str, _open: object
    ) -> tuple[str, ReleaseManifest]:
        return sha256, manifest("2")

    def space(self, _model: str, _slot: str) -> tuple[int, int]:
        return 1 << 40, 0

    def file(self, _model: str, _slot: str, _file: str, _artifact: object, token: Token) -> None:
        self.began.set()
        try:
            token.check(wait_s=WAIT_S)
        except Stopped:
            self.stopped.set()
            raise


class Serving:
    """A supervisor without a serving process."""

    def __init__(self) -> None:
        self.stopped = False

    def status(self) -> tuple[None, bool]:
        return None, False

    def stop(self) -> None:
        self.stopped = True

    def kill(self) -> None:
        assert self.stopped


class Running:
    """Runs a loop in a thread."""

    def __init__(self, fetcher: SlowFetcher | None = None) -> None:
        self.disk = MemoryStorage()
        self.hub = Hub(self.disk)
        self.serving = Serving()
        self.error: BaseException | None = None
        link = HttpLink("http://127.0.0.1:9")
        self.loop = Loop(
            Parts(
                slots=Slots(self.disk),
                hub=self.hub,
                fetcher=fetcher or Fetcher(self.disk, link, dict, SystemClock()),  # type: ignore[arg-type] - what the loop asks of it
                prover=Prover(self.disk, ("false",)),
                make_supervisor=lambda _: self.serving,  # type: ignore[arg-type, return-value] - what the loop asks of it
                open_envelope=Trust(()).open,
                clock=SystemClock(),
                entropy=SeededEntropy(1),
                sensors=BoardSensors(self.disk),
                describe=partial(status_of, version="1", device="device", hub="hub"),
                notifier=Notifier({}, time.monotonic),
            ),
            AgentState(interval_s=0.05),
            FACTS,
        )
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.loop.run(keep_serving=False)
        except ValueError as error:
            self.error = error

    def end(self) -> None:
        self.loop.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Generator[Running]:
    monkeypatch.setattr(limits, "SAVE_RETRY_S", 0.01)
    running = Running()
    yield running
    running.end()


def test_a_number_is_on_the_disk_before_the_hub_sees_it(running: Running) -> None:
    running.thread.start()
    for _ in range(3):
        assert running.hub.asked.wait(WAIT_S)
        running.hub.asked.clear()
    assert all(seq <= reserved for seq, reserved in running.hub.reserved)


def test_a_device_that_cannot_store_its_state_starts_nothing_and_says_why(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "DISK_RETRY_S", 0.01)
    monkeypatch.setattr(LOGGER, "propagate", True)  # into caplog
    running.disk.capacity_bytes = 100
    running.hub.offer = offer("2")
    running.thread.start()
    assert running.hub.wait(lambda sent: [one.reason for one in sent.outcomes] == ["disk_full"])
    facts = [sent.facts for sent in running.hub.sent if sent.facts is not None]
    assert facts[0].disk_fault == "disk_full"
    assert {one.kind for sent in running.hub.sent for one in sent.outcomes} == {"deferred"}
    assert STATE not in running.disk.files
    assert "disk_full: The disk in memory has no room left. The disk of this device" in caplog.text
    running.disk.capacity_bytes = 1 << 30
    assert running.hub.wait(lambda sent: sent.facts is not None and not sent.facts.disk_fault)
    assert STATE in running.disk.files


def test_a_loop_that_cannot_store_its_state_can_be_stopped(running: Running) -> None:
    running.disk.capacity_bytes = 0
    running.thread.start()
    running.end()
    assert running.serving.stopped


def test_a_defect_in_a_lane_ends_the_loop_with_it(running: Running) -> None:
    running.hub.defect = ValueError("a defect")
    running.thread.start()
    running.thread.join(WAIT_S)
    assert str(running.error) == "a defect"


def test_a_download_of_what_is_no_longer_offered_is_stopped() -> None:
    fetcher = SlowFetcher()
    running = Running(fetcher)
    running.hub.offer = offer("2")
    running.thread.start()
    assert fetcher.began.wait(WAIT_S)
    running.hub.offer = None
    assert fetcher.stopped.wait(WAIT_S / 2)
    running.end()
