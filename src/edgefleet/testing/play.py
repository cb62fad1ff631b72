"""Play one rollout from its start to its end, and return its result."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgefleet.protocol.rollout import Judgement, RolloutSpec, RolloutView, Status
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.testing.behaviour import Behaviour
from edgefleet.testing.fake_device import FakeDevice
from edgefleet.testing.fake_fleet import FakeFleet
from edgefleet.testing.limits import PLAY_S
from edgefleet.testing.memory_hub import Noted


@dataclass(frozen=True, slots=True)
class Played:
    """The result of a rollout. ``took_s`` is the virtual time from start to end."""

    view: RolloutView
    took_s: float
    audit: tuple[Noted, ...]
    on_release: dict[str, int]  # devices by served release
    fleet: FakeFleet  # the fleet at the end, to continue with

    @property
    def status(self) -> Status:
        return self.view.status

    @property
    def reason(self) -> str:
        """The stable code of the reason for the status."""
        return self.view.reason

    @property
    def exposed(self) -> int:
        """Devices that ever activated the release."""
        return self.view.exposed

    @property
    def judgements(self) -> tuple[Judgement | None, ...]:
        """The last judgement of each wave. None for a wave that never opened."""
        return tuple(wave.judgement for wave in self.view.waves)


def play(
    plan: RolloutSpec,
    devices: int | Iterable[FakeDevice] = 100,
    *,
    behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
    gate: Gate = judge,
    at_most_s: float = PLAY_S,
) -> Played:
    """Move a fleet that serves release ``0`` to the release of the plan, until the rollout ends.

    ``devices`` is the number of devices, or the devices with labels, profiles and fates. ``gate``
    may be a custom gate. Raises OperatorError if the plan is refused. Raises AssertionError with
    the first wait if the rollout has not ended after ``at_most_s`` seconds of virtual time.
    """
    fleet = FakeFleet(devices, gate=gate, model=plan.model)
    fleet.publish("0")
    fleet.install("0")
    fleet.publish(plan.release, behaviour)
    began = fleet.now
    rollout = fleet.start(plan)
    before = len(fleet.audit) - 1
    view = fleet.run(rollout, at_most_s=at_most_s)
    if rollout in fleet.engine.open_rollouts():
        msg = f"{rollout} has not ended after {at_most_s:g} s. {fleet.why(rollout).line}"
        raise AssertionError(msg)
    return Played(
        view=view,
        took_s=fleet.now - began,
        audit=tuple(fleet.audit[before:]),
        on_release=fleet.on_release(),
        fleet=fleet,
    )
