"""Typed errors: each has a stable code, a party that must act, a hint and a retry rule.

Raise the class of the party that can fix the error::

    raise OperatorError("percent_not_rising", "5 % after 10 %", field="waves[1].percent")

The catalogue below lists every error. ``docs/reference/errors.md`` has a heading for each code, and
a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Final


class Party(StrEnum):
    """The party that must act before the operation can succeed."""

    DEVICE = "device"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    NETWORK = "network"
    US = "us"


class Retry(StrEnum):
    """The retry that a caller may do without a person."""

    NEVER = "never"  # the same call fails again
    LATER = "later"  # the same call, after a pause
    AFTER_FIX = "after_fix"  # after the fix that the hint describes


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the catalogue. ``status`` is the HTTP status of the error's response."""

    party: Party
    status: int
    retry: Retry
    hint: str


_D, _O, _P, _N, _U = Party.DEVICE, Party.OPERATOR, Party.PUBLISHER, Party.NETWORK, Party.US
_FIX, _LATER, _NEVER = Retry.AFTER_FIX, Retry.LATER, Retry.NEVER

CATALOG: Final[Mapping[str, ErrorKind]] = MappingProxyType(
    {
        # Errors in a release, for its publisher.
        "not_a_model": ErrorKind(_P, 422, _FIX, "Export the model to ONNX, then use that file."),
        "model_truncated": ErrorKind(_P, 422, _FIX, "Export the model or copy the file again."),
        "model_is_pickle": ErrorKind(
            _P,
            422,
            _FIX,
            "Export the model to ONNX: a pickle can run code, so it is never accepted.",
        ),
        "model_unsupported": ErrorKind(
            _P, 422, _FIX, "Export the model with operators that the runtime supports."
        ),
        "digest_mismatch": ErrorKind(_P, 422, _FIX, "Send the bytes again."),
        "signature_invalid": ErrorKind(
            _P, 422, _FIX, "Sign with a key that the hub and its devices trust."
        ),
        "golden_mismatch": ErrorKind(
            _P, 422, _FIX, "Build the golden set with the input names and shapes of the model."
        ),
        "golden_failed": ErrorKind(
            _P,
            422,
            _FIX,
            "Fix the variant, or its golden set, before you publish the release.",
        ),
        "calibration_invalid": ErrorKind(
            _P, 422, _FIX, "Give calibration data in the shape and the type of the model's inputs."
        ),
        "evaluation_invalid": ErrorKind(
            _P, 422, _FIX, "Give evaluation data with the model's inputs and the right answers."
        ),
        "step_failed": ErrorKind(
            _P, 422, _FIX, "Check the words of the tool, or leave the step out of the recipe."
        ),
        "training_missing": ErrorKind(
            _P, 422, _FIX, "Give a training function with --train, as FILE.py:function."
        ),
        "operators_unmapped": ErrorKind(
            _P,
            422,
            _FIX,
            "Export the model with operators of docs/optimize-tflite.md, or choose a profile "
            "without the accelerator.",
        ),
        "metric_failed": ErrorKind(
            _P,
            422,
            _FIX,
            "Fix the metric, or give right answers that fit the outputs of the model.",
        ),
        "bad_metric": ErrorKind(_P, 422, _FIX, "Choose a metric of the model's task."),
        "release_exists": ErrorKind(
            _P, 409, _NEVER, "Publish under a new version: a release is immutable."
        ),
        "release_incomplete": ErrorKind(_P, 422, _FIX, "Upload the missing artifacts first."),
        "artifact_too_large": ErrorKind(
            _P, 413, _FIX, "Make the artifact smaller, or raise the limit."
        ),
        "artifact_unreadable": ErrorKind(
            _P,
            422,
            _FIX,
            "Export the file again: a file that takes so much memory or time to read is refused.",
        ),
        "release_file_invalid": ErrorKind(_P, 422, _FIX, "Fix the named field of release.toml."),
        "profile_invalid": ErrorKind(_P, 422, _FIX, "Fix the named field of the profile's file."),
        "release_interface_changed": ErrorKind(
            _P,
            409,
            _FIX,
            "Keep the inputs and outputs of the release that runs today, or publish with "
            "--changes-interface: clients of that release would fail.",
        ),
        # Errors in a request, for the operator.
        "bad_request": ErrorKind(_O, 400, _FIX, "Fix the named field."),
        "over_quota": ErrorKind(
            _O, 429, _LATER, "Retry after the seconds in Retry-After, or send fewer requests."
        ),
        "unauthenticated": ErrorKind(
            _O,
            401,
            _FIX,
            "Give a valid token: --token, EDGEFLEET_TOKEN or --data-dir. An admin makes one with "
            "`edgefleet token create`.",
        ),
        "forbidden": ErrorKind(
            _O, 403, _FIX, "Ask an admin for the role: `edgefleet user role NAME ROLE`."
        ),
        "too_many_logins": ErrorKind(
            _O, 429, _LATER, "Wait for the seconds in Retry-After, or run `edgefleet hub login`."
        ),
        "oidc_unavailable": ErrorKind(
            _N,
            503,
            _LATER,
            "Check that the hub reaches the provider of --oidc-issuer. Until then, `edgefleet hub "
            "login` logs in.",
        ),
        "oidc_refused": ErrorKind(_O, 401, _FIX, "Sign in again, from the page of the hub."),
        "oidc_no_role": ErrorKind(
            _O,
            403,
            _FIX,
            "Ask an admin to give the role to a group of yours: --oidc-role GROUP=ROLE.",
        ),
        "too_many_requests": ErrorKind(_O, 429, _LATER, "Wait for the seconds in Retry-After."),
        "hook_address_refused": ErrorKind(
            _O, 422, _FIX, "Give a public address, or start the hub with --allow-local-hooks."
        ),
        "events_gone": ErrorKind(
            _O, 410, _FIX, "List the state again, then follow the events from now on."
        ),
        "cursor_invalid": ErrorKind(
            _O, 400, _FIX, "Give the `next` of the page before, or begin with the first page."
        ),
        "password_weak": ErrorKind(_O, 422, _FIX, "Choose a longer password."),
        "user_exists": ErrorKind(
            _O, 409, _FIX, "Choose another name, or change the user with `edgefleet user role`."
        ),
        "approves_own_plan": ErrorKind(
            _O,
            409,
            _FIX,
            "Ask another user with the role approver; add one with `edgefleet user add NAME --role "
            "approver`.",
        ),
        "not_found": ErrorKind(_O, 404, _FIX, "List the existing objects, then name one of them."),
        "percent_out_of_range": ErrorKind(
            _O, 422, _FIX, "Give percentages above 0 and at most 100."
        ),
        "percent_not_rising": ErrorKind(
            _O, 422, _FIX, "Make each wave larger than the wave before it."
        ),
        "waves_invalid": ErrorKind(_O, 422, _FIX, "Give between 1 and 20 waves, such as 1,10,100."),
        "selector_invalid": ErrorKind(
            _O, 422, _FIX, "Use Kubernetes syntax: site=lyon,tier in (gold,silver),!canary."
        ),
        "selector_key_unknown": ErrorKind(
            _O, 422, _FIX, "Run `edgefleet device list` to see the labels of devices."
        ),
        "fleet_empty": ErrorKind(
            _O,
            422,
            _FIX,
            "Widen the selector: `edgefleet device list` shows the labels of devices.",
        ),
        "variant_missing": ErrorKind(
            _O, 422, _FIX, "Publish a variant for that profile, or narrow the selector."
        ),
        "agent_one_model": ErrorKind(
            _O,
            422,
            _FIX,
            "Update the agents, narrow the selector, or leave them out: --skip-ineligible.",
        ),
        "memory_full": ErrorKind(
            _O,
            422,
            _FIX,
            "Skip these devices with --skip-ineligible, narrow the selector, or lower the memory "
            "limit of the variant.",
        ),
        "rollout_overlap": ErrorKind(
            _O, 409, _LATER, "Wait for the other rollout, or halt it, or narrow the selector."
        ),
        "release_current": ErrorKind(
            _O,
            409,
            _NEVER,
            "Plan another release.",
        ),
        "release_failed_before": ErrorKind(
            _O,
            409,
            _FIX,
            "Publish a new release, or plan this one once more with `--again REASON`.",
        ),
        "interface_changed": ErrorKind(
            _O,
            409,
            _FIX,
            "Change the clients of the release that runs today first, then plan with "
            "--changes-interface.",
        ),
        "again_not_needed": ErrorKind(_O, 409, _FIX, "Plan the release without `--again`."),
        "verb_not_now": ErrorKind(
            _O, 409, _FIX, "Run `edgefleet rollout why` to see what the rollout waits for."
        ),
        "form_stale": ErrorKind(_O, 403, _FIX, "Reload the page, then repeat the action."),
        "exposure_invalid": ErrorKind(
            _O, 422, _FIX, "Set exposure.first to 1 or more, exposure.ceiling to 0 to 1."
        ),
        "pace_invalid": ErrorKind(_O, 422, _FIX, "Give a number of 0 or more; 0 is unlimited."),
        "budget_invalid": ErrorKind(_O, 422, _FIX, "Give a label, and max_in_trial of 1 or more."),
        "window_invalid": ErrorKind(
            _O, 422, _FIX, "Give HH:MM to HH:MM, days such as mon, and a zone such as Europe/Paris."
        ),
        "approval_invalid": ErrorKind(_O, 422, _FIX, "Set approval.people to 0, 1 or 2."),
        "device_not_quarantined": ErrorKind(
            _O, 409, _NEVER, "Run `edgefleet device why` to see the device's status."
        ),
        "device_not_copied": ErrorKind(
            _O, 409, _NEVER, "Run `edgefleet device list --copied` to see the copied devices."
        ),
        "name_taken": ErrorKind(_O, 409, _FIX, "Choose another name, or rename the other device."),
        "labels_unsupported": ErrorKind(
            _O, 409, _FIX, "Update the agent, or post the labels to the serving process itself."
        ),
        "too_many_labels": ErrorKind(
            _O, 409, _LATER, "Send fewer, or wait until the device has checked in for them."
        ),
        "approved_already": ErrorKind(_O, 409, _FIX, "Ask another person to approve it."),
        "gate_invalid": ErrorKind(_O, 422, _FIX, "Fix the named field of the gate."),
        "name_invalid": ErrorKind(
            _O, 422, _FIX, "Use 1 to 63 letters, digits, dots, dashes or underscores."
        ),
        "setting_invalid": ErrorKind(_O, 400, _FIX, "Fix the named option, variable or TOML key."),
        "address_in_use": ErrorKind(
            _O, 500, _FIX, "Choose another port, or stop the program that listens there."
        ),
        "data_dir_in_use": ErrorKind(
            _O,
            500,
            _FIX,
            "Stop the other hub or agent, or choose another folder.",
        ),
        "store_foreign": ErrorKind(
            _O, 500, _FIX, "Start the version that wrote the store, or give another data folder."
        ),
        "data_dir_damaged": ErrorKind(
            _O, 500, _FIX, "Restore a backup: `edgefleet hub restore BACKUP --data-dir DIR`."
        ),
        # Errors on a device, or in its requests.
        "claim_used": ErrorKind(
            _D, 409, _NEVER, "Ask the operator for a new claim: a claim enrols one device."
        ),
        "claim_unknown": ErrorKind(_D, 401, _NEVER, "Ask the operator for a claim."),
        "claim_expired": ErrorKind(_D, 410, _NEVER, "Ask the operator for a new claim."),
        "device_name_taken": ErrorKind(_D, 409, _FIX, "Enrol under another name."),
        "credential_invalid": ErrorKind(_D, 401, _FIX, "Enrol the device again."),
        "device_removed": ErrorKind(_D, 401, _NEVER, "Enrol the device again with a new claim."),
        "device_unknown": ErrorKind(
            _D,
            401,
            _LATER,
            "Run `edgefleet hub accept-restored` if the hub was restored from an older copy: then "
            "the device enrols again by itself.",
        ),
        "reenrolment_not_allowed": ErrorKind(
            _D, 403, _LATER, "Ask the operator to run `edgefleet hub accept-restored`."
        ),
        "checkin_malformed": ErrorKind(_D, 400, _NEVER, "Update the agent."),
        "checkin_replayed": ErrorKind(
            _D,
            409,
            _FIX,
            "Continue with next_seq of the answer.",
        ),
        "protocol_unsupported": ErrorKind(_D, 426, _FIX, "Update the agent or the hub."),
        "body_too_large": ErrorKind(_D, 413, _NEVER, "Send a smaller body."),
        "head_too_large": ErrorKind(_D, 431, _NEVER, "Send fewer or shorter headers."),
        "request_too_slow": ErrorKind(_D, 408, _LATER, "Send the request again."),
        "request_malformed": ErrorKind(_D, 400, _NEVER, "Send well-formed HTTP/1.1."),
        "method_not_allowed": ErrorKind(
            _O, 405, _NEVER, "Use the endpoint's method, see docs/reference/api.md."
        ),
        "range_invalid": ErrorKind(_D, 416, _FIX, "Ask for a range within the artifact."),
        "disk_full": ErrorKind(
            _D, 507, _LATER, "Free space on the device: the attempt then continues."
        ),
        "disk_readonly": ErrorKind(
            _D, 507, _LATER, "Replace the card or mount the disk for writing: the device goes on."
        ),
        "disk_failed": ErrorKind(
            _D, 507, _LATER, "Check the disk and the owner of the data folder: the device goes on."
        ),
        "state_foreign": ErrorKind(_D, 507, _FIX, "Run the agent version that wrote the state."),
        "memory_short": ErrorKind(
            _D,
            507,
            _FIX,
            "Free memory on the device, raise the limit of its group or of the variant, or publish "
            "a smaller model.",
        ),
        "manifest_unreadable": ErrorKind(
            _D, 422, _FIX, "Update the agent of the device, then offer the release again."
        ),
        "runtime_missing": ErrorKind(
            _D, 500, _FIX, "Install the runtime: pip install 'edgefleet[serving]'."
        ),
        "golden_refused": ErrorKind(
            _D,
            422,
            _NEVER,
            "Publish a release whose variant passes its golden set on this hardware.",
        ),
        "inference_failed": ErrorKind(
            _D, 500, _LATER, "See the serving log for the model's error."
        ),
        "not_ready": ErrorKind(
            _D, 503, _LATER, "See the agent's log: the device has no active release yet."
        ),
        "overloaded": ErrorKind(_D, 503, _LATER, "Retry after the seconds in Retry-After."),
        # Errors of the network.
        "unreachable": ErrorKind(
            _N, 503, _LATER, "Check that the server runs and that the address is right."
        ),
        "timeout": ErrorKind(_N, 504, _LATER, "Try again, or run `edgefleet doctor`."),
        "connection_lost": ErrorKind(_N, 502, _LATER, "Try again."),
        "transfer_damaged": ErrorKind(
            _N, 502, _LATER, "Wait until the device fetches the bytes again by itself."
        ),
        "redirected": ErrorKind(
            _N, 502, _FIX, "Give the address to which the server redirects, if it is the hub's."
        ),
        "answer_malformed": ErrorKind(
            _N, 502, _LATER, "Check the address: its server does not answer as a hub does."
        ),
        # Errors of edgefleet itself.
        "internal": ErrorKind(_U, 500, _LATER, "Report it: this is a defect of edgefleet."),
        "demo_failed": ErrorKind(_U, 500, _NEVER, "See the failed checks above."),
    }
)


