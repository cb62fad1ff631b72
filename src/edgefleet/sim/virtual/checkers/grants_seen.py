"""Who was given leave to begin, and when: most by a start that is stored, some by an offer.

An agent of the version before starts by itself, so its offer is its leave, and that it began is
told later.
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
"""After one of these who had leave is not in trial any more."""


class Leaves:
    """What a checker has heard of leaves, by rollout."""

    def __init__(self) -> None:
        self._by_offer: defaultdict[str, RowSet] = defaultdict(RowSet)

    def given(self, rows: Rows, outcome: Outcome) -> Rows:
        """Those of ``rows`` that ``outcome``, now stored, gives leave."""
        by_offer = self._by_offer[outcome.rollout]
        if outcome.kind is OutcomeKind.OFFERED:
            by_offer.add(rows)
            return rows
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            return rows[~by_offer.has(rows)]
        return rows[:0]
