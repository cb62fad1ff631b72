"""The agent's state: the device, each model on it, and the part that a restart loses.

``AgentState`` has what the models share: the spool, the check-ins, the facts. ``ModelState`` has
the slots and the attempt of one model. ``Soft`` and ``ModelSoft`` are the parts of both that a
restart loses.
"""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import field

from edgefleet.agent import limits
from edgefleet.agent.cost_figures import Board, CostWindows, Trend
from edgefleet.agent.table import BEFORE_TRIAL, Stage
from edgefleet.protocol.device import (
    Facts,
    Isolation,
    ModelReport,
    Outcome,
    Scores,
    Sketches,
    Switch,
    Telemetry,
)
from edgefleet.protocol.labels import LabelReport
from edgefleet.protocol.release import Golden, Quality, ReleaseManifest, Variant
from edgefleet.protocol.serving import CpuUse, LiveStats, ServingStatus
from edgefleet.protocol.shadow import Shadow
from edgefleet.protocol.wire import Wire

SlotName = Literal["a", "b"]
STATE_VERSION: Final = 3


class InstalledRelease(Wire, frozen=True, kw_only=True):
    """An installed release: the variant of this device's profile, golden set and quality rule."""

    model: str
    release: str
    manifest_sha256: str
    variant: Variant
    golden: Golden
    quality: Quality | None  # None: the task has no class scores

    @classmethod
    def of(cls, manifest: ReleaseManifest, sha256: str, variant: Variant) -> "InstalledRelease":
        """The ``variant`` of a manifest whose payload has the digest ``sha256``."""
        return cls(
            model=manifest.model,
            release=manifest.release,
            manifest_sha256=sha256,
            variant=variant,
            golden=manifest.golden,
            quality=manifest.quality,
        )


class Slot(Wire, frozen=True, kw_only=True):
    """One of two slots for a release. ``installed`` is set once all its files are complete."""

    installed: InstalledRelease | None = None
    proved: bool = False  # passed its golden set on this device
    confirmed: bool = False  # passed its trial
    accuracy: float | None = None  # on its golden set, on this device
    rollout: str = ""  # by which the confirmed release came
    leftover: bool = False  # may have files of a cancelled attempt; removed if the disk needs room


class Incumbent(Wire, frozen=True, kw_only=True):
    """The last requests to the previous release on this device before a trial."""

    release: str
    requests: int = 0
    errors: int = 0
    refused: int = 0
    confidence_sum: float = 0.0
    confidence_count: int = 0
    cpu_s: float = 0.0  # of ``cpu_requests``
    cpu_requests: int = 0
    memory_mib_h: float = 0.0  # growth of the memory of its process


class Damage(Wire, frozen=True, kw_only=True):
    """Downloads of an attempt that brought other bytes, see ``damage``.

    ``found`` is the digest that came the last ``same`` times, first at ``since``.
    """

    since: float
    times: int = 0
    found: str = ""
    same: int = 0


class Attempt(Wire, frozen=True, kw_only=True):
    """An offer of one model in progress. ``number`` is unique on the device."""

    number: int
    rollout: str
    action: Literal["install", "revert"]
    model: str
    release: str
    manifest_sha256: str
    confirm_after_s: float
    max_attempts: int
    slot: SlotName  # the slot of the offered release
    leaving: str  # the release served at the start of the attempt, "" for none
    installed: InstalledRelease | None = None  # set once the manifest is verified
    asked: bool = False  # the hub may have counted its start
    tries: int = 0  # trials started; stored before each
    switched: bool = False  # the serving process may serve the release
    deferred: bool = False  # a deferral was reported to the hub
    damage: Damage | None = None  # of its downloads
    recalled: bool = False  # the hub rolled the release back during its trial
    max_cpu_increase: float | None = None
    max_memory_growth_mib_h: float | None = None
    incumbent: Incumbent | None = None  # None: too few requests before the trial
    incumbent_us_p95: int = 0  # its latency; 0 if it is not known
    incumbent_answers: int = 0  # since it was loaded
    incumbent_answers_s: float = 0.0  # per second, just before the trial
    shadow: Shadow | None = None  # the shadow phase before the trial. None: there is none
    shadow_breaks: int = 0  # shadow phases that a power loss or a restart ended
    shadow_reason: str = ""  # of ``protocol.shadow``, once the phase is over
    shadow_text: str = ""  # its figures, and why it ended


class Ended(Wire, frozen=True, kw_only=True):
    """A failed offer of one model. The device never accepts it again."""

    rollout: str
    manifest_sha256: str


class Mark(Wire, frozen=True, kw_only=True):
    """Serving counters at one time. A new process starts its counters at 0."""

    pid: int
    model: str
    release: str
    stats: LiveStats


