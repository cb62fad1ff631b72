"""Messages between operators (people, CI, the page) and the hub, except those about rollouts."""

from typing import Annotated

import msgspec
from msgspec import Meta

from edgefleet.protocol.labels import LABELS_AT_ONCE, Label
from edgefleet.protocol.release import Envelope, ReleaseManifest
from edgefleet.protocol.rollout import RolloutView
from edgefleet.protocol.serving_health import ServingView
from edgefleet.protocol.wire import Wire


class ClaimRequest(Wire, frozen=True, kw_only=True):
    """Asks for one-use enrolment claims. Devices that use them get ``labels``."""

    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    valid_s: Annotated[float, Meta(gt=0)] = 86_400.0
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Claims(Wire, frozen=True, kw_only=True):
    claims: tuple[str, ...]
    expires_at: float


class TrustKey(Wire, frozen=True, kw_only=True):
    """A publisher's public key (32 bytes, base64). The hub accepts releases that it signed."""

    name: str
    public_key: str


class TrustedKeys(Wire, frozen=True, kw_only=True):
    keys: tuple[TrustKey, ...]


class ArtifactView(Wire, frozen=True, kw_only=True):
    sha256: str
    size_bytes: int


class ReleaseView(Wire, frozen=True, kw_only=True):
    """A published release: its manifest, and ``devices``, the number of devices that run it now."""

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
    """Publishes a release. All artifacts of its manifest must be uploaded first."""

    envelope: Envelope


class DeviceModel(Wire, frozen=True, kw_only=True):
    """One model that a device has, or should have.

    ``memory_limit_mib`` is the memory that the release may use on the profile of the device. None
    without a release, or if the hub does not know the release or has no variant of it.
    ``isolation`` is the reason for a process of its own, see ``protocol.device.IsolationReason``;
    ``isolation_text`` is the same in words. Both are empty if the model shares the serving process.
    """

    model: str
    release: str | None  # None: the model is not on the device
    phase: str
    desired: str | None  # None: no rollout covers the device
    rollout: str | None  # the rollout that gives the desired release
    memory_limit_mib: int | None = None
    line: str = ""  # why the device runs this release of the model
    isolation: str = ""
    isolation_text: str = ""


class AgentRun(Wire, frozen=True, kw_only=True):
    """One of several agents that use the same credential. ``run`` is in its log."""

    run: str
    last_seen: float


class DeviceView(Wire, frozen=True, kw_only=True):
    """A device. ``labels`` are those that count: ``own_labels``, overridden by ``set_labels``."""

    name: str
    profile: str
    labels: dict[str, str]
    agent_version: str
    enrolled_at: float
    last_seen: float | None
    before_start: bool = False  # ``last_seen`` is from before the start of the hub
    online: bool
    models: tuple[DeviceModel, ...]  # sorted by name
    unknown_set: bool = False  # the table of release sets is full: ``models`` has only desired ones
    labels_waiting: int = 0  # labels that the device has not got yet
    serving: ServingView | None = None  # None: the last check-in reported nothing wrong
    quarantined: tuple[str, ...] = ()  # models of which two releases failed on the device
    own_labels: dict[str, str] = msgspec.field(default_factory=dict)  # reported by the device
    set_labels: dict[str, str] = msgspec.field(
        default_factory=dict
    )  # by the operator; they override
    copies: tuple[AgentRun, ...] = ()  # of a copied device: agents that use its credential
    disk_fault: str = ""  # why the device cannot write, a code of base.errors
    disk_fault_text: str = ""  # the same in words
    line: str  # why the device runs these releases


class DeviceAttempt(Wire, frozen=True, kw_only=True):
    """One attempt of a device at a release, as its reports describe it.

    ``kind`` is the last report of the attempt, see ``protocol.device.OutcomeKind``. ``began_at``
    and ``at`` are times of the hub at which the first and the last report arrived. ``duration_s``
    is by the clock of the device, from the start of the trial to the last report. None without a
    report of a start, or without a later report.
    """

    rollout: str
    model: str  # empty if the hub does not know the rollout
    release: str
    attempt: int  # the number that the device gave; 0: an old agent gave none
    kind: str
    reason: str = ""  # a stable code
    cause: str = ""  # the reason in words; empty without a reason
    detail: str = ""  # the sentence of the device, with measured value and limit
    began_at: float
    at: float
    duration_s: float | None = None


class DeviceHistory(Wire, frozen=True, kw_only=True):
    """The last attempts of a device, newest first. ``is_cut`` is True if there were more."""

    device: str
    attempts: tuple[DeviceAttempt, ...]
    is_cut: bool = False


class QuarantinedDevice(Wire, frozen=True, kw_only=True):
    """A device in quarantine for ``model``, which failed ``rollbacks`` releases."""

    name: str
    model: str
    rollbacks: int


class QuarantinedDevices(Wire, frozen=True, kw_only=True):
    """``count`` is the number of quarantined devices; ``devices`` has at most 1,000 of them."""

    count: int
    devices: tuple[QuarantinedDevice, ...]


