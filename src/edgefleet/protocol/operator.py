"""What people, CI and the page ask of the hub, besides rollouts."""

from typing import Annotated

import msgspec
from msgspec import Meta

from edgefleet.protocol.release import Envelope, ReleaseManifest
from edgefleet.protocol.rollout import RolloutView
from edgefleet.protocol.wire import Wire


class ClaimRequest(Wire, frozen=True, kw_only=True):
    """Ask for one-use enrolment claims. ``labels`` are given to the devices that use them."""

    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    valid_s: Annotated[float, Meta(gt=0)] = 86_400.0
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Claims(Wire, frozen=True, kw_only=True):
    claims: tuple[str, ...]
    expires_at: float


class TrustKey(Wire, frozen=True, kw_only=True):
    """A publisher's public key (32 bytes, base64) that the hub accepts releases from."""

    name: str
    public_key: str


class TrustedKeys(Wire, frozen=True, kw_only=True):
    keys: tuple[TrustKey, ...]


class ArtifactView(Wire, frozen=True, kw_only=True):
    sha256: str
    size_bytes: int


class ReleaseView(Wire, frozen=True, kw_only=True):
    """A published release with its manifest and how many devices run it now."""

    manifest: ReleaseManifest
    manifest_sha256: str
    signed_by: tuple[str, ...]
    published_at: float
    devices: int


class ModelView(Wire, frozen=True, kw_only=True):
    name: str
    releases: tuple[str, ...]  # newest first
    devices: dict[str, int]  # online devices by release


class Models(Wire, frozen=True, kw_only=True):
    models: tuple[ModelView, ...]


class PublishRequest(Wire, frozen=True, kw_only=True):
    """All artifacts that the manifest names must have been uploaded before."""

    envelope: Envelope


class DeviceView(Wire, frozen=True, kw_only=True):
    name: str
    profile: str
    labels: dict[str, str]
    agent_version: str
    enrolled_at: float
    last_seen: float | None
    online: bool
    phase: str
    model: str | None
    release: str | None
    desired: str | None
    quarantined: tuple[str, ...] = ()  # models of which it rolled back two releases
    rollout: str | None
    line: str  # why it runs what it runs


class QuarantinedDevice(Wire, frozen=True, kw_only=True):
    """A device that went back after so many rollouts of a model: offered no more of it."""

    name: str
    model: str
    rollbacks: int


class QuarantinedDevices(Wire, frozen=True, kw_only=True):
    """``count`` is all of them; ``devices`` the first 1,000."""

    count: int
    devices: tuple[QuarantinedDevice, ...]


class Unquarantine(Wire, frozen=True, kw_only=True):
    """``person`` has inspected a quarantined device: it may be offered releases again."""

    person: Annotated[str, Meta(min_length=1, max_length=63)] = "operator"
    note: Annotated[str, Meta(max_length=500)] = ""


class DevicePage(Wire, frozen=True, kw_only=True):
    """``next`` continues the list (``?after=``)."""

    devices: tuple[DeviceView, ...]
    next: str | None = None


class FleetView(Wire, frozen=True, kw_only=True):
    """The fleet now. Constant size."""

    at: float
    total: int
    online: int
    by_profile: dict[str, int]
    on_release: dict[str, dict[str, int]]  # model -> release -> online devices
    by_phase: dict[str, int]
    rollouts_open: tuple[str, ...]
    frozen: bool = False


class Rollouts(Wire, frozen=True, kw_only=True):
    rollouts: tuple[RolloutView, ...]  # newest first


class FleetGroup(Wire, frozen=True, kw_only=True):
    """Devices that are alike in profile and in the labels that a plan speaks of."""

    profile: str
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    devices: int


class PlanFleet(Wire, frozen=True, kw_only=True):
    """What a plan would find: the devices that it selects and the release fits.

    ``offline`` of them cannot be reached now; ``ineligible`` are left out, by reason.
    """

    at: float
    interval_s: float
    groups: tuple[FleetGroup, ...]
    offline: int
    ineligible: dict[str, int]


class HistoryPoint(Wire, frozen=True, kw_only=True):
    """Share of the fleet at one moment: release -> online devices."""

    at: float
    on_release: dict[str, int]


class RolloutHistory(Wire, frozen=True, kw_only=True):
    """The last hour at most, evenly thinned, for the picture of a rollout."""

    rollout: str
    points: tuple[HistoryPoint, ...]


class AuditEntry(Wire, frozen=True, kw_only=True):
    """Who did what. ``actor`` is ``operator``, ``gate`` or ``device/<name>``."""

    id: int
    at: float
    actor: str
    action: str
    about: str
    detail: str


class AuditPage(Wire, frozen=True, kw_only=True):
    entries: tuple[AuditEntry, ...]  # newest first
    next: int | None = None


class Health(Wire, frozen=True, kw_only=True):
    status: str  # "ok"
    version: str
    devices: int
    uptime_s: float