class EdgefleetError(Exception):
    """An error with a code, a hint and a party that can fix it. Raise one of the five subclasses.

    ``code`` is a key of ``CATALOG``. ``field`` is the path of the invalid input, such as
    ``waves[1].percent``. ``hint`` replaces the hint of the catalogue.

    ``reason`` is a stable word for programs where one code has several causes, see ``Overloaded``.
    ``retry_after_s`` is the pause in seconds before a retry, for errors that pass.
    """

    party: ClassVar[Party] = Party.US
    reason: str = ""
    retry_after_s: float = 1.0

    def __init__(
        self, code: str, message: str, *, field: str | None = None, hint: str | None = None
    ) -> None:
        kind = CATALOG[code]
        if kind.party is not self.party:
            msg = f"{code} belongs to {kind.party}, but was raised as {type(self).__name__}"
            raise AssertionError(msg)
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.hint = hint or kind.hint
        self.retry = kind.retry
        self.status = kind.status

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        return f"{self.code}{where}: {self.message} {self.hint}"


class DeviceError(EdgefleetError):
    """The device, or a program on it, must act."""

    party = Party.DEVICE


class Overloaded(DeviceError):  # noqa: N818 - a state, which passes
    """``overloaded``, with the bound that was reached as ``reason``.

    The reasons: ``connections``, ``peer_connections``, ``memory``, ``queue_full``, ``deadline`` and
    ``stopping``.
    """

    def __init__(
        self, reason: str, message: str, *, retry_after_s: float = 1.0, hint: str | None = None
    ) -> None:
        super().__init__("overloaded", message, hint=hint)
        self.reason = reason
        self.retry_after_s = retry_after_s


class OperatorError(EdgefleetError):
    """The operator must act."""

    party = Party.OPERATOR


class PublisherError(EdgefleetError):
    """The publisher of the release must act."""

    party = Party.PUBLISHER


class NetworkError(EdgefleetError):
    """The network failed. Try again later."""

    party = Party.NETWORK


class InternalError(EdgefleetError):
    """A defect of edgefleet."""

    party = Party.US


_CLASSES: Final = {
    kind.party: kind for kind in (DeviceError, OperatorError, PublisherError, NetworkError)
}


def error_from_code(
    code: str, message: str, *, field: str | None = None, hint: str | None = None
) -> EdgefleetError:
    """The typed error of ``code``. An unknown code (of a newer peer) gives ``InternalError``."""
    kind = CATALOG.get(code)
    if kind is None:
        return InternalError("internal", f"{code}: {message}", field=field, hint=hint)
    return _CLASSES.get(kind.party, InternalError)(code, message, field=field, hint=hint)
