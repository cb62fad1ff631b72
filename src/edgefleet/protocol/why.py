"""Reports of what an object waits for, rendered by CLI, page and logs."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from edgefleet.protocol.wire import Wire


class WaitCode(StrEnum):
    """Stable codes of waits. docs/reference/why.md has a heading for each."""

    START = "start"  # planned; an operator must start it
    SAMPLE = "sample"  # too few devices have reported an outcome
    SOAK = "soak"  # the gate passes; the soak time of the wave is not over
    STRAGGLERS = "stragglers"  # online devices that have not finished
    OFFLINE = "offline"  # devices in the wave that do not check in
    INCONCLUSIVE = "inconclusive"  # the evidence allows no verdict; an operator must decide
    NO_REQUESTS = "no_requests"  # clients do not reach the release; an operator must look
    EXTENDS = "extends"  # the evidence is undecided; the wave takes more devices by itself
    PAUSED = "paused"
    REVERTING = "reverting"  # devices still run the release that is rolled back
    HALTED = "halted"
    LATE_FAILURES = "late_failures"  # devices that started late fail; no more devices start
    ONE_SITE = "one_site"  # the devices of one site fail; no more devices start
    OUTAGE = "outage"  # a site went dark; its devices in trial do not count
    CLASS_FAILURES = "class_failures"  # the release was taken back from one class of devices
    SERVING_DOWN = "serving_down"  # no confirmed release of a model is served on the device
    SERVING_UNSTABLE = "serving_unstable"  # the serving process ended by itself lately
    DONE = "done"  # the rollout waits for nothing
    NO_ROLLOUT = "no_rollout"  # no rollout selects this device
    NEXT_WAVE = "next_wave"  # the device's position is beyond the cut of the open wave
    FETCHING = "fetching"
    TRIAL = "trial"
    NOT_OFFERED = "not_offered"  # the release failed on the device, or was refused or taken back
    NO_PREVIOUS_RELEASE = "no_previous_release"  # the rollback has no release to return to
    QUARANTINED = "quarantined"  # two releases failed on the device; an operator must clear it
    AHEAD = "ahead"  # the hub has no record of the device's release; an operator must accept that
    COPIED = "copied"  # several agents use the credential; an operator must stop all but one
    INELIGIBLE = "ineligible"  # the release has no variant that fits the device
    NOT_FOLLOWED = "not_followed"  # the device enrolled after the end of a rollout without `follow`
    EXPOSURE = "exposure"  # the exposure limit is reached: as many devices are in trial as allowed
    PACE = "pace"  # the rate limit of starts or bytes is reached
    BUDGET = "budget"  # the budget of the device's label is used up
    WINDOW = "window"  # no maintenance window is open
    SCHEDULED = "scheduled"  # the rollout starts automatically at the set time
    APPROVAL = "approval"  # people must approve first
    FREEZE = "freeze"  # the whole fleet is frozen
    DEFERRED = "deferred"  # the device postponed the release and tries again by itself
    DISK_FAULT = "disk_fault"  # the device cannot write its disk; a person must mend it
    CHECK_IN = "check_in"  # the device has not checked in since
    OTHER_TRIAL = "other_trial"  # another model of the device is in trial or goes back
    MEMORY = "memory"  # the other models that the device runs now leave too little memory
    UNKNOWN_SET = "unknown_set"  # the hub's table of release sets is full
    BAKE = "bake"  # all waves passed; the release is still judged and can be rolled back
    BAKE_ALERT = "bake_alert"  # requests go wrong after the last wave; nothing is rolled back
    HOLDBACK = "holdback"  # the device keeps the previous release as control until the bake ends
    BASELINE = "baseline"  # the previous release is above a limit already
    HISTORY = "history"  # earlier releases failed more often than the plan allows
    LABELS = "labels"  # the accuracy by labels that came late; nothing waits for them
    AGAIN = "again"  # the release was taken back before; a person gave it a second chance


class WaitKind(NamedTuple):
    """The properties of a wait code."""

    needs_a_person: bool = False  # the wait lasts until a person acts
    is_door: bool = False  # closed to every device at once
    is_limit: bool = False  # a limit that the plan sets
    is_by_hand: bool = False  # an operator chose it: the rollout itself has no problem
    pauses_patience: bool = False  # no device becomes a straggler while it waits for this


_BY_ITSELF: Final = WaitKind()

WAITS: Final[Mapping[WaitCode, WaitKind]] = MappingProxyType(
    {
        WaitCode.START: WaitKind(needs_a_person=True, is_by_hand=True),
        WaitCode.SAMPLE: _BY_ITSELF,
        WaitCode.SOAK: _BY_ITSELF,
        WaitCode.STRAGGLERS: _BY_ITSELF,
        WaitCode.OFFLINE: _BY_ITSELF,
        WaitCode.INCONCLUSIVE: WaitKind(needs_a_person=True),
        WaitCode.NO_REQUESTS: WaitKind(needs_a_person=True),
        WaitCode.EXTENDS: _BY_ITSELF,
        WaitCode.PAUSED: WaitKind(needs_a_person=True, is_by_hand=True),
        WaitCode.REVERTING: _BY_ITSELF,
        WaitCode.HALTED: WaitKind(needs_a_person=True),
        WaitCode.LATE_FAILURES: WaitKind(needs_a_person=True),
        WaitCode.ONE_SITE: WaitKind(needs_a_person=True),
        WaitCode.OUTAGE: _BY_ITSELF,
        WaitCode.CLASS_FAILURES: _BY_ITSELF,
        WaitCode.SERVING_DOWN: WaitKind(needs_a_person=True),
        WaitCode.SERVING_UNSTABLE: _BY_ITSELF,
        WaitCode.DONE: _BY_ITSELF,
        WaitCode.NO_ROLLOUT: _BY_ITSELF,
        WaitCode.NEXT_WAVE: _BY_ITSELF,
        WaitCode.FETCHING: _BY_ITSELF,
        WaitCode.TRIAL: _BY_ITSELF,
        WaitCode.NOT_OFFERED: _BY_ITSELF,
        WaitCode.NO_PREVIOUS_RELEASE: WaitKind(needs_a_person=True),
        WaitCode.QUARANTINED: WaitKind(needs_a_person=True),
        WaitCode.AHEAD: WaitKind(needs_a_person=True),
        WaitCode.COPIED: WaitKind(needs_a_person=True),
        WaitCode.INELIGIBLE: _BY_ITSELF,
        WaitCode.NOT_FOLLOWED: _BY_ITSELF,
        WaitCode.EXPOSURE: _BY_ITSELF,
        WaitCode.PACE: WaitKind(is_limit=True),
        WaitCode.BUDGET: WaitKind(is_limit=True),
        WaitCode.WINDOW: WaitKind(is_door=True, is_limit=True, pauses_patience=True),
        WaitCode.SCHEDULED: _BY_ITSELF,
        WaitCode.APPROVAL: WaitKind(needs_a_person=True, is_door=True),
        WaitCode.FREEZE: WaitKind(needs_a_person=True, is_door=True),
        WaitCode.DEFERRED: _BY_ITSELF,
        WaitCode.DISK_FAULT: WaitKind(needs_a_person=True),
        WaitCode.CHECK_IN: _BY_ITSELF,
        WaitCode.OTHER_TRIAL: WaitKind(pauses_patience=True),
        WaitCode.MEMORY: _BY_ITSELF,
        WaitCode.UNKNOWN_SET: _BY_ITSELF,
        WaitCode.BAKE: _BY_ITSELF,
        WaitCode.BAKE_ALERT: WaitKind(needs_a_person=True),
        WaitCode.HOLDBACK: _BY_ITSELF,
        WaitCode.BASELINE: _BY_ITSELF,
        WaitCode.HISTORY: _BY_ITSELF,
        WaitCode.LABELS: _BY_ITSELF,
        WaitCode.AGAIN: _BY_ITSELF,
    }
)
"""The table of wait reasons. Doctor, page, metrics, simulator and reference read it."""


class Wait(Wire, frozen=True, kw_only=True):
    """One reason to wait."""

    code: WaitCode
    text: str  # one sentence for people
    since: float | None = None
    until: float | None = None  # when the wait ends without a person, if known
    devices: int | None = None
    first: tuple[str, ...] = ()  # the names of the first few devices
    model: str | None = None  # the model of a device that waits


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
        return tuple(wait for wait in self.waits if WAITS[wait.code].needs_a_person)
