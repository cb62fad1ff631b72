"""What the demo saw of the story: plain data, so that judging it needs nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgefleet.cli.demo.story import Chapter
from edgefleet.protocol.operator import FleetView
from edgefleet.protocol.rollout import RolloutView
from edgefleet.sim.load.fleet import FleetReport


@dataclass(frozen=True, slots=True)
class ClientSeen:
    """What one client, who never stopped asking, got from one real agent."""

    agent: str
    requests: int
    failed: int
    answered: Mapping[str, int]  # release -> answers that it gave
    right: Mapping[str, int]  # of these, those with the right digit
    last: str | None  # the release of the newest answer
    first_failure: str = ""


@dataclass(frozen=True, slots=True)
class StorySeen:
    """The whole. ``rollouts`` has None for a chapter that was not reached.

    ``listed`` counts the hub's devices by release, those offline too; ``fleet`` is the simulated
    devices' own word, ``clients`` that of the real agents' users.
    """

    chapters: tuple[Chapter, ...]
    rollouts: tuple[RolloutView | None, ...]
    expected_devices: int
    hub: FleetView
    listed: Mapping[str, int]
    fleet: FleetReport
    clients: tuple[ClientSeen, ...]
    seconds: float
    url: str
