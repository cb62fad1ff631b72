"""Observations of the demo as plain data, the only input of its checks."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgefleet.cli.demo.story import Chapter
from edgefleet.protocol.operator import FleetView
from edgefleet.protocol.rollout import RolloutView
from edgefleet.sim.load.fleet import FleetReport


@dataclass(frozen=True, slots=True)
class ClientObservations:
    """The answers of one model on one real agent to its client."""

    agent: str
    model: str
    requests: int
    failed: int
    answered: Mapping[str, int]  # release -> number of answers
    right: Mapping[str, int]  # release -> number of right answers
    last: str | None  # the release of the newest answer
    first_failure: str = ""


@dataclass(frozen=True, slots=True)
class RealDevice:
    """The models of one real device, each with its release."""

    name: str
    listed: Mapping[str, str]  # by the hub
    served: Mapping[str, str]  # by the device's own serving process, confirmed ones only


@dataclass(frozen=True, slots=True)
class StoryObservations:
    """All observations. ``rollouts`` has None for a chapter that was not reached.

    ``listed`` counts the hub's devices by model and release, including offline devices. ``fleet``
    is the report of the simulated devices, ``clients`` has one entry for each model of each real
    device.
    """

    chapters: tuple[Chapter, ...]
    rollouts: tuple[RolloutView | None, ...]
    expected_devices: int
    hub: FleetView
    listed: Mapping[str, Mapping[str, int]]
    fleet: FleetReport
    real: tuple[RealDevice, ...]
    clients: tuple[ClientObservations, ...]
    seconds: float
    url: str
