"""Whether a device is ahead of the hub, from the rollouts that it names and the hub's ledgers."""

from collections.abc import Mapping

from edgefleet.protocol.device import CheckIn, Phase
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.ahead import Ahead
from edgefleet.rollout.evidence.ledger import DeviceStanding


def note_given(
    row: int, check_in: CheckIn, ahead: Ahead, rollouts: Mapping[str, ActiveRollout]
) -> None:
    """Compare a full list of models with the records. The outcomes in it are recorded already.

    An acknowledged start is durable. So a device that runs the release of a rollout, without a
    start in its ledger, began in a history that the hub has lost.
    """
    idle = {one.model for one in check_in.models if one.phase is Phase.IDLE}
    running = {one.model: one.release for one in check_in.models}
    found: list[tuple[str, str]] = []
    for model, rollout in check_in.given:
        if rollout <= ahead.accepted:
            continue
        active = rollouts.get(rollout)
        if active is None:
            found.append((model, rollout))
        elif model in idle and running.get(model) == active.state.spec.release:
            enrolled_before = row < (active.state.waves[0].rows or 0)
            lost = active.ledger.standing(row) <= DeviceStanding.TRIAL
            if enrolled_before and lost and not check_in.outcomes:
                found.append((model, rollout))
    ahead.set(row, tuple(found))
