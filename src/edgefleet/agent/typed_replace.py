"""Typed changes of the state, so that a type checker refuses a misspelt field.

``msgspec.structs.replace`` accepts any keyword. Each class here names the fields of one struct,
with their types, and a test compares the two. No other module of the core imports
``msgspec.structs.replace``.
"""

from typing import Final, Literal, Protocol, TypedDict, Unpack, overload

import msgspec

from edgefleet.agent.cost_figures import Board, CostFigures, CostWindow, CostWindows, Trend
from edgefleet.agent.state import (
    AgentState,
    Attempt,
    Crashes,
    Damage,
    Ended,
    Health,
    HubLoss,
    Incumbent,
    InstalledRelease,
    Load,
    LoadMark,
    Mark,
    ModelSoft,
    ModelState,
    Neighbour,
    NotedEnd,
    Pace,
    QualityWindow,
    Reports,
    Sent,
    ShadowWatch,
    Slot,
    SlotName,
    Soft,
    Watch,
    Windows,
)
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import (
    Facts,
    Isolation,
    ModelReport,
    Outcome,
    OutcomeKind,
    OwnLabels,
    RuntimeVersion,
    Scores,
    Sketches,
    Switch,
    Telemetry,
    WrongBytes,
)
from edgefleet.protocol.labels import LabelReport
from edgefleet.protocol.serving import ServingStatus
from edgefleet.protocol.shadow import Shadow


class StateChanges(TypedDict, total=False):
    """Fields of AgentState."""

    version: int
    models: dict[str, ModelState]
    attempts: int
    spool: tuple[Outcome, ...]
    seq_reserved: int
    interval_s: float
    facts: Facts | None
    facts_known: bool
    pace: Pace
    soft: Soft


class ModelChanges(TypedDict, total=False):
    """Fields of ModelState."""

    stage: Stage
    active: SlotName | None
    a: Slot
    b: Slot
    attempt: Attempt | None
    ended: tuple[Ended, ...]


class SoftChanges(TypedDict, total=False):
    """Fields of Soft."""

    booted: bool
    seq: int
    sent: Sent | None
    reports: Reports | None
    known: tuple[ModelReport, ...] | None
    checkin_at: float
    hub_busy_until: float
    link_failures: int
    hub_loss: HubLoss | None
    hub_reached: bool
    jobs: int
    offered: tuple[str, ...]
    free_bytes: int | None
    disk_fault: str
    switch: int | None
    switch_at: float | None
    switch_failures: int
    probe_at: float | None
    probing: bool
    missed: int
    serving: ServingStatus | None
    load: tuple[LoadMark, ...]
    board: Board | None
    crashes: Crashes
    health: Health
    swapped: bool
    labels: LabelReport | None
    truth_done: int
    reported: str
    models: dict[str, ModelSoft]


class ModelSoftChanges(TypedDict, total=False):
    """Fields of ModelSoft."""

    work: int | None
    work_at: float | None
    work_failures: int
    have_golden: bool
    slot_bytes: int
    mark: Mark | None
    tallies: tuple[Telemetry, ...]
    windows: Windows
    costs: CostWindows
    watch: Watch | None
    shadow: ShadowWatch | None
    offers_after: float
    waits_for_disk: bool


class AttemptChanges(TypedDict, total=False):
    """Fields of Attempt."""

    number: int
    rollout: str
    action: Literal["install", "revert"]
    model: str
    release: str
    manifest_sha256: str
    confirm_after_s: float
    max_attempts: int
    slot: SlotName
    leaving: str
    installed: InstalledRelease | None
    asked: bool
    tries: int
    switched: bool
    deferred: bool
    damage: Damage | None
    recalled: bool
    max_cpu_increase: float | None
    max_memory_growth_mib_h: float | None
    incumbent: Incumbent | None
    incumbent_us_p95: int
    incumbent_answers: int
    incumbent_answers_s: float
    shadow: Shadow | None
    shadow_breaks: int
    shadow_reason: str
    shadow_text: str


class DamageChanges(TypedDict, total=False):
    """Fields of Damage."""

    since: float
    times: int
    found: str
    same: int


class SlotChanges(TypedDict, total=False):
    """Fields of Slot."""

    installed: InstalledRelease | None
    proved: bool
    confirmed: bool
    accuracy: float | None
    rollout: str
    leftover: bool


class WatchChanges(TypedDict, total=False):
    """Fields of Watch."""

    since: float
    healthy_since: float
    start: Mark
    missed: int
    neighbours: tuple[Neighbour, ...]
    load: Load | None
    load_start: LoadMark | None
    worker_cpu_s: float
    memory: Trend


class ShadowWatchChanges(TypedDict, total=False):
    """Fields of ShadowWatch."""

    since: float
    start: Mark | None


