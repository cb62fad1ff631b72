"""The grants that a checker has observed: a durable start, or an offer to an older agent.

An agent of protocol 1 starts by itself, so the offer is its grant. The agent reports its start
later.
"""

from collections import defaultdict
from typing import Final

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.row_set import RowSet

ENDS: Final = frozenset(
    {
        OutcomeKind.CONFIRMED,
        OutcomeKind.TRIAL_FAILED,
        OutcomeKind.REVERTED,
        OutcomeKind.WITHDRAWN,
    }
)
"""Outcomes after which a device is no longer in trial."""


class ObservedGrants:
    """Grants by offer, for each rollout."""

    def __init__(self) -> None:
        self._by_offer: defaultdict[str, RowSet] = defaultdict(RowSet)

    def granted(self, rows: Rows, outcome: Outcome) -> Rows:
        """The devices of ``rows`` for which the stored ``outcome`` is a grant."""
        by_offer = self._by_offer[outcome.rollout]
        if outcome.kind is OutcomeKind.OFFERED:
            by_offer.add(rows)
            return rows
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            return rows[~by_offer.has(rows)]
        return rows[:0]
