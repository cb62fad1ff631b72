"""Records of the store, one type for each table."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgefleet.protocol.device import Facts, ModelReport, Outcome
from edgefleet.protocol.labels import ModelTruth
from edgefleet.protocol.release import Envelope


@dataclass(frozen=True, slots=True)
class StoredDevice:
    row: int
    name: str
    enrolled_at: float
    labels: Mapping[str, str]  # of the operator
    facts: Facts
    own_labels: Mapping[str, str] = field(default_factory=dict[str, str])  # of the device itself
    enrolled_as: str | None = None  # in its credential, if that is not its name
    removed_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredStanding:
    """The state of a device at its last check-in."""

    row: int
    last_seen: float
    seq: int
    protocol: int
    models: tuple[ModelReport, ...]  # a model that the device has not named: ``""``


@dataclass(frozen=True, slots=True)
class StoredRelease:
    manifest_sha256: str
    model: str
    release: str
    envelope: Envelope
    signed_by: tuple[str, ...]
    published_at: float


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    row: int
    outcome: Outcome
    received_at: float


@dataclass(frozen=True, slots=True)
class StoredTruth:
    """A label that waits for its device."""

    row: int
    truth: ModelTruth
    at: float
