"""What the agent knows: what it keeps on disk, and what it may lose with the power."""

from typing import Final, Literal

import msgspec

from edgefleet.agent import limits
from edgefleet.agent.quality_window import Windows
from edgefleet.agent.table import BEFORE_TRIAL, Stage
from edgefleet.protocol.device import Facts, Outcome, Telemetry
from edgefleet.protocol.release import Golden, Quality, Variant
from edgefleet.protocol.serving import LiveStats, ServingStatus
from edgefleet.protocol.wire import Wire, decode, encode

SlotName = Literal["a", "b"]
STATE_VERSION: Final = 1


class InstalledRelease(Wire, frozen=True, kw_only=True):
    """A release as this device runs it: the variant of its profile and how it is judged."""

    model: str
    release: str
    manifest_sha256: str
    variant: Variant
    golden: Golden
    quality: Quality


class Slot(Wire, frozen=True, kw_only=True):
    """One of two places for a release. ``held`` is set once all its bytes are there."""

    held: InstalledRelease | None = None
    proved: bool = False  # passed its golden set on this device
    confirmed: bool = False  # stood its trial
    accuracy: float | None = None  # on its golden set, on this device


class Attempt(Wire, frozen=True, kw_only=True):
    """One offer being carried out. ``number`` never repeats on a device."""

    number: int
    rollout: str
    action: Literal["install", "revert"]
    model: str
    release: str
    manifest_sha256: str
    confirm_after_s: float
    max_attempts: int
    slot: SlotName  # where it goes
    leaving: str  # the release served when it began, "" for none
    held: InstalledRelease | None = None  # known once the manifest is opened
    asked: bool = False  # the hub may count its start
    tries: int = 0  # trials begun; stored before each
    switched: bool = False  # the serving process may run it
    deferred: bool = False  # the hub was told that it has to wait
    recalled: bool = False  # the hub took it back during its trial
    incumbent_confidence: float | None = None  # live mean top score of the release before it


class Ended(Wire, frozen=True, kw_only=True):
    """An offer that ended badly: never taken again, whatever the hub says."""

    rollout: str
    manifest_sha256: str


class Mark(Wire, frozen=True, kw_only=True):
    """Serving counters as they were at one moment; they start anew with another process."""

    pid: int
    model: str
    release: str
    stats: LiveStats


class Sent(Wire, frozen=True, kw_only=True):
    """The check-in that is on its way."""

    seq: int
    outcomes: tuple[str, ...]
    facts: bool
    telemetry: Telemetry | None


class Watch(Wire, frozen=True, kw_only=True):
    """A trial being watched. ``start`` is what the counters said when it was activated."""

    since: float
    healthy_since: float
    start: Mark
    missed: int = 0


class Soft(Wire, frozen=True, kw_only=True):
    """What a restart may forget. Never stored."""

    booted: bool = False
    seq: int = 0
    sent: Sent | None = None
    checkin_at: float = 0.0
    link_failures: int = 0
    jobs: int = 0  # numbers the long effects, so that a stale completion is known
    work: int | None = None  # the manifest, fetch or proof under way
    work_at: float | None = None  # when it is tried again
    work_failures: int = 0
    have_golden: bool = False
    switch: int | None = None  # the activation under way
    switch_at: float | None = None
    switch_failures: int = 0
    probe_at: float | None = None
    probing: bool = False
    missed: int = 0  # looks in a row that a living serving process did not answer
    serving: ServingStatus | None = None
    mark: Mark | None = None
    tallies: tuple[Telemetry, ...] = ()
    windows: Windows = Windows()
    watch: Watch | None = None
    offers_after: float = 0.0


class Pace(Wire, frozen=True, kw_only=True):
    """How often the serving process is looked at; simulated fleets look less often."""

    probe_idle_s: float = limits.PROBE_IDLE_S
    probe_trial_s: float = limits.PROBE_TRIAL_S


class AgentState(Wire, frozen=True, kw_only=True):
    """Everything the agent knows. All but ``soft`` is stored, before the effects are done."""

    version: int = STATE_VERSION
    stage: Stage = Stage.IDLE
    active: SlotName | None = None  # the confirmed slot: what is gone back to
    a: Slot = Slot()
    b: Slot = Slot()
    attempt: Attempt | None = None
    attempts: int = 0
    ended: tuple[Ended, ...] = ()
    spool: tuple[Outcome, ...] = ()
    seq_reserved: int = 0
    interval_s: float = limits.INTERVAL_S
    facts: Facts | None = None
    facts_known: bool = False  # the hub has acknowledged them
    pace: Pace = Pace()
    soft: Soft = Soft()


def slot(state: AgentState, name: SlotName) -> Slot:
    """The slot of that name."""
    return state.a if name == "a" else state.b


def other(name: SlotName | None) -> SlotName:
    """The slot that an update goes into while ``name`` serves."""
    return "b" if name == "a" else "a"


def active_held(state: AgentState) -> InstalledRelease | None:
    """The confirmed release."""
    return slot(state, state.active).held if state.active else None


def running(state: AgentState) -> tuple[str, str] | None:
    """(model, release) that this device serves, on trial or confirmed; None before the first."""
    attempt = state.attempt
    if attempt and attempt.switched and state.stage not in BEFORE_TRIAL:
        return attempt.model, attempt.release
    held = active_held(state)
    return (held.model, held.release) if held else None


def to_store(state: AgentState) -> bytes:
    """The durable part as JSON; equal bytes need no write."""
    return encode(msgspec.structs.replace(state, soft=Soft()))


def from_store(data: bytes) -> AgentState:
    """Read what ``to_store`` made. Raises InternalError ``internal`` when it is damaged."""
    return decode(data, AgentState, code="internal")
