"""Messages about rollouts: plans, commands and views."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edgefleet.base.texts import counted
from edgefleet.protocol.label_evidence import LabelEvidence
from edgefleet.protocol.metric_bounds import Bounds
from edgefleet.protocol.shadow import ShadowSpec
from edgefleet.protocol.why import WaitReport
from edgefleet.protocol.wire import Wire


class WaveSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Selects the devices of a wave: by either ``percent`` or ``count``, or by ``selector`` alone.

    ``percent`` (above 0, at most 100) and ``count`` (1 or more) count from the first device of the
    rollout, or of ``selector`` within it. A larger wave thus includes a smaller one before it.
    """

    percent: float | None = None
    count: int | None = None
    selector: str = ""


PROFILE: Final = "profile"
"""Where a label key is expected: the hardware class of a device."""


class Rollback(StrEnum):
    """The devices from which a failed release is taken back."""

    PART = "part"  # only the devices among which it fails, if the evidence names such a part
    ALL = "all"


class GateSpec(Bounds, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits by which the gate passes a wave or rolls back the release."""

    alpha: float = 0.01  # false-alarm rate of each test; see docs/gate.md
    min_sample: int = 5  # finished devices before a verdict (or the whole wave, if smaller)
    soak_s: float = 60.0  # how long a wave must pass before the next one opens
    confirm_after_s: float = 60.0  # healthy time in trial before a device confirms
    silence_s: float = 300.0  # a device that is silent for longer after activating counts as failed
    patience_s: float = 3600.0  # how long the gate waits for stragglers
    min_requests: int = 50  # inference requests of each cohort from which quality is judged
    require_traffic: bool = False  # a wave passes only with ``min_requests`` to the canary
    ask_p: float = 0.05  # p-value at the end of the fleet, at or below which a person decides
    rollback: Rollback = Rollback.PART
    classes: tuple[str, ...] = ()  # labels whose values are tested apart; the profile always is


class ExposureSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many devices may be in trial at once: ``max(first, growth * healthy)``.

    Never more than the larger of ``first`` and the share ``ceiling`` of the fleet.
    """

    first: int = 10
    growth: float = 1.0
    ceiling: float = 0.05


class PaceSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rate limits of starts and of offered artifact bytes. 0 is unlimited."""

    starts_per_minute: int = 0
    bytes_per_s: int = 0
    bytes_per_s_per_site: int = 0


class BudgetSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most ``max_in_trial`` devices with the same value of ``label`` are in trial at once.

    Devices without the label are not limited.
    """

    label: str
    max_in_trial: int = 1


class WindowSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A maintenance window: a time of the week in which devices may start.

    A device may start while any of several windows is open. ``start`` and ``end`` are ``HH:MM`` in
    local time; an end at or before the start is on the next day. ``timezone`` is a name such as
    ``Europe/Paris``, or ``device`` for the device's label ``timezone`` (UTC if the label is missing
    or names an unknown zone).
    """

    start: str
    end: str
    days: tuple[str, ...] = ()  # mon, tue, ... on which the window starts; empty: every day
    timezone: str = "UTC"


class ApprovalSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Approval by ``people`` (0, 1 or 2) before devices start, once or for each wave."""

    people: int = 0
    each_wave: bool = False


