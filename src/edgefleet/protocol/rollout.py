"""What an operator asks of a rollout, and what the hub shows of one."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from edgefleet.protocol.why import WaitReport
from edgefleet.protocol.wire import Wire


class WaveSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which devices a wave adds: exactly one of ``percent`` and ``count``, or ``selector`` alone.

    ``percent`` (above 0, up to 100) and ``count`` (1 or more) reach from the first device of the
    rollout, or of ``selector`` inside it, and so hold what a smaller wave before them held.
    """

    percent: float | None = None
    count: int | None = None
    selector: str = ""


class GateSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a wave passes, and when everything is taken back."""

    max_error_rate: float = 0.05  # failed / (failed + healthy)
    max_silent_rate: float = 0.01  # of them, silent after activating: each may need a visit
    alpha: float = 0.01  # chance of bad luck that a test may take; see docs/gate.md
    min_sample: int = 5  # finished devices before any verdict (or the whole wave, if smaller)
    soak_s: float = 60.0  # how long a passing wave must stand
    confirm_after_s: float = 60.0  # healthy time on the device before it confirms
    silence_s: float = 300.0  # silence after activating counts as failure after this
    patience_s: float = 3600.0  # how long stragglers are waited for before they are left behind
    max_latency_p95_ms: float = 100.0  # on a device; at most max_error_rate of them above it
    max_latency_increase: float = 0.15  # canary's p95 above the control's
    max_request_error_rate: float = 0.05  # share of a device's requests, likewise
    max_memory_percent: float = 80.0  # of what the variant may take, likewise
    max_accuracy_drop: float = 0.01  # golden accuracy below the one before
    max_confidence_drop: float = 0.10  # canary's mean confidence below the control's
    max_drift: float = 0.2  # total variation of outputs or inputs, above the control's
    min_requests: int = 50  # inference requests in each cohort before quality is judged


class ExposureSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many devices may be in trial at once: ``max(first, growth * healthy)``."""

    first: int = 10
    growth: float = 1.0


class PaceSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast devices begin; 0 is unlimited. Bytes are those of the artifacts offered."""

    starts_per_minute: int = 0
    bytes_per_s: int = 0
    bytes_per_s_per_site: int = 0


class BudgetSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most ``max_in_trial`` devices in trial at once for each value of the label.

    A device without the label is in nobody's budget.
    """

    label: str
    max_in_trial: int = 1


class WindowSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time of the week in which devices may begin; several windows are open side by side.

    ``start`` and ``end`` are ``HH:MM`` by the clock on the wall; an end at or before the start lies
    on the next day. ``timezone`` is a name such as ``Europe/Paris``, or ``device``: then each
    device goes by its label ``timezone`` (UTC where it has none, or an unknown one).
    """

    start: str
    end: str
    days: tuple[str, ...] = ()  # mon, tue, ... on which it starts; none: every day
    timezone: str = "UTC"


class ApprovalSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many people (0, 1 or 2) must agree before devices begin, and whether for each wave."""

    people: int = 0
    each_wave: bool = False


class RolloutSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``selector`` is a Kubernetes label selector; empty selects every device.

    Devices that no wave names are in one more, the last.
    """

    model: str
    release: str
    selector: str = ""
    waves: tuple[WaveSpec, ...] = (
        WaveSpec(percent=1),
        WaveSpec(percent=10),
        WaveSpec(percent=100),
    )
    gate: GateSpec = GateSpec()
    exposure: ExposureSpec = ExposureSpec()
    pace: PaceSpec = PaceSpec()
    budgets: tuple[BudgetSpec, ...] = ()
    windows: tuple[WindowSpec, ...] = ()
    start_at: float | None = None  # starts by itself then, in seconds since the epoch
    approval: ApprovalSpec = ApprovalSpec()
    follow: bool = False  # give the release to devices that enrol after the end, too
    skip_ineligible: bool = False  # leave out devices of profiles without a variant
    site_label: str = "site"  # by which bytes_per_s_per_site tells sites apart


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
    latency_us_p50: int | None = None  # over all requests; None without sketches
    latency_us_p95: int | None = None
    confidence: tuple[int, ...] = ()  # histograms, as in protocol.device.Sketches
    classes: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()


class Rate(Wire, frozen=True, kw_only=True):
    """A share of devices against what is allowed. The interval holds whenever one looks.

    ``size`` has those on trial in it, who count as good so far.
    """

    bad: int = 0
    size: int = 0
    allowed: float = 0.0
    low: float = 0.0
    high: float = 1.0
    e_value: float = 1.0  # 1 / alpha and more: above what is allowed


class Difference(Wire, frozen=True, kw_only=True):
    """A mean over pairs of devices against what is allowed: positive is worse."""

    metric: str  # latency, request_errors, confidence, accuracy, classes or inputs
    pairs: int = 0
    mean: float = 0.0
    low: float = 0.0
    high: float = 0.0
    allowed: float = 0.0
    e_value: float = 1.0


class LimitCounts(Wire, frozen=True, kw_only=True):
    """Devices of the canary above an absolute limit, of those that said enough to judge."""

    devices: int = 0
    latency: int = 0
    request_errors: int = 0
    memory: int = 0


class Evidence(Wire, frozen=True, kw_only=True):
    """What a gate saw: the counts of the open wave and all before it, and both cohorts."""

    wave: int = 1  # from 1
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
    not_begun: int = 0  # said nothing of a rollout that opens no more waves
    exposed: int = 0  # ever activated it
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    errors: Rate = Rate()
    silence: Rate = Rate()
    canary: Cohort = Cohort()
    control: Cohort = Cohort()
    quality: tuple[Difference, ...] = ()  # metrics that devices said something of
    limits: LimitCounts = LimitCounts()


class Judgement(Wire, frozen=True, kw_only=True):
    """A verdict with its reason (a stable code), its sentence and what it rests on."""

    verdict: Verdict
    reason: str
    text: str
    at: float
    evidence: Evidence


class WaveView(Wire, frozen=True, kw_only=True):
    """One wave. It and those before it hold ``cut`` of ``population`` devices.

    ``percent`` is that share, as planned until the wave opens. A device of ``selector`` lies in the
    wave when its position is below ``threshold`` (16 hex digits).
    """

    name: str = ""  # in the plan's words: 10 %, 50 devices, site=lyon
    percent: float
    selector: str = ""
    cut: int | None = None
    threshold: str | None = None
    population: int | None = None
    opened_at: float | None = None
    closed_at: float | None = None
    exposed: int = 0
    judgement: Judgement | None = None


class Approval(Wire, frozen=True, kw_only=True):
    """A person let the rollout, or one of its waves, go ahead."""

    person: str
    at: float
    wave: int  # index


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
    plan: RolloutSpec
    ineligible: dict[str, int] = msgspec.field(default_factory=dict)  # devices by reason
    allowed: int | None = None  # how many may be in trial at once now, while it is open
    approvals: tuple[Approval, ...] = ()
    evidence: Evidence
    exposed: int
    why: WaitReport


class Command(Wire, frozen=True, kw_only=True):
    """A verb with the generation it was decided on: a stale one is refused when given."""

    generation: Annotated[int, Meta(ge=0)] | None = None
    note: Annotated[str, Meta(max_length=500)] = ""


class ApproveRequest(Wire, frozen=True, kw_only=True):
    """``person`` agrees with the plan; two people are two different names."""

    person: Annotated[str, Meta(min_length=1, max_length=63)]
    note: Annotated[str, Meta(max_length=500)] = ""


class Freeze(Wire, frozen=True, kw_only=True):
    """While the fleet is frozen nobody begins anything; what is taken back still goes back.

    ``since`` is when it was frozen, or let go; what a request says there counts for nothing.
    """

    frozen: bool
    person: Annotated[str, Meta(max_length=63)] = "operator"
    note: Annotated[str, Meta(max_length=500)] = ""
    since: float | None = None
