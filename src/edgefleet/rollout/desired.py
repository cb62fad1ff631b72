"""The desired state of a device: a function of the rollouts and of the reports of the device.

Each model is decided apart. The newest rollout of the model that covers the device decides. A
rollout that was rolled back covers no device, so devices return to their previous release. A
release that a device failed or refused, or that the gate took back from it, is offered to that
device again only by a newer rollout whose plan gives the release a second chance.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Offer
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.release_sets import ReleaseSet
from edgefleet.rollout.lifecycle.state import WITHDRAWN
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.rollout_index import RolloutIndex

_Key = TypeVar("_Key", str, int)

_GIVING = frozenset({Status.RUNNING, Status.PAUSED, Status.HALTED, Status.COMPLETED})

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_COMPLETED: Final = Status.COMPLETED
_HEALTHY: Final = DeviceStanding.HEALTHY
_TRIAL: Final = DeviceStanding.TRIAL

_SETTLED_KEPT: Final = 100_000  # answers by labels, kit and releases

NO_RELEASE: Final = Blocked(WaitCode.NO_ROLLOUT, "No rollout covers this device.")
_RUNS_IT: Final = Blocked(WaitCode.DONE, "The device runs the release that its rollout gives it.")
SET_UNKNOWN: Final = Blocked(
    WaitCode.UNKNOWN_SET,
    "The hub's table of release sets is full, so the hub does not know what this device runs.",
)


class Desired:
    """The rollouts, arranged for the question. Call ``arrange`` after each change of one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._models = fleet.models
        self.models: tuple[str, ...] = ()  # with a rollout that gives a release, sorted
        # Each index has its rollouts newest first.
        self._giving: dict[str, RolloutIndex] = {}  # by model
        self._withdrawn: dict[int, RolloutIndex] = {}  # by release number
        self._of_release: dict[int, RolloutIndex] = {}
        self._settled: dict[tuple[int, int, int], tuple[Ledger, ...] | None] = {}

    def arrange(self, rollouts: Iterable[ActiveRollout]) -> None:
        newest_first = sorted(
            rollouts, key=lambda active: (active.state.created_at, active.state.id), reverse=True
        )
        giving = [active for active in newest_first if active.state.status in _GIVING]
        withdrawn = [
            active
            for active in newest_first
            if active.state.status in WITHDRAWN or active.state.taken_back
        ]
        self._giving = self._indexed(self._giving, giving, _model_of)
        self._withdrawn = self._indexed(self._withdrawn, withdrawn, _number_of)
        self._of_release = self._indexed(self._of_release, newest_first, _number_of)
        self.models = tuple(sorted(self._giving))
        self._settled.clear()

    def _indexed(
        self,
        before: Mapping[_Key, RolloutIndex],
        rollouts: Iterable[ActiveRollout],
        key: Callable[[ActiveRollout], _Key],
    ) -> dict[_Key, RolloutIndex]:
        """An index of the rollouts with each key: the one before, unless they changed."""
        by_key: dict[_Key, list[ActiveRollout]] = {}
        for active in rollouts:
            by_key.setdefault(key(active), []).append(active)
        found: dict[_Key, RolloutIndex] = {}
        for one, mine in by_key.items():
            known = before.get(one)
            if known is None or not known.is_of(mine):
                known = RolloutIndex(self._fleet, mine)
            found[one] = known
        return found

    def _given_to(self, row: int, model: str) -> tuple[ActiveRollout, ...]:
        """The rollouts that may give the device a release of the model, newest first."""
        index = self._giving.get(model)
        return () if index is None else index.of(row)

    def rollout(self, row: int, model: str) -> ActiveRollout | None:
        """The rollout whose release of the model the device should run. None if there is none."""
        found = self._wanted(row, model, self._fleet.set_of(row))
        return None if found is None else found[0]

    def newest(self, model: str) -> ActiveRollout | None:
        """The newest rollout that gives a release of the model. None without one."""
        index = self._giving.get(model)
        return None if index is None else index.rollouts[0]

    def proven(self, row: int, model: str) -> ActiveRollout | None:
        """Like ``rollout``, but only for a release that the rollout or the device confirmed.

        None if there is no such rollout.
        """
        running = self._fleet.numbers(row)
        for active in self._given_to(row, model):
            proved = active.state.status is _COMPLETED or active.ledger.standing(row) is _HEALTHY
            if proved and active.covers(row, running) and not self.is_excluded(row, active):
                return active
        return None

    def next_step(self, row: int, model: str) -> ActiveRollout | Offer | Blocked:
        """The next step of the device with the model, before admission control.

        An ActiveRollout is one that the device has not begun: admission control decides whether the
        device may download its release. An Offer goes out as it is: the device has begun, or it
        returns to a proven release before it tries a new one, because its own was rolled back.
        """
        running = self._fleet.set_of(row)
        if not running.is_known:
            return SET_UNKNOWN
        found = self._wanted(row, model, running)
        if found is None:
            return NO_RELEASE
        want, standing = found
        if want.release.number in running.numbers:
            return _RUNS_IT
        withdrawn_by = self.withdrawn_by(row, model) if self._withdrawn else None
        proven = None if withdrawn_by is None else self.proven(row, model)
        if withdrawn_by is None or proven is None or proven.release.number in running.numbers:
            return want if standing < _TRIAL else want.offer
        return replace(proven.offer, rollout=withdrawn_by.state.id, action="revert")

    def is_settled(self, row: int) -> bool:
        """True if ``next_step`` is sure to have no step for any model. False if it must be asked.

        Known by the labels, the kit and the releases of a device, however many rollouts there are.
        """
        fleet = self._fleet
        if row in fleet.moves:
            return False
        key = fleet.traits(row)
        if key not in self._settled:
            if len(self._settled) >= _SETTLED_KEPT:
                self._settled.clear()
            self._settled[key] = self._settling(*key)
        ledgers = self._settled[key]
        if ledgers is None:
            return False
        return all(ledger.standing(row) is _HEALTHY for ledger in ledgers)

    def _settling(self, label_id: int, kit_id: int, set_number: int) -> tuple[Ledger, ...] | None:
        """Why devices with these numbers that have not moved need nothing. None if they may.

        They run the release of every rollout that selects them, or of the newest one. Then they
        need nothing while they are healthy in its ledger, which is in the result.
        """
        running = self._fleet.models.sets[set_number]
        ledgers: list[Ledger] = []
        for index in self._giving.values():
            mine = [
                active
                for active in index.rollouts
                if active.taken or (active.scope.labels[label_id] and active.scope.kits[kit_id])
            ]
            if all(active.release.number in running.numbers for active in mine):
                continue
            newest = mine[0]
            alone = len(self.of_release(newest.release.number)) == 1  # no other one excludes it
            if newest.taken or not alone or newest.release.number not in running.numbers:
                return None
            ledgers.append(newest.ledger)
        return tuple(ledgers)

    def withdrawn_by(self, row: int, model: str) -> ActiveRollout | None:
        """The rollout that rolls back the release of the model on the device. None without one."""
        number = self._fleet.set_of(row).by_model.get(model)
        index = None if number is None else self._withdrawn.get(number)
        for active in () if index is None else index.of(row):
            if active.takes_back(row):
                return active
        return None

    def numbers(self, rows: Rows, model: str) -> npt.NDArray[np.uint32]:
        """The release number of ``rollout`` for each of ``rows``. 0 if there is none."""
        answer = np.zeros(len(rows), np.uint32)
        for active, given in self.rollouts(rows, model):
            answer[given] = active.release.number
        return answer

    def rollouts(
        self, rows: Rows, model: str
    ) -> Iterator[tuple[ActiveRollout, npt.NDArray[np.int64]]]:
        """``rollout`` for many rows: each rollout with its indices into ``rows``."""
        index = self._giving.get(model)
        if index is None:
            return
        asked = np.arange(len(rows))
        if self._may_have_another():
            asked = asked[~self._fleet.all_have_only_another(rows, model)]
        found: dict[str, list[npt.NDArray[np.intp]]] = {}
        for rollouts, places in index.parts(rows[asked]):
            undecided = asked[places]
            for active in rollouts:
                if not len(undecided):
                    break
                left = rows[undecided]
                given = active.covered(left, self._fleet) & ~self.excluded(left, active)
                if given.any():
                    found.setdefault(active.state.id, []).append(undecided[given])
                    undecided = undecided[~given]
        for active in index.rollouts:
            if parts := found.get(active.state.id):
                yield active, parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))

    def changes(
        self, rows: Rows, model: str
    ) -> Iterator[tuple[ActiveRollout, npt.NDArray[np.int64]]]:
        """``rollouts``, without the devices that run the release already."""
        index = self._giving.get(model)
        giving = () if index is None else index.rollouts
        places = np.arange(len(rows))
        if len(giving) == 1:  # most devices run the release of the only rollout: ask no more
            places = np.flatnonzero(~self._models.all_run(rows, giving[0].release.number))
        if not len(places):
            return
        for active, given in self.rollouts(rows[places], model):
            other = places[given]
            if len(giving) > 1:
                other = other[~self._models.all_run(rows[other], active.release.number)]
            if len(other):
                yield active, other

    def withdraws_any(self, rows: Rows) -> bool:
        """True if a rollout rolls back a release that one of the ascending ``rows`` runs."""
        return any(self._models.all_run(rows, number).any() for number in self._withdrawn)

    def excluded(self, rows: Rows, active: ActiveRollout) -> Mask:
        """For each row: True if any rollout excludes the device from the release of ``active``."""
        mask = np.zeros(len(rows), np.bool_)
        for other in self.of_release(active.release.number):
            mask |= other.all_excluded(rows, active)
        return mask

    def of_release(self, number: int) -> tuple[ActiveRollout, ...]:
        """All rollouts of a release, newest first."""
        index = self._of_release.get(number)
        return () if index is None else index.rollouts

    def _wanted(
        self, row: int, model: str, running: ReleaseSet
    ) -> tuple[ActiveRollout, DeviceStanding] | None:
        """The newest rollout of the model that covers the device, and the device's standing."""
        if self._may_have_another() and self._fleet.has_only_another(row, model):
            return None
        for active in self._given_to(row, model):
            standing = active.ledger.standing(row)
            begun = standing is _TRIAL or standing is _HEALTHY
            begun = begun and not active.takes_back_part(row)
            if (begun or active.gives(row, standing, running.numbers)) and not self.is_excluded(
                row, active
            ):
                return active, standing
        return None

    def _may_have_another(self) -> bool:
        """True if a device may have another model only, which must not be replaced."""
        return len(self.models) > 1 and self._fleet.has_older_agents

    def is_excluded(self, row: int, active: ActiveRollout) -> bool:
        """True if another rollout of the same release excludes the device.

        Devices that ``active`` excludes are not covered by ``active`` in the first place.
        """
        index = self._of_release.get(active.release.number)
        if index is None or len(index.rollouts) == 1:
            return False
        return any(other.excludes(row, active) for other in index.of(row))


def _model_of(active: ActiveRollout) -> str:
    return active.model


def _number_of(active: ActiveRollout) -> int:
    return active.release.number
