"""The transition table of a rollout: status x signal -> next status.

The table is total: a signal that is missing in a row is refused. ``mermaid()`` draws the table for
the docs.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.rollout import Status, Verb
from edgefleet.rollout.lifecycle.state import OPEN


class RolloutSignal(StrEnum):
    """An event in the life of a rollout."""

    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    ADVANCED = "advanced"  # the next wave is open, by the gate or by hand
    EXTENDED = "extended"  # a wave takes a few more devices, to find out
    FINISHED = "finished"  # the last wave passed, by the gate or by hand
    SITES_COMPARED = "sites compared"  # devices of a site went dark at one time
    BETS_STORED = "bets stored"  # the bets of canary against control, for a restart of the hub
    BAKE_JUDGED = "bake judged"  # a window of the bake is closed, or an alert changed
    BAKE_ENDED = "bake ended"  # its time is over, by hand, or by the next rollout
    HALTED = "halted"
    REVERT_REQUESTED = "revert requested"  # an operator reverts the rollout
    GATE_FAILED = "gate failed"
    PART_FAILED = "part failed"  # the gate failed among the devices that began last
    CLASS_FAILED = "class failed"  # the gate failed among devices with one value of a label
    REFUSED_BY_DEVICES = (
        "refused by devices"  # the gate failed before any device activated the release
    )
    APPROVED = "approved"  # one more person approves
    WAIT_REASON_CHANGED = "wait reason changed"  # the gate waits for another reason
    REVERT_COMPLETED = (
        "revert completed"  # no online device runs the release any more, or the time is up
    )


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
        RolloutSignal.EXTENDED: _R,
        RolloutSignal.FINISHED: _C,
        RolloutSignal.HALTED: _H,
        RolloutSignal.REVERT_REQUESTED: _B,
        RolloutSignal.GATE_FAILED: _B,
        RolloutSignal.PART_FAILED: _H,
        RolloutSignal.CLASS_FAILED: _R,
        RolloutSignal.SITES_COMPARED: _R,
        RolloutSignal.REFUSED_BY_DEVICES: Status.REFUSED,
        RolloutSignal.APPROVED: _R,
        RolloutSignal.WAIT_REASON_CHANGED: _R,
        RolloutSignal.BETS_STORED: _R,
    },
    Status.PAUSED: {
        RolloutSignal.RESUMED: _R,
        RolloutSignal.HALTED: _H,
        RolloutSignal.REVERT_REQUESTED: _B,
        RolloutSignal.GATE_FAILED: _B,
        RolloutSignal.PART_FAILED: _H,
        RolloutSignal.CLASS_FAILED: _Z,
        RolloutSignal.SITES_COMPARED: _Z,
        RolloutSignal.REFUSED_BY_DEVICES: Status.REFUSED,
        RolloutSignal.APPROVED: _Z,
        RolloutSignal.WAIT_REASON_CHANGED: _Z,
        RolloutSignal.BETS_STORED: _Z,
    },
    Status.HALTED: {
        RolloutSignal.RESUMED: _R,
        RolloutSignal.REVERT_REQUESTED: _B,
        RolloutSignal.APPROVED: _H,
    },
    Status.REVERTING: {RolloutSignal.REVERT_COMPLETED: Status.REVERTED},
    Status.COMPLETED: {
        RolloutSignal.BETS_STORED: _C,
        RolloutSignal.BAKE_JUDGED: _C,
        RolloutSignal.BAKE_ENDED: _C,
        RolloutSignal.REVERT_REQUESTED: _B,
        RolloutSignal.GATE_FAILED: _B,
        RolloutSignal.PART_FAILED: _H,
        RolloutSignal.CLASS_FAILED: _C,
        RolloutSignal.SITES_COMPARED: _C,
    },
    Status.REVERTED: {},
    Status.REFUSED: {},
}

TABLE: Final[Mapping[tuple[Status, RolloutSignal], Status | None]] = MappingProxyType(
    {(status, signal): _ROWS[status].get(signal) for status in Status for signal in RolloutSignal}
)


VERB_SIGNALS: Final[Mapping[Verb, tuple[RolloutSignal, ...]]] = MappingProxyType(
    {
        Verb.START: (RolloutSignal.STARTED,),
        Verb.PAUSE: (RolloutSignal.PAUSED,),
        Verb.RESUME: (RolloutSignal.RESUMED,),
        Verb.ADVANCE: (RolloutSignal.ADVANCED, RolloutSignal.FINISHED),
        Verb.HALT: (RolloutSignal.HALTED,),
        Verb.REVERT: (RolloutSignal.REVERT_REQUESTED,),
    }
)
"""The signals of each verb of an operator."""


def verbs_now(status: Status) -> tuple[Verb, ...]:
    """The verbs that the table allows in ``status``, in the order of ``Verb``."""
    return tuple(
        verb
        for verb, signals in VERB_SIGNALS.items()
        if any(TABLE[status, signal] is not None for signal in signals)
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
