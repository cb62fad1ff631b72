"""Finished rollouts: which ones have a page to store, and their return from it after a restart.

A rollout is finished once ``Engine.evaluate`` is not due for it: it has ended, its bake is over,
and no device is in trial. Its state and its ledger still decide for devices. A late report makes
it unfinished again, for as long as the device is in trial.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.quarantine import Quarantine
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.evidence.ledger_page import LedgerPage, column, decode_page
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import OPEN


class Finished:
    """The finished rollouts of one engine.

    ``stirred`` has the ids of rollouts that had a change or a report, and may not be finished.
    """

    def __init__(
        self,
        fleet: Fleet,
        rollouts: Mapping[str, ActiveRollout],
        quarantine: Quarantine,
        stirred: set[str],
        evaluated: Callable[[], Sequence[str]],
    ) -> None:
        self._fleet = fleet
        self._rollouts = rollouts
        self._quarantine = quarantine
        self._stirred = stirred
        self._evaluated = evaluated
        self._due: set[str] = set()  # finished, without a page of the ledger as it is now
        self._stored: dict[str, int] = {}  # rollout -> reports of its ledger, in its page

    def ended(self, rollouts: Sequence[str]) -> None:
        """``evaluate`` is not due for these any more."""
        self._due.update(rollouts)

    def due(self, now: float) -> tuple[str, ...]:
        """The finished rollouts whose pages are to be stored, oldest first."""
        self._evaluated()
        current = [one for one in self._due if self._is_stored(one)]
        self._due.difference_update(current)
        idle = (one for one in self._due if self._rollouts[one].reservations.starts.is_idle(now))
        return tuple(sorted(idle))

    def outdated(self) -> tuple[str, ...]:
        """The rollouts with a stored page that does not have all of their reports, oldest first.

        Ask it after ``due``, and before pages are stored.
        """
        asked = (one for one in self._stored if one in self._stirred or one in self._due)
        return tuple(sorted(asked))

    def copy(self, rollout: str) -> LedgerPage:
        """A copy of the ledger of a rollout. Ten milliseconds for a million devices."""
        return self._rollouts[rollout].ledger.page()

    def reports(self, rollout: str) -> int:
        """The number of reports in the ledger, by which a page is known to be current."""
        return self._rollouts[rollout].ledger.reports

    def stored(self, rollout: str, reports: int, packed: bytes) -> None:
        """The page is durable. The rollout is sealed unless its ledger changed since."""
        self._stored[rollout] = reports
        if self._is_stored(rollout):
            self._due.discard(rollout)
            self._rollouts[rollout].seal(packed)

    def removed(self, rollout: str) -> None:
        """The stored page of the rollout was removed."""
        self._stored.pop(rollout, None)

    def takes_page(self, rollout: str) -> bool:
        """True if the state of the rollout allows to load it from its page."""
        active = self._rollouts.get(rollout)
        return active is not None and not (active.state.status in OPEN or active.state.is_watched)

    def load(self, rollout: str, packed: bytes) -> None:
        """Load the ledger of a rollout that has no report yet.

        Raises ValueError for a page that is damaged or not of this fleet, and then loads nothing.
        """
        active = self._rollouts[rollout]
        page = decode_page(packed)
        rows = column(page.rows, np.uint32)
        if len(rows) and (
            int(rows[-1]) >= len(self._fleet) or (np.diff(rows.astype(int)) < 1).any()
        ):
            msg = f"the page of {rollout} has devices that the fleet has not"
            raise ValueError(msg)
        active.load_page(page, packed)
        ledger = active.ledger
        reported = ledger.reported_rows
        for row in reported[~active.scope.all_selected(reported)].tolist():
            self._fleet.note_move(row)
        for row in ledger.rows(DeviceStanding.FAILED).tolist():
            self._quarantine.add(active.model, row, rollout)
        self._stored[rollout] = ledger.reports

    def _is_stored(self, rollout: str) -> bool:
        return self._stored.get(rollout) == self._rollouts[rollout].ledger.reports