class Sent(Wire, frozen=True, kw_only=True):
    """The check-in in flight. ``model`` is the model of its telemetry, "" without any."""

    seq: int
    outcomes: tuple[str, ...]
    facts: Facts | None
    model: str
    telemetry: Telemetry | None
    labels: LabelReport | None = None
    truth_done: int = 0


class QualityWindow(Wire, frozen=True, kw_only=True):
    """Consecutive requests to one release. ``since`` is the time of the first.

    The request rate is measured from ``opened``, the end of the window before or the first probe of
    the release, to ``until``. ``early`` requests were found by the first probe: their time is
    unknown. ``switched`` is the switch of another model between the full window before and this.
    Latencies before ``warm_until`` are left out; those of ``timed`` requests are in. It is 0 once a
    probe has found the warm-up over.
    """

    release: str
    warm_until: float = 0.0
    timed: int = 0
    since: float
    opened: float = 0.0
    until: float = 0.0
    early: int = 0
    requests: int = 0
    errors: int = 0
    cpu_s: float = 0.0  # of ``timed`` requests
    refused: int = 0  # before the model ran; in no other figure
    confidence_sum: float = 0.0
    confidence_count: int = 0
    latency_us_p95: int = 0  # as serving says it, for one that keeps no sketches
    sketches: Sketches = Sketches()
    switched: Switch | None = None


class Windows(Wire, frozen=True, kw_only=True):
    """The one that fills, the full one before it, and the scores of the last two."""

    filling: QualityWindow | None = None
    full: QualityWindow | None = None
    scores: Scores | None = None


class Neighbour(Wire, frozen=True, kw_only=True):
    """Another model during a trial: its counters at the activation, and its window before it."""

    start: Mark
    before: QualityWindow


class LoadMark(Wire, frozen=True, kw_only=True):
    """A reading of the CPU counters. ``pid`` is the serving process that gave it."""

    at: float
    pid: int
    cpu: CpuUse


class Load(Wire, frozen=True, kw_only=True):
    """The cores that programs used over a time: those that serve, and the others."""

    cores: int
    other: float
    serving: float


class Watch(Wire, frozen=True, kw_only=True):
    """A trial in progress. ``start`` has the counters at its activation.

    ``load`` is the CPU that was used before it, and ``load_start`` and ``worker_cpu_s`` are the
    counters at its activation. None if they are not known.
    """

    since: float
    healthy_since: float
    start: Mark
    missed: int = 0
    neighbours: tuple[Neighbour, ...] = ()
    load: Load | None = None
    load_start: LoadMark | None = None
    worker_cpu_s: float = 0.0
    memory: Trend = Trend()


class ShadowWatch(Wire, frozen=True, kw_only=True):
    """A shadow phase in progress. ``start`` has the counters of the active release.

    None until the candidate is loaded. They are those of the probe that found it loaded.
    """

    since: float
    start: Mark | None = None


class ModelState(Wire, frozen=True, kw_only=True):
    """The stored state of one model on the device."""

    stage: Stage = Stage.IDLE
    active: SlotName | None = None  # the confirmed slot, the target of a rollback
    a: Slot = Slot()
    b: Slot = Slot()
    attempt: Attempt | None = None
    ended: tuple[Ended, ...] = ()


class ModelSoft(Wire, frozen=True, kw_only=True):
    """The part of a model's state that is not stored. A restart resets it."""

    work: int | None = None  # job of the manifest, fetch or proof in progress
    work_at: float | None = None  # time of its next retry; in QUEUED, of the next look for room
    work_failures: int = 0
    have_golden: bool = False
    slot_bytes: int = 0  # of files in the slot that the download replaces or reuses
    mark: Mark | None = None
    tallies: tuple[Telemetry, ...] = ()
    windows: Windows = Windows()
    costs: CostWindows = CostWindows()
    watch: Watch | None = None
    shadow: ShadowWatch | None = None
    offers_after: float = 0.0
    waits_for_disk: bool = False  # a trial that was interrupted, see ``disk``


class Reports(Wire, frozen=True, kw_only=True):
    """The models in a check-in, and the states from which they were made."""

    states: dict[str, ModelState]
    models: tuple[ModelReport, ...]
    digest: int


class Crashes(Wire, frozen=True, kw_only=True):
    """Crashes of the shared process: the last one by model, and the models that have a worker."""

    last: tuple[tuple[str, float], ...] = ()
    isolated: tuple[Isolation, ...] = ()  # by name


