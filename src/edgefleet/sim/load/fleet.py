"""A fleet of simulated devices: enrolment, start, and counts."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Literal

from edgefleet.base.errors import CATALOG, Party, error_from_code
from edgefleet.protocol.device import EnrolAnswer, EnrolRequest
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import Wire
from edgefleet.sim.limits import ENROL_AGAIN_S
from edgefleet.sim.load.device import DeviceFacts, SimDevice, Surroundings
from edgefleet.sim.load.hub_api import Failed


class FleetReport(Wire, frozen=True, kw_only=True):
    """Counts from the devices themselves, independent of the hub's counts."""

    kind: Literal["progress", "summary"]
    at: float
    devices: int  # enrolled
    link_up: int  # of these, with a working link now
    on_release: dict[str, dict[str, int]]  # model -> release served -> devices
    ran: dict[str, dict[str, int]]  # model -> release -> devices that ever served it, also in trial
    # The same devices, by the release of the model that they serve now, "" for none.
    ran_now: dict[str, dict[str, dict[str, int]]]
    phases: dict[str, int]
    cpu_s: float = 0.0  # of the whole process


class SimulatedFleet:
    """The devices of one simulation, all of one hub."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.devices: dict[str, SimDevice] = {}

    def enrol(self, facts: DeviceFacts, claim: str) -> None:
        """Exchange the claim for a credential and start the device.

        Enrolment uses a perfect link, as during an installation. It is retried while the hub is
        unreachable. An error of the hub is raised as an ``EdgefleetError`` in the loop's thread.
        """
        request = EnrolRequest(
            protocol=PROTOCOL,
            claim=claim,
            name=facts.name,
            facts=facts.facts,
            labels=facts.labels,
        )
        self._around.hub.enrol(request, partial(self._enrolled, facts, claim))

    def report(self, kind: Literal["progress", "summary"], *, cpu_s: float = 0.0) -> FleetReport:
        now = self._around.world.now()
        devices = self.devices.values()
        on_release: defaultdict[str, Counter[str]] = defaultdict(Counter)
        ran: defaultdict[str, Counter[str]] = defaultdict(Counter)
        ran_now: defaultdict[str, defaultdict[str, Counter[str]]]
        ran_now = defaultdict(lambda: defaultdict(Counter))
        for device in devices:
            serves = device.releases
            for model, release in serves.items():
                on_release[model][release] += 1
            for model, releases in device.ran.items():
                ran[model].update(releases)
                for release in releases:
                    ran_now[model][release][serves.get(model, "")] += 1
        return FleetReport(
            kind=kind,
            at=now,
            devices=len(devices),
            link_up=sum(device.link.up(now) for device in devices),
            on_release=_sorted_by_model(on_release),
            ran=_sorted_by_model(ran),
            ran_now={model: _sorted_by_model(found) for model, found in sorted(ran_now.items())},
            phases=_sorted(Counter(device.phase.value for device in devices)),
            cpu_s=cpu_s,
        )

    def _enrolled(self, facts: DeviceFacts, claim: str, answer: EnrolAnswer | Failed) -> None:
        if isinstance(answer, Failed):
            kind = CATALOG.get(answer.code)
            if kind is None or kind.party is not Party.NETWORK:
                raise error_from_code(answer.code, f"{facts.name}: {answer.detail}")
            self._around.world.after(ENROL_AGAIN_S, partial(self.enrol, facts, claim))
            return
        device = SimDevice(facts, answer.token, self._around, interval_s=answer.interval_s)
        self.devices[facts.name] = device
        device.boot()


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _sorted_by_model(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {model: _sorted(found) for model, found in sorted(counts.items())}
