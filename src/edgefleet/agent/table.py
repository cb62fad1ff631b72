"""The stages of an attempt at one model, and the signals that change them.

``MOVES`` has all transitions. A signal without a row for the current stage is a defect of the core
and raises InternalError. ``mermaid`` draws the table.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet.base.errors import InternalError
from edgefleet.protocol.device import Phase


class Stage(StrEnum):
    """The stage of an attempt. ``PHASES`` maps stages to the reported phases."""

    IDLE = "idle"
    QUEUED = "queued"  # waiting for the link or for room on the disk
    MANIFEST = "manifest"  # downloading the manifest
    FETCHING = "fetching"  # downloading golden set and model into the idle slot
    PROVING = "proving"  # the golden set runs on this device
    STAGED = "staged"  # proved; waiting until no other model is in trial
    SHADOWING = "shadowing"  # answers a share of the live requests, for no caller
    ANNOUNCING = "announcing"  # waiting for the hub's admission
    ACTIVATING = "activating"  # the serving process loads and swaps in the release
    WATCHING = "watching"  # the release is active, and is confirmed once healthy long enough
    REVERTING = "reverting"  # activating the confirmed slot again

    __hash__ = str.__hash__  # several times faster than Enum's, and each step looks stages up


class Signal(StrEnum):
    """The meaning of an event for the attempt."""

    OFFERED = "offered"  # the offered release is not on the device
    LINKED = "linked"  # the link is free for this attempt
    OPENED = "opened"  # the manifest is verified and has a variant for this device
    FETCHED = "fetched"  # all files are complete and have their digests
    PAUSED = "paused"  # the link, the disk or the trial goes to another model first
    TRY = "try"  # proved, for a trial
    SHADOW = "shadow"  # no other model is in trial: begin the shadow phase
    SHADOWED = "shadowed"  # the shadow phase is over, and found nothing against the release
    ASKED = "asked"  # no other model is in trial: ask the hub for admission
    RETURN = "return"  # proved, for a revert by the hub
    ADMITTED = "admitted"  # the hub admitted the start
    ACTIVATED = "activated"
    SETTLED = "settled"  # the attempt ended and the right slot is active
    REFUSED = "refused"  # the device refuses the release
    CANCELLED = "cancelled"  # the hub no longer offers the release
    FAILED = "failed"  # the trial failed or was cancelled
    DAMAGED = "damaged"  # the idle slot is damaged after a power loss
    INTERRUPTED = "interrupted"  # power or process lost in the trial, which may be repeated

    __hash__ = str.__hash__


MOVES: Final[Mapping[tuple[Stage, Signal], Stage]] = MappingProxyType(
    {
        (Stage.IDLE, Signal.OFFERED): Stage.QUEUED,
        (Stage.IDLE, Signal.TRY): Stage.STAGED,
        (Stage.IDLE, Signal.RETURN): Stage.ACTIVATING,
        (Stage.QUEUED, Signal.LINKED): Stage.MANIFEST,
        (Stage.QUEUED, Signal.REFUSED): Stage.IDLE,
        (Stage.QUEUED, Signal.CANCELLED): Stage.IDLE,
        (Stage.MANIFEST, Signal.OPENED): Stage.FETCHING,
        (Stage.MANIFEST, Signal.PAUSED): Stage.QUEUED,
        (Stage.MANIFEST, Signal.REFUSED): Stage.IDLE,
        (Stage.MANIFEST, Signal.CANCELLED): Stage.IDLE,
        (Stage.FETCHING, Signal.FETCHED): Stage.PROVING,
        (Stage.FETCHING, Signal.PAUSED): Stage.QUEUED,
        (Stage.FETCHING, Signal.REFUSED): Stage.IDLE,
        (Stage.FETCHING, Signal.CANCELLED): Stage.IDLE,
        (Stage.PROVING, Signal.TRY): Stage.STAGED,
        (Stage.PROVING, Signal.RETURN): Stage.ACTIVATING,
        (Stage.PROVING, Signal.REFUSED): Stage.IDLE,
        (Stage.PROVING, Signal.CANCELLED): Stage.IDLE,
        (Stage.PROVING, Signal.DAMAGED): Stage.FETCHING,
        (Stage.STAGED, Signal.SHADOW): Stage.SHADOWING,
        (Stage.STAGED, Signal.ASKED): Stage.ANNOUNCING,
        (Stage.STAGED, Signal.CANCELLED): Stage.IDLE,
        (Stage.STAGED, Signal.DAMAGED): Stage.FETCHING,
        (Stage.SHADOWING, Signal.SHADOWED): Stage.STAGED,
        (Stage.SHADOWING, Signal.PAUSED): Stage.STAGED,
        (Stage.SHADOWING, Signal.REFUSED): Stage.IDLE,
        (Stage.SHADOWING, Signal.CANCELLED): Stage.IDLE,
        (Stage.SHADOWING, Signal.DAMAGED): Stage.FETCHING,
        (Stage.ANNOUNCING, Signal.ADMITTED): Stage.ACTIVATING,
        (Stage.ANNOUNCING, Signal.PAUSED): Stage.STAGED,
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
        Stage.QUEUED: Phase.FETCHING,
        Stage.MANIFEST: Phase.FETCHING,
        Stage.FETCHING: Phase.FETCHING,
        Stage.PROVING: Phase.PROVING,
        Stage.STAGED: Phase.STAGED,
        Stage.SHADOWING: Phase.PROVING,
        Stage.ANNOUNCING: Phase.STAGED,
        Stage.ACTIVATING: Phase.TRIAL,
        Stage.WATCHING: Phase.TRIAL,
        Stage.REVERTING: Phase.REVERTING,
    }
)

WORKING: Final = frozenset({Stage.MANIFEST, Stage.FETCHING, Stage.PROVING})
BEFORE_TRIAL: Final = WORKING | {Stage.QUEUED, Stage.STAGED, Stage.SHADOWING, Stage.ANNOUNCING}
IN_TRIAL: Final = frozenset({Stage.ACTIVATING, Stage.WATCHING})


def next_stage(stage: Stage, signal: Signal) -> Stage:
    """The stage after ``signal``. Raises InternalError for a pair that is not in ``MOVES``."""
    try:
        return MOVES[stage, signal]
    except KeyError:
        raise InternalError(
            "internal", f"Signal {signal} is not allowed in stage {stage}."
        ) from None


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the reference pages."""
    lines = ["stateDiagram-v2", f"    [*] --> {Stage.IDLE}"]
    lines += [f"    {stage} --> {target}: {signal}" for (stage, signal), target in MOVES.items()]
    return "\n".join(lines) + "\n"
