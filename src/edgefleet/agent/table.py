"""The agent's stages and the signals that move it from one to the next.

``MOVES`` is the whole life of an attempt. A signal in a stage that has no row for it is a defect of
the core and raises, so a forgotten case cannot pass for a decision. ``mermaid`` draws the table.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet.base.errors import InternalError
from edgefleet.protocol.device import Phase


class Stage(StrEnum):
    """Where an attempt stands. ``PHASES`` says what the hub is told."""

    IDLE = "idle"
    MANIFEST = "manifest"  # fetching what the release is
    FETCHING = "fetching"  # its golden set and its model, into the idle slot
    PROVING = "proving"  # the golden set runs on this device
    ANNOUNCING = "announcing"  # it asks the hub for leave to start, and waits for it
    ACTIVATING = "activating"  # the serving process loads it and swaps
    WATCHING = "watching"  # it serves; healthy long enough, and it is confirmed
    REVERTING = "reverting"  # back to the confirmed slot


class Signal(StrEnum):
    """What an event means for the attempt, once the core has judged it."""

    OFFERED = "offered"  # an offer whose release is not on the device
    OPENED = "opened"  # the manifest is signed, ours, and fits
    FETCHED = "fetched"  # all bytes are there and are the right ones
    TRY = "try"  # proved: to be tried
    RETURN = "return"  # proved: to be gone back to, as the hub asks
    ADMITTED = "admitted"  # the hub has acknowledged the start
    ACTIVATED = "activated"
    SETTLED = "settled"  # the attempt is over and the right slot serves
    REFUSED = "refused"  # this device will not run it
    CANCELLED = "cancelled"  # the hub no longer wants it
    FAILED = "failed"  # the trial went wrong, or was called off
    DAMAGED = "damaged"  # the idle slot lost bytes while the power was off
    INTERRUPTED = "interrupted"  # power or process lost in the trial; it may try again


MOVES: Final[Mapping[tuple[Stage, Signal], Stage]] = MappingProxyType(
    {
        (Stage.IDLE, Signal.OFFERED): Stage.MANIFEST,
        (Stage.IDLE, Signal.TRY): Stage.ANNOUNCING,
        (Stage.IDLE, Signal.RETURN): Stage.ACTIVATING,
        (Stage.MANIFEST, Signal.OPENED): Stage.FETCHING,
        (Stage.MANIFEST, Signal.REFUSED): Stage.IDLE,
        (Stage.MANIFEST, Signal.CANCELLED): Stage.IDLE,
        (Stage.FETCHING, Signal.FETCHED): Stage.PROVING,
        (Stage.FETCHING, Signal.REFUSED): Stage.IDLE,
        (Stage.FETCHING, Signal.CANCELLED): Stage.IDLE,
        (Stage.PROVING, Signal.TRY): Stage.ANNOUNCING,
        (Stage.PROVING, Signal.RETURN): Stage.ACTIVATING,
        (Stage.PROVING, Signal.REFUSED): Stage.IDLE,
        (Stage.PROVING, Signal.CANCELLED): Stage.IDLE,
        (Stage.PROVING, Signal.DAMAGED): Stage.FETCHING,
        (Stage.ANNOUNCING, Signal.ADMITTED): Stage.ACTIVATING,
        (Stage.ANNOUNCING, Signal.CANCELLED): Stage.IDLE,
        (Stage.ANNOUNCING, Signal.DAMAGED): Stage.FETCHING,
        (Stage.ACTIVATING, Signal.ACTIVATED): Stage.WATCHING,
        (Stage.ACTIVATING, Signal.SETTLED): Stage.IDLE,
        (Stage.ACTIVATING, Signal.FAILED): Stage.REVERTING,
        (Stage.ACTIVATING, Signal.INTERRUPTED): Stage.ACTIVATING,
        (Stage.WATCHING, Signal.SETTLED): Stage.IDLE,
        (Stage.WATCHING, Signal.FAILED): Stage.REVERTING,
        (Stage.WATCHING, Signal.INTERRUPTED): Stage.ACTIVATING,
        (Stage.REVERTING, Signal.SETTLED): Stage.IDLE,
    }
)

PHASES: Final[Mapping[Stage, Phase]] = MappingProxyType(
    {
        Stage.IDLE: Phase.IDLE,
        Stage.MANIFEST: Phase.FETCHING,
        Stage.FETCHING: Phase.FETCHING,
        Stage.PROVING: Phase.PROVING,
        Stage.ANNOUNCING: Phase.STAGED,
        Stage.ACTIVATING: Phase.TRIAL,
        Stage.WATCHING: Phase.TRIAL,
        Stage.REVERTING: Phase.REVERTING,
    }
)

WORKING: Final = frozenset({Stage.MANIFEST, Stage.FETCHING, Stage.PROVING})
BEFORE_TRIAL: Final = WORKING | {Stage.ANNOUNCING}
IN_TRIAL: Final = frozenset({Stage.ACTIVATING, Stage.WATCHING})


def next_stage(stage: Stage, signal: Signal) -> Stage:
    """The stage after ``signal``. Raises InternalError for a pair that ``MOVES`` does not have."""
    try:
        return MOVES[stage, signal]
    except KeyError:
        raise InternalError("internal", f"The agent cannot be {signal} while {stage}.") from None


def mermaid() -> str:
    """The table as a Mermaid state diagram, as the reference pages show it."""
    lines = ["stateDiagram-v2", f"    [*] --> {Stage.IDLE}"]
    lines += [f"    {stage} --> {target}: {signal}" for (stage, signal), target in MOVES.items()]
    return "\n".join(lines) + "\n"
