"""Typed changes of the state, so that a type checker refuses a misspelt field.

``msgspec.structs.replace`` accepts any field name. Each class here has the fields of one struct of
``state``, with their types; a test compares the two.
"""

from typing import Literal, TypedDict

from edgefleet.agent.quality_window import Windows
from edgefleet.agent.state import (
    Attempt,
    Ended,
    InstalledRelease,
    Mark,
    Pace,
    Sent,
    Slot,
    SlotName,
    Soft,
    Watch,
)
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import Facts, Outcome, Telemetry
from edgefleet.protocol.serving import ServingStatus


class StateChanges(TypedDict, total=False):
    """Fields of AgentState."""

    version: int
    stage: Stage
    active: SlotName | None
    a: Slot
    b: Slot
    attempt: Attempt | None
    attempts: int
    ended: tuple[Ended, ...]
    spool: tuple[Outcome, ...]
    seq_reserved: int
    interval_s: float
    facts: Facts | None
    facts_known: bool
    pace: Pace
    soft: Soft


class SoftChanges(TypedDict, total=False):
    """Fields of Soft."""

    booted: bool
    seq: int
    sent: Sent | None
    checkin_at: float
    link_failures: int
    jobs: int
    work: int | None
    work_at: float | None
    work_failures: int
    have_golden: bool
    switch: int | None
    switch_at: float | None
    switch_failures: int
    probe_at: float | None
    probing: bool
    missed: int
    serving: ServingStatus | None
    mark: Mark | None
    tallies: tuple[Telemetry, ...]
    windows: Windows
    watch: Watch | None
    offers_after: float


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
    held: InstalledRelease | None
    asked: bool
    tries: int
    switched: bool
    deferred: bool
    recalled: bool
    incumbent_confidence: float | None
