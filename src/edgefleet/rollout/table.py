"""The life of a rollout as a table: where it stands x what happened -> where it stands then.

The table is total: what is missing in a row is refused. ``mermaid()`` draws it for the docs.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.rollout import Status
from edgefleet.rollout.state import OPEN


class Signal(StrEnum):
    """What can happen to a rollout."""

    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    ADVANCED = "advanced"  # the next wave is open, by the gate or by hand
    FINISHED = "finished"  # the last wave passed, by the gate or by hand
    HALTED = "halted"
    RECALLED = "recalled"  # an operator wants it taken back
    GATE_FAILED = "gate failed"
    GATE_REFUSED = "gate refused"  # it failed before any device activated it
    APPROVED = "approved"  # one more person agrees
    JUDGED = "judged"  # the gate's reason to wait changed
    RETURNED = "returned"  # no device that can be reached runs it any more


_P, _R, _Z, _H = Status.PLANNED, Status.RUNNING, Status.PAUSED, Status.HALTED
_B, _C = Status.REVERTING, Status.COMPLETED

_ROWS: Final[Mapping[Status, Mapping[Signal, Status]]] = {
    Status.PLANNED: {Signal.STARTED: _R, Signal.HALTED: _H, Signal.APPROVED: Status.PLANNED},
    Status.RUNNING: {
        Signal.PAUSED: _Z,
        Signal.ADVANCED: _R,
        Signal.FINISHED: _C,
        Signal.HALTED: _H,
        Signal.RECALLED: _B,
        Signal.GATE_FAILED: _B,
        Signal.GATE_REFUSED: Status.REFUSED,
        Signal.APPROVED: _R,
        Signal.JUDGED: _R,
    },
    Status.PAUSED: {
        Signal.RESUMED: _R,
        Signal.HALTED: _H,
        Signal.RECALLED: _B,
        Signal.GATE_FAILED: _B,
        Signal.GATE_REFUSED: Status.REFUSED,
        Signal.APPROVED: _Z,
        Signal.JUDGED: _Z,
    },
    Status.HALTED: {Signal.RESUMED: _R, Signal.RECALLED: _B, Signal.APPROVED: _H},
    Status.REVERTING: {Signal.RETURNED: Status.REVERTED},
    Status.COMPLETED: {Signal.RECALLED: _B},
    Status.REVERTED: {},
    Status.REFUSED: {},
}

TABLE: Final[Mapping[tuple[Status, Signal], Status | None]] = MappingProxyType(
    {(status, signal): _ROWS[status].get(signal) for status in Status for signal in Signal}
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
