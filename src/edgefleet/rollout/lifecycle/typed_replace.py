"""Which fields of a frozen struct may change, with their types, so that type checkers see a slip.

``msgspec.structs.replace`` accepts any keyword. Each class here names the fields of one struct,
with their types, and a test compares the two. No other module of the engine imports
``msgspec.structs.replace``.
"""

from collections.abc import Mapping
from typing import Final, Literal, Protocol, TypedDict, Unpack, overload

import msgspec

from edgefleet.protocol.device import Offer
from edgefleet.protocol.label_evidence import LabelEvidence
from edgefleet.protocol.rollout import (
    Approval,
    BakeEnd,
    Baseline,
    Boundary,
    ClassRate,
    Cohort,
    DeviceClass,
    Difference,
    Evidence,
    History,
    Judgement,
    LateFailures,
    LimitCounts,
    LimitPairs,
    OneSite,
    Outage,
    Rate,
    RolloutSpec,
    SiteComparison,
    Status,
    TakenBack,
    Verdict,
)
from edgefleet.protocol.shadow import Shadow
from edgefleet.protocol.why import Wait, WaitCode
from edgefleet.rollout.lifecycle.bake import BakeAlert, BakeState, WindowBets
from edgefleet.rollout.lifecycle.site_bets import SiteBets
from edgefleet.rollout.lifecycle.state import RolloutState, WaveState
from edgefleet.rollout.lifecycle.stored_bet import StoredBet


class RolloutChanges(TypedDict, total=False):
    """Fields of RolloutState."""

    id: str
    spec: RolloutSpec
    salt: int
    previous: str | None
    adds: int
    had_model: int
    replaced: dict[str, int]
    beside: dict[str, int]
    left_out: dict[str, int]
    interface: tuple[str, ...]
    classes: tuple[DeviceClass, ...]
    history: History | None
    baseline: Baseline | None
    status: Status
    reason: str
    text: str
    since: float
    generation: int
    revision: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    rows_at_end: int | None
    planned_by: str
    approvals: tuple[Approval, ...]
    taken_back: tuple[TakenBack, ...]
    outages: tuple[Outage, ...]
    site_bets: SiteBets
    wave: int | None
    waves: tuple[WaveState, ...]
    looks: int
    looked: int
    sizes: tuple[tuple[int, int], ...]
    bets: tuple[StoredBet, ...]
    limit_pairs: dict[str, tuple[LimitPairs, ...]]
    bets_at: float
    bake: BakeState | None


class BakeChanges(TypedDict, total=False):
    """Fields of BakeState."""

    until: float
    window_since: float
    holdback_from: str | None
    holdback: int
    allowed: Mapping[str, float]
    limit_us: int
    sampled_below: str | None
    windows: int
    bets: Mapping[str, WindowBets]
    alert: BakeAlert | None
    ended_at: float | None
    end: BakeEnd | None


class WaveChanges(TypedDict, total=False):
    """Fields of WaveState."""

    percent: float | None
    count: int | None
    selector: str
    is_rest: bool
    cut: int | None
    cut_at: float | None
    threshold: str | None
    population: int | None
    rows: int | None
    planned: int | None
    by_handfuls: bool
    handfuls_at: float | None
    opened_at: float | None
    closed_at: float | None
    judgement: Judgement | None


class EvidenceChanges(TypedDict, total=False):
    """Fields of Evidence."""

    wave: int
    cut: int
    offered: int
    in_trial: int
    healthy: int
    failed: int
    refused: int
    damaged: int
    silent: int
    serving_failed: int
    set_aside: int
    reverted: int
    offline: int
    deferred: int
    not_begun: int
    taken_back: int
    exposed: int
    planned: int
    spare: int
    remaining: int
    needs_approval: bool
    handful: int
    looks: int
    looked: int
    boundary: Boundary | None
    reasons: dict[str, int]
    details: dict[str, str]
    examples: dict[str, str]
    labels: LabelEvidence
    history: History | None
    errors: Rate
    silence: Rate
    late: LateFailures
    sites: SiteComparison
    one_site: OneSite | None
    classes: tuple[ClassRate, ...]
    class_count: int
    canary: Cohort
    control: Cohort
    quality: tuple[Difference, ...]
    limits: LimitCounts


class JudgementChanges(TypedDict, total=False):
    """Fields of Judgement."""

    verdict: Verdict
    reason: str
    text: str
    at: float
    evidence: Evidence
    interim: int
    unjudged: str


class OfferChanges(TypedDict, total=False):
    """Fields of Offer."""

    rollout: str
    action: Literal["install", "revert"]
    model: str
    release: str
    manifest_sha256: str
    confirm_after_s: float
    max_cpu_increase: float | None
    max_memory_growth_mib_h: float | None
    max_attempts: int
    shadow: Shadow | None


class WaitChanges(TypedDict, total=False):
    """Fields of Wait."""

    code: WaitCode
    text: str
    since: float | None
    until: float | None
    devices: int | None
    first: tuple[str, ...]
    model: str | None


class _Replace(Protocol):
    @overload
    def __call__(self, old: RolloutState, /, **changes: Unpack[RolloutChanges]) -> RolloutState: ...

    @overload
    def __call__(self, old: WaveState, /, **changes: Unpack[WaveChanges]) -> WaveState: ...

    @overload
    def __call__(self, old: BakeState, /, **changes: Unpack[BakeChanges]) -> BakeState: ...

    @overload
    def __call__(self, old: Evidence, /, **changes: Unpack[EvidenceChanges]) -> Evidence: ...

    @overload
    def __call__(self, old: Judgement, /, **changes: Unpack[JudgementChanges]) -> Judgement: ...

    @overload
    def __call__(self, old: Offer, /, **changes: Unpack[OfferChanges]) -> Offer: ...

    @overload
    def __call__(self, old: Wait, /, **changes: Unpack[WaitChanges]) -> Wait: ...


replace: Final[_Replace] = msgspec.structs.replace
"""A copy of the struct with these fields changed."""
