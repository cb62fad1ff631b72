"""One trial at a time: a device starts no release while another of its models is in trial.

Two releases that begin together on a device could not be told apart by its latency and its errors.
A trial is bounded in time, so each device has its turn, in order of the age of the rollouts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np

from edgefleet.protocol.device import Phase
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.device_models import DeviceModels
from edgefleet.rollout.fleet.release_sets import ANY_MODEL

_TRIAL: Final = DeviceStanding.TRIAL
_BUSY: Final = frozenset({Phase.TRIAL, Phase.REVERTING})


Giver = Callable[[int, str], str | None]
"""The rollout that gives a device, by its row, a model. None if there is none."""


class Places(Protocol):
    """The reserved places of a rollout."""

    @property
    def reserved_rows(self) -> tuple[int, ...]: ...

    def has_place(self, row: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class Trials:
    """One rollout and its devices in trial."""

    rollout: str
    model: str
    release: str
    is_open: bool
    ledger: Ledger
    places: Places

    def have(self, row: int) -> bool:
        """True if the device is in trial, or has a place for its start."""
        return self.ledger.standing(row) is _TRIAL or self.places.has_place(row)

    def all_have(self, rows: Rows) -> Mask:
        """``have`` for each of ``rows``."""
        mask: Mask = self.ledger.standings(rows) == _TRIAL
        if reserved := self.places.reserved_rows:
            mask |= np.isin(rows, reserved)
        return mask

    def rows(self) -> Rows:
        """The rows for which ``have`` is true."""
        reserved = np.array(self.places.reserved_rows, np.int64)
        return np.concatenate([self.ledger.rows(_TRIAL), reserved])


class OtherTrial:
    """Blocks the start of a device of which another model is in trial or goes back.

    A device counts as in trial by its reports on another open rollout, or on the rollout that gives
    it the other model, by its reserved place there, or by the phase that it reports. A report on a
    rollout that ended and gives it nothing is out of date.
    """

    code: ClassVar = WaitCode.OTHER_TRIAL
    blocks_downloads: ClassVar = False

    def __init__(self, models: DeviceModels) -> None:
        self.is_active = False  # the rollouts are of one model
        self._fleet_models = models
        self._all: dict[str, Trials] = {}
        self._open: tuple[Trials, ...] = ()
        self._models: tuple[str, ...] = ()
        self._giver: Giver = lambda _row, _model: None

    def arrange(self, rollouts: Iterable[Trials], giver: Giver) -> None:
        """Set the rollouts. To be called when a rollout is added or changes."""
        self._all = {one.rollout: one for one in rollouts}
        self._open = tuple(one for one in self._all.values() if one.is_open)
        self._models = tuple(sorted({one.model for one in self._all.values()}))
        self._giver = giver
        self.is_active = len(self._models) > 1

    def blocks(self, rollout: str, model: str, row: int) -> bool:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self._other(model, row) is not None or self._busy(model, row) is not None

    def blocked_rows(self, rollout: str, model: str) -> Rows:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        found = [self._fleet_models.busy_elsewhere(model, _BUSY)]
        for one in self._all.values():
            if one.model != model:
                rows = one.rows()
                found.append(rows if one.is_open else rows[self._gives(one, rows)])
        return np.unique(np.concatenate(found))

    def blocks_all(self, rollout: str, model: str, rows: Rows) -> Mask:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        mask = self._fleet_models.all_busy_elsewhere(rows, model, _BUSY)
        for one in self._all.values():
            if one.model != model:
                having = one.all_have(rows)
                if not one.is_open and having.any():
                    having[having] = self._gives(one, rows[having])
                mask |= having
        return mask

    def text(self, rollout: str, row: int | None, name: str | None) -> str:  # noqa: ARG002
        """See ``DeviceConstraint``. The sentence names the other model, release and rollout."""
        if row is None:
            return "Another release is in trial on these devices; a device tries one at a time."
        model = self._all[rollout].model
        other, busy = self._other(model, row), self._busy(model, row)
        if other is None and busy is not None:
            other = self._all.get(self._giver(row, busy[0]) or "")
        if other is not None:
            phase = busy[1] if busy is not None and busy[0] == other.model else Phase.TRIAL
            return _text(other, phase)
        return "Another release is in trial on this device; a device tries one at a time."

    def _other(self, model: str, row: int) -> Trials | None:
        """The rollout of another model in which the device is in trial. None without one."""
        for one in self._open:
            if one.model != model and one.have(row):
                return one
        for other in self._models:
            giver = None if other == model else self._all.get(self._giver(row, other) or "")
            if giver is not None and giver.have(row):
                return giver
        return None

    def _busy(self, model: str, row: int) -> tuple[str, Phase] | None:
        """Another model that the device reports in trial or going back. None without one."""
        for named, phase in self._fleet_models.activity(row):
            if phase in _BUSY and named not in (model, ANY_MODEL):
                return named, phase
        return None

    def _gives(self, one: Trials, rows: Rows) -> Mask:
        """For each of ``rows``: True if the rollout gives it the release."""
        given = (self._giver(row, one.model) == one.rollout for row in rows.tolist())
        return np.fromiter(given, np.bool_, len(rows))


def _text(other: Trials, phase: Phase) -> str:
    does = "is in trial" if phase is Phase.TRIAL else "is being rolled back"
    return (
        f"Release {other.release} of {other.model} (rollout {other.rollout}) {does} on this "
        "device; a device tries one release at a time."
    )
