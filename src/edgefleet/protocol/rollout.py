"""What an operator asks of a rollout, and what the hub shows of one."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from edgefleet.protocol.why import WaitReport
from edgefleet.protocol.wire import Wire


class WaveSpec(Wire, frozen=True, kw_only=True):
    """A wave by percent of the eligible devices: above 0, up to 100, each larger than the last."""

    percent: float


class GateSpec(Wire, frozen=True, kw_only=True):
    """When a wave passes, and when everything is taken back."""

    max_error_rate: float = 0.05  # failed / (failed + healthy)
    min_sample: int = 5  # finished devices before any verdict (or the whole wave, if smaller)
    soak_s: float = 60.0  # how long a passing wave must stand
    confirm_after_s: float = 60.0  # healthy time on the device before it confirms
    silence_s: float = 300.0  # silence after activating counts as failure after this
    patience_s: float = 3600.0  # how long stragglers are waited for before they are left behind
    max_confidence_drop: float = 0.10  # canary's mean confidence below the control's
    min_requests: int = 50  # inference requests in each cohort before quality is judged


class RolloutSpec(Wire, frozen=True, kw_only=True):
    """``selector`` is a Kubernetes label selector; empty selects every device."""

    model: str
    release: str
    selector: str = ""
    waves: tuple[WaveSpec, ...] = (
        WaveSpec(percent=1),
        WaveSpec(percent=10),
        WaveSpec(percent=100),
    )
    gate: GateSpec = GateSpec()


class Status(StrEnum):
    """Where a rollout stands. rollout/table.py holds the transitions."""

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"  # nobody new is exposed; those who have it keep it
    REVERTING = "reverting"
    COMPLETED = "completed"
    REVERTED = "reverted"
    REFUSED = "refused"  # the devices would not activate it; nobody was exposed


class Verb(StrEnum):
    """What an operator can do to a rollout."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    HALT = "halt"
    REVERT = "revert"


class Verdict(StrEnum):
    """A gate's answer."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Cohort(Wire, frozen=True, kw_only=True):
    """Serving figures of one side of the comparison, since the rollout started."""

    devices: int = 0
    requests: int = 0
    errors: int = 0
    confidence_mean: float | None = None
    latency_us_p95: int | None = None  # median over devices of their p95


class Evidence(Wire, frozen=True, kw_only=True):
    """What a gate saw: the counts of the open wave and all before it, and both cohorts."""

    cut: int = 0
    offered: int = 0  # online in the cut, not finished and not in trial
    in_trial: int = 0
    healthy: int = 0
    failed: int = 0  # trial failed, crashed, or silent after activating
    refused: int = 0  # would not activate
    silent: int = 0  # part of ``failed``
    reverted: int = 0
    offline: int = 0
    deferred: int = 0
    exposed: int = 0  # ever activated it
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    canary: Cohort = Cohort()
    control: Cohort = Cohort()


class Judgement(Wire, frozen=True, kw_only=True):
    """A verdict with its reason (a stable code), its sentence and what it rests on."""

    verdict: Verdict
    reason: str
    text: str
    at: float
    evidence: Evidence


class WaveView(Wire, frozen=True, kw_only=True):
    """One wave. ``cut`` devices of ``population`` lie below ``threshold`` (16 hex digits)."""

    percent: float
    cut: int | None = None
    threshold: str | None = None
    population: int | None = None
    opened_at: float | None = None
    closed_at: float | None = None
    exposed: int = 0
    judgement: Judgement | None = None


class RolloutView(Wire, frozen=True, kw_only=True):
    """A rollout as people see it. Constant size, whatever the fleet."""

    id: str
    model: str
    release: str
    previous: str | None
    selector: str
    status: Status
    reason: str  # a stable code: why it stands there
    text: str
    generation: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    wave: int | None  # index of the open wave
    waves: tuple[WaveView, ...]
    gate: GateSpec
    evidence: Evidence
    exposed: int
    why: WaitReport


class Command(Wire, frozen=True, kw_only=True):
    """A verb with the generation it was decided on: a stale one is refused when given."""

    generation: Annotated[int, Meta(ge=0)] | None = None
    note: Annotated[str, Meta(max_length=500)] = ""