class TruthRequest(Wire, frozen=True, kw_only=True):
    """Labels for the answers of ``model`` on ``device``, added by ``person``."""

    device: str
    model: str
    labels: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=LABELS_AT_ONCE)]
    person: Annotated[str, Meta(min_length=1, max_length=63)] = "operator"


class TruthAdded(Wire, frozen=True, kw_only=True):
    """``added`` labels are durable; ``waiting`` are all that the device has not got yet."""

    added: int
    waiting: int


class Unquarantine(Wire, frozen=True, kw_only=True):
    """``person`` inspected a quarantined device and allows releases for it again."""

    person: Annotated[str, Meta(min_length=1, max_length=63)] = "operator"
    note: Annotated[str, Meta(max_length=500)] = ""


class Names(Wire, frozen=True, kw_only=True):
    """The first names of one kind that begin with a prefix, for completion on the command line."""

    names: tuple[str, ...]


class DevicePage(Wire, frozen=True, kw_only=True):
    """One page of devices, in order of enrolment.

    ``next`` is the ``?after=`` of the next page. None on the last page. ``count`` is the number of
    selected devices on all pages.
    """

    devices: tuple[DeviceView, ...]
    next: str | None = None
    count: int = 0


class FleetView(Wire, frozen=True, kw_only=True):
    """Counts of the fleet now. The size is constant."""

    at: float
    total: int
    online: int
    by_profile: dict[str, int]
    on_release: dict[str, dict[str, int]]  # model -> release -> online devices
    by_phase: dict[str, int]
    rollouts_open: tuple[str, ...]
    frozen: bool = False
    unknown_sets: int = 0  # online devices whose releases are unknown: see wait code unknown_set
    copied: int = 0  # devices whose credential several agents use; each counts as one device
    serving_down: int = 0  # online devices that do not serve a confirmed release
    serving_unstable: int = 0  # online devices whose serving process ended in the last hour
    disk_faults: dict[str, int] = msgspec.field(default_factory=dict)  # devices, by code
    ahead: int = 0  # devices that run what the hub has no record of: see wait code ahead
    unknown_devices: tuple[str, ...] = ()  # with a credential of this hub, which does not know them
    quarantined: int = 0  # devices on which two different releases of a model failed


class Rollouts(Wire, frozen=True, kw_only=True):
    """One page of rollouts, newest first. ``next`` is as in ``DevicePage``."""

    rollouts: tuple[RolloutView, ...]
    next: str | None = None


class FleetGroup(Wire, frozen=True, kw_only=True):
    """Devices with the same profile and the same values of the labels that a plan names."""

    profile: str
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    devices: int


class PlanFleet(Wire, frozen=True, kw_only=True):
    """The devices of a plan: selected by it, and with a variant of the release.

    ``offline`` counts those that are offline now. ``ineligible`` counts the selected devices that
    cannot run the release, by reason. ``adds`` counts the devices that do not run the model now,
    ``had_model`` those that do. ``memory_mib`` is what the release may use on a device, by
    the profile of the selected devices. ``replaced`` counts the devices that run another release of
    the model now, by release, and ``beside`` those that run other models, by model and release
    ("detector 3"). The release displaces none of these other models. ``left_out`` counts the
    devices that get nothing until a person acts, by wait code; they count nowhere else.
    ``warnings`` are sentences on limits that the releases before were above.
    """

    at: float
    interval_s: float
    groups: tuple[FleetGroup, ...]
    offline: int
    ineligible: dict[str, int]
    adds: int = 0
    had_model: int = 0
    memory_mib: dict[str, int] = msgspec.field(default_factory=dict)
    replaced: dict[str, int] = msgspec.field(default_factory=dict)
    beside: dict[str, int] = msgspec.field(default_factory=dict)
    left_out: dict[str, int] = msgspec.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    interface: tuple[str, ...] = ()  # changes that clients of the releases that run now notice


class HistoryPoint(Wire, frozen=True, kw_only=True):
    """Online devices by release at one time."""

    at: float
    on_release: dict[str, int]


class RolloutHistory(Wire, frozen=True, kw_only=True):
    """At most the last hour of a rollout, evenly thinned, for its chart."""

    rollout: str
    points: tuple[HistoryPoint, ...]


class AuditEntry(Wire, frozen=True, kw_only=True):
    """One action. ``actor`` is a user, ``operator``, ``gate`` or ``device/<name>``.

    ``way`` is the actor's credential, such as ``token k3f9``, ``address`` its network address. Both
    are empty for gates, and in entries of earlier versions.
    """

    id: int
    at: float
    actor: str
    action: str
    about: str
    detail: str
    way: str = ""
    address: str = ""


class AuditPage(Wire, frozen=True, kw_only=True):
    entries: tuple[AuditEntry, ...]  # newest first
    next: int | None = None


class Health(Wire, frozen=True, kw_only=True):
    status: str  # "ok"
    version: str
    devices: int
    uptime_s: float
    fault: str = ""  # the code of the error that keeps changes from the hub's disk
