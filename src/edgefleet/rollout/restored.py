"""Whether devices are ahead of the hub, from the rollouts that they name and the hub's ledgers.

An acknowledged start is durable. So a device that runs the release of a rollout, without a start in
its ledger, began in a history that the hub has lost.
"""

from collections.abc import Mapping

import numpy as np

from edgefleet.protocol.device import CheckIn, Phase
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.ahead import Ahead
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Rows


def note_given(
    row: int, check_in: CheckIn, ahead: Ahead, rollouts: Mapping[str, ActiveRollout]
) -> None:
    """Compare reported models with the records. The outcomes of the check-in are not recorded yet.

    Unless the list is full, a model whose rollout it does not name keeps what was found before.
    """
    known = {model for model, _ in check_in.given}
    found = [] if check_in.full else [pair for pair in ahead.given(row) if pair[0] not in known]
    for model, rollout in check_in.given:
        if rollout <= ahead.accepted:
            continue
        active = rollouts.get(rollout)
        lost = _lost(model, check_in, active)
        if active is None or (_enrolled(active) > row and active.ledger.standing(row) < lost):
            found.append((model, rollout))
    ahead.set(row, tuple(found))


def note_all_given(
    rows: Rows, check_in: CheckIn, ahead: Ahead, rollouts: Mapping[str, ActiveRollout]
) -> None:
    """``note_given`` for many devices with the same check-in."""
    differ = ahead.blocks_all("", "", rows)
    for model, rollout in check_in.given:
        if rollout <= ahead.accepted:
            continue
        if (active := rollouts.get(rollout)) is None:
            differ = np.ones(len(rows), np.bool_)
        elif lost := _lost(model, check_in, active):
            differ |= (rows < _enrolled(active)) & (active.ledger.standings(rows) < lost)
    for row in rows[differ].tolist():
        note_given(row, check_in, ahead, rollouts)


def _lost(model: str, check_in: CheckIn, active: ActiveRollout | None) -> int:
    """A standing below this one, of a device that sends the check-in, says that records are lost.

    A confirmation may still be in the spool of the device, unless it has nothing to report.
    """
    mine = next((one for one in check_in.models if one.model == model), None)
    if active is None or mine is None or mine.release != active.state.spec.release:
        return DeviceStanding.NONE
    if mine.phase is Phase.IDLE and check_in.full and not check_in.outcomes:
        return DeviceStanding.HEALTHY
    return DeviceStanding.TRIAL if mine.phase in (Phase.IDLE, Phase.TRIAL) else DeviceStanding.NONE


def _enrolled(active: ActiveRollout) -> int:
    """Rows up to this one were enrolled when the rollout started."""
    return active.state.waves[0].rows or 0
