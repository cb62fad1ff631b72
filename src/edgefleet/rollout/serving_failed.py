"""Devices that confirmed a release on which serving fails since: they count as failed.

An observation of their last check-ins, which a restart of the hub loses and the next check-ins
bring back. No report of the device says so: it may serve well again, and then it counts as healthy.
"""

from typing import Final

import numpy as np

from edgefleet.protocol.device import Reason
from edgefleet.protocol.rollout import Evidence
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.device_models import NOTHING
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.limits import CONTROL_DEVICES

_NOBODY: Final = np.zeros(0, np.int64)


def serving_failed(active: ActiveRollout, fleet: Fleet, now: float) -> Rows:
    """The healthy devices that run the release and on which serving it fails, ascending.

    Only devices that are online count. Empty if serving fails on at least half as large a share of
    the devices of the previous release: then the release is not the cause.
    """
    if not fleet.serving.by_row:
        return _NOBODY
    failing = fleet.serving.failed_rows(active.model, active.state.spec.gate.silence_s)
    failing = failing[~fleet.silent_longer(failing, now, fleet.offline_after_s)]
    healthy = active.ledger.standings(failing) == DeviceStanding.HEALTHY
    mine: Rows = failing[healthy & fleet.models.all_run(failing, active.release.number)]
    if active.taken:
        mine = mine[~active.all_taken_back(mine)]
    mine = mine[~active.set_aside.parts.all_have(mine)]
    if not len(mine) or _is_shared(active, fleet, failing, len(mine)):
        return _NOBODY
    return mine


def with_serving_failed(evidence: Evidence, fleet: Fleet, rows: Rows) -> Evidence:
    """The evidence in which ``rows``, counted as healthy so far, are failures."""
    if not len(rows):
        return evidence
    code, view = Reason.SERVING.value, fleet.serving.view(int(rows[0]))
    words = {} if view is None else {code: view.text}
    return replace(
        evidence,
        healthy=max(0, evidence.healthy - len(rows)),
        failed=evidence.failed + len(rows),
        serving_failed=len(rows),
        reasons={**evidence.reasons, code: len(rows)},
        details={**evidence.details, **words},
        examples={**evidence.examples, code: fleet.name(int(rows[0]))},
    )


def _is_shared(active: ActiveRollout, fleet: Fleet, failing: Rows, failed: int) -> bool:
    """Whether serving fails as often on devices of the previous release (see ``windows``)."""
    previous = active.state.previous
    if previous is None:
        return False
    number = fleet.models.release_id(active.model, previous)
    rows = active.scope.eligible_rows()
    control: Mask = active.ledger.standings(rows) == DeviceStanding.NONE
    if number == NOTHING or not control.any():
        return False
    control &= fleet.models.all_run(rows, number)
    devices = int(np.count_nonzero(control))
    if devices < CONTROL_DEVICES:
        return False
    both = int(np.count_nonzero(np.isin(rows[control], failing, assume_unique=True)))
    served = max(1, active.ledger.count(DeviceStanding.HEALTHY))
    return both / devices >= failed / served / 2