class WindowsChanges(TypedDict, total=False):
    """Fields of Windows."""

    filling: QualityWindow | None
    full: QualityWindow | None
    scores: Scores | None


class QualityChanges(TypedDict, total=False):
    """Fields of QualityWindow."""

    release: str
    warm_until: float
    timed: int
    since: float
    opened: float
    until: float
    early: int
    requests: int
    errors: int
    cpu_s: float
    refused: int
    confidence_sum: float
    confidence_count: int
    latency_us_p95: int
    sketches: Sketches
    switched: Switch | None


class CostWindowChanges(TypedDict, total=False):
    """Fields of CostWindow."""

    release: str
    process: int
    since: float
    first: int | None
    memory: Trend
    board: tuple[tuple[float, Board], ...]


class CostWindowsChanges(TypedDict, total=False):
    """Fields of CostWindows."""

    filling: CostWindow | None
    full: CostFigures | None
    scores: Scores | None


class HealthChanges(TypedDict, total=False):
    """Fields of Health."""

    ends: tuple[NotedEnd, ...]
    down: tuple[str, ...]
    down_since: float | None
    down_cause: str


class FactsChanges(TypedDict, total=False):
    """Fields of Facts."""

    profile: str
    agent_version: str
    runtimes: tuple[str, ...]
    arch: str
    memory_mib: int
    models_memory_mib: int
    isolated: tuple[Isolation, ...]
    runtime_versions: tuple[RuntimeVersion, ...]
    comparisons: tuple[str, ...]
    takes_labels: bool
    labels: OwnLabels | None
    disk_fault: str
    datatypes: tuple[str, ...]


class OutcomeChanges(TypedDict, total=False):
    """Fields of Outcome."""

    id: str
    rollout: str
    release: str
    kind: OutcomeKind
    at: float
    reason: str
    detail: str
    accuracy: float | None
    accuracy_before: float | None
    attempt: int
    wrong_bytes: WrongBytes | None


class TelemetryChanges(TypedDict, total=False):
    """Fields of Telemetry."""

    release: str
    requests: int
    errors: int
    confidence_sum: float
    confidence_count: int
    latency_us_p50: int
    latency_us_p95: int
    memory_mib: int
    sketches: Sketches | None
    scores: Scores | None
    costs: Scores | None
    cpu_s: float
    refused: int
    refusals: dict[str, int]
    refusal_example: str
    model: str | None


class _Replace(Protocol):
    @overload
    def __call__(self, old: AgentState, /, **changes: Unpack[StateChanges]) -> AgentState: ...

    @overload
    def __call__(self, old: ModelState, /, **changes: Unpack[ModelChanges]) -> ModelState: ...

    @overload
    def __call__(self, old: Soft, /, **changes: Unpack[SoftChanges]) -> Soft: ...

    @overload
    def __call__(self, old: ModelSoft, /, **changes: Unpack[ModelSoftChanges]) -> ModelSoft: ...

    @overload
    def __call__(self, old: Attempt, /, **changes: Unpack[AttemptChanges]) -> Attempt: ...

    @overload
    def __call__(self, old: Damage, /, **changes: Unpack[DamageChanges]) -> Damage: ...

    @overload
    def __call__(self, old: Slot, /, **changes: Unpack[SlotChanges]) -> Slot: ...

    @overload
    def __call__(self, old: Watch, /, **changes: Unpack[WatchChanges]) -> Watch: ...

    @overload
    def __call__(
        self, old: ShadowWatch, /, **changes: Unpack[ShadowWatchChanges]
    ) -> ShadowWatch: ...

    @overload
    def __call__(self, old: Windows, /, **changes: Unpack[WindowsChanges]) -> Windows: ...

    @overload
    def __call__(
        self, old: QualityWindow, /, **changes: Unpack[QualityChanges]
    ) -> QualityWindow: ...

    @overload
    def __call__(self, old: CostWindow, /, **changes: Unpack[CostWindowChanges]) -> CostWindow: ...

    @overload
    def __call__(
        self, old: CostWindows, /, **changes: Unpack[CostWindowsChanges]
    ) -> CostWindows: ...

    @overload
    def __call__(self, old: Health, /, **changes: Unpack[HealthChanges]) -> Health: ...

    @overload
    def __call__(self, old: Facts, /, **changes: Unpack[FactsChanges]) -> Facts: ...

    @overload
    def __call__(self, old: Outcome, /, **changes: Unpack[OutcomeChanges]) -> Outcome: ...

    @overload
    def __call__(self, old: Telemetry, /, **changes: Unpack[TelemetryChanges]) -> Telemetry: ...


replace: Final[_Replace] = msgspec.structs.replace
"""A copy of the struct with these fields changed."""
