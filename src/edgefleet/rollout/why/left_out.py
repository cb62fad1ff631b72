"""The devices that do not run the release of a completed rollout, and why."""

from dataclasses import dataclass, field

import numpy as np

from edgefleet.protocol.why import Wait, WaitCode
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Rows, RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.limits import FIRST_NAMES


def _no_rows() -> Rows:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows of devices, ascending, of ``devices``, of which ``running`` run the release.

    A device that is both is one of the ``copied``.
    """

    quarantined: Rows = field(default_factory=_no_rows)
    copied: Rows = field(default_factory=_no_rows)
    devices: int = 0
    running: int = 0
    deferred: int = 0  # those that try again, without the rows above
    failed: int = 0  # those that failed or refused it, likewise

    @property
    def text(self) -> str:
        """``on 1 of 3 devices: 2 quarantined``. Empty if no device is left out."""
        counts = {
            "quarantined": len(self.quarantined),
            "copied": len(self.copied),
            "deferred it": self.deferred,
            "failed or refused it": self.failed,
        }
        if not any(counts.values()):
            return ""
        rest = self.devices - self.running - sum(counts.values())
        named = [f"{count} {what}" for what, count in counts.items() if count]
        named += [f"{rest} not yet"] if rest else []
        return f" on {self.running} of {self.devices} devices: {', '.join(named)}"

    def waits(self, fleet: Fleet, constraints: FleetConstraints) -> list[Wait]:
        """The waits for a person who inspects them."""
        return [
            Wait(
                code=code,
                text=text,
                devices=len(rows),
                first=fleet.names(RowSelection.of(rows).first(FIRST_NAMES)),
            )
            for code, text, rows in (
                (WaitCode.QUARANTINED, constraints.quarantine.advice, self.quarantined),
                (WaitCode.COPIED, constraints.copied.advice, self.copied),
            )
            if len(rows)
        ]


NOBODY = LeftOut()


def find_left_out(active: ActiveRollout, fleet: Fleet, fleet_wide: FleetConstraints) -> LeftOut:
    """The devices left out of the newest completed rollout of a model.

    The rows of the fleet are read only if there is one.
    """
    copied = _without_it(active, fleet, fleet.copies.rows)
    quarantined = _without_it(active, fleet, fleet_wide.quarantine.rows(active.model))
    quarantined = quarantined[~np.isin(quarantined, copied)]
    rows = np.concatenate((quarantined, copied))
    deferred = _without_it(active, fleet, active.ledger.rows(DeviceStanding.DEFERRED))
    bad = active.ledger.rows(DeviceStanding.FAILED, DeviceStanding.REFUSED)
    bad = _without_it(active, fleet, bad)
    if not len(rows) + len(deferred) + len(bad):
        return NOBODY
    every = active.scope.eligible_rows()
    return LeftOut(
        quarantined,
        copied,
        devices=len(every),
        running=int(np.count_nonzero(fleet.models.all_run(every, active.release.number))),
        deferred=int(np.count_nonzero(~np.isin(deferred, rows))),
        failed=int(np.count_nonzero(~np.isin(bad, rows))),
    )


def _without_it(active: ActiveRollout, fleet: Fleet, rows: Rows) -> Rows:
    """Those of ``rows`` in the scope of the rollout that do not run its release."""
    if len(rows):
        rows = rows[active.scope.all_eligible(rows)]
    return rows[~fleet.models.all_run(rows, active.release.number)] if len(rows) else rows
