"""Reports of what an object waits for, rendered by CLI, page and logs."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.wire import Wire


class WaitCode(StrEnum):
    """Stable codes of waits. docs/reference/why.md has a heading for each."""

    START = "start"  # planned; an operator must start it
    SAMPLE = "sample"  # too few devices have reported an outcome
    SOAK = "soak"  # the gate passes; the soak time of the wave is not over
    STRAGGLERS = "stragglers"  # online devices that have not finished
    OFFLINE = "offline"  # devices in the wave that do not check in
    INCONCLUSIVE = "inconclusive"  # the evidence allows no verdict; an operator must decide
    PAUSED = "paused"
    REVERTING = "reverting"  # devices still run the release that is rolled back
    HALTED = "halted"
    DONE = "done"  # the rollout waits for nothing
    NO_ROLLOUT = "no_rollout"  # no rollout selects this device
    NEXT_WAVE = "next_wave"  # the device's position is beyond the cut of the open wave
    FETCHING = "fetching"
    TRIAL = "trial"
    NOT_OFFERED = "not_offered"  # the device failed, refused or reverted this release before
    NO_PREVIOUS_RELEASE = "no_previous_release"  # the rollback has no release to return to
    QUARANTINED = "quarantined"  # the device rolled back two releases; an operator must clear it
    INELIGIBLE = "ineligible"  # the release has no variant that fits the device
    NOT_FOLLOWED = "not_followed"  # the device enrolled after the end of a rollout without `follow`
    EXPOSURE = "exposure"  # the exposure limit is reached: as many devices are in trial as allowed
    PACE = "pace"  # the rate limit of starts or bytes is reached
    BUDGET = "budget"  # the budget of the device's label is used up
    WINDOW = "window"  # no maintenance window is open
    SCHEDULED = "scheduled"  # the rollout starts automatically at the set time
    APPROVAL = "approval"  # people must approve first
    FREEZE = "freeze"  # the whole fleet is frozen
    CHECK_IN = "check_in"  # the device has not checked in since


NEEDS_A_PERSON: Final[Mapping[WaitCode, bool]] = MappingProxyType(
    {
        WaitCode.START: True,
        WaitCode.SAMPLE: False,
        WaitCode.SOAK: False,
        WaitCode.STRAGGLERS: False,
        WaitCode.OFFLINE: False,
        WaitCode.INCONCLUSIVE: True,
        WaitCode.PAUSED: True,
        WaitCode.REVERTING: False,
        WaitCode.HALTED: True,
        WaitCode.DONE: False,
        WaitCode.NO_ROLLOUT: False,
        WaitCode.NEXT_WAVE: False,
        WaitCode.FETCHING: False,
        WaitCode.TRIAL: False,
        WaitCode.NOT_OFFERED: False,
        WaitCode.NO_PREVIOUS_RELEASE: True,
        WaitCode.QUARANTINED: True,
        WaitCode.INELIGIBLE: False,
        WaitCode.NOT_FOLLOWED: False,
        WaitCode.EXPOSURE: False,
        WaitCode.PACE: False,
        WaitCode.BUDGET: False,
        WaitCode.WINDOW: False,
        WaitCode.SCHEDULED: False,
        WaitCode.APPROVAL: True,
        WaitCode.FREEZE: True,
        WaitCode.CHECK_IN: False,
    }
)
"""Whether a wait lasts until a person acts. Doctor, page, metrics and reference read it."""


class Wait(Wire, frozen=True, kw_only=True):
    """One reason to wait."""

    code: WaitCode
    text: str  # one sentence for people
    since: float | None = None
    until: float | None = None  # when the wait ends without a person, if known
    devices: int | None = None
    first: tuple[str, ...] = ()  # the names of the first few devices


class WaitReport(Wire, frozen=True, kw_only=True):
    """All waits of one object.

    ``about`` is ``rollout/<id>``, ``device/<name>`` or ``release/<model>/<release>``.
    """

    about: str
    at: float
    line: str  # a summary in one sentence
    waits: tuple[Wait, ...]

    @property
    def for_a_person(self) -> tuple[Wait, ...]:
        """The waits that last until a person acts, in report order."""
        return tuple(wait for wait in self.waits if NEEDS_A_PERSON[wait.code])