class NotedEnd(Wire, frozen=True, kw_only=True):
    """An end of a process that serves. ``served`` are the releases that it may be the fault of."""

    at: float
    cause: str  # see protocol.serving_health
    served: tuple[tuple[str, str], ...] = ()  # model and release
    worker: str = ""  # the model whose worker it was; empty for the shared process


class HubLoss(Wire, frozen=True, kw_only=True):
    """The hub has not answered since ``at``. ``text`` is the first error."""

    at: float
    text: str


class Health(Wire, frozen=True, kw_only=True):
    """The health of serving: its latest ends, oldest first, and the models that are not served.

    ``down_cause`` is why the serving process could not be started, if that is known.
    """

    ends: tuple[NotedEnd, ...] = ()
    down: tuple[str, ...] = ()
    down_since: float | None = None
    down_cause: str = ""


class Soft(Wire, frozen=True, kw_only=True):
    """The part of the state that is not stored. A restart resets it."""

    booted: bool = False
    seq: int = 0
    sent: Sent | None = None
    reports: Reports | None = None  # of the last check-in
    known: tuple[ModelReport, ...] | None = None  # by the hub; None: it needs the full list
    checkin_at: float = 0.0
    hub_busy_until: float = 0.0  # by Retry-After; no check-in before, whatever there is to report
    link_failures: int = 0
    hub_loss: HubLoss | None = None
    hub_reached: bool = False  # a check-in was answered
    jobs: int = 0  # number of the last long effect, to detect stale completions
    offered: tuple[str, ...] = ()  # rollouts in the order of the hub's last offers
    free_bytes: int | None = None  # on the disk, when it was last measured
    disk_fault: str = ""  # why the state cannot be stored, a code of base.errors
    switch: int | None = None  # job of the Apply in progress
    switch_at: float | None = None  # time of its next retry
    switch_failures: int = 0
    probe_at: float | None = None
    probing: bool = False
    missed: int = 0  # probes in a row that a running process did not answer
    serving: ServingStatus | None = None
    load: tuple[LoadMark, ...] = ()  # the last two readings, see ``load``
    board: Board | None = None  # the last reading of the sensors
    crashes: Crashes = Crashes()
    health: Health = Health()
    swapped: bool = False  # a serving process of another version was replaced
    labels: LabelReport | None = None  # the counts that the hub has
    truth_done: int = 0  # labels of the hub to acknowledge, up to this number
    reported: str = ""  # the model of the last telemetry; the next model follows
    models: dict[str, ModelSoft] = field(default_factory=dict[str, ModelSoft])


class Pace(Wire, frozen=True, kw_only=True):
    """Intervals of probes of the serving process. Simulated fleets use longer ones."""

    probe_idle_s: float = limits.PROBE_IDLE_S
    probe_trial_s: float = limits.PROBE_TRIAL_S


class AgentState(Wire, frozen=True, kw_only=True):
    """The state of the agent. All but ``soft`` is stored before the effects are executed."""

    version: int = STATE_VERSION
    models: dict[str, ModelState] = field(default_factory=dict[str, ModelState])  # by name
    attempts: int = 0
    spool: tuple[Outcome, ...] = ()
    seq_reserved: int = 0
    interval_s: float = limits.INTERVAL_S
    facts: Facts | None = None
    facts_known: bool = False  # the hub has the current facts
    pace: Pace = Pace()
    soft: Soft = Soft()


NEW_MODEL: Final = ModelState()
NEW_SOFT: Final = ModelSoft()


def slot(state: ModelState, name: SlotName) -> Slot:
    """The slot ``name``."""
    return state.a if name == "a" else state.b


def other(name: SlotName | None) -> SlotName:
    """The idle slot, if ``name`` is active."""
    return "b" if name == "a" else "a"


def active_release(state: ModelState) -> InstalledRelease | None:
    """The confirmed release. None if there is none."""
    return slot(state, state.active).installed if state.active else None


def running(state: ModelState) -> str | None:
    """The release of this model that the device serves, in trial or confirmed. None for none."""
    attempt = state.attempt
    if attempt and attempt.switched and state.stage not in BEFORE_TRIAL:
        return attempt.release
    installed = active_release(state)
    return installed.release if installed else None


def given_by(state: ModelState) -> str:
    """The rollout that gave the device the release it runs. Empty if it is not known."""
    attempt = state.attempt
    if attempt and attempt.switched and state.stage not in BEFORE_TRIAL:
        if attempt.action == "install":
            return attempt.rollout
        return slot(state, attempt.slot).rollout
    return slot(state, state.active).rollout if state.active else ""


def pointer(models: Mapping[str, ModelState]) -> dict[str, SlotName]:
    """The content of the pointer file: the confirmed slot of each model that has one."""
    return {name: active for name in sorted(models) if (active := models[name].active) is not None}
