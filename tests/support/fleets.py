"""Hubs and fleets of ``edgefleet.testing`` for tests of the rollout engine.

Their devices are named ``d00000``, ``d00001``..., one third at each of three sites. Devices of a
fleet check in every second and download at once, so a rollout takes seconds of virtual time.
"""

from edgefleet.protocol.device import CheckIn, Outcome
from edgefleet.protocol.rollout import RolloutView
from edgefleet.rollout import checkin
from edgefleet.rollout.engine import Change
from edgefleet.testing import FakeDevice, FakeFleet, MemoryHub
from support.invariants import BrokenError, Invariants
from support.plans import START, manifest


def memory_hub(devices: int = 0, *releases: str) -> MemoryHub:
    """A hub with devices that only the test moves, and releases of two bytes."""
    hub = MemoryHub(now=START, offline_after_s=3)
    for number in range(devices):
        hub.add_device(_name(number), labels=_labels(number))
    for release in releases:
        publish(hub, release)
    return hub


def publish(hub: MemoryHub, release: str) -> None:
    hub.add_release(manifest(release), release * 64)


def new_device(name: str, profile: str = "generic_x86", **labels: str) -> FakeDevice:
    """A device that downloads at once and serves no requests."""
    return FakeDevice(name, profile, labels, fetch_s=0.0, requests_s=0.0)


class CheckedFleet(FakeFleet):
    """A fleet whose invariants are checked at each offer and each evaluation.

    With ``twice`` the store forgets what it has, so every outcome counts as new once more.
    """

    def __init__(self, devices: int = 0, *, twice: bool = False, tick_s: float = 1.0) -> None:
        self.invariants = Invariants(self)
        self._twice = twice
        super().__init__(
            [new_device(_name(number), **_labels(number)) for number in range(devices)],
            now=START,
            interval_s=1.0,
            tick_s=tick_s,
        )

    def finish(self, rollout: str, *, at_most_s: float = 300) -> RolloutView:
        """Let time pass until the rollout has ended."""
        view = self.run(rollout, at_most_s=at_most_s)
        if rollout in self.engine.open_rollouts():
            raise BrokenError(f"unfinished: {self.why(rollout)}")
        return view

    def settle(self, rollout: str, seconds: float) -> RolloutView:
        """Let so much time pass, whether the rollout ends or not."""
        self.tick(seconds)
        return self.view(rollout)

    def check_in(self, row: int, check_in: CheckIn) -> checkin.Answered | checkin.OutOfSequence:
        self.invariants.heard(row, check_in)
        answer = super().check_in(row, check_in)
        if isinstance(answer, checkin.Answered) and answer.offer is not None:
            self.invariants.offered(row, answer.offer)
        return answer

    def store(self, row: int, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        fresh = super().store(row, outcomes)
        return (*fresh, *outcomes) if self._twice else fresh

    def commit(self, change: Change) -> None:
        super().commit(change)
        self.invariants.committed(change.state)

    def evaluate(self) -> None:
        super().evaluate()
        self.invariants.check()


def _name(number: int) -> str:
    return f"d{number:05d}"


def _labels(number: int) -> dict[str, str]:
    return {"site": f"s{number % 3}"}
