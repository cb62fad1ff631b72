"""The durable state of a simulated hub. Only this state survives a crash."""

from array import array
from collections.abc import Iterator, Mapping

import numpy as np

from edgefleet.protocol.device import Outcome
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.reports import ReportColumns
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.row_set import RowSet


class Store:
    """Rollout states as bytes, outcomes in columns, devices in order of enrolment.

    An outcome is stored once for each (row, id).
    """

    def __init__(self) -> None:
        self.devices: list[tuple[str, str, Mapping[str, str]]] = []
        self._states: dict[str, bytes] = {}
        self._rows = array("i")
        self._codes = array("I")
        self._at = array("d")  # time of receipt by the hub
        self._kinds: list[
            Outcome
        ] = []  # one for each distinct (id, rollout, release, kind, reason)
        self._code_of: dict[tuple[str, str, str, str, str], int] = {}
        self._rows_of: dict[str, RowSet] = {}  # by outcome id: two devices may use the same id
        self._standings: ReportColumns | None = None
        self._backup: ReportColumns | None = None
        self.commits = 0

    def save_state(self, state: RolloutState) -> None:
        self._states[state.id] = encode(state)
        self.commits += 1

    def states(self) -> Iterator[RolloutState]:
        return (decode(data, RolloutState, code="internal") for data in self._states.values())

    def has(self, rows: Rows, outcome: Outcome) -> Mask:
        """For each row, whether the outcome is stored."""
        known = self._rows_of.get(outcome.id)
        return np.zeros(len(rows), np.bool_) if known is None else known.has(rows)

    def save_outcomes(
        self, rows: Rows, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[tuple[Rows, Outcome], ...]:
        """Store the outcomes for all of ``rows``. Returns the new ones with their rows."""
        fresh: list[tuple[Rows, Outcome]] = []
        for outcome in outcomes:
            known = self._rows_of.get(outcome.id)
            if known is None:
                known = self._rows_of[outcome.id] = RowSet()
            new = rows[known.add(rows)]
            if not len(new):
                continue
            self._rows.frombytes(new.astype(np.int32).tobytes())
            self._codes.extend((self._code(outcome),) * len(new))
            self._at.extend((now,) * len(new))
            fresh.append((new, outcome))
        self.commits += 1
        return tuple(fresh)

    def outcomes(self) -> Iterator[tuple[Rows, Outcome, float]]:
        """All outcomes with their time of receipt, in the order in which they became durable.

        Outcomes that were stored together are yielded together, with ascending rows.
        """
        rows, at = np.array(self._rows, np.int64), np.array(self._at)
        codes = np.array(self._codes, np.int64)
        apart = (np.diff(codes) != 0) | (np.diff(at) != 0) | (np.diff(rows) <= 0)
        ends = [*(np.flatnonzero(apart) + 1).tolist(), len(rows)]
        start = 0
        for end in ends if len(rows) else ():
            yield rows[start:end], self._kinds[self._codes[start]], self._at[start]
            start = end

    def __len__(self) -> int:
        return len(self._rows)

    def save_standings(self, fleet: Fleet) -> None:
        """Store the standings of all devices, as the hub does periodically."""
        self._standings = fleet.copy_reports()
        self._backup = self._backup or self._standings

    def load_standings(self, fleet: Fleet, *, backup: bool = False) -> None:
        """Load the last standings, or from a ``backup`` those that were stored first."""
        standings = self._backup if backup else self._standings
        if standings is not None:
            fleet.load_reports(standings)

    def _code(self, outcome: Outcome) -> int:
        key = (outcome.id, outcome.rollout, outcome.release, outcome.kind, outcome.reason)
        code = self._code_of.get(key)
        if code is None:
            code = self._code_of[key] = len(self._kinds)
            self._kinds.append(outcome)
        return code
