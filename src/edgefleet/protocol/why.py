"""Why something waits: the one object that CLI, page and logs render."""

from enum import StrEnum

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
