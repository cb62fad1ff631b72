"""What a device should run: a function of the rollouts and of what the device said.

The newest rollout that covers the device decides. A rollout that was taken back covers nobody, so
what it gave goes back by itself; and what a device failed, refused or reverted is never offered to
it again, by whichever rollout.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from edgefleet.protocol.device import Offer
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.reservations import Blocked
from edgefleet.rollout.evidence.ledger import HELD, DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import TAKEN_BACK

_GIVING = frozenset({Status.RUNNING, Status.PAUSED, Status.HALTED, Status.COMPLETED})

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_COMPLETED: Final = Status.COMPLETED
_HEALTHY: Final = DeviceStanding.HEALTHY
_TRIAL: Final = DeviceStanding.TRIAL
_NONE: Final = DeviceStanding.NONE

_NO_RELEASE: Final = Blocked(WaitCode.NO_ROLLOUT, "No rollout says what it should run.")
_RUNS_IT: Final = Blocked(WaitCode.DONE, "It runs the release that it should run.")

StagingCheck = Callable[[ActiveRollout], Blocked | None]
"""Why the device may not download the release of a rollout now. None if it may."""


class Desired:
    """The rollouts, arranged for the question. Call ``arrange`` after each change of one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._giving: tuple[ActiveRollout, ...] = ()  # newest first
        self._taken_back: dict[int, tuple[ActiveRollout, ...]] = {}  # by release number
        self._of_release: dict[int, tuple[ActiveRollout, ...]] = {}

    def arrange(self, tracks: Iterable[ActiveRollout]) -> None:
        newest_first = sorted(
            tracks, key=lambda track: (track.state.created_at, track.state.id), reverse=True
        )
        self._giving = tuple(track for track in newest_first if track.state.status in _GIVING)
        self._of_release = _by_release(newest_first)
        self._taken_back = _by_release(
            track for track in newest_first if track.state.status in TAKEN_BACK
        )

    def track(self, row: int) -> ActiveRollout | None:
        """The rollout whose release the device should run; None when none says."""
        return self._wanted(row, self._fleet.running_id(row))

    def proven(self, row: int) -> ActiveRollout | None:
        """Like ``track``, but only a release that its rollout or the device itself has proved."""
        for track in self._giving:
            proved = track.state.status is _COMPLETED or track.ledger.standing(row) is _HEALTHY
            covers = proved and track.covers(row, self._fleet.running_id(row))
            if covers and not self.is_held(row, track):
                return track
        return None

    def decide(
        self, row: int, staging: Callable[[ActiveRollout], Blocked | None]
    ) -> Offer | Blocked:
        """What the device is offered, or why it is offered nothing. Changes nothing.

        A device whose release was rolled back returns to a proven release before it tries a new
        one. ``staging`` gives the reason why a device that has not begun may not download; None if
        it may. Answer, ``why``, page and CLI all use this one value.
        """
        running = self._fleet.running_id(row)
        want = self._wanted(row, running)
        if want is None:
            return _NO_RELEASE
        if running == want.release.number:
            return _RUNS_IT
        recalled = self.recalled(row) if self._taken_back else None
        proven = None if recalled is None else self.proven(row)
        if recalled is None or proven is None or proven.release.number == running:
            if want.ledger.standing(row) < _TRIAL and (blocked := staging(want)) is not None:
                return blocked
            return want.offer
        return replace(proven.offer, rollout=recalled.state.id, action="revert")

    def recalled(self, row: int) -> ActiveRollout | None:
        """The rollout that takes back what the device runs now."""
        for track in self._taken_back.get(self._fleet.running_id(row), ()):
            if track.ledger.standing(row) is not _NONE or track.scope.eligible(row):
                return track
        return None

    def numbers(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """``track`` for many rows at once: the number of each one's release, 0 for none."""
        answer = np.zeros(len(rows), np.uint32)
        for track, given in self.tracks(rows):
            answer[given] = track.release.number
        return answer

    def tracks(self, rows: Rows) -> Iterator[tuple[ActiveRollout, npt.NDArray[np.int64]]]:
        """``track`` for many rows at once: each rollout with the places in ``rows`` it decides."""
        undecided = np.arange(len(rows))
        for track in self._giving:
            if not len(undecided):
                return
            left = rows[undecided]
            given = track.covered(left, self._fleet.running_ids[left]) & ~self.held(left, track)
            yield track, undecided[given]
            undecided = undecided[~given]

    def recalls(self, numbers: npt.NDArray[np.uint32]) -> bool:
        """False when no rollout takes back any of these releases."""
        return any(number in self._taken_back for number in set(numbers.tolist()))

    def held(self, rows: Rows, track: ActiveRollout) -> Mask:
        """Which rows must not be offered the release of ``track``, whichever rollout said so."""
        mask = np.zeros(len(rows), np.bool_)
        for other in self.of_release(track.release.number):
            if other.ledger.holds_any:
                mask |= other.ledger.held(rows)
        return mask

    def of_release(self, number: int) -> tuple[ActiveRollout, ...]:
        """All rollouts of a release, newest first."""
        return self._of_release.get(number, ())

    def _wanted(self, row: int, running: int) -> ActiveRollout | None:
        for track in self._giving:
            if track.covers(row, running) and not self.is_held(row, track):
                return track
        return None

    def is_held(self, row: int, track: ActiveRollout) -> bool:
        """By another rollout of its release: whom its own holds back, it does not cover."""
        rollouts = self._of_release.get(track.release.number, ())
        return len(rollouts) > 1 and any(other.ledger.standing(row) in HELD for other in rollouts)


def _by_release(tracks: Iterable[ActiveRollout]) -> dict[int, tuple[ActiveRollout, ...]]:
    found: dict[int, tuple[ActiveRollout, ...]] = {}
    for track in tracks:
        found[track.release.number] = (*found.get(track.release.number, ()), track)
    return found
