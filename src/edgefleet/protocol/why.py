"""Why something waits: the one object that CLI, page and logs render."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.wire import Wire


class WaitCode(StrEnum):
    """Stable codes. docs/reference/why.md has a heading for each."""

    START = "start"  # planned; somebody must start it
    SAMPLE = "sample"  # too few devices have said how it went
    SOAK = "soak"  # the gate passes; the wave must stand a while
    STRAGGLERS = "stragglers"  # reached devices that have not finished
    OFFLINE = "offline"  # devices in the wave that do not check in
    INCONCLUSIVE = "inconclusive"  # neither good nor bad enough: a person must look
    PAUSED = "paused"
    REVERTING = "reverting"  # devices that still have to go back
    HALTED = "halted"
    DONE = "done"  # nothing is waited for
    NO_ROLLOUT = "no_rollout"  # no rollout concerns this device
    NEXT_WAVE = "next_wave"  # its position lies beyond the open wave's cut
    FETCHING = "fetching"
    TRIAL = "trial"
    HELD = "held"  # it failed or refused this release: not offered again
    QUARANTINED = "quarantined"  # it rolled back two releases: an operator must clear it
    INELIGIBLE = "ineligible"  # the release does not fit it
    NOT_FOLLOWED = "not_followed"  # it enrolled after the rollout ended, which takes no newcomers
    EXPOSURE = "exposure"  # as many are in trial as the evidence so far allows
    PACE = "pace"  # enough began in the last minute, or enough bytes are on their way
    BUDGET = "budget"  # as many with the same label are in trial as the plan allows
    WINDOW = "window"  # no maintenance window is open
    SCHEDULED = "scheduled"  # it starts by itself at a time that was set
    APPROVAL = "approval"  # people must agree first
    FREEZE = "freeze"  # the whole fleet is frozen
    CHECK_IN = "check_in"  # it has not asked since


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
        WaitCode.HELD: False,
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
"""Whether a wait goes on until a person acts. Doctor, page and reference read it."""


class Wait(Wire, frozen=True, kw_only=True):
    """One thing that is waited for."""

    code: WaitCode
    text: str  # one sentence for people
    since: float | None = None
    until: float | None = None  # when it ends by itself, where that is known
    devices: int | None = None
    first: tuple[str, ...] = ()  # the first few of them, by name


class WaitReport(Wire, frozen=True, kw_only=True):
    """``about`` is ``rollout/<id>``, ``device/<name>`` or ``release/<model>/<release>``."""

    about: str
    at: float
    line: str  # the whole in one sentence
    waits: tuple[Wait, ...]

    @property
    def for_a_person(self) -> tuple[Wait, ...]:
        """The waits that go on until a person acts, in the order of the report."""
        return tuple(wait for wait in self.waits if NEEDS_A_PERSON[wait.code])
