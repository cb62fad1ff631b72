"""The life of a rollout as a table: where it stands x what happened -> where it stands then.

The table is total: what is missing in a row is refused. ``mermaid()`` draws it for the docs.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.rollout import Status
from edgefleet.rollout.lifecycle.state import OPEN


class RolloutSignal(StrEnum):
    """What can happen to a rollout."""

    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    ADVANCED = "advanced"  # the next wave is open, by the gate or by hand
    FINISHED = "finished"  # the last wave passed, by the gate or by hand
    HALTED = "halted"
    REVERT_REQUESTED = "revert requested"  # an operator wants it taken back
    GATE_FAILED = "gate failed"
    REFUSED_BY_DEVICES = "refused by devices"  # it failed before any device activated it
    APPROVED = "approved"  # one more person agrees
    WAIT_REASON_CHANGED = "wait reason changed"  # the gate's reason to wait changed
    REVERT_COMPLETED = "revert completed"  # no device that can be reached runs it any more


_P, _R, _Z, _H = Status.PLANNED, Status.RUNNING, Status.PAUSED, Status.HALTED
_B, _C = Status.REVERTING, Status.COMPLETED

_ROWS: Final[Mapping[Status, Mapping[RolloutSignal, Status]]] = {
    Status.PLANNED: {
        RolloutSignal.STARTED: _R,
        RolloutSignal.HALTED: _H,
        RolloutSignal.APPROVED: Status.PLANNED,
    },
    Status.RUNNING: {
        RolloutSignal.PAUSED: _Z,
        RolloutSignal.ADVANCED: _R,
        RolloutSignal.FINISHED: _C,
        RolloutSignal.HALTED: _H,
        RolloutSignal.REVERT_REQUESTED: _B,
        RolloutSignal.GATE_FAILED: _B,
        RolloutSignal.REFUSED_BY_DEVICES: Status.REFUSED,
        RolloutSignal.APPROVED: _R,
        RolloutSignal.WAIT_REASON_CHANGED: _R,
    },
    Status.PAUSED: {
        RolloutSignal.RESUMED: _R,
        RolloutSignal.HALTED: _H,
        RolloutSignal.REVERT_REQUESTED: _B,
        RolloutSignal.GATE_FAILED: _B,
        RolloutSignal.REFUSED_BY_DEVICES: Status.REFUSED,
        RolloutSignal.APPROVED: _Z,
        RolloutSignal.WAIT_REASON_CHANGED: _Z,
    },
    Status.HALTED: {
        RolloutSignal.RESUMED: _R,
        RolloutSignal.REVERT_REQUESTED: _B,
        RolloutSignal.APPROVED: _H,
    },
    Status.REVERTING: {RolloutSignal.REVERT_COMPLETED: Status.REVERTED},
    Status.COMPLETED: {RolloutSignal.REVERT_REQUESTED: _B},
    Status.REVERTED: {},
    Status.REFUSED: {},
}

TABLE: Final[Mapping[tuple[Status, RolloutSignal], Status | None]] = MappingProxyType(
    {(status, signal): _ROWS[status].get(signal) for status in Status for signal in RolloutSignal}
)


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.PLANNED.value}"]
    lines += [
        f"    {status.value} --> {then.value}: {signal.value}"
        for (status, signal), then in TABLE.items()
        if then is not None
    ]
    lines += [f"    {status.value} --> [*]" for status in Status if status not in OPEN]
    return "\n".join(lines) + "\n"
