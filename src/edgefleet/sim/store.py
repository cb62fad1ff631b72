"""What a simulated hub has made durable: it outlives every crash, and nothing else does."""

from array import array
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Outcome
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout.fleet import Fleet
from edgefleet.rollout.state import RolloutState
from edgefleet.sim.row_set import RowSet


class Store:
    """States as bytes, outcomes in columns (by row and id once), devices in the order they came."""

    def __init__(self) -> None:
        self.devices: list[tuple[str, str, Mapping[str, str]]] = []
        self._states: dict[str, bytes] = {}
        self._rows = array("i")
        self._codes = array("I")
        self._at = array("d")  # when the hub received it
        self._kinds: list[Outcome] = []  # one of each (id, rollout, release, kind, reason)
        self._code_of: dict[tuple[str, str, str, str, str], int] = {}
        self._rows_of: dict[str, RowSet] = {}  # by id: ids of two devices may be alike
        self._standings: tuple[npt.NDArray[np.float64], ...] | None = None
        self.commits = 0

    def save_state(self, state: RolloutState) -> None:
        self._states[state.id] = encode(state)
        self.commits += 1

    def states(self) -> Iterator[RolloutState]:
        return (decode(data, RolloutState, code="internal") for data in self._states.values())

    def has(self, row: int, outcome: Outcome) -> bool:
        return outcome.id in self._rows_of and row in self._rows_of[outcome.id]

    def save_outcomes(
        self, row: int, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[Outcome, ...]:
        """Keep those that are not there yet; returns them."""
        fresh: list[Outcome] = []
        for outcome in outcomes:
            rows = self._rows_of.get(outcome.id)
            if rows is None:
                rows = self._rows_of[outcome.id] = RowSet()
            if not rows.add(row):
                continue
            self._rows.append(row)
            self._codes.append(self._code(outcome))
            self._at.append(now)
            fresh.append(outcome)
        self.commits += 1
        return tuple(fresh)

    def outcomes(self) -> Iterator[tuple[int, Outcome, float]]:
        """All of them with the time of receipt, in the order in which they became durable."""
        kinds = self._kinds
        columns = zip(self._rows, self._codes, self._at, strict=True)
        return ((row, kinds[code], at) for row, code, at in columns)

    def __len__(self) -> int:
        return len(self._rows)

    def save_standings(self, fleet: Fleet) -> None:
        """What devices run, as the hub writes it down now and then."""
        self._standings = fleet.standings()

    def load_standings(self, fleet: Fleet) -> None:
        if self._standings is not None:
            fleet.take_standings(self._standings)

    def _code(self, outcome: Outcome) -> int:
        key = (outcome.id, outcome.rollout, outcome.release, outcome.kind, outcome.reason)
        code = self._code_of.get(key)
        if code is None:
            code = self._code_of[key] = len(self._kinds)
            self._kinds.append(outcome)
        return code
