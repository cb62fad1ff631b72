"""Admission control: which devices may start a release now, and which may download it.

Here stands what holds for the whole fleet, whatever the rollout: the freeze, and the quarantine.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Final

import numpy as np

from edgefleet.protocol.device import Offer, Outcome
from edgefleet.protocol.rollout import Freeze, Status
from edgefleet.protocol.version import starts_by_itself
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission import downloads
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.constraints.quarantine import Quarantine, quarantine_text
from edgefleet.rollout.constraints.reservations import Blocked
from edgefleet.rollout.constraints.window import LABEL
from edgefleet.rollout.evidence.ledger import HELD, DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows, RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import OPEN

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_TRIAL: Final = DeviceStanding.TRIAL
_HEALTHY: Final = DeviceStanding.HEALTHY
_FAILED: Final = DeviceStanding.FAILED
_REFUSED: Final = DeviceStanding.REFUSED
_RUNNING: Final = Status.RUNNING

_NO_GRANT: Final = Blocked(WaitCode.EXPOSURE, "No place is granted to it yet.")


class StartAdmission:
    """Gives leave by the state of a rollout, its admission, the freeze and the quarantine."""

    def __init__(self, fleet: Fleet, tracks: Mapping[str, ActiveRollout]) -> None:
        self._fleet = fleet
        self._tracks = tracks
        self.freeze = Freeze(frozen=False)
        self.quarantine = Quarantine()
        self._bounded: tuple[ActiveRollout, ...] = ()  # open, with a bound on bytes

    def arrange(self, tracks: Collection[ActiveRollout]) -> None:
        """A rollout came or changed: whose bytes and places count for whom."""
        is_open = [track for track in tracks if track.state.status in OPEN]
        self._bounded = tuple(track for track in is_open if track.admission.flow.is_bounded)
        labels = frozenset(spec.label for track in is_open for spec in track.state.spec.budgets)
        for track in tracks:
            track.admission.budgets.beside = ()
        for track in is_open if labels else ():
            budgets = track.admission.budgets
            budgets.watch(labels, partial(self._in_trial, track))
            if budgets.specs:
                others = (other.admission.budgets for other in is_open)
                budgets.beside = tuple(other for other in others if other is not budgets)

    def admit(self, track: ActiveRollout, row: int, outcome: Outcome, now: float) -> bool:
        """May this device start now? True reserves its place; see ``Engine.admit``."""
        if outcome.release != track.state.spec.release:
            return False
        admission, fleet = track.admission, self._fleet
        if admission.holds(row):
            admission.take(row, fleet.labels(row), now)
            return True
        standing = track.ledger.standing(row)
        if standing is _TRIAL or standing is _HEALTHY:
            return True
        if starts_by_itself(fleet.protocol(row)):
            # It runs it by now: what no offer in the books accounts for is counted all the same.
            if standing not in HELD:
                admission.take(row, fleet.labels(row), now)
            return True
        if not track.gives(row, standing, fleet.running_id(row)):
            return False
        if self._is_refused(track, row, now):
            return False
        self._reserve(track, row, now)
        return True

    def grant(self, track: ActiveRollout, row: int, now: float) -> bool:
        """May it be offered what it starts by itself? Asked of those that have not begun.

        True reserves its place, as ``admit`` does.
        """
        admission = track.admission
        if admission.holds(row) or admission.is_put_off(row, now):
            return False
        if self._is_refused(track, row, now) or self._turn(track, row, now) is not None:
            return False
        self._count_bytes(track, row, now)
        self._reserve(track, row, now)
        return True

    def admit_all(self, track: ActiveRollout, rows: Rows, outcome: Outcome, now: float) -> Mask:
        """``admit`` for many rows, ascending, that announce the same start: the first get leave."""
        spec, ledger = track.state.spec, track.ledger
        admission = track.admission
        own = spec.windows or admission.budgets.counts or admission.reserved
        if own or self._by_themselves(rows):
            each = (self.admit(track, row, outcome, now) for row in rows.tolist())
            return np.fromiter(each, np.bool_, len(rows))
        if outcome.release != spec.release:
            return np.zeros(len(rows), np.bool_)
        standings = ledger.standings(rows)
        admitted: Mask = (standings == _TRIAL) | (standings == _HEALTHY)
        if track.admission.door(track.state, self.freeze, None, now) is not None:
            return admitted
        asking = ~admitted & ~ledger.held(rows)
        asking &= track.covered(rows, self._fleet.running_ids[rows])
        asking &= ~np.isin(rows, self.quarantined(track))
        free = max(0, allowed(track) - track.in_trial)
        room = track.admission.starts.room(now)
        began = np.flatnonzero(asking)[: free if room is None else min(free, room)]
        if len(began):
            track.admission.take_all(rows[began], now)
            track.moved(int(rows[began[0]]), now)  # the oldest: it is least likely a newcomer
            admitted[began] = True
        return admitted

    def refusal(self, track: ActiveRollout, row: int, now: float) -> Blocked | None:
        """Why the device may not start now. Changes nothing."""
        labels, admission = self._fleet.labels(row), track.admission
        shut = admission.door(track.state, self.freeze, labels, now)
        if shut is not None:
            return shut
        if self.quarantine.is_quarantined(track.state.spec.model, row):
            return self._quarantined(row)
        if admission.holds(row):
            return None
        return admission.no_place(labels, allowed(track), track.in_trial, now, track.muster.reason)

    def staging(self, track: ActiveRollout, row: int, now: float) -> Blocked | None:
        """Why a device that has not begun may not download now. None if it may. Changes nothing."""
        if not starts_by_itself(self._fleet.protocol(row)):
            return self._turn(track, row, now)
        reason = self.refusal(track, row, now)
        if reason is not None:
            return reason
        admission = track.admission
        if admission.granted_since(row) is None or admission.is_put_off(row, now):
            return self._turn(track, row, now) or _NO_GRANT
        return None

    def begin_download(self, offer: Offer, row: int, now: float) -> None:
        """The device is offered a release: its bytes leave the budgets of all open rollouts."""
        if offer.action != "install" or not self._bounded:
            return
        track = self._tracks.get(offer.rollout)
        if track is not None and track.ledger.standing(row) < _TRIAL:
            self._count_bytes(track, row, now)

    def _may_begin_download(self, track: ActiveRollout, row: int, now: float) -> bool:
        """``staging`` is None; the bytes of the download are used up then."""
        if self.staging(track, row, now) is not None:
            return False
        self._count_bytes(track, row, now)
        return True

    def _count_bytes(self, track: ActiveRollout, row: int, now: float) -> None:
        if self._bounded:
            downloads.count_bytes(track, self._fleet, row, now, self._bounded)

    def _by_themselves(self, rows: Rows) -> bool:
        """True when one of them starts what it is offered without asking again."""
        return any(starts_by_itself(number) for number in set(self._fleet.protocols[rows].tolist()))

    def _is_refused(self, track: ActiveRollout, row: int, now: float) -> bool:
        refused = self.refusal(track, row, now)
        if refused is None:
            return False
        if refused.code is WaitCode.WINDOW:
            track.admission.moved(now)  # its patience does not run meanwhile
        return True

    def _reserve(self, track: ActiveRollout, row: int, now: float) -> None:
        track.admission.take(row, self._fleet.labels(row), now)
        track.moved(row, now)

    def _turn(self, track: ActiveRollout, row: int, now: float) -> Blocked | None:
        if self.freeze.frozen:
            return track.admission.door(track.state, self.freeze, None, now)
        if self.quarantine.is_quarantined(track.state.spec.model, row):
            return self._quarantined(row)
        if track.state.status is not _RUNNING:
            return None
        return downloads.blocked(track, self._fleet, row, now)

    def _quarantined(self, row: int) -> Blocked:
        return Blocked(WaitCode.QUARANTINED, quarantine_text(self._fleet.name(row)))

    def all_may_stage(self, track: ActiveRollout, rows: Rows, now: float) -> Mask:
        """``staging`` is None, for many rows; the bytes of their downloads are used up."""
        if self._bounded or self._by_themselves(rows):
            each = (self._may_begin_download(track, row, now) for row in rows.tolist())
            return np.fromiter(each, np.bool_, len(rows))
        if self.freeze.frozen:
            return np.zeros(len(rows), np.bool_)
        mask = ~np.isin(rows, self.quarantined(track))
        if track.state.status is _RUNNING:
            mask[mask] = downloads.all_may_stage(track, self._fleet, rows[mask])
        return mask

    def shut_to_all(self, track: ActiveRollout, waiting: RowSelection, now: float) -> bool:
        """True while a door is closed to every one of ``waiting``, be it by its own time zone."""
        admission = track.admission
        if admission.door(track.state, self.freeze, None, now) is not None:
            return True
        if not admission.hours.by_device or not len(waiting):
            return False
        numbers = np.flatnonzero(np.bincount(self._fleet.label_ids[waiting.all()])).tolist()
        zones = {self._fleet.label_set(number).get(LABEL) for number in numbers}
        return not any(admission.hours.open(zone, now) for zone in zones)

    def quarantined(self, track: ActiveRollout) -> Rows:
        """Rows, ascending, that get no leave for this model until an operator clears them."""
        return self.quarantine.rows(track.state.spec.model)

    def _in_trial(self, track: ActiveRollout) -> Mapping[int, Mapping[str, str]]:
        """Who holds a place, with the labels of now."""
        trial = track.ledger.rows(_TRIAL).tolist()
        rows = {*trial, *track.admission.reserved_rows}
        return {row: self._fleet.labels(row) for row in rows}

    def patience_from(self, track: ActiveRollout, now: float) -> float:
        """Since when stragglers of the open wave have had their chance to begin."""
        return track.admission.patience_from(track.state, self.freeze, now)


def allowed(track: ActiveRollout) -> int:
    """How many devices may be in trial at once."""
    spec, counts, muster = track.state.spec, track.ledger.counts, track.muster
    healthy = counts[_HEALTHY]
    bad = counts[_FAILED] + counts[_REFUSED]
    suspect = muster.suspect
    if bad and not suspect:
        suspect = exposure.suspicious(spec.gate, bad=bad, size=bad + healthy)
    if not suspect:
        return exposure.trusted(spec.exposure, healthy)
    return exposure.allowed(
        spec.exposure,
        healthy=healthy,
        in_trial=track.in_trial,
        suspect=True,
        missing=muster.missing,
    )
