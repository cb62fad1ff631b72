"""The initial state of a run: an enrolled fleet, and a completed rollout of the old release."""

import numpy as np

from edgefleet.protocol.rollout import RolloutSpec, Status
from edgefleet.rollout.lifecycle.state import RolloutState, WaveState
from edgefleet.sim.virtual import releases
from edgefleet.sim.virtual.devices import Devices
from edgefleet.sim.virtual.scenario import MODEL, NEW, OLD

BASELINE = "ro-0"


def set_up(devices: Devices) -> None:
    """Enrol all devices, publish both releases and install the old one."""
    environment = devices.environment
    hub, facts, start = environment.hub, environment.facts, environment.start
    for row in range(facts.devices):
        hub.enrol(facts.name(row), facts.device(row).profile, facts.labels(row))
    for release in (OLD, NEW):
        made, sha256 = releases.manifest(release, environment.scenario, start)
        hub.publish(made, sha256)
        devices.publish(made, sha256)
    baseline = _rollout(facts.devices, start)
    hub.store.save_state(baseline)
    hub.engine.load(baseline)
    rows = np.arange(facts.devices)
    number = np.uint32(hub.engine.fleet.models.release_id(MODEL, OLD))
    hub.engine.fleet.heartbeats(rows, start, np.full(facts.devices, number, np.uint32))
    devices.install(OLD)
    hub.store.save_standings(hub.engine.fleet)


def _rollout(devices: int, start: float) -> RolloutState:
    everyone = WaveState(
        percent=100.0,
        cut=devices,
        threshold=f"{1 << 64:x}",
        population=devices,
        rows=devices,
        opened_at=start - 7200,
        closed_at=start - 3600,
    )
    return RolloutState(
        id=BASELINE,
        spec=RolloutSpec(model=MODEL, release=OLD, follow=True),
        salt=0,
        previous=None,
        status=Status.COMPLETED,
        reason="completed",
        text="All waves passed.",
        since=start - 3600,
        created_at=start - 7200,
        started_at=start - 7200,
        ended_at=start - 3600,
        wave=0,
        waves=(everyone,),
    )
