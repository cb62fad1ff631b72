"""The devices from which alone a rollout took its release back."""

import numpy as np

from edgefleet.protocol.rollout import PROFILE
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.lifecycle.state import RolloutState


def has_class(engine: Engine, rows: Rows, state: RolloutState) -> Mask:
    """True for each of ``rows`` in such a class, by its labels and profile, or in such an episode.

    ``rows`` must ascend.
    """
    fleet, found = engine.fleet, np.zeros(len(rows), np.bool_)
    for part in state.taken_back:
        if part.key == PROFILE:
            profiles = [fleet.kit(number).profile for number in range(fleet.kit_count)]
            found |= np.array([one == part.value for one in profiles])[fleet.kit_ids[rows]]
        elif part.key:
            sets = [fleet.label_set(number) for number in range(fleet.label_set_count)]
            matches = np.array([one.get(part.key) == part.value for one in sets])
            found |= matches[fleet.label_ids[rows]]
        else:
            started = engine.rollout(state.id).ledger
            found |= started.began_between(rows, part.since, part.until)
    return found
