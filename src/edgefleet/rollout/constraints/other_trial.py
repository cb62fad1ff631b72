"""One trial at a time: a device starts no release while another of its models is in trial.

Two releases that begin together on a device could not be told apart by its latency and its errors.
A trial is bounded in time, so each device has its turn, in order of the age of the rollouts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np

from edgefleet.protocol.device import Phase
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.device_models import DeviceModels
from edgefleet.rollout.fleet.release_sets import ANY_MODEL

_TRIAL: Final = DeviceStanding.TRIAL
_BUSY: Final = frozenset({Phase.TRIAL, Phase.REVERTING})


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

    def rows(self) -> Rows:
        """The rows for which ``have`` is true."""
        reserved = np.array(self.places.reserved_rows, np.int64)
        return np.concatenate([self.ledger.rows(_TRIAL), reserved])


class OtherTrial:
    """Blocks the start of a device of which another model is in trial or goes back.

    A device counts as in trial by its reports on the other rollout, by its reserved place there, or
    by the phase that it reports.
    """

    code: ClassVar = WaitCode.OTHER_TRIAL
    blocks_downloads: ClassVar = False

    def __init__(self, models: DeviceModels) -> None:
        self.is_active = False  # the rollouts are of one model
        self._models = models
        self._all: dict[str, Trials] = {}
        self._open: tuple[Trials, ...] = ()

    def arrange(self, rollouts: Iterable[Trials]) -> None:
        """Set the rollouts. To be called when a rollout is added or changes."""
        self._all = {one.rollout: one for one in rollouts}
        self.is_active = len({one.model for one in self._all.values()}) > 1
        self._open = tuple(one for one in self._all.values() if one.is_open)

    def blocks(self, rollout: str, model: str, row: int) -> bool:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return any(one.model != model and one.have(row) for one in self._open) or any(
            phase in _BUSY and named not in (model, ANY_MODEL)
            for named, phase in self._models.activity(row)
        )

    def blocked_rows(self, rollout: str, model: str) -> Rows:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        found = [one.rows() for one in self._open if one.model != model]
        return np.unique(np.concatenate([self._models.busy_elsewhere(model, _BUSY), *found]))

    def text(self, rollout: str, row: int | None, name: str | None) -> str:  # noqa: ARG002
        """See ``DeviceConstraint``. The sentence names the other model, release and rollout."""
        if row is None:
            return "Another release is in trial on these devices; a device tries one at a time."
        mine = self._all[rollout].model
        others = [one for one in self._open if one.model != mine]
        for one in others:
            if one.have(row):
                return _text(one)
        for model, phase in self._models.activity(row):
            if phase in _BUSY and model != mine:
                known = next((one for one in others if one.model == model), None)
                if known is not None:
                    return _text(known, phase)
                return (
                    f"Model {model} is in phase {phase} on this device; one model tries at a time."
                )
        return "Another release is in trial on this device; a device tries one at a time."


def _text(other: Trials, phase: Phase = Phase.TRIAL) -> str:
    does = "is in trial" if phase is Phase.TRIAL else "is being rolled back"
    return (
        f"Release {other.release} of {other.model} (rollout {other.rollout}) {does} on this "
        "device; a device tries one release at a time."
    )
