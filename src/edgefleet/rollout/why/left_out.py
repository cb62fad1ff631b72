"""The quarantined devices that a completed rollout does not give its release."""

from dataclasses import dataclass, field

import numpy as np

from edgefleet.protocol.why import Wait, WaitCode
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Rows, RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.limits import FIRST_NAMES


@dataclass(frozen=True, slots=True)
class LeftOut:
    """``quarantined`` devices, ascending, of ``devices``, of which ``running`` run the release."""

    quarantined: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    devices: int = 0
    running: int = 0
    failed: int = 0  # those that failed or refused it, without the quarantined

    @property
    def text(self) -> str:
        """``on 1 of 3 devices: 2 quarantined``. Empty if no device is left out."""
        if not len(self.quarantined):
            return ""
        rest = self.devices - self.running - len(self.quarantined) - self.failed
        named = [f"{len(self.quarantined)} quarantined"]
        named += [f"{self.failed} failed or refused it"] if self.failed else []
        named += [f"{rest} not yet"] if rest else []
        return f" on {self.running} of {self.devices} devices: {', '.join(named)}"

    def waits(self, fleet: Fleet, text: str) -> list[Wait]:
        """The wait for a person who inspects them. ``text`` is that of the quarantine."""
        if not len(self.quarantined):
            return []
        return [
            Wait(
                code=WaitCode.QUARANTINED,
                text=text,
                devices=len(self.quarantined),
                first=fleet.names(RowSelection.of(self.quarantined).first(FIRST_NAMES)),
            )
        ]


NOBODY = LeftOut()


def find_left_out(active: ActiveRollout, fleet: Fleet, fleet_wide: FleetConstraints) -> LeftOut:
    """The devices left out of the newest completed rollout of a model.

    The rows of the fleet are read only if a device is quarantined.
    """
    if not fleet_wide.quarantine.is_active:
        return NOBODY
    rows = fleet_wide.quarantine.rows(active.model)
    rows = rows[active.scope.all_eligible(rows)]
    rows = rows[~fleet.models.all_run(rows, active.release.number)]
    if not len(rows):
        return NOBODY
    every = active.scope.eligible_rows()
    bad = active.ledger.rows(DeviceStanding.FAILED, DeviceStanding.REFUSED)
    bad = bad[active.scope.all_eligible(bad) & ~np.isin(bad, rows)]
    bad = bad[~fleet.models.all_run(bad, active.release.number)]
    running = int(np.count_nonzero(fleet.models.all_run(every, active.release.number)))
    return LeftOut(rows, devices=len(every), running=running, failed=len(bad))