class RolloutSpec(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan. ``selector`` is a Kubernetes label selector; an empty one selects every device.

    Devices that no wave selects form one more wave at the end.
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
    start_at: float | None = None  # automatic start at this time, in seconds since the epoch
    approval: ApprovalSpec = ApprovalSpec()
    follow: bool = False  # offer the release also to devices that enrol after the end
    skip_ineligible: bool = False  # exclude devices of profiles without a variant
    changes_interface: bool = False  # the clients are ready for other inputs or outputs
    again: Annotated[str, Meta(max_length=500)] = ""  # why a release that failed is planned again
    site_label: str = "site"  # the label that names the site, for bytes_per_s_per_site
    bake_s: float = 86_400.0  # how long the release is judged after the last wave; 0 turns it off
    holdback_percent: float = 1.0  # of the devices: control in the bake, get the release after it
    bake_revert_alone: bool = False  # roll back also without a control, and after the bake
    shadow: ShadowSpec = ShadowSpec()  # before the trial on each device; a share of 0 turns it off


class Status(StrEnum):
    """Statuses of a rollout. rollout/lifecycle/table.py has the transitions."""

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"  # no further device is exposed; exposed devices keep the release
    REVERTING = "reverting"
    COMPLETED = "completed"
    REVERTED = "reverted"
    REFUSED = "refused"  # devices refused to activate the release; none was exposed


class BakeEnd(StrEnum):
    """How a bake ended."""

    PASSED = "passed"  # its time is over
    BY_HAND = "by_hand"  # an operator ended it
    SUPERSEDED = "superseded"  # another rollout began on its devices
    REVERTED = "reverted"  # the release was rolled back


class Verb(StrEnum):
    """Commands of an operator to a rollout."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    HALT = "halt"
    REVERT = "revert"


class Verdict(StrEnum):
    """The result of a gate."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Cohort(Wire, frozen=True, kw_only=True):
    """Serving figures of the canary or the control since the rollout started.

    ``requests``, ``errors`` and ``refused`` are totals; refused requests are in no other figure.
    ``refusals`` are by ``protocol.device.Refusal``, with an example of the last report. The other
    figures weigh by device: one report counts as at most 100 requests, so that no busy device
    decides what is shown.
    """

    devices: int = 0
    requests: int = 0
    errors: int = 0
    refused: int = 0
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    refusal_example: str = ""
    error_share: float | None = None
    refusal_share: float | None = None
    confidence_mean: float | None = None
    latency_us_p50: int | None = None  # over all requests; None without sketches
    latency_us_p95: int | None = None
    cpu_us: float | None = None  # CPU time of a request
    confidence: tuple[int, ...] = ()  # histograms, as in protocol.device.Sketches
    classes: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    rated: int = 0  # reports with the requests of a device now and before
    left: int = 0  # of these, those that fell to near zero

    @property
    def refusal_cause(self) -> str:
        """The most frequent kind of refusal, with an example. Empty without refusals."""
        if not self.refusals:
            return ""
        kind = max(sorted(self.refusals), key=lambda one: self.refusals[one])
        example = f": {self.refusal_example}" if self.refusal_example else ""
        return f"Most frequent: {kind} ({counted(self.refusals[kind], 'request')}){example}."


class Rate(Wire, frozen=True, kw_only=True):
    """A share of devices and its limit ``allowed``.

    ``low`` and ``high`` are a confidence sequence: the interval is valid at any number of looks.
    ``size`` includes devices in trial, which count as good until they fail.
    """

    bad: int = 0
    size: int = 0
    allowed: float = 0.0
    low: float = 0.0
    high: float = 1.0
    e_value: float = 1.0  # at 1 / alpha or more the rate is above ``allowed``


class ClassRate(Wire, frozen=True, kw_only=True):
    """The share of failed devices in one class. The e-value is that of the test of classes."""

    key: str
    value: str
    rate: Rate = Rate()

    @property
    def name(self) -> str:
        """The class as a selector: ``gpu=g1``; ``profile=jetson_nano``."""
        return f"{self.key}={self.value}"


class Difference(Wire, frozen=True, kw_only=True):
    """A mean over pairs of devices and its limit ``allowed``. Positive is worse.

    ``neighbour`` is the other model, with its release, of a metric of neighbours.
    """

    metric: str  # the key of a ``ChangeMetric``
    pairs: int = 0
    mean: float = 0.0
    low: float = 0.0
    high: float = 0.0
    allowed: float = 0.0
    e_value: float = 1.0
    neighbour: str = ""


class LimitSide(Wire, frozen=True, kw_only=True):
    """Devices above each absolute limit, of ``devices`` with enough data."""

    devices: int = 0
    latency: int = 0
    request_errors: int = 0
    refusals: int = 0
    memory: int = 0


class LimitPairs(Wire, frozen=True, kw_only=True):
    """Devices whose windows before and after the switch were compared with a limit.

    ``worse`` of ``pairs`` were above it only after the switch, ``better`` only before.
    """

    pairs: int = 0
    worse: int = 0
    better: int = 0


class LimitCounts(LimitSide, frozen=True, kw_only=True):
    """Canary devices above each absolute limit, and what ran before them.

    ``pairs`` are by metric and round: the 1st, 2nd, 4th, ... window after a switch.
    """

    has_previous: bool = False  # the release replaces another one
    control: LimitSide = LimitSide()
    pairs: dict[str, tuple[LimitPairs, ...]] = msgspec.field(default_factory=dict)


class Baseline(Wire, frozen=True, kw_only=True):
    """The figures of the previous release in its own rollout, as far as they were measured."""

    release: str
    figures: Cohort = Cohort()


class History(Wire, frozen=True, kw_only=True):
    """The failures of earlier releases of the model that stood, on devices of the rollout.

    ``bad`` of ``size`` devices failed in the last ``rollouts``. ``allowed`` is the failure rate
    that is allowed because of them: more than the plan allows, at most twice as much.
    """

    bad: int
    size: int
    rollouts: tuple[str, ...]
    allowed: float


class Boundary(Wire, frozen=True, kw_only=True):
    """The exact test of a small fleet: the devices that began, in order, against its boundary.

    ``bad`` of the first ``size`` devices failed, and ``needed`` failures of these fail the release.
    It is the prefix that is nearest to the boundary.
    """

    devices: int  # for which the boundary is planned
    bad: int = 0
    size: int = 0
    needed: int = 2


class DeviceClass(Wire, frozen=True, kw_only=True):
    """The devices with one value of a label, or of one hardware class (``PROFILE``).

    ``devices`` were eligible when the rollout was planned.
    """

    key: str
    value: str
    devices: int


class LateFailures(Wire, frozen=True, kw_only=True):
    """Failures that began late: ``bad`` of ``size`` devices that began one after another.

    ``before`` devices began earlier. With ``episode_since``, the devices began after a pause, at
    this time.
    """

    bad: int = 0
    size: int = 0
    before: int = 0
    since: float | None = None
    episode_since: float | None = None
    e_value: float = 0.0


class Part(Wire, frozen=True, kw_only=True):
    """A part of the devices, by the time at which they began and by one label.

    The devices that began between ``since`` and ``until``, if these are set, and that have
    ``value`` for the label ``key``, if ``key`` is not empty (``profile``: the hardware class).
    """

    since: float | None = None
    until: float | None = None
    key: str = ""
    value: str = ""


class TakenBack(Part, frozen=True, kw_only=True):
    """A part of the devices, from which alone the release was taken back.

    ``reason`` and ``text`` are those of the judgement. After ``class_failures`` the release goes on
    to the other devices; after any other reason the rollout halts.
    """

    at: float = 0.0
    reason: str = ""
    text: str = ""


class Outage(Part, frozen=True, kw_only=True):
    """Devices in trial that went dark at a time at which the control of their site did, too.

    They say nothing about the release. ``dark_control`` of ``control`` devices that had not begun
    went dark, and ``dark`` of ``in_trial`` devices in trial.
    """

    at: float
    dark: int
    in_trial: int
    dark_control: int
    control: int


class SiteComparison(Wire, frozen=True, kw_only=True):
    """Devices in trial that go dark against those of the same site that have not begun.

    ``e_value`` is that of "the release makes no device go dark", over ``groups`` of devices of a
    site that went dark at one time. ``has_control`` is False if fewer than 20 % of the devices at
    risk have not begun: then the comparison cannot decide.
    """

    e_value: float = 1.0
    groups: int = 0
    has_control: bool = False


class OneSite(Wire, frozen=True, kw_only=True):
    """The site on which a failed judgement rests: without its devices the gate does not fail."""

    key: str  # the label that names the site
    value: str
    bad: int  # devices of the site that failed or are silent
    begun: int
    bad_elsewhere: int
    begun_elsewhere: int


class Evidence(Wire, frozen=True, kw_only=True):
    """The data of a gate: counts of the open wave and of all before it, and both cohorts."""

    wave: int = 1  # from 1
    cut: int = 0
    offered: int = 0  # online devices in the cut that are neither finished nor in trial
    in_trial: int = 0
    healthy: int = 0
    failed: int = 0  # trial failed, crashed, silent after activating, or does not serve any more
    refused: int = 0  # did not activate the release
    damaged: int = 0  # part of ``refused``: several devices got the same wrong bytes
    silent: int = 0  # part of ``failed``
    serving_failed: int = 0  # part of ``failed``: serving fails since the confirmation
    set_aside: int = 0  # failed or silent, but their site went dark or gave the release back
    reverted: int = 0
    offline: int = 0
    deferred: int = 0
    not_begun: int = 0  # sent no report before the rollout stopped opening waves
    taken_back: int = 0  # of a part that gave the release back; counted nowhere else
    exposed: int = 0  # ever activated the release
    planned: int = 0  # online devices for which the wave was cut when it opened; 0: ``cut``
    spare: int = 0  # online devices that may move up; counted only if the wave has too few
    remaining: int = 0  # eligible devices outside the cut
    needs_approval: bool = False  # people must approve the next wave
    handful: int = 0  # devices at once, while the wave is open by handfuls; 0: it is not
    looks: int = 0  # exact tests so far, at the ends of waves
    looked: int = 0  # finished devices at the last of them
    boundary: Boundary | None = None  # None: the fleet is not small
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    details: dict[str, str] = msgspec.field(default_factory=dict)  # a device's words, by reason
    examples: dict[str, str] = msgspec.field(default_factory=dict)  # the name of this device
    history: History | None = None  # None: earlier releases do not lift the limit of failures
    errors: Rate = Rate()
    silence: Rate = Rate()
    late: LateFailures = LateFailures()
    sites: SiteComparison = SiteComparison()
    one_site: OneSite | None = None
    classes: tuple[ClassRate, ...] = ()  # those with the strongest evidence, the worst first
    class_count: int = 0  # classes that are tested
    canary: Cohort = Cohort()
    control: Cohort = Cohort()
    quality: tuple[Difference, ...] = ()  # metrics with data
    limits: LimitCounts = LimitCounts()
    labels: LabelEvidence = LabelEvidence()


class EValue(Wire, frozen=True, kw_only=True):
    """The result of a custom test: evidence against "the release is within its limits".

    While that is true, the expectation of the e-value must be at most 1 at any time (an e-process).
    ``text`` is the cause as a sentence, with measured value and limit.
    """

    log_e_value: float
    reason: str
    text: str


class Judgement(Wire, frozen=True, kw_only=True):
    """A verdict with its reason (a stable code), its sentence and its evidence."""

    verdict: Verdict
    reason: str
    text: str
    at: float
    evidence: Evidence
    interim: int = 0  # number of the look (the exact test) that was taken; 0 if none was
    unjudged: str = ""  # the gap in the knowledge of live quality, as a sentence


class WaveView(Wire, frozen=True, kw_only=True):
    """One wave. The wave and those before it have ``cut`` of ``population`` devices.

    ``percent`` is that share (the planned share until the wave opens). A device of ``selector`` is
    in the wave if its position is below ``threshold`` (16 hex digits).
    """

    name: str = ""  # as the plan names it: 10 %, 50 devices, site=lyon
    percent: float
    selector: str = ""
    cut: int | None = None
    threshold: str | None = None
    population: int | None = None
    by_handfuls: bool = False  # it opens a few devices at a time, because the evidence is undecided
    opened_at: float | None = None
    closed_at: float | None = None
    exposed: int = 0
    judgement: Judgement | None = None


class Approval(Wire, frozen=True, kw_only=True):
    """A person's approval of the rollout or of one of its waves."""

    person: str
    at: float
    wave: int  # index


class BakeShare(Wire, frozen=True, kw_only=True):
    """One metric in the last window of a bake: the share of devices with too many bad requests."""

    metric: str  # request_errors or latency
    share: float | None  # of the devices with the release; None: too few requests
    control: float | None  # of the devices with the previous release
    allowed: float
    devices: int = 0  # the most that counted in one window
    e_value: float = 1.0  # of the windows together


class BakeView(Wire, frozen=True, kw_only=True):
    """The bake of a completed rollout. ``end`` is None while it is open."""

    until: float
    ended_at: float | None
    end: BakeEnd | None
    holdback: int  # devices held back until its end, as control
    windows: int  # closed windows of time, each one observation
    shares: tuple[BakeShare, ...]
    alert: str | None  # a finding that holds the bake; None without one


class RolloutView(Wire, frozen=True, kw_only=True):
    """The state of a rollout. The size does not depend on the fleet."""

    id: str
    model: str
    release: str
    previous: str | None
    adds: int = 0  # eligible devices that did not run the model when the rollout was planned
    had_model: int = 0  # eligible devices that ran a release of it then
    replaced: dict[str, int] = msgspec.field(default_factory=dict)  # of these, other releases
    beside: dict[str, int] = msgspec.field(default_factory=dict)  # "detector 3": they stay
    left_out: dict[str, int] = msgspec.field(default_factory=dict)  # by the code of a wait for a
    # person, such as quarantined; counted in none of those before
    unjudged: str = ""  # metrics that the gate cannot judge: no class scores
    interface: tuple[str, ...] = ()  # changes that clients of the release before it notice
    selector: str
    status: Status
    reason: str  # a stable code: why the rollout has this status
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
    allowed: int | None = None  # devices that may be in trial at once now; None once it ended
    planned_by: str = ""  # the user, who cannot approve it. Empty: by the operator token
    approvals: tuple[Approval, ...] = ()
    evidence: Evidence
    exposed: int
    outages: tuple[Outage, ...] = ()  # of sites, which the release did not cause; the last ones
    taken_back: tuple[TakenBack, ...] = ()
    bake: BakeView | None = None
    why: WaitReport


class Command(Wire, frozen=True, kw_only=True):
    """Options of a command. The hub refuses it if a given ``generation`` is not the current one."""

    generation: Annotated[int, Meta(ge=0)] | None = None
    note: Annotated[str, Meta(max_length=500)] = ""


class ApproveRequest(Wire, frozen=True, kw_only=True):
    """The principal of the request approves the plan: two people are two users.

    ``person`` is read only with the operator token, and for a plan that one person approves.
    """

    person: Annotated[str, Meta(min_length=1, max_length=63)] = "operator"
    note: Annotated[str, Meta(max_length=500)] = ""


class Freeze(Wire, frozen=True, kw_only=True):
    """While the fleet is frozen no device starts an install. Reverts continue.

    ``since`` is the time at which it was frozen or unfrozen. The hub ignores it in a request.
    """

    frozen: bool
    person: Annotated[str, Meta(max_length=63)] = "operator"
    note: Annotated[str, Meta(max_length=500)] = ""
    since: float | None = None
