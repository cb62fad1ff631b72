"""The table of endpoints. Server, client and docs/reference/api.md are made from it."""

from dataclasses import dataclass
from typing import Final, Literal

from edgefleet.protocol import (
    collection,
    device,
    device_commands,
    device_figures,
    field_figures,
    hooks,
    operator,
    people,
    restored,
    rollout,
    why,
)
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.wire import Wire

Role = Literal["anyone", "claim", "device", "operator"]


class Empty(Wire, frozen=True, kw_only=True):
    """A body without fields."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. ``request`` and ``answer`` are wire types, or ``bytes`` for raw bodies."""

    name: str
    method: Literal["GET", "POST", "PUT", "HEAD"]
    path: str  # parameters in braces: /devices/{device}
    role: Role
    request: type[Wire] | type[bytes] | None
    answer: type[Wire] | type[bytes]
    text: str
    media: str = "application/octet-stream"  # of an answer in raw bytes
    is_ranged: bool = False  # the answer may be a part of the bytes


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    # The device plane's hot path, on its own listener (http1).
    Endpoint("checkin", "POST", "/device/v1/checkin", "device", device.CheckIn,
             device.CheckInAnswer, "Report; the answer may offer a release."),
    # The rest of the device plane.
    Endpoint("enrol", "POST", "/device/v1/enrol", "claim", device.EnrolRequest,
             device.EnrolAnswer, "Exchange a one-use claim for the device's credential."),
    Endpoint("reenrol", "POST", "/device/v1/reenrol", "claim", restored.ReenrolRequest,
             device.EnrolAnswer,
             "Exchange a credential of a device that this hub lost its record of, for another."),
    Endpoint("endpoints", "GET", "/device/v1/endpoints", "device", None,
             device.Endpoints, "The address for check-ins."),
    Endpoint("device_manifest", "GET", "/device/v1/manifests/{sha256}", "device", None,
             Envelope, "A signed release manifest, by the digest of its payload."),
    Endpoint("device_artifact", "GET", "/device/v1/artifacts/{sha256}", "device", None,
             bytes, "The bytes of an artifact; accepts Range."),
    # Operators.
    Endpoint("health", "GET", "/health", "anyone", None, operator.Health, "Whether the hub is up."),
    Endpoint("metrics", "GET", "/metrics", "operator", None, bytes,
             "Metrics for Prometheus.", "text/plain"),
    Endpoint("openapi", "GET", "/api/v1/openapi.json", "anyone", None, bytes,
             "This API as an OpenAPI 3.1 document.", "application/json"),
    Endpoint("fleet", "GET", "/api/v1/fleet", "operator", None, operator.FleetView,
             "Counts of the fleet now; the size is constant."),
    Endpoint("claim", "POST", "/api/v1/claims", "operator", operator.ClaimRequest,
             operator.Claims, "Make one-use enrolment claims."),
    Endpoint("trust", "PUT", "/api/v1/trust", "operator", operator.TrustKey,
             operator.TrustedKeys, "Trust a key: accept releases that it signs."),
    Endpoint("trusted", "GET", "/api/v1/trust", "operator", None, operator.TrustedKeys,
             "The trusted keys."),
    Endpoint("artifact_head", "HEAD", "/api/v1/artifacts/{sha256}", "operator", None, bytes,
             "Whether the hub has the artifact. If not, `Upload-Offset` is where an interrupted "
             "upload continues."),
    Endpoint("artifact_put", "PUT", "/api/v1/artifacts/{sha256}", "operator", bytes,
             operator.ArtifactView,
             "Upload an artifact as a stream; `Content-Range` continues an interrupted upload."),
    Endpoint("artifact_get", "GET", "/api/v1/artifacts/{sha256}", "operator", None, bytes,
             "Download an artifact; accepts Range.", is_ranged=True),
    Endpoint("collect", "POST", "/api/v1/collect", "operator", collection.Collect,
             collection.Collected,
             "Remove the artifacts that no release needs, or count them (`dry_run`)."),
    Endpoint("publish", "POST", "/api/v1/releases", "operator", operator.PublishRequest,
             operator.ReleaseView, "Publish a signed release whose artifacts are uploaded."),
    Endpoint("models", "GET", "/api/v1/models", "operator", None, operator.Models,
             "All models."),
    Endpoint("model", "GET", "/api/v1/models/{model}", "operator", None, operator.ModelView,
             "One model."),
    Endpoint("release", "GET", "/api/v1/models/{model}/releases/{release}", "operator", None,
             operator.ReleaseView, "One release."),
    Endpoint("release_why", "GET", "/api/v1/models/{model}/releases/{release}/why", "operator",
             None, why.WaitReport, "The status of a release, and what it waits for."),
    Endpoint("model_field", "GET", "/api/v1/models/{model}/field", "operator", None,
             field_figures.ModelField,
             "Latency and memory of a model's releases in the field, by hardware class."),
    Endpoint("devices", "GET", "/api/v1/devices", "operator", None, operator.DevicePage,
             "One page of devices (?after=, ?limit=, and the fields of `DeviceFilter`: ?selector=, "
             "?runs=, ?phase=, ?state=, which may be repeated, ?search=, ?profile=, ?runtime=, "
             "?agent=, ?rollout=, ?standing=), and their count."),
    Endpoint("names", "GET", "/api/v1/names/{kind}", "operator", None, operator.Names,
             "Names of devices, models, releases (?model=) or rollouts (?prefix=, ?limit=)."),
    Endpoint("device", "GET", "/api/v1/devices/{device}", "operator", None,
             operator.DeviceView, "One device."),
    Endpoint("device_why", "GET", "/api/v1/devices/{device}/why", "operator", None,
             why.WaitReport, "Why a device runs its release, and what it waits for."),
    Endpoint("device_history", "GET", "/api/v1/devices/{device}/history", "operator", None,
             operator.DeviceHistory,
             "The attempts of a device, newest first: releases, ends, causes and durations."),
    Endpoint("device_figures", "GET", "/api/v1/devices/{device}/figures", "operator", None,
             device_figures.DeviceFigures,
             "The serving figures that a device reported since it was first asked for."),
    Endpoint("quarantined", "GET", "/api/v1/quarantined", "operator", None,
             operator.QuarantinedDevices,
             "Quarantined devices: two different releases of a model failed on each."),
    Endpoint("unquarantine", "POST", "/api/v1/devices/{device}/unquarantine", "operator",
             operator.Unquarantine, operator.DeviceView, "Take a device out of quarantine."),
    Endpoint("clear_copy", "POST", "/api/v1/devices/{device}/clear-copy", "operator",
             device_commands.ClearCopy, operator.DeviceView,
             "Clear a copied device: the copies of it are stopped."),
    Endpoint("label_device", "POST", "/api/v1/devices/{device}/labels", "operator",
             device_commands.LabelDevice, operator.DeviceView,
             "Set labels of the operator on a device, and remove some."),
    Endpoint("rename_device", "POST", "/api/v1/devices/{device}/rename", "operator",
             device_commands.RenameDevice, operator.DeviceView, "Give a device another name."),
    Endpoint("remove_device", "POST", "/api/v1/devices/{device}/remove", "operator",
             device_commands.RemoveDevice, device_commands.RemovedDevice,
             "Remove a device: it leaves every count, and its credential is valid no more."),
    Endpoint("add_truth", "POST", "/api/v1/truth", "operator", operator.TruthRequest,
             operator.TruthAdded, "Add late labels for the answers of a device."),
    Endpoint("freeze", "PUT", "/api/v1/freeze", "operator", rollout.Freeze, rollout.Freeze,
             "Freeze the whole fleet, or unfreeze it."),
    Endpoint("frozen", "GET", "/api/v1/freeze", "operator", None, rollout.Freeze,
             "Whether the whole fleet is frozen."),
    Endpoint("accept_restored", "POST", "/api/v1/accept-restored", "operator",
             restored.AcceptRestored, restored.AcceptedRestored,
             "Accept the state of a hub that was restored from an older copy."),
    Endpoint("approve", "POST", "/api/v1/rollouts/{rollout}/approve", "operator",
             rollout.ApproveRequest, rollout.RolloutView, "Approve a rollout, as a person."),
    Endpoint("plan", "POST", "/api/v1/rollouts", "operator", rollout.RolloutSpec,
             rollout.RolloutView, "Plan a rollout. A command or its start time starts it."),
    Endpoint("plan_fleet", "POST", "/api/v1/plans", "operator", rollout.RolloutSpec,
             operator.PlanFleet, "Check a plan and count its devices; the plan is not stored."),
    Endpoint("rollouts", "GET", "/api/v1/rollouts", "operator", None, operator.Rollouts,
             "One page of rollouts, newest first (?after=, ?limit=, ?model=, ?status=)."),
    Endpoint("rollout", "GET", "/api/v1/rollouts/{rollout}", "operator", None,
             rollout.RolloutView, "One rollout."),
    Endpoint("rollout_why", "GET", "/api/v1/rollouts/{rollout}/why", "operator", None,
             why.WaitReport, "The reasons why a rollout waits."),
    Endpoint("rollout_history", "GET", "/api/v1/rollouts/{rollout}/history", "operator", None,
             operator.RolloutHistory, "Devices by release over time."),
    Endpoint("command", "POST", "/api/v1/rollouts/{rollout}/{verb}", "operator",
             rollout.Command, rollout.RolloutView,
             "Send a verb: start, pause, resume, advance, halt or revert."),
    Endpoint("users", "GET", "/api/v1/users", "operator", None, people.Users,
             "The users of the hub."),
    Endpoint("user_add", "POST", "/api/v1/users", "operator", people.AddUser, people.UserView,
             "Add a user."),
    Endpoint("user_change", "POST", "/api/v1/users/{user}", "operator", people.ChangeUser,
             people.UserView, "Change the role of a user, disable or enable a user."),
    Endpoint("user_password", "POST", "/api/v1/users/{user}/password", "operator",
             people.ChangePassword, people.UserView, "Set the password of a user."),
    Endpoint("tokens", "GET", "/api/v1/tokens", "operator", None, people.Tokens,
             "The API tokens of this user; for an admin those of all users."),
    Endpoint("token_create", "POST", "/api/v1/tokens", "operator", people.CreateToken,
             people.CreatedToken, "Create an API token of a user. The answer alone has its text."),
    Endpoint("token_revoke", "POST", "/api/v1/tokens/{token}/revoke", "operator",
             people.RevokeToken, people.TokenView, "Revoke an API token."),
    Endpoint("login_link", "POST", "/api/v1/login-links", "operator", None, people.LoginLink,
             "Make a link that opens the page once, as this user."),
    Endpoint("events", "GET", "/api/v1/events", "operator", None, bytes,
             "What happens, as server-sent events with `Event` as data (?after= or the header "
             "Last-Event-ID, ?kind=, which may be repeated, ?follow=false).", "text/event-stream"),
    Endpoint("hooks", "GET", "/api/v1/hooks", "operator", None, hooks.Hooks,
             "The web hooks, with their positions and failures."),
    Endpoint("hook_add", "POST", "/api/v1/hooks", "operator", hooks.AddHook, hooks.CreatedHook,
             "Add a web hook. The answer alone has the key of its signatures."),
    Endpoint("hook_change", "POST", "/api/v1/hooks/{hook}", "operator", hooks.ChangeHook,
             hooks.HookView, "Enable or disable a web hook."),
    Endpoint("hook_remove", "POST", "/api/v1/hooks/{hook}/remove", "operator", hooks.RemoveHook,
             hooks.RemovedHook, "Remove a web hook and its dead letters."),
    Endpoint("hook_letters", "GET", "/api/v1/hooks/{hook}/dead-letters", "operator", None,
             hooks.DeadLetters, "The events that could not be delivered."),
    Endpoint("hook_replay", "POST", "/api/v1/hooks/{hook}/replay", "operator",
             hooks.ReplayLetters, hooks.Replayed,
             "Deliver dead letters once more, until one fails."),
    Endpoint("audit", "GET", "/api/v1/audit", "operator", None, operator.AuditPage,
             "The actions of people, gates and devices, newest first (?before=)."),
)  # fmt: skip

BY_NAME: Final = {endpoint.name: endpoint for endpoint in ENDPOINTS}
